//! Where the blocks and filter pages of a run are, and which keys each block spans.
//!
//! ```text
//! index = page · page · … · entry · entry · …      one page entry a group of blocks, one entry a block
//! page  = blocks · length of the frame of the keys' filter · that of the rows' filter, 0 for none (varints)
//! entry = frame length · rows · first key length · first value's length · last key length (varints)
//!         · first key · first value, cut after 64 bytes · last key
//! ```
//! The blocks of a group follow each other, then come its filter pages, then the next group, without gaps: offsets need not be
//! told. The first value is left out (its length 0) unless the block goes on with the last key of the one before: only then
//! does a search need it.
//!
//! Known limit: keys stand whole, and the whole index stays in memory while its run is open: 64 bytes and two keys a
//! block, with keys of 20 bytes 0.3 % of the raw bytes.

use std::cmp::Ordering;
use std::ops::Range;

use super::Malformed;
use super::scan::{Scan, put_varint};
use crate::spine::batch::{KeyBatch, RowBatch, common, compare_starts, prefix};

/// Bytes of a block's first value that the index keeps.
const VALUE_PREFIX: usize = 64;

/// The first bytes of a value that the index keeps.
fn cut(value: &[u8]) -> &[u8] {
    value.get(..VALUE_PREFIX).unwrap_or(value)
}

/// A frame: its offset in the extent and its length; 0 if there is none.
pub(crate) type Place = (u64, u64);

/// The filter pages of a group of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The first block that is not of the group.
    pub(crate) end: usize,
    pub(crate) keys: Place,
    pub(crate) rows: Place,
}

/// The index of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Of each block: first key, start of its first value, offset of its frame in the extent.
    first: RowBatch,
    last: KeyBatch,
    /// Of each block: length of its frame, rows.
    sizes: Vec<(u64, u32)>,
    pages: Vec<Page>,
    /// Where the last frame ends in the extent.
    end: u64,
    /// Of each block: the last key and the first, abbreviated behind the bytes that all keys have in common.
    abbreviated: Vec<u64>,
    abbreviated_first: Vec<u64>,
    common: usize,
}

impl Index {
    /// Appends a block. `value` is the first row's (empty for a latest run).
    pub(crate) fn push(&mut self, len: u64, rows: u32, first: &[u8], value: &[u8], last: &[u8]) {
        let value = if self.len() > 0 && self.max_key() == first { cut(value) } else { &[] };
        self.first.push(first, value, i64::try_from(self.end).unwrap_or(i64::MAX));
        self.last.push(last);
        self.sizes.push((len, rows));
        self.end = self.end.saturating_add(len);
    }

    /// Appends the filter pages of the blocks since the last ones; `rows` is 0 if there is none of rows.
    pub(crate) fn push_page(&mut self, keys: u64, rows: u64) {
        let middle = self.end.saturating_add(keys);
        self.pages.push(Page { end: self.len(), keys: (self.end, keys), rows: (middle, rows) });
        self.end = middle.saturating_add(rows);
    }

    /// To be called after the last push: makes ready for searching.
    pub(crate) fn seal(&mut self) {
        self.common = common(self.min_key(), self.max_key());
        let abbreviate = |key: &[u8]| prefix(key.get(self.common..).unwrap_or(&[]));
        self.abbreviated = (0..self.len()).map(|i| abbreviate(self.last.get(i))).collect();
        self.abbreviated_first = (0..self.len()).map(|i| abbreviate(self.first.key(i))).collect();
    }

    /// Where the frame of block `i` starts in the extent, and its length.
    pub(crate) fn place(&self, i: usize) -> Option<Place> {
        let &(len, _) = self.sizes.get(i)?;
        Some((u64::try_from(self.first.weight(i)).unwrap_or(0), len))
    }

    pub(crate) fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// The page, at or behind `from`, of the group that block `i` is in.
    pub(crate) fn page_of(&self, i: usize, from: usize) -> usize {
        match self.pages.get(from) {
            Some(page) if i < page.end => from,
            _ => from + self.pages.get(from..).unwrap_or(&[]).partition_point(|page| page.end <= i),
        }
    }

    /// Where the last frame ends in the extent.
    pub(crate) fn end(&self) -> u64 {
        self.end
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
        let fixed = size_of::<(u64, u32)>() + 2 * size_of::<u64>();
        self.first.bytes() + self.last.bytes() + self.len() * fixed + self.pages.len() * size_of::<Page>()
    }

    /// The blocks that can hold `key`; `from` is where the ones of a smaller key start.
    pub(crate) fn blocks_of(&self, key: &[u8], from: usize) -> Range<usize> {
        let start = self.first_reaching(key, from);
        let abbreviated = match self.abbreviate(key) {
            Ok(abbreviated) => abbreviated,
            Err(_) => return start..start,
        };
        let begins_by = |i: usize| match self.abbreviated_first.get(i).map(|n| n.cmp(&abbreviated)) {
            Some(Ordering::Equal) => self.first.key(i) <= key,
            order => order == Some(Ordering::Less),
        };
        // Only a key that ends a block can go on in the next.
        let goes_on = |i: usize| self.abbreviated.get(i) == Some(&abbreviated) && self.last.get(i) == key;
        let mut end = start;
        while begins_by(end) {
            end += 1;
            if !goes_on(end - 1) {
                break;
            }
        }
        start..end
    }

