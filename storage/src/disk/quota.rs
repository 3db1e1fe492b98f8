//! A byte limit on top of any disk, so that a full disk can be had anywhere: in tests, and for an embedder that must
//! keep to a budget.
//!
//! Invariants:
//! 1. The sum of the lengths of the files that have a name under the root never grows past the limit by a call made
//!    through this disk. Room is claimed before a write is started and stays claimed if the write fails.
//! 2. A refused call has changed nothing.
//!
//! Known limits: a removed file that is still open no longer counts. A file's length counts as its bytes, holes
//! included. Files outside the root are not limited. A name that is reached by two paths counts twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::shared::{lock, plain};
use super::{
    Completion, Create, DirEntry, DirLock, Disk, DiskInfo, DiskStats, File, IoQueue, Map, Metadata, Op, OpenOptions,
    Slab,
};
use crate::{Error, Result};

/// A disk that holds at most so many bytes below a root directory.
///
/// ```
/// use std::sync::Arc;
/// use backstay_storage::Error;
/// use backstay_storage::disk::{Create, Disk, OpenOptions, PosixDisk, QuotaDisk};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("a");
/// let disk = QuotaDisk::new(Arc::new(PosixDisk::new()), dir.path(), 10)?;
/// let file = disk.open(&path, OpenOptions { write: true, create: Create::New, direct: false })?;
/// file.write_at(&[1; 10], 0)?;
/// assert!(matches!(file.write_at(&[1], 10), Err(Error::NoSpace { .. })));
/// disk.set_limit(11);
/// file.write_at(&[1], 10)?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct QuotaDisk {
    inner: Arc<dyn Disk>,
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    root: PathBuf,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    limit: u64,
    used: u64,
    /// The claimed length of every named file below the root. Shared with the file's open handles, which a rename
    /// must not lead astray.
    files: BTreeMap<PathBuf, Arc<Mutex<Claim>>>,
}

/// What one file holds of the quota.
#[derive(Debug)]
struct Claim {
    len: u64,
    /// Whether it has a name, and so counts.
    named: bool,
}

impl Account {
    /// Makes room for a file to be `len` bytes long, or says why not.
    fn grow(&self, claim: &Mutex<Claim>, path: &Path, len: u64) -> Result<()> {
        let mut books = lock(&self.books);
        let mut claim = lock(claim);
        let Some(more) = len.checked_sub(claim.len).filter(|more| *more > 0) else { return Ok(()) };
        if claim.named {
            let total = books.used.saturating_add(more);
            if total > books.limit {
                let (limit, used) = (books.limit, books.used);
                let detail = format!("the quota of {limit} bytes has {used} in use, {more} more are needed");
                return Err(Error::NoSpace { path: path.to_path_buf(), detail });
            }
            books.used = total;
        }
        claim.len = len;
        Ok(())
    }

    /// Notes that a file is `len` bytes long now, whatever it was.
    fn set(&self, claim: &Mutex<Claim>, len: u64) {
        let mut books = lock(&self.books);
        let mut claim = lock(claim);
        if claim.named {
            books.used = books.used.saturating_sub(claim.len).saturating_add(len);
        }
        claim.len = len;
    }

    /// The claim of the file at `path`, which was found `len` bytes long; `None` if it is not under the root.
    fn claim(&self, path: &Path, len: u64) -> Option<Arc<Mutex<Claim>>> {
        let path = plain(path);
        if !path.starts_with(&self.root) {
            return None;
        }
        let mut books = lock(&self.books);
        if let Some(claim) = books.files.get(&path) {
            return Some(Arc::clone(claim));
        }
        books.used = books.used.saturating_add(len);
        let claim = Arc::new(Mutex::new(Claim { len, named: true }));
        books.files.insert(path, Arc::clone(&claim));
        Some(claim)
    }

