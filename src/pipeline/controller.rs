//! The step loop: cut, log, run, wait for the record, hand out.
//!
//! Invariants:
//! 1. Deltas of step n reach an output's queue only after step record n is durable (write ahead).
//! 2. Steps are numbered without a hole, and one is in flight at a time.
//! 3. After an error nothing is written any more: what is durable then is what a restart goes on from. In particular no
//!    checkpoint is taken of a state in which a batch was cut and its step not run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backstay_storage::Store;
use backstay_storage::disk::Disk;
use crossbeam::sync::Parker;

use crate::circuit::{CircuitError, Delta, Runtime, StepInput, Watermarks};
use crate::connector::Connectors;
use crate::pipeline::batch::Batch;
use crate::pipeline::checkpointer::{Checkpointer, Job};
use crate::pipeline::clock::Clock;
use crate::pipeline::config::{OnError, PipelineConfig};
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::feed::Feed;
use crate::pipeline::input::InputEndpoint;
use crate::pipeline::open::{ENGINE, check_places};
use crate::pipeline::output::OutputEndpoint;
use crate::pipeline::push::Pushes;
use crate::pipeline::query::Asked;
use crate::pipeline::record::{InputBatch, StepRecord};
use crate::pipeline::schedule::Scheduler;
use crate::pipeline::state::{InputState, OperatorState, PipelineState};
use crate::pipeline::status::{Control, Phase};
use crate::pipeline::taken;
use crate::sabotage::{Check, checked};
use crate::sql::Program;

/// How long the loop sleeps when nobody wakes it.
const TURN: Duration = Duration::from_millis(50);
/// How long a graceful stop takes what was pushed and no step has taken; what is left then stays in the log.
const TAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a graceful stop waits for outputs before it takes their deltas into the checkpoint.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// Rows that did not parse that are shown for each connector.
const SHOWN_ERRORS: u64 = 5;

/// What a pipeline runs in.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The door to the file system.
    pub disk: Arc<dyn Disk>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// What runs inputs, outputs and the checkpointer beside the steps.
    pub scheduler: Arc<dyn Scheduler>,
    /// The transports that connectors may name.
    pub connectors: Connectors,
    /// The store's directory, if there is storage.
    pub data_dir: Option<PathBuf>,
    /// Where relative paths of connectors start.
    pub base_dir: PathBuf,
    /// Variables of connector configs.
    pub variables: BTreeMap<String, String>,
    /// A fresh random id, used if the store or the pipeline is new.
    pub new_id: uuid::Uuid,
}

/// How a pipeline is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its configuration.
    pub config: PipelineConfig,
    /// Its name, if given.
    pub name: Option<String>,
    /// Its name if none is given: the SQL file's.
    pub default_name: String,
    /// Whether to stop once all finite inputs are at their end and all outputs have drained.
    pub until_end: bool,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The last step.
    pub step: u64,
    /// Steps that were replayed at the start.
    pub replayed_steps: u64,
    /// Rows that were replayed at the start.
    pub replayed_rows: u64,
    /// Rows that were newly taken.
    pub new_rows: u64,
    /// Rows taken over the pipeline's life.
    pub input_rows: u64,
    /// Rows that did not parse, over the pipeline's life.
    pub parse_errors: u64,
    /// Rows that were late, over the pipeline's life.
    pub late_rows: u64,
    /// Whether it ended because all inputs had.
    pub finished: bool,
}

