//! Damaged files and a directory in use, as a person meets them. (The storage crate's tests do this exhaustively.)

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::process::{backstay, files, output, repository, stderr, succeed};

/// Runs part of the flights example so that there are checkpoints, runs and a log; gives the data directory.
fn prepared(temp: &Path) -> (PathBuf, PathBuf) {
    let sql = repository().join("examples/flights/flights.sql");
    let data = temp.join("data");
    let mut child = backstay(["run", sql.to_str().unwrap(), "--data-dir", data.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // At least two checkpoints after the first, and steps in the log behind them.
    while files(&data.join("checkpoints")).keys().filter_map(|f| number(f)).max().unwrap_or(0) < 3 {
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();
    (sql, data)
}

/// `00000001-00000003.manifest` is checkpoint 3.
fn number(file: &str) -> Option<u64> {
    file.strip_suffix(".manifest")?.split_once('-')?.1.parse().ok()
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn newest(dir: &Path) -> PathBuf {
    dir.join(files(dir).keys().next_back().unwrap())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn flipped_bits_are_errors_with_their_place_or_an_older_checkpoint_loudly() {
    let temp = tempfile::tempdir().unwrap();
    let (sql, data) = prepared(temp.path());
    let sound = output(["inspect", data.to_str().unwrap(), "--verify"]);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stdout));

    // Outputs belong to the original directory: DATA_DIR moves with a copy.
    let damaged = |name: &str, damage: &dyn Fn(&Path)| {
        let copied = temp.path().join(name);
        copy(&data, &copied);
        damage(&copied);
        let inspected = output(["inspect", copied.to_str().unwrap(), "--verify"]);
        let report = String::from_utf8_lossy(&inspected.stdout).into_owned();
        assert_eq!(inspected.status.code(), Some(3), "{name}: {report}");
        let run = output(["run", sql.to_str().unwrap(), "--data-dir", copied.to_str().unwrap(), "--until-end"]);
        (report, run.status.code(), stderr(&run), copied)
    };

    let (report, code, text, copied) = damaged("manifest", &|dir| flip(&newest(&dir.join("checkpoints")), 100));
    assert!(report.contains("DAMAGED") && report.contains("manifest"), "{report}");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("warning") && text.contains("manifest"), "the older checkpoint is taken loudly: {text}");
    // And what comes of it is right.
    let calm = temp.path().join("calm");
    succeed(["run", sql.to_str().unwrap(), "--data-dir", calm.to_str().unwrap(), "--until-end"]);
    assert!(files(&calm.join("out")) == files(&copied.join("out")), "outputs differ after falling back");

    // The first data block of the oldest kept segment that has one: below the promise of later commits.
    let (report, code, text, _) = damaged("log", &|dir| {
        // The newest may have been made ahead, and have not begun: then its link is not written.
        let begun = |bytes: &[u8]| bytes[4096..8192].iter().any(|b| *b != 0);
        let log = files(&dir.join("log"));
        let last = log.iter().rfind(|(name, bytes)| name.ends_with(".seg") && begun(bytes));
        flip(&dir.join("log").join(last.expect("a log").0), 8192 + 40);
    });
    assert!(report.contains("DAMAGED log block") && report.contains("offset 8192"), "{report}");
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("offset 8192") && text.contains("expected") && text.contains("got"), "{text}");

    let (report, code, text, _) = damaged("runs", &|dir| {
        // Blocks are read when they are needed: so that some damaged one is, each page of each file is damaged.
        for (file, bytes) in files(&dir.join("runs")) {
            for page in 1..bytes.len() / 4096 {
                flip(&dir.join("runs").join(&file), page * 4096 + 64);
            }
        }
    });
    assert!(report.contains("DAMAGED") && report.contains(".run"), "{report}");
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(".run") && text.contains("expected") && text.contains("got"), "{text}");
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let sql = repository().join("examples/flights/flights.sql");
    let data = temp.path().join("data");
    let args = ["run", sql.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let mut first = backstay(args).stderr(Stdio::null()).spawn().unwrap();
    while !data.join("log").exists() {
        assert!(first.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let second = output(args);
    let text = stderr(&second);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(second.status.code(), Some(4), "{text}");
    assert!(text.contains("in use") && text.contains(&format!("pid {}", first.id())), "{text}");
}
