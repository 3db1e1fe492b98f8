//! Walking a spine in order: a merge of memtable batches and runs.
//!
//! Invariants:
//! 1. Sources stand newest first. Between two calls each is either at its end or at its first row above the current one;
//!    only the current row's own source still stands on it.
//! 2. A cursor owns what it reads (shared, immutable), so that later inserts, freezes and installs do not change what it shows.
//!
//! Known limit: the first row is found among the sources by comparing all of them (there are few, and 8-byte key
//! prefixes decide most comparisons).

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::prefix;
use super::context::SpineContext;
use super::run::{Keep, Run, load};
use super::{Discipline, RowBatch};
use crate::Result;

/// Blocks that are read ahead at most.
const READ_AHEAD: usize = 16;

/// The rows of a run, block by block.
#[derive(Debug)]
struct Blocks {
    context: Arc<SpineContext>,
    run: Arc<Run>,
    keep: Keep,
    /// The next block to load.
    next: usize,
    /// How many blocks to load at once: doubles while the reading goes on in order.
    window: usize,
    ahead: VecDeque<Arc<RowBatch>>,
}

impl Blocks {
    fn seek(&mut self, block: usize) {
        self.next = block;
        self.window = 1;
        self.ahead.clear();
    }

    fn next(&mut self) -> Result<Option<Arc<RowBatch>>> {
        if self.ahead.is_empty() {
            let end = self.run.index.len().min(self.next.saturating_add(self.window));
            let wanted: Vec<_> = (self.next..end).map(|i| (self.run.as_ref(), i)).collect();
            self.ahead.extend(load(&self.context, &wanted, self.keep)?);
            self.next = self.next.max(end);
            self.window = (self.window * 2).min(READ_AHEAD);
        }
        Ok(self.ahead.pop_front())
    }
}

/// One sorted input of a merge: a batch in memory, or a run's blocks one after another.
#[derive(Debug)]
pub(super) struct Source {
    rows: Arc<RowBatch>,
    at: usize,
    /// The abbreviated key of the row at `at`.
    prefix: u64,
    blocks: Option<Blocks>,
}

impl Source {
    pub(super) fn memory(rows: Arc<RowBatch>) -> Self {
        Self { rows, at: 0, prefix: 0, blocks: None }
    }

    pub(super) fn run(context: Arc<SpineContext>, run: Arc<Run>, keep: Keep) -> Self {
        let blocks = Blocks { context, run, keep, next: 0, window: 1, ahead: VecDeque::new() };
        Self { rows: Arc::default(), at: 0, prefix: 0, blocks: Some(blocks) }
    }

    fn valid(&self) -> bool {
        self.at < self.rows.len()
    }

    fn key(&self) -> &[u8] {
        self.rows.key(self.at)
    }

    /// Goes to row `at` of the batch, or on to the next ones if it has none.
    fn settle(&mut self, at: usize) -> Result<()> {
        self.at = at;
        while !self.valid() {
            let next = match &mut self.blocks {
                Some(blocks) => blocks.next()?,
                None => None,
            };
            let Some(rows) = next else { break };
            (self.rows, self.at) = (rows, 0);
        }
        self.prefix = prefix(self.key());
        Ok(())
    }

    fn advance(&mut self) -> Result<()> {
        self.settle(self.at + 1)
    }

    fn rewind(&mut self) -> Result<()> {
        if let Some(blocks) = &mut self.blocks {
            blocks.seek(0);
            self.rows = Arc::default();
        }
        self.settle(0)
    }

    /// Goes to the first row at or above `(key, value)`.
    fn seek(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Some(blocks) = &mut self.blocks else {
            let at = self.rows.lower_bound_row(key, value);
            return self.settle(at);
        };
        blocks.seek(blocks.run.index.first_reaching_row(key, value));
        self.rows = Arc::default();
        self.settle(0)?;
        loop {
            let at = self.rows.lower_bound_row(key, value);
            let in_this_batch = at < self.rows.len();
            if in_this_batch || self.rows.is_empty() {
                return self.settle(at);
            }
            self.settle(at)?;
            if !self.valid() {
                return Ok(());
            }
        }
    }

    fn compare(&self, other: &Source, discipline: Discipline) -> Ordering {
        self.prefix.cmp(&other.prefix).then_with(|| self.rows.compare(self.at, &other.rows, other.at, discipline))
    }
}

/// A consolidating merge of sources.
#[derive(Debug)]
pub(super) struct Merge {
    discipline: Discipline,
    /// Whether tombstones are shown: something older that is not merged may hold their keys.
    tombstones: bool,
    /// Newest first.
    sources: Vec<Source>,
    /// The source that stands on the current row.
    current: Option<usize>,
    weight: i64,
    /// Sources that stand on a row equal to the current one.
    equal: Vec<usize>,
}

impl Merge {
    /// A merge that stands nowhere: rewind or seek it.
    pub(super) fn new(discipline: Discipline, tombstones: bool, sources: Vec<Source>) -> Self {
        Self { discipline, tombstones, sources, current: None, weight: 0, equal: Vec::new() }
    }

    pub(super) fn rewind(&mut self) -> Result<()> {
        self.current = None;
        self.sources.iter_mut().try_for_each(Source::rewind)?;
        self.settle()
    }

    pub(super) fn seek(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.current = None;
        // In a latest spine a key has one row: its value plays no part in the order.
        let value = if self.discipline == Discipline::Latest { &[] } else { value };
        self.sources.iter_mut().try_for_each(|s| s.seek(key, value))?;
        self.settle()
    }

    pub(super) fn next(&mut self) -> Result<()> {
        if let Some(source) = self.current.take().and_then(|i| self.sources.get_mut(i)) {
            source.advance()?;
            self.settle()?;
        }
        Ok(())
    }

