//! Walking a spine in order, forward and back: a merge of memtable batches and runs.
//!
//! Invariant: a cursor owns what it reads (shared, immutable), so that later inserts, freezes and installs do not change what it
//! shows.
//!
//! Parts: `blocks` (a run's blocks, read ahead), `source` (one sorted input), `merge` (many of them).
//!
//! Known limits: a step back in a run reads up to 8 entries; turning round places every source anew.

mod blocks;
mod merge;
mod source;

pub(super) use merge::Merge;
pub(super) use source::Source;

use crate::Result;

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
    /// Stands on the first row.
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

    /// Goes on to the next row. At the end it stands nowhere, until the next seek.
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

    /// Goes back to the row before. At the beginning it stands nowhere, until the next seek.
    ///
    /// # Errors
    /// Those of reading a run.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, RowBatch, Spine};
    /// # let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// # let mut rows = RowBatch::new();
    /// # rows.push(b"a", b"1", 1);
    /// # rows.push(b"b", b"2", 1);
    /// # spine.insert_batch(&rows)?;
    /// let mut cursor = spine.cursor()?;
    /// cursor.seek(b"b")?;
    /// cursor.prev()?;
    /// assert_eq!(cursor.key(), b"a");
    /// cursor.prev()?;
    /// assert!(!cursor.valid());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn prev(&mut self) -> Result<()> {
        self.merge.prev()
    }

    /// Goes to the last row.
    ///
    /// # Errors
    /// Those of reading a run.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, RowBatch, Spine};
    /// # let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// # let mut rows = RowBatch::new();
    /// # rows.push(b"a", b"1", 1);
    /// # rows.push(b"b", b"2", 1);
    /// # spine.insert_batch(&rows)?;
    /// let mut cursor = spine.cursor()?;
    /// cursor.seek_last()?;
    /// assert_eq!(cursor.key(), b"b");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn seek_last(&mut self) -> Result<()> {
        self.merge.seek_last()
    }

    /// Goes to the last row whose key is at most `key`: in a weighted spine, of that key's rows the one with the greatest value.
    ///
    /// # Errors
    /// Those of reading a run.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, RowBatch, Spine};
    /// # let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// # let mut rows = RowBatch::new();
    /// # rows.push(b"b", b"1", 1);
    /// # rows.push(b"b", b"2", 1);
    /// # spine.insert_batch(&rows)?;
    /// let mut cursor = spine.cursor()?;
    /// cursor.seek_for_prev(b"bb")?;
    /// assert_eq!(cursor.value(), b"2");
    /// cursor.seek_for_prev(b"a")?;
    /// assert!(!cursor.valid());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        self.merge.seek_for_prev(key)
    }
}
