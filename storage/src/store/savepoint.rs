//! Savepoints: checkpoints that stay, by name, until they are removed by name.
//!
//! A savepoint keeps what its checkpoint's own state consists of: the runs, the extra files and the blob. It does not keep
//! the log: that goes on being trimmed for the checkpoints, so that an old savepoint costs no log. It is used by copying it
//! ([`copy_savepoint`](crate::copy_savepoint)); the copy's log begins where the checkpoint's `log_from` stood.
//!
//! Invariants:
//! 1. A savepoint is there whole or not at all, and what it names stays as long as it is there (invariant 2 of the design).
//! 2. One that cannot be read never keeps the store from opening and is never removed unless it is asked for. As long as it
//!    is there, run and extra files of earlier epochs stay, whichever they are: it may name them. (It names none of this
//!    epoch: it was made before.)
//!
//! Known limits: the manifests of all savepoints are kept in memory. A file that a savepoint names is looked for at opening,
//! and read when it is copied or inspected, not before.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;

use super::{History, Layout, Store, lock};
use crate::checkpoint::name::FileName;
use crate::checkpoint::recover::check_run_file;
use crate::checkpoint::savepoint::{self, Found};
use crate::checkpoint::{Manifest, extra};
use crate::disk::Disk;
use crate::log::Seq;
use crate::sabotage::{Check, checked};
use crate::{Error, Result};

/// A savepoint of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavepointInfo {
    /// Its name.
    pub name: String,
    /// The number of the checkpoint that it keeps.
    pub number: u64,
    /// The epoch that the checkpoint was taken in.
    pub epoch: u64,
    /// The number that the first record behind the checkpoint's state had, and gets in a copy.
    pub log_from: Seq,
    /// The embedder's own bytes.
    pub blob: Bytes,
    /// The names of its extra files.
    pub extras: Vec<String>,
    /// Bytes of the runs and extra files that it names, those that checkpoints name too included.
    pub bytes: u64,
}

impl SavepointInfo {
    fn of(name: &str, manifest: &Manifest) -> Self {
        let runs = manifest.spines.iter().flat_map(|s| &s.runs).map(|r| r.len);
        Self {
            name: name.to_owned(),
            number: manifest.number,
            epoch: manifest.epoch,
            log_from: manifest.log_from,
            blob: manifest.blob.clone(),
            extras: manifest.extras.iter().map(|e| e.name.clone()).collect(),
            bytes: runs.chain(manifest.extras.iter().map(|e| e.len)).sum(),
        }
    }
}

/// The savepoints on disk.
#[derive(Debug, Default)]
pub(super) struct Savepoints {
    /// Those that can be read.
    pub sound: BTreeMap<String, Manifest>,
    /// What is wrong with those that cannot be, or that lack a file.
    warnings: BTreeMap<String, String>,
}

impl Savepoints {
    /// Takes what was found, and looks whether the files that it names are there.
    pub fn new(found: Vec<Found>, disk: &Arc<dyn Disk>, layout: &Layout) -> Self {
        let mut savepoints = Self::default();
        for Found { name, manifest, .. } in found {
            let path = layout.savepoints.join(savepoint::file_of(&name));
            match manifest {
                Ok(manifest) => {
                    if let Err(e) = look_for(disk, layout, &manifest) {
                        let said = format!("savepoint {name:?} ({}) is not whole: {e}", path.display());
                        savepoints.warnings.insert(name.clone(), said);
                    }
                    savepoints.sound.insert(name, manifest);
                }
                Err(e) => {
                    let said = format!(
                        "savepoint {name:?} cannot be read: {e}; until it is mended or removed, no run or extra file of an \
                         earlier epoch is removed"
                    );
                    savepoints.warnings.insert(name, said);
                }
            }
        }
        savepoints
    }

    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        self.warnings.values()
    }

    /// Whether there is one of which nobody knows what it names.
    fn any_unreadable(&self) -> bool {
        self.warnings.keys().any(|name| !self.sound.contains_key(name)) && checked(Check::SavepointSpare)
    }
}

/// Looks whether the files of a savepoint are there.
fn look_for(disk: &Arc<dyn Disk>, layout: &Layout, manifest: &Manifest) -> Result<()> {
    for run in manifest.spines.iter().flat_map(|s| &s.runs) {
        check_run_file(&**disk, layout, run)?;
    }
    manifest.extras.iter().try_for_each(|meta| extra::check(&**disk, &layout.queue, manifest.store_id, meta))
}

