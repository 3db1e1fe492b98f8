//! What the spines of one store share: the disk, the open run files, I/O queues and the block cache.
//!
//! Invariants:
//! 1. A queue is used by one thread at a time (a write or merge that pauses takes its own along to the thread that goes on), and is put
//!    back only with nothing in flight.
//! 2. What is cached, unpacked blocks and filter pages, was verified when it was read, or is what this process has just written. The
//!    key holds the file's epoch and number, which are never reused, and the place.
//!
//! Known limit: the queues of threads that ended stay until [`MAX_QUEUES`] others were made.

mod cache;
mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, ThreadId};

pub(super) use cache::FrameCache;
pub(super) use pool::{Buffer, Pool};

use super::format::header::{self, FileHeader};
use super::format::{self, Malformed};
use super::memory::Memory;
use super::merger::Merger;
use super::meta::{parse_run_file_name, run_file_name};
use crate::disk::{ALIGN, AlignedBuf, Completion, Disk, File, IoQueue, Op, OpenOptions};
use crate::error::Cause;
use crate::sabotage::{Check, checked};
use crate::{Error, Result};

/// Operations in flight in one queue.
const DEPTH: usize = 64;
const MAX_QUEUES: usize = 64;
/// Bytes of blocks that are used and in no cache: those that merges and walks stand on.
const IN_TRANSIT: u64 = 4 << 20;
/// The most that [`SpineContext::small`] is.
const MOST_SMALL: u64 = 4 << 20;

/// Who is told of a failure.
type Tell = Box<dyn Fn(&Error) + Send + Sync>;

/// A run file that was opened and whose header was found sound.
#[derive(Debug)]
pub(super) struct RunHandle {
    pub(super) file: Arc<dyn File>,
    pub(super) path: PathBuf,
    pub(super) header: FileHeader,
    /// The seed of every checksum in the file.
    pub(super) ident: u64,
}

impl RunHandle {
    pub(super) fn new(file: Arc<dyn File>, path: PathBuf, header: FileHeader) -> Self {
        Self { file, path, header, ident: header.ident() }
    }
}

/// What the spines of one store share. Thread-safe.
///
/// ```
/// # use std::path::Path;
/// use backstay_storage::{disk::PosixDisk, spine::{Discipline, Spine, SpineContext, SpineMeta, SpineOptions}};
/// # let dir = tempfile::tempdir().unwrap();
/// let context = SpineContext::new(std::sync::Arc::new(PosixDisk::new()), dir.path(), 42, SpineOptions::default());
/// let spine = Spine::open(context, SpineMeta::empty("sums", Discipline::Latest, 1))?;
/// assert_eq!(spine.name(), "sums");
/// # Ok::<(), backstay_storage::Error>(())
/// ```
pub struct SpineContext {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    store_id: u128,
    cache: FrameCache,
    /// Of the blocks in the cache, and of others that are read.
    pool: Arc<Pool>,
    files: Mutex<Files>,
    queues: Mutex<Vec<(ThreadId, Box<dyn IoQueue>)>>,
    memory: Arc<Memory>,
    merger: Merger,
    /// Merges of less are left to checkpoints.
    small: u64,
    /// Why nothing works any more.
    failure: OnceLock<Cause>,
    /// Who is to be told of that.
    told: OnceLock<Tell>,
}

/// The names of run files.
#[derive(Debug, Default)]
struct Files {
    open: BTreeMap<String, Weak<RunHandle>>,
    /// Those that are being created.
    making: BTreeSet<String>,
    /// Epoch and number of the next.
    next: (u64, u64),
}

/// How the spines of one store use memory, and name their files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpineOptions {
    /// What memtables and cached blocks may hold together, in bytes. Default 512 MiB.
    pub memory_bytes: u64,
    /// How much of it is for cached blocks. `None`, the default: half.
    pub cache_bytes: Option<u64>,
    /// The first part of the names of new run files. Larger than that of any file in the directory, or files of this epoch would have
    /// to be opened before any is written. Default 1.
    pub epoch: u64,
}

