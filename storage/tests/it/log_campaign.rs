//! Seeded random lives of the log on the simulated disk, against a model, and the switches that they must notice.
//!
//! `BACKSTAY_SEED` chooses the games, `BACKSTAY_CRASH_CYCLES` (default 4000) how many recoveries there are at least.
//!
//! A *game* is one disk: lives of a log that end by a loss of power at a drawn operation (several outcomes, some with
//! another loss of power in the recovery), by a failing operation, or by the end of the process; the next life goes on with
//! one of the outcomes. Some games end with damage: what is lost then must be reported.

mod game;
mod model;
mod sabotage;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use self::game::{Tally, play};

fn number_from(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{variable}={text:?} is not a number: {e}")),
        Err(_) => default,
    }
}

fn seed() -> u64 {
    number_from("BACKSTAY_SEED", 20_260_101)
}

/// splitmix64, as the simulated disk's.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Plays one game; a panic is a failure like another.
fn played(seed: u64, tally: &mut Tally) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| play(seed, tally))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into())).unwrap_or_else(|| "a panic".into()))
    })
}

/// Plays games until there were `cycles` recoveries, or one failed.
fn campaign(seed: u64, cycles: u64, tally: &mut Tally) -> ControlFlow<String> {
    let mut games = Rng(seed);
    while tally.cycles < cycles {
        let game = games.next();
        if let Err(why) = played(game, tally) {
            return ControlFlow::Break(format!("game {game}: {why}"));
        }
    }
    ControlFlow::Continue(())
}

#[test]
fn random_lives_keep_every_promise() {
    // One game alone, to look at a failure.
    if let Ok(game) = std::env::var("BACKSTAY_GAME") {
        return play(game.parse().unwrap(), &mut Tally::default()).unwrap();
    }
    let (seed, cycles) = (seed(), number_from("BACKSTAY_CRASH_CYCLES", 4000));
    #[expect(clippy::disallowed_methods, reason = "a measurement looks at the clock")]
    let begun = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(8);
    let failed = AtomicU64::new(0);
    // In shares: the games do not depend on how many threads there are.
    let share = AtomicU64::new(0);
    let shares = cycles.div_ceil(1000);
    let (tallies, failures): (Vec<Tally>, Vec<Option<String>>) = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut all = Tally::default();
                    loop {
                        let mine = share.fetch_add(1, Ordering::Relaxed);
                        if mine >= shares || failed.load(Ordering::Relaxed) > 0 {
                            return (all, None);
                        }
                        let mut tally = Tally::default();
                        let share_seed = Rng(seed ^ mine.rotate_left(32)).next();
                        let end = campaign(share_seed, 1000.min(cycles - mine * 1000), &mut tally);
                        all.add(&tally);
                        if let ControlFlow::Break(why) = end {
                            failed.fetch_add(1, Ordering::Relaxed);
                            return (all, Some(why));
                        }
                    }
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).unzip()
    });
    let mut all = Tally::default();
    tallies.iter().for_each(|tally| all.add(tally));
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "BACKSTAY_SEED={seed}: {} crash-recover cycles in {seconds:.1} s on {threads} threads, {:.0} a second: {all:?}",
        all.cycles,
        all.cycles as f64 / seconds
    );
    let failures: Vec<String> = failures.into_iter().flatten().collect();
    assert!(failures.is_empty(), "BACKSTAY_SEED={seed}: {failures:#?}; alone: BACKSTAY_GAME=<game>");
    if cycles >= 4000 {
        let seen =
            [all.nested, all.failures, all.damages, all.reported, all.recycled, all.bulk_syncs, all.trims, all.follows];
        assert!(seen.iter().all(|n| *n > 0), "something never happened: {all:?}");
    }
}
