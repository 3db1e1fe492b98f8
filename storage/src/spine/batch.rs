//! Columnar rows and keys: what goes into a spine, and what comes out.
//!
//! A batch is two byte arenas with the end of each entry, and a vector of weights: pushing a row
//! allocates nothing but the arenas' growth.
//!
//! Invariant: `keys`, `values` and `weights` have the same number of entries.
//!
//! Known limit: a batch holds at most `u32::MAX` rows where it is sorted or indexed.

use std::cmp::Ordering;
use std::fmt;

use super::Discipline;

/// Byte strings one after another.
#[derive(Clone, Default, PartialEq, Eq)]
struct Arena {
    bytes: Vec<u8>,
    /// `ends[i]` is where entry `i` ends; it starts where the one before ends.
    ends: Vec<usize>,
}

impl Arena {
    fn push(&mut self, entry: &[u8]) {
        self.bytes.extend_from_slice(entry);
        self.ends.push(self.bytes.len());
    }

    fn get(&self, i: usize) -> &[u8] {
        let start = i.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(i).copied().unwrap_or(start);
        self.bytes.get(start..end).unwrap_or(&[])
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn memory(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<usize>()
    }
}

/// Rows `(key, value, weight)` in columns.
///
/// ```
/// use backstay_storage::spine::{Discipline, RowBatch};
/// let mut batch = RowBatch::new();
/// batch.push(b"b", b"1", 1);
/// batch.push(b"a", b"1", 2);
/// batch.push(b"b", b"1", -1);
/// batch.consolidate(Discipline::Weighted);
/// assert_eq!(batch.iter().collect::<Vec<_>>(), [(&b"a"[..], &b"1"[..], 2)]);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RowBatch {
    keys: Arena,
    values: Arena,
    weights: Vec<i64>,
}

