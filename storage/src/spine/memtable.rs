//! The mutable top of a spine, and the same table once frozen.
//!
//! - [`WeightedTable`]: a small stack of sorted, consolidated batches. Invariant: each is more than
//!   twice as long as the next newer one, so that there are at most log2(rows) + 1 of them and each row is
//!   moved O(log rows) times.
//! - [`LatestTable`]: a hash index over an arena in the order of arrival. Overwritten rows leave
//!   garbage in the arena; invariant: after an insert at most half of its rows are garbage (but for
//!   the first [`MIN_GARBAGE`]). It is sorted only for a cursor or a flush, and that order is kept until
//!   the next insert.
//!
//! Frozen tables are immutable and shared: the owner reads them while a checkpointer writes them out.
//!
//! Known limits: a table holds fewer than `u32::MAX` rows; a cursor over a latest
//! table sorts a copy of it.

use std::mem;
use std::sync::{Arc, OnceLock};

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::batch::prefix;
use super::{Discipline, RowBatch};
use crate::{Error, Result};

/// Fewer overwritten rows than this are not worth a clean-up.
const MIN_GARBAGE: usize = 1024;

/// A memtable of either discipline.
#[derive(Clone, Debug)]
pub(super) enum Memtable {
    Weighted(WeightedTable),
    Latest(LatestTable),
}

impl Memtable {
    pub(super) fn new(discipline: Discipline) -> Self {
        match discipline {
            Discipline::Weighted => Self::Weighted(WeightedTable::default()),
            Discipline::Latest => Self::Latest(LatestTable::default()),
        }
    }

    /// An empty one that takes the place of this one, which was full: the next will have about as many rows, and does not grow its index
    /// from nothing.
    pub(super) fn successor(&self) -> Self {
        match self {
            Self::Weighted(_) => Self::new(Discipline::Weighted),
            Self::Latest(table) => Self::Latest(LatestTable {
                index: HashTable::with_capacity(table.index.len()),
                ..LatestTable::default()
            }),
        }
    }

    /// Adds rows in any order. `keep_tombstones`: whether something older may hold the deleted keys.
    pub(super) fn insert(&mut self, batch: &RowBatch, keep_tombstones: bool) -> Result<()> {
        match self {
            Self::Weighted(table) => table.insert(batch),
            Self::Latest(table) => table.insert(batch, keep_tombstones),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Weighted(table) => table.stack.is_empty(),
            Self::Latest(table) => table.index.is_empty(),
        }
    }

    /// Rows held: for weighted tables an upper bound, since equal rows of two batches count twice.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Weighted(table) => table.stack.iter().map(|b| b.len()).sum(),
            Self::Latest(table) => table.index.len(),
        }
    }

    /// Memory taken, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Weighted(table) => table.stack.iter().map(|b| b.bytes()).sum(),
            Self::Latest(table) => {
                table.rows.bytes() + table.index.allocation_size() + table.sorted.get().map_or(0, |s| s.bytes())
            }
        }
    }

    /// The table as sorted, consolidated batches, newest first.
    pub(super) fn sorted(&self) -> Vec<Arc<RowBatch>> {
        match self {
            Self::Weighted(table) => table.stack.iter().rev().cloned().collect(),
            Self::Latest(table) if table.index.is_empty() => Vec::new(),
            Self::Latest(table) => vec![Arc::clone(table.sorted())],
        }
    }
}

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub(super) struct WeightedTable {
    /// Oldest and longest first.
    stack: Vec<Arc<RowBatch>>,
}

impl WeightedTable {
    fn insert(&mut self, batch: &RowBatch) -> Result<()> {
        // Before anything is taken off the stack: a refused batch must change nothing.
        check_rows(self.stack.iter().map(|b| b.len()).fold(batch.len(), usize::saturating_add))?;
        let mut newest = batch.clone();
        newest.consolidate(Discipline::Weighted);
        while let Some(older) = self.stack.pop_if(|older| older.len() <= newest.len().saturating_mul(2)) {
            newest = RowBatch::merge(&older, &newest, Discipline::Weighted);
        }
        if !newest.is_empty() {
            self.stack.push(Arc::new(newest));
        }
        Ok(())
    }

    /// The sorted batches, oldest first.
    pub(super) fn stack(&self) -> &[Arc<RowBatch>] {
        &self.stack
    }
}

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub(super) struct LatestTable {
    /// Every row in the order of arrival: the one that the index names for its key is alive, or a
    /// tombstone (weight −1); the others are garbage.
    rows: RowBatch,
    index: HashTable<u32>,
    sorted: OnceLock<Arc<RowBatch>>,
}

impl LatestTable {
    fn insert(&mut self, batch: &RowBatch, keep_tombstones: bool) -> Result<()> {
        check_rows(self.rows.len().saturating_add(batch.len()))?;
        if !batch.is_empty() {
            self.sorted = OnceLock::new();
        }
        for (key, value, weight) in batch.iter() {
            self.put(key, value, weight, keep_tombstones)?;
        }
        let garbage = self.rows.len() - self.index.len();
        if garbage > MIN_GARBAGE && garbage > self.index.len() {
            self.clean()?;
        }
        Ok(())
    }

