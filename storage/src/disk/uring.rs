//! io_uring: batches of operations overlap in the kernel. Names and blocking calls are those of [`super::posix`].
//!
//! Invariants:
//! 1. Every ring registers the descriptors of the directory locks held when it is made: if the process dies, the kernel
//!    frees the lock only after the ring's last write has ended (invariant 5 of the design).
//! 2. While the kernel may use a buffer or descriptor, a slot of the queue owns it. A queue that is dropped waits first.
//! 3. A sync that follows a write is submitted after the write's completion: entries of a ring are not ordered, and
//!    linked ones break on short writes.
//!
//! 4. A queue that is told of a slab ([`IoQueue::register`]) registers it, and from then on the last four files that it
//!    used, beside the locks. Others do not: to keep a file open, they would have to be told when its life ends
//!    ([`IoQueue::forget`]). Where the kernel refuses, plain buffers and descriptors do the same.
//!
//! Decision: a queue may be used by one thread after another, each under the owner's lock (the log's is), so that one thread
//! submits what another waits for. Rings are set up for that:
//! - no `SINGLE_ISSUER` and `DEFER_TASKRUN`, which bind a ring to one thread;
//! - no `COOP_TASKRUN`: it leaves an answer to be delivered when the thread that submitted next enters the kernel. If that
//!   thread computes meanwhile, another that waits gets it at the next timer tick (4 ms at 250 Hz, for a write of 0.1 ms),
//!   and `wait(0)`, which asks without a system call, never earlier. A thread that submits and waits gains nothing from it.
//!
//! Known limits: no polling. An answer interrupts the thread that submitted, also when another waits for it.

mod files;
mod queue;
mod slot;

use std::io;
use std::path::Path;
use std::sync::Arc;

use io_uring::{IoUring, Probe, opcode};

use super::posix::PosixDisk;
use super::{DirEntry, DirLock, Disk, DiskInfo, DiskStats, File, IoQueue, Map, Metadata, OpenOptions};
use crate::{Error, Result};

/// The disk whose queues are io_uring rings.
///
/// ```
/// use backstay_storage::disk::{Disk, UringDisk};
/// match UringDisk::new() {
///     Ok(disk) => assert_eq!(disk.info().kind, "io_uring"),
///     Err(why) => println!("blocked here: {why}"),
/// }
/// ```
#[derive(Debug)]
pub struct UringDisk {
    posix: PosixDisk,
}

impl UringDisk {
    /// The disk, or why this machine has none: an old kernel, seccomp, or `kernel.io_uring_disabled`.
    ///
    /// ```
    /// # use backstay_storage::disk::UringDisk;
    /// let usable = UringDisk::new().is_ok();
    /// # let _ = usable;
    /// ```
    pub fn new() -> Result<Self> {
        let fail = |e| Error::io("set up", "io_uring", e);
        let ring = IoUring::new(2).map_err(fail)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(fail)?;
        let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
        if !needed.into_iter().all(|code| probe.is_supported(code)) {
            return Err(fail(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel lacks read, write or fsync on rings",
            )));
        }
        Ok(Self { posix: PosixDisk::new() })
    }
}

impl Disk for UringDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>> {
        self.posix.open(path, options)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.posix.create_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.posix.sync_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.posix.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.posix.remove(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.posix.list(dir)
    }

    fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        self.posix.metadata(path)
    }

    fn lock_dir(&self, dir: &Path) -> Result<DirLock> {
        self.posix.lock_dir(dir)
    }

    fn queue(&self, depth: usize) -> Result<Box<dyn IoQueue>> {
        Ok(Box::new(queue::UringQueue::new(&self.posix.shared, depth)?))
    }

    fn probe(&self, dir: &Path) -> Result<()> {
        self.posix.probe(dir)
    }

    fn map(&self, file: &Arc<dyn File>, len: u64) -> Result<Map> {
        self.posix.map(file, len)
    }

    fn room(&self, dir: &Path) -> Result<Option<u64>> {
        self.posix.room(dir)
    }

    fn info(&self) -> DiskInfo {
        DiskInfo { kind: "io_uring", ..self.posix.info() }
    }

    fn stats(&self) -> DiskStats {
        self.posix.stats()
    }
}
