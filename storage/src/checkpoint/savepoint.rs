//! Savepoint files: `savepoints/<name>.savepoint`, each the manifest of the checkpoint that it keeps, with its name.
//!
//! Invariants:
//! 1. A savepoint appears under its name only when its bytes are durable, and counts only when its name is too. All that it
//!    names was durable before: it is what a checkpoint on disk names.
//! 2. Its removal is durable before anything that only it named is removed.
//! 3. What cannot be read is told, and never removed unless it is asked for by name.

use std::path::Path;

use super::Manifest;
use super::commit::{encoded, publish};
use super::name::{SAVEPOINT, TEMPORARY, savepoint_is_valid};
use super::recover::{list, read};
use crate::disk::Disk;
use crate::sabotage::{Check, checked};
use crate::store::is_absent;
use crate::{Error, Result};

/// A savepoint's file: what it says, or what is wrong with it.
#[derive(Debug)]
pub(crate) struct Found {
    /// The savepoint's name, by that of the file.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The manifest, or why it cannot be used.
    pub manifest: Result<Manifest>,
}

/// The file of a savepoint.
pub(crate) fn file_of(name: &str) -> String {
    format!("{name}{SAVEPOINT}")
}

/// The name of the savepoint whose file it would be.
pub(crate) fn name_of(file: &str) -> Option<&str> {
    file.strip_suffix(SAVEPOINT)
}

/// The savepoints of a folder by name. `store` is whose they must be, if that is known.
pub(crate) fn survey(disk: &dyn Disk, dir: &Path, store: Option<u128>) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in list(disk, dir)? {
        let Some(name) = name_of(&entry.name).filter(|_| !entry.metadata.is_dir) else { continue };
        let manifest = read_named(disk, dir, name, store);
        // Removed since it was listed: an inspected store may be in use.
        if !manifest.as_ref().is_err_and(is_absent) {
            found.push(Found { name: name.to_owned(), bytes: entry.metadata.len, manifest });
        }
    }
    Ok(found)
}

/// Reads the savepoint of this name. One that is not there is an I/O error that says so.
pub(crate) fn read_named(disk: &dyn Disk, dir: &Path, name: &str, store: Option<u128>) -> Result<Manifest> {
    let path = dir.join(file_of(name));
    let manifest = read(disk, &path)?;
    if manifest.savepoint.as_deref() != Some(name) && checked(Check::SavepointName) {
        let got = manifest.savepoint.map_or("the manifest of no savepoint".into(), |other| format!("{other:?}"));
        return Err(Error::damaged(path, 12, "savepoint", format!("savepoint {name:?}"), got));
    }
    match store.filter(|store| *store != manifest.store_id && checked(Check::SavepointOwner)) {
        Some(store) => {
            let (expected, got) = (format!("store {store:032x}"), format!("store {:032x}", manifest.store_id));
            Err(Error::damaged(path, 16, "savepoint", expected, got))
        }
        None => Ok(manifest),
    }
}

/// Refuses a name that no savepoint can have, with what one may look like: 1 to 64 lower-case letters, digits, `-` or `_`, the
/// first a letter or digit. [`Store::savepoint`](crate::Store::savepoint) and [`copy_savepoint`](crate::copy_savepoint) ask it themselves;
/// it is for those who want to know before they open a store.
///
/// # Errors
/// [`Error::Invalid`].
///
/// ```
/// use backstay_storage::check_savepoint_name;
/// assert!(check_savepoint_name("before-upgrade_2").is_ok());
/// assert!(check_savepoint_name("../elsewhere").is_err());
/// ```
pub fn check_name(name: &str) -> Result<()> {
    if savepoint_is_valid(name) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "{name:?} is not a savepoint's name: 1 to 64 lower-case letters, digits, '-' or '_', the first a letter or digit"
    )))
}

/// Makes a savepoint of a manifest that bears its name, in the order in which a checkpoint is committed. Gives the file's
/// length in bytes.
pub(crate) fn write(disk: &dyn Disk, dir: &Path, name: &str, manifest: &Manifest) -> Result<u64> {
    let bytes = encoded(manifest)?;
    let (path, temporary) = (dir.join(file_of(name)), dir.join(file_of(name) + TEMPORARY));
    if disk.metadata(&path)?.is_some() {
        return Err(Error::Invalid(format!("{} exists already, and is no savepoint", path.display())));
    }
    if disk.metadata(&temporary)?.is_some() {
        disk.remove(&temporary)?;
    }
    let synced = [checked(Check::SavepointBytesSync), checked(Check::SavepointNameSync)];
    publish(disk, dir, &file_of(name), &bytes, synced)
}

/// Removes a savepoint's name, durably. One that is gone already is no error.
pub(crate) fn remove(disk: &dyn Disk, dir: &Path, name: &str) -> Result<()> {
    match disk.remove(&dir.join(file_of(name))) {
        Err(e) if !is_absent(&e) => return Err(e),
        _ => {}
    }
    if checked(Check::SavepointRemoveSync) { disk.sync_dir(dir) } else { Ok(()) }
}

/// Removes what a crash left half-written. It needs no sync: come back, it would be removed again.
pub(crate) fn clear_leftovers(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let leftover = format!("{SAVEPOINT}{TEMPORARY}");
    for entry in disk.list(dir)?.iter().filter(|e| !e.metadata.is_dir && e.name.ends_with(&leftover)) {
        disk.remove(&dir.join(&entry.name))?;
    }
    Ok(())
}