    fn put(&mut self, key: &[u8], value: &[u8], weight: i64, keep_tombstones: bool) -> Result<()> {
        let hash = xxh3_64(key);
        let row = check_rows(self.rows.len())?;
        let slot = self.index.find_entry(hash, |&r| self.rows.key(r as usize) == key);
        if weight > 0 || keep_tombstones {
            match slot {
                Ok(mut slot) => *slot.get_mut() = row,
                Err(_) => {
                    self.index.insert_unique(hash, row, |&r| xxh3_64(self.rows.key(r as usize)));
                }
            }
            let (value, weight) = if weight > 0 { (value, 1) } else { (&[][..], -1) };
            self.rows.push(key, value, weight);
        } else if let Ok(slot) = slot {
            slot.remove();
        }
        Ok(())
    }

    /// Copies the living rows and tombstones to a new arena.
    fn clean(&mut self) -> Result<()> {
        let old = mem::take(&mut self.rows);
        let mut alive: Vec<u32> = self.index.iter().copied().collect();
        alive.sort_unstable();
        self.rows = RowBatch::with_capacity(alive.len(), old.bytes() / 2);
        self.index.clear();
        for row in alive {
            let row = row as usize;
            let hash = xxh3_64(old.key(row));
            let to = check_rows(self.rows.len())?;
            self.rows.push(old.key(row), old.value(row), old.weight(row));
            self.index.insert_unique(hash, to, |&r| xxh3_64(self.rows.key(r as usize)));
        }
        Ok(())
    }

    /// The newest row of a key: its place in [`LatestTable::rows`], a tombstone or not.
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        self.index.find(xxh3_64(key), |&r| self.rows.key(r as usize) == key).map(|&r| r as usize)
    }

    /// The arena that [`LatestTable::find`] points into.
    pub(super) fn rows(&self) -> &RowBatch {
        &self.rows
    }

    fn sorted(&self) -> &Arc<RowBatch> {
        self.sorted.get_or_init(|| {
            // The index names each key once, with its newest row: they are only put in order. A key whose last row was removed without a
            // tombstone is not in the index any more.
            let abbreviated = |row: u32| (prefix(self.rows.key(row as usize)), row);
            let mut order: Vec<(u64, u32)> = match u32::try_from(self.rows.len()) {
                // No garbage: the arena can be read from front to back, which is quicker.
                Ok(rows) if self.index.len() == self.rows.len() => (0..rows).map(abbreviated).collect(),
                _ => self.index.iter().copied().map(abbreviated).collect(),
            };
            order.sort_unstable_by(|&(pa, a), &(pb, b)| {
                pa.cmp(&pb).then_with(|| self.rows.key(a as usize).cmp(self.rows.key(b as usize)))
            });
            let mut rows = self.rows.empty_like(order.len());
            for (_, row) in order {
                let row = row as usize;
                rows.push(self.rows.key(row), self.rows.value(row), self.rows.weight(row));
            }
            Arc::new(rows)
        })
    }
}

/// `rows` as the number of a next row, if there may be one more.
fn check_rows(rows: usize) -> Result<u32> {
    u32::try_from(rows).ok().filter(|&r| r < u32::MAX).ok_or_else(|| {
        Error::Invalid(format!(
            "a memtable of {rows} rows is more than its bound of {}: checkpoint more often",
            u32::MAX
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_stays_small() {
        let mut table = WeightedTable::default();
        for i in 0..5000u32 {
            let mut batch = RowBatch::new();
            batch.push(&i.wrapping_mul(2_654_435_761).to_be_bytes(), b"", 1);
            table.insert(&batch).unwrap();
            assert!(table.stack.windows(2).all(|w| w[0].len() > 2 * w[1].len()));
        }
        assert_eq!(table.stack.iter().map(|b| b.len()).sum::<usize>(), 5000);
        assert!(table.stack.len() <= 13, "{} batches", table.stack.len());
    }

    #[test]
    fn garbage_of_overwrites_is_cleaned() {
        let mut table = LatestTable::default();
        for round in 0..100_000u32 {
            let mut batch = RowBatch::new();
            batch.push(&(round % 10).to_be_bytes(), &round.to_be_bytes(), 1);
            table.insert(&batch, false).unwrap();
            assert!(table.rows.len() <= 2 * table.index.len() + MIN_GARBAGE);
        }
        let rows: Vec<_> = table.sorted().iter().map(|(k, v, w)| (k.to_vec(), v.to_vec(), w)).collect();
        let want: Vec<_> =
            (0..10u32).map(|k| (k.to_be_bytes().to_vec(), (99_990 + k).to_be_bytes().to_vec(), 1)).collect();
        assert_eq!(rows, want);
    }

    #[test]
    fn tombstones_stay_only_where_something_older_may_be_hidden() {
        for keep in [false, true] {
            let mut table = Memtable::new(Discipline::Latest);
            let mut batch = RowBatch::new();
            batch.push(b"k", b"v", 1);
            batch.push(b"k", b"", -1);
            table.insert(&batch, keep).unwrap();
            assert_eq!(table.is_empty(), !keep);
            assert_eq!(table.sorted().len(), usize::from(keep));
        }
    }
}
