//! Which runs are merged: tiered, so that rows are rewritten seldom.
//!
//! The *level* of a run is ⌊log4(raw bytes / 64 KiB)⌋, at least 0. Runs stand newest first. A merge takes neighbours, so that
//! the order stays. Two rules say which (`T` = [`FANOUT`]):
//!
//! - **Tier.** In a longest stretch of idle runs of level ≤ ℓ with at least T of level ℓ, all are merged. The lowest such ℓ
//!   goes first. What comes out has at least T · 4^ℓ · 64 KiB (but for rows that cancel out): each row that goes in comes out
//!   on a higher level. So a row is rewritten at most once a level by this rule.
//! - **Valley.** Two runs or more that stand behind a larger level, and in front of one at least as high or at the end, are
//!   merged. This keeps small runs that a large one overtook from piling up.
//!
//! Invariant: when no rule applies, a spine has at most 2 · (T − 1) runs a level that occurs. Proof: call a run a *stair* if
//! no newer one has a higher level. Levels of stairs do not fall from the newest to the oldest. Between stairs of level ℓ
//! stand only lower ones (a higher one would be a stair, and the next of level ℓ none), so that all of them are in one
//! stretch of level ≤ ℓ: they are at most T − 1, or the tier rule applied. What stands right behind a stair up to the next one (or
//! the end) is of a lower level than that stair, so of a lower one than the next: a valley, which holds one run at
//! most, or the valley rule applied. So each stair brings one other run at most.
//!
//! With 64 KiB · 4^10 = 64 GiB in the oldest that is 66; what really stands there is told by [`SpineStats::runs`](super::SpineStats::runs), mostly
//! below 15.
//!
//! A third rule is for a spine at *rest*, into which nothing is inserted and for which nothing else is to be done ([`at_rest`]): reads would have to ask
//! each run for ever, and rewriting delays nobody.
//!
//! - **Rest.** The most newest runs of which the last has at most T times the bytes of all newer ones are merged.
//!
//! Then each run has more than T times the bytes of all that are newer: mostly one or two are left (the last level is *leveled* then, the
//! others stay tiered: "lazy leveling" of Dostoevsky, Dayan and Idreos, SIGMOD 2018). Such a merge writes at most T + 1 bytes for
//! each byte of the newer runs, whose rows come into an older place by it. Nothing new comes behind them: they are
//! among the newer ones at most as often as there were older runs when they came, of which a rest leaves no more than the logarithm of their sizes.
//!
//! Fuel: merges run in slices beside the steps, the smallest first, so that a small one never waits for a large one. While runs
//! are merged others arrive; the bound on runs is kept by letting whoever inserts pay (`merger`): by the tier rule all
//! merging ever done while inserts go on is at most (levels) bytes for each byte that was inserted, so paying that much for each keeps the debt
//! from growing.
//!
//! Merges of less than `small` bytes in all, at rest too, are left to the next checkpoint, which writes them into its one file along with what
//! is new ([`absorbed`]): they would cost two syncs each otherwise, unless there are [`MOST`] runs, which every look-up would have to
//! ask for as long as no checkpoint comes. The valley rule does not wait.

use std::ops::Range;

/// How many runs of one level become one.
const FANOUT: usize = 4;
/// Raw bytes below which runs are all of level 0.
const BASE: u64 = 64 << 10;
/// The most runs that one merge takes in.
const MOST: usize = 32;

/// A run, as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) bytes: u64,
    /// It is being merged.
    pub(super) busy: bool,
}

fn level(raw_bytes: u64) -> u32 {
    (raw_bytes / BASE).checked_ilog2().unwrap_or(0) / 2
}

/// The next runs to merge, of all runs, newest first.
pub(super) fn next_merge(runs: &[Level], small: u64) -> Option<Range<usize>> {
    tier(runs, small).or_else(|| valley(runs)).map(|range| range.start..range.end.min(range.start + MOST))
}

fn tier(runs: &[Level], small: u64) -> Option<Range<usize>> {
    let highest = runs.iter().filter(|run| !run.busy).map(|run| level(run.bytes)).max()?;
    (0..=highest).find_map(|now| {
        let in_stretch = |run: &Level| !run.busy && level(run.bytes) <= now;
        stretches(runs, in_stretch).find(|range| {
            let runs = runs.get(range.clone()).unwrap_or_default();
            let of_level = runs.iter().filter(|run| level(run.bytes) == now).count();
            let bytes = runs.iter().fold(0, |sum: u64, run| sum.saturating_add(run.bytes));
            of_level >= FANOUT && (bytes >= small || runs.len() >= MOST)
        })
    })
}

