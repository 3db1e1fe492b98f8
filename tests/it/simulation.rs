//! The whole pipeline in simulation: controller, circuit, checkpointer, replay and outputs on one thread, on the simulated disk,
//! between simulated sources and sinks, with a simulated clock. One number decides everything that happens.
//!
//! - `program` and `game`: what is run, and the lives that it is made to have;
//! - `world`: what outlives a process; `source` and `sink`: its ends; `scheduler`: whose turn it is;
//! - `oracle`: what must have come out; `campaign`: many games.
//!
//! `BACKSTAY_SEED` chooses the games, `BACKSTAY_SIM_RUNS` (default 1000) is how many runs with a crash there are at least, and
//! `BACKSTAY_SIM_GAME=<game>:<run>` plays one run, whose name a failure gives. See `docs/testing.md`.
//!
//! Known limits: what a task does in one turn is not interrupted but by its end: all writes of a run or a manifest are one turn of
//! the checkpointer. Timely does not run here; the circuit's workers, their exchange and their operators do.

mod campaign;
mod game;
mod oracle;
mod program;
mod pushes;
mod scheduler;
mod sink;
mod source;
mod world;

use backstay_storage::disk::sim::{CrashPlan, Sabotage, SyncKind};

use backstay::connector::Level;
use backstay::pipeline::PipelineError;
use backstay::pipeline::config::StorageConfig;
use backstay::sabotage::{Check, without};

use crate::rng::{Rng, mix, number_from};
use campaign::{Anew, Run, play, play_anew, reference, subjects};
use game::{End, Game, plan};
use oracle::compare;
use source::SourceState;
use world::How;

const SEED: u64 = 20_260_101;

fn seed() -> u64 {
    number_from("BACKSTAY_SEED", SEED)
}

#[test]
fn crashes() {
    campaign::campaign(seed(), number_from("BACKSTAY_SIM_RUNS", 1000));
}

#[test]
fn one_seed_is_one_run() {
    let subjects = subjects();
    for n in 0..8 {
        let game = Game::new(mix(seed() ^ n), &subjects);
        let twice = [(); 2].map(|()| {
            let reference = reference(&game).unwrap();
            let at = 1 + mix(n) % reference.calls;
            let run = Run { end: End::Call(at, How::Power), seed: n };
            let played = play(&game, &reference, &run).unwrap();
            let files = reference.world.content();
            (reference.operations, reference.calls, reference.world.state().trace, files, played)
        });
        assert_eq!(twice[0], twice[1], "game {}", game.seed);
    }
}

#[test]
fn inputs_that_are_weaker_than_the_pipeline_are_refused() {
    let subjects = subjects();
    for n in 0..40 {
        let model = [Level::ExactlyOnce, Level::AtLeastOnce][n as usize % 2];
        let mut game = Game::of_model(mix(n), model, &subjects, &mut Rng::new(n));
        let weak = if model == Level::ExactlyOnce && n % 3 == 0 { Level::AtLeastOnce } else { Level::None };
        game.sources.values_mut().for_each(|source| source.level = weak);
        if weak == Level::AtLeastOnce && game.sources.keys().all(|name| game.subject.is_logged(name)) {
            continue;
        }
        let world = game.world();
        let life = game.live(&world, n, End::Never);
        let Err(PipelineError::Config(said)) = life.result else { panic!("{:?}", life.result) };
        let is_weak = |name: &&String| weak == Level::None || !game.subject.is_logged(name);
        for name in game.sources.keys().filter(is_weak) {
            let level = if weak == Level::None { "none" } else { "at_least_once" };
            assert!(said.contains(&format!("{name} ({level})")), "{said}");
        }
        assert_eq!((life.operations, life.calls), (0, 0), "nothing was touched");
    }
}

