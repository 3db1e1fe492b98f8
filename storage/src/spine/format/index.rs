//! Where the blocks of a run are, and which keys each spans.
//!
//! ```text
//! entry = frame length · rows · first key length · first value's length · last key length (varints)
//!         · first key · first value, cut after 64 bytes · last key
//! ```
//! One entry a block; the blocks follow each other without gaps, so that offsets need not be told. In a latest run the
//! first value is left out.
//!
//! Known limit: keys stand whole, and the whole index stays in memory while its run is open.

use super::Malformed;
use super::scan::{Scan, put_varint};
use crate::spine::batch::{KeyBatch, RowBatch};

/// Bytes of a block's first value that the index keeps.
const VALUE_PREFIX: usize = 64;

/// The first bytes of a value that the index keeps.
fn cut(value: &[u8]) -> &[u8] {
    value.get(..VALUE_PREFIX).unwrap_or(value)
}

/// The index of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Of each block: first key, start of its first value, offset of its frame in the extent.
    first: RowBatch,
    last: KeyBatch,
    /// Of each block: length of its frame, rows.
    sizes: Vec<(u64, u32)>,
}

impl Index {
    /// Appends a block. `value` is the first row's (empty for a latest run).
    pub(crate) fn push(&mut self, len: u64, rows: u32, first: &[u8], value: &[u8], last: &[u8]) {
        let offset = self.end();
        self.first.push(first, cut(value), i64::try_from(offset).unwrap_or(i64::MAX));
        self.last.push(last);
        self.sizes.push((len, rows));
    }

    /// Where the frame of block `i` starts in the extent, and its length.
    pub(crate) fn place(&self, i: usize) -> Option<(u64, u64)> {
        let &(len, _) = self.sizes.get(i)?;
        Some((u64::try_from(self.first.weight(i)).unwrap_or(0), len))
    }

    /// Where the last block's frame ends in the extent.
    pub(crate) fn end(&self) -> u64 {
        let last = self.len().wrapping_sub(1);
        self.place(last).map_or(0, |(offset, len)| offset.saturating_add(len))
    }

    /// Rows of block `i`.
    pub(crate) fn rows(&self, i: usize) -> u32 {
        self.sizes.get(i).map_or(0, |&(_, rows)| rows)
    }

    /// The number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.sizes.len()
    }

    /// The first key of the run.
    pub(crate) fn min_key(&self) -> &[u8] {
        self.first.key(0)
    }

    /// The last key of the run.
    pub(crate) fn max_key(&self) -> &[u8] {
        self.last.get(self.len().wrapping_sub(1))
    }

    /// The first key of block `i`.
    pub(crate) fn first_key(&self, i: usize) -> &[u8] {
        self.first.key(i)
    }

    /// The last key of block `i`.
    pub(crate) fn last_key(&self, i: usize) -> &[u8] {
        self.last.get(i)
    }

    /// Memory taken, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.first.bytes() + self.last.bytes() + self.sizes.len() * size_of::<(u64, u32)>()
    }

    /// The blocks that can hold `key`.
    pub(crate) fn blocks_of(&self, key: &[u8]) -> std::ops::Range<usize> {
        let end = self.first.upper_bound(key, 0);
        let start = self.first_reaching(key).min(end);
        start..end
    }

    /// The first block whose last key is at least `key`: where a seek of that key starts.
    pub(crate) fn first_reaching(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.last.get(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// A block from which a scan forward meets the first row at or above `(key, value)`, and close to it.
    ///
    /// The block is the last whose cut first row is *below* `(key, cut value)`: cut at the same length, "below" holds
    /// for the whole rows too, so that no earlier block can hold the row.
    pub(crate) fn first_reaching_row(&self, key: &[u8], value: &[u8]) -> usize {
        self.first.lower_bound_row(key, cut(value)).saturating_sub(1).max(self.first_reaching(key))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        for (i, &(len, rows)) in self.sizes.iter().enumerate() {
            let (first, value, last) = (self.first.key(i), self.first.value(i), self.last.get(i));
            put_varint(&mut out, len);
            put_varint(&mut out, u64::from(rows));
            for part in [first, value, last] {
                put_varint(&mut out, part.len() as u64);
            }
            for part in [first, value, last] {
                out.extend_from_slice(part);
            }
        }
        out
    }
}

/// Decodes the raw bytes of an index of `blocks` blocks.
///
/// ```
/// use backstay_storage::spine::format::index::decode_index;
/// assert!(decode_index(&[100, 1, 1, 0, 1, b'a', b'z'], 1).is_ok()); // 100 bytes, 1 row, keys a to z
/// assert!(decode_index(&[100, 1, 1, 0, 1, b'z', b'a'], 1).is_err());
/// ```
pub fn decode_index(payload: &[u8], blocks: u32) -> Result<Index, Malformed> {
    let mut scan = Scan(payload);
    let mut index = Index::default();
    let mut end = 0u64;
    for block in 0..blocks as usize {
        let (len, rows, first, value, last) = entry(&mut scan).ok_or_else(|| Malformed::cut("an index entry"))?;
        end = end.checked_add(len).ok_or_else(|| Malformed::new("a sum of lengths below 2^64", "more"))?;
        let ascending = first <= last && (block == 0 || index.last.get(block - 1) <= first);
        if !ascending || value.len() > VALUE_PREFIX || i64::try_from(end).is_err() {
            return Err(Malformed::new("index entries in ascending order", format!("block {block} out of it")));
        }
        index.push(len, rows, first, value, last);
    }
    if !scan.0.is_empty() {
        return Err(Malformed::new(format!("{blocks} index entries"), format!("{} bytes more", scan.0.len())));
    }
    Ok(index)
}

type Entry<'a> = (u64, u32, &'a [u8], &'a [u8], &'a [u8]);

