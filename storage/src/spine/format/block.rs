//! The rows of a block.
//!
//! ```text
//! block   = entry · entry · …
//!           · offset of each restart (u32) · abbreviated key of each restart (8 bytes)
//!           · common (u32) · number of restarts (u32)
//! ```
//! An entry shares as many leading bytes of the key before as there are in common; in each 8th entry (a *restart*) it shares none. The
//! first `common` bytes are the same in all keys of the block; the abbreviated key is the 8 bytes behind them (zeros where
//! the key ends), read as a number with the first byte in the highest place, so that it compares as the keys do. State keys begin
//! alike for long (the vnode, a tag, the zeros of a small number): behind these bytes, 8 tell nearly all of them apart. (They stand
//! in the key's own order of bytes, so that packing finds them to be a copy.)
//!
//! A block of a weighted run is strictly ascending by (key, value) and has no weight 0. One of a latest
//! run is strictly ascending by key; weight 1 puts the value, weight −1 (a tombstone, its value empty) deletes.
//!
//! Invariants of a [`Block`], checked once when it is made of a frame's bytes:
//! 1. Every entry is whole, and the entries end where the trailer starts.
//! 2. Rows and weights are as above, restarts and abbreviated keys where and what the entries say.
//! 3. `shared` is *all* that two neighbouring keys have in common (but for restarts). So a search decides most entries by
//!    that number alone, without their bytes.
//!
//! The checksum proves that the bytes are what a writer wrote; the check, that a faulty writer's rows do not come out in
//! another order than they are looked for. It takes less time than unpacking the block, and is not repeated while that is in the cache.

use super::Malformed;
use super::entry::{self, Entry};
use crate::sabotage::{Check, checked};
use crate::spine::batch::{common, prefix};
use crate::spine::context::Buffer;
use crate::spine::{Discipline, RowBatch};

/// Every how many entries the key stands whole.
pub const RESTART_EVERY: usize = 8;
/// A block is closed once it has this many raw bytes.
pub const TARGET: usize = 32 << 10;
/// Bytes of the trailer without restarts.
const TRAILER: usize = 8;
/// Bytes of the trailer a restart.
const PER_RESTART: usize = size_of::<u32>() + size_of::<u64>();

/// Encodes the rows of one block.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    payload: Vec<u8>,
    restarts: Vec<u32>,
    rows: usize,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
}

impl BlockBuilder {
    /// Appends a row, which must be greater than the last one.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8], weight: i64) {
        let shared = if self.rows.is_multiple_of(RESTART_EVERY) {
            // A block grows past TARGET by one row only, and rows are bounded (MAX_ROW_BYTES).
            self.restarts.push(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
            0
        } else {
            common(&self.last_key, key)
        };
        let rest = key.get(shared..).unwrap_or(&[]);
        entry::put(&mut self.payload, shared, rest, value, weight);
        if self.rows == 0 {
            self.first_key.extend_from_slice(key);
        }
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(rest);
        self.rows += 1;
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn is_full(&self) -> bool {
        self.payload.len() >= TARGET
    }

    /// The key pushed last.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Adds the trailer and returns the payload.
    pub(crate) fn finish(&mut self) -> &[u8] {
        let common = common(&self.first_key, &self.last_key);
        let abbreviate = |&restart: &u32| {
            let entry = Entry::read(&self.payload, restart as usize).unwrap_or_default();
            prefix(entry.rest(&self.payload).get(common..).unwrap_or(&[]))
        };
        let abbreviated: Vec<u64> = self.restarts.iter().map(abbreviate).collect();
        self.payload.extend(self.restarts.iter().flat_map(|n| n.to_le_bytes()));
        self.payload.extend(abbreviated.iter().flat_map(|n| n.to_be_bytes()));
        for n in [common, self.restarts.len()] {
            self.payload.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
        }
        &self.payload
    }

    /// Empties it for the next block.
    pub(crate) fn clear(&mut self) {
        self.payload.clear();
        self.restarts.clear();
        self.rows = 0;
        self.first_key.clear();
        self.last_key.clear();
    }
}

/// The unpacked bytes of a block, found sound. See the [module](self).
pub struct Block {
    bytes: Buffer,
    rows: usize,
    /// Where the entries end and the restarts begin.
    entries: usize,
    /// Where the restarts end and their abbreviated keys begin.
    restarts: usize,
    /// How many bytes all keys have in common.
    common: usize,
}

impl Block {
    /// Checks the raw bytes of a block of `rows` rows.
    ///
    /// # Errors
    /// What is wrong with them.
    ///
    /// ```
    /// use backstay_storage::spine::{Discipline, format::block::Block};
    /// let mut bytes = vec![0, 1, 1, 2, b'k', b'v']; // shared 0, rest 1, value 1, weight +1
    /// bytes.extend([0, 0, 0, 0]); // one restart, at 0
    /// bytes.extend([0; 8]); // behind the bytes that all keys have in common it is empty
    /// bytes.extend([1, 0, 0, 0, 1, 0, 0, 0]); // one common byte, one restart
    /// let block = Block::read(bytes.clone(), 1, Discipline::Weighted).unwrap();
    /// assert_eq!(block.to_rows().iter().next(), Some((&b"k"[..], &b"v"[..], 1)));
    /// assert!(Block::read(bytes, 2, Discipline::Weighted).is_err());
    /// ```
    pub fn read(bytes: Vec<u8>, rows: u32, discipline: Discipline) -> Result<Self, Malformed> {
        Self::sound(bytes.into(), rows, discipline)
    }

    /// The same of bytes that may go back to a pool.
    pub(crate) fn sound(bytes: Buffer, rows: u32, discipline: Discipline) -> Result<Self, Malformed> {
        let block = Self::split(bytes, rows as usize)?;
        block.check(discipline)?;
        Ok(block)
    }

