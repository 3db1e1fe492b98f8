//! A program run in process: workers in the test's thread, in an order that a seed picks.

use std::collections::HashMap;
use std::sync::Arc;

use backstay::circuit::row::{RowCodec, normalise};
use backstay::circuit::{Runtime, RuntimeOptions, StepInput};
use backstay::sql::Program;
use backstay_storage::spine::Spine;

use super::changes::Step;
use super::oracle::Rows;
use crate::rng::Rng;

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
        let options = RuntimeOptions { workers, ..RuntimeOptions::default() };
        let mut rng = Rng::new(seed);
        let order = Box::new(move |n: usize| rng.below(n as u64) as usize);
        let mut open = |_: usize, _: &str, discipline| Ok(Spine::ephemeral(discipline));
        let runtime = Runtime::start_inline(Arc::new(program.plan.clone()), options, &mut open, order).unwrap();
        Self {
            workers,
            runtime,
            last_step: 0,
            codecs: program.views.iter().map(|v| RowCodec::of_schema(&v.schema).unwrap()).collect(),
            views: program.views.iter().map(|v| (v.name.clone(), HashMap::new())).collect(),
        }
    }

    pub(super) fn step(&mut self, clock_ms: i64, tables: &Step) -> Result<(), String> {
        self.last_step += 1;
        let step = self.last_step;
        let input = StepInput { step, clock_ms, tables: tables.clone() };
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

    /// The rows of a view now.
    pub(super) fn view(&self, name: &str) -> &Rows {
        self.views.iter().find(|(n, _)| n == name).map(|(_, rows)| rows).unwrap()
    }
}
