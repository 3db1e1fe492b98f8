//! State of ten times the memory that the store is given: how much slower it is than state that fits, and how much memory is really used.
//!
//! Three children with the same budget: with rows for a quarter of it, which fit, for half, which fill the cache, and for ten times as much. Each fills a *latest* spine with random rows, with a
//! checkpoint whenever a tenth of the budget came in, has the runs merged as at rest, and then, for a while each, updates (probes 1,000 random keys and
//! writes them back, a checkpoint every 200 batches), probes 1,000 random keys, walks 1,000 rows from a random key, and scans. The peak of the resident memory
//! is the kernel's (`VmHWM`), over the child's whole life: code, indexes, buffers and what the allocator holds back included.
//!
//! *Fails* if that is more than the budget and a fifth of it, or rows are missing.

#![expect(clippy::disallowed_methods, reason = "a bench measures time and asks the kernel")]

#[path = "../common/mod.rs"]
mod common;

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use backstay_storage::spine::{Discipline, KeyBatch, RowBatch, Spine};
use backstay_storage::{Checkpoint, Store, StoreOptions, disk};

use common::Args;

/// Bytes of a row: a key of 16, a value of 100.
const ROW: u64 = 116;
/// Rows of a batch that is inserted at first, and of all others.
const BATCH: u64 = 10_000;
const KEYS: u64 = 1_000;
/// Peak memory, in budgets.
const MOST: f64 = 1.2;
/// Figures of a child, in the order that it prints them.
const FIGURES: [&str; 5] = ["ingest", "update", "probe", "range", "scan"];

#[derive(Debug, Default)]
struct Own {
    memory_mib: Option<u64>,
    child: Option<u64>,
}

fn main() {
    let mut own = Own::default();
    let args = Args::parse(&["--memory=MIB", "--child=ROWS"], |flag| match flag.split_once('=') {
        Some(("--memory", mib)) => own.memory_mib = Some(mib.parse().expect("--memory: a number of MiB")),
        Some(("--child", rows)) => own.child = Some(rows.parse().expect("--child: a number of rows")),
        _ => {}
    });
    let memory = own.memory_mib.unwrap_or(256) << 20;
    let each = Duration::from_secs(args.seconds.map_or(5, |all| (all / 8).max(1)));
    let folder = args.folder();
    if let Some(rows) = own.child {
        return child(folder.path(), memory, rows, each);
    }
    println!(
        "memory: a store with memory_bytes = {} MiB, and state of a quarter, a half and ten times that",
        memory >> 20
    );
    common::describe_machine(folder.path(), &*disk::system());
    let [fits, full, beyond] = [memory / 4, memory / 2, memory * 10].map(|state| {
        let program = std::env::current_exe().expect("the path of this program");
        let seconds = (each.as_secs() * 8).to_string();
        let given = [format!("--memory={}", memory >> 20), format!("--child={}", state / ROW)];
        let mut child = Command::new(program);
        child.args(given).args(["--seconds", &seconds, "--dir"]).arg(folder.path());
        let output = child.output().expect("start a child");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let figures = String::from_utf8_lossy(&output.stdout);
        figures.split_whitespace().map(|figure| figure.parse().expect("a figure")).collect::<Vec<f64>>()
    });
    println!("\n1,000 rows/s  {:>12} {:>12} {:>12} {:>10}", "a quarter", "a half", "10 x", "slow-down");
    for (i, name) in FIGURES.iter().enumerate() {
        let slower = fits[i] / beyond[i];
        println!("{name:<13} {:>12.1} {:>12.1} {:>12.1} {slower:>10.1}", fits[i], full[i], beyond[i]);
    }
    let peaks = [fits, full, beyond].map(|figures| figures[FIGURES.len()] * 1024.0 / memory as f64);
    println!("peak memory   {:>12.2} {:>12.2} {:>12.2}   of the budget", peaks[0], peaks[1], peaks[2]);
    assert!(peaks.iter().all(|&peak| peak <= MOST), "more than {MOST} x the budget");
}