impl RowBatch {
    /// An empty batch.
    ///
    /// ```
    /// assert!(backstay_storage::spine::RowBatch::new().is_empty());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `rows` rows whose keys and values take `bytes` bytes together.
    ///
    /// ```
    /// let batch = backstay_storage::spine::RowBatch::with_capacity(100, 4096);
    /// assert_eq!(batch.len(), 0);
    /// ```
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        let arena = || Arena { bytes: Vec::with_capacity(bytes / 2), ends: Vec::with_capacity(rows) };
        Self { keys: arena(), values: arena(), weights: Vec::with_capacity(rows) }
    }

    /// An empty batch with room for `rows` rows whose keys and values are together as long as this one's.
    pub(super) fn empty_like(&self, rows: usize) -> Self {
        let arena =
            |like: &Arena| Arena { bytes: Vec::with_capacity(like.bytes.len()), ends: Vec::with_capacity(rows) };
        Self { keys: arena(&self.keys), values: arena(&self.values), weights: Vec::with_capacity(rows) }
    }

    /// Appends a row.
    ///
    /// ```
    /// let mut batch = backstay_storage::spine::RowBatch::new();
    /// batch.push(b"key", b"value", 1);
    /// assert_eq!((batch.key(0), batch.value(0), batch.weight(0)), (&b"key"[..], &b"value"[..], 1));
    /// ```
    pub fn push(&mut self, key: &[u8], value: &[u8], weight: i64) {
        self.keys.push(key);
        self.values.push(value);
        self.weights.push(weight);
    }

    /// The number of rows.
    ///
    /// ```
    /// assert_eq!(backstay_storage::spine::RowBatch::new().len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there is no row.
    ///
    /// ```
    /// assert!(backstay_storage::spine::RowBatch::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// The key of row `i`; empty if there is no such row.
    ///
    /// ```
    /// let mut batch = backstay_storage::spine::RowBatch::new();
    /// batch.push(b"k", b"", 1);
    /// assert_eq!(batch.key(0), b"k");
    /// assert_eq!(batch.key(9), b"");
    /// ```
    pub fn key(&self, i: usize) -> &[u8] {
        self.keys.get(i)
    }

    /// The value of row `i`; empty if there is no such row.
    ///
    /// ```
    /// let mut batch = backstay_storage::spine::RowBatch::new();
    /// batch.push(b"k", b"v", 1);
    /// assert_eq!(batch.value(0), b"v");
    /// ```
    pub fn value(&self, i: usize) -> &[u8] {
        self.values.get(i)
    }

    /// The weight of row `i`; 0 if there is no such row.
    ///
    /// ```
    /// let mut batch = backstay_storage::spine::RowBatch::new();
    /// batch.push(b"k", b"v", -3);
    /// assert_eq!(batch.weight(0), -3);
    /// ```
    pub fn weight(&self, i: usize) -> i64 {
        self.weights.get(i).copied().unwrap_or(0)
    }

    /// The rows in order.
    ///
    /// ```
    /// let mut batch = backstay_storage::spine::RowBatch::new();
    /// batch.push(b"k", b"v", 1);
    /// assert_eq!(batch.iter().next(), Some((&b"k"[..], &b"v"[..], 1)));
    /// ```
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8], i64)> {
        (0..self.len()).map(|i| (self.key(i), self.value(i), self.weight(i)))
    }

    /// Removes all rows and keeps the memory.
    ///
    /// ```
    /// let mut batch = backstay_storage::spine::RowBatch::new();
    /// batch.push(b"k", b"v", 1);
    /// batch.clear();
    /// assert!(batch.is_empty());
    /// ```
    pub fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
        self.weights.clear();
    }

    /// The memory that the rows take, in bytes, with offsets and weights.
    ///
    /// ```
    /// let mut batch = backstay_storage::spine::RowBatch::new();
    /// batch.push(b"key", b"value", 1);
    /// assert_eq!(batch.bytes(), 8 + 3 * 8);
    /// ```
    pub fn bytes(&self) -> usize {
        self.keys.memory() + self.values.memory() + self.weights.len() * size_of::<i64>()
    }

    /// What the rows weigh for the merge policy: the sum of [`raw_bytes`](super::extent::raw_bytes).
    pub(super) fn raw_bytes(&self) -> u64 {
        (self.keys.bytes.len() + self.values.bytes.len() + self.len() * 8) as u64
    }

    /// Sorts the rows and makes each of them stand once.
    ///
    /// - [`Discipline::Weighted`]: sorted by (key, value); the weights of equal rows are added
    ///   (wrapping around, so that the sum does not depend on the order), rows of weight 0 vanish.
    /// - [`Discipline::Latest`]: sorted by key; the last pushed row of a key wins. A weight above 0
    ///   puts it (weight 1); any other deletes the key: a row of weight −1 with an empty value.
    ///
    /// ```
    /// use backstay_storage::spine::{Discipline, RowBatch};
    /// let mut batch = RowBatch::new();
    /// batch.push(b"k", b"old", 1);
    /// batch.push(b"gone", b"", -1);
    /// batch.push(b"k", b"new", 1);
    /// batch.consolidate(Discipline::Latest);
    /// let rows: Vec<_> = batch.iter().collect();
    /// assert_eq!(rows, [(&b"gone"[..], &b""[..], -1), (&b"k"[..], &b"new"[..], 1)]);
    /// ```
    pub fn consolidate(&mut self, discipline: Discipline) {
        if self.is_consolidated(discipline) {
            return;
        }
        let mut order: Vec<(u64, u32)> =
            (0..self.len()).map(|i| (prefix(self.key(i)), u32::try_from(i).unwrap_or(u32::MAX))).collect();
        order.sort_unstable_by(|&(pa, a), &(pb, b)| {
            let (ia, ib) = (a as usize, b as usize);
            pa.cmp(&pb).then_with(|| self.compare(ia, self, ib, discipline)).then(a.cmp(&b))
        });
        let mut out = self.empty_like(self.len());
        for &(_, i) in &order {
            out.push_merging(self.key(i as usize), self.value(i as usize), self.weight(i as usize), discipline);
        }
        out.drop_last_if_zero(discipline);
        *self = out;
    }

    /// Whether [`RowBatch::consolidate`] would change nothing.
    pub(super) fn is_consolidated(&self, discipline: Discipline) -> bool {
        let normal = match discipline {
            Discipline::Weighted => self.weights.iter().all(|&w| w != 0),
            Discipline::Latest => (0..self.len()).all(|i| match self.weight(i) {
                1 => true,
                -1 => self.value(i).is_empty(),
                _ => false,
            }),
        };
        normal && (1..self.len()).all(|i| self.compare(i - 1, self, i, discipline) == Ordering::Less)
    }

    /// The order of two rows: by key, and by value too if the discipline tells rows of one key apart.
    pub(super) fn compare(&self, i: usize, other: &RowBatch, j: usize, discipline: Discipline) -> Ordering {
        let by_key = self.key(i).cmp(other.key(j));
        match discipline {
            Discipline::Weighted => by_key.then_with(|| self.value(i).cmp(other.value(j))),
            Discipline::Latest => by_key,
        }
    }

    /// Appends a row that is not smaller than the last one, joining it with an equal last row. After
    /// the last of these calls comes [`RowBatch::drop_last_if_zero`].
    fn push_merging(&mut self, key: &[u8], value: &[u8], weight: i64, discipline: Discipline) {
        let last = self.len().wrapping_sub(1);
        match discipline {
            Discipline::Weighted => {
                if last < self.len() && self.key(last) == key && self.value(last) == value {
                    if let Some(w) = self.weights.last_mut() {
                        *w = w.wrapping_add(weight);
                    }
                    return;
                }
                self.drop_last_if_zero(discipline);
                self.push(key, value, weight);
            }
            Discipline::Latest => {
                if last < self.len() && self.key(last) == key {
                    self.truncate(last);
                }
                if weight > 0 { self.push(key, value, 1) } else { self.push(key, &[], -1) }
            }
        }
    }

    fn drop_last_if_zero(&mut self, discipline: Discipline) {
        if discipline == Discipline::Weighted && self.weights.last() == Some(&0) {
            self.truncate(self.len().saturating_sub(1));
        }
    }

    fn truncate(&mut self, len: usize) {
        self.keys.truncate(len);
        self.values.truncate(len);
        self.weights.truncate(len);
    }

    /// The sum of two consolidated batches; of equal rows of a latest spine `newer`'s stays.
    pub(super) fn merge(older: &RowBatch, newer: &RowBatch, discipline: Discipline) -> RowBatch {
        let bytes = |b: &RowBatch| b.keys.bytes.len() + b.values.bytes.len();
        let mut out = RowBatch::with_capacity(older.len() + newer.len(), bytes(older) + bytes(newer));
        let (mut i, mut j) = (0, 0);
        while i < older.len() && j < newer.len() {
            if older.compare(i, newer, j, discipline) != Ordering::Greater {
                out.push_merging(older.key(i), older.value(i), older.weight(i), discipline);
                i += 1;
            } else {
                out.push_merging(newer.key(j), newer.value(j), newer.weight(j), discipline);
                j += 1;
            }
        }
        for i in i..older.len() {
            out.push_merging(older.key(i), older.value(i), older.weight(i), discipline);
        }
        for j in j..newer.len() {
            out.push_merging(newer.key(j), newer.value(j), newer.weight(j), discipline);
        }
        out.drop_last_if_zero(discipline);
        out
    }

    /// The first row at or after `from` for which `below` is false; `below` must be true for a prefix
    /// of the rows. Looks near `from` first, so that sorted searches cost little.
    fn partition_from(&self, from: usize, mut below: impl FnMut(usize) -> bool) -> usize {
        let mut low = from.min(self.len());
        let mut step = 1;
        let mut high = low;
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

    /// The first row at or after `from` whose key is at least `key`. The rows must be sorted.
    pub(super) fn lower_bound(&self, key: &[u8], from: usize) -> usize {
        self.partition_from(from, |i| self.key(i) < key)
    }

    /// The first row at or after `from` whose key is greater than `key`. The rows must be sorted.
    pub(super) fn upper_bound(&self, key: &[u8], from: usize) -> usize {
        self.partition_from(from, |i| self.key(i) <= key)
    }

    /// The rows of `range`, which has one key's and is sorted, that have this value: one or none.
    pub(super) fn rows_of(&self, value: &[u8], range: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let row = self.partition_from(range.start, |i| i < range.end && self.value(i) < value);
        row..row + usize::from(row < range.end && self.value(row) == value)
    }

    /// The first row that is at least `(key, value)`. The rows must be sorted.
    pub(super) fn lower_bound_row(&self, key: &[u8], value: &[u8]) -> usize {
        self.partition_from(0, |i| (self.key(i), self.value(i)) < (key, value))
    }
}

