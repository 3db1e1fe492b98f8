//! Which runs a flush merges: tiered, so that rows are rewritten seldom.
//!
//! The *level* of a run is ⌊log4(raw bytes / 64 KiB)⌋, at least 0. A flush writes one run. It takes in the newest runs
//! as long as at least [`FANOUT`] − 1 consecutive newest ones have a level no higher than what it writes so far.
//!
//! Invariant: behind every run stand at most [`FANOUT`] − 2 runs of its level or lower before the first one of a higher
//! level (or the end). Proof: it holds when a run is made, since else the flush would have taken those in (what is
//! written can only be smaller than what was estimated, and then fewer runs count as "its level or lower"). What is behind
//! a run never changes while it lives: runs are taken in from the newest on, so the run itself goes first.
//!
//! Hence a spine has at most (FANOUT − 1) · (levels) runs: following "the first of a higher level" from the newest run
//! climbs one level in at most FANOUT − 1 steps. With 64 KiB · 4^10 = 64 GiB in the oldest that is 33. A row is rewritten
//! at most FANOUT − 1 times before its level rises, in practice about once.
//!
//! Known limit: a flush that merges the oldest runs rewrites everything in one go, on the checkpointer's thread. No
//! step waits for it, but that checkpoint takes long; fuelled merging is to come.

/// How many runs of one level become one.
const FANOUT: usize = 4;
/// Raw bytes below which runs are all of level 0.
const BASE: u64 = 64 << 10;

fn level(raw_bytes: u64) -> u32 {
    (raw_bytes / BASE).checked_ilog2().unwrap_or(0) / 2
}

/// How many of `runs` (raw bytes, newest first) a flush of `fresh` raw bytes merges with what it writes.
pub(super) fn runs_to_merge(fresh: u64, runs: &[u64]) -> usize {
    let mut taken = 0;
    let mut total = fresh;
    loop {
        let now = level(total);
        let behind = runs.iter().skip(taken).take_while(|&&r| level(r) <= now);
        let (count, bytes) = behind.fold((0, 0u64), |(count, sum), &r| (count + 1, sum.saturating_add(r)));
        if count + 1 < FANOUT {
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

    #[test]
    fn the_invariant_holds_for_any_sizes() {
        for seed in 1..200u64 {
            let mut state = seed;
            let mut runs: Vec<u64> = Vec::new();
            for flush in 0..300 {
                let fresh = next(&mut state) % (1 << (10 + next(&mut state) % 22));
                let taken = runs_to_merge(fresh, &runs);
                let merged: u64 = fresh + runs.drain(..taken).sum::<u64>();
                // Rows may cancel out on the way.
                runs.insert(0, merged - next(&mut state) % (merged / 2 + 1));
                for (i, &run) in runs.iter().enumerate() {
                    let behind = runs[i + 1..].iter().take_while(|&&r| level(r) <= level(run)).count();
                    assert!(behind <= FANOUT - 2, "seed {seed}, flush {flush}: {behind} behind run {i} of {runs:?}");
                }
                let levels = runs.iter().map(|&r| level(r) as usize + 1).max().unwrap_or(0);
                assert!(runs.len() <= (FANOUT - 1) * levels, "seed {seed}, flush {flush}: {runs:?}");
            }
        }
    }

    #[test]
    fn equal_flushes_are_written_a_few_times() {
        let (mut runs, mut written) = (Vec::new(), 0);
        for _ in 0..1024 {
            let taken = runs_to_merge(BASE, &runs);
            let merged = BASE + runs.drain(..taken).sum::<u64>();
            written += merged;
            runs.insert(0, merged);
        }
        assert!(written / (1024 * BASE) <= 6, "{} times", written / (1024 * BASE));
    }
}
