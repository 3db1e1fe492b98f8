//! Spines: the state of operators, as sorted `(key, value) → weight` rows.
//!
//! ```text
//!            insert_batch                      freeze                     write, install
//!  rows ──────────────────▶ active memtable ──────────▶ frozen memtables ──────────────▶ runs on disk ⟲ merge
//!                                  └───────── probe, cursor read all three, newest first ─────────┘
//! ```
//! A [`Spine`] has one owner, a worker thread, that inserts and reads. Freezing swaps in an empty memtable and waits for
//! nothing: [`Spine::snapshot`] does it, and an insert that finds memory short. What is frozen is written beside the steps, for
//! want of memory or by a checkpoint, which takes a [`Snapshot`], writes what of it is not on disk yet with a [`RunFileWriter`], and
//! commits a manifest that names the runs. Runs are merged beside the steps, too. The owner sees the same rows all the time.
//!
//! Invariants:
//! 1. What a read shows depends on the rows inserted only: not on freezes, flushes, merges, caches or reopening (invariant 8
//!    of the design).
//! 2. A row that was inserted is in the active memtable, or in exactly one frozen table or run of the current version.
//! 3. Damage in a run is an error with file and offset; it never shows as wrong or missing rows (invariant 7).
//!
//! Parts: [`RowBatch`] columns (`batch`), `memtable`, `version` (the shared, immutable part), `snapshot`, run files
//! ([`mod@format`], `extent`, `filter`, `run`, `writer`), `policy` (which runs are merged), `merger` (writing and merging beside the
//! steps), `memory` (the books of memtables), `bell` (what they wait for), `floor` (rows that are hidden and dropped), `cursor`, `probe`, `read`, `context` (disk, files, cache).
//!
//! Known limits: a memtable of a latest spine is sorted in one go when it is written; indexes of open runs stay in memory; a row has at
//! most [`MAX_ROW_BYTES`].

mod batch;
mod bell;
mod context;
mod cursor;
mod extent;
mod filter;
mod floor;
pub mod format;
mod memory;
mod memtable;
mod merger;
mod meta;
mod policy;
mod probe;
mod read;
mod run;
mod snapshot;
mod version;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::mem;
use std::sync::Arc;

pub use batch::{KeyBatch, Probe, RowBatch};
pub use context::{SpineContext, SpineOptions};
pub use cursor::Cursor;
pub use floor::Floor;
pub(crate) use merger::Mergers;
pub use meta::{CUT_KEY, RunMeta, SpineMeta, cut_key, run_file_name};
pub use run::verify_run;
pub use snapshot::Snapshot;
pub use writer::{Flushed, RunFile, RunFileWriter};

use crate::{Error, Result};
use memory::{Held, Pressure};
use memtable::Memtable;
use run::Run;
use version::{Frozen, Shared};

/// Bytes that key and value of a row may have together.
pub const MAX_ROW_BYTES: usize = 256 << 20;

/// From so many frozen tables on, the oldest is written though memory is not short: each is one more to look into.
const MANY_TABLES: usize = 8;

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
    /// Frozen memtables that are not on disk yet.
    pub frozen_tables: usize,
    /// Their rows, counted as those of the active one.
    pub frozen_rows: u64,
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
    /// Its bytes in the memory's books; `None` for an ephemeral spine.
    held: Option<Held>,
    /// How often it was frozen.
    freezes: u64,
}

