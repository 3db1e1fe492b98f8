//! `checkpoints`: what a checkpoint each second does to the steps beside it, Backstay alone.
//!
//! A step writes 1,000 random keys of a state that keeps its size, and probes 1,000 others; blocks of runs fit into the cache.
//! First as many steps as can be, for the limit; then steps are due at half of that pace, in runs that take turns with a checkpoint a second on another thread and
//! with none. How long a step takes is what counts; how late the latest ended is printed beside it: where that is far more
//! than the worst step, the machine could not keep the pace, and the run says little.

use std::time::{Duration, Instant};

use super::{KEYS, Watch, load, some_keys};
use crate::data::{Batch, Key, ROW, key};
use crate::engine::backstay::Backstay;
use crate::engine::{Engine, Given, Shape};
use crate::task::Task;

/// Runs of each kind.
const RUNS: usize = 5;
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// A run is longer than other turns, and has checkpoints in it.
const LONGER: f64 = 1.5;
const AT_LEAST: f64 = 2.5;

pub fn child(task: &Task) {
    let given = Given { cache: 3 * task.rows * ROW, ..Given::budget(task.memory) };
    task.begin(given.total());
    let mut backstay = Backstay::open(&task.folder, Shape::Latest, given, false);
    let loaded = task.rows;
    load(&mut backstay, loaded, &mut Watch::default(), |n| (key(n), 0));
    backstay.finish();
    // Else merges that the load owes are part of the limit, and of some runs.
    backstay.settle();
    let mut steps =
        Steps { backstay, random: fastrand::Rng::with_seed(17), loaded, written: loaded, batch: Batch::default() };
    steps.backstay.scan();
    let limit = steps.limit(Duration::from_secs_f64(task.seconds));
    let time = Duration::from_secs_f64((task.seconds * LONGER).max(AT_LEAST));
    let pace = Duration::from_secs_f64(2.0 / limit);
    println!(
        "limit {limit:.0} steps/s; due every {:.2} ms, {:.1} s a run",
        pace.as_secs_f64() * 1e3,
        time.as_secs_f64()
    );
    let mut ratios: [Vec<f64>; 2] = Default::default();
    let mut worst: f64 = 0.0;
    for run in 0..RUNS {
        let mut turn = [None, None];
        for with in if run % 2 == 0 { [false, true] } else { [true, false] } {
            turn[usize::from(with)] = Some(steps.run(time, pace, with));
        }
        let [Some(without), Some(with)] = turn else { continue };
        for (ratios, part) in ratios.iter_mut().zip([0.99, 0.999]) {
            ratios.push(with.percentile(part) / without.percentile(part));
        }
        worst = worst.max(with.percentile(1.0));
        println!("run {run}, none: {}; with checkpoints: {}", without.text(), with.text());
    }
    for (name, ratios) in ["checkpoint-p99", "checkpoint-p99.9"].into_iter().zip(&ratios) {
        task.figure(name, crate::figures::median(ratios));
    }
    task.figure("checkpoint-worst", worst);
}

struct Steps {
    backstay: Backstay,
    random: fastrand::Rng,
    loaded: u64,
    /// Rows ever written: each has a value of its own.
    written: u64,
    batch: Batch,
}

/// Milliseconds of a run's steps, ascending, and what its checkpoints took.
struct Run {
    steps: Vec<f64>,
    latest: f64,
    checkpoints: Vec<(Duration, u64)>,
}

impl Steps {
    fn prepare(&mut self) -> Vec<Key> {
        let (loaded, random) = (self.loaded, &mut self.random);
        let (from, keys): (u64, Vec<u64>) = (self.written, (0..KEYS).map(|_| random.u64(0..loaded)).collect());
        self.batch.fill(from..from + KEYS as u64, |n| (key(keys[(n - from) as usize]), 0));
        self.written += KEYS as u64;
        some_keys(&mut self.random, KEYS, self.loaded, true)
    }

    fn step(&mut self, keys: &[Key]) {
        self.backstay.insert(&self.batch);
        assert_eq!(self.backstay.probe(keys), keys.len() as u64, "keys that a probe finds");
    }

    /// Steps a second without a pause, memtables written as they fill.
    fn limit(&mut self, time: Duration) -> f64 {
        let (begun, mut n) = (Instant::now(), 0);
        while begun.elapsed() < time {
            let keys = self.prepare();
            self.step(&keys);
            n += 1;
        }
        let rate = f64::from(n) / begun.elapsed().as_secs_f64();
        self.backstay.finish();
        rate
    }

    fn run(&mut self, time: Duration, pace: Duration, with: bool) -> Run {
        self.backstay.finish();
        self.backstay.checkpoints();
        // What was written for the runs before is not in the cache.
        self.backstay.scan();
        let begun = Instant::now();
        let (mut due, mut checkpoint, mut steps) = (begun, begun + CHECKPOINT_EVERY, Vec::new());
        let mut latest: f64 = 0.0;
        while due < begun + time && begun.elapsed() < 2 * time {
            let keys = self.prepare();
            let now = Instant::now();
            if now < due {
                std::thread::sleep(due - now);
            }
            let started = Instant::now();
            // It is the owner that freezes, and that is part of its step.
            if with && Instant::now() >= checkpoint && self.backstay.checkpoint() {
                checkpoint += CHECKPOINT_EVERY;
            }
            self.step(&keys);
            steps.push(started.elapsed().as_secs_f64() * 1e3);
            latest = latest.max(due.elapsed().as_secs_f64() * 1e3);
            due += pace;
        }
        steps.sort_by(f64::total_cmp);
        Run { steps, latest, checkpoints: self.backstay.checkpoints() }
    }
}

impl Run {
    fn percentile(&self, part: f64) -> f64 {
        let at = (self.steps.len() as f64 * part) as usize;
        self.steps.get(at.min(self.steps.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    fn text(&self) -> String {
        let [p50, p99, p999, worst] = [0.5, 0.99, 0.999, 1.0].map(|part| self.percentile(part));
        let longest = self.checkpoints.iter().map(|(took, _)| took.as_secs_f64() * 1e3).fold(0.0, f64::max);
        let bytes: u64 = self.checkpoints.iter().map(|(_, bytes)| bytes).sum();
        let n = self.checkpoints.len();
        let checkpoints = match n {
            0 => String::new(),
            _ => format!(", {n} checkpoints, longest {longest:.0} ms, {:.0} MB", bytes as f64 / 1e6),
        };
        let latest = self.latest;
        format!("p50 {p50:.2}, p99 {p99:.2}, p99.9 {p999:.2}, worst {worst:.1}, latest {latest:.1} ms{checkpoints}")
    }
}
