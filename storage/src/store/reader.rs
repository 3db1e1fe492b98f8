//! Reading a checkpoint or savepoint without opening its store: for queries and exports beside the process that writes, or after it.
//!
//! Invariants:
//! 1. Nothing is written and no lock is taken.
//! 2. What is read is one manifest's state. Its run files are open from the beginning, so that their removal does not matter; if
//!    one goes between the reading of the manifest and its opening, a newer manifest is there, and is taken in its place.
//! 3. Damage is an error. Falling back to an older checkpoint is left to [`Store::open`](crate::Store::open), which can replay.
//!
//! Known limits: the log is not read, so that what was done after the checkpoint is not there. Opening reads the indexes of all runs
//! (about 2 MB a GB).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::layout::Layout;
use super::{is_absent, refuse_unfinished};
use crate::checkpoint::recover::{check_run_file, survey};
use crate::checkpoint::{Manifest, savepoint};
use crate::disk::Disk;
use crate::log::Seq;
use crate::spine::{Snapshot, Spine, SpineContext, SpineOptions};
use crate::{Error, Result};

/// How often a newer checkpoint is taken in the place of one whose files went away meanwhile.
const TRIES: usize = 10;

/// The state that a checkpoint or savepoint names, to be read only. Any number of processes may read at a time, beside
/// the one that has the store open.
///
/// ```
/// use backstay_storage::spine::{Discipline, RowBatch};
/// use backstay_storage::{Checkpoint, Store, StoreOptions, StoreReader, disk};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
/// let mut totals = store.spine("totals", Discipline::Weighted, 1)?;
/// let mut rows = RowBatch::new();
/// rows.push(b"apple", b"", 2);
/// totals.insert_batch(&rows)?;
/// store.checkpoint(Checkpoint { frozen: vec![totals.snapshot()], blob: "step 7".into(), ..Checkpoint::default() })?;
///
/// let reader = StoreReader::newest(&disk::system(), dir.path(), 16 << 20)?.expect("a checkpoint"); // from any process
/// assert_eq!(&reader.blob()[..], b"step 7");
/// let cursor = reader.spine("totals").expect("it was in the checkpoint").cursor()?;
/// assert_eq!((cursor.key(), cursor.weight()), (&b"apple"[..], 2));
/// # Ok::<(), backstay_storage::Error>(())
/// ```
#[derive(Debug)]
pub struct StoreReader {
    manifest: Manifest,
    spines: BTreeMap<String, Snapshot>,
}

