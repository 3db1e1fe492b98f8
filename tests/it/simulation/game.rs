//! A *game*: a pipeline, and the lives that it is made to have, all drawn from one number.
//!
//! A game's pipeline is first run without a crash (the *reference*). Then its first life is played again and ended at one
//! operation of the disk or one call of a connector; further lives follow, with other schedules and other numbers of workers,
//! of which some end early too, until one comes to its end. Then the sinks are compared with the reference's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstay_storage::disk::sim::{CrashPlan, Fault, Sabotage};

use super::program::{COUNT, LINEAR, Subject};
use super::scheduler::SimScheduler;
use super::sink::SinkState;
use super::source::{Partition, SourceState};
use super::world::{How, World};
use crate::rng::{Rng, mix};
use backstay::connector::Level;
use backstay::pipeline::config::{FaultTolerance, OnError, StorageConfig};
use backstay::pipeline::{Control, Options, PipelineConfig, PipelineError, Summary, run};

/// How a life is made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It comes to its end by itself.
    Never,
    /// The power goes at this operation of the disk.
    Operation(u64),
    /// This operation of the disk fails.
    Failure(u64),
    /// The process dies at this operation of the disk, which is refused and changes nothing; the machine does not.
    Kill(u64),
    /// At this call of a connector.
    Call(u64, How),
}

/// What is the same in all lives of a game.
#[derive(Debug)]
pub(super) struct Game {
    pub(super) seed: u64,
    pub(super) subject: Arc<Subject>,
    pub(super) config: PipelineConfig,
    pub(super) sources: BTreeMap<String, SourceState>,
    sinks: BTreeMap<String, SinkState>,
    /// Lies of the disk.
    pub(super) lie: Option<Sabotage>,
    /// Whether somebody pauses and starts connectors all the time.
    is_restless: bool,
}

/// One life, as it went.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) result: Result<Summary, PipelineError>,
    /// Operations of the disk and calls of connectors.
    pub(super) operations: u64,
    pub(super) calls: u64,
}

impl Game {
    pub(super) fn new(seed: u64, subjects: &[Arc<Subject>; COUNT]) -> Self {
        let rng = &mut Rng::new(seed);
        let model = match rng.below(20) {
            0 => Level::None,
            1..4 => Level::AtLeastOnce,
            _ => Level::ExactlyOnce,
        };
        let mut game = Self::of_model(seed, model, subjects, rng);
        // Where a cut is fixed, a pause would move it.
        game.is_restless = model > Level::None && !game.is_fixed() && rng.once_in(2);
        game
    }

    pub(super) fn of_model(seed: u64, model: Level, subjects: &[Arc<Subject>; COUNT], rng: &mut Rng) -> Self {
        let number = if model == Level::None { LINEAR } else { rng.below(COUNT as u64) as usize };
        let subject = Arc::clone(&subjects[number]);
        let fixed = model < Level::ExactlyOnce || !rng.once_in(3);
        let mut source = |name: &str, partitions: Arc<Vec<Partition>>| {
            let level = match model {
                Level::None => rng.one_of(&[Level::None, Level::None, Level::AtLeastOnce]),
                Level::AtLeastOnce => rng.one_of(&[Level::AtLeastOnce, Level::ExactlyOnce]),
                Level::ExactlyOnce if subject.is_logged(name) => Level::AtLeastOnce,
                Level::ExactlyOnce => Level::ExactlyOnce,
            };
            SourceState::new(level, partitions, fixed)
        };
        let sources = subject.sources(&mut Rng::new(mix(seed)));
        let sources = sources.into_iter().map(|(name, partitions)| {
            let source = source(&name, partitions);
            (name, source)
        });
        let sources = sources.collect();
        let interval = rng.one_of(&[None, Some(50), Some(300), Some(1500)]).map(Duration::from_millis);
        let config = PipelineConfig {
            storage: Some(StorageConfig {
                cache_mib: 1,
                max_log_bytes: rng.one_of(&[48 << 10, 256 << 10]),
                max_memtable_bytes: rng.one_of(&[2 << 10, 1 << 20]),
                quota_bytes: None,
            }),
            fault_tolerance: FaultTolerance { model, checkpoint_interval: interval.filter(|_| model > Level::None) },
            rows_per_step: fixed.then(|| 1 + rng.below(8)),
            max_rows_per_step: 1 + rng.below(12),
            min_batch_size_records: rng.below(6),
            max_buffering_delay: Duration::from_millis(rng.below(100)),
            on_evaluation_error: OnError::Skip,
            max_pending_output_bytes: rng.one_of(&[4 << 10, 1 << 20]),
            ..PipelineConfig::default()
        };
        let mut sinks = subject.sinks();
        sinks.values_mut().for_each(|sink| sink.ahead = rng.once_in(2));
        Self { seed, subject, config, sources, sinks, lie: None, is_restless: false }
    }

