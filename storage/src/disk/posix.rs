//! Plain system calls: the disk for machines where io_uring is blocked, and the part of [`super::uring`] that deals in
//! names.
//!
//! Invariants:
//! 1. Every name that [`Disk::create_dir_all`] returns for is durable, also if an earlier call was killed half-way: it
//!    makes one directory at a time and syncs its parent before the next, and starts by syncing the deepest one found.
//! 2. Operations of its queue are executed in `submit`: nothing is in flight once that returns.
//!
//! Known limits: Unix only. Names that are not UTF-8 are listed with replacement characters.
#![expect(clippy::disallowed_methods, reason = "this is the Disk that reaches the real file system")]

mod file;
mod flock;
mod probe;
mod queue;
mod room;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::shared::{Counters, lock};
use super::{DirEntry, DirLock, Disk, DiskInfo, DiskStats, File, IoQueue, Map, Metadata, OpenOptions, parent};
use crate::{Error, Result};
pub(crate) use file::PosixFile;
pub(crate) use flock::LockedDir;

/// A disk that does its work with blocking system calls.
///
/// ```
/// use backstay_storage::disk::{Create, Disk, OpenOptions, PosixDisk};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("a");
/// let disk = PosixDisk::new();
/// let file = disk.open(&path, OpenOptions { write: true, create: Create::IfAbsent, direct: false })?;
/// file.write_at(b"hello", 0)?;
/// file.sync()?; // the bytes
/// disk.sync_dir(dir.path())?; // the name
/// # Ok::<(), backstay_storage::Error>(())
/// ```
#[derive(Debug)]
pub struct PosixDisk {
    pub(crate) shared: Arc<Shared>,
}

/// What files and queues keep of their disk.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    /// Whether durable writes are to be a write and an `fdatasync`: the kernel or file system lacks `RWF_DSYNC`.
    pub(crate) no_dsync: AtomicBool,
    note: Mutex<Option<String>>,
    locks: Mutex<Vec<Weak<LockedDir>>>,
}

impl Shared {
    /// Notes why a slower way was taken; the first reason stays.
    pub(crate) fn note(&self, why: impl FnOnce() -> String) {
        lock(&self.note).get_or_insert_with(why);
    }

    /// The directory locks that are held now, for a new queue.
    pub(crate) fn held_locks(&self) -> Vec<Weak<LockedDir>> {
        let mut locks = lock(&self.locks);
        locks.retain(|l| l.strong_count() > 0);
        locks.clone()
    }
}

impl PosixDisk {
    /// The disk.
    ///
    /// ```
    /// use backstay_storage::disk::{Disk, PosixDisk};
    /// assert_eq!(PosixDisk::new().info().kind, "posix");
    /// ```
    pub fn new() -> Self {
        let disk = Self { shared: Arc::default() };
        if !cfg!(target_os = "linux") {
            disk.shared.no_dsync.store(true, Ordering::Relaxed);
        }
        disk
    }

    /// The disk, with the reason why it is used instead of a faster one.
    ///
    /// ```
    /// use backstay_storage::disk::{Disk, PosixDisk};
    /// assert_eq!(PosixDisk::with_note("no ring").info().note.as_deref(), Some("no ring"));
    /// ```
    pub fn with_note(note: impl Into<String>) -> Self {
        let disk = Self::new();
        disk.shared.note(|| note.into());
        disk
    }

    /// Creates one directory, which may be there already.
    fn create_dir(path: &Path) -> Result<()> {
        match fs::create_dir(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("create directory", path, e)),
            _ => Ok(()),
        }
    }
}

impl Default for PosixDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl Disk for PosixDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>> {
        Ok(Arc::new(PosixFile::open(&self.shared, path, options)?))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let mut missing = Vec::new();
        let mut at = path.to_path_buf();
        loop {
            match self.metadata(&at)? {
                Some(m) if m.is_dir => break,
                Some(_) => {
                    let e = io::Error::from(io::ErrorKind::NotADirectory);
                    return Err(Error::io("create directory", at, e));
                }
                None => missing.push(at.clone()),
            }
            at = parent(&at);
        }
        if let Err(e) = self.sync_dir(&parent(&at)) {
            // The directory found may be one that others made and manage, inside one that is not ours to read.
            let denied = matches!(&e, Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
            if !denied {
                return Err(e);
            }
        }
        while let Some(dir) = missing.pop() {
            Self::create_dir(&dir)?;
            self.sync_dir(&parent(&dir))?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.shared.counters.dir_sync();
        fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::io("sync directory", dir, e))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|e| Error::io("rename", from, e))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|e| Error::io("remove", path, e))
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        let fail = |e| Error::io("list", dir, e);
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let metadata = match entry.metadata() {
                Ok(m) => metadata_of(&m),
                // Removed since the directory was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io("list", entry.path(), e)),
            };
            entries.push(DirEntry { name: entry.file_name().to_string_lossy().into_owned(), metadata });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        match fs::metadata(path) {
            Ok(m) => Ok(Some(metadata_of(&m))),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(Error::io("metadata", path, e)),
        }
    }

    fn lock_dir(&self, dir: &Path) -> Result<DirLock> {
        let held = Arc::new(LockedDir::take(dir)?);
        lock(&self.shared.locks).push(Arc::downgrade(&held));
        Ok(DirLock::new(held))
    }

    fn queue(&self, depth: usize) -> Result<Box<dyn IoQueue>> {
        let _ = depth; // each operation has ended before the next is looked at
        Ok(Box::new(queue::PosixQueue::new(&self.shared)))
    }

    fn probe(&self, dir: &Path) -> Result<()> {
        if !cfg!(target_os = "linux") {
            return Ok(());
        }
        let probed = probe::run(&self.shared, dir);
        match self.remove(&dir.join(probe::NAME)) {
            Ok(()) => probed,
            Err(e) => probed.and(Err(e)),
        }
    }

    fn map(&self, file: &Arc<dyn File>, len: u64) -> Result<Map> {
        Map::pages(file, len)
    }

    fn room(&self, dir: &Path) -> Result<Option<u64>> {
        room::room(dir).map(Some)
    }

    fn info(&self) -> DiskInfo {
        let slow = self.shared.no_dsync.load(Ordering::Relaxed);
        DiskInfo {
            kind: "posix",
            durable_write: if slow { "write+fdatasync" } else { "RWF_DSYNC" },
            note: lock(&self.shared.note).clone(),
        }
    }

    fn stats(&self) -> DiskStats {
        self.shared.counters.snapshot()
    }
}

fn metadata_of(m: &fs::Metadata) -> Metadata {
    Metadata { len: if m.is_dir() { 0 } else { m.len() }, is_dir: m.is_dir(), is_file: m.is_file() }
}
