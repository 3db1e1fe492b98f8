//! `reopen`: opening after a kill and the first probe. A child fills a table, goes on inserting, and is killed (SIGKILL) in the middle
//! of it; another opens what it left, with cold caches.
//!
//! The table is filled with ascending keys, so that filling takes no engine much longer than writing; what is inserted until the
//! kill overwrites rows all over it. None has a log of that: what is lost is lost to all.

use std::thread;
use std::time::{Duration, Instant};

use super::{BATCH, KEYS, Watch, load};
use crate::cold;
use crate::data::{Batch, Key, ROW, ordered_key};
use crate::engine::{Given, Shape, open};
use crate::task::{self, Task};

/// What a child prints when the table is filled.
const FILLED: &str = "filled";
/// A child that nobody kills ends by itself after that long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of the table of a run with so many rows: 2 GB by default, 20 of a full one.
pub fn bytes(rows: u64) -> u64 {
    (rows * 2_000).min(20_000_000_000)
}

/// Kills and opens `rounds` times: milliseconds of each opening, and the peak of its memory in MiB.
pub fn run(task: &Task, rounds: usize) -> Vec<(f64, f64)> {
    (0..rounds)
        .map(|round| {
            let part = if round == 0 { "fill" } else { "more" };
            let task = Task { parts: vec![part.into()], ..task.clone() };
            let mut child = task.start();
            task::listen(&mut child, Some(FILLED));
            thread::sleep(Duration::from_millis(300 + 137 * round as u64));
            child.kill().expect("kill");
            child.wait().expect("wait for the child");
            crate::limits::clear(child.id());
            cold::drop_all(&task.folder);
            let figures = Task { parts: vec!["open".into()], ..task }.run();
            (figures["reopen"], figures["reopen:peak"])
        })
        .collect()
}

pub fn child(task: &Task) {
    let rows = bytes(task.rows) / ROW;
    let given = Given::budget(task.memory);
    task.begin(given.total());
    let mut random = fastrand::Rng::new();
    if task.wants("open") {
        let mut keys: Vec<Key> = (0..KEYS).map(|_| ordered_key(random.u64(0..rows))).collect();
        keys.sort_unstable();
        keys.dedup();
        let begun = Instant::now();
        let mut engine = open(&task.contender, &task.folder, Shape::Latest, given);
        let found = engine.probe(&keys);
        let took = begun.elapsed();
        assert_eq!(found, keys.len() as u64, "rows that were durable before the kill");
        return task.figure("reopen", took.as_secs_f64() * 1e3);
    }
    let mut engine = open(&task.contender, &task.folder, Shape::Latest, given);
    if task.wants("fill") {
        load(&mut *engine, rows, &mut Watch::default(), |n| (ordered_key(n), 0));
        engine.finish();
    }
    println!("{FILLED}");
    let (begun, mut batch) = (Instant::now(), Batch::default());
    while begun.elapsed() < PATIENCE {
        let from = random.u64(0..rows);
        batch.fill(from..from + BATCH, |n| (ordered_key(crate::data::mix(n) % rows), 0));
        engine.insert(&batch);
    }
    panic!("nobody killed this child");
}
