//! Pushed rows in simulation: a client that asks again until it is answered, on the simulated disk, with a crash at any operation.
//!
//! Invariants that are checked: a row that was acknowledged is in the sink once (with at_least_once: at least once); one that was sent
//! with a key is there once when the client has its answer, however often it asked; one without a key and without an answer is there at most once.
//! And the last checkpoint of a pipeline that was stopped, without being paused, has taken every row that was acknowledged: it may be kept as a
//! savepoint, whose copy has no log.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use backstay_storage::StoreReader;
use backstay_storage::disk::Disk;
use backstay_storage::disk::sim::{CrashPlan, Fault};
use crossbeam::sync::Parker;

use super::game::plan;
use super::scheduler::SimScheduler;
use super::sink::SinkState;
use super::world::World;
use crate::rng::{Rng, mix, number_from};
use backstay::circuit::Pick;
use backstay::connector::Level;
use backstay::pipeline::config::{FaultTolerance, StorageConfig};
use backstay::pipeline::push::record::PushKey;
use backstay::pipeline::push::{Pushed, Pushes, keys};
use backstay::pipeline::schedule::{Running, Scheduler, Task};
use backstay::pipeline::state::PipelineState;
use backstay::pipeline::{Control, Options, PipelineConfig, PipelineError, Summary, run};
use backstay::sql::{Program, compile};

/// Requests until the client has enough.
const REQUESTS: u64 = 14;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Acknowledged,
}

/// A client, which outlives the pipeline's process.
#[derive(Debug, Default)]
struct Client {
    requests: u64,
    /// The rows of the request that is not answered, and whether it has a key.
    open: Option<(Vec<i64>, bool)>,
    /// In this life.
    pushed: Option<Pushed>,
    told: BTreeMap<i64, Told>,
    /// How often a request was made again.
    repeated: u64,
    /// The offset after all that was acknowledged.
    end: u64,
    /// Whether the pipeline was asked to stop before steps had taken all of it.
    stopped_early: bool,
}

impl Client {
    /// The process that was asked is gone.
    fn outlive(&mut self) {
        if self.pushed.take().is_some() && self.open.as_ref().is_some_and(|(_, is_keyed)| !is_keyed) {
            // Nobody will ever know.
            self.open = None;
        }
    }

    fn act(&mut self, world: &World, control: &Control) {
        let (dice, wall) = {
            let state = &mut *world.state();
            (state.rng.next(), state.wall_offset_ms)
        };
        let mut rng = Rng::new(dice);
        let Some(pushes) = control.pushes().filter(|_| rng.once_in(3)) else { return };
        if let Some(pushed) = self.pushed {
            if is_durable(&pushes, &pushed) {
                let (ids, _) = self.open.take().unwrap();
                self.told.extend(ids.into_iter().map(|id| (id, Told::Acknowledged)));
                self.pushed = None;
                self.end = self.end.max(pushed.end);
                // Before a step can have taken it, now and then.
                if self.requests == REQUESTS && rng.once_in(2) {
                    self.stopped_early |= !pushes.is_complete(0, self.end);
                    control.request_stop();
                }
            }
            return;
        }
        if self.open.is_none() && self.requests == REQUESTS {
            if pushes.is_complete(0, pushes.end(0)) {
                control.request_stop();
            }
            return;
        }
        let (ids, is_keyed) = self.open.get_or_insert_with(|| {
            self.requests += 1;
            let count = rng.below(6) as i64;
            let ids: Vec<i64> = (0..count).map(|i| self.requests as i64 * 100 + i).collect();
            self.told.extend(ids.iter().map(|id| (*id, Told::Nothing)));
            (ids, rng.below(3) > 0)
        });
        let key = is_keyed.then(|| {
            let body = xxhash_rust::xxh3::xxh3_64(format!("{ids:?}").as_bytes());
            PushKey { hash: keys::hash("t", &self.requests.to_string()), body, at_ms: wall }
        });
        let schema = program().table("t").unwrap().schema.clone();
        let rows = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(ids.clone()))]).unwrap();
        // A pipeline that is about to end refuses, or fails: it is asked again, if that can be.
        match pushes.push(0, rows, None, key) {
            Ok(pushed) => {
                self.repeated += u64::from(pushed.repeated);
                self.pushed = Some(pushed);
            }
            Err(_) if *is_keyed => {}
            Err(_) => self.open = None,
        }
    }
}

fn is_durable(pushes: &Pushes, pushed: &Pushed) -> bool {
    let mut durable = std::pin::pin!(pushes.when_durable(pushed));
    matches!(durable.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
}

/// A scheduler between whose turns the client acts.
#[derive(Debug)]
struct WithClient {
    inner: SimScheduler,
    world: World,
    control: Arc<Control>,
    client: Arc<Mutex<Client>>,
}

impl WithClient {
    fn act(&self) {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).act(&self.world, &self.control);
    }
}

