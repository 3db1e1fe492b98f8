//! The only door to the file system.
//!
//! Everything above sees the [`Disk`] trait: [`posix`] and [`uring`] are the real ones, [`sim`] the
//! simulated one with faults, [`quota`] wraps any of them with a byte limit.
//!
//! Two ways to do I/O, for two kinds of callers:
//! - [`File`]'s calls block. For small, cold things: manifests, headers, connector files.
//! - an [`IoQueue`] takes batches of operations and completes them out of order, so that a caller
//!   overlaps I/O. For the hot paths: log writes, run reads and writes.
//!
//! What is written once and then only read can also be had as memory: [`Disk::map`].
//!
//! Invariants:
//! 1. A name is durable only after [`Disk::sync_dir`] of its parent; bytes only after
//!    [`File::sync`] or a completed write with `durable: true`.
//! 2. A write is never silently short: it completes whole or fails.
//! 3. After any failed write or sync the caller must not retry it (invariant 6 of the design); this
//!    layer never does.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Result;

/// The unit in which direct I/O is aligned: offsets, lengths and buffers, in bytes.
pub const ALIGN: usize = 4096;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Whether writes are allowed.
    pub write: bool,
    /// What happens if the file is or is not there.
    pub create: Create,
    /// Whether to bypass the page cache (`O_DIRECT`) where the file system can. Callers that ask for
    /// it give aligned offsets, lengths and buffers to an [`IoQueue`]; [`File`]'s blocking calls
    /// take any.
    pub direct: bool,
}

/// What [`Disk::open`] does about a file's existence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// It must exist.
    Never,
    /// It is created if absent.
    IfAbsent,
    /// It must not exist (`O_EXCL`).
    New,
}

impl OpenOptions {
    /// Read an existing file through the page cache.
    pub const READ: Self = Self { write: false, create: Create::Never, direct: false };
    /// Create a file that must not exist, for direct writes.
    pub const CREATE_DIRECT: Self = Self { write: true, create: Create::New, direct: true };
    /// Read an existing file past the page cache.
    pub const READ_DIRECT: Self = Self { write: false, create: Create::Never, direct: true };
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes (0 for a directory).
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether it is a regular file: no directory, pipe, socket or device.
    pub is_file: bool,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without the directory.
    pub name: String,
    /// What it names.
    pub metadata: Metadata,
}

/// What a disk is, for reports: `io_uring, O_DIRECT, RWF_DSYNC`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskInfo {
    /// `"io_uring"`, `"posix"` or `"simulated"`.
    pub kind: &'static str,
    /// How a durable write is done: `"RWF_DSYNC"`, `"write+fdatasync"`, …
    pub durable_write: &'static str,
    /// Why the faster path was not taken, if so.
    pub note: Option<String>,
}

/// Counters since the disk was made. A durable write counts once, however it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Read operations.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Write operations that promise nothing (durable ones not included).
    pub writes: u64,
    /// Writes that are durable once completed.
    pub durable_writes: u64,
    /// Bytes written, by both kinds.
    pub written_bytes: u64,
    /// File syncs (those inside a durable write not included).
    pub syncs: u64,
    /// Directory syncs.
    pub dir_syncs: u64,
}

