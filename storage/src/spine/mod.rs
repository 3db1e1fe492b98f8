//! Spines: the state of operators, as sorted `(key, value) → weight` rows.
//!
//! ```text
//!            insert_batch                      freeze                    flush, install
//!  rows ──────────────────▶ active memtable ──────────▶ frozen memtables ──────────────▶ runs on disk
//!                                  └───────── probe, cursor read all three, newest first ─────────┘
//! ```
//! A [`Spine`] has one owner, a worker thread, that inserts and reads. Freezing swaps in an empty memtable and waits for
//! nothing. A checkpointer then writes what was frozen with a [`RunFileWriter`], commits a manifest that names the
//! runs, and [installs](Flushed::install) them. The owner sees the same rows all the time.
//!
//! Invariants:
//! 1. What a read shows depends on the rows inserted only: not on freezes, flushes, merges, caches or reopening (invariant 8
//!    of the design).
//! 2. A row that was inserted is in the active memtable, or in exactly one frozen table or run of the current version.
//! 3. Damage in a run is an error with file and offset; it never shows as wrong or missing rows (invariant 7).
//!
//! Parts: [`RowBatch`] columns (`batch`), `memtable`, `version` (the shared, immutable part), run files ([`mod@format`],
//! `filter`, `run`, `writer`), `policy` (which runs are merged), `cursor`, `probe`, `context` (disk, files, cache).
//!
//! Known limits: between two checkpoints all inserted rows stay in memory ([`SpineStats::memtable_bytes`] tells when to
//! take one); merges are not fuelled yet, but done whole by a flush; indexes of open runs stay in memory; a row has
//! at most [`MAX_ROW_BYTES`].

mod batch;
mod context;
mod cursor;
mod extent;
mod filter;
pub mod format;
mod memtable;
mod meta;
mod policy;
mod probe;
mod run;
mod version;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::mem;
use std::sync::Arc;

pub use batch::{KeyBatch, Probe, RowBatch};
pub use context::SpineContext;
pub use cursor::Cursor;
pub use meta::{RunMeta, SpineMeta, run_file_name};
pub use run::verify_run;
pub use version::{Flushed, FrozenSpine};
pub use writer::{RunFile, RunFileWriter};

use crate::{Error, Result};
use cursor::{Merge, Source};
use memtable::Memtable;
use run::{Keep, Run};
use version::{Frozen, Shared};

/// Bytes that key and value of a row may have together.
pub const MAX_ROW_BYTES: usize = 256 << 20;

/// How rows of one key relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discipline {
    /// Rows are (key, value) pairs; the weights of equal ones add, and a row of weight 0 is not there.
    Weighted,
    /// A key has one value: the last one written, or none after a delete.
    Latest,
}

impl Discipline {
    /// Its number in files.
    ///
    /// ```
    /// assert_eq!(backstay_storage::spine::Discipline::Weighted.as_u8(), 1);
    /// ```
    pub fn as_u8(self) -> u8 {
        match self {
            Self::Weighted => 1,
            Self::Latest => 2,
        }
    }

    /// The discipline with this number.
    ///
    /// ```
    /// use backstay_storage::spine::Discipline;
    /// assert_eq!(Discipline::from_u8(2), Some(Discipline::Latest));
    /// assert_eq!(Discipline::from_u8(0), None);
    /// ```
    pub fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Weighted),
            2 => Some(Self::Latest),
            _ => None,
        }
    }
}

impl fmt::Display for Discipline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weighted => "weighted",
            Self::Latest => "latest",
        })
    }
}

/// What a spine holds, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpineStats {
    /// Rows of the active memtable (in a weighted spine those of equal rows inserted apart count more than once).
    pub memtable_rows: u64,
    /// Memory of the active memtable, in bytes.
    pub memtable_bytes: u64,
    /// Frozen memtables that are not yet installed as a run.
    pub frozen_tables: usize,
    /// Their memory, in bytes.
    pub frozen_bytes: u64,
    /// Runs on disk.
    pub runs: usize,
    /// Their rows, tombstones and rows that a newer run cancels included.
    pub run_rows: u64,
    /// Their bytes on disk.
    pub run_bytes: u64,
    /// Memory of their indexes, in bytes.
    pub resident_bytes: u64,
}

