//! Finding rows in a block without unpacking it.
//!
//! A search picks the last restart below the target by the abbreviated keys, and reads at most 8 entries from there. Let
//! `matched` be how many bytes the target has in common with the key before, which is below it. An entry that shares
//! more than that is below the target for the same reason as the key before; one that shares less is above it; only
//! one that shares exactly as much is looked at, from there on (invariant 3 of [`block`](super::block)).

use std::cmp::Ordering;

use super::block::{Block, RESTART_EVERY};
use super::entry::Entry;
use crate::spine::batch::{common, compare_starts, prefix};

/// A row of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Its number; that of the rows if it is behind them all.
    pub(crate) row: usize,
    /// Whether its key is the one that was looked for.
    pub(crate) found: bool,
    /// Its entry, if it was found.
    entry: Entry,
}

impl Spot {
    fn not_found(row: usize) -> Self {
        Self { row, ..Self::default() }
    }
}

/// Where a search goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// Before all rows, or behind them: the search is over.
    Outside(Spot),
    /// At this restart.
    Restart(usize),
}

/// Bytes of a line of the processor's cache.
const LINE: usize = 64;

impl Block {
    /// The first row that is at least `(key, value)`.
    pub(crate) fn lower_bound(&self, key: &[u8], value: &[u8]) -> Spot {
        self.finish(self.start(key, value), key, value)
    }