    /// A block that was just built: its parts are found, its rows not checked.
    pub(crate) fn split(bytes: Buffer, rows: usize) -> Result<Self, Malformed> {
        let trailer = || Malformed::cut("a block trailer");
        let (rest, tail) = bytes.split_last_chunk::<TRAILER>().ok_or_else(trailer)?;
        let [a, b, c, d, count @ ..] = *tail;
        let (common, count) = (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes(count) as usize);
        let expected = rows.div_ceil(RESTART_EVERY);
        if rows == 0 || count != expected {
            return Err(Malformed::new(format!("{expected} restarts for {rows} rows"), count.to_string()));
        }
        let entries = rest.len().checked_sub(count.saturating_mul(PER_RESTART)).ok_or_else(trailer)?;
        let restarts = entries + count * size_of::<u32>();
        Ok(Self { bytes, rows, entries, restarts, common })
    }

    /// Checks the invariants.
    fn check(&self, discipline: Discipline) -> Result<(), Malformed> {
        let entries = self.entries();
        let (order, weights) = (checked(Check::RunBlockOrder), checked(Check::RunBlockWeights));
        let restarts = checked(Check::RunBlockRestarts);
        let mut key = Vec::new();
        let mut before = Entry::default();
        for row in 0..self.rows {
            let at = before.end;
            let entry = Entry::read(entries, at).ok_or_else(|| Malformed::cut("an entry"))?;
            let rest = entry.rest(entries);
            let ascending = if row.is_multiple_of(RESTART_EVERY) {
                let abbreviated = (entry.shared == 0 && rest.get(..self.common) == Some(self.common_key()))
                    .then(|| (at, prefix(rest.get(self.common..).unwrap_or(&[]))));
                let named = (self.restart(row / RESTART_EVERY), self.abbreviated(row / RESTART_EVERY));
                if restarts && abbreviated != Some(named) {
                    return Err(Malformed::new(format!("a restart at {at}"), format!("{named:?}, {entry:?}")));
                }
                row == 0 || key.as_slice() < rest || (key == rest && self.values_ascend(&before, &entry, discipline))
            } else {
                match (key.get(entry.shared), rest.first()) {
                    (Some(old), Some(new)) => old < new,
                    // All of the key before: this one is longer, or the same.
                    (None, Some(_)) => entry.shared == key.len(),
                    (None, None) => entry.shared == key.len() && self.values_ascend(&before, &entry, discipline),
                    (Some(_), None) => false,
                }
            };
            if order && !ascending {
                let got = format!("row {row} is not above the one before, or shares more than it says");
                return Err(Malformed::new("rows in ascending order", got));
            }
            let sound = match discipline {
                Discipline::Weighted => entry.weight != 0,
                Discipline::Latest => entry.weight == 1 || (entry.weight == -1 && entry.value(entries).is_empty()),
            };
            if weights && !sound {
                return Err(Malformed::new(format!("a weight of a {discipline} run"), entry.weight.to_string()));
            }
            key.truncate(entry.shared);
            key.extend_from_slice(rest);
            before = entry;
        }
        if before.end != self.entries {
            return Err(Malformed::new(format!("{} rows", self.rows), format!("entries up to {}", before.end)));
        }
        if restarts && key.get(..self.common) != Some(self.common_key()) {
            return Err(Malformed::new(format!("{} bytes in common", self.common), "a last key without them"));
        }
        Ok(())
    }

    /// Whether two rows of one key are in order.
    fn values_ascend(&self, a: &Entry, b: &Entry, discipline: Discipline) -> bool {
        discipline == Discipline::Weighted && a.value(&self.bytes) < b.value(&self.bytes)
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Memory taken, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.bytes.capacity()
    }

    /// The rows, unpacked.
    ///
    /// The example is at [`Block::read`].
    pub fn to_rows(&self) -> RowBatch {
        let mut rows = RowBatch::with_capacity(self.rows, self.entries * 2);
        let (mut key, mut at) = (Vec::new(), 0);
        while let Some(entry) = Entry::read(self.entries(), at) {
            key.truncate(entry.shared);
            key.extend_from_slice(entry.rest(&self.bytes));
            rows.push(&key, entry.value(&self.bytes), entry.weight);
            at = entry.end;
        }
        rows
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn entries(&self) -> &[u8] {
        self.bytes.get(..self.entries).unwrap_or(&[])
    }

    /// Where restart `i` is.
    pub(super) fn restart(&self, i: usize) -> usize {
        let restarts = self.bytes.get(self.entries..self.restarts).unwrap_or(&[]).as_chunks::<4>().0;
        restarts.get(i).map_or(self.entries, |n| u32::from_le_bytes(*n) as usize)
    }

    /// The abbreviated keys of the restarts.
    pub(super) fn abbreviations(&self) -> &[[u8; 8]] {
        let end = self.bytes.len().saturating_sub(TRAILER);
        self.bytes.get(self.restarts..end).unwrap_or(&[]).as_chunks().0
    }

    fn abbreviated(&self, i: usize) -> u64 {
        self.abbreviations().get(i).map_or(u64::MAX, |n| u64::from_be_bytes(*n))
    }

    /// What all keys start with.
    pub(super) fn common_key(&self) -> &[u8] {
        self.first_key().get(..self.common).unwrap_or(&[])
    }

    /// The key of the first row.
    pub(crate) fn first_key(&self) -> &[u8] {
        Entry::read(self.entries(), 0).unwrap_or_default().rest(&self.bytes)
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Block").field(&self.to_rows()).finish()
    }
}

#[cfg(test)]
#[path = "block/tests.rs"]
mod tests;
