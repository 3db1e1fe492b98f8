//! The store's own view of the disk: it holds the directory's lock for as long as anything can write, and lets no write
//! through after the first that failed (invariants 5 and 6 of the design).
//!
//! Invariants:
//! 1. Log, spines and checkpoints reach the disk through here only, so that one failed write, sync, creation, rename or
//!    removal anywhere stops every later one everywhere. The failing call returns its own error, later ones
//!    [`Error::Poisoned`] with that cause. Reads go on.
//! 2. The lock is let go when the last file, queue, spine or log handle of the store is gone, not merely the `Store`.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::disk::{
    Completion, Create, DirEntry, DirLock, Disk, DiskInfo, DiskStats, File, IoQueue, Map, Metadata, Op, OpenOptions,
    Slab,
};
use crate::error::Cause;
use crate::{Error, Result};

/// Lock and poison, shared by everything that belongs to one opening of a store.
#[derive(Debug)]
pub(crate) struct Fence {
    cause: OnceLock<Cause>,
    _lock: DirLock,
}

impl Fence {
    pub fn new(lock: DirLock) -> Self {
        Self { cause: OnceLock::new(), _lock: lock }
    }

    /// Stops all writes from now on. The first cause stays.
    pub fn poison(&self, cause: impl Into<Cause>) {
        let _ = self.cause.set(cause.into());
    }

    pub fn cause(&self) -> Option<&str> {
        self.cause.get().map(Cause::text)
    }

    /// [`Error::Poisoned`] if a write failed before.
    pub fn check(&self) -> Result<()> {
        self.cause.get().map_or(Ok(()), |cause| Err(cause.into()))
    }

    /// Runs an operation that changes the disk.
    fn change<T>(&self, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check()?;
        operation().inspect_err(|e| self.poison(e))
    }
}

/// A disk behind a fence.
#[derive(Debug)]
pub(crate) struct FencedDisk {
    inner: Arc<dyn Disk>,
    fence: Arc<Fence>,
}

impl FencedDisk {
    pub fn new(inner: Arc<dyn Disk>, fence: Arc<Fence>) -> Self {
        Self { inner, fence }
    }
}

impl Disk for FencedDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>> {
        let open = || self.inner.open(path, options);
        let inner = if options.create == Create::Never { open()? } else { self.fence.change(open)? };
        Ok(Arc::new(FencedFile { inner, fence: Arc::clone(&self.fence) }))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.fence.change(|| self.inner.create_dir_all(path))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.fence.change(|| self.inner.sync_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.fence.change(|| self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.fence.check()?;
        self.inner.remove(path).inspect_err(|e| {
            if !is_absent(e) {
                self.fence.poison(e);
            }
        })
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.inner.list(dir)
    }

    fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        self.inner.metadata(path)
    }

    fn lock_dir(&self, dir: &Path) -> Result<DirLock> {
        self.inner.lock_dir(dir)
    }

    fn queue(&self, depth: usize) -> Result<Box<dyn IoQueue>> {
        let inner = self.inner.queue(depth)?;
        Ok(Box::new(FencedQueue { inner, fence: Arc::clone(&self.fence), changes: Vec::new() }))
    }

    fn probe(&self, dir: &Path) -> Result<()> {
        self.fence.change(|| self.inner.probe(dir))
    }

    fn map(&self, file: &Arc<dyn File>, len: u64) -> Result<Map> {
        match file.inner() {
            Some(inner) => self.inner.map(&inner, len),
            None => self.inner.map(file, len),
        }
    }

    fn room(&self, dir: &Path) -> Result<Option<u64>> {
        self.inner.room(dir)
    }

    fn threads(&self) -> bool {
        self.inner.threads()
    }

    fn info(&self) -> DiskInfo {
        self.inner.info()
    }

    fn stats(&self) -> DiskStats {
        self.inner.stats()
    }
}

/// Whether an error says that a file is not there.
pub(crate) fn is_absent(e: &Error) -> bool {
    matches!(e, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

#[derive(Debug)]
struct FencedFile {
    inner: Arc<dyn File>,
    fence: Arc<Fence>,
}

impl File for FencedFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.fence.change(|| self.inner.set_len(len))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.fence.change(|| self.inner.write_at(buf, offset))
    }

    fn sync(&self) -> Result<()> {
        self.fence.change(|| self.inner.sync())
    }

    fn write_durable(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.fence.change(|| self.inner.write_durable(buf, offset))
    }

    fn reserve(&self, end: u64) -> Result<()> {
        self.fence.change(|| self.inner.reserve(end))
    }

    fn inner(&self) -> Option<Arc<dyn File>> {
        Some(Arc::clone(&self.inner))
    }

    fn raw_fd(&self) -> Option<i32> {
        self.inner.raw_fd()
    }

    fn sim_id(&self) -> Option<u64> {
        self.inner.sim_id()
    }
}

#[derive(Debug)]
struct FencedQueue {
    inner: Box<dyn IoQueue>,
    fence: Arc<Fence>,
    /// Tokens of the writes and syncs in flight: a failed read is not the store's end.
    changes: Vec<u64>,
}

