//! The store: one directory that holds a log, spines and the checkpoints that tie them together.
//!
//! Invariants:
//! 1. One opener at a time, by the directory's lock; each opening has an epoch of its own, larger than all before it.
//! 2. After the first failed write, sync, creation, rename or removal, in log, runs or manifests, every call that would
//!    write answers [`Error::Poisoned`] until the store is opened anew (invariant 6 of the design).
//! 3. What a checkpoint says is there when it is opened, or the opening falls back to an older checkpoint and says so,
//!    or it fails: it never goes on with less (invariant 7).
//! 4. What a savepoint names stays until it is removed by name; a savepoint that is damaged never keeps the store from
//!    opening (`savepoint`), and a copy of one opens only when it is whole (`copy`).
//!
//! Known limits: the directory's lock is advisory. Checkpoints are taken one at a time.

mod checkpointing;
mod copy;
mod fence;
mod layout;
mod open;
mod options;
mod reader;
mod savepoint;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::checkpoint::name::{FileName, MANIFEST, file_name, kind_is_valid};
use crate::checkpoint::{ExtraMeta, Manifest, Recovered, extra};
use crate::disk::Disk;
use crate::log::{Log, Seq};
use crate::spine::{Discipline, Mergers, Spine, SpineContext, SpineMeta};
use crate::{Error, Result};
pub(crate) use copy::refuse_unfinished;
pub use copy::{SavepointCopy, copy_savepoint};
use fence::Fence;
pub(crate) use fence::is_absent;
pub(crate) use layout::Layout;
pub use options::{StoreOptions, StoreStats};
pub use reader::StoreReader;
pub use savepoint::SavepointInfo;
use savepoint::Savepoints;

/// One directory: lock, epoch, log, spines, checkpoints. Shared between threads in an `Arc`.
///
/// The directory's lock is held until the store *and* everything that came from it (the log, the spines, their frozen
/// states and cursors) are dropped.
///
/// ```
/// use backstay_storage::{Store, StoreOptions, disk};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(disk::system(), dir.path(), StoreOptions { new_id: 7, ..StoreOptions::default() })?;
/// assert_eq!(store.epoch(), 1);
/// assert!(store.recovered().is_none(), "it is new");
/// store.log().append(b"one")?;
/// store.log().commit()?;
/// # Ok::<(), backstay_storage::Error>(())
/// ```
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    fence: Arc<Fence>,
    layout: Layout,
    keep: usize,
    id: u128,
    epoch: u64,
    recovered: Option<Recovered>,
    log: Arc<Log>,
    /// Ends the threads beside the steps when the store is dropped.
    _mergers: Option<Mergers>,
    context: Arc<SpineContext>,
    /// Discipline and row format of the recovered checkpoint's spines.
    formats: BTreeMap<String, (Discipline, u32)>,
    spines: Mutex<Spines>,
    /// Held for the whole of a checkpoint: one at a time.
    history: Mutex<History>,
    /// Held for moments only.
    extras: Mutex<Extras>,
    /// Held for moments only.
    savepoints: Mutex<Savepoints>,
    counters: Counters,
}

/// Which spines are out.
#[derive(Debug)]
struct Spines {
    /// Opened with the store and not yet asked for.
    waiting: BTreeMap<String, Spine>,
    /// Handed out.
    out: BTreeSet<String>,
}

/// The checkpoints on disk.
#[derive(Debug)]
struct History {
    /// Sound ones, oldest first.
    kept: Vec<Manifest>,
    /// File names of manifests that are damaged, or name what is: put aside at the next checkpoint.
    damaged: Vec<String>,
    /// The number of the next checkpoint.
    next_number: u64,
}

impl History {
    /// The first log record that any of the kept checkpoints needs; they may need it in any order.
    fn log_from(&self) -> Option<Seq> {
        self.kept.iter().map(|m| m.log_from).min()
    }
}

/// The extra files that must stay.
#[derive(Debug)]
struct Extras {
    next_number: u64,
    /// Written in this epoch and named by no manifest yet; no metadata while it is being written.
    unnamed: BTreeMap<String, Option<ExtraMeta>>,
    /// Named by a kept manifest or a savepoint.
    named: BTreeMap<String, ExtraMeta>,
}