impl Scheduler for WithClient {
    fn start(&self, name: &str, task: Box<dyn Task>) -> std::io::Result<Running> {
        self.inner.start(name, task)
    }

    fn wait(&self, parker: &Parker, at_most: Duration) {
        self.act();
        self.inner.wait(parker, at_most);
    }

    fn pass(&self) {
        self.act();
        self.inner.pass();
    }

    fn worker_order(&self) -> Option<Pick> {
        self.inner.worker_order()
    }
}

fn program() -> Arc<Program> {
    static PROGRAM: LazyLock<Arc<Program>> = LazyLock::new(compiled);
    Arc::clone(&PROGRAM)
}

fn compiled() -> Arc<Program> {
    let sql = r#"CREATE TABLE t (id BIGINT NOT NULL);
        CREATE VIEW v WITH ('connectors' = '[{"name": "once", "transport": {"name": "sim_once"}}, {"name": "least", "transport": {"name": "sim_least"}}]')
        AS SELECT id FROM t;
        CREATE VIEW n AS SELECT count(*) AS n FROM t;"#;
    Arc::new(compile(sql, "pushes.sql").unwrap())
}

/// How a life ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Never,
    /// The power goes at this operation of the disk.
    Power(u64),
    /// This operation fails.
    Failure(u64),
}

struct Game {
    world: World,
    client: Arc<Mutex<Client>>,
    config: PipelineConfig,
}

impl Game {
    fn new(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let model = if rng.once_in(4) { Level::AtLeastOnce } else { Level::ExactlyOnce };
        let interval = rng.one_of(&[None, Some(20), Some(100), Some(800)]).map(Duration::from_millis);
        let config = PipelineConfig {
            storage: Some(StorageConfig {
                cache_mib: 1,
                max_log_bytes: rng.one_of(&[48 << 10, 256 << 10]),
                max_memtable_bytes: rng.one_of(&[2 << 10, 1 << 20]),
                quota_bytes: None,
            }),
            fault_tolerance: FaultTolerance { model, checkpoint_interval: interval },
            max_rows_per_step: 1 + rng.below(8),
            ..PipelineConfig::default()
        };
        let sinks = ["v.once", "v.least"].map(|name| (name.to_owned(), SinkState::default()));
        Self { world: World::new(seed, BTreeMap::new(), sinks.into()), client: Arc::default(), config }
    }

    /// Lives once; says how many operations of the disk it took.
    fn live(&self, seed: u64, end: End) -> (Result<Summary, PipelineError>, u64) {
        let control = Arc::new(Control::default());
        self.world.begin(seed, &control);
        let (disk, before, workers) = {
            let state = &mut *self.world.state();
            let before = state.disk.ops();
            match end {
                End::Never => {}
                End::Power(op) => state.disk.crash_at(before + op),
                End::Failure(op) => state.disk.fail_at(before + op, Fault::Io),
            }
            (state.disk.clone(), before, 1 + state.rng.below(3) as usize)
        };
        let scheduler = WithClient {
            inner: SimScheduler::new(self.world.clone()),
            world: self.world.clone(),
            control: Arc::clone(&control),
            client: Arc::clone(&self.client),
        };
        let env = self.world.environment(seed, Arc::new(scheduler));
        let options = Options {
            config: PipelineConfig { workers: Some(workers), ..self.config.clone() },
            name: None,
            default_name: "pushes".to_owned(),
            until_end: false,
        };
        let result = run(&program(), &options, &env, &control);
        self.client.lock().unwrap_or_else(PoisonError::into_inner).outlive();
        (result, disk.ops() - before)
    }

    /// What the last checkpoint lacks of what was acknowledged.
    fn check_checkpoint(&self) -> Result<(), String> {
        let end = self.client.lock().unwrap_or_else(PoisonError::into_inner).end;
        let state = self.world.state();
        // Without what was to go wrong, and came too late.
        let disk: Arc<dyn Disk> = Arc::new(state.disk.power_cycle(CrashPlan::KeepAll));
        let kept = StoreReader::newest(&disk, &state.data_dir, 1 << 20).map_err(|e| e.to_string())?;
        let kept = PipelineState::decode(kept.ok_or("no checkpoint")?.blob()).map_err(|e| e.to_string())?;
        let taken = kept.inputs.get("t.ingress").and_then(|i| i.position.partitions.first()).map_or(0, |p| p.offset);
        match taken >= end {
            true => Ok(()),
            false => Err(format!("the checkpoint of step {} has taken {taken}, and {end} was acknowledged", kept.step)),
        }
    }

