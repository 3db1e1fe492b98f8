//! Copying a savepoint into a directory of its own, which opens as a store.
//!
//! The copy has the store's identity, since that is in every checksum of the files; its checkpoint's manifest is the
//! savepoint's, byte for byte, and bears the savepoint's name, by which an opening knows that it is in a copy. Its log is
//! empty and goes on with record `log_from`.
//!
//! Invariants:
//! 1. The mark `copy.unfinished` is durable before anything else of the copy is there, and goes when all else is durable.
//!    A directory that has it does not open. So a copy that was cut off is refused, wherever that was; only one of which
//!    nothing is there yet is an empty directory.
//! 2. Whatever is copied is read back and checked as what its manifest names.
//! 3. The store that is copied from is only read, without its lock: a savepoint's files never change while it is there.
//!
//! Known limits: run files are copied whole, with the extents in them that only others need. A copy that failed or was cut
//! off is not continued: its directory is to be removed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::{Layout, is_absent};
use crate::checkpoint::recover::check_run_file;
use crate::checkpoint::{Manifest, commit, extra, savepoint};
use crate::disk::{Create, Disk, OpenOptions};
use crate::sabotage::{Check, checked};
use crate::spine::{SpineContext, SpineOptions, verify_run};
use crate::{Error, Result, log};

/// Bytes that are read and written at a time.
const PIECE: usize = 1 << 20;

/// What [`copy_savepoint`] has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavepointCopy {
    /// The number of the checkpoint that the copy opens from.
    pub number: u64,
    /// Run and extra files that were copied.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies savepoint `name` of the store in `from` into `to`, a directory that is empty or does not exist, from where
/// [`Store::open`](crate::Store::open) opens it. On return it is durable, and every byte was checked.
///
/// It takes no lock of `from` and changes nothing there: another process may have it open and go on writing. A savepoint
/// that is removed meanwhile is an error. Until the copy is whole, `to` does not open.
///
/// The copy is a store of the same identity that goes its own way from the savepoint's state on. Its log is empty and goes
/// on with the record number [`SavepointInfo::log_from`](crate::SavepointInfo::log_from), which the original's log has given
/// to a record of its own. So the outside world must not take one for the other: as long as the copy has no checkpoint of its
/// own, [`Recovered::savepoint`](crate::Recovered::savepoint) names the savepoint. An embedder then draws a new incarnation
/// and takes a checkpoint whose blob names it, before anything leaves the process. Files must never be carried from one
/// directory to the other by hand: their checksums do not tell them apart for sure.
///
/// # Errors
/// [`Error::Invalid`] if there is no such savepoint, if it is removed meanwhile, or if `to` is not empty;
/// [`Error::Damaged`] if what it names is not what was written; [`Error::Locked`] if somebody else has `to` open.
///
/// ```
/// use backstay_storage::{Checkpoint, Store, StoreOptions, copy_savepoint, disk};
/// # let dir = tempfile::tempdir().unwrap();
/// # let (dir, copy) = (dir.path().join("store"), dir.path().join("copy"));
/// let store = Store::open(disk::system(), &dir, StoreOptions::default())?;
/// store.checkpoint(Checkpoint { blob: "step 7".into(), ..Checkpoint::default() })?;
/// store.savepoint("tuesday")?;
///
/// copy_savepoint(&disk::system(), &dir, "tuesday", &copy)?; // from any process
/// let copy = Store::open(disk::system(), &copy, StoreOptions::default())?;
/// let recovered = copy.recovered().expect("a checkpoint");
/// assert_eq!((&recovered.blob[..], recovered.savepoint.as_deref()), (&b"step 7"[..], Some("tuesday")));
/// # Ok::<(), backstay_storage::Error>(())
/// ```
pub fn copy_savepoint(disk: &Arc<dyn Disk>, from: &Path, name: &str, to: &Path) -> Result<SavepointCopy> {
    savepoint::check_name(name)?;
    let (source, target) = (Layout::new(from), Layout::new(to));
    let manifest = savepoint::read_named(&**disk, &source.savepoints, name, None).map_err(|e| match is_absent(&e) {
        true => Error::Invalid(format!("there is no savepoint {name:?} in {}", from.display())),
        false => e,
    })?;
    disk.create_dir_all(to)?;
    let _lock = disk.lock_dir(to)?;
    refuse_unfinished(&**disk, &target)?;
    if !disk.list(to)?.is_empty() {
        let said = format!("{} is not empty: a savepoint is copied into a directory of its own", to.display());
        return Err(Error::Invalid(said));
    }
    mark(&**disk, &target)?;
    let copied = copy_files(disk, &source, &target, &manifest).map_err(|e| {
        let gone = match savepoint::read_named(&**disk, &source.savepoints, name, None) {
            Ok(now) => now != manifest,
            Err(e) => is_absent(&e),
        };
        let (from, to) = (from.display(), to.display());
        match gone {
            true => {
                Error::Invalid(format!("savepoint {name:?} was removed from {from} while it was copied; remove {to}"))
            }
            false => e,
        }
    })?;
    if !checked(Check::CopyLast) {
        unmark(&**disk, &target)?;
    }
    log::begin(disk, &target.log, manifest.store_id, manifest.epoch.saturating_add(1), manifest.log_from.max(1))?;
    commit(&**disk, &target.checkpoints, &manifest)?;
    if checked(Check::CopyLast) {
        unmark(&**disk, &target)?;
    }
    Ok(copied)
}