impl FencedQueue {
    /// Unwraps the files of a batch and notes its writes and syncs. True if there are any.
    fn note(&mut self, ops: &mut [(u64, Op)]) -> bool {
        let before = self.changes.len();
        for (token, op) in ops {
            if let Some(inner) = op.file().inner() {
                *op.file_mut() = inner;
            }
            if !matches!(op, Op::Read { .. }) {
                self.changes.push(*token);
            }
        }
        self.changes.len() != before
    }

    /// Looks at what has ended for a failed write or sync.
    fn settle(&mut self, done: Result<Vec<Completion>>) -> Result<Vec<Completion>> {
        let done = done.inspect_err(|e| {
            if !self.changes.is_empty() {
                self.fence.poison(e);
            }
        })?;
        for completion in &done {
            let Some(at) = self.changes.iter().position(|token| *token == completion.token) else { continue };
            self.changes.swap_remove(at);
            if let Err(e) = &completion.result {
                self.fence.poison(e);
            }
        }
        Ok(done)
    }
}

impl IoQueue for FencedQueue {
    fn submit(&mut self, mut ops: Vec<(u64, Op)>) -> Result<()> {
        if self.note(&mut ops) { self.fence.change(|| self.inner.submit(ops)) } else { self.inner.submit(ops) }
    }

    fn wait(&mut self, at_least: usize) -> Result<Vec<Completion>> {
        let done = self.inner.wait(at_least);
        self.settle(done)
    }

    fn submit_and_wait(&mut self, mut ops: Vec<(u64, Op)>, at_least: usize) -> Result<Vec<Completion>> {
        if self.note(&mut ops) {
            self.fence.check()?;
        }
        let done = self.inner.submit_and_wait(ops, at_least);
        self.settle(done)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn register(&mut self, slab: &Arc<Slab>) -> Result<()> {
        self.inner.register(slab)
    }

    fn forget(&mut self, file: &Arc<dyn File>) -> Result<()> {
        match file.inner() {
            Some(inner) => self.inner.forget(&inner),
            None => self.inner.forget(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::Fault;
    use crate::disk::{ALIGN, AlignedBuf, QuotaDisk, SimDisk};

    const RW: OpenOptions = OpenOptions { write: true, create: Create::IfAbsent, direct: true };

    /// A fence over a quota over a simulated disk, with a file.
    fn fenced() -> (SimDisk, Arc<Fence>, FencedDisk, Arc<dyn File>) {
        let sim = SimDisk::new(3);
        let fence = Arc::new(Fence::new(sim.lock_dir(Path::new("/")).unwrap()));
        let quota = QuotaDisk::new(Arc::new(sim.clone()), Path::new("/"), 1 << 20).unwrap();
        let disk = FencedDisk::new(Arc::new(quota), Arc::clone(&fence));
        let file = disk.open(Path::new("/a"), RW).unwrap();
        file.write_at(&[1; ALIGN], 0).unwrap();
        (sim, fence, disk, file)
    }

    fn write(file: &Arc<dyn File>) -> Op {
        Op::Write { file: Arc::clone(file), offset: 0, buf: AlignedBuf::zeroed(ALIGN), durable: true }
    }

    fn read(file: &Arc<dyn File>) -> Op {
        Op::Read { file: Arc::clone(file), offset: 0, buf: AlignedBuf::zeroed(ALIGN) }
    }

    #[test]
    fn a_write_that_fails_in_submit_and_wait_poisons() {
        let (sim, fence, disk, file) = fenced();
        let mut queue = disk.queue(4).unwrap();
        assert!(queue.submit_and_wait(vec![(1, write(&file))], 1).unwrap()[0].result.is_ok());
        sim.fail_at(sim.ops() + 1, Fault::Io);
        assert!(queue.submit_and_wait(vec![(2, read(&file))], 1).unwrap()[0].result.is_err());
        assert_eq!(fence.cause(), None, "a failed read is not the store's end");
        sim.fail_at(sim.ops() + 1, Fault::Io);
        assert!(queue.submit_and_wait(vec![(3, write(&file))], 1).unwrap()[0].result.is_err());
        assert!(fence.cause().is_some());
        let e = queue.submit_and_wait(vec![(4, read(&file)), (5, write(&file))], 1).unwrap_err();
        assert!(matches!(e, Error::Poisoned { .. }), "{e}");
        assert!(queue.submit_and_wait(vec![(6, read(&file))], 1).unwrap()[0].result.is_ok(), "reads go on");
    }

    #[test]
    fn a_write_submitted_before_is_looked_at_too() {
        let (sim, fence, disk, file) = fenced();
        let mut queue = disk.queue(4).unwrap();
        sim.fail_at(sim.ops() + 1, Fault::Io);
        queue.submit(vec![(1, write(&file))]).unwrap();
        queue.submit_and_wait(Vec::new(), 1).unwrap();
        assert!(fence.cause().is_some());
    }

    #[test]
    fn the_rest_reaches_the_disk_through_both_wrappers() {
        let (_, fence, disk, file) = fenced();
        let mut queue = disk.queue(4).unwrap();
        queue.register(&Slab::new(ALIGN, 1).0).unwrap();
        queue.forget(&file).unwrap();
        assert_eq!(&disk.map(&file, 3).unwrap()[..], [1; 3]);
        assert!(disk.map(&file, 1 << 20).is_err());
        assert_eq!(fence.cause(), None, "a map is a read");
        assert!(!disk.threads());
    }
}