impl Store {
    /// Names the newest committed checkpoint, so that it stays until [`Store::remove_savepoint`]: its runs, its extra files
    /// and its blob, not the log behind it. On return that is durable. It may be called from any thread, and waits for a
    /// checkpoint that is being taken.
    ///
    /// A name has 1 to 64 lower-case letters, digits, `-` or `_`, the first a letter or digit.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is not one or is taken, or if there is no checkpoint yet, with nothing done;
    /// anything else poisons the store: the savepoint is there or not when it is opened again.
    ///
    /// ```
    /// # use backstay_storage::{Checkpoint, Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// store.checkpoint(Checkpoint { blob: "step 7".into(), ..Checkpoint::default() })?;
    /// let saved = store.savepoint("before-upgrade")?;
    /// assert_eq!((saved.number, &saved.blob[..]), (1, &b"step 7"[..]));
    /// assert!(store.savepoint("before-upgrade").is_err(), "a name stands for one thing");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn savepoint(&self, name: &str) -> Result<SavepointInfo> {
        savepoint::check_name(name)?;
        let history = self.lock_history()?;
        if self.knows_savepoint(name) {
            return Err(Error::Invalid(format!(
                "there is a savepoint {name:?} already; remove it, or take another name"
            )));
        }
        let Some(newest) = history.kept.last() else {
            return Err(Error::Invalid(format!("there is no checkpoint yet that savepoint {name:?} could keep")));
        };
        let manifest = Manifest { savepoint: Some(name.to_owned()), ..newest.clone() };
        savepoint::write(&*self.disk, &self.layout.savepoints, name, &manifest)?;
        let info = SavepointInfo::of(name, &manifest);
        lock(&self.savepoints).sound.insert(name.to_owned(), manifest);
        Ok(info)
    }

    /// Removes a savepoint, and then the files that nothing else names. Its removal is durable before that. One that cannot
    /// be read can be removed too.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is none of this name, with nothing done; anything else poisons the store.
    ///
    /// ```
    /// # use backstay_storage::{Checkpoint, Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// store.checkpoint(Checkpoint::default())?;
    /// store.savepoint("tuesday")?;
    /// store.remove_savepoint("tuesday")?;
    /// assert!(store.savepoints().is_empty());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn remove_savepoint(&self, name: &str) -> Result<()> {
        let mut history = self.lock_history()?;
        if !self.knows_savepoint(name) {
            return Err(Error::Invalid(format!("there is no savepoint {name:?}")));
        }
        self.drop_savepoint(name, &mut history).inspect_err(|e| self.fence.poison(e))
    }

    fn drop_savepoint(&self, name: &str, history: &mut History) -> Result<()> {
        savepoint::remove(&*self.disk, &self.layout.savepoints, name)?;
        {
            let mut savepoints = lock(&self.savepoints);
            savepoints.sound.remove(name);
            savepoints.warnings.remove(name);
        }
        // While a damaged checkpoint has its name, its files stay too: the next checkpoint clears up.
        if history.damaged.is_empty() {
            self.collect(history, None)?;
        }
        Ok(())
    }

    /// The savepoints that can be read, by name.
    ///
    /// ```
    /// # use backstay_storage::{Checkpoint, Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// store.checkpoint(Checkpoint::default())?;
    /// store.savepoint("b")?;
    /// store.savepoint("a")?;
    /// assert_eq!(store.savepoints().iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn savepoints(&self) -> Vec<SavepointInfo> {
        lock(&self.savepoints).sound.iter().map(|(name, manifest)| SavepointInfo::of(name, manifest)).collect()
    }

    /// What a person must hear of: savepoints that could not be read when the store was opened, or that lacked a file, each
    /// with what is wrong. They are among [`Recovered::warnings`](crate::Recovered::warnings) too, where there is a
    /// checkpoint. Empty in a sound store.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// assert!(store.savepoint_warnings().is_empty());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn savepoint_warnings(&self) -> Vec<String> {
        lock(&self.savepoints).warnings().cloned().collect()
    }

    fn knows_savepoint(&self, name: &str) -> bool {
        let savepoints = lock(&self.savepoints);
        savepoints.sound.contains_key(name) || savepoints.warnings.contains_key(name)
    }

    /// The run files that must stay for savepoints: those that they name, and those that an unreadable one may name.
    pub(super) fn saved_runs(&self) -> Result<Vec<String>> {
        let mut runs = Vec::new();
        if checked(Check::SavepointRuns) {
            let savepoints = lock(&self.savepoints);
            let named = savepoints.sound.values().flat_map(|m| &m.spines).flat_map(|s| &s.runs);
            runs.extend(named.map(|run| run.file.clone()));
        }
        if self.spares_old() {
            let there = self.disk.list(&self.layout.runs)?;
            runs.extend(there.into_iter().map(|e| e.name).filter(|name| self.is_old(name)));
        }
        Ok(runs)
    }

    /// Whether whatever earlier epochs have written must stay.
    pub(super) fn spares_old(&self) -> bool {
        lock(&self.savepoints).any_unreadable()
    }

    /// Whether a file's name was given in an earlier epoch.
    pub(super) fn is_old(&self, name: &str) -> bool {
        FileName::parse(name).is_some_and(|name| name.epoch < self.epoch)
    }

    /// Holds off checkpoints, savepoints and the clearing up after them.
    pub(super) fn lock_history(&self) -> Result<MutexGuard<'_, History>> {
        let Ok(history) = self.history.lock() else {
            self.fence.poison("a checkpoint panicked".to_owned());
            return Err(self.fence.check().err().unwrap_or_else(|| Error::Invalid("a checkpoint panicked".into())));
        };
        self.fence.check()?;
        Ok(history)
    }
}