/// Crashes, spoils the sources, recovers, mends them, recovers. Says how many recoveries refused.
fn with_spoilt_sources(spoil: impl Fn(&mut SourceState), refusal: impl Fn(&PipelineError) -> bool) -> u64 {
    let subjects = subjects();
    let (mut refused, mut runs) = (0, 0);
    for n in 0..12 {
        let seed = mix(seed() ^ n);
        let game = Game::of_model(seed, Level::ExactlyOnce, &subjects, &mut Rng::new(seed));
        let reference = reference(&game).unwrap();
        for run in reference.runs().skip(n as usize).step_by(53) {
            runs += 1;
            let rng = &mut Rng::new(run.seed);
            let world = game.world();
            game.live(&world, game.seed, run.end);
            world.rise(Some(plan(rng)));
            let sound = world.state().sources.clone();
            world.state().sources.values_mut().for_each(&spoil);
            match game.live(&world, rng.next(), End::Never).result {
                Err(e) if refusal(&e) => refused += 1,
                // What was spoilt had not been read, or is not read again.
                Ok(_) => continue,
                Err(e) => panic!("game {}, {run:?}: {e}", game.seed),
            }
            world.state().sources = sound;
            world.rise(Some(plan(rng)));
            let life = game.live(&world, rng.next(), End::Never);
            assert!(life.result.as_ref().is_ok_and(|s| s.finished), "game {}, {run:?}: {:?}", game.seed, life.result);
            compare(&game, &reference.world, &world).unwrap_or_else(|e| panic!("game {}, {run:?}: {e}", game.seed));
        }
    }
    println!("BACKSTAY_SEED={}: {refused} of {runs} recoveries refused", seed());
    refused
}

/// After a crash the pipeline goes on at the newest checkpoint, over further crashes, as another incarnation with sinks of its own, which
/// hold what the reference's do of the steps behind that. Says how often that was later than the beginning. The original and the
/// reference are made by a sound pipeline.
fn anew(games: u64, how: Anew, off: Option<Check>) -> Result<u64, String> {
    let subjects = subjects();
    let mut later = 0;
    for n in 0..games {
        let seed = mix(seed() ^ n.rotate_left(40));
        let game = Game::of_model(seed, Level::ExactlyOnce, &subjects, &mut Rng::new(seed));
        if !game.is_fixed() {
            continue;
        }
        let reference = reference(&game)?;
        for run in reference.runs().skip(n as usize % 17).step_by(17) {
            let played = match off {
                Some(check) => without(check, || play_anew(&game, &reference, &run, how)),
                None => play_anew(&game, &reference, &run, how),
            };
            let at = |e| format!("BACKSTAY_SEED={}, game {}, {run:?}: {e}", self::seed(), game.seed);
            later += u64::from(played.map_err(at)?.is_some_and(|step| step > 0));
        }
    }
    Ok(later)
}

#[test]
fn a_savepoints_copy_goes_on_to_the_same_views() {
    let later = anew(30, Anew::Copy, None).unwrap_or_else(|e| panic!("{e}"));
    println!("BACKSTAY_SEED={}: {later} copies of a later step than the beginning", seed());
    assert!(later > 50, "{later} copies");
}

#[test]
fn a_pipeline_that_was_told_to_begin_anew_goes_on_to_the_same_views() {
    let later = anew(30, Anew::Recovery, None).unwrap_or_else(|e| panic!("{e}"));
    println!("BACKSTAY_SEED={}: {later} recoveries behind a later step than the beginning", seed());
    assert!(later > 50, "{later} recoveries");
}

#[test]
fn every_break_of_a_copy_is_noticed() {
    for check in Check::COPIES {
        match anew(30, Anew::Copy, Some(check)) {
            Err(why) => println!("without {check:?}: {}", why.lines().next().unwrap_or_default()),
            Ok(later) => panic!("without {check:?} nothing is noticed in {later} copies"),
        }
    }
}

#[test]
fn rows_that_are_gone_are_missed() {
    let refusal = |e: &PipelineError| matches!(e, PipelineError::Connector(e) if e.message.contains("read again"));
    assert!(with_spoilt_sources(|source| source.forgetful = true, refusal) > 20);
}

#[test]
fn rows_that_have_changed_are_missed() {
    let refusal = |e: &PipelineError| matches!(e, PipelineError::Replay { relation, .. } if relation.contains("input"));
    assert!(with_spoilt_sources(SourceState::alter, refusal) > 20);
}

#[test]
fn a_finished_pipeline_that_is_started_again_leaves_its_files_durable() {
    let subjects = subjects();
    for n in 0..20 {
        let game = Game::of_model(mix(n), Level::ExactlyOnce, &subjects, &mut Rng::new(n));
        let reference = reference(&game).unwrap();
        for life in 0..40 {
            reference.world.rise(Some(CrashPlan::Seeded(life)));
            let again = game.live(&reference.world, life, End::Never);
            assert!(again.result.as_ref().is_ok_and(|s| s.finished && s.new_rows == 0), "{again:?}");
            compare(&game, &reference.world, &reference.world).unwrap_or_else(|e| panic!("game {n}, life {life}: {e}"));
        }
    }
}