    fn forget(books: &mut Books, path: &Path) -> Option<Arc<Mutex<Claim>>> {
        let claim = books.files.remove(path)?;
        let mut inside = lock(&claim);
        inside.named = false;
        books.used = books.used.saturating_sub(inside.len);
        drop(inside);
        Some(claim)
    }

    fn removed(&self, path: &Path) {
        Self::forget(&mut lock(&self.books), &plain(path));
    }

    fn renamed(&self, from: &Path, to: &Path) {
        let (from, to) = (plain(from), plain(to));
        if from == to {
            return;
        }
        let mut books = lock(&self.books);
        Self::forget(&mut books, &to);
        if let Some(claim) = Self::forget(&mut books, &from)
            && to.starts_with(&self.root)
        {
            let mut inside = lock(&claim);
            inside.named = true;
            books.used = books.used.saturating_add(inside.len);
            drop(inside);
            books.files.insert(to, claim);
        }
    }
}

impl QuotaDisk {
    /// Limits what may stand below `root` of `inner` to `limit` bytes. Counts the files that are there; an absent root is empty.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use backstay_storage::disk::{PosixDisk, QuotaDisk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// assert_eq!(QuotaDisk::new(Arc::new(PosixDisk::new()), dir.path(), 1 << 20)?.used(), 0);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn new(inner: Arc<dyn Disk>, root: &Path, limit: u64) -> Result<Self> {
        let account = Account { root: plain(root), books: Mutex::new(Books { limit, ..Books::default() }) };
        let mut dirs = match inner.metadata(root)? {
            Some(m) if m.is_dir => vec![root.to_path_buf()],
            _ => Vec::new(),
        };
        while let Some(dir) = dirs.pop() {
            for entry in inner.list(&dir)? {
                let path = dir.join(&entry.name);
                if entry.metadata.is_dir {
                    dirs.push(path);
                } else {
                    account.claim(&path, entry.metadata.len);
                }
            }
        }
        Ok(Self { inner, account: Arc::new(account) })
    }

    /// Changes the limit, in bytes. A lower one than is in use refuses growth and nothing else.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use backstay_storage::disk::{PosixDisk, QuotaDisk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let disk = QuotaDisk::new(Arc::new(PosixDisk::new()), dir.path(), 0)?;
    /// disk.set_limit(1 << 30);
    /// assert_eq!(disk.limit(), 1 << 30);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn set_limit(&self, limit: u64) {
        lock(&self.account.books).limit = limit;
    }

    /// The limit, in bytes.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use backstay_storage::disk::{PosixDisk, QuotaDisk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// assert_eq!(QuotaDisk::new(Arc::new(PosixDisk::new()), dir.path(), 5)?.limit(), 5);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn limit(&self) -> u64 {
        lock(&self.account.books).limit
    }

    /// Bytes in use: the sum of the lengths of the files below the root.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use backstay_storage::disk::{PosixDisk, QuotaDisk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # std::fs::write(dir.path().join("a"), [0; 7]).unwrap();
    /// // with one file of seven bytes there
    /// assert_eq!(QuotaDisk::new(Arc::new(PosixDisk::new()), dir.path(), 5)?.used(), 7);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn used(&self) -> u64 {
        lock(&self.account.books).used
    }
}

