//! Many games, and each of their runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use backstay_storage::disk::Disk;
use backstay_storage::{Store, StoreOptions, copy_savepoint};
use uuid::Uuid;

use super::game::{End, Game, Life, plan};
use super::oracle::{compare, compare_after};
use super::program::{COUNT, Subject, file};
use super::world::{How, World};
use crate::rng::{Rng, mix};
use backstay::connector::Level;
use backstay::pipeline::PipelineError;
use backstay::pipeline::recovery::{Choice, Survey};
use backstay::pipeline::state::PipelineState;

/// Lives of one run at most, before the one that is left alone.
const SHORT_LIVES: u64 = 4;

/// A run of a game: how its first life ends, and what draws the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) end: End,
    pub(super) seed: u64,
}

/// A game's life without a crash.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) world: World,
    pub(super) operations: u64,
    pub(super) calls: u64,
    seed: u64,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Played {
    /// Lives that ended early and were recovered from.
    pub(super) recoveries: u64,
    pub(super) replayed_steps: u64,
    pub(super) trace: u64,
}

pub(super) fn subjects() -> [Arc<Subject>; COUNT] {
    std::array::from_fn(|number| Arc::new(Subject::new(number)))
}

/// Plays a game without a crash.
pub(super) fn reference(game: &Game) -> Result<Reference, String> {
    let world = game.world();
    let life = game.live(&world, game.seed, End::Never);
    match life.result {
        Ok(summary) if summary.finished => {}
        other => return Err(format!("without a crash: {other:?}")),
    }
    compare(game, &world, &world).map_err(|e| format!("without a crash: {e}"))?;
    // All that is left to a sink may be to be asked to flush once more; an input has come to its end.
    let troubles = world.state().control.snapshot().troubles;
    if let Some(trouble) = troubles.iter().find(|trouble| trouble.contains("network")) {
        return Err(format!("an input that is at its end is hindered: {trouble}"));
    }
    Ok(Reference { world, operations: life.operations, calls: life.calls, seed: game.seed })
}

impl Reference {
    /// The ways in which the first life can end: the power goes at each operation of the disk, the process dies at half of them, an
    /// eighth fails; and at each call of a connector one of the ways there are.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> + use<> {
        let (seed, operations) = (self.seed, self.operations);
        let call = move |call| {
            let how = Rng::new(seed ^ call).one_of(&[How::Power, How::Power, How::Kill, How::Kill, How::Stop]);
            End::Call(call, how)
        };
        let crashes = (1..=operations).map(End::Operation);
        let kills = (1..=operations).filter(move |op| mix(seed ^ op).is_multiple_of(2)).map(End::Kill);
        let failures = (1..=operations).filter(move |op| mix(seed ^ op).is_multiple_of(8)).map(End::Failure);
        let ends = crashes.chain(kills).chain(failures).chain((1..=self.calls).map(call));
        ends.enumerate().map(move |(n, end)| Run { end, seed: mix(seed.rotate_left(17) ^ n as u64) })
    }
}

/// Plays one run to its end and compares.
pub(super) fn play(game: &Game, reference: &Reference, run: &Run) -> Result<Played, String> {
    let world = game.world();
    let rng = &mut Rng::new(run.seed);
    let life = game.live(&world, game.seed, run.end);
    let mut played = recover(game, reference, &world, rng, (run.end, life))?;
    compare(game, &reference.world, &world).map_err(|e| told(game, &played, run.end, &e))?;
    if rng.once_in(8) {
        again(game, reference, &world, rng)
            .map_err(|e| told(game, &played, run.end, &format!("run once more: {e}")))?;
    }
    played.trace = world.state().trace;
    Ok(played)
}

