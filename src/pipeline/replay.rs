//! Replay: running the steps again that the log has after the checkpoint.
//!
//! The same code as normal running, with another source of batches: connectors re-read by descriptor, or the log has the rows. Everything that a record
//! says about rows and deltas is verified (invariant 3); what outputs already hold, they keep.

use std::sync::Arc;

use backstay_storage::Store;
use backstay_storage::log::{Record, Seq};

use crate::circuit::ViewHash;
use crate::pipeline::controller::Pipeline;
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::push::record::KIND_PUSH;
use crate::pipeline::record::StepRecord;
use crate::pipeline::status::Phase;
use crate::pipeline::taken::{KIND_TAKEN, Taken};
use crate::sabotage::{Check, checked};

/// The last step that the log from `from` on has a record of; none, if it has only pushed rows.
pub fn last_step(store: &Store, from: Seq) -> Result<Option<u64>> {
    let log = store.log();
    let last = log.next_seq() - 1;
    if last < from {
        return Ok(None);
    }
    // Mostly it is the last record. Only where rows were pushed after it, or logged for a step that was lost, all are looked at.
    let of = |record: &Record| match record.payload.first() {
        Some(&(KIND_PUSH | KIND_TAKEN)) => Ok(None),
        _ => StepRecord::decode(record.seq, &record.payload).map(|record| Some(record.step)),
    };
    if let Some(record) = log.scan(last)?.next()
        && let Some(step) = of(&record?)?
    {
        return Ok(Some(step));
    }
    let mut found = None;
    for record in log.scan(from)? {
        found = of(&record?)?.or(found);
    }
    Ok(found)
}

impl Pipeline {
    /// Replays every logged step after the checkpoint, or those up to `until`, and takes in what was pushed. False: a stop was asked for on
    /// the way.
    pub(crate) fn replay(&mut self, until: Option<u64>) -> Result<bool> {
        let Some(store) = self.store.clone() else { return Ok(true) };
        let log = store.log();
        self.replayed_to = self.log_from;
        if log.next_seq() > self.log_from {
            let begun_at = self.state.step;
            let to = self.last_logged.unwrap_or(0).min(until.unwrap_or(u64::MAX));
            if to > begun_at {
                self.control.update(|s| {
                    s.phase = Phase::Replaying;
                    s.replay = Some((begun_at + 1, to));
                });
            }
            // What steps before the checkpoint had taken is known from there; it moves with each step that is replayed.
            let taken: Vec<u64> = (0..self.program.tables.len()).map(|table| self.pushed_offset(table)).collect();
            let pushes = Arc::clone(&self.pushes);
            let mut rows = Taken::default();
            for record in log.scan(self.log_from)? {
                let record = record?;
                if record.payload.first() == Some(&KIND_PUSH) {
                    let position = |table: usize| taken.get(table).copied().unwrap_or(0);
                    pushes.recover(record.seq, &record.payload, &self.program, &position)?;
                    continue;
                }
                if self.state.recovery.as_ref().is_some_and(|r| !r.counts(record.seq)) {
                    continue;
                }
                if record.payload.first() == Some(&KIND_TAKEN) {
                    rows.recover(record.seq, &record.payload, &self.program)?;
                    continue;
                }
                let step = StepRecord::decode(record.seq, &record.payload)?;
                if step.step <= begun_at {
                    rows.clear();
                    continue;
                }
                if step.step > to {
                    break;
                }
                self.replay_step(record.seq, &step, &mut rows)?;
                rows.clear();
                self.replayed_to = record.seq + 1;
                if self.control.stopping() {
                    return Ok(false);
                }
            }
        }
        if until.is_none() {
            for output in &mut self.outputs {
                output.replay_done();
            }
        }
        self.pump()?;
        Ok(true)
    }

    /// How far a table's pushes have been taken.
    fn pushed_offset(&self, table: usize) -> u64 {
        let input = self.inputs.iter().find(|i| i.table == table && i.connector().is_none());
        input.and_then(|i| i.state.position.partitions.first()).map_or(0, |p| p.offset)
    }

    fn replay_step(&mut self, seq: Seq, record: &StepRecord, logged: &mut Taken) -> Result<()> {
        if record.step != self.state.step + 1 {
            return Err(PipelineError::State(format!(
                "log record {seq} is of step {}, expected step {}: the log does not belong to this checkpoint",
                record.step,
                self.state.step + 1
            )));
        }
        self.verify_views(record.step - 1, &record.previous)?;
        let mut tables = vec![Vec::new(); self.program.tables.len()];
        let mut rows = 0;
        for batch in &record.inputs {
            let Some(input) = self.inputs.iter_mut().find(|i| i.name == batch.connector) else {
                return Err(PipelineError::Config(format!(
                    "step {} took {} rows from connector {}, which the program no longer has: put it back for this start; \
                     it can be removed after a graceful stop",
                    record.step, batch.rows, batch.connector
                )));
            };
            let logged = logged.of(record.step, &batch.connector);
            let is_lost = self.state.recovery.as_ref().is_some_and(|r| r.has_lost(&batch.connector, record.step));
            if is_lost && logged.is_none() {
                input.pass_over(record.step, batch);
                continue;
            }
            let read = input.replay(record.step, batch, logged)?;
            rows += read.rows;
            if let Some(deltas) = tables.get_mut(input.table) {
                deltas.extend(read.deltas);
            }
        }
        if !checked(Check::ReplayStep) {
            tables.iter_mut().for_each(Vec::clear);
        }
        let clock_ms = if checked(Check::RecordedClock) { record.clock_ms } else { self.env.clock.wall_ms() };
        self.run_step(record.step, clock_ms, tables)?;
        self.control.update(|s| s.replayed_rows += rows);
        self.wait_for_outputs()
    }

    /// The delta of step `step` that was just computed against what the next record says of it.
    fn verify_views(&self, step: u64, expected: &[ViewHash]) -> Result<()> {
        if step == 0 || self.state.recovery.as_ref().is_some_and(|r| r.has_changed(step)) {
            return Ok(());
        }
        for (i, view) in self.program.views.iter().enumerate() {
            let (expected, got) = (expected.get(i), self.state.views.get(i));
            if expected != got {
                let words = |v: Option<&ViewHash>| match v {
                    Some(v) => format!("{} rows with hash {:016x}", v.rows, v.hash),
                    None => "no such view".into(),
                };
                return Err(PipelineError::Replay {
                    step,
                    relation: format!("view {}", view.name),
                    expected: words(expected),
                    got: words(got),
                    hint: "the engine computed another delta from the same input: please report it with this message",
                });
            }
        }
        Ok(())
    }
}
