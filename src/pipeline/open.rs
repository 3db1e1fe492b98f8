//! Opening a pipeline: from program, configuration and directory to operators, inputs and outputs that stand where the newest
//! checkpoint says.
//!
//! Invariant: before the first step that delivers to a sink, a checkpoint that names the sink is durable. So a sink that no checkpoint names was
//! never delivered to, and an exactly-once output may refuse one that is not empty. Before the first step of all, one is durable that
//! names the program: what was logged is never replayed by another.
//!
//! A savepoint's copy begins a new incarnation, which inherits no sink (invariant 4 of the design): its outputs are new ones, from
//! the step after the savepoint's on. What was pending for the original's is the original's to deliver.

mod connectors;

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay_storage::disk::QuotaDisk;
use backstay_storage::log::LogOptions;
use backstay_storage::spine::Spine;
use backstay_storage::{Recovered, Store, StoreOptions};
use crossbeam::sync::Parker;

use crate::circuit::{
    CircuitPlan, Delta, OnEvalError, Pick, ROW_FORMAT, Runtime, RuntimeOptions, Stopwatch, Watermarks, reshard,
};
use crate::connector::order::predecessors;
use crate::connector::{Level, Resume, SinkPosition};
use crate::pipeline::checkpointer::Checkpointer;
use crate::pipeline::config::OnError;
use crate::pipeline::controller::{Environment, Options, Pipeline};
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::feed::Feed;
use crate::pipeline::hash::RowHasher;
use crate::pipeline::input::InputEndpoint;
use crate::pipeline::output::OutputEndpoint;
use crate::pipeline::pending;
use crate::pipeline::push::{CONNECTOR, Pushes};
use crate::pipeline::replay::last_step as last_logged_step;
use crate::pipeline::state::{OutputState, PipelineState, RelationState, Semantics, spine_name};
use crate::pipeline::status::{Control, Phase};
use crate::pipeline::timed::Timed;
use crate::sabotage::{Check, checked};
use crate::sql::Program;
pub use connectors::check_connectors;
pub(super) use connectors::check_places;
use connectors::{
    MadeInput, MadeOutput, check_bounds, check_levels, make_inputs, make_outputs, misconfigured, open_output,
};

/// This build, as step records and checkpoints name it.
pub const ENGINE: &str = env!("CARGO_PKG_VERSION");

/// Segments that a log of `max_log_bytes` has at least.
const LOG_SEGMENTS: u64 = 8;
/// Step records are gathered in no less than this.
const LEAST_LOG_BUFFER: usize = 64 << 10;

