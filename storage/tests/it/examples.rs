//! The examples as real processes, killed with SIGKILL at random moments where that is what they claim to survive.
//!
//! `BACKSTAY_KILLS` (default 6) is how often each is killed; `BACKSTAY_SEED` draws the moments. They are not exact: the seed
//! fixes after how many lines of output and how much later, not what the machine does meanwhile.
#![expect(clippy::disallowed_methods, reason = "processes, their files and their time are what is tested here")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::{Duration, SystemTime};

use crate::store::{Rng, number_from, seed};

/// The newest change below a folder.
fn newest(dir: &Path) -> SystemTime {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let changed = |path: PathBuf| match path.is_dir() {
        true => newest(&path),
        false => std::fs::metadata(&path).unwrap().modified().unwrap(),
    };
    entries.map(changed).max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The example's program. `cargo test` has built it, unless only this test binary was asked for.
fn program(name: &str) -> PathBuf {
    static FRESH: Once = Once::new();
    let profile = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf();
    let program = profile.join("examples").join(name);
    FRESH.call_once(|| {
        let storage = Path::new(env!("CARGO_MANIFEST_DIR"));
        let source = newest(&storage.join("src")).max(newest(&storage.join("examples")));
        if std::fs::metadata(&program).and_then(|m| m.modified()).is_ok_and(|built| built > source) {
            return;
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--examples", "--features", "sim"]).current_dir(storage);
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "{cargo:?}");
    });
    program
}

/// How a run of an example ended.
struct Run {
    /// Whole lines of its output.
    lines: Vec<String>,
    /// Whether it was killed; else it ended by itself, and well.
    killed: bool,
}

/// Runs an example. With a moment, it is killed once it has written so many lines and so many microseconds have passed.
fn run(name: &str, args: &[&str], moment: Option<(u64, u64)>) -> Run {
    let mut command = Command::new(program(name));
    let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    if let Some((lines, later)) = moment {
        for _ in 0..lines {
            if output.read_line(&mut text).unwrap() == 0 {
                break;
            }
        }
        std::thread::sleep(Duration::from_micros(later));
        child.kill().unwrap();
    }
    output.read_to_string(&mut text).unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let status = child.wait().unwrap();
    let killed = status.code().is_none() && moment.is_some();
    assert!(killed || status.success(), "{name} {args:?}: {status}\n{errors}");
    assert!(errors.is_empty(), "{name} {args:?}: {errors}");
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    Run { lines: text[..whole].lines().map(str::to_owned).collect(), killed }
}

/// Runs an example, killing it now and then up to `later` microseconds after one of its first `lines` lines, until it ends
/// by itself. Gives each run.
fn run_with_kills(name: &str, args: &[&str], lines: u64, later: u64) -> Vec<Run> {
    let kills = number_from("BACKSTAY_KILLS", 6);
    let mut rng = Rng(seed() ^ name.len() as u64);
    let mut runs: Vec<Run> = Vec::new();
    for _ in 0..kills {
        let moment = (rng.below(lines), rng.below(later));
        println!("BACKSTAY_SEED={}: {name} is killed after {moment:?}", seed());
        runs.push(run(name, args, Some(moment)));
        if runs.last().is_some_and(|run| !run.killed) {
            return runs;
        }
    }
    runs.push(run(name, args, None));
    runs
}

/// The number behind a word in a line.
fn number(line: &str, word: &str) -> Option<u64> {
    line.split_once(word)?.1.split_whitespace().next()?.parse().ok()
}

#[test]
fn the_counter_never_goes_back_nor_counts_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (mut printed, mut killed) = (0, 0);
    let runs = run_with_kills("counter", &[dir.path().to_str().unwrap(), "6000"], 300, 5000);
    for run in &runs {
        for line in &run.lines {
            if let Some(found) = number(line, "the count is ") {
                assert!(found == printed || found == printed + 10, "{printed} was printed, {found} found");
                printed = found;
            } else if let Ok(count) = line.parse::<u64>() {
                assert_eq!(count, printed + 10);
                printed = count;
            }
        }
        killed += u64::from(run.killed);
    }
    assert!(printed == 6000 && killed > 0, "it ended at {printed}, after {killed} kills");
}

