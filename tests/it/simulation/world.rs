//! What surrounds a simulated pipeline: its disk, its clock, the sources and sinks that outlive its process.
//!
//! Invariants:
//! 1. Everything that happens is decided by the seed of the life that it happens in: there is one thread and one random source.
//! 2. Whatever happens is mixed into `trace`, so that two runs can be compared.
//! 3. When a life has ended (its process is dead), no call of a connector changes anything any more.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstay_storage::disk::SimDisk;
use backstay_storage::disk::sim::CrashPlan;
use uuid::Uuid;

use super::sink::{SimOutput, SinkState};
use super::source::{SimInput, SourceState};
use crate::rng::{Rng, mix};
use backstay::connector::{ConnectorError, Connectors, Level, Result};
use backstay::pipeline::{Clock, Control, Environment, Scheduler};

/// The wall clock at the beginning.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// How a connector's call ends a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The power goes; the seed decides what the disk keeps.
    Power,
    /// The process dies, the machine does not.
    Kill,
    /// Somebody asks for a graceful stop.
    Stop,
}

/// The world. Clones are the same world.
#[derive(Clone, Debug)]
pub(super) struct World(Arc<Mutex<State>>);

#[derive(Debug)]
pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) disk: SimDisk,
    pub(super) data_dir: PathBuf,
    pub(super) now: Duration,
    pub(super) wall_offset_ms: i64,
    /// Calls of connectors in this life.
    pub(super) calls: u64,
    /// Turns of tasks and waits of the controller in this life.
    pub(super) turns: u64,
    /// Which life of the pipeline this is.
    pub(super) life: u64,
    /// The call at which this life ends.
    pub(super) end: Option<(u64, How)>,
    /// The operation of the disk at which it ends: whoever calls a connector after that is told so.
    pub(super) kill_at: Option<u64>,
    pub(super) dead: bool,
    pub(super) trace: u64,
    pub(super) control: Arc<Control>,
    /// Connectors that somebody pauses and starts all the time.
    pub(super) restless: Vec<String>,
    pub(super) sources: BTreeMap<String, SourceState>,
    pub(super) sinks: BTreeMap<String, SinkState>,
    /// What connectors saw that must not be.
    pub(super) problems: Vec<String>,
}

impl State {
    /// Mixes what happened into the trace.
    pub(super) fn note(&mut self, what: &str, n: u64) {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(what.as_bytes(), n);
        self.trace = mix(self.trace ^ hash).wrapping_add(hash);
    }

    /// Pauses a connector now and then, or starts one.
    pub(super) fn fidget(&mut self) {
        if self.restless.is_empty() || !self.rng.once_in(10) {
            return;
        }
        let name = &self.restless[self.rng.below(self.restless.len() as u64) as usize];
        match self.rng.once_in(3) {
            true => self.control.pause_connector(name),
            false => self.control.start_connector(name),
        }
    }
}

impl World {
    pub(super) fn new(seed: u64, sources: BTreeMap<String, SourceState>, sinks: BTreeMap<String, SinkState>) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: Rng::new(seed),
            disk: SimDisk::new(seed),
            data_dir: PathBuf::from("/data"),
            now: Duration::ZERO,
            wall_offset_ms: EPOCH_MS,
            calls: 0,
            turns: 0,
            life: 0,
            end: None,
            kill_at: None,
            dead: false,
            trace: seed,
            control: Arc::default(),
            restless: Vec::new(),
            sources,
            sinks,
            problems: Vec::new(),
        })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A life begins: its calls and turns are counted anew, and its seed decides what happens.
    pub(super) fn begin(&self, seed: u64, control: &Arc<Control>) {
        let state = &mut *self.state();
        state.rng = Rng::new(seed);
        state.life += 1;
        (state.calls, state.turns, state.dead, state.end, state.kill_at) = (0, 0, false, None, None);
        state.control = Arc::clone(control);
    }

    /// What is there when the next life begins. `power`: whether the disk loses what was not durable.
    pub(super) fn rise(&self, power: Option<CrashPlan>) {
        let state = &mut *self.state();
        if let Some(plan) = power {
            state.disk = state.disk.power_cycle(plan);
        }
        for sink in state.sinks.values_mut() {
            sink.crash(state.rng.next());
        }
    }

    /// The transports that there are: `sim_input`, `sim_once` and `sim_least`.
    fn connectors(&self) -> Connectors {
        let (sources, once, least) = (self.clone(), self.clone(), self.clone());
        Connectors::default()
            .with_input("sim_input", move |_, ctx| Ok(Box::new(SimInput::new(sources.clone(), ctx.name))))
            .with_output("sim_once", move |_, ctx| Ok(Box::new(SimOutput::new(once.clone(), Level::ExactlyOnce, &ctx))))
            .with_output("sim_least", move |_, ctx| {
                Ok(Box::new(SimOutput::new(least.clone(), Level::AtLeastOnce, &ctx)))
            })
    }

    /// What a pipeline runs in, in the life of this seed.
    pub(super) fn environment(&self, seed: u64, scheduler: Arc<dyn Scheduler>) -> Environment {
        let (disk, data_dir) = {
            let state = self.state();
            (state.disk.clone(), state.data_dir.clone())
        };
        Environment {
            disk: Arc::new(disk),
            clock: Arc::new(self.clone()),
            scheduler,
            connectors: self.connectors(),
            data_dir: Some(data_dir),
            base_dir: PathBuf::from("/"),
            variables: BTreeMap::new(),
            new_id: Uuid::from_u128(u128::from(seed) << 64 | 1),
        }
    }

    /// A hash of every file on the disk.
    pub(super) fn content(&self) -> Vec<(PathBuf, u64)> {
        let disk = &self.state().disk;
        let hash = |path: &PathBuf| xxhash_rust::xxh3::xxh3_64(&disk.read_file(path).expect("a file that is listed"));
        disk.list_all().into_iter().map(|path| (path.clone(), hash(&path))).collect()
    }

    /// One call of a connector, which may be the one that the process does not outlive: then `effect` has happened or not.
    pub(super) fn call<T>(
        &self,
        connector: &str,
        what: &str,
        n: u64,
        effect: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        let state = &mut *self.state();
        let killed = state.kill_at.is_some_and(|op| state.disk.ops() >= op);
        if state.dead || killed || state.disk.is_down() {
            state.dead = true;
            return Err(gone(connector));
        }
        state.calls += 1;
        state.note(connector, n);
        state.note(what, state.calls);
        match state.end.filter(|(call, _)| *call == state.calls) {
            Some((_, How::Stop)) => state.control.request_stop(),
            Some((_, how)) => {
                state.dead = true;
                if how == How::Power {
                    state.disk.crash_at(state.disk.ops() + 1);
                }
                if state.rng.once_in(2) {
                    let _ = effect(state);
                }
                return Err(gone(connector));
            }
            None => {}
        }
        effect(state)
    }
}

fn gone(connector: &str) -> ConnectorError {
    ConnectorError::new(connector, "the simulated process has ended")
}

impl Clock for World {
    fn wall_ms(&self) -> i64 {
        let state = self.state();
        state.wall_offset_ms + i64::try_from(state.now.as_millis()).unwrap_or(i64::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.state().now
    }

    fn sleep(&self, duration: Duration) {
        self.state().now += duration;
    }
}