fn valley(runs: &[Level]) -> Option<Range<usize>> {
    runs.iter().enumerate().find_map(|(stair, run)| {
        let high = level(run.bytes);
        let behind = runs.get(stair + 1..).unwrap_or_default();
        let low = behind.iter().take_while(|run| level(run.bytes) < high);
        let (count, idle) = low.fold((0, true), |(count, idle), run| (count + 1, idle && !run.busy));
        (count >= 2 && idle).then_some(stair + 1..stair + 1 + count)
    })
}

/// The runs to merge at rest, of all runs, newest first; none while others are being merged, or if they are `small` in all.
pub(super) fn at_rest(runs: &[Level], small: u64) -> Option<Range<usize>> {
    let (mut newer, mut end) = (0u64, 0);
    for (at, run) in runs.iter().take(MOST).enumerate() {
        if run.busy {
            return None;
        }
        let all = newer.saturating_add(run.bytes);
        if at > 0 && newer.saturating_mul(FANOUT as u64) >= run.bytes && all >= small {
            end = at + 1;
        }
        newer = all;
    }
    (end > 0).then_some(0..end)
}

/// The longest ranges of runs for which `is` holds.
fn stretches(runs: &[Level], is: impl Fn(&Level) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + runs.get(at..)?.iter().position(&is)?;
        let len = runs.get(start..)?.iter().take_while(|run| is(run)).count();
        at = start + len;
        Some(start..at)
    })
}