impl fmt::Debug for RowBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |b: &[u8]| b.escape_ascii().to_string();
        f.debug_list().entries(self.iter().map(|(k, v, w)| (show(k), show(v), w))).finish()
    }
}

/// Keys in a column.
///
/// ```
/// let mut keys = backstay_storage::spine::KeyBatch::new();
/// keys.push(b"b");
/// keys.push(b"a");
/// assert_eq!((keys.len(), keys.get(1)), (2, &b"a"[..]));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeyBatch {
    keys: Arena,
}

impl KeyBatch {
    /// An empty batch.
    ///
    /// ```
    /// assert!(backstay_storage::spine::KeyBatch::new().is_empty());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a key.
    ///
    /// ```
    /// let mut keys = backstay_storage::spine::KeyBatch::new();
    /// keys.push(b"a");
    /// assert_eq!(keys.get(0), b"a");
    /// ```
    pub fn push(&mut self, key: &[u8]) {
        self.keys.push(key);
    }

    /// The number of keys.
    ///
    /// ```
    /// assert_eq!(backstay_storage::spine::KeyBatch::new().len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.keys.ends.len()
    }

    /// Whether there is no key.
    ///
    /// ```
    /// assert!(backstay_storage::spine::KeyBatch::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.keys.ends.is_empty()
    }

    /// Key `i`; empty if there is no such key.
    ///
    /// ```
    /// assert_eq!(backstay_storage::spine::KeyBatch::new().get(0), b"");
    /// ```
    pub fn get(&self, i: usize) -> &[u8] {
        self.keys.get(i)
    }

    /// Removes all keys and keeps the memory.
    ///
    /// ```
    /// let mut keys = backstay_storage::spine::KeyBatch::new();
    /// keys.push(b"a");
    /// keys.clear();
    /// assert!(keys.is_empty());
    /// ```
    pub fn clear(&mut self) {
        self.keys.clear();
    }

    /// The memory that the keys take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.keys.memory()
    }
}