impl Default for SpineOptions {
    fn default() -> Self {
        Self { memory_bytes: 512 << 20, cache_bytes: None, epoch: 1 }
    }
}

impl SpineContext {
    /// The context of the spines whose run files are in `dir` and belong to store `store_id`. Work beside the
    /// inserts (writing full memtables, merging) is done by whoever inserts: threads for that are a [`Store`](crate::Store)'s.
    ///
    /// ```
    /// # use std::path::Path;
    /// use backstay_storage::{disk::PosixDisk, spine::{SpineContext, SpineOptions}};
    /// let options = SpineOptions { memory_bytes: 64 << 20, ..SpineOptions::default() };
    /// let context = SpineContext::new(std::sync::Arc::new(PosixDisk::new()), Path::new("/tmp/runs"), 42, options);
    /// assert_eq!(context.cached_bytes(), 0);
    /// ```
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, store_id: u128, options: SpineOptions) -> Arc<Self> {
        let cache_bytes = options.cache_bytes.unwrap_or(options.memory_bytes / 2).min(options.memory_bytes);
        let bell = Arc::default();
        Arc::new(Self {
            disk,
            dir: dir.to_path_buf(),
            store_id,
            cache: FrameCache::new(cache_bytes),
            pool: Pool::new(cache_bytes.saturating_add(IN_TRANSIT)),
            files: Mutex::new(Files { next: (options.epoch, 1), ..Files::default() }),
            queues: Mutex::default(),
            memory: Memory::new(options.memory_bytes - cache_bytes, &bell),
            merger: Merger::new(&bell),
            small: (options.memory_bytes / 16).min(MOST_SMALL),
            failure: OnceLock::new(),
            told: OnceLock::new(),
        })
    }

    /// Bytes of unpacked blocks and filter pages in the cache.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::{disk::PosixDisk, spine::{SpineContext, SpineOptions}};
    /// # let options = SpineOptions::default();
    /// let context = SpineContext::new(std::sync::Arc::new(PosixDisk::new()), Path::new("/tmp/runs"), 42, options);
    /// assert_eq!(context.cached_bytes(), 0);
    /// ```
    pub fn cached_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Bytes in memtables, those included that are being written.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::{disk::PosixDisk, spine::{SpineContext, SpineOptions}};
    /// # let options = SpineOptions::default();
    /// let context = SpineContext::new(std::sync::Arc::new(PosixDisk::new()), Path::new("/tmp/runs"), 42, options);
    /// assert_eq!(context.memtable_bytes(), 0);
    /// ```
    pub fn memtable_bytes(&self) -> u64 {
        self.memory.all()
    }

    /// Fails if something failed before.
    pub(crate) fn check(&self) -> Result<()> {
        self.failure.get().map_or(Ok(()), |cause| Err(cause.into()))
    }

    /// Nothing works any more. Only the first cause is kept: what comes after may be its consequence.
    pub(super) fn fail(&self, error: &Error) {
        if self.failure.set(error.into()).is_ok()
            && let Some(tell) = self.told.get()
        {
            tell(error);
        }
        self.merger.changed();
    }

    /// Has `tell` told of the first failure of work beside the steps. Once.
    pub(crate) fn on_failure(&self, tell: impl Fn(&Error) + Send + Sync + 'static) {
        let _ = self.told.set(Box::new(tell));
    }

    /// Files that are made from here on are of this epoch.
    pub(crate) fn begin(&self, epoch: u64) {
        lock(&self.files).next = (epoch, 1);
    }

    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Brings the runs of all spines to what they are at rest.
    pub(crate) fn settle(self: &Arc<Self>) -> Result<()> {
        self.merger.settle(self)
    }

    /// Merges of runs that have ended.
    pub(crate) fn merges(&self) -> u64 {
        self.merger.merges()
    }

    pub(super) fn merger(&self) -> &Merger {
        &self.merger
    }

    pub(super) fn small(&self) -> u64 {
        self.small
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn cache(&self) -> &FrameCache {
        &self.cache
    }

    /// Opens a run file, or shares the handle that another run of it has.
    pub(super) fn open_file(&self, name: &str) -> Result<Arc<RunHandle>> {
        let mut files = lock(&self.files);
        if let Some(handle) = files.open.get(name).and_then(Weak::upgrade) {
            return Ok(handle);
        }
        let path = self.dir.join(name);
        let Some((epoch, number)) = parse_run_file_name(name) else {
            return Err(Error::Invalid(format!("{name:?} is not the name of a run file")));
        };
        let file = self.disk.open(&path, OpenOptions::READ_DIRECT)?;
        let mut bytes = vec![0; header::LEN];
        let read = file.read_at(&mut bytes, 0)?;
        let damaged = |malformed: Malformed| malformed.at(&path, 0, "run file header");
        let header = header::decode_header(bytes.get(..read).unwrap_or(&[])).map_err(damaged)?;
        if header.version != format::VERSION {
            let (expected, got) = (format::VERSION.to_string(), header.version.to_string());
            return Err(Error::Unsupported { path, what: "run format version", expected, got });
        }
        let expected = FileHeader::new(self.store_id, epoch, number);
        if header != expected && checked(Check::RunFileIdentity) {
            return Err(damaged(Malformed::new(format!("{expected:x?}"), format!("{header:x?}"))));
        }
        let handle = Arc::new(RunHandle::new(file, path, header));
        files.open.retain(|_, weak| weak.strong_count() > 0);
        files.open.insert(name.to_owned(), Arc::downgrade(&handle));
        if epoch == files.next.0 {
            files.next.1 = files.next.1.max(number.saturating_add(1));
        }
        Ok(handle)
    }

    /// Creates the next run file. From before it exists on, it is in use.
    pub(super) fn create_file(&self, options: OpenOptions) -> Result<Arc<RunHandle>> {
        let (epoch, number, name) = {
            let mut files = lock(&self.files);
            let (epoch, number) = files.next;
            files.next.1 += 1;
            let name = run_file_name(epoch, number);
            files.making.insert(name.clone());
            (epoch, number, name)
        };
        let path = self.dir.join(&name);
        let header = FileHeader::new(self.store_id, epoch, number);
        let made = self.disk.open(&path, options).map(|file| Arc::new(RunHandle::new(file, path, header)));
        let mut files = lock(&self.files);
        if let Ok(handle) = &made {
            // Every checkpoint makes one: those that are gone must not pile up.
            files.open.retain(|_, weak| weak.strong_count() > 0);
            files.open.insert(name.clone(), Arc::downgrade(handle));
        }
        files.making.remove(&name);
        made
    }

    /// Whether something in this process reads a run file, writes it, or is about to.
    pub(crate) fn is_in_use(&self, name: &str) -> bool {
        let files = lock(&self.files);
        files.making.contains(name) || files.open.get(name).is_some_and(|weak| weak.strong_count() > 0)
    }

    /// A queue of this thread's. Give it back with [`SpineContext::put_queue`]; after an error drop it.
    pub(super) fn take_queue(&self) -> Result<Box<dyn IoQueue>> {
        let mut queues = lock(&self.queues);
        let me = thread::current().id();
        if let Some(i) = queues.iter().position(|(owner, _)| *owner == me) {
            return Ok(queues.swap_remove(i).1);
        }
        drop(queues);
        self.disk.queue(DEPTH)
    }

    pub(super) fn put_queue(&self, queue: Box<dyn IoQueue>) {
        if queue.in_flight() > 0 {
            return;
        }
        let mut queues = lock(&self.queues);
        if queues.len() >= MAX_QUEUES {
            queues.remove(0);
        }
        queues.push((thread::current().id(), queue));
    }

    /// Reads byte ranges of run files in one batch, in any order and overlapped; the answers are in the order asked.
    pub(super) fn read(&self, wants: &[Want<'_>]) -> Result<Vec<Piece>> {
        let mut pieces: Vec<Option<Piece>> = wants.iter().map(|_| None).collect();
        self.read_each(wants, |i, piece| {
            if let Some(place) = pieces.get_mut(i) {
                *place = Some(piece);
            }
            Ok(())
        })?;
        let all: Option<Vec<Piece>> = pieces.into_iter().collect();
        all.ok_or_else(lost)
    }

    /// Reads byte ranges in one batch and hands over each as it arrives, with its number: what is done with one happens while the
    /// others are on their way. [`DEPTH`] are asked for at a time, so that buffers come round, and of a
    /// large batch the last are on their way while the first are handed over.
    pub(super) fn read_each(&self, wants: &[Want<'_>], mut take: impl FnMut(usize, Piece) -> Result<()>) -> Result<()> {
        if wants.is_empty() {
            return Ok(());
        }
        let mut queue = self.take_queue()?;
        let (mut asked, mut arrived): (usize, Vec<Completion>) = (0, Vec::new());
        loop {
            let some = wants.iter().enumerate().skip(asked).take(DEPTH - queue.in_flight().min(DEPTH));
            let ops = some.map(|(token, want)| Ok((token as u64, want.op()?))).collect::<Result<Vec<_>>>()?;
            if !ops.is_empty() {
                asked += ops.len();
                queue.submit(ops)?;
            }
            // Devices answer many at a time: the next ones are with it before these are looked at.
            for done in arrived {
                let number = usize::try_from(done.token).unwrap_or(usize::MAX);
                let want = wants.get(number).ok_or_else(lost)?;
                take(number, want.piece(done)?)?;
            }
            if queue.in_flight() == 0 {
                break;
            }
            arrived = queue.wait(1)?;
        }
        self.put_queue(queue);
        Ok(())
    }
}

/// The error of an answer that did not come.
pub(super) fn lost() -> Error {
    Error::Invalid("an I/O queue lost a read: a bug in the disk".into())
}

impl fmt::Debug for SpineContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpineContext").field("dir", &self.dir).field("disk", &self.disk).finish_non_exhaustive()
    }
}