#[test]
fn the_changelog_tells_the_same_changes_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // By step: its changes, as they were told first.
    let changes = |runs: &[Run]| {
        let mut by_step: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for run in runs {
            let mut of_run: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            for line in run.lines.iter().filter(|line| !line.starts_with('=')) {
                let step = line.split(' ').next().unwrap().parse().unwrap();
                of_run.entry(step).or_default().push(line.clone());
            }
            let last = of_run.last_key_value().map(|(step, _)| *step);
            for (step, told) in of_run {
                let before = by_step.entry(step).or_default();
                let n = before.len().min(told.len());
                assert_eq!(before[..n], told[..n], "step {step} is told differently");
                // A kill may cut the last one.
                assert!(before.len() <= told.len() || last == Some(step), "step {step} is told in part");
                if before.len() < told.len() {
                    *before = told;
                }
            }
        }
        by_step
    };
    let table = |run: &Run| run.lines.iter().filter(|line| line.starts_with('=')).cloned().collect::<Vec<_>>();
    let whole = run("changelog", &[&path("whole"), "700"], None);
    let runs = run_with_kills("changelog", &[&path("killed"), "700"], 600, 5000);
    assert!(runs[0].killed, "the first run was over before its kill");
    assert_eq!(table(runs.last().unwrap()), table(&whole));
    let expected = changes(&[whole]);
    assert_eq!(changes(&runs), expected);
    // The changes add up to the table.
    let mut summed = BTreeMap::new();
    for line in expected.values().flatten() {
        let mut words = line.split(' ').skip(1);
        let (key, value) = (words.next().unwrap(), words.next().unwrap());
        match key.strip_prefix('+') {
            Some(key) => assert_eq!(summed.insert(key, value), None, "{line}"),
            None => assert_eq!(summed.remove(&key[1..]), Some(value), "{line}"),
        }
    }
    let summed: Vec<_> = summed.iter().map(|(key, value)| format!("= {key} {value}")).collect();
    assert_eq!(summed, table(runs.last().unwrap()));
}

#[test]
fn the_index_answers_as_if_it_was_never_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let answers = |run: &Run| run.lines.iter().filter(|l| l.starts_with("sensor")).cloned().collect::<Vec<_>>();
    let whole = run("range_index", &[&path("whole"), "4000"], None);
    let runs = run_with_kills("range_index", &[&path("killed"), "4000"], 4, 100_000);
    assert!(runs[0].killed, "the first run was over before its kill");
    assert_eq!(answers(runs.last().unwrap()), answers(&whole));
    assert_eq!(answers(&whole).len(), 16);
}

#[test]
fn recovery_keeps_what_was_acknowledged_and_every_penny() {
    let dir = tempfile::tempdir().unwrap();
    let runs = run_with_kills("recover", &[dir.path().to_str().unwrap(), "12000"], 400, 5000);
    assert!(runs[0].killed, "the first run was over before its kill");
    let mut durable = 0;
    for run in &runs {
        for line in &run.lines {
            if let Some(found) = number(line, "recovered ") {
                assert!(found >= durable, "{durable} were acknowledged, {found} recovered");
            } else if line.ends_with("are durable") {
                durable = line.split(' ').next().unwrap().parse().unwrap();
            }
        }
    }
    // The sum is checked by the example itself, which ends badly if it is wrong.
    assert_eq!(durable, 12_000);
}

#[test]
fn snapshots_and_savepoints_hold_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let runs = run_with_kills("snapshot", &[path], 3, 100_000);
    assert!(runs.last().unwrap().lines.last().unwrap().contains("was copied"));
    assert!(number(&run("snapshot", &[path], None).lines[0], "goes on behind step ").is_some_and(|step| step >= 200));
}

#[test]
fn the_log_has_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let runs = run_with_kills("log", &[dir.path().to_str().unwrap()], 2, 200_000);
    // It checks that there are no holes, and ends badly if there is one.
    assert!(runs.last().unwrap().lines[0].contains("records are durable"));
}