impl fmt::Debug for KeyBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((0..self.len()).map(|i| self.get(i).escape_ascii().to_string())).finish()
    }
}

/// What a probe found. The rows of key `i` are `rows[offsets[i]..offsets[i + 1]]`; there is one offset
/// more than keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// The rows of all keys, in the order of the keys that were asked for.
    pub rows: RowBatch,
    /// Where each key's rows start.
    pub offsets: Vec<u32>,
}

impl Probe {
    /// The range of rows that key `i` has; empty if there is no such key.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, KeyBatch, RowBatch, Spine};
    /// # fn main() -> backstay_storage::Result<()> {
    /// let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// let mut rows = RowBatch::new();
    /// rows.push(b"k", b"v", 1);
    /// spine.insert_batch(&rows)?;
    /// let mut keys = KeyBatch::new();
    /// keys.push(b"absent");
    /// keys.push(b"k");
    /// let found = spine.probe(&keys)?;
    /// assert_eq!((found.range(0), found.range(1)), (0..0, 0..1));
    /// # Ok(()) }
    /// ```
    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        match (self.offsets.get(i), self.offsets.get(i.saturating_add(1))) {
            (Some(&start), Some(&end)) => start as usize..end as usize,
            _ => 0..0,
        }
    }
}

/// The first 8 bytes of a key as a number that compares as they do (an abbreviated key): most
/// comparisons end here and touch no arena.
#[inline]
pub(super) fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut padded = [0; 8];
            for (to, from) in padded.iter_mut().zip(key) {
                *to = *from;
            }
            u64::from_be_bytes(padded)
        }
    }
}