    /// What is wrong with the sinks in the end.
    fn check(&self) -> Result<(), String> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.world.state();
        if let Some(problem) = state.problems.first() {
            return Err(problem.clone());
        }
        let is_exact = self.config.fault_tolerance.model == Level::ExactlyOnce;
        for (name, sink) in &state.sinks {
            let once = is_exact && name == "v.once";
            let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
            for line in sink.entries.iter().flat_map(|e| e.text.lines()) {
                let id = line.rsplit_once("\"id\":").and_then(|(_, rest)| rest.trim_end_matches('}').parse().ok());
                *counts.entry(id.ok_or_else(|| format!("{name}: {line}"))?).or_default() += 1;
            }
            let strangers: BTreeSet<_> = counts.keys().filter(|id| !client.told.contains_key(id)).collect();
            if !strangers.is_empty() {
                return Err(format!("{name}: {strangers:?} were never sent"));
            }
            for (id, told) in &client.told {
                let count = counts.get(id).copied().unwrap_or(0);
                let is_right = match told {
                    Told::Acknowledged => count == 1 || (count > 1 && !once),
                    Told::Nothing => count <= 1 || !once,
                };
                if !is_right {
                    return Err(format!("{name}: row {id}, {told:?}, is there {count} times"));
                }
            }
        }
        Ok(())
    }
}

/// What was met.
#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    /// Requests that were made again.
    repeated: u64,
    /// Stops before steps had taken what was acknowledged.
    stopped_early: u64,
}

/// Plays a game with a crash, further ones, and an end.
fn play(seed: u64, end: End) -> Result<(u64, Noted), String> {
    let game = Game::new(seed);
    let (mut result, operations) = game.live(mix(seed), end);
    let mut lives = 1;
    while let Err(error) = &result {
        if lives > 12 {
            return Err(format!("life {lives} does not end: {error}"));
        }
        let (is_down, again) = {
            let state = &mut *game.world.state();
            (state.disk.is_down(), state.rng.once_in(3))
        };
        if matches!(end, End::Never) && lives == 1 {
            return Err(format!("without a crash: {error}"));
        }
        let power = is_down.then(|| plan(&mut game.world.state().rng));
        game.world.rise(power);
        let dice = mix(seed ^ (lives << 32));
        let end = if again && lives < 6 { End::Power(1 + dice % operations.max(2)) } else { End::Never };
        lives += 1;
        result = game.live(dice, end).0;
    }
    game.check_checkpoint().map_err(|e| format!("after {lives} lives: {e}"))?;
    if game.client.lock().unwrap_or_else(PoisonError::into_inner).stopped_early {
        // Sinks may not have had what is pending.
        game.world.rise(Some(CrashPlan::KeepAll));
        game.live(mix(seed ^ 1), End::Never).0.map_err(|e| format!("after a stop: {e}"))?;
    }
    game.check().map_err(|e| format!("after {lives} lives: {e}"))?;
    let client = game.client.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((operations, Noted { repeated: client.repeated, stopped_early: client.stopped_early.into() }))
}

/// As [`play`]; what fails is told with the game's name.
fn played(game: u64, run: u64) -> (u64, Noted) {
    let outcome = catch_unwind(AssertUnwindSafe(|| play(game, ended(run))));
    let outcome = outcome.unwrap_or_else(|_| Err("a panic (see above)".to_owned()));
    outcome.unwrap_or_else(|e| panic!("BACKSTAY_SIM_PUSH_GAME={game}:{run}: {e}"))
}

#[test]
fn pushed_rows() {
    if let Ok(only) = std::env::var("BACKSTAY_SIM_PUSH_GAME") {
        let (game, run) = only.split_once(':').expect("<game>:<run>");
        played(game.parse().unwrap(), run.parse().unwrap());
        return;
    }
    let seed = super::seed();
    let runs = number_from("BACKSTAY_SIM_PUSHES", 400);
    let (mut crashes, mut noted) = (0, Noted::default());
    for game in 0.. {
        if crashes >= runs {
            break;
        }
        let game = mix(seed ^ (game << 8));
        let (operations, _) = played(game, 0);
        // At every operation of short games, at some of long ones.
        let step = (operations / 40).max(1);
        for run in (1..=operations).step_by(usize::try_from(step).unwrap()) {
            for run in [2 * run, 2 * run + 1] {
                let (_, again) = played(game, run);
                crashes += 1;
                noted.repeated += again.repeated;
                noted.stopped_early += again.stopped_early;
            }
        }
    }
    let Noted { repeated, stopped_early } = noted;
    println!(
        "{crashes} runs with a crash, {repeated} requests were known when they were made again, {stopped_early} stops came before steps"
    );
    assert!(repeated > 0, "no request was made again that the log had");
    assert!(stopped_early > 0, "no stop came before steps had taken what was acknowledged");
}

fn ended(run: u64) -> End {
    match (run / 2, run % 2) {
        (0, _) => End::Never,
        (op, 0) => End::Power(op),
        (op, _) => End::Failure(op),
    }
}