impl Pipeline {
    /// Opens or creates the pipeline. Steps that the log has after the checkpoint are still to be replayed: under the configuration
    /// that they were made under, or (`adopt_semantics`) under this one.
    pub(crate) fn open(
        program: &Arc<Program>,
        options: &Options,
        env: &Environment,
        control: &Arc<Control>,
        adopt_semantics: bool,
    ) -> Result<Self> {
        control.update(|s| s.phase = Phase::Opening);
        let config = &options.config;
        let name = options.name.as_ref().unwrap_or(&options.default_name);
        let inputs = make_inputs(program, (name, config.fault_tolerance.model), env)?;
        let outputs = timed(make_outputs(program, name, env)?, env, control);
        check_levels(config.fault_tolerance.model, &inputs)?;
        check_bounds(config, &inputs)?;
        let after = predecessors(&program.inputs()).map_err(misconfigured)?;

        let store = open_store(options, env)?;
        let recovered = store.as_ref().and_then(|store| store.recovered());
        for warning in recovered.map(|r| r.warnings.as_slice()).unwrap_or_default() {
            control.notice(format!("warning: {warning}"));
        }
        let workers = config.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let wanted = Semantics { on_evaluation_error: config.on_evaluation_error };
        let mut state = match recovered {
            Some(recovered) => recovered_state(recovered, program, options)?,
            None => fresh_state(program, options, env, wanted),
        };
        // Not what the checkpoint says: an earlier build may have written none.
        state.relations = RelationState::of(program);
        let fresh = recovered.is_none();
        let copy_of = recovered.and_then(|r| r.savepoint.as_deref());
        if let Some(savepoint) = copy_of {
            begin_incarnation(&mut state, savepoint, env, control);
        }
        let is_renewed = tell_recovery(&mut state, control);
        let copy = copy_of.is_some() || is_renewed;
        let old_workers = std::mem::replace(&mut state.workers, workers);

        let log_from = recovered.map_or(1, |r| r.log_from);
        let counted_from = state.recovery.as_ref().map_or(log_from, |r| r.void_before.max(log_from));
        let last_logged = store.as_ref().map(|store| last_logged_step(store, counted_from)).transpose()?.flatten();
        // Rows that were pushed and that no step has taken may stand in the log behind the last step, or alone.
        let to_replay = last_logged.is_some_and(|step| step > state.step);
        let semantics_outdated = to_replay && !adopt_semantics && state.semantics != wanted;
        if !semantics_outdated && state.semantics != wanted {
            state.semantics = wanted;
            state.generation += 1;
        }

        let plan = Arc::new(program.plan.clone());
        let watermarks = Watermarks::new(&plan, &state.watermarks);
        let clock = Arc::clone(&env.clock);
        let stopwatch = Stopwatch::new(move || clock.elapsed());
        let order = env.scheduler.worker_order();
        let (runtime, dropped) = start_runtime(&plan, &state, old_workers, store.as_deref(), order, stopwatch)?;

        let parker = Parker::new();
        let last_step = last_logged.filter(|_| to_replay).unwrap_or(state.step);
        let connectors: Vec<_> = inputs.iter().map(|i| (i.name.as_str(), &*i.input)).collect();
        check_places(&connectors, &state.inputs)?;
        let mut input_endpoints = Vec::new();
        for (MadeInput { name, table, input, config }, after) in inputs.into_iter().zip(after) {
            let definition = program.tables.get(table).ok_or_else(|| lost("table"))?;
            let hasher = RowHasher::new(&definition.schema, definition.is_append_only())?;
            let known = state.inputs.get(&name).cloned().unwrap_or_default();
            let is_lossy = state.recovery.iter().flat_map(|r| &r.losses).any(|loss| loss.connector == name);
            let mut endpoint = InputEndpoint::new(name, table, input, hasher, (&config, after), known);
            endpoint.is_lossy = is_lossy;
            input_endpoints.push(endpoint);
        }
        let is_late = |table: usize| plan.tables.iter().any(|t| t.late == Some(table));
        let pushed_name = |table: usize| program.tables.get(table).map(|t| format!("{}.{CONNECTOR}", t.name));
        let known = |table| pushed_name(table).and_then(|name| state.inputs.get(&name).cloned()).unwrap_or_default();
        let pushes = Arc::new(Pushes::open(
            program,
            store.as_ref(),
            &|table| known(table).position,
            (state.step, state.incarnation, copy_of.is_some()),
            config.http,
        )?);
        for (table, definition) in program.tables.iter().enumerate().filter(|(table, _)| !is_late(*table)) {
            let hasher = RowHasher::new(&definition.schema, definition.is_append_only())?;
            let name = pushed_name(table).unwrap_or_default();
            input_endpoints.push(InputEndpoint::pushed(name, table, Arc::clone(&pushes), hasher, known(table)));
        }
        let mut output_endpoints = Vec::new();
        let mut new_sinks = false;
        for MadeOutput { name, view, mut output, config: connector } in outputs {
            let schema = &program.views.get(view).ok_or_else(|| lost("view"))?.schema;
            let known = state.outputs.get(&name).cloned();
            new_sinks |= known.is_none();
            // What an earlier process delivered after the checkpoint is rendered again, byte for byte, only if it was logged.
            let replayed =
                to_replay || (config.fault_tolerance.model, state.model) == (Level::ExactlyOnce, Level::ExactlyOnce);
            let position =
                known.as_ref().map(|k| stands_at(&name, &k.sink, replayed, state.step, last_step)).transpose()?;
            let resume = Resume {
                checkpoint: position.clone(),
                step: state.step,
                last_step,
                replayed,
                copy,
                incarnation: state.incarnation,
                epoch: store.as_ref().map_or(0, |s| s.epoch()),
            };
            let is_open = open_output(&mut *output, &resume, env, control, &parker)?;
            let known = match known {
                Some(known) => known,
                None => OutputState { sink: output.sync()?, pending: Vec::new() },
            };
            let position = position.unwrap_or_else(|| known.sink.clone());
            let wake = parker.unparker().clone();
            let mut endpoint = OutputEndpoint::start(
                name.clone(),
                view,
                output,
                &connector,
                (position, resume, is_open),
                &*env.scheduler,
                wake,
            )?;
            endpoint.pause(state.paused.get(&name).copied().unwrap_or(connector.paused));
            let mut last = endpoint.delivered();
            for file in &known.pending {
                let store = store.as_ref().ok_or_else(|| lost("store"))?;
                for (step, delta) in pending::decode(schema, file, &store.read_extra(file)?)? {
                    endpoint.send(step, Arc::new(delta));
                    last = last.max(step);
                }
            }
            // Empty deltas leave no trace in that file; without them a sink would seem to wait for the checkpoint's last steps.
            if last < state.step {
                endpoint.send(state.step, Arc::new(Delta::empty(Arc::clone(schema))));
            }
            state.outputs.insert(name, known);
            output_endpoints.push(endpoint);
        }
        let outputs_now: Vec<&str> = output_endpoints.iter().map(|o| o.name.as_str()).collect();
        state.outputs.retain(|name, _| outputs_now.contains(&name.as_str()));

        let checkpointer = store.as_ref().map(|store| Checkpointer::start(store, env)).transpose()?;
        // Without a log a restart makes other steps under the same numbers.
        let logged = config.fault_tolerance.model == Level::ExactlyOnce;
        let scope = if logged { state.incarnation } else { env.new_id };
        let feed = || Arc::new(Feed::new(program.views.len(), state.step, scope, config.http));
        let feed = control.keeps_changes().then(feed);
        let mut pipeline = Self {
            program: Arc::clone(program),
            config: config.clone(),
            env: env.clone(),
            control: Arc::clone(control),
            logged,
            store,
            runtime,
            watermarks,
            inputs: input_endpoints,
            pushes,
            feed,
            outputs: output_endpoints,
            checkpointer,
            parker,
            checkpointed_step: if fresh || !dropped.is_empty() { None } else { Some(state.step) },
            checkpoint_begun: env.clock.elapsed(),
            checkpoint_merges: [0; 2],
            checkpoint_asked: 0,
            is_checkpoint_wanted: false,
            dropped,
            state,
            log_from,
            last_logged,
            replayed_to: log_from,
            semantics_outdated,
            waiting_since: None,
            last_step_at: None,
            measured_at: None,
        };
        if (new_sinks || fresh || copy) && pipeline.store.is_some() {
            pipeline.checkpoint_now(log_from)?;
        }
        Ok(pipeline)
    }
}