/// The order of two byte strings of the same length; short ones without a call.
#[inline]
pub(super) fn compare_starts(a: &[u8], b: &[u8]) -> Ordering {
    if a.len() <= 8 { prefix(a).cmp(&prefix(b)) } else { a.cmp(b) }
}

/// How many leading bytes two byte strings have in common.
#[inline]
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    let (wide_a, wide_b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let mut same = 0;
    for (x, y) in wide_a.iter().zip(wide_b) {
        let differing = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differing != 0 {
            return same + (differing.trailing_zeros() / 8) as usize;
        }
        same += 8;
    }
    let rest = a.get(same..).unwrap_or(&[]).iter().zip(b.get(same..).unwrap_or(&[]));
    same + rest.take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_shorter_than_the_prefix_sort_right() {
        let mut batch = RowBatch::new();
        for key in [&b"a\0"[..], b"a", b"", b"\0", b"aaaaaaaab", b"aaaaaaaa", b"a\0\0"] {
            batch.push(key, b"", 1);
        }
        batch.consolidate(Discipline::Weighted);
        let keys: Vec<_> = batch.iter().map(|(k, _, _)| k).collect();
        assert_eq!(keys, [&b""[..], b"\0", b"a", b"a\0", b"a\0\0", b"aaaaaaaa", b"aaaaaaaab"]);
    }

    #[test]
    fn common_starts_of_all_lengths() {
        for len in 0..40 {
            let a: Vec<u8> = (0..len).collect();
            assert_eq!(common(&a, &a), usize::from(len));
            for at in 0..len {
                let mut b = a.clone();
                b[usize::from(at)] = 200;
                assert_eq!((common(&a, &b), common(&a, &a[..at.into()])), (at.into(), at.into()));
            }
        }
    }

    #[test]
    fn weights_wrap_whatever_the_order() {
        for order in [[i64::MAX, 1, i64::MIN], [1, i64::MAX, i64::MIN], [i64::MIN, 1, i64::MAX]] {
            let mut batch = RowBatch::new();
            order.iter().for_each(|&w| batch.push(b"k", b"v", w));
            batch.consolidate(Discipline::Weighted);
            assert!(batch.is_empty(), "{order:?} sums to 0, found {batch:?}");
        }
    }

    #[test]
    fn a_sorted_batch_with_denormal_rows_is_normalised() {
        let mut batch = RowBatch::new();
        batch.push(b"a", b"left over", -7);
        batch.push(b"b", b"v", 5);
        batch.consolidate(Discipline::Latest);
        assert_eq!(batch.iter().collect::<Vec<_>>(), [(&b"a"[..], &b""[..], -1), (b"b", b"v", 1)]);
    }

    #[test]
    fn bounds_from_any_start() {
        let mut batch = RowBatch::new();
        for i in 0..100u8 {
            batch.push(&[i / 2], &[i], 1);
        }
        for key in 0..51u8 {
            for from in 0..=usize::from(key) * 2 {
                assert_eq!(batch.lower_bound(&[key], from), (usize::from(key) * 2).min(100));
                assert_eq!(batch.upper_bound(&[key], from), (usize::from(key) * 2 + 2).min(100));
            }
        }
        assert_eq!(batch.lower_bound_row(&[3], &[7]), 7);
    }
}