    /// The first block, at or behind `from`, whose last key is at least `key`: where a seek of that key starts.
    pub(crate) fn first_reaching(&self, key: &[u8], from: usize) -> usize {
        let abbreviated = match self.abbreviate(key) {
            Ok(abbreviated) => abbreviated,
            Err(Ordering::Less) => return from,
            Err(_) => return self.len(),
        };
        let below = |i: usize| match self.abbreviated.get(i).map(|n| n.cmp(&abbreviated)) {
            Some(Ordering::Equal) => self.last.get(i) < key,
            order => order == Some(Ordering::Less),
        };
        // Keys are asked for in order: the answer is near.
        let (mut low, mut high, mut step) = (from, from, 1);
        while high < self.len() && below(high) {
            low = high + 1;
            high = high.saturating_add(step).min(self.len());
            step *= 2;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if below(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The abbreviated key, or on which side of all keys it is.
    fn abbreviate(&self, key: &[u8]) -> Result<u64, Ordering> {
        let start = self.min_key().get(..self.common).unwrap_or(&[]);
        let Some((head, tail)) = key.split_at_checked(start.len()) else { return Err(key.cmp(start)) };
        match compare_starts(head, start) {
            Ordering::Equal => Ok(prefix(tail)),
            side => Err(side),
        }
    }

    /// A block from which a scan forward meets the first row at or above `(key, value)`, and close to it.
    ///
    /// The block is the last whose cut first row is *below* `(key, cut value)`: cut at the same length, "below" holds
    /// for the whole rows too, so that no earlier block can hold the row. (A first value that was left out is the least: then
    /// the block before ends with a smaller key.)
    pub(crate) fn first_reaching_row(&self, key: &[u8], value: &[u8]) -> usize {
        let start = self.first_reaching(key, 0);
        if value.is_empty() {
            return start;
        }
        self.first.lower_bound_row(key, cut(value)).saturating_sub(1).max(start)
    }

    /// Whether block `i` may begin below `(key, value)` though [`Index::first_reaching_row`] named an earlier one.
    pub(crate) fn may_begin_below(&self, i: usize, key: &[u8], value: &[u8]) -> bool {
        i < self.len() && !value.is_empty() && self.first.key(i) == key && self.first.value(i) == cut(value)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        let mut from = 0;
        for page in &self.pages {
            for number in [(page.end - from) as u64, page.keys.1, page.rows.1] {
                put_varint(&mut out, number);
            }
            from = page.end;
        }
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

/// Decodes the raw bytes of an index of `blocks` blocks in `pages` groups.
///
/// ```
/// use backstay_storage::spine::format::index::decode_index;
/// let page = [1, 56, 0]; // of one block; the keys' filter takes 56 bytes, and there is none of rows
/// let index = |first, last| [&page[..], &[100, 1, 1, 0, 1, first, last]].concat(); // 100 bytes, 1 row
/// assert!(decode_index(&index(b'a', b'z'), 1, 1).is_ok());
/// assert!(decode_index(&index(b'z', b'a'), 1, 1).is_err());
/// ```
pub fn decode_index(payload: &[u8], blocks: u32, pages: u32) -> Result<Index, Malformed> {
    let mut scan = Scan(payload);
    let mut groups = Scan(payload);
    for _ in 0..pages {
        page(&mut scan).ok_or_else(|| Malformed::cut("an index page"))?;
    }
    let mut index = Index::default();
    for _ in 0..pages {
        let (count, keys, rows) = page(&mut groups).ok_or_else(|| Malformed::cut("an index page"))?;
        if count == 0 {
            return Err(Malformed::new("a page of a block or more", "one of none"));
        }
        for _ in 0..count {
            let block = index.len();
            let (len, rows, first, value, last) = entry(&mut scan).ok_or_else(|| Malformed::cut("an index entry"))?;
            let goes_on = block > 0 && index.max_key() == first;
            let ascending = first <= last && (block == 0 || index.max_key() <= first);
            if !ascending || value.len() > VALUE_PREFIX || !(value.is_empty() || goes_on) {
                return Err(Malformed::new("index entries in ascending order", format!("block {block} out of it")));
            }
            index.push(len, rows, first, value, last);
        }
        index.push_page(keys, rows);
    }
    if !scan.0.is_empty() || index.len() != blocks as usize || i64::try_from(index.end).is_err() {
        let got = format!("{} that end at {}, {} bytes more", index.len(), index.end, scan.0.len());
        return Err(Malformed::new(format!("{blocks} index entries"), got));
    }
    index.seal();
    Ok(index)
}

fn page(scan: &mut Scan<'_>) -> Option<(u64, u64, u64)> {
    Some((scan.varint()?, scan.varint()?, scan.varint()?))
}

type Entry<'a> = (u64, u32, &'a [u8], &'a [u8], &'a [u8]);

fn entry<'a>(scan: &mut Scan<'a>) -> Option<Entry<'a>> {
    let len = scan.varint()?;
    let rows = u32::try_from(scan.varint()?).ok()?;
    let (first, value, last) = (scan.length()?, scan.length()?, scan.length()?);
    Some((len, rows, scan.bytes(first)?, scan.bytes(value)?, scan.bytes(last)?))
}

#[cfg(test)]
mod tests;
