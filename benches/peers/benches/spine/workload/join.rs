//! `join`: a delta of 10,000 keys against a trace of several rows a key, as one side of a join does in a step.
//!
//! The page cache is emptied before each delta, for who reads through it; the engine's own cache is not.

use super::{Watch, load, repeat, some_keys};
use crate::cold;
use crate::data::key;
use crate::engine::{Given, Shape, open};
use crate::task::Task;

/// Keys of a delta; of four, three are in the trace.
const DELTA: usize = 10_000;
/// Rows of a key, each from another pass over all keys.
const PER_KEY: u64 = 4;

/// Rows of the trace of a run with so many rows.
pub fn trace(rows: u64) -> u64 {
    rows * 5 / 2 / PER_KEY * PER_KEY
}

pub fn child(task: &Task) {
    let rows = trace(task.rows);
    let keys = rows / PER_KEY;
    let given = Given::budget(task.memory);
    task.begin(given.total());
    let mut engine = open(&task.contender, &task.folder, Shape::Several, given);
    load(&mut *engine, rows, &mut Watch::default(), |n| (key(n % keys), (n / keys) as u32));
    engine.finish();
    engine.settle();
    let mut random = fastrand::Rng::with_seed(13);
    let figure = repeat(task.seconds, |watch| {
        let mut delta = some_keys(&mut random, DELTA * 3 / 4, keys, true);
        let there = delta.len() as u64;
        delta.extend(some_keys(&mut random, DELTA / 4, keys, false));
        delta.sort_unstable();
        cold::drop_pages(&task.folder);
        let found = watch.time(|| engine.join(&delta));
        assert_eq!(found, there * PER_KEY, "rows of a join");
        delta.len() as u64
    });
    task.figure("join", figure);
}