fn lost(what: &str) -> PipelineError {
    PipelineError::State(format!("internal error: a {what} of the program is missing"))
}

/// Where a sink stands that the checkpoint of step `step` knows at `sink`.
fn stands_at(name: &str, sink: &SinkPosition, replayed: bool, step: u64, last_step: u64) -> Result<SinkPosition> {
    if !replayed {
        // Steps after the checkpoint are made anew, under the same numbers: the sink gets them again.
        return Ok(SinkPosition { step: sink.step.min(step), ..sink.clone() });
    }
    if sink.step > last_step {
        return Err(PipelineError::State(format!(
            "output {name} has been delivered step {}, but the last step that the checkpoint and the log hold is {last_step}: part of the log \
             is missing; put the data directory's files back, or start in another one",
            sink.step
        )));
    }
    Ok(sink.clone())
}

/// Lets the control tell how long sinks take.
fn timed(outputs: Vec<MadeOutput>, env: &Environment, control: &Control) -> Vec<MadeOutput> {
    let timed = |made: MadeOutput| MadeOutput {
        output: Timed::over(made.output, Arc::clone(&env.clock), control.time_sink(&made.name)),
        ..made
    };
    outputs.into_iter().map(timed).collect()
}

fn open_store(options: &Options, env: &Environment) -> Result<Option<Arc<Store>>> {
    let Some(storage) = &options.config.storage else { return Ok(None) };
    let Some(dir) = &env.data_dir else {
        return Err(PipelineError::Config(
            "storage is enabled, but there is no data directory: give --data-dir".into(),
        ));
    };
    let mut disk = Arc::clone(&env.disk);
    if let Some(quota) = storage.quota_bytes {
        disk.create_dir_all(dir)?;
        disk = Arc::new(QuotaDisk::new(disk, dir, quota)?);
    }
    let cache_bytes = storage.cache_mib << 20;
    let store_options = StoreOptions {
        memory_bytes: cache_bytes.saturating_add(storage.max_memtable_bytes),
        cache_bytes: Some(cache_bytes),
        new_id: env.new_id.as_u128(),
        log: log_options(storage.max_log_bytes),
        ..StoreOptions::default()
    };
    Ok(Some(Arc::new(Store::open(disk, dir, store_options)?)))
}