    /// The first half of [`Block::lower_bound`]: which entries are to be looked at.
    pub(crate) fn start(&self, key: &[u8], value: &[u8]) -> Start {
        let start = self.common_key();
        let (order, tail) = match key.split_at_checked(start.len()) {
            Some((head, tail)) => (compare_starts(head, start), tail),
            None => (key.cmp(start), &[][..]),
        };
        match order {
            Ordering::Less => return Start::Outside(Spot::default()),
            Ordering::Greater => return Start::Outside(self.behind()),
            Ordering::Equal => {}
        }
        let abbreviated = prefix(tail);
        let restarts = self.abbreviations();
        let mut low = restarts.partition_point(|n| u64::from_be_bytes(*n) < abbreviated);
        // Few restarts have the same abbreviated key, unless they have the same key.
        let same = restarts.get(low..).unwrap_or(&[]).iter().take_while(|n| u64::from_be_bytes(**n) == abbreviated);
        let mut high = low + same.count();
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = Entry::read(self.entries(), self.restart(middle)).unwrap_or_default();
            let row = (entry.rest(self.bytes()), entry.value(self.bytes()));
            if row < (key, value) { low = middle + 1 } else { high = middle }
        }
        Start::Restart(low.saturating_sub(1))
    }

    /// Loads what the second half will read, so that the processor fetches it for many searches at a time; one after another
    /// they would wait for memory most of their time.
    pub(crate) fn touch(&self, start: Start) {
        if let Start::Restart(restart) = start {
            let interval = self.restart(restart)..self.restart(restart + 1);
            let bytes = self.entries().get(interval).unwrap_or(&[]);
            let some = bytes.iter().step_by(LINE).take(8).fold(0, |sum, byte| sum ^ byte);
            std::hint::black_box(some);
        }
    }

    /// The second half of [`Block::lower_bound`].
    pub(crate) fn finish(&self, start: Start, key: &[u8], value: &[u8]) -> Spot {
        match start {
            Start::Outside(spot) => spot,
            Start::Restart(restart) => self.scan(restart, key, value),
        }
    }

    /// The first row at or behind restart `from` that is at least `(key, value)`; all before must be below it.
    fn scan(&self, from: usize, key: &[u8], value: &[u8]) -> Spot {
        let entries = self.entries();
        let (mut row, mut at) = (from * RESTART_EVERY, self.restart(from));
        let mut matched = 0;
        while let Some(entry) = Entry::read(entries, at) {
            if row.is_multiple_of(RESTART_EVERY) {
                matched = 0;
            }
            match entry.shared.cmp(&matched) {
                Ordering::Less => return Spot::not_found(row),
                Ordering::Greater => {}
                Ordering::Equal => {
                    let (rest, wanted) = (entry.rest(entries), key.get(matched..).unwrap_or(&[]));
                    let more = common(rest, wanted);
                    match (rest.get(more), wanted.get(more)) {
                        (None, None) if entry.value(entries) >= value => return Spot { row, found: true, entry },
                        (None, _) => {}
                        (Some(_), None) => return Spot::not_found(row),
                        (Some(a), Some(b)) if a > b => return Spot::not_found(row),
                        (Some(_), Some(_)) => {}
                    }
                    matched += more;
                }
            }
            (row, at) = (row + 1, entry.end);
        }
        self.behind()
    }

    fn behind(&self) -> Spot {
        Spot::not_found(self.len())
    }

    /// Value and weight of each row of the key that was found at `spot`, from there on.
    pub(crate) fn rows_of<'a>(&'a self, spot: Spot, key: &'a [u8]) -> impl Iterator<Item = (&'a [u8], i64)> {
        let entries = self.entries();
        let (mut row, mut entry, mut first) = (spot.row, spot.entry, true);
        std::iter::from_fn(move || {
            if !std::mem::take(&mut first) {
                let next = Entry::read(entries, entry.end)?;
                let rest = next.rest(entries);
                let same = match (row + 1).is_multiple_of(RESTART_EVERY) {
                    true => rest == key,
                    false => next.shared == key.len() && rest.is_empty(),
                };
                (row, entry) = (row + 1, next);
                if !same {
                    return None;
                }
            }
            spot.found.then(|| (entry.value(entries), entry.weight))
        })
    }

    /// Reads row `row` and puts its key into `key`.
    pub(crate) fn go_to(&self, row: usize, key: &mut Vec<u8>) -> Entry {
        key.clear();
        let from = row / RESTART_EVERY;
        let mut entry = Entry::ending_at(self.restart(from));
        for _ in from * RESTART_EVERY..row.min(self.len()) + 1 {
            self.after(&mut entry, key);
        }
        entry
    }

    /// Goes on from `entry` to the row after it, and makes its key of the one in `key`.
    #[inline]
    pub(crate) fn after(&self, entry: &mut Entry, key: &mut Vec<u8>) {
        *entry = Entry::read(self.entries(), entry.end).unwrap_or_default();
        key.truncate(entry.shared);
        key.extend_from_slice(entry.rest(self.bytes()));
    }

    /// The key of the last row.
    pub(crate) fn last_key(&self) -> Vec<u8> {
        let mut key = Vec::new();
        self.go_to(self.len().saturating_sub(1), &mut key);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::BlockBuilder;
    use super::*;
    use crate::spine::{Discipline, RowBatch};

    fn block(rows: &RowBatch) -> Block {
        let mut builder = BlockBuilder::default();
        rows.iter().for_each(|(k, v, w)| builder.push(k, v, w));
        Block::read(builder.finish().to_vec(), rows.len() as u32, Discipline::Weighted).unwrap()
    }

    /// Rows whose keys share much, are prefixes of each other, and come many times.
    fn sample(seed: u64) -> RowBatch {
        let mut rows = RowBatch::new();
        let mut state = seed * 2 + 1;
        let mut below = |n: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(99);
            (state >> 40) % n
        };
        let start = vec![7; below(12) as usize];
        for _ in 0..below(300) + 1 {
            let mut key = start.clone();
            key.extend((0..below(12)).map(|_| below(2 + seed % 3) as u8));
            rows.push(&key, &vec![1; below(20) as usize], 1);
        }
        rows.consolidate(Discipline::Weighted);
        rows
    }

    #[test]
    fn a_search_finds_what_looking_at_all_rows_finds() {
        for seed in 0..300 {
            let (rows, wanted) = (sample(seed), sample(seed + 1));
            let block = block(&rows);
            assert_eq!(block.to_rows(), rows);
            for (key, value, _) in rows.iter().chain(wanted.iter()).chain([(&[][..], &[][..], 0), (&[9; 9], &[], 0)]) {
                for value in [value, &[]] {
                    let spot = block.lower_bound(key, value);
                    let row = rows.lower_bound_row(key, value);
                    assert_eq!(
                        (spot.row, spot.found),
                        (row, row < rows.len() && rows.key(row) == key),
                        "seed {seed}, {key:?} {value:?}"
                    );
                    if spot.found {
                        let got: Vec<_> = block.rows_of(spot, key).collect();
                        let want: Vec<_> =
                            (row..rows.upper_bound(key, 0)).map(|i| (rows.value(i), rows.weight(i))).collect();
                        assert_eq!(got, want, "seed {seed}, {key:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_row_is_gone_to() {
        for seed in 0..50 {
            let rows = sample(seed);
            let block = block(&rows);
            let mut key = Vec::new();
            for row in (0..rows.len()).rev() {
                let entry = block.go_to(row, &mut key);
                let got = (key.as_slice(), entry.value(block.bytes()), entry.weight);
                assert_eq!(got, (rows.key(row), rows.value(row), rows.weight(row)));
            }
            assert_eq!((block.first_key(), block.last_key().as_slice()), (rows.key(0), rows.key(rows.len() - 1)));
        }
    }
}