/// An open pipeline.
pub(crate) struct Pipeline {
    pub(super) program: Arc<Program>,
    pub(super) config: PipelineConfig,
    pub(super) env: Environment,
    pub(super) control: Arc<Control>,
    /// Whether steps are logged.
    pub(super) logged: bool,
    pub(super) runtime: Runtime,
    /// What rows are late by.
    pub(super) watermarks: Watermarks,
    pub(super) inputs: Vec<InputEndpoint>,
    /// What clients push.
    pub(super) pushes: Arc<Pushes>,
    /// What is kept for those that listen, if anybody may.
    pub(super) feed: Option<Arc<Feed>>,
    pub(super) outputs: Vec<OutputEndpoint>,
    pub(super) checkpointer: Option<Checkpointer>,
    /// After what uses it: the store's lock is freed last.
    pub(super) store: Option<Arc<Store>>,
    pub(super) parker: Parker,
    /// What the next checkpoint says, but for inputs and outputs, whose endpoints know best.
    pub(super) state: PipelineState,
    /// First log record that may not be part of the checkpoint that was opened.
    pub(super) log_from: u64,
    /// The last step that the log had a record of when it was opened.
    pub(super) last_logged: Option<u64>,
    /// The record after that of the last step that was replayed.
    pub(super) replayed_to: u64,
    /// The step of the newest checkpoint; `None`: there must be one, whatever the step.
    pub(super) checkpointed_step: Option<u64>,
    pub(super) checkpoint_begun: Duration,
    /// Merges that had ended when the two newest checkpoints began.
    pub(super) checkpoint_merges: [u64; 2],
    /// The last request for a checkpoint that the newest one, committed or under way, was taken for.
    pub(super) checkpoint_asked: u64,
    /// Whether there is something to keep besides what steps change.
    pub(super) is_checkpoint_wanted: bool,
    /// Spines of another number of workers, whose rows have been taken over.
    pub(super) dropped: Vec<String>,
    /// Whether the configuration's semantics differ from those that the log's steps were made under.
    pub(super) semantics_outdated: bool,
    /// Since when rows wait for a larger batch.
    pub(super) waiting_since: Option<Duration>,
    /// When this process made a new step last.
    pub(super) last_step_at: Option<Duration>,
    /// When the state's size was looked at last.
    pub(super) measured_at: Option<Duration>,
}

/// Runs a pipeline until it is asked to stop, fails, or (with `until_end`) has nothing more to do.
pub fn run(program: &Arc<Program>, options: &Options, env: &Environment, control: &Arc<Control>) -> Result<Summary> {
    let result = run_to_its_end(program, options, env, control);
    control.set_doors(None, None);
    match result {
        Err(PipelineError::Stopped) => Ok(Summary::default()),
        other => other,
    }
}

fn run_to_its_end(
    program: &Arc<Program>,
    options: &Options,
    env: &Environment,
    control: &Arc<Control>,
) -> Result<Summary> {
    let begun = env.clock.elapsed();
    let mut pipeline = Pipeline::open(program, options, env, control, false)?;
    let from = pipeline.state.step;
    let mut replayed = pipeline.replay(None);
    if pipeline.semantics_outdated {
        (pipeline, replayed) = adopt_semantics(pipeline, replayed, program, options, env)?;
    }
    // Told before the pipeline is dropped, which waits for its tasks.
    let complete = replayed.inspect_err(|e| control.fail(e))?;
    let replayed_steps = pipeline.state.step - from;
    if pipeline.state.step > 0 {
        let (rows, took) = (control.snapshot().replayed_rows, env.clock.elapsed().saturating_sub(begun));
        control.notice(format!(
            "resumed at step {}: replayed {replayed_steps} steps, {rows} rows, in {:.3} s",
            pipeline.state.step,
            took.as_secs_f64()
        ));
    }
    let mut finished = false;
    // A stop in the middle of a replay leaves everything as it was: what was replayed is as durable as before.
    if complete {
        finished = pipeline.live(options.until_end).inspect_err(|e| control.fail(e))?;
    }
    let snapshot = control.snapshot();
    Ok(Summary {
        step: pipeline.state.step,
        replayed_steps,
        replayed_rows: snapshot.replayed_rows,
        new_rows: snapshot.new_rows,
        input_rows: pipeline.inputs.iter().map(|i| i.state.rows).sum(),
        parse_errors: pipeline.inputs.iter().map(|i| i.state.errors).sum(),
        late_rows: pipeline.watermarks.late_rows(),
        finished,
    })
}

/// After a replay under the configuration that the steps were made under: takes on the new one, behind a fresh checkpoint. If the last
/// step failed under the old one, it had failed when it was made, and nothing of it has left: it is made again under the new one.
fn adopt_semantics(
    mut pipeline: Pipeline,
    mut replayed: Result<bool>,
    program: &Arc<Program>,
    options: &Options,
    env: &Environment,
) -> Result<(Pipeline, Result<bool>)> {
    let control = Arc::clone(&pipeline.control);
    let last_good = pipeline.state.step;
    let failed = matches!(replayed, Err(PipelineError::Circuit(_)));
    if failed {
        drop(pipeline);
        pipeline = Pipeline::open(program, options, env, &control, false)?;
        replayed = pipeline.replay(Some(last_good));
    }
    if !replayed? {
        return Ok((pipeline, Ok(false)));
    }
    pipeline.checkpoint_now(pipeline.replayed_to)?;
    drop(pipeline);
    pipeline = Pipeline::open(program, options, env, &control, failed)?;
    let replayed = pipeline.replay(None);
    Ok((pipeline, replayed))
}