/// A log of several segments within its bound: only whole ones are trimmed, so that one that is as large as the bound would leave it
/// exceeded for ever, with a checkpoint after every step.
fn log_options(max_log_bytes: u64) -> LogOptions {
    let most = LogOptions::default();
    let segment_bytes = most.segment_bytes.min(max_log_bytes / LOG_SEGMENTS);
    let room = usize::try_from(segment_bytes).unwrap_or(usize::MAX).max(LEAST_LOG_BUFFER);
    LogOptions { segment_bytes, buffer_bytes: most.buffer_bytes.min(room), ..most }
}

fn fresh_state(program: &Program, options: &Options, env: &Environment, semantics: Semantics) -> PipelineState {
    PipelineState {
        name: options.name.clone().unwrap_or_else(|| options.default_name.clone()),
        incarnation: env.new_id,
        step: 0,
        clock_ms: 0,
        next_due_ms: None,
        workers: 0,
        generation: 1,
        semantics,
        model: options.config.fault_tolerance.model,
        engine: ENGINE.into(),
        row_format: ROW_FORMAT,
        program: program.state_identity(),
        fingerprint: program.fingerprint(),
        relations: BTreeMap::new(),
        inputs: BTreeMap::new(),
        outputs: BTreeMap::new(),
        paused: BTreeMap::new(),
        recovery: None,
        watermarks: BTreeMap::new(),
        operators: Vec::new(),
        views: Vec::new(),
    }
}

fn recovered_state(recovered: &Recovered, program: &Program, options: &Options) -> Result<PipelineState> {
    let state = PipelineState::decode(&recovered.blob)?;
    let asked = options.name.as_ref().unwrap_or(&options.default_name);
    if *asked != state.name {
        return Err(PipelineError::Config(format!(
            "this directory belongs to pipeline \"{}\", not \"{asked}\"; run it with --name {}, or choose another --data-dir",
            state.name, state.name
        )));
    }
    state.check_row_format()?;
    if let Some(changes) = state.program_changes(&program.state_identity()) {
        return Err(PipelineError::Config(format!(
            "the SQL program is not the one that this directory's state was computed by: {changes}. \
             Changing a program over kept state is not supported yet: put it back, or start in another --data-dir"
        )));
    }
    if state.fingerprint != program.fingerprint() {
        return Err(PipelineError::State(format!(
            "this version compiles the same SQL to another circuit than version {}, which this directory's state belongs to; \
             use that version, or start in another --data-dir",
            state.engine
        )));
    }
    Ok(state)
}

