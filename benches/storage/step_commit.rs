//! What a durable step commit costs: a record of 300 bytes appended to the log and waited for, one at a time.
//!
//! In the same run, in turns, so that a noisy machine is noisy to all:
//! - `raw O_DSYNC`: 4 KiB over a file that was written before, `O_DIRECT` and `O_DSYNC`, one at a time; and
//!   `raw fdatasync`: the same as a plain write and a sync. The faster of the two is what the device can do: which one that is differs;
//! - `growing file`: 300 bytes appended to a file, then `fdatasync`: a simple log;
//! - `file per step`: a new file, fsync, rename, directory fsync: a simple store of steps.

#![expect(clippy::disallowed_methods, reason = "a bench measures time, and its peers use files as other programs do")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/figures.rs"]
mod figures;
#[path = "../common/raw.rs"]
mod raw;
#[path = "../common/step_files.rs"]
mod step_files;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use backstay_storage::disk::{self, DiskStats};
use backstay_storage::log::{Log, LogOptions, LogStats};

use common::Args;
use figures::median;
use step_files::StepFiles;

const RECORD: [u8; 300] = [7; 300];
const ROUNDS: u32 = 4;

/// Makes one step durable.
type Step<'a> = Box<dyn FnMut(u64) + 'a>;

fn main() {
    let args = Args::parse(&[], |_| {});
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
        ("raw O_DSYNC", Box::new(raw::overwrite(&folder.path().join("raw"), true))),
        ("raw fdatasync", Box::new(raw::overwrite(&folder.path().join("raw 2"), false))),
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
    let files = StepFiles::new(&folder);
    Box::new(move |n| files.write(&format!("{n:016}.step"), &RECORD))
}
