//! A spine's state at one moment, that others read or write out while the spine goes on.

use std::sync::Arc;

use super::context::SpineContext;
use super::memtable::Memtable;
use super::version::{Frozen, Pin, Place, Shared, Version};
use super::{Cursor, Discipline, KeyBatch, Probe, read};
use crate::{Error, Result};

/// A spine's state at the moment it was taken: whatever the owner does afterwards is not in it. It can be read on any thread,
/// and be given to a checkpoint. Taking one costs the swap of a memtable, whatever the state's size.
///
/// It keeps the rows that were in memory there, and the run files that it reads, until it is dropped.
///
/// ```
/// use backstay_storage::spine::{Discipline, RowBatch, Spine};
/// let mut spine = Spine::ephemeral(Discipline::Latest);
/// let mut rows = RowBatch::new();
/// rows.push(b"k", b"then", 1);
/// spine.insert_batch(&rows)?;
/// let snapshot = spine.snapshot();
/// rows.clear();
/// rows.push(b"k", b"now", 1);
/// spine.insert_batch(&rows)?;
/// let reader = std::thread::spawn(move || snapshot.get(b"k"));
/// assert_eq!(reader.join().unwrap()?.as_deref(), Some(&b"then"[..]));
/// assert_eq!(spine.get(b"k")?.as_deref(), Some(&b"now"[..]));
/// # Ok::<(), backstay_storage::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) shared: Arc<Shared>,
    version: Arc<Version>,
    pub(super) pin: Arc<Pin>,
}

impl Snapshot {
    pub(super) fn new(shared: Arc<Shared>, up_to: u64) -> Self {
        let (version, pin) = shared.pin(up_to);
        Self { shared, version, pin }
    }

    /// Of an ephemeral spine, which has a copy of what it holds.
    pub(super) fn of_memory(shared: Arc<Shared>, table: Memtable) -> Self {
        let tables = vec![Arc::new(Frozen { number: 0, table, _held: None })];
        let floor = shared.version().floor.clone();
        let version = Arc::new(Version { tables, floor, ..Version::default() });
        Self { shared, version, pin: Arc::default() }
    }

    /// The spine's name.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Weighted).snapshot().name(), "ephemeral");
    /// ```
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Which rows it holds.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Weighted).snapshot().discipline(), Discipline::Weighted);
    /// ```
    pub fn discipline(&self) -> Discipline {
        self.shared.discipline
    }

    /// The embedder's row format number.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Weighted).snapshot().format(), 0);
    /// ```
    pub fn format(&self) -> u32 {
        self.shared.format
    }

    /// Whether it is of an ephemeral spine, which no checkpoint takes.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert!(Spine::ephemeral(Discipline::Weighted).snapshot().is_ephemeral());
    /// ```
    pub fn is_ephemeral(&self) -> bool {
        self.shared.context.is_none()
    }

    /// Looks up keys, as [`Spine::probe`](super::Spine::probe) did then.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, KeyBatch, Spine};
    /// let mut keys = KeyBatch::new();
    /// keys.push(b"k");
    /// assert!(Spine::ephemeral(Discipline::Weighted).snapshot().probe(&keys)?.rows.is_empty());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn probe(&self, keys: &KeyBatch) -> Result<Probe> {
        read::probe(&self.shared, None, &self.version, keys)
    }

    /// The first value of a key, as [`Spine::get`](super::Spine::get) did then.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Weighted).snapshot().get(b"k")?, None);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        read::get(&self.shared, None, &self.version, key)
    }

    /// A cursor over its rows.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert!(!Spine::ephemeral(Discipline::Weighted).snapshot().cursor()?.valid());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn cursor(&self) -> Result<Cursor> {
        read::cursor(&self.shared, None, &self.version)
    }

    /// Whether it can be written with `context`: not if it is ephemeral, of another store, or if rows of it were written
    /// together with later ones.
    pub(crate) fn check(&self, context: &Arc<SpineContext>) -> Result<()> {
        let name = self.name();
        if !Arc::ptr_eq(self.shared.context()?, context) {
            return Err(Error::Invalid(format!("spine {name:?} is of another store than the run file")));
        }
        match self.shared.find(&self.pin) {
            Place::Passed => Err(self.passed()),
            _ => Ok(()),
        }
    }

    pub(super) fn passed(&self) -> Error {
        Error::Invalid(format!(
            "spine {:?} was frozen before the state that was flushed last: checkpoints are taken in the order of their \
             snapshots",
            self.name()
        ))
    }
}