#[derive(Debug, Default)]
struct Counters {
    checkpoints: AtomicU64,
    checkpoint_bytes: AtomicU64,
    removed_files: AtomicU64,
    newest: AtomicU64,
    kept: AtomicU64,
}

/// Locks, ignoring that another thread may have panicked while it held the lock: what such locks guard here is changed
/// in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// The store's identity, given at its creation.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions { new_id: 7, ..StoreOptions::default() })?;
    /// assert_eq!(store.id(), 7);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn id(&self) -> u128 {
        self.id
    }

    /// Counts the openings of this store: larger than that of any opening before that left a trace on disk.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let open = || Store::open(disk::system(), dir.path(), StoreOptions::default());
    /// let first = open()?.epoch();
    /// assert!(open()?.epoch() > first);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The directory it was opened in.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// assert_eq!(store.dir(), dir.path());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn dir(&self) -> &Path {
        &self.layout.root
    }

    /// The checkpoint it was opened from; `None` if there was none yet.
    ///
    /// ```
    /// # use backstay_storage::{Checkpoint, Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let open = || Store::open(disk::system(), dir.path(), StoreOptions::default());
    /// open()?.checkpoint(Checkpoint { blob: "state".into(), ..Checkpoint::default() })?;
    /// let store = open()?;
    /// let recovered = store.recovered().expect("a checkpoint");
    /// assert_eq!(&recovered.blob[..], b"state");
    /// assert!(recovered.warnings.is_empty());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn recovered(&self) -> Option<&Recovered> {
        self.recovered.as_ref()
    }

    /// The store's log.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// let seq = store.log().append(b"a record")?;
    /// store.log().wait_durable(seq)?;
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Hands out a spine as the recovered checkpoint has it, or an empty one if that has none of this name. Each name
    /// once: a spine has one owner.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the checkpoint has it with another discipline or row format; [`Error::Invalid`] if it
    /// is out already.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk, spine::{Discipline, RowBatch}};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// let mut totals = store.spine("totals", Discipline::Latest, 1)?;
    /// let mut rows = RowBatch::new();
    /// rows.push(b"key", b"value", 1);
    /// totals.insert_batch(&rows)?;
    /// assert!(store.spine("totals", Discipline::Latest, 1).is_err(), "one owner");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn spine(&self, name: &str, discipline: Discipline, format: u32) -> Result<Spine> {
        self.fence.check()?;
        let mut spines = lock(&self.spines);
        if spines.out.contains(name) {
            return Err(Error::Invalid(format!("spine {name:?} is open already: a spine has one owner")));
        }
        let asked = (discipline, format);
        if let Some(found) = self.formats.get(name).copied().filter(|found| *found != asked) {
            let show = |(d, f): (Discipline, u32)| format!("{d} rows of format {f} for spine {name:?}");
            let (expected, got) = (show(asked), show(found));
            return Err(Error::Unsupported { path: self.recovered_manifest(), what: "row format", expected, got });
        }
        let spine = match spines.waiting.remove(name) {
            Some(spine) => spine,
            None => Spine::open(Arc::clone(&self.context), SpineMeta::empty(name, discipline, format))?,
        };
        spines.out.insert(name.to_owned());
        Ok(spine)
    }

    /// The names of the spines in the recovered checkpoint, sorted.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// assert!(store.spine_names().is_empty());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn spine_names(&self) -> Vec<String> {
        self.formats.keys().cloned().collect()
    }

    /// The manifest that the store was opened from, for error messages.
    fn recovered_manifest(&self) -> PathBuf {
        let name = self.recovered.as_ref().map(|r| file_name(r.epoch, r.number, MANIFEST));
        self.layout.checkpoints.join(name.unwrap_or_default())
    }

    /// Writes an extra file, durable on return, and gives its name. It stays until [`Store::discard_extra`], or, once a
    /// checkpoint has named it, as long as a kept checkpoint does. `kind` is the file's extension: 1 to 32 lower-case
    /// letters, digits or `_`.
    ///
    /// ```
    /// # use backstay_storage::{Checkpoint, Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// let name = store.write_extra("pending", b"not yet sent")?;
    /// assert_eq!(&store.read_extra(&name)?[..], b"not yet sent");
    /// store.checkpoint(Checkpoint { extras: vec![name], ..Checkpoint::default() })?;
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn write_extra(&self, kind: &str, bytes: &[u8]) -> Result<String> {
        self.fence.check()?;
        if !kind_is_valid(kind) {
            let said = format!(
                "{kind:?} is not a kind of extra file: 1 to 32 lower-case letters, digits or '_', and not a kind of the store's own"
            );
            return Err(Error::Invalid(said));
        }
        let number = {
            let mut extras = lock(&self.extras);
            let number = extras.next_number;
            extras.next_number += 1;
            // Known before it exists, so that a checkpoint on another thread does not take it for garbage.
            extras.unnamed.insert(FileName { epoch: self.epoch, number, kind }.to_string(), None);
            number
        };
        let name = FileName { epoch: self.epoch, number, kind };
        let meta = extra::write(&*self.disk, &self.layout.queue, self.id, &name, bytes)?;
        let name = meta.name.clone();
        lock(&self.extras).unnamed.insert(name.clone(), Some(meta));
        Ok(name)
    }

    /// Reads an extra file that was written in this epoch or is named by a kept checkpoint or a savepoint, checking all of it.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not what was written, which poisons the store (invariant 7 of the design);
    /// [`Error::Invalid`] if no such file is known.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// let e = store.read_extra("00000009-00000001.pending").unwrap_err();
    /// assert!(e.to_string().contains("no extra file"));
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn read_extra(&self, name: &str) -> Result<Bytes> {
        let meta = self.known_extra(name)?;
        extra::read(&*self.disk, &self.layout.queue, self.id, &meta).inspect_err(|e| {
            if matches!(e, Error::Damaged(_)) {
                self.fence.poison(e);
            }
        })
    }

    /// Gives up an extra file that no checkpoint has named yet: the next checkpoint removes it. One that is named by a
    /// checkpoint stays until the last checkpoint that names it is gone, whether or not this is called.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// let name = store.write_extra("pending", b"sent after all")?;
    /// store.discard_extra(&name);
    /// assert!(store.read_extra(&name).is_err());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn discard_extra(&self, name: &str) {
        lock(&self.extras).unnamed.remove(name);
    }

    fn known_extra(&self, name: &str) -> Result<ExtraMeta> {
        let extras = lock(&self.extras);
        let unnamed = extras.unnamed.get(name).and_then(Option::as_ref);
        unnamed.or_else(|| extras.named.get(name)).cloned().ok_or_else(|| {
            Error::Invalid(format!(
                "no extra file {name:?}: it was discarded, or no kept checkpoint and no savepoint names it"
            ))
        })
    }

    /// Makes the store refuse every write from now on, as after a failed one. For an embedder that has found something
    /// after which nothing more may become durable: damage, a replay that went differently. The first cause stays.
    ///
    /// ```
    /// # use backstay_storage::{Checkpoint, Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// store.poison("replay of step 7 went differently");
    /// assert_eq!(store.poisoned().as_deref(), Some("replay of step 7 went differently"));
    /// assert!(store.checkpoint(Checkpoint::default()).is_err());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn poison(&self, cause: impl std::fmt::Display) {
        self.fence.poison(cause.to_string());
    }

    /// Why the store refuses to write, if it does.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// assert_eq!(store.poisoned(), None);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn poisoned(&self) -> Option<String> {
        self.fence.cause().map(str::to_owned)
    }

    /// Figures since it was opened.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// assert_eq!(store.stats().checkpoints, 0);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            epoch: self.epoch,
            checkpoints: self.counters.checkpoints.load(Relaxed),
            newest_checkpoint: self.counters.newest.load(Relaxed),
            kept_checkpoints: self.counters.kept.load(Relaxed),
            checkpoint_bytes: self.counters.checkpoint_bytes.load(Relaxed),
            removed_files: self.counters.removed_files.load(Relaxed),
            merges: self.context.merges(),
            log_bytes: self.log.bytes(),
            disk: self.disk.stats(),
        }
    }
}