fn entry<'a>(scan: &mut Scan<'a>) -> Option<Entry<'a>> {
    let len = scan.varint()?;
    let rows = u32::try_from(scan.varint()?).ok()?;
    let (first, value, last) = (scan.length()?, scan.length()?, scan.length()?);
    Some((len, rows, scan.bytes(first)?, scan.bytes(value)?, scan.bytes(last)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_over_many_blocks() {
        let mut index = Index::default();
        let long = |n: u8| [&[1; 64][..], &[n]].concat();
        index.push(10, 1, b"a", b"", b"k");
        index.push(10, 1, b"k", &long(1), b"k");
        index.push(10, 1, b"k", &long(2), b"k");
        index.push(10, 1, b"k", b"\x02", b"z");
        assert_eq!(decode_index(&index.encode(), 4), Ok(index.clone()));
        assert_eq!(index.blocks_of(b"k"), 0..4);
        assert_eq!(index.blocks_of(b"b"), 0..1);
        assert_eq!(index.blocks_of(b"l"), 3..4);
        assert!(index.blocks_of(b"zz").is_empty() && index.blocks_of(b"A").is_empty());
        assert_eq!(index.first_reaching_row(b"k", &long(2)), 0);
        assert_eq!(index.first_reaching_row(b"k", b"\x02"), 2);
        assert_eq!(index.first_reaching_row(b"k", b"\x03"), 3);
        assert_eq!(index.first_reaching_row(b"zz", b""), 4);
        assert_eq!((index.min_key(), index.max_key(), index.end()), (&b"a"[..], &b"z"[..], 40));
    }

    #[test]
    fn blocks_out_of_order_are_refused() {
        for (second, sound) in [([b"k", b"z"], true), ([b"j", b"z"], false), ([b"z", b"k"], false)] {
            let mut index = Index::default();
            index.push(10, 1, b"a", b"", b"k");
            index.push(10, 1, second[0], b"", second[1]);
            assert_eq!(decode_index(&index.encode(), 2).is_ok(), sound, "{second:?}");
        }
    }

    #[test]
    fn lying_counts_are_refused() {
        let mut index = Index::default();
        index.push(10, 1, b"a", b"v", b"k");
        let bytes = index.encode();
        assert!(decode_index(&bytes, 0).is_err());
        assert!(decode_index(&bytes, u32::MAX).is_err());
    }
}
