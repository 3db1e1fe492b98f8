//! The workloads: what a child does in its turn.

pub mod checkpoints;
pub mod join;
pub mod reopen;
pub mod rmw;
pub mod size;
pub mod tables;

use std::time::{Duration, Instant};

use crate::data::{ABSENT, Batch, Key, key};
use crate::engine::Engine;
use crate::task::Task;

/// Rows of a batch of the ingest.
const BATCH: u64 = 10_000;
/// Keys of a probe, events of a batch of counters.
const KEYS: usize = 1_000;

/// Does what a child was told.
pub fn child(task: &Task) {
    match task.workload.as_str() {
        "tables" => tables::child(task),
        tables::SCANS => tables::scans(task),
        tables::PROBES => tables::probes(task),
        "rmw" => rmw::child(task),
        "join" => join::child(task),
        "size" => size::child(task),
        "checkpoints" => checkpoints::child(task),
        "reopen" => reopen::child(task),
        other => panic!("no workload {other}"),
    }
}

/// Adds up the time that an engine takes, without that of making its rows and keys.
#[derive(Default)]
struct Watch(Duration);

impl Watch {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.0 += begun.elapsed();
        result
    }

    /// Thousands of so many things a second.
    fn thousands(&self, n: u64) -> f64 {
        n as f64 / self.0.as_secs_f64() / 1e3
    }
}

/// Inserts rows `0..rows` in batches.
fn load(engine: &mut dyn Engine, rows: u64, watch: &mut Watch, key: impl Fn(u64) -> (Key, u32) + Copy) {
    let mut batch = Batch::default();
    let mut from = 0;
    while from < rows {
        let to = (from + BATCH).min(rows);
        batch.fill(from..to, key);
        watch.time(|| engine.insert(&batch));
        from = to;
    }
}

/// Several ascending keys of the first `rows`, or of none.
fn some_keys(random: &mut fastrand::Rng, n: usize, rows: u64, present: bool) -> Vec<Key> {
    let base = if present { 0 } else { ABSENT };
    let mut keys: Vec<Key> = (0..n).map(|_| key(base + random.u64(0..rows))).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Repeats some work for so many seconds of the engine's time; thousands a second of what it counts.
fn repeat(seconds: f64, mut work: impl FnMut(&mut Watch) -> u64) -> f64 {
    let (mut watch, mut n) = (Watch::default(), 0);
    while watch.0.as_secs_f64() < seconds {
        n += work(&mut watch);
    }
    watch.thousands(n)
}