/// Makes the state of a savepoint another pipeline's than the one that it was saved from.
fn begin_incarnation(state: &mut PipelineState, savepoint: &str, env: &Environment, control: &Control) {
    if checked(Check::CopyIncarnation) {
        state.incarnation = env.new_id;
    }
    if checked(Check::CopySinks) {
        state.outputs.clear();
    }
    control.notice(format!(
        "a copy of savepoint \"{savepoint}\", after step {}: going on as incarnation {}; outputs begin anew, with step {}",
        state.step,
        state.incarnation,
        state.step + 1
    ));
}

/// Says what was chosen by `backstay recover`, if that has not taken effect. Whether the outputs are to begin anew by it: the checkpoint
/// that is taken before a step is made says that they have.
fn tell_recovery(state: &mut PipelineState, control: &Control) -> bool {
    let Some(recovery) = state.recovery.as_mut().filter(|r| r.is_new) else { return false };
    recovery.is_new = false;
    let lost = recovery
        .losses
        .iter()
        .map(|l| format!("; {} rows of {} in steps {} to {} were given up", l.rows, l.connector, l.from, l.to));
    let (step, incarnation, lost) = (state.step, state.incarnation, lost.collect::<String>());
    control.notice(format!(
        "recovered by choice, after step {step}: going on as incarnation {incarnation}; outputs begin anew, with step {}{lost}",
        step + 1
    ));
    true
}

/// Starts the workers over the checkpoint's spines. If the number of workers changed, rows move to where their vnode lives now.
fn start_runtime(
    plan: &Arc<CircuitPlan>,
    state: &PipelineState,
    old_workers: usize,
    store: Option<&Store>,
    order: Option<Pick>,
    stopwatch: Stopwatch,
) -> Result<(Runtime, Vec<String>)> {
    let workers = state.workers;
    let on_eval_error = match state.semantics.on_evaluation_error {
        OnError::Stop => OnEvalError::Stop,
        OnError::Skip => OnEvalError::Skip,
    };
    let move_rows = old_workers != 0 && old_workers != workers;
    let mut moved: BTreeMap<String, Vec<Option<Spine>>> = BTreeMap::new();
    let mut open_spine = |worker: usize, name: &str, discipline| {
        let Some(store) = store else { return Ok(Spine::ephemeral(discipline)) };
        let open =
            |base: &str, worker, workers| store.spine(&spine_name(base, worker, workers), discipline, ROW_FORMAT);
        let base = name.rsplit_once('#').map_or(name, |(base, _)| base);
        if !move_rows {
            return open(base, worker, workers);
        }
        if !moved.contains_key(base) {
            let read = (0..old_workers).map(|w| open(base, w, old_workers)).collect::<Result<_, _>>()?;
            let mut write = (0..workers).map(|w| open(base, w, workers)).collect::<Result<Vec<_>, _>>()?;
            if checked(Check::Reshard) {
                reshard(read, discipline, &mut write)?;
            }
            moved.insert(base.to_string(), write.into_iter().map(Some).collect());
        }
        let spine = moved.get_mut(base).and_then(|spines| spines.get_mut(worker)).and_then(Option::take);
        spine.ok_or_else(|| backstay_storage::Error::Invalid(format!("spine {name} was opened twice")))
    };
    let (plan, options) = (Arc::clone(plan), RuntimeOptions { workers, on_eval_error, stopwatch });
    let runtime = match order {
        None => Runtime::start(plan, options, &mut open_spine)?,
        Some(order) => Runtime::start_inline(plan, options, &mut open_spine, order)?,
    };
    let shards = |base: &String| (0..old_workers).map(|w| spine_name(base, w, old_workers)).collect::<Vec<_>>();
    Ok((runtime, moved.keys().flat_map(shards).collect()))
}