impl Disk for QuotaDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>> {
        let inner = self.inner.open(path, options)?;
        if options.create == Create::New {
            // What the books know of this name is of a file that was removed behind our back.
            self.account.removed(path);
        }
        match self.account.claim(path, inner.len()?) {
            Some(claim) => Ok(Arc::new(QuotaFile { inner, account: Arc::clone(&self.account), claim })),
            None => Ok(inner),
        }
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.inner.create_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.inner.sync_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.rename(from, to)?;
        self.account.renamed(from, to);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.inner.remove(path)?;
        self.account.removed(path);
        Ok(())
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
        Ok(Box::new(QuotaQueue { inner: self.inner.queue(depth)?, refused: Vec::new() }))
    }

    fn probe(&self, dir: &Path) -> Result<()> {
        self.inner.probe(dir)
    }

    fn map(&self, file: &Arc<dyn File>, len: u64) -> Result<Map> {
        match file.inner() {
            Some(inner) => self.inner.map(&inner, len),
            None => self.inner.map(file, len),
        }
    }

    fn room(&self, dir: &Path) -> Result<Option<u64>> {
        let inner = self.inner.room(dir)?;
        if !plain(dir).starts_with(&self.account.root) {
            return Ok(inner);
        }
        let books = lock(&self.account.books);
        let left = books.limit.saturating_sub(books.used);
        Ok(Some(inner.map_or(left, |room| room.min(left))))
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

#[derive(Debug)]
struct QuotaFile {
    inner: Arc<dyn File>,
    account: Arc<Account>,
    claim: Arc<Mutex<Claim>>,
}

impl QuotaFile {
    fn reserve_write(&self, len: usize, offset: u64) -> Result<()> {
        if len == 0 { Ok(()) } else { self.reserve(offset.saturating_add(len as u64)) }
    }
}

impl File for QuotaFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.reserve(len)?;
        self.inner.set_len(len)?;
        self.account.set(&self.claim, len);
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.reserve_write(buf.len(), offset)?;
        self.inner.write_at(buf, offset)
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }

    fn write_durable(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.reserve_write(buf.len(), offset)?;
        self.inner.write_durable(buf, offset)
    }

    fn reserve(&self, end: u64) -> Result<()> {
        self.account.grow(&self.claim, self.inner.path(), end)
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

/// Claims room for each write, then leaves it to the wrapped disk's queue. What is refused completes with the error.
#[derive(Debug)]
struct QuotaQueue {
    inner: Box<dyn IoQueue>,
    refused: Vec<Completion>,
}

impl QuotaQueue {
    /// Claims room for the writes among `ops`; what gets none is refused, the rest is for the wrapped queue.
    fn admit(&mut self, ops: Vec<(u64, Op)>) -> Vec<(u64, Op)> {
        let mut allowed = Vec::with_capacity(ops.len());
        for (token, mut op) in ops {
            let room = match &op {
                Op::Write { file, offset, buf, .. } if !buf.is_empty() => {
                    file.reserve(offset.saturating_add(buf.len() as u64))
                }
                _ => Ok(()),
            };
            match room {
                Ok(()) => {
                    if let Some(inner) = op.file().inner() {
                        *op.file_mut() = inner;
                    }
                    allowed.push((token, op));
                }
                Err(e) => self.refused.push(Completion { token, buf: op.into_buf(), result: Err(e) }),
            }
        }
        allowed
    }

    /// What has ended: the refused, and what the wrapped queue says.
    fn ended(&mut self, inner: Vec<Completion>) -> Vec<Completion> {
        if self.refused.is_empty() {
            return inner;
        }
        let mut done = std::mem::take(&mut self.refused);
        done.extend(inner);
        done
    }
}

impl IoQueue for QuotaQueue {
    fn submit(&mut self, ops: Vec<(u64, Op)>) -> Result<()> {
        let allowed = self.admit(ops);
        self.inner.submit(allowed)
    }

    fn wait(&mut self, at_least: usize) -> Result<Vec<Completion>> {
        let inner = self.inner.wait(at_least.saturating_sub(self.refused.len()))?;
        Ok(self.ended(inner))
    }

    fn submit_and_wait(&mut self, ops: Vec<(u64, Op)>, at_least: usize) -> Result<Vec<Completion>> {
        let allowed = self.admit(ops);
        let inner = self.inner.submit_and_wait(allowed, at_least.saturating_sub(self.refused.len()))?;
        Ok(self.ended(inner))
    }

    fn in_flight(&self) -> usize {
        self.refused.len() + self.inner.in_flight()
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