/// The state of one operator on one worker. See the [module](self).
///
/// ```
/// use backstay_storage::spine::{Discipline, RowBatch, Spine};
/// let mut spine = Spine::ephemeral(Discipline::Latest);
/// let mut rows = RowBatch::new();
/// rows.push(b"k", b"old", 1);
/// rows.push(b"k", b"new", 1);
/// spine.insert_batch(&rows)?;
/// assert_eq!(spine.get(b"k")?.as_deref(), Some(&b"new"[..]));
/// # Ok::<(), backstay_storage::Error>(())
/// ```
#[derive(Debug)]
pub struct Spine {
    shared: Arc<Shared>,
    active: Memtable,
    /// How often it was frozen.
    freezes: u64,
}

impl Spine {
    /// A spine without a disk: it keeps everything in memory and is gone with the process.
    ///
    /// ```
    /// use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Weighted).stats().memtable_rows, 0);
    /// ```
    pub fn ephemeral(discipline: Discipline) -> Self {
        Self::with(Shared::new(&SpineMeta::empty("ephemeral", discipline, 0), None, Vec::new()))
    }

    /// Opens a spine from what a manifest says of it: reads and checks the footer and index of each run.
    /// Blocks and filters are read when they are needed.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Unsupported`], [`Error::Io`].
    ///
    /// ```
    /// # use backstay_storage::{disk::PosixDisk, spine::SpineContext};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let context = SpineContext::new(std::sync::Arc::new(PosixDisk::new()), dir.path(), 42, 1 << 20);
    /// use backstay_storage::spine::{Discipline, Spine, SpineMeta};
    /// let spine = Spine::open(context, SpineMeta::empty("sums", Discipline::Latest, 1))?;
    /// assert_eq!(spine.stats().runs, 0);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn open(context: Arc<SpineContext>, meta: SpineMeta) -> Result<Self> {
        let mut runs = Vec::with_capacity(meta.runs.len());
        for run in &meta.runs {
            runs.push(Arc::new(Run::open(&context, &meta, run.clone())?));
        }
        Ok(Self::with(Shared::new(&meta, Some(context), runs)))
    }

    fn with(shared: Arc<Shared>) -> Self {
        Self { active: Memtable::new(shared.discipline), shared, freezes: 0 }
    }

    /// The spine's name; `"ephemeral"` for an ephemeral one.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Weighted).name(), "ephemeral");
    /// ```
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// How rows of one key relate.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Latest).discipline(), Discipline::Latest);
    /// ```
    pub fn discipline(&self) -> Discipline {
        self.shared.discipline
    }

    /// Adds rows, in any order. Weighted: weights are added. Latest: in the order of the batch, a weight above 0 puts the
    /// value, any other deletes the key.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a row has more than [`MAX_ROW_BYTES`], or the memtable would have too many rows; nothing
    /// is added then.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, RowBatch, Spine};
    /// # let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// let mut rows = RowBatch::new();
    /// rows.push(b"k", b"v", 2);
    /// rows.push(b"k", b"v", -1);
    /// spine.insert_batch(&rows)?;
    /// assert_eq!(spine.cursor()?.weight(), 1);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn insert_batch(&mut self, batch: &RowBatch) -> Result<()> {
        // No row can be over the bound in a batch that is not: most are not looked at one by one.
        let over = |(key, value, _): (&[u8], &[u8], i64)| Some(key.len() + value.len()).filter(|&n| n > MAX_ROW_BYTES);
        if batch.bytes() > MAX_ROW_BYTES
            && let Some(len) = batch.iter().find_map(over)
        {
            let name = self.name();
            return Err(Error::Invalid(format!(
                "a row of {len} bytes for spine {name} is over the bound of {MAX_ROW_BYTES} bytes"
            )));
        }
        let version = self.shared.version();
        self.active.insert(batch, !version.frozen.is_empty() || !version.runs.is_empty())
    }

    /// Looks up keys, in any order, repeated or not. Weighted: every row of a key, values in byte order. Latest: at most one.
    ///
    /// # Errors
    /// Those of reading runs; [`Error::Invalid`] if there are more than `u32::MAX` keys or rows.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, KeyBatch, RowBatch, Spine};
    /// # let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// # let mut rows = RowBatch::new();
    /// # rows.push(b"k", b"v", 1);
    /// # spine.insert_batch(&rows)?;
    /// let mut keys = KeyBatch::new();
    /// keys.push(b"k");
    /// let found = spine.probe(&keys)?;
    /// assert_eq!((found.rows.value(0), found.offsets), (&b"v"[..], vec![0, 1]));
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn probe(&mut self, keys: &KeyBatch) -> Result<Probe> {
        self.with_sources(|sources| probe::probe(sources, keys))
    }

    fn with_sources<T>(&self, ask: impl FnOnce(&probe::Sources<'_>) -> Result<T>) -> Result<T> {
        let version = self.shared.version();
        let frozen = version.frozen.iter().map(|frozen| &frozen.table);
        ask(&probe::Sources {
            discipline: self.shared.discipline,
            tables: std::iter::once(&self.active).chain(frozen).collect(),
            runs: &version.runs,
            context: self.shared.context.as_ref(),
        })
    }

    /// Looks up whole rows, in any order, repeated or not: the weight of each, 0 if it is not there (in a latest spine 1 if the key has
    /// that value). The weights in `rows` play no part. It is cheaper than a probe of their keys where these have many rows: filters
    /// of whole rows tell which runs do not have one.
    ///
    /// # Errors
    /// Those of reading runs; [`Error::Invalid`] if there are more than `u32::MAX` rows.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, RowBatch, Spine};
    /// # let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// # let mut rows = RowBatch::new();
    /// # rows.push(b"k", b"v", 2);
    /// # spine.insert_batch(&rows)?;
    /// let mut asked = RowBatch::new();
    /// asked.push(b"k", b"v", 0);
    /// asked.push(b"k", b"w", 0);
    /// assert_eq!(spine.probe_rows(&asked)?, [2, 0]);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn probe_rows(&mut self, rows: &RowBatch) -> Result<Vec<i64>> {
        self.with_sources(|sources| probe::probe_rows(sources, rows))
    }

    /// The value of one key (in a weighted spine the smallest). Many keys are faster with [`Spine::probe`].
    ///
    /// # Errors
    /// Those of reading runs.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Latest).get(b"k")?, None);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut keys = KeyBatch::new();
        keys.push(key);
        let found = self.probe(&keys)?;
        Ok((!found.rows.is_empty()).then(|| found.rows.value(0).to_vec()))
    }

    /// A walk over all rows as they are now, standing on the first one.
    ///
    /// # Errors
    /// Those of reading runs.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert!(!Spine::ephemeral(Discipline::Latest).cursor()?.valid());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn cursor(&self) -> Result<Cursor> {
        let version = self.shared.version();
        let frozen = version.frozen.iter().flat_map(|frozen| frozen.table.sorted());
        let mut sources: Vec<_> = self.active.sorted().into_iter().chain(frozen).map(Source::memory).collect();
        if let Some(context) = &self.shared.context {
            let runs = version.runs.iter();
            sources.extend(runs.map(|run| Source::run(Arc::clone(context), Arc::clone(run), Keep::Cached)));
        }
        Cursor::new(Merge::new(self.shared.discipline, false, sources))
    }

    /// Freezes what was inserted so far, for a checkpoint, and goes on with an empty memtable. Waits for nothing, and
    /// reads go on seeing the frozen rows. An ephemeral spine is left as it is.
    ///
    /// The example is at [`RunFileWriter`].
    pub fn freeze(&mut self) -> FrozenSpine {
        if self.shared.context.is_some() && !self.active.is_empty() {
            self.freezes += 1;
            let table = mem::replace(&mut self.active, Memtable::new(self.shared.discipline));
            self.shared.freeze(Frozen { number: self.freezes, table });
        }
        FrozenSpine::new(Arc::clone(&self.shared), self.freezes)
    }

    /// What it holds, and where.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, RowBatch, Spine};
    /// # let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// let mut rows = RowBatch::new();
    /// rows.push(b"k", b"v", 2);
    /// spine.insert_batch(&rows)?;
    /// assert_eq!(spine.stats().memtable_rows, 1);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn stats(&self) -> SpineStats {
        let version = self.shared.version();
        let runs = || version.runs.iter();
        SpineStats {
            memtable_rows: self.active.rows() as u64,
            memtable_bytes: self.active.bytes() as u64,
            frozen_tables: version.frozen.len(),
            frozen_bytes: version.frozen.iter().map(|frozen| frozen.table.bytes() as u64).sum(),
            runs: version.runs.len(),
            run_rows: runs().map(|run| run.meta.rows).sum(),
            run_bytes: runs().map(|run| run.meta.len).sum(),
            resident_bytes: runs().map(|run| run.resident_bytes() as u64).sum(),
        }
    }
}