/// A file system, real or simulated.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens or creates a file.
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>>;
    /// Creates a directory and its missing parents, and makes their names durable.
    fn create_dir_all(&self, path: &Path) -> Result<()>;
    /// Makes every name in `dir` durable: creations, renames and removals so far.
    fn sync_dir(&self, dir: &Path) -> Result<()>;
    /// Renames atomically, replacing `to`. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file's name. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> Result<()>;
    /// The names in a directory, sorted. An absent directory is an error.
    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>>;
    /// What is known of a name; `None` if there is none.
    fn metadata(&self, path: &Path) -> Result<Option<Metadata>>;
    /// Takes the exclusive lock of a directory, trying for up to 5 s (invariant 5). It is held until the
    /// guard is dropped and every queue made after it has finished its last operation in flight.
    fn lock_dir(&self, dir: &Path) -> Result<DirLock>;
    /// A queue for at most `depth` operations in flight. One per thread that does I/O.
    fn queue(&self, depth: usize) -> Result<Box<dyn IoQueue>>;
    /// Measures which way of writing durably is the faster one in `dir`, which must exist, and takes it from now on.
    /// Leaves nothing behind there, except a `.probe` file if it is killed. Optional.
    fn probe(&self, dir: &Path) -> Result<()> {
        let _ = dir;
        Ok(())
    }
    /// The first `len` bytes of a file as memory: of the page cache, or a copy where the disk has none (as this default).
    /// The caller sees to it that they do not change while the map lives; [`map`](Map) says what happens otherwise. Fails
    /// with [`std::io::ErrorKind::UnexpectedEof`] if the file is shorter.
    fn map(&self, file: &Arc<dyn File>, len: u64) -> Result<Map> {
        Map::copy(file, len)
    }
    /// Bytes that may still be written below `dir`, before it is full; `None` where nobody knows (as this default). Another may take them first.
    fn room(&self, dir: &Path) -> Result<Option<u64>> {
        let _ = dir;
        Ok(None)
    }
    /// Whether background threads may use this disk: false where one seed decides the schedule.
    fn threads(&self) -> bool {
        true
    }
    /// What this disk is.
    fn info(&self) -> DiskInfo;
    /// What it has done so far.
    fn stats(&self) -> DiskStats;
}

/// An open file. Calls block; offsets and lengths are in bytes and need no alignment.
pub trait File: Debug + Send + Sync {
    /// The path it was opened by.
    fn path(&self) -> &Path;
    /// Its length now.
    fn len(&self) -> Result<u64>;
    /// Whether it is empty now.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts it off or extends it with zeros.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Writes all of `buf`. Not durable until [`File::sync`].
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;
    /// Makes the bytes and length durable (`fdatasync`).
    fn sync(&self) -> Result<()>;
    /// Writes all of `buf`; these bytes are durable on return. Says nothing of earlier writes.
    fn write_durable(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_at(buf, offset)?;
        self.sync()
    }
    /// Claims room for bytes up to `end`, where a limit is kept ([`quota`]).
    fn reserve(&self, end: u64) -> Result<()> {
        let _ = end;
        Ok(())
    }
    /// The file that this one wraps, for the queue of a disk that wraps another.
    fn inner(&self) -> Option<Arc<dyn File>> {
        None
    }
    /// The descriptor, for the queue of the disk that opened it. The simulated disk has none.
    fn raw_fd(&self) -> Option<i32> {
        None
    }
    /// The simulated disk's id of the file. Real disks have none.
    fn sim_id(&self) -> Option<u64> {
        None
    }
}

/// The held lock of a directory; dropping it frees the lock.
#[derive(Debug)]
pub struct DirLock {
    /// What keeps the lock; its drop releases it.
    _guard: Box<dyn Debug + Send + Sync>,
}

impl DirLock {
    /// A lock that lasts as long as `guard`.
    pub(crate) fn new(guard: impl Debug + Send + Sync + 'static) -> Self {
        Self { _guard: Box::new(guard) }
    }
}

/// One operation for an [`IoQueue`]. Offsets, lengths and buffers are multiples of [`ALIGN`]. Of a narrowed buffer
/// ([`AlignedBuf::narrow`]) it means the part that is shown.
#[derive(Debug)]
pub enum Op {
    /// Fill `buf` (its whole length) from `offset`; fewer bytes only at the end of the file.
    Read {
        /// The file.
        file: Arc<dyn File>,
        /// Where to start.
        offset: u64,
        /// Where the bytes go.
        buf: AlignedBuf,
    },
    /// Write all of `buf` at `offset`.
    Write {
        /// The file.
        file: Arc<dyn File>,
        /// Where to start.
        offset: u64,
        /// The bytes.
        buf: AlignedBuf,
        /// Whether completion means that these bytes are durable.
        durable: bool,
    },
    /// Make all completed writes of the file durable.
    Sync {
        /// The file.
        file: Arc<dyn File>,
    },
}