/// Lives on, after a life and how it was to end, until one comes to its end by itself.
fn recover(
    game: &Game,
    reference: &Reference,
    world: &World,
    rng: &mut Rng,
    (mut end, mut life): (End, Life),
) -> Result<Played, String> {
    let mut played = Played::default();
    loop {
        let refused = matches!((&life.result, end), (Err(_), End::Kill(op)) if op <= life.operations);
        let dead = world.state().dead || world.state().disk.is_down() || refused;
        played.replayed_steps += life.result.as_ref().map_or(0, |summary| summary.replayed_steps);
        let power = match (&life.result, end) {
            (Ok(summary), _) if summary.finished && !dead => return Ok(played),
            (Err(_), End::Failure(_)) | (Ok(_), End::Call(_, How::Stop)) => rng.once_in(2),
            (_, End::Kill(_) | End::Call(_, How::Kill)) if dead => false,
            (_, _) if dead => true,
            (other, _) => return Err(told(game, &played, end, &format!("{other:?}"))),
        };
        played.recoveries += 1;
        world.rise(power.then(|| plan(rng)));
        let short = played.recoveries < SHORT_LIVES && rng.once_in(3);
        end = if short { early(rng, reference) } else { End::Never };
        life = game.live(world, rng.next(), end);
    }
}

/// How a new incarnation begins at the newest checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anew {
    /// In a savepoint's copy.
    Copy,
    /// In place, by choice.
    Recovery,
}

/// After the first life the pipeline goes on at the newest checkpoint as another incarnation with sinks of its own, crashes there too, and
/// comes to its end. Gives the checkpoint's step; `None` if there was none yet. Exactly once, of a fixed cut.
pub(super) fn play_anew(game: &Game, reference: &Reference, run: &Run, how: Anew) -> Result<Option<u64>, String> {
    let world = game.world();
    let rng = &mut Rng::new(run.seed);
    game.live(&world, game.seed, run.end);
    world.rise(Some(plan(rng)));
    let original = incarnation(&world);
    let begun = begin_anew(game, &world, how, rng.next());
    let Some(step) = begun.map_err(|e| told(game, &Played::default(), run.end, &e.to_string()))? else {
        return Ok(None);
    };
    let end = early(rng, reference);
    let life = game.live(&world, rng.next(), end);
    let played = recover(game, reference, &world, rng, (end, life))?;
    let at = |e: String| told(game, &played, end, &format!("anew behind step {step}: {e}"));
    compare_after(game, &reference.world, &world, step).map_err(at)?;
    match incarnation(&world) {
        Some(own) if Some(own) == original => Err(at(format!("it is still incarnation {own}"))),
        _ => Ok(Some(step)),
    }
}

/// Whom the sinks that were delivered to belong to.
fn incarnation(world: &World) -> Option<Uuid> {
    world.state().sinks.values().find_map(|sink| Some(sink.owner?.0))
}

/// Leaves the world with the newest checkpoint in a copy, or in place as that of another incarnation, and with new sinks.
fn begin_anew(game: &Game, world: &World, how: Anew, id: u64) -> Result<Option<u64>, PipelineError> {
    let state = &mut *world.state();
    let disk: Arc<dyn Disk> = Arc::new(state.disk.clone());
    let (original, copy) = (state.data_dir.clone(), PathBuf::from("/copy"));
    let store = Store::open(Arc::clone(&disk), &original, StoreOptions::default())?;
    if store.recovered().is_none() {
        return Ok(None);
    }
    let step = match how {
        Anew::Copy => {
            let saved = store.savepoint("s")?;
            drop(store);
            copy_savepoint(&disk, &original, "s", &copy)?;
            state.data_dir = copy;
            PipelineState::decode(&saved.blob)?.step
        }
        Anew::Recovery => {
            let survey = Survey::of(&store)?;
            let step = survey.state.step;
            survey.choose(&store, &Choice::BeginAnew, Uuid::from_u128(u128::from(id)))?;
            step
        }
    };
    // The original's files are moved away, durably.
    for path in game.subject.views().map(|view| PathBuf::from(file(view))) {
        if disk.metadata(&path)?.is_some() {
            disk.remove(&path)?;
            disk.sync_dir(path.parent().unwrap_or(&original))?;
        }
    }
    state.sinks = game.world().state().sinks.clone();
    Ok(Some(step))
}

/// Running a finished pipeline again changes nothing.
fn again(game: &Game, reference: &Reference, world: &World, rng: &mut Rng) -> Result<(), String> {
    world.rise(Some(plan(rng)));
    let Life { result, .. } = game.live(world, rng.next(), End::Never);
    match result {
        Ok(summary) if summary.finished && summary.new_rows == 0 => {}
        other => return Err(format!("{other:?}")),
    }
    if game.model() == Level::None {
        return Ok(());
    }
    compare(game, &reference.world, world)
}