impl StoreReader {
    /// The newest checkpoint in `dir`; `None` if there is none yet. `cache_bytes` is what blocks in memory may take.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the newest checkpoint is; [`Error::Invalid`] for an unfinished copy; what cannot be read.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, StoreReader, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// assert!(StoreReader::newest(&disk::system(), dir.path(), 1 << 20)?.is_none());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn newest(disk: &Arc<dyn Disk>, dir: &Path, cache_bytes: u64) -> Result<Option<Self>> {
        let layout = Layout::new(dir);
        disk.list(dir)?;
        refuse_unfinished(&**disk, &layout)?;
        let mut tries = 1;
        loop {
            let Some(newest) = survey(&**disk, &layout)?.manifests.pop() else { return Ok(None) };
            match newest.manifest.and_then(|manifest| Self::open(disk, &layout, manifest, cache_bytes)) {
                Ok(reader) => return Ok(Some(reader)),
                Err(error) => {
                    let file = layout.checkpoints.join(&newest.name);
                    if tries == TRIES || disk.metadata(&file)?.is_some() {
                        return Err(error);
                    }
                    tries += 1;
                }
            }
        }
    }

    /// The savepoint of this name in `dir`. `cache_bytes` is what blocks in memory may take.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is none; otherwise as [`StoreReader::newest`].
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, StoreReader, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// store.checkpoint(Default::default())?;
    /// store.savepoint("tuesday")?;
    /// assert_eq!(StoreReader::savepoint(&disk::system(), dir.path(), "tuesday", 1 << 20)?.number(), 1);
    /// assert!(StoreReader::savepoint(&disk::system(), dir.path(), "monday", 1 << 20).is_err());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn savepoint(disk: &Arc<dyn Disk>, dir: &Path, name: &str, cache_bytes: u64) -> Result<Self> {
        savepoint::check_name(name)?;
        let layout = Layout::new(dir);
        refuse_unfinished(&**disk, &layout)?;
        let manifest =
            savepoint::read_named(&**disk, &layout.savepoints, name, None).map_err(|e| match is_absent(&e) {
                true => Error::Invalid(format!("there is no savepoint {name:?} in {}", dir.display())),
                false => e,
            })?;
        Self::open(disk, &layout, manifest, cache_bytes)
    }

    fn open(disk: &Arc<dyn Disk>, layout: &Layout, manifest: Manifest, cache_bytes: u64) -> Result<Self> {
        let options =
            SpineOptions { memory_bytes: cache_bytes, cache_bytes: Some(cache_bytes), ..SpineOptions::default() };
        let context = SpineContext::new(Arc::clone(disk), &layout.runs, manifest.store_id, options);
        let mut spines = BTreeMap::new();
        for meta in &manifest.spines {
            for run in &meta.runs {
                check_run_file(&**disk, layout, run)?;
            }
            let mut spine = Spine::open(Arc::clone(&context), meta.clone())?;
            spines.insert(meta.name.clone(), spine.snapshot());
        }
        Ok(Self { manifest, spines })
    }

    /// The embedder's own bytes, as [`Checkpoint::blob`](crate::Checkpoint::blob) gave them.
    ///
    /// ```
    /// # use backstay_storage::{Checkpoint, Store, StoreOptions, StoreReader, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// store.checkpoint(Checkpoint { blob: "step 7".into(), ..Checkpoint::default() })?;
    /// let reader = StoreReader::newest(&disk::system(), dir.path(), 1 << 20)?.expect("a checkpoint");
    /// assert_eq!(&reader.blob()[..], b"step 7");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn blob(&self) -> &Bytes {
        &self.manifest.blob
    }

    /// The checkpoint's number.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, StoreReader, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// store.checkpoint(Default::default())?;
    /// let reader = StoreReader::newest(&disk::system(), dir.path(), 1 << 20)?.expect("a checkpoint");
    /// assert_eq!(reader.number(), 1);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn number(&self) -> u64 {
        self.manifest.number
    }

    /// The first log record that is not in this state.
    ///
    /// ```
    /// # use backstay_storage::{Checkpoint, Store, StoreOptions, StoreReader, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// store.log().append(b"one")?;
    /// store.log().commit()?;
    /// store.checkpoint(Checkpoint { log_from: 2, ..Checkpoint::default() })?;
    /// let reader = StoreReader::newest(&disk::system(), dir.path(), 1 << 20)?.expect("a checkpoint");
    /// assert_eq!(reader.log_from(), 2);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn log_from(&self) -> Seq {
        self.manifest.log_from
    }

    /// The names of the spines, sorted.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, StoreReader, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// store.checkpoint(Default::default())?;
    /// let reader = StoreReader::newest(&disk::system(), dir.path(), 1 << 20)?.expect("a checkpoint");
    /// assert_eq!(reader.spine_names().count(), 0);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn spine_names(&self) -> impl Iterator<Item = &str> {
        self.spines.keys().map(String::as_str)
    }

    /// A spine's state; `None` if the checkpoint has none of this name.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, StoreReader, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// store.checkpoint(Default::default())?;
    /// let reader = StoreReader::newest(&disk::system(), dir.path(), 1 << 20)?.expect("a checkpoint");
    /// assert!(reader.spine("totals").is_none());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn spine(&self, name: &str) -> Option<&Snapshot> {
        self.spines.get(name)
    }
}