impl Op {
    /// The file it is about.
    pub(crate) fn file(&self) -> &Arc<dyn File> {
        match self {
            Op::Read { file, .. } | Op::Write { file, .. } | Op::Sync { file } => file,
        }
    }

    /// The same, to be changed by a queue that wraps another.
    pub(crate) fn file_mut(&mut self) -> &mut Arc<dyn File> {
        match self {
            Op::Read { file, .. } | Op::Write { file, .. } | Op::Sync { file } => file,
        }
    }

    /// Its buffer, if it has one, to be given back.
    pub(crate) fn into_buf(self) -> Option<AlignedBuf> {
        match self {
            Op::Read { buf, .. } | Op::Write { buf, .. } => Some(buf),
            Op::Sync { .. } => None,
        }
    }
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    /// The token it was submitted with.
    pub token: u64,
    /// The operation's buffer, given back (none for a sync).
    pub buf: Option<AlignedBuf>,
    /// Bytes read or written, or why not.
    pub result: Result<usize>,
}

/// Takes batches of operations and completes them out of order. Operations of one batch are
/// unordered: what must follow another is submitted after its completion.
pub trait IoQueue: Debug + Send {
    /// Starts operations. Blocks only where more than the depth are in flight.
    fn submit(&mut self, ops: Vec<(u64, Op)>) -> Result<()>;
    /// Waits until at least `at_least` operations (or all in flight, if fewer) have ended, and returns all that have.
    fn wait(&mut self, at_least: usize) -> Result<Vec<Completion>>;
    /// [`IoQueue::submit`], then [`IoQueue::wait`], in one system call where the disk can.
    fn submit_and_wait(&mut self, ops: Vec<(u64, Op)>, at_least: usize) -> Result<Vec<Completion>> {
        self.submit(ops)?;
        self.wait(at_least)
    }
    /// Operations submitted and not yet returned by [`IoQueue::wait`].
    fn in_flight(&self) -> usize;
    /// Tells the queue that it will live long, work on few files, and use buffers of this slab: it may then spend a call now
    /// and some locked memory to make each operation cheaper. The slab lives as long as the queue. Of several slabs the
    /// first counts. Nothing depends on it: where the system refuses, the queue works as before and the disk's
    /// [`DiskInfo::note`] says why. Such a queue keeps the last few files that it used open; see [`IoQueue::forget`].
    fn register(&mut self, slab: &Arc<Slab>) -> Result<()> {
        let _ = slab;
        Ok(())
    }
    /// Tells the queue that a file's life ends, so that it does not keep the file open. If operations of it are in flight,
    /// it is let go after the last of them. Later operations on it are allowed all the same.
    fn forget(&mut self, file: &Arc<dyn File>) -> Result<()> {
        let _ = file;
        Ok(())
    }
}

mod buffer;
mod map;
pub mod posix;
pub mod quota;
mod shared;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod slab;
#[cfg(target_os = "linux")]
pub mod uring;

pub use buffer::AlignedBuf;
pub use map::Map;
pub use posix::PosixDisk;
pub use quota::QuotaDisk;
#[cfg(any(test, feature = "sim"))]
pub use sim::SimDisk;
pub use slab::Slab;
#[cfg(target_os = "linux")]
pub use uring::UringDisk;

/// The best disk that this machine allows: io_uring, or posix (saying why in [`DiskInfo::note`]) where it is blocked.
///
/// ```
/// let info = backstay_storage::disk::system().info();
/// assert!(info.kind == "io_uring" || info.note.is_some());
/// ```
pub fn system() -> Arc<dyn Disk> {
    #[cfg(target_os = "linux")]
    match UringDisk::new() {
        Ok(disk) => Arc::new(disk),
        Err(e) => Arc::new(PosixDisk::with_note(format!("io_uring is not available ({e})"))),
    }
    #[cfg(not(target_os = "linux"))]
    Arc::new(PosixDisk::new())
}

/// The directory of a file that is about to be created, renamed or removed, for [`Disk::sync_dir`].
pub(crate) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
