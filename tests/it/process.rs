//! The program as a process: start it, kill it, read what it leaves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `backstay` with these arguments.
pub fn backstay<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn output<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    backstay(args).output().unwrap()
}

/// What it said on stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs it and expects it to succeed.
pub fn succeed<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = output(args);
    let stderr = stderr(&output);
    assert!(output.status.success(), "ended with {}:\n{stderr}", output.status);
    stderr
}

/// Runs a script that drives what others wrote. What it says is the failure; if it ends with 3, what it drives cannot be had here: that is said on standard
/// error, unless `BACKSTAY_REQUIRE_SERVERS` is set.
pub fn drive(script: &mut Command) {
    let output = script.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => {}
        Some(3) if std::env::var_os("BACKSTAY_REQUIRE_SERVERS").is_none() => eprintln!("SKIPPED: {said}"),
        _ => panic!("{script:?} ended with {}:\n{said}", output.status),
    }
}

/// The repository's folder.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder, by name, less those that a running pipeline deletes while we look.
pub fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(dir) else { return BTreeMap::new() };
    let read = entries.filter_map(|entry| {
        let path = entry.unwrap().path();
        let content = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
            content => content.unwrap(),
        };
        Some((path.file_name().unwrap().to_string_lossy().into_owned(), content))
    });
    read.collect()
}

fn bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.filter_map(|e| e.ok()?.metadata().ok()).map(|m| m.len()).sum()
}

/// A pipeline's process that a test is about to kill.
pub struct Victim {
    child: Child,
    out: PathBuf,
}

impl Victim {
    /// Starts `backstay run` with its outputs in `out`.
    pub fn start(args: &[&str], out: &Path) -> Self {
        std::fs::create_dir_all(out.parent().unwrap()).unwrap();
        let log = std::fs::File::create(out.with_extension("log")).unwrap();
        let child = backstay(args).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, out: out.to_path_buf() }
    }

    /// Kills it once `moment` bytes of output are there, and `later` after that. False: it had ended before.
    pub fn kill_at(mut self, moment: u64, later: Duration) -> bool {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(self.out.with_extension("log")).unwrap_or_default();
                assert!(status.success(), "ended with {status}:\n{log}");
                return false;
            }
            if bytes(&self.out) >= moment {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(later);
        // SIGKILL.
        self.child.kill().unwrap();
        !self.child.wait().unwrap().success()
    }
}

/// The rows that a view's file adds up to, as text with their weights; rows of weight zero are left out.
pub fn integrate(name: &str, file: &[u8]) -> BTreeMap<String, i64> {
    let mut rows: BTreeMap<String, i64> = BTreeMap::new();
    let text = std::str::from_utf8(file).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{name} ends in the middle of a line");
    let csv = name.ends_with(".csv");
    for line in text.lines().skip(usize::from(csv)) {
        let (row, weight) = if csv {
            let (row, op) = line.rsplit_once(',').unwrap();
            (row.to_string(), op)
        } else {
            let op = if line.contains("\"insert\":") { "insert" } else { "delete" };
            let (_, row) = line.split_once(&format!("\"{op}\":")).unwrap();
            (row.strip_suffix('}').unwrap().to_string(), op)
        };
        *rows.entry(row).or_default() += match weight {
            "insert" => 1,
            "delete" => -1,
            other => panic!("{name}: neither insert nor delete: {other} in {line}"),
        };
    }
    rows.retain(|_, weight| *weight != 0);
    rows
}

/// A pipeline's process that runs until a test ends it, or it fails.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `backstay run` over a program; what it says goes to a file beside `data`.
    pub fn start(sql: &Path, data: &Path, more: &[&str]) -> Self {
        let log = data.with_extension("log");
        let args = ["run", sql.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        let said = std::fs::File::create(&log).unwrap();
        Self { child: backstay(args.iter().chain(more)).stdout(Stdio::null()).stderr(said).spawn().unwrap(), log }
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Its process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Fails the test if it has ended.
    pub fn is_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it ended with {status}: {}", self.said());
        }
    }

    /// Waits until something holds.
    pub fn wait_until(&mut self, what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + patience;
        while !holds() {
            self.is_alive();
            assert!(Instant::now() < end, "{what} does not come: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it has said all of this.
    pub fn wait_until_said(&mut self, words: &[&str], patience: Duration) {
        let log = self.log.clone();
        self.wait_until(&format!("word of {words:?}"), patience, || {
            let said = std::fs::read_to_string(&log).unwrap();
            words.iter().all(|word| said.contains(word))
        });
    }

    /// SIGKILL, of one that runs.
    pub fn kill(mut self) {
        self.is_alive();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it gracefully.
    pub fn stop(mut self) {
        self.is_alive();
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)
            .unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.said());
    }

    /// What it says when it ends with an error.
    pub fn fails(mut self, patience: Duration) -> String {
        let end = Instant::now() + patience;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!self.child.wait().unwrap().success());
        self.said()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