impl Pipeline {
    /// Steps of another fault tolerance are made behind a fresh checkpoint, which says so: a restart must know whether the log has all
    /// that sinks got after it.
    fn adopt_model(&mut self) -> Result<()> {
        let model = self.config.fault_tolerance.model;
        if self.store.is_none() || self.state.model == model {
            return Ok(());
        }
        self.state.model = model;
        let next = self.next_log_record();
        self.checkpoint_now(next)
    }

    /// What comes after the replay, to the end. True: all inputs have ended.
    fn live(&mut self, until_end: bool) -> Result<bool> {
        self.adopt_model()?;
        let finished = self.run_steps(until_end)?;
        self.stop()?;
        Ok(finished)
    }

    /// New steps, until there is a reason to stop. True: all inputs have ended.
    fn run_steps(&mut self, until_end: bool) -> Result<bool> {
        let mut connectors = self.inputs.iter().filter(|i| i.connector().is_some()).peekable();
        if until_end && connectors.peek().is_some() && !connectors.any(InputEndpoint::is_finite) {
            return Err(PipelineError::Config("--until-end: no input ever ends (all follow their source)".into()));
        }
        // Open has checked this for the checkpoint; what was replayed has moved since.
        let connectors: Vec<_> = self.inputs.iter().filter_map(|i| Some((i.name.as_str(), i.connector()?))).collect();
        check_places(&connectors, &self.positions())?;
        self.begin_orchestration(until_end)?;
        self.release()?;
        self.control.update(|s| s.phase = Phase::Running);
        self.pushes.begin(self.parker.unparker().clone());
        self.control.set_doors(Some(Arc::clone(&self.pushes)), self.feed.clone());
        loop {
            if self.control.stopping() {
                return Ok(false);
            }
            self.env.scheduler.pass();
            self.obey();
            self.poll_checkpoint()?;
            self.pump()?;
            self.answer_queries()?;
            self.measure()?;
            // What is pushed while nothing else happens is written; and a store that has failed under it ends the pipeline (invariant 6).
            if let Some(store) = &self.store {
                store.log().submit()?;
            }
            if self.control.paused() {
                self.checkpoint_if_due()?;
                self.report();
                self.env.scheduler.wait(&self.parker, TURN);
                continue;
            }
            let rows = self.config.rows();
            for input in &mut self.inputs {
                input.fill(input.limit(rows))?;
            }
            self.release()?;
            let full = self.outputs_full(true);
            // A program over empty inputs has results, too: a count of 0.
            let first_of_nothing = self.state.step == 0 && self.inputs.iter().all(InputEndpoint::is_done);
            if !full && (first_of_nothing || self.should_cut()) {
                self.waiting_since = None;
                self.step(rows)?;
                self.checkpoint_if_due()?;
                continue;
            }
            // With an end, time stands still once nothing more can come, and before anything has: a finished pipeline that is started
            // again changes nothing.
            let is_open = !until_end || self.last_step_at.is_some() && !self.inputs.iter().all(InputEndpoint::is_done);
            if !full && is_open && self.is_clock_due() {
                self.step(0)?;
                self.checkpoint_if_due()?;
                continue;
            }
            self.checkpoint_if_due()?;
            if self.inputs.iter().all(|i| i.is_done() || (until_end && !i.is_finite())) {
                self.outputs.iter_mut().for_each(OutputEndpoint::settle);
                if until_end && self.outputs.iter().all(OutputEndpoint::is_drained) {
                    return Ok(true);
                }
                if !until_end && self.inputs.iter().all(InputEndpoint::is_done) {
                    self.control.update(|s| s.phase = Phase::Finished);
                }
            }
            self.report();
            self.env.scheduler.wait(&self.parker, TURN.min(self.config.clock_resolution));
        }
    }