    /// Finds the next row to show. No source stands on a row already shown.
    fn settle(&mut self) -> Result<()> {
        while let Some(first) = self.find_first() {
            let mut weight = self.sources.get(first).map_or(0, |s| s.rows.weight(s.at));
            for &i in &self.equal {
                if let Some(source) = self.sources.get_mut(i) {
                    if self.discipline == Discipline::Weighted {
                        weight = weight.wrapping_add(source.rows.weight(source.at));
                    }
                    source.advance()?;
                }
            }
            let shown = match self.discipline {
                Discipline::Weighted => weight != 0,
                Discipline::Latest => weight > 0 || self.tombstones,
            };
            if shown {
                (self.current, self.weight) = (Some(first), weight);
                return Ok(());
            }
            if let Some(source) = self.sources.get_mut(first) {
                source.advance()?;
            }
        }
        Ok(())
    }

    /// The newest source that stands on the smallest row; the others that do are put into `equal`.
    fn find_first(&mut self) -> Option<usize> {
        self.equal.clear();
        let mut standing = self.sources.iter().enumerate().filter(|(_, source)| source.valid());
        let (mut first, mut smallest) = standing.next()?;
        for (i, source) in standing {
            match source.compare(smallest, self.discipline) {
                Ordering::Less => {
                    self.equal.clear();
                    (first, smallest) = (i, source);
                }
                Ordering::Equal => self.equal.push(i),
                Ordering::Greater => {}
            }
        }
        Some(first)
    }

    pub(super) fn valid(&self) -> bool {
        self.current.is_some()
    }

    fn source(&self) -> Option<&Source> {
        self.current.and_then(|i| self.sources.get(i))
    }

    pub(super) fn key(&self) -> &[u8] {
        self.source().map_or(&[], Source::key)
    }

    pub(super) fn value(&self) -> &[u8] {
        self.source().map_or(&[], |s| s.rows.value(s.at))
    }

    pub(super) fn weight(&self) -> i64 {
        if self.valid() { self.weight } else { 0 }
    }
}

/// A walk over a spine's rows in the order of (key, value), each of them once, tombstones and
/// zero weights left out. It shows the state at the moment it was made, whatever is inserted later.
///
/// After an error it stands nowhere ([`Cursor::valid`] is false) until the next seek.
///
/// ```
/// use backstay_storage::spine::{Discipline, RowBatch, Spine};
/// let mut spine = Spine::ephemeral(Discipline::Weighted);
/// let mut rows = RowBatch::new();
/// rows.push(b"b", b"2", 1);
/// rows.push(b"a", b"1", 1);
/// spine.insert_batch(&rows)?;
/// let mut cursor = spine.cursor()?;
/// let mut keys = Vec::new();
/// while cursor.valid() {
///     keys.push(cursor.key().to_vec());
///     cursor.next()?;
/// }
/// assert_eq!(keys, [b"a", b"b"]);
/// # Ok::<(), backstay_storage::Error>(())
/// ```
#[derive(Debug)]
pub struct Cursor {
    merge: Merge,
}

impl Cursor {
    pub(super) fn new(merge: Merge) -> Result<Self> {
        let mut cursor = Self { merge };
        cursor.merge.rewind()?;
        Ok(cursor)
    }

    /// Goes to the first row whose key is at least `key`, forward or back.
    ///
    /// # Errors
    /// Those of reading a run.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, RowBatch, Spine};
    /// # let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// # let mut rows = RowBatch::new();
    /// # rows.push(b"b", b"2", 1);
    /// # spine.insert_batch(&rows)?;
    /// let mut cursor = spine.cursor()?;
    /// cursor.seek(b"a")?;
    /// assert_eq!(cursor.key(), b"b");
    /// cursor.seek(b"c")?;
    /// assert!(!cursor.valid());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.merge.seek(key, &[])
    }

    /// Goes to the first row that is at least `(key, value)`, forward or back. In a latest spine the value plays no part.
    ///
    /// # Errors
    /// Those of reading a run.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, RowBatch, Spine};
    /// # let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// # let mut rows = RowBatch::new();
    /// # rows.push(b"k", b"1", 1);
    /// # rows.push(b"k", b"3", 1);
    /// # spine.insert_batch(&rows)?;
    /// let mut cursor = spine.cursor()?;
    /// cursor.seek_row(b"k", b"2")?;
    /// assert_eq!(cursor.value(), b"3");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn seek_row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.merge.seek(key, value)
    }

    /// Whether it stands on a row.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert!(!Spine::ephemeral(Discipline::Latest).cursor()?.valid());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn valid(&self) -> bool {
        self.merge.valid()
    }

    /// The key of the row; empty if there is none.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Latest).cursor()?.key(), b"");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn key(&self) -> &[u8] {
        self.merge.key()
    }

    /// The value of the row; empty if there is none.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Latest).cursor()?.value(), b"");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn value(&self) -> &[u8] {
        self.merge.value()
    }

    /// The weight of the row (1 in a latest spine); 0 if there is none.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Latest).cursor()?.weight(), 0);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn weight(&self) -> i64 {
        self.merge.weight()
    }

    /// Goes on to the next row. At the end it stays there.
    ///
    /// # Errors
    /// Those of reading a run.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// let mut cursor = Spine::ephemeral(Discipline::Latest).cursor()?;
    /// cursor.next()?;
    /// assert!(!cursor.valid());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    #[expect(clippy::should_implement_trait, reason = "rows are lent, which Iterator cannot do")]
    pub fn next(&mut self) -> Result<()> {
        self.merge.next()
    }
}