/// Games in which nothing asks for a checkpoint but the beginning and the end.
fn quiet_games() -> impl Iterator<Item = Game> {
    let subjects = subjects();
    (0..20).map(move |n| {
        let mut game = Game::of_model(mix(n), Level::ExactlyOnce, &subjects, &mut Rng::new(n));
        game.config.fault_tolerance.checkpoint_interval = None;
        game.config.storage = Some(StorageConfig { cache_mib: 1, max_log_bytes: 1 << 20, ..StorageConfig::default() });
        game
    })
}

#[test]
fn outputs_that_are_full_together_only_are_asked_to_sync() {
    for mut game in quiet_games() {
        game.config.max_pending_output_bytes = 3 << 10;
        reference(&game).unwrap();
    }
}

#[test]
fn a_small_log_does_not_take_a_checkpoint_after_each_step() {
    for game in quiet_games() {
        let done = reference(&game).unwrap().world.state().control.snapshot();
        assert!(done.checkpoints <= 2, "{} checkpoints in {} steps", done.checkpoints, done.step);
    }
}

/// Plays runs of games until one fails; says in how many.
fn noticed(games: u64, off: Option<Check>, mut change: impl FnMut(&mut Game)) -> Option<(u64, String)> {
    let subjects = subjects();
    let mut runs = 0;
    for n in 0..games {
        let seed = mix(SEED ^ n);
        let mut game = Game::of_model(seed, Level::ExactlyOnce, &subjects, &mut Rng::new(seed));
        // The reference is made by a sound pipeline over a sound disk.
        let reference = reference(&game).unwrap();
        change(&mut game);
        for run in reference.runs().step_by(7) {
            runs += 1;
            let played = match off {
                Some(check) => without(check, || play(&game, &reference, &run)),
                None => play(&game, &reference, &run),
            };
            if let Err(why) = played {
                return Some((runs, why));
            }
        }
    }
    None
}

#[test]
fn every_break_is_noticed() {
    let mut unnoticed = Vec::new();
    let mut tell = |what: String, noticed: Option<(u64, String)>| match noticed {
        Some((runs, why)) => println!("{what}: noticed in run {runs}: {}", why.lines().next().unwrap_or_default()),
        None => unnoticed.push(what),
    };
    for check in Check::ALL {
        tell(format!("without {check:?}"), noticed(40, Some(check), |_| {}));
    }
    tell("a sink that ignores its marker".into(), noticed(40, None, Game::ignore_markers));
    // Syncs that do nothing: runs, manifests and names before the manifest's commit, the log's records, the output files.
    for (kind, path) in [
        (SyncKind::File, ".run"),
        (SyncKind::File, "manifest"),
        (SyncKind::File, "pending"),
        (SyncKind::Dir, "/data"),
        (SyncKind::DurableWrite, "/data/log"),
        (SyncKind::File, "/out"),
        (SyncKind::Dir, "/out"),
    ] {
        let lie = Sabotage { kind, path: path.to_owned(), nth: None };
        tell(format!("{kind:?} of {path} does nothing"), noticed(40, None, |game| game.lie = Some(lie.clone())));
    }
    assert!(unnoticed.is_empty(), "not noticed: {unnoticed:?}");
}

/// Plays games of the timed program; gives the steps that were replayed.
fn timed_games(games: u64, off: Option<Check>) -> Result<u64, String> {
    let subjects = subjects();
    let mut replayed = 0;
    for n in 0..games {
        let game = Game::timed(mix(seed() ^ n.rotate_left(20)), &subjects);
        let reference = reference(&game)?;
        for run in reference.runs().skip(n as usize).step_by(19) {
            let played = match off {
                Some(check) => without(check, || play(&game, &reference, &run)),
                None => play(&game, &reference, &run),
            };
            let at = |e| format!("BACKSTAY_SEED={}, game {}, {run:?}: {e}", self::seed(), game.seed);
            replayed += played.map_err(at)?.replayed_steps;
        }
    }
    Ok(replayed)
}

#[test]
fn time_goes_on_over_crashes() {
    let replayed = timed_games(8, None).unwrap_or_else(|e| panic!("{e}"));
    assert!(replayed > 100, "{replayed} steps were replayed");
}

#[test]
fn a_replay_that_looks_at_the_wall_clock_is_noticed() {
    let why = timed_games(8, Some(Check::RecordedClock)).expect_err("nothing is noticed");
    println!("{}", why.lines().next().unwrap_or_default());
}
