//! `ingest`, `scan`, `probe`: random rows in, then all of them, stretches and points of them out.
//!
//! The page cache is emptied before each batch of ranges and of cold probes, for who reads through it: it is memory that
//! nobody gave, and the kernel reads ahead into it.

use super::{KEYS, Watch, load, repeat, some_keys};
use crate::cold;
use crate::data::{Key, ROW, key};
use crate::engine::{BACKSTAY, Engine, Given, Shape, open};
use crate::task::Task;

/// Rows of a range, ranges of a batch.
const RANGE: usize = 1_000;
const RANGES: usize = 10;
/// Cache for probes that are to find nothing in it.
const TINY: u64 = 8 << 20;
/// What filters take, in bits a row: with other engines they stand beside the cache, with Backstay inside, where they would be all there is in a tiny one.
const FILTER_BITS: u64 = 10;

/// Fills a table; then others read it, each a process of its own: what an engine has freed its allocator may keep, and that would count as the memory of
/// the one that comes next.
pub fn child(task: &Task) {
    let given = Given::budget(task.memory);
    let mut engine = begin(task, given);
    let mut watch = Watch::default();
    load(&mut *engine, task.rows, &mut watch, |n| (key(n), 0));
    watch.time(|| engine.finish());
    if task.wants("ingest") {
        task.figure("ingest", watch.thousands(task.rows));
    }
    engine.settle();
    drop(engine);
    let reads = [("scan", SCANS, &["scan"][..]), ("probe", PROBES, &["cold", "warm"][..])];
    for (part, workload, parts) in reads {
        for part in parts.iter().filter(|_| task.wants(part)) {
            let reader = Task { workload: workload.into(), parts: vec![(*part).into()], ..task.clone() };
            reader.run().iter().for_each(|(name, figure)| println!("figure {name} {figure}"));
        }
    }
}

/// The workloads of those who read.
pub const SCANS: &str = "tables-scans";
pub const PROBES: &str = "tables-probes";

fn begin(task: &Task, given: Given) -> Box<dyn Engine> {
    task.begin(given.total());
    open(&task.contender, &task.folder, Shape::Latest, given)
}

pub fn scans(task: &Task) {
    let given = Given::budget(task.memory);
    cold::drop_pages(&task.folder);
    let mut engine = begin(task, given);
    let mut random = fastrand::Rng::with_seed(7);
    let mut watch = Watch::default();
    let read = watch.time(|| engine.scan());
    assert_eq!(read, task.rows, "rows of a scan");
    task.figure("scan", watch.thousands(read));
    let ranges = repeat(task.seconds, |watch| {
        cold::drop_pages(&task.folder);
        let starts: Vec<Key> = (0..RANGES).map(|_| key(random.u64(..))).collect();
        watch.time(|| engine.ranges(&starts, RANGE))
    });
    task.figure("ranges", ranges);
}

pub fn probes(task: &Task) {
    let given = Given::budget(task.memory);
    let mut random = fastrand::Rng::with_seed(8);
    let mut turn = |engine: &mut dyn Engine, present, seconds, cold: bool| {
        repeat(seconds, |watch| {
            if cold {
                cold::drop_pages(&task.folder);
            }
            probe(engine, &mut random, task.rows, present, watch)
        })
    };
    if task.wants("cold") {
        let filters = if task.contender == BACKSTAY { task.rows * FILTER_BITS / 8 } else { 0 };
        for (name, present) in [("hit-cold", true), ("miss-cold", false)] {
            let mut engine = begin(task, Given { cache: TINY + filters, ..given });
            task.figure(name, turn(&mut *engine, present, task.seconds, true));
        }
        return;
    }
    // Decoded blocks take more than their rows, differently with each engine: it is enough for all.
    let mut engine = begin(task, Given { cache: task.rows * ROW * 3, ..given });
    engine.scan();
    for (name, present) in [("hit-warm", true), ("miss-warm", false)] {
        turn(&mut *engine, present, task.seconds / 4.0, false);
        task.figure(name, turn(&mut *engine, present, task.seconds, false));
    }
}

fn probe(engine: &mut dyn Engine, random: &mut fastrand::Rng, rows: u64, present: bool, watch: &mut Watch) -> u64 {
    let keys = some_keys(random, KEYS, rows, present);
    let found = watch.time(|| engine.probe(&keys));
    assert_eq!(found, if present { keys.len() as u64 } else { 0 }, "keys that a probe finds");
    keys.len() as u64
}
