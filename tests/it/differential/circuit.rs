//! A program run in process: workers in the test's thread, in an order that a seed picks.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use backstay::circuit::row::{RowCodec, normalise};
use backstay::circuit::vnode::worker_of;
use backstay::circuit::{Runtime, RuntimeOptions, StepInput};
use backstay::sql::Program;
use backstay_storage::disk::PosixDisk;
use backstay_storage::spine::{Discipline, RowBatch, Snapshot, Spine, SpineContext, SpineMeta, SpineOptions};

use super::changes::Step;
use super::oracle::Rows;
use crate::rng::Rng;

/// So much that nothing of a test's state is ever written.
const MEMORY_BYTES: u64 = 64 << 30;

/// A running program and what its views' deltas add up to.
pub(super) struct Circuit {
    pub(super) workers: usize,
    runtime: Runtime,
    last_step: u64,
    codecs: Vec<RowCodec>,
    views: Vec<(String, Rows)>,
}

impl Circuit {
    pub(super) fn start(program: &Program, workers: usize, seed: u64) -> Self {
        Self {
            workers,
            runtime: runtime(program, workers, seed, &[]),
            last_step: 0,
            codecs: program.views.iter().map(|v| RowCodec::of_schema(&v.schema).unwrap()).collect(),
            views: program.views.iter().map(|v| (v.name.clone(), HashMap::new())).collect(),
        }
    }

    pub(super) fn step(&mut self, clock_ms: i64, tables: &Step) -> Result<(), String> {
        self.step_from(clock_ms, tables, &[])
    }

    /// A step that begins with these watermarks; the rows below them are not in it.
    pub(super) fn step_from(&mut self, clock_ms: i64, tables: &Step, marks: &[Option<i64>]) -> Result<(), String> {
        self.last_step += 1;
        let step = self.last_step;
        let input = StepInput { step, clock_ms, tables: tables.clone(), watermarks: marks.to_vec() };
        let output = self.runtime.submit(input).and_then(|()| self.runtime.complete());
        let output = output.map_err(|e| format!("{} worker(s), step {step}: {e}", self.workers))?;
        for ((delta, codec), (_, total)) in output.views.iter().zip(&self.codecs).zip(&mut self.views) {
            let columns: Vec<_> = delta.rows.columns().iter().map(normalise).collect();
            let rows = codec.encode(&columns, delta.len()).unwrap();
            for (i, &weight) in delta.weights.iter().enumerate() {
                let sum = total.entry(rows.get(i).to_vec()).or_insert(0);
                *sum += weight;
                if *sum == 0 {
                    total.remove(rows.get(i));
                }
            }
        }
        Ok(())
    }

    /// Goes on as after a restart, with another number of workers: what the spines hold is all that is left.
    pub(super) fn restart(&mut self, program: &Program, workers: usize, seed: u64) {
        let left = self.runtime.freeze().unwrap();
        self.workers = workers;
        self.runtime = runtime(program, workers, seed, &left);
    }

    /// How many rows its spines show.
    pub(super) fn state_rows(&mut self) -> usize {
        let mut rows = 0;
        for snapshot in self.runtime.freeze().unwrap() {
            let mut cursor = snapshot.cursor().unwrap();
            while cursor.valid() {
                rows += 1;
                cursor.next().unwrap();
            }
        }
        rows
    }

    /// The rows of a view now.
    pub(super) fn view(&self, name: &str) -> &Rows {
        self.views.iter().find(|(n, _)| n == name).map(|(_, rows)| rows).unwrap()
    }
}

/// Workers whose spines hold what is left of others, each row with the owner of its vnode.
fn runtime(program: &Program, workers: usize, seed: u64, left: &[Snapshot]) -> Runtime {
    let options = RuntimeOptions { workers, ..RuntimeOptions::default() };
    let mut rng = Rng::new(seed);
    let order = Box::new(move |n: usize| rng.below(n as u64) as usize);
    // Spines with names. All stays in memory: nothing is written where they say that their files are.
    let in_memory = SpineOptions { memory_bytes: MEMORY_BYTES, cache_bytes: Some(0), ..SpineOptions::default() };
    let context = SpineContext::new(Arc::new(PosixDisk::new()), Path::new("/nonexistent"), 1, in_memory);
    let base = |name: &str| name.split('#').next().unwrap().to_owned();
    let mut open = |worker: usize, name: &str, discipline| {
        let mut spine = Spine::open(Arc::clone(&context), SpineMeta::empty(name, discipline, 1))?;
        for snapshot in left.iter().filter(|s| base(s.name()) == base(name)) {
            assert_eq!(snapshot.discipline(), discipline, "{name}");
            let mut rows = RowBatch::new();
            let mut cursor = snapshot.cursor()?;
            while cursor.valid() {
                let weight = if discipline == Discipline::Latest { 1 } else { cursor.weight() };
                if worker_of(cursor.key()[0], workers) == worker {
                    rows.push(cursor.key(), cursor.value(), weight);
                }
                cursor.next()?;
            }
            spine.insert_batch(&rows)?;
        }
        Ok(spine)
    };
    Runtime::start_inline(Arc::new(program.plan.clone()), options, &mut open, order).unwrap()
}
