//! Opening a long log after a crash. A child process fills it, goes on appending, and is killed (SIGKILL) in the middle of it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use backstay_storage::disk::{self, Disk};
use backstay_storage::log::Log;

use crate::Bench;
use crate::bytes::Noise;
use crate::contender::backstay::{STORE, options};
use crate::report::{self, Report, Target};
use crate::turns::{Figures, ROUNDS};

/// Bytes of the log.
const BYTES: u64 = 10 << 30;
const QUICK_BYTES: u64 = 1 << 30;
/// What must be free beyond them: segments prepared ahead, and others who use the disk.
const SLACK: u64 = 4 << 30;
/// Bytes that each later child adds.
const MORE: u64 = 64 << 20;

/// The first word of a child's command line.
const CHILD: &str = "--fill-and-be-killed";
/// What it prints when the log is filled.
const FILLED: &str = "filled";
/// A child that nobody kills ends by itself after that long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Every round kills a child and opens what it left; caches are cold where the bench may drop them.
pub fn run(bench: &Bench, report: &mut Report) {
    let bytes = if bench.quick { QUICK_BYTES } else { BYTES };
    let row = format!("open after a kill, {} GiB of log", bytes >> 30);
    report::title(&format!("reopen: {row}"));
    let free = rustix::fs::statvfs(&bench.folder).map(|s| s.f_bavail * s.f_frsize).expect("statvfs");
    if free < bytes + SLACK {
        let why = format!("{} GiB are free here, {} are needed", free >> 30, (bytes + SLACK) >> 30);
        return report.left_out(&row, &why);
    }
    let folder = bench.new_folder();
    if let Err(why) = drop_caches(folder.path()) {
        println!("  only the files' own pages are dropped before it is opened, not all caches: {why}");
    }
    let (mut cold, mut again) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        fill_and_kill(folder.path(), if round == 0 { bytes } else { MORE }, round);
        let _ = drop_caches(folder.path());
        cold.push(open(bench, folder.path()));
        // At once again: what the first opening left behind is found, and caches are warm.
        again.push(open(bench, folder.path()));
    }
    let cold = Figures { name: "backstay, after a kill".into(), rounds: cold };
    let again = Figures { name: "backstay, at once again (warm, nothing in flight)".into(), rounds: again };
    report::table("ms", &[cold.clone(), again]);
    report.absolute(&row, &cold, Target::Under(100.0));
}

/// Milliseconds for what a program must do to open: find the newest epoch, and open.
fn open(bench: &Bench, folder: &Path) -> f64 {
    // A killed process frees its lock only when the kernel has ended its last write.
    let _lock = bench.disk.lock_dir(folder).expect("lock");
    let log_folder = folder.join("log");
    let begun = Instant::now();
    let epoch = Log::newest_epoch(&*bench.disk, &log_folder).expect("newest epoch") + 1;
    let log = Log::open(Arc::clone(&bench.disk), &log_folder, STORE, epoch, options()).expect("open the log");
    let took = begun.elapsed().as_secs_f64() * 1e3;
    drop(log);
    took
}

/// Runs a child until it says that the log is filled, and kills it a little later.
fn fill_and_kill(folder: &Path, bytes: u64, round: usize) {
    let program = std::env::current_exe().expect("the path of this program");
    let mut child = Command::new(program)
        .arg(CHILD)
        .arg(folder)
        .arg(bytes.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let output = child.stdout.take().expect("the child's output");
    let filled = BufReader::new(output).lines().map_while(Result::ok).any(|line| line == FILLED);
    assert!(filled, "the child ended before it had filled the log");
    thread::sleep(Duration::from_millis(50 + 37 * round as u64));
    child.kill().expect("kill");
    child.wait().expect("wait for the child");
}

/// What a child was told, if this process is one: a folder and a number of bytes.
pub fn child_words() -> Option<Vec<String>> {
    let mut words = std::env::args().skip(1);
    (words.next().as_deref() == Some(CHILD)).then(|| words.collect())
}

/// Fills the log and goes on until it is killed.
pub fn child(words: &[String]) -> ExitCode {
    let [folder, bytes] = words else { return ExitCode::FAILURE };
    let (folder, bytes): (&Path, u64) = (folder.as_ref(), bytes.parse().expect("bytes"));
    let disk: Arc<dyn Disk> = disk::system();
    let _lock = disk.lock_dir(folder).expect("lock");
    let log_folder = folder.join("log");
    let epoch = Log::newest_epoch(&*disk, &log_folder).expect("newest epoch") + 1;
    let log = Log::open(disk, &log_folder, STORE, epoch, options()).expect("open the log");
    let noise = Noise::new();
    let piece = 256 << 10;
    for n in 0..bytes / piece as u64 {
        log.append(noise.payload(n, piece)).expect("append");
        log.submit().expect("submit");
    }
    log.commit().expect("commit");
    println!("{FILLED}");
    let (begun, mut n) = (Instant::now(), 0);
    while begun.elapsed() < PATIENCE {
        // Some are waited for, some are in flight.
        let seq = log.append(noise.payload(n, 3000)).expect("append");
        log.submit().expect("submit");
        if n % 3 == 0 {
            log.wait_durable(seq).expect("wait");
        }
        n += 1;
    }
    ExitCode::FAILURE
}

/// Drops the pages of all files below a folder, and every cache of the kernel where that is allowed; else why it is not.
pub fn drop_caches(folder: &Path) -> std::io::Result<()> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let file = File::open(entry.path())?;
            // Pages that are not on disk yet cannot be dropped.
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    fs::write("/proc/sys/vm/drop_caches", "3")
}