    /// Hands the state of now to those who want to ask it.
    fn answer_queries(&mut self) -> Result<()> {
        let asking = self.control.take_asking();
        if asking.is_empty() {
            return Ok(());
        }
        let spines = self.runtime.freeze()?;
        let state = PipelineState { operators: self.operators()?, ..self.state.clone() };
        for answer in asking {
            // Who has stopped waiting gets nothing.
            let _ = answer.try_send(Asked::live(spines.clone(), state.clone())?);
        }
        Ok(())
    }

    /// Whether time alone has changed a view, and the last step is long enough ago.
    fn is_clock_due(&self) -> bool {
        let now = self.env.clock.elapsed();
        let rested = self.last_step_at.is_none_or(|at| now.saturating_sub(at) >= self.config.clock_resolution);
        rested && self.state.next_due_ms.is_some_and(|due| self.env.clock.wall_ms() >= due)
    }

    /// Whether there is a step to make now.
    fn should_cut(&mut self) -> bool {
        let any = self.inputs.iter().any(InputEndpoint::has_input);
        if !any {
            return false;
        }
        if let Some(rows) = self.config.rows_per_step {
            // A fixed cut waits for every input that may still bring rows.
            return self.inputs.iter().all(|i| i.has_ended() || i.ready_rows() >= i.limit(rows));
        }
        let ready: u64 = self.inputs.iter().map(InputEndpoint::ready_rows).sum();
        // No more is buffered of an input than a step takes: to wait with a full buffer is to wait for nothing.
        let full = self.inputs.iter().any(|i| i.is_full() || i.ready_rows() >= i.limit(self.config.max_rows_per_step));
        if full || ready >= self.config.min_batch_size_records || self.inputs.iter().all(InputEndpoint::has_ended) {
            return true;
        }
        let now = self.env.clock.elapsed();
        now.saturating_sub(*self.waiting_since.get_or_insert(now)) >= self.config.max_buffering_delay
    }

    /// One new step, of at most so many rows of each input; none if it is made only because time has passed.
    fn step(&mut self, rows: u64) -> Result<()> {
        self.step_of(rows, |_| true)
    }

    /// As [`Self::step`], of some of the inputs.
    fn step_of(&mut self, rows: u64, takes: impl Fn(&InputEndpoint) -> bool) -> Result<()> {
        let step = self.state.step + 1;
        let clock_ms = self.env.clock.wall_ms().max(self.state.clock_ms);
        let mut tables = vec![Vec::new(); self.program.tables.len()];
        let mut record = StepRecord {
            step,
            epoch: self.store.as_ref().map_or(0, |s| s.epoch()),
            clock_ms,
            generation: self.state.generation,
            engine: ENGINE.into(),
            inputs: Vec::new(),
            previous: self.state.views.clone(),
        };
        let mut new_rows = 0;
        for input in self.inputs.iter_mut().filter(|input| takes(input)) {
            let before = input.state.errors;
            let batch = input.cut(input.limit(rows), step);
            if batch.is_empty() {
                continue;
            }
            tell_parse_errors(&self.control, &self.config, input, &batch, before)?;
            new_rows += batch.rows;
            let logs_rows = self.logged && input.logs_rows() && checked(Check::TakenRows);
            if let (true, Some(store), Some(table)) = (logs_rows, &self.store, self.program.tables.get(input.table)) {
                taken::append(store, step, &input.name, (&table.schema, &batch.deltas))?;
            }
            record.inputs.push(InputBatch {
                connector: input.name.clone(),
                descriptor: batch.descriptor,
                rows: batch.rows,
                errors: batch.errors.len() as u64,
                hash: batch.hash,
            });
            if let Some(deltas) = tables.get_mut(input.table) {
                deltas.extend(batch.deltas);
            }
        }
        if let (true, Some(store)) = (self.logged, &self.store) {
            store.log().append(&record.encode()?)?;
            store.log().submit()?;
        }
        self.run_step(step, clock_ms, tables)?;
        self.last_step_at = Some(self.env.clock.elapsed());
        self.control.update(|s| {
            s.new_rows += new_rows;
            if s.phase == Phase::Finished && new_rows > 0 {
                s.phase = Phase::Running;
            }
        });
        Ok(())
    }

