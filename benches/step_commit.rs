//! What a durable step commit costs: a record of 300 bytes appended to the log and waited for, one at a time.
//!
//! In the same run, in turns, so that a noisy machine is noisy to all:
//! - `raw O_DSYNC`: 4 KiB over a file that was written before, `O_DIRECT` and `O_DSYNC`, one at a time; and
//!   `raw fdatasync`: the same as a plain write and a sync. The faster of the two is what the device can do: which one that is differs;
//! - `growing file`: 300 bytes appended to a file, then `fdatasync`: a simple log;
//! - `file per step`: a new file, fsync, rename, directory fsync: a simple store of steps.

#![expect(clippy::disallowed_methods, reason = "a bench measures time, and its peers use files as other programs do")]

mod common;
#[path = "common/figures.rs"]
mod figures;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use backstay_storage::disk::{self, AlignedBuf, DiskStats};
use backstay_storage::log::{Log, LogOptions, LogStats};

use common::Args;
use figures::median;

const RECORD: [u8; 300] = [7; 300];
const ROUNDS: u32 = 4;
/// Blocks of the raw peer's file.
const RAW_BLOCKS: u64 = 4096;

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
const O_DIRECT: i32 = 0o40000;
#[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
const O_DIRECT: i32 = 0o200000;
const O_DSYNC: i32 = 0o10000;

/// Makes one step durable.
type Step<'a> = Box<dyn FnMut(u64) + 'a>;

fn main() {
    let args = Args::parse();
    let folder = args.folder();
    let disk = disk::system();
    disk.probe(folder.path()).expect("probe");
    println!("step_commit: a {}-byte step record made durable, one at a time", RECORD.len());
    common::describe_machine(folder.path(), &*disk);

    let epoch = 1;
    let log = Log::open(disk.clone(), &folder.path().join("log"), 7, epoch, LogOptions::default()).expect("log");
    let (log_before, disk_before) = (log.stats(), disk.stats());
    let mut contenders: Vec<(&str, Step<'_>)> = vec![
        (
            "backstay log",
            Box::new(|_| {
                log.append(&RECORD).expect("append");
                log.commit().expect("commit");
            }),
        ),
        ("raw O_DSYNC", raw(&folder.path().join("raw"), true)),
        ("raw fdatasync", raw(&folder.path().join("raw 2"), false)),
        ("growing file", growing(&folder.path().join("growing"))),
        ("file per step", file_per_step(folder.path())),
    ];
    let each = Duration::from_millis(args.seconds.map_or(1500, |s| s * 1000 / 5 / u64::from(ROUNDS)));
    let mut latencies: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (i, (_, step)) in contenders.iter_mut().enumerate() {
            let (begun, before) = (Instant::now(), latencies[i].len());
            while begun.elapsed() < each {
                let start = Instant::now();
                step(latencies[i].len() as u64);
                latencies[i].push(start.elapsed().as_secs_f64() * 1e6);
            }
            rates[i].push((latencies[i].len() - before) as f64 / begun.elapsed().as_secs_f64());
        }
    }
    let names: Vec<&str> = contenders.iter().map(|(name, _)| *name).collect();
    drop(contenders);
    table(&names, &mut latencies, &rates);
    count(latencies[0].len() as u64, (log_before, log.stats()), (disk_before, disk.stats()));
}

fn table(names: &[&str], latencies: &mut [Vec<f64>], rates: &[Vec<f64>]) {
    println!(
        "\n{:<15} {:>10} {:>10} {:>10} {:>10} {:>11} {:>8}",
        "", "commits/s", "p50 us", "p99 us", "p99.9 us", "max us", "of raw"
    );
    let raw = median(&rates[1]).max(median(&rates[2]));
    for (i, name) in names.iter().enumerate() {
        let sorted = &mut latencies[i];
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize];
        let rate = median(&rates[i]);
        println!(
            "{name:<15} {rate:>10.0} {:>10.0} {:>10.0} {:>10.0} {:>11.0} {:>7.1}%",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            100.0 * rate / raw
        );
    }
    let (log, growing, files) = (median(&rates[0]), median(&rates[3]), median(&rates[4]));
    println!(
        "\nthe log commits {:.1} times as many steps as a growing file, {:.0} times as many as a file per step",
        log / growing,
        log / files
    );
}

/// Shows by the disk's counters that a commit is one durable write, and fails if it is not.
fn count(commits: u64, log: (LogStats, LogStats), disk: (DiskStats, DiskStats)) {
    let made = log.1.segments_created - log.0.segments_created;
    let durable = disk.1.durable_writes - disk.0.durable_writes;
    let (writes, syncs) = (disk.1.writes - disk.0.writes, disk.1.syncs - disk.0.syncs);
    println!(
        "\n{commits} commits took {durable} durable writes; {made} new segments took {writes} other writes, {syncs} file and {} directory syncs",
        disk.1.dir_syncs - disk.0.dir_syncs
    );
    assert_eq!(durable, commits, "a commit is not one durable write");
    assert_eq!(syncs, made, "a segment is not one sync");
}

/// A raw peer: overwrites of a file that was written before, durable by `O_DSYNC` or by a sync after each.
fn raw(path: &Path, dsync: bool) -> Step<'static> {
    let mut file = File::create(path).expect("raw file");
    for _ in 0..RAW_BLOCKS / 256 {
        file.write_all(&vec![0; 256 * disk::ALIGN]).expect("fill the raw file");
    }
    file.sync_all().expect("sync of the raw file");
    let durable = if dsync { O_DSYNC } else { 0 };
    // Some file systems have no direct I/O.
    let open = |flags| OpenOptions::new().write(true).custom_flags(flags).open(path);
    let file = open(O_DIRECT | durable).or_else(|_| open(durable)).expect("raw file");
    let block = AlignedBuf::from_slice(&[7; disk::ALIGN]);
    Box::new(move |n| {
        file.write_all_at(&block, n % RAW_BLOCKS * disk::ALIGN as u64).expect("raw write");
        if !dsync {
            file.sync_data().expect("fdatasync");
        }
    })
}

fn growing(path: &Path) -> Step<'static> {
    let mut file = File::create(path).expect("growing file");
    Box::new(move |_| {
        file.write_all(&RECORD).expect("append");
        file.sync_data().expect("fdatasync");
    })
}

fn file_per_step(folder: &Path) -> Step<'static> {
    let folder = folder.join("steps");
    fs::create_dir(&folder).expect("folder");
    let directory = File::open(&folder).expect("folder");
    Box::new(move |n| {
        let (new, path) = (folder.join("new"), folder.join(format!("{n:016}.step")));
        let mut file = File::create(&new).expect("step file");
        file.write_all(&RECORD).expect("write");
        file.sync_all().expect("fsync");
        fs::rename(&new, &path).expect("rename");
        directory.sync_all().expect("directory fsync");
    })
}