/// A range of a run file to be read.
#[derive(Debug)]
pub(super) struct Want<'a> {
    pub(super) handle: &'a RunHandle,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Want<'_> {
    /// Start of the aligned range around it, and where it starts in that.
    fn aligned(&self) -> (u64, usize) {
        let skip = self.offset % ALIGN as u64;
        (self.offset - skip, skip as usize)
    }

    fn aligned_len(&self) -> Result<usize> {
        let (_, skip) = self.aligned();
        let len = usize::try_from(self.len).ok().and_then(|len| len.checked_add(skip));
        len.and_then(|len| len.checked_next_multiple_of(ALIGN)).ok_or_else(|| self.too_short(0))
    }

    /// The operation that reads it.
    pub(super) fn op(&self) -> Result<Op> {
        let (offset, _) = self.aligned();
        Ok(Op::Read { file: Arc::clone(&self.handle.file), offset, buf: AlignedBuf::zeroed(self.aligned_len()?) })
    }

    /// What the operation answered.
    pub(super) fn piece(&self, done: Completion) -> Result<Piece> {
        let read = done.result?;
        let (_, skip) = self.aligned();
        let end = usize::try_from(self.len).unwrap_or(usize::MAX).saturating_add(skip);
        if read < end {
            return Err(self.too_short(read.saturating_sub(skip)));
        }
        Ok(Piece { buf: done.buf.ok_or_else(lost)?, range: skip..end })
    }

    fn too_short(&self, got: usize) -> Error {
        let expected = format!("{} bytes", self.len);
        Error::damaged(&self.handle.path, self.offset, "run", expected, format!("{got} before the end of the file"))
    }
}

/// The bytes of a [`Want`].
#[derive(Debug)]
pub(super) struct Piece {
    buf: AlignedBuf,
    range: std::ops::Range<usize>,
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        self.buf.get(self.range.clone()).unwrap_or(&[])
    }
}

/// Locks, also after a panic elsewhere: what these locks guard is replaced whole, never half.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