/// How many of `runs` (raw bytes, newest first) a checkpoint that writes `fresh` raw bytes merges with them: by the tier rule, as far as
/// that makes less than `small` bytes.
pub(super) fn absorbed(fresh: u64, runs: &[u64], small: u64) -> usize {
    let (mut taken, mut total) = (0, fresh);
    loop {
        let now = level(total);
        let behind = runs.iter().skip(taken).take_while(|&&run| level(run) <= now);
        let (count, bytes) = behind.fold((0, 0u64), |(count, sum), &run| (count + 1, sum.saturating_add(run)));
        if count + 1 < FANOUT || taken + count > MOST || total.saturating_add(bytes) >= small {
            return taken;
        }
        taken += count;
        total = total.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator, so that the crate needs no random numbers.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// The bound of the module's head.
    fn check(runs: &[Level]) {
        let mut levels: Vec<_> = runs.iter().map(|run| level(run.bytes)).collect();
        levels.sort_unstable();
        levels.dedup();
        assert!(runs.len() <= 2 * (FANOUT - 1) * levels.len(), "{runs:?}");
    }

    fn idle(bytes: u64) -> Level {
        Level { bytes, busy: false }
    }

    /// Puts one run in the place of some, and gives its bytes. So many `cancel` out on the way.
    fn merge(runs: &mut Vec<Level>, range: Range<usize>, cancel: impl FnOnce(u64) -> u64) -> u64 {
        let (start, merged) = (range.start, runs.drain(range).map(|run| run.bytes).sum());
        runs.insert(start, idle(merged - cancel(merged)));
        merged
    }

    #[test]
    fn the_bound_holds_for_any_sizes() {
        for seed in 1..300u64 {
            let mut state = seed;
            let mut runs: Vec<Level> = Vec::new();
            let (mut inserted, mut written) = (0, 0);
            for _ in 0..300 {
                let fresh = next(&mut state) % (1 << (10 + next(&mut state) % 22));
                inserted += fresh;
                runs.insert(0, idle(fresh));
                while let Some(range) = next_merge(&runs, 0) {
                    written += merge(&mut runs, range, |merged| next(&mut state) % (merged / 4 + 1));
                }
                check(&runs);
            }
            assert!(written <= 6 * inserted, "seed {seed}: {written} of {inserted}");
        }
    }

    #[test]
    fn at_rest_few_runs_are_left_and_little_is_written() {
        for seed in 1..300u64 {
            let mut state = seed;
            let mut runs: Vec<Level> = Vec::new();
            let (mut inserted, mut written) = (0, 0);
            for _ in 0..300 {
                for _ in 0..=next(&mut state) % 5 {
                    let fresh = 1 + next(&mut state) % (1 << (10 + next(&mut state) % 22));
                    inserted += fresh;
                    runs.insert(0, idle(fresh));
                }
                while let Some(range) = at_rest(&runs, 0) {
                    written += merge(&mut runs, range, |_| 0);
                }
                let mut newer = 0;
                for run in &runs {
                    assert!(newer * (FANOUT as u64) < run.bytes, "seed {seed}: {runs:?}");
                    newer += run.bytes;
                }
            }
            assert!(written <= (FANOUT as u64 + 1) * 4 * inserted, "seed {seed}: {written} of {inserted}");
        }
        let busy = Level { bytes: 1, busy: true };
        assert_eq!(at_rest(&[idle(9), busy, idle(9)], 0), None, "others are at it");
        assert_eq!((at_rest(&[idle(9)], 0), at_rest(&[idle(9); 2], 19)), (None, None));
        assert_eq!(at_rest(&[idle(9); 2], 18), Some(0..2));
    }

    /// Merges take time: others go on, and the runs that they hold are left alone.
    #[test]
    fn merges_at_the_same_time_keep_off_each_other() {
        for seed in 1..100u64 {
            let mut state = seed;
            // Each with a number, to find it again.
            let mut runs: Vec<(u64, Level)> = Vec::new();
            let mut jobs: Vec<Vec<u64>> = Vec::new();
            let (mut most, mut number) = (0, 0);
            for _ in 0..400 {
                number += 1;
                runs.insert(0, (number, idle(next(&mut state) % (1 << (14 + next(&mut state) % 12)))));
                let levels = |runs: &[(u64, Level)]| runs.iter().map(|run| run.1).collect::<Vec<_>>();
                while let Some(range) = next_merge(&levels(&runs), 0) {
                    let taken = &mut runs[range];
                    assert!(taken.iter().all(|run| !run.1.busy));
                    taken.iter_mut().for_each(|run| run.1.busy = true);
                    jobs.push(taken.iter().map(|run| run.0).collect());
                }
                for _ in 0..next(&mut state) % 3 {
                    if jobs.is_empty() {
                        break;
                    }
                    let job = jobs.swap_remove((next(&mut state) % jobs.len() as u64) as usize);
                    let at = runs.iter().position(|run| run.0 == job[0]).unwrap();
                    assert!(runs[at..at + job.len()].iter().map(|run| run.0).eq(job.iter().copied()), "neighbours");
                    let merged = runs.drain(at..at + job.len()).map(|run| run.1.bytes).sum();
                    number += 1;
                    runs.insert(at, (number, idle(merged)));
                }
                most = most.max(runs.len());
            }
            assert!(most < 60, "seed {seed}: {most} runs");
        }
    }

    #[test]
    fn small_runs_that_no_checkpoint_absorbs_do_not_pile_up() {
        let mut runs: Vec<Level> = Vec::new();
        for _ in 0..10_000 {
            runs.insert(0, idle(1000));
            if let Some(range) = next_merge(&runs, 4 << 20) {
                merge(&mut runs, range, |_| 0);
            }
            assert!(runs.len() < MOST + 2 * FANOUT, "{} runs", runs.len());
        }
        assert_eq!(next_merge(&vec![idle(1000); MOST - 1], 4 << 20), None, "left to a checkpoint");
    }

    #[test]
    fn small_checkpoints_are_absorbed_by_later_ones() {
        let (mut runs, mut written) = (Vec::<u64>::new(), 0);
        for _ in 0..1024 {
            let taken = absorbed(BASE, &runs, u64::MAX);
            let merged = BASE + runs.drain(..taken).sum::<u64>();
            written += merged;
            runs.insert(0, merged);
            assert!(runs.len() <= 3 * 6, "{runs:?}");
        }
        assert!(written / (1024 * BASE) <= 6, "{} times", written / (1024 * BASE));
        assert_eq!(absorbed(BASE, &[BASE; 3], 4 * BASE), 0, "not small");
        assert_eq!(absorbed(BASE, &[BASE; 3], 4 * BASE + 1), 3);
    }
}