    /// A game of the program whose views change when time passes.
    pub(super) fn timed(seed: u64, subjects: &[Arc<Subject>; COUNT]) -> Self {
        let mut game = Self::of_model(seed, Level::ExactlyOnce, subjects, &mut Rng::new(seed));
        let subject = Arc::new(Subject::timed());
        let sources = subject.sources(&mut Rng::new(mix(seed))).into_iter();
        game.sources = sources.map(|(name, p)| (name, SourceState::new(Level::ExactlyOnce, p, false))).collect();
        game.sinks = subject.sinks();
        game.config.rows_per_step = None;
        game.config.clock_resolution = Duration::from_millis(20);
        Self { subject, ..game }
    }

    pub(super) fn model(&self) -> Level {
        self.config.fault_tolerance.model
    }

    /// Whether every run makes the same steps.
    pub(super) fn is_fixed(&self) -> bool {
        self.config.rows_per_step.is_some()
    }

    /// Makes every exactly-once sink one that does not look at its marker.
    pub(super) fn ignore_markers(&mut self) {
        self.sinks.values_mut().for_each(|sink| sink.ignore_marker = true);
    }

    /// The world before the first life.
    pub(super) fn world(&self) -> World {
        let world = World::new(self.seed, self.sources.clone(), self.sinks.clone());
        if let Some(lie) = &self.lie {
            world.state().disk.sabotage(lie.clone());
        }
        world
    }

    /// Lives once.
    pub(super) fn live(&self, world: &World, seed: u64, end: End) -> Life {
        let control = Arc::new(Control::default());
        world.begin(seed, &control);
        if self.is_restless {
            // As one who has an API.
            control.keep_changes();
            world.state().restless = self.subject.connectors();
        }
        let (disk, before, workers) = {
            let state = &mut *world.state();
            state.wall_offset_ms += state.rng.below(20_000) as i64 - 10_000;
            state.sources.values_mut().for_each(|s| s.read_before.clone_from(&s.read));
            let before = state.disk.ops();
            match end {
                End::Never => {}
                End::Operation(op) => state.disk.crash_at(before + op),
                End::Failure(op) => {
                    let fault = state.rng.one_of(&[Fault::Io, Fault::ShortWrite]);
                    state.disk.fail_at(before + op, fault);
                }
                End::Kill(op) => {
                    state.disk.fail_at(before + op, Fault::NoSpace);
                    state.kill_at = Some(before + op);
                }
                End::Call(call, how) => state.end = Some((call, how)),
            }
            (state.disk.clone(), before, 1 + state.rng.below(4) as usize)
        };
        let env = world.environment(seed, Arc::new(SimScheduler::new(world.clone())));
        let options = Options {
            config: PipelineConfig { workers: Some(workers), ..self.config.clone() },
            name: None,
            default_name: "simulation".to_owned(),
            until_end: true,
        };
        let result = run(&self.subject.program, &options, &env, &control);
        let state = &mut *world.state();
        let operations = disk.ops() - before;
        state.note("operations", operations);
        Life { result, operations, calls: state.calls }
    }
}

/// What a disk keeps when the power goes.
pub(super) fn plan(rng: &mut Rng) -> CrashPlan {
    match rng.below(6) {
        0 => CrashPlan::KeepNone,
        1 => CrashPlan::KeepAll,
        _ => CrashPlan::Seeded(rng.next()),
    }
}