/// An early end of a further life, most often while it recovers.
fn early(rng: &mut Rng, reference: &Reference) -> End {
    let within = rng.one_of(&[8, 2, 1]);
    match rng.below(5) {
        0 => End::Kill(1 + rng.below(reference.operations / within + 1)),
        1 => End::Operation(1 + rng.below(reference.operations / within + 1)),
        2 => End::Failure(1 + rng.below(reference.operations / within + 1)),
        _ => {
            let how = rng.one_of(&[How::Power, How::Kill, How::Stop]);
            End::Call(1 + rng.below(reference.calls / within + 1), how)
        }
    }
}

fn told(game: &Game, played: &Played, end: End, why: &str) -> String {
    format!(
        "{:?}, {:?}, after {} recoveries, in a life that ends {end:?}: {why}\n{:?}",
        game.model(),
        game.subject.views().collect::<Vec<_>>(),
        played.recoveries,
        game.config
    )
}

/// Says on which run a thread was when it panics.
struct Told(u64, usize);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("alone: BACKSTAY_SIM_GAME={}:{}", self.0, self.1);
        }
    }
}

/// One run of one game, by its name.
fn alone(name: &str) {
    let (game, run) = name.split_once(':').expect("BACKSTAY_SIM_GAME=<game>:<run>");
    let game = Game::new(game.parse().expect("a number"), &subjects());
    println!("{:?} of {:?}", game.config, game.subject.views().collect::<Vec<_>>());
    let reference = reference(&game).unwrap_or_else(|e| panic!("{e}"));
    let run = reference.runs().nth(run.parse().expect("a number")).expect("a run of the game");
    println!("{run:?}");
    println!("{:?}", play(&game, &reference, &run).unwrap_or_else(|e| panic!("{e}")));
}

/// Plays games until there were `runs` runs with a crash; every run of a game if there are many, a share if there are few.
pub(super) fn campaign(seed: u64, runs: u64) {
    if let Ok(name) = std::env::var("BACKSTAY_SIM_GAME") {
        return alone(&name);
    }
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let (recoveries, replayed) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = std::sync::Mutex::new(Vec::new());
    // One in so many runs of a game, so that a short campaign sees many games.
    let stride = (20_000 / runs.max(1)).clamp(1, 97) as usize;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let subjects = subjects();
                while done.load(Ordering::Relaxed) < runs && failures.lock().unwrap().len() < 5 {
                    let game = mix(seed ^ next.fetch_add(1, Ordering::Relaxed).rotate_left(32));
                    let told = Told(game, 0);
                    let game = Game::new(game, &subjects);
                    let reference = match reference(&game) {
                        Ok(reference) => reference,
                        Err(e) => {
                            failures.lock().unwrap().push(format!("BACKSTAY_SIM_GAME={}:0: {e}", game.seed));
                            continue;
                        }
                    };
                    drop(told);
                    for (n, run) in reference.runs().enumerate().skip(game.seed as usize % stride).step_by(stride) {
                        let _told = Told(game.seed, n);
                        done.fetch_add(1, Ordering::Relaxed);
                        match play(&game, &reference, &run) {
                            Ok(played) => {
                                recoveries.fetch_add(played.recoveries, Ordering::Relaxed);
                                replayed.fetch_add(played.replayed_steps, Ordering::Relaxed);
                            }
                            Err(e) => {
                                failures
                                    .lock()
                                    .unwrap()
                                    .push(format!("BACKSTAY_SIM_GAME={}:{n}: {run:?}: {e}", game.seed));
                                break;
                            }
                        }
                    }
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let (done, games) = (done.into_inner(), next.into_inner());
    println!(
        "BACKSTAY_SEED={seed}: {done} runs of {games} games in {seconds:.1} s on {threads} threads, {:.0} a second; {} recoveries, {} steps replayed",
        done as f64 / seconds,
        recoveries.into_inner(),
        replayed.into_inner()
    );
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "BACKSTAY_SEED={seed}: {} failures\n{}", failures.len(), failures.join("\n\n"));
}