/// Refuses the directory of a copy that has not ended.
pub(crate) fn refuse_unfinished(disk: &dyn Disk, layout: &Layout) -> Result<()> {
    if disk.metadata(&layout.unfinished)?.is_none() || !checked(Check::CopyRefuse) {
        return Ok(());
    }
    let said = format!(
        "{} is an unfinished copy of a savepoint, as {} says: remove the directory and copy again",
        layout.root.display(),
        layout.unfinished.display()
    );
    Err(Error::Invalid(said))
}

fn mark(disk: &dyn Disk, target: &Layout) -> Result<()> {
    disk.open(&target.unfinished, OpenOptions { write: true, create: Create::New, direct: false })?;
    // Its name is all that counts.
    if checked(Check::CopyMark) { disk.sync_dir(&target.root) } else { Ok(()) }
}

fn unmark(disk: &dyn Disk, target: &Layout) -> Result<()> {
    disk.remove(&target.unfinished)?;
    if checked(Check::CopyEndSync) { disk.sync_dir(&target.root) } else { Ok(()) }
}

/// Copies what a manifest names, each file once, and makes it durable; then checks it.
fn copy_files(disk: &Arc<dyn Disk>, source: &Layout, target: &Layout, manifest: &Manifest) -> Result<SavepointCopy> {
    for folder in target.numbered().into_iter().chain([&*target.log, &*target.savepoints]) {
        disk.create_dir_all(folder)?;
    }
    let mut copied = SavepointCopy { number: manifest.number, files: 0, bytes: 0 };
    let mut piece = vec![0; PIECE];
    let runs: BTreeSet<_> = manifest.spines.iter().flat_map(|s| &s.runs).map(|r| r.file.as_str()).collect();
    let extras: BTreeSet<_> = manifest.extras.iter().map(|e| e.name.as_str()).collect();
    for (from, to, names) in [(&source.runs, &target.runs, runs), (&source.queue, &target.queue, extras)] {
        for name in names {
            copied.bytes += copy_file(&**disk, &from.join(name), &to.join(name), &mut piece)?;
            copied.files += 1;
        }
        if checked(Check::CopyNamesSync) {
            disk.sync_dir(to)?;
        }
    }
    if checked(Check::CopyVerify) {
        // What is wrong with the source is told of the source.
        verify(disk, target, manifest).map_err(|e| verify(disk, source, manifest).err().unwrap_or(e))?;
    }
    Ok(copied)
}

/// Copies one file and makes its bytes durable. Gives its length.
fn copy_file(disk: &dyn Disk, from: &Path, to: &Path, piece: &mut [u8]) -> Result<u64> {
    let file = disk.open(from, OpenOptions::READ).map_err(|e| match is_absent(&e) {
        true => Error::damaged(from, 0, "savepoint", "a file that it names", "no such file"),
        false => e,
    })?;
    let copy = disk.open(to, OpenOptions { write: true, create: Create::New, direct: false })?;
    let mut at = 0;
    loop {
        let n = file.read_at(piece, at)?;
        let Some(read) = piece.get(..n).filter(|read| !read.is_empty()) else { break };
        copy.write_at(read, at)?;
        at += n as u64;
    }
    if checked(Check::CopyBytesSync) {
        copy.sync()?;
    }
    Ok(at)
}

/// Reads all that a manifest names.
fn verify(disk: &Arc<dyn Disk>, layout: &Layout, manifest: &Manifest) -> Result<()> {
    for meta in &manifest.extras {
        extra::read(&**disk, &layout.queue, manifest.store_id, meta)?;
    }
    let options = SpineOptions { memory_bytes: 0, ..SpineOptions::default() };
    let context = SpineContext::new(Arc::clone(disk), &layout.runs, manifest.store_id, options);
    for spine in &manifest.spines {
        for run in &spine.runs {
            check_run_file(&**disk, layout, run)?;
            verify_run(&context, spine, run)?;
        }
    }
    Ok(())
}