    /// The part of a step that replay shares: circuit, durability of its record, outputs.
    pub(super) fn run_step(&mut self, step: u64, clock_ms: i64, mut tables: Vec<Vec<Delta>>) -> Result<()> {
        self.env.scheduler.pass();
        let watermarks = self.watermarks.values();
        self.watermarks.advance(&mut tables).map_err(CircuitError::arrow("LATENESS"))?;
        let begun = self.env.clock.elapsed();
        self.runtime.submit(StepInput { step, clock_ms, tables, watermarks })?;
        let done = self.runtime.complete()?;
        let computed = self.env.clock.elapsed();
        if let (true, Some(store)) = (self.logged && checked(Check::WriteAhead), &self.store) {
            let log = store.log();
            log.wait_durable(log.next_seq() - 1)?;
        }
        let committed = self.env.clock.elapsed();
        self.state.step = step;
        self.state.clock_ms = clock_ms;
        self.state.next_due_ms = done.next_due_ms;
        self.state.views = done.view_hashes;
        let failed = done.eval_errors.len() as u64;
        for error in done.eval_errors.into_iter().take(SHOWN_ERRORS as usize) {
            self.control.notice(format!("step {step}: row left out: {error}"));
        }
        let deltas: Vec<Arc<Delta>> = done.views.into_iter().map(Arc::new).collect();
        if let Some(feed) = &self.feed {
            feed.publish(step, &deltas, self.env.clock.elapsed());
        }
        for output in &mut self.outputs {
            if let Some(delta) = deltas.get(output.view) {
                output.send(step, Arc::clone(delta));
            }
        }
        let is_logged = self.logged;
        self.control.update(|s| {
            s.evaluation_errors += failed;
            s.step_time.add(computed.saturating_sub(begun));
            if is_logged {
                s.commit_time.add(committed.saturating_sub(computed));
            }
        });
        self.pump()?;
        self.report();
        Ok(())
    }

    pub(super) fn pump(&mut self) -> Result<()> {
        let now = self.env.clock.elapsed();
        for output in &mut self.outputs {
            output.pump(self.config.max_pending_output_bytes, now)?;
        }
        Ok(())
    }

    fn pending_bytes(&self) -> u64 {
        self.outputs.iter().map(OutputEndpoint::pending_bytes).sum()
    }

    /// Whether outputs hold more than they may, all together or one of them; paused ones count as asked for. Each asks its sink to sync at a
    /// share of the bound only, so that many may reach it with none having asked: then all do.
    fn outputs_full(&mut self, with_paused: bool) -> bool {
        let counted = || self.outputs.iter().filter(|o| with_paused || !o.is_paused());
        let bytes: u64 = counted().map(OutputEndpoint::pending_bytes).sum();
        let full = bytes > self.config.max_pending_output_bytes || counted().any(OutputEndpoint::is_full);
        if full {
            self.outputs.iter_mut().for_each(OutputEndpoint::settle);
        }
        full
    }

    /// Waits while outputs hold more than they may; not for paused ones, which would get nothing.
    pub(super) fn wait_for_outputs(&mut self) -> Result<()> {
        while self.outputs_full(false) && !self.control.stopping() {
            self.pump()?;
            self.report();
            self.env.scheduler.wait(&self.parker, TURN);
        }
        Ok(())
    }

    /// First log record that a checkpoint of now does not need.
    pub(super) fn next_log_record(&self) -> u64 {
        let next = self.store.as_ref().map_or(1, |s| s.log().next_seq());
        if checked(Check::LogFrom) { next } else { next + 1 }
    }

