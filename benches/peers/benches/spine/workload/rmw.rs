//! `rmw`: counters by Zipf's law, 0.99, in batches of 1,000 events, with memory for all of the state and for a tenth of it.
//!
//! Every engine gets the batch as an aggregation would make it: each key once, with the sum of its events, ascending.

use super::{KEYS, Watch, load};
use crate::data::{Key, ROW, Zipf, key};
use crate::engine::{Given, Shape, open};
use crate::task::Task;

/// Turns are longer than others': what is deferred shall come due.
const LONGER: f64 = 2.0;

/// Counters of a run with so many rows.
pub fn counters(rows: u64) -> u64 {
    rows / 2
}

pub fn child(task: &Task) {
    let n = counters(task.rows);
    let state = n * ROW;
    let (name, given) = match task.wants("rmw-memory") {
        // Room for every table, its index and the garbage of overwritten rows, too: nothing has to leave.
        true => ("rmw-memory", Given { cache: 2 * state, memtables: 6 * state, small: false }),
        false => ("rmw-beyond", Given::budget(state / 10)),
    };
    task.begin(given.total());
    let mut engine = open(&task.contender, &task.folder, Shape::Latest, given);
    load(&mut *engine, n, &mut Watch::default(), |n| (key(n), 0));
    engine.finish();
    engine.settle();
    let mut events = Events::new(n);
    let (mut watch, mut done) = (Watch::default(), 0);
    while watch.0.as_secs_f64() < task.seconds * LONGER {
        let batch = events.next();
        watch.time(|| engine.add(batch));
        done += KEYS as u64;
    }
    watch.time(|| engine.finish());
    task.figure(name, watch.thousands(done));
}

/// Batches of events.
pub struct Events {
    zipf: Zipf,
    random: fastrand::Rng,
    keys: Vec<Key>,
    batch: Vec<(Key, u64)>,
}

impl Events {
    pub fn new(counters: u64) -> Self {
        let random = fastrand::Rng::with_seed(11);
        Self { zipf: Zipf::new(counters, 0.99), random, keys: Vec::new(), batch: Vec::new() }
    }

    /// 1,000 events, a key each once with their number.
    pub fn next(&mut self) -> &[(Key, u64)] {
        self.keys.clear();
        self.keys.extend((0..KEYS).map(|_| key(self.zipf.draw(&mut self.random))));
        self.keys.sort_unstable();
        self.batch.clear();
        for key in &self.keys {
            match self.batch.last_mut() {
                Some((last, n)) if last == key => *n += 1,
                _ => self.batch.push((*key, 1)),
            }
        }
        &self.batch
    }
}