/// Prints its figures and its peak memory in KiB.
fn child(folder: &Path, memory: u64, rows: u64, each: Duration) {
    let options = StoreOptions { memory_bytes: memory, ..StoreOptions::default() };
    let store = Store::open(disk::system(), folder, options).expect("open the store");
    let mut spine = store.spine("rows", Discipline::Latest, 1).expect("a spine");
    let checkpoint = |spine: &mut Spine| {
        let taken = Checkpoint { frozen: vec![spine.snapshot()], ..Checkpoint::default() };
        store.checkpoint(taken).expect("checkpoint")
    };
    let mut batch = RowBatch::new();
    let begun = Instant::now();
    let mut since = 0;
    for from in (0..rows).step_by(BATCH as usize) {
        batch.clear();
        (from..(from + BATCH).min(rows)).for_each(|n| push(&mut batch, n));
        spine.insert_batch(&batch).expect("insert");
        since += BATCH * ROW;
        if since > memory / 10 {
            checkpoint(&mut spine);
            since = 0;
        }
    }
    checkpoint(&mut spine);
    let ingest = rows as f64 / begun.elapsed().as_secs_f64();
    store.compact().expect("merge");
    for _ in 0..2 {
        checkpoint(&mut spine);
    }

    let mut random = Random(1);
    let mut some_keys = |keys: &mut KeyBatch| {
        keys.clear();
        (0..KEYS).for_each(|_| keys.push(&key(random.below(rows))));
    };
    let (mut keys, mut batches) = (KeyBatch::new(), 0);
    let update = repeat(each, || {
        some_keys(&mut keys);
        let found = spine.probe(&keys).expect("probe");
        assert_eq!(found.rows.len() as u64, KEYS, "rows that were inserted");
        spine.insert_batch(&found.rows).expect("insert");
        batches += 1;
        if batches % 200 == 0 {
            checkpoint(&mut spine);
        }
        KEYS
    });
    let probe = repeat(each, || {
        some_keys(&mut keys);
        assert_eq!(spine.probe(&keys).expect("probe").rows.len() as u64, KEYS, "rows that were inserted");
        KEYS
    });
    let mut random = Random(2);
    let mut cursor = spine.cursor().expect("a cursor");
    let range = repeat(each, || {
        cursor.seek(&key(random.below(rows))).expect("seek");
        let mut read = 0;
        while cursor.valid() && read < KEYS {
            black_box(cursor.value());
            read += 1;
            cursor.next().expect("next");
        }
        read
    });
    let scan = repeat(each, || {
        cursor.seek(&[]).expect("seek");
        let mut read = 0;
        while cursor.valid() {
            black_box(cursor.value());
            read += 1;
            cursor.next().expect("next");
        }
        assert_eq!(read, rows, "rows of a scan");
        read
    });
    for figure in [ingest, update, probe, range, scan] {
        println!("{:.1}", figure / 1e3);
    }
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel's figures");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    println!("{}", peak.expect("VmHWM"));
}

/// Rows a second.
fn repeat(each: Duration, mut turn: impl FnMut() -> u64) -> f64 {
    let (begun, mut rows) = (Instant::now(), 0);
    while begun.elapsed() < each {
        rows += turn();
    }
    rows as f64 / begun.elapsed().as_secs_f64()
}

/// Keys in no order.
fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let mut random = Random(n + 1);
    key[..8].copy_from_slice(&random.next().to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// Half of the value does not compress.
fn push(batch: &mut RowBatch, n: u64) {
    let mut value = [b'v'; 100];
    let mut random = Random(n + 1);
    for eight in value[..48].as_chunks_mut::<8>().0 {
        *eight = random.next().to_le_bytes();
    }
    batch.push(&key(n), &value, 1);
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