    fn checkpoint_if_due(&mut self) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        if self.checkpointer.as_ref().is_none_or(Checkpointer::is_busy) {
            return Ok(());
        }
        let asked = self.control.checkpoints_asked();
        let requested = self.control.take_checkpoint_request();
        let due = self
            .config
            .fault_tolerance
            .checkpoint_interval
            .is_some_and(|i| self.env.clock.elapsed().saturating_sub(self.checkpoint_begun) >= i);
        if self.checkpointed_step == Some(self.state.step) && !self.is_checkpoint_wanted {
            if requested {
                self.control.update(|s| s.checkpoint_request = asked);
            }
            // Runs that were merged since stay on disk as long as the two newest checkpoints name them. Where no step was made, nothing is to change: a
            // finished pipeline may run again, or an older checkpoint was opened and somebody wants to look at the newer one.
            let stepped = due && self.last_step_at.is_some();
            if !stepped || self.checkpoint_merges == [store.stats().merges; 2] {
                return Ok(());
            }
        }
        let storage = self.config.storage.clone().unwrap_or_default();
        // Pushed rows are logged at any level.
        let full = store.log().bytes() > storage.max_log_bytes;
        if requested || due || full || self.is_checkpoint_wanted {
            let next = self.next_log_record();
            self.begin_checkpoint(next)?;
            if requested {
                self.checkpoint_asked = asked;
            }
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self, log_from: u64) -> Result<()> {
        self.checkpoint_begun = self.env.clock.elapsed();
        let merges = self.store.as_ref().map_or(0, |store| store.stats().merges);
        self.checkpoint_merges = [merges, self.checkpoint_merges[0]];
        let step = self.state.step;
        let log_from = self.pushes.first_untaken().map_or(log_from, |first| first.min(log_from));
        self.outlive_recovery(log_from);
        let mut state = self.state.clone();
        state.engine = ENGINE.into();
        if checked(Check::InputPositions) {
            state.inputs = self.positions();
        }
        state.watermarks = self.watermarks.marks();
        state.operators = self.operators()?;
        let mut spines = self.runtime.freeze()?;
        spines.extend(self.pushes.freeze_keys()?);
        let mut outputs = Vec::new();
        for output in &mut self.outputs {
            if let Some(view) = self.program.views.get(output.view) {
                outputs.push((output.freeze(step), Arc::clone(&view.schema)));
            }
        }
        self.checkpointed_step = Some(step);
        self.is_checkpoint_wanted = false;
        self.inputs.iter_mut().for_each(InputEndpoint::checkpoint_begun);
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.begin(Job { spines, state, outputs, log_from, dropped: std::mem::take(&mut self.dropped) })?;
        }
        self.pump()
    }

    /// What the operators have done since the pipeline began. `state` has what they had done when it was opened.
    pub(super) fn operators(&mut self) -> Result<Vec<OperatorState>> {
        let figures = self.runtime.figures()?;
        Ok(OperatorState::of(&self.program.plan, &figures, &self.state.operators))
    }

    /// How far each input has been taken. One that the program no longer has keeps its place: if it comes back, it goes on there.
    fn positions(&self) -> BTreeMap<String, InputState> {
        let mut positions = self.state.inputs.clone();
        let used = self.inputs.iter().filter(|i| i.is_used());
        positions.extend(used.map(|i| (i.name.clone(), i.state.clone())));
        positions
    }

    fn poll_checkpoint(&mut self) -> Result<()> {
        let Some(checkpointer) = &mut self.checkpointer else { return Ok(()) };
        if let Some((step, _info)) = checkpointer.poll()? {
            self.inputs.iter_mut().for_each(InputEndpoint::checkpoint_committed);
            let now = self.env.clock.elapsed();
            let asked = self.checkpoint_asked;
            let took = now.saturating_sub(self.checkpoint_begun);
            self.control.update(|s| {
                s.checkpoint_time.add(took);
                s.checkpoint = Some((step, now));
                s.checkpoints += 1;
                s.checkpoint_request = s.checkpoint_request.max(asked);
            });
        }
        Ok(())
    }

    /// Takes a checkpoint and waits until it is committed.
    pub(super) fn checkpoint_now(&mut self, log_from: u64) -> Result<()> {
        self.finish_checkpoint()?;
        self.begin_checkpoint(log_from)?;
        self.finish_checkpoint()
    }

    fn finish_checkpoint(&mut self) -> Result<()> {
        while self.checkpointer.as_ref().is_some_and(Checkpointer::is_busy) {
            self.pump()?;
            self.poll_checkpoint()?;
            if self.checkpointer.as_ref().is_some_and(Checkpointer::is_busy) {
                self.env.scheduler.wait(&self.parker, Duration::from_millis(2));
            }
        }
        Ok(())
    }

    /// The graceful end: what was cut is run; a checkpoint makes the next start quick.
    fn stop(&mut self) -> Result<()> {
        self.control.update(|s| s.phase = Phase::Stopping);
        self.pushes.close();
        self.take_pushed()?;
        let begun = self.env.clock.elapsed();
        self.outputs.iter_mut().for_each(OutputEndpoint::settle);
        while !self.outputs.iter().all(|o| o.is_paused() || o.is_drained())
            && self.env.clock.elapsed().saturating_sub(begun) < DRAIN_PATIENCE
        {
            self.pump()?;
            self.env.scheduler.wait(&self.parker, TURN);
        }
        self.finish_checkpoint()?;
        // A pipeline that has nothing new leaves everything as it was.
        self.obey();
        if self.store.is_some() && (self.checkpointed_step != Some(self.state.step) || self.is_checkpoint_wanted) {
            let next = self.next_log_record();
            self.checkpoint_now(next)?;
        }
        self.report();
        Ok(())
    }

    /// Steps of what was pushed and none has taken yet: who was told that rows are kept finds them in a savepoint of the last checkpoint. Those of
    /// a paused pipeline stay in the log, and those for which there is no time.
    fn take_pushed(&mut self) -> Result<()> {
        let is_pushed = |input: &InputEndpoint| input.connector().is_none();
        let rows = self.config.rows();
        let begun = self.env.clock.elapsed();
        while !self.control.paused() && self.env.clock.elapsed().saturating_sub(begun) < TAKE_PATIENCE {
            for input in self.inputs.iter_mut().filter(|i| is_pushed(i)) {
                input.fill(input.limit(rows))?;
            }
            if !self.inputs.iter().any(|i| is_pushed(i) && i.has_input()) {
                break;
            }
            if self.outputs_full(true) {
                self.pump()?;
                self.env.scheduler.wait(&self.parker, TURN);
                continue;
            }
            self.step_of(rows, is_pushed)?;
            self.checkpoint_if_due()?;
            self.poll_checkpoint()?;
        }
        if !self.control.paused() && self.inputs.iter().any(|i| is_pushed(i) && i.has_input()) {
            let secs = TAKE_PATIENCE.as_secs();
            self.control.notice(format!(
                "pushed rows wait still after {secs} s: they stay in the log, and a savepoint of this checkpoint lacks them"
            ));
        }
        Ok(())
    }

    /// Puts the figures where others see them.
    fn report(&self) {
        let troubles = self.inputs.iter().filter_map(InputEndpoint::trouble);
        let troubles = troubles.chain(self.outputs.iter().filter_map(OutputEndpoint::trouble)).collect();
        let delivered = self.outputs.iter().map(OutputEndpoint::delivered).min().unwrap_or(self.state.step);
        self.pushes.delivered(delivered);
        self.control.update(|s| {
            s.step = self.state.step;
            s.input_rows = self.inputs.iter().map(|i| i.state.rows).sum();
            s.parse_errors = self.inputs.iter().map(|i| i.state.errors).sum();
            s.buffered_rows = self.inputs.iter().map(InputEndpoint::buffered_rows).sum();
            s.late_rows = self.watermarks.late_rows();
            s.delivered_step = delivered;
            s.pending_bytes = self.pending_bytes();
            s.log_bytes = self.store.as_ref().map_or(0, |store| store.log().bytes());
            s.troubles = troubles;
            if self.outputs.iter().all(|o| o.delivered() >= self.state.step) {
                s.completed_rows = s.input_rows;
            }
            s.inputs.clear();
            s.inputs.extend(self.inputs.iter().filter(|i| i.is_used()).map(InputEndpoint::figures));
            s.outputs.clear();
            s.outputs.extend(self.outputs.iter().map(OutputEndpoint::figures));
        });
    }
}

/// Counts and shows what did not parse; an error if the configuration says so.
fn tell_parse_errors(
    control: &Control,
    config: &PipelineConfig,
    input: &InputEndpoint,
    batch: &Batch,
    before: u64,
) -> Result<()> {
    for (n, (partition, error)) in (before..).zip(&batch.errors) {
        let line = format!("{}: {partition}, byte {}: {}", input.name, error.offset, error.message);
        if config.on_parse_error == OnError::Stop {
            return Err(PipelineError::Connector(crate::connector::ConnectorError {
                connector: input.name.clone(),
                message: format!(
                    "{partition}, byte {}: {}; mend the row, or set \"on_parse_error\": \"skip\"",
                    error.offset, error.message
                ),
                retry: false,
            }));
        }
        if n < SHOWN_ERRORS {
            control.notice(format!("row left out: {line}"));
        } else if n == SHOWN_ERRORS {
            control.notice(format!("{}: more rows do not parse; from now on they are only counted", input.name));
        }
    }
    Ok(())
}