impl Drop for Spine {
    fn drop(&mut self) {
        if let Some(context) = &self.shared.context {
            self.shared.close();
            context.merger().forget(&self.shared);
        }
    }
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
    /// # let options = backstay_storage::spine::SpineOptions::default();
    /// # let context = SpineContext::new(std::sync::Arc::new(PosixDisk::new()), dir.path(), 42, options);
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
        let spine = Self::with(Shared::new(&meta, Some(context), runs));
        spine.shared.plan();
        Ok(spine)
    }

    fn with(shared: Arc<Shared>) -> Self {
        let held = shared.context.as_ref().map(|context| Held::new(context.memory()));
        Self { active: Memtable::new(shared.discipline), held, shared, freezes: 0 }
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
    /// [`Error::Invalid`] if a row has more than [`MAX_ROW_BYTES`], the memtable would have too many rows, or the store was dropped; nothing
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
        self.shared.context.as_ref().map_or(Ok(()), |context| context.merger().check(&self.shared.name))?;
        let version = self.shared.version();
        self.active.insert(batch, !version.is_empty())?;
        // What is merged at rest is not what comes too fast.
        let (tables, runs) = (version.tables.len(), version.runs.len().saturating_sub(self.shared.resting()));
        // Or its tables would stay in memory while their end is waited for.
        drop(version);
        let shared = Arc::clone(&self.shared);
        let (Some(context), Some(held)) = (&shared.context, &mut self.held) else { return Ok(()) };
        held.set(self.active.bytes() as u64);
        let due = held.is_due();
        if due {
            self.freeze();
        }
        // Snapshots leave tables, too.
        let short = context.memory().pressure() != Pressure::None && tables > 0;
        if due || short || tables > MANY_TABLES {
            context.merger().spill(&shared);
        }
        context.merger().inserted(context, batch.bytes() as u64, runs)
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
        read::probe(&self.shared, Some(&self.active), &self.shared.version(), keys)
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
        read::probe_rows(&self.shared, Some(&self.active), &self.shared.version(), rows)
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
        read::get(&self.shared, Some(&self.active), &self.shared.version(), key)
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
        read::cursor(&self.shared, Some(&self.active), &self.shared.version())
    }

    /// The state of now, to be read elsewhere or to be given to a checkpoint. Waits for nothing, and costs the swap of a memtable (an
    /// ephemeral spine's is copied).
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, RowBatch, Spine};
    /// # let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// let snapshot = spine.snapshot();
    /// # let mut rows = RowBatch::new();
    /// # rows.push(b"k", b"v", 2);
    /// spine.insert_batch(&rows)?;
    /// assert!(!snapshot.cursor()?.valid(), "nothing was in it then");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn snapshot(&mut self) -> Snapshot {
        let shared = Arc::clone(&self.shared);
        if shared.context.is_none() {
            return Snapshot::of_memory(shared, self.active.clone());
        }
        self.freeze();
        Snapshot::new(shared, self.freezes)
    }

    /// Hides rows from now on: reads do not show them, and merges leave them out in time. It can only be raised. It is not in a
    /// checkpoint: an embedder keeps it in the blob, and raises it anew before it reads what it recovered; until then rows may show of
    /// which others are gone. Snapshots keep the floor that they were taken with.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it does not hide all that was hidden before.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Floor, RowBatch, Spine};
    /// # let mut spine = Spine::ephemeral(Discipline::Weighted);
    /// # let mut rows = RowBatch::new();
    /// rows.push(b"2026-11-23", b"a row of yesterday", 1);
    /// rows.push(b"2026-11-24", b"a row of today", 1);
    /// spine.insert_batch(&rows)?;
    /// spine.raise_floor(Floor { skip: 0, below: b"2026-11-24".to_vec() })?;
    /// assert_eq!(spine.cursor()?.value(), b"a row of today");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn raise_floor(&mut self, floor: Floor) -> Result<()> {
        self.shared.raise(floor)?;
        if self.shared.drop_hidden() {
            self.shared.plan();
        }
        Ok(())
    }

    /// Goes on with an empty memtable.
    fn freeze(&mut self) {
        if !self.active.is_empty() {
            self.freezes += 1;
            let next = self.active.successor();
            let table = mem::replace(&mut self.active, next);
            let held = self.held.as_mut().map(Held::split);
            self.shared.freeze(Frozen { number: self.freezes, table, _held: held });
        }
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
            frozen_tables: version.tables.len(),
            frozen_rows: version.tables.iter().map(|frozen| frozen.table.rows() as u64).sum(),
            frozen_bytes: version.tables.iter().map(|frozen| frozen.table.bytes() as u64).sum(),
            runs: version.runs.len(),
            run_rows: runs().map(|run| run.meta.rows).sum(),
            run_bytes: runs().map(|run| run.meta.len).sum(),
            resident_bytes: runs().map(|run| run.resident_bytes() as u64).sum(),
        }
    }
}
