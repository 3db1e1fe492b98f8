//! The segment log: numbered records in a chain of segment files, durable in groups.
//!
//! - `format`: the bytes; `docs/format.md` has the diagrams and the proof of recovery.
//! - `segment`: the files; `maker` and `ahead` make the next one; `recovery`: opening.
//! - `append` puts records into a shared buffer; `core` lets one of those who wait lead; `writer` is what the leader
//!   does; `keeper` is the log's thread, for what nobody waits in; `task` waits without blocking.
//! - `source` reads blocks ahead, `commits` follows them, `frames` finds their records: on these stand `reader` (a segment's
//!   records), `scan` (a log's) and `follow` (those that are still to come), `tail` (where the newest segment ends),
//!   `inspect` and `dump`.
//!
//! Invariants:
//! 1. A record is acknowledged only once it and all before it are durable.
//! 2. After a crash the log is a contiguous prefix of what was appended, with everything that was acknowledged;
//!    records appended by one [`Log::append_batch`] are there together or not at all.
//! 3. Only what could have been in flight is cut off silently; any other unsound byte is an error that names file,
//!    offset, expected and got.
//! 4. After a failed write or sync every call answers [`Poisoned`](crate::Error::Poisoned).
//!
//! Memory: seven buffers of [`LogOptions::buffer_bytes`] for the log's life, what large records take until they are written,
//! and 12 MiB for each scan.
//!
//! Known limits: damage to the very last commits, which no later block proves to have been durable, looks like a torn
//! tail.

mod ahead;
mod append;
mod begin;
mod commits;
mod core;
mod counters;
mod dump;
mod follow;
#[doc(hidden)]
pub mod format;
mod frames;
mod inspect;
mod keeper;
mod maker;
mod options;
mod reader;
mod recovery;
mod scan;
mod segment;
mod source;
mod tail;
mod task;
mod writer;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use begin::begin;
pub use dump::{BlockState, Dump, DumpBlock, DumpLine, DumpRecord, DumpSegment, dump};
pub use follow::Follower;
pub use inspect::{decode_segment, inspect};
pub use options::{LogOptions, LogReport, LogStats, Record, SegmentReport, Seq};
pub use scan::{Scan, ScanOptions};
pub use task::WhenDurable;

use self::core::Core;
use self::keeper::Keeper;
use self::scan::{End, Part};
use self::segment::Kept;
use crate::disk::{DirLock, Disk};
use crate::sabotage::{Check, checked};
use crate::{Error, Result};

/// The most bytes of one record.
pub const MOST_RECORD: usize = 1 << 30;

/// Locks what holds no invariant across a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An append-only log of records in one directory.
///
/// Any number of threads append, without a lock; each waits for durability only when it asks for it. One of those who wait
/// writes for all. The log's own thread makes segments ahead of their need, and works for those who wait in a future.
///
/// ```
/// use backstay_storage::log::{Log, LogOptions};
/// # let dir = tempfile::tempdir()?;
/// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
/// let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options.clone())?;
/// log.append(b"first")?;
/// log.append(b"second")?;
/// assert_eq!(log.commit()?, 2); // one durable write for both
/// drop(log);
///
/// let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 2, options)?;
/// let records = log.scan(1)?.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(records[1].payload, "second");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Log {
    core: Arc<Core>,
    /// Ends the thread, if there is one, when the log is dropped.
    _keeper: Option<Keeper>,
    /// Of a log that stands alone. Last: nothing is written any more when it is let go.
    lock: Option<Arc<DirLock>>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.core.dir).field("durable", &self.durable()).finish_non_exhaustive()
    }
}

/// The identity of the store that the log in `dir` belongs to; `None` if there is no segment. Reads only.
pub(crate) fn store_id(disk: &dyn Disk, dir: &Path) -> Result<Option<u128>> {
    if disk.metadata(dir)?.is_none() {
        return Ok(None);
    }
    let newest = segment::list(disk, dir)?.segments.pop();
    newest.map(|name| Ok(segment::read_front(disk, &name, false)?.header.store_id)).transpose()
}

impl Log {
    /// Opens (recovering) or creates the log in `dir`, whose parent is there or can be made.
    ///
    /// `store_id` must be the one that it was created with; `epoch` must be larger than [`Log::newest_epoch`]. The caller
    /// holds the directory's lock. What was in flight at a crash is cut off; the new records go to a new segment.
    ///
    /// # Errors
    /// [`Error::Damaged`] for anything unsound that could not have been in flight, or another store's log;
    /// [`Error::Unsupported`] for another format version; [`Error::Invalid`] for an epoch that is not new.
    ///
    /// ```
    /// use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let disk = backstay_storage::disk::system();
    /// let epoch = Log::newest_epoch(&*disk, dir.path())? + 1;
    /// let log = Log::open(disk, dir.path(), 7, epoch, LogOptions { segment_bytes: 1 << 16, ..Default::default() })?;
    /// assert_eq!((log.durable(), log.next_seq(), log.first_seq()), (0, 1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, store_id: u128, epoch: u64, options: LogOptions) -> Result<Log> {
        Self::open_locked(disk, dir, store_id, epoch, options, None)
    }

    fn open_locked(
        disk: Arc<dyn Disk>,
        dir: &Path,
        store_id: u128,
        epoch: u64,
        options: LogOptions,
        lock: Option<Arc<DirLock>>,
    ) -> Result<Log> {
        let opened = recovery::open(&disk, dir, store_id, epoch, &options)?;
        let core = Arc::new(Core::new(disk, dir.into(), options, opened)?);
        let keeper = core.mail.clone().map(|mail| Keeper::start(core.clone(), mail, lock.clone())).transpose()?;
        Ok(Self { core, _keeper: keeper, lock })
    }

    /// Opens or creates a log that stands alone: locks `dir` for as long as the log lives, keeps the identity that the log
    /// there has (`new_id`, 128 bits that the caller drew, if there is none yet), and counts the epoch on.
    ///
    /// # Errors
    /// As [`Log::open`]; [`Error::Locked`] if somebody else has it open.
    ///
    /// ```
    /// use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = || LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// let log = Log::open_alone(backstay_storage::disk::system(), dir.path(), 0xfeed, options())?;
    /// let seq = log.append(b"kept")?;
    /// log.wait_durable(seq)?;
    /// drop(log); // or kill -9
    /// let log = Log::open_alone(backstay_storage::disk::system(), dir.path(), 0, options())?;
    /// assert_eq!(log.scan(1)?.next().expect("a record")?.payload, "kept");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_alone(disk: Arc<dyn Disk>, dir: &Path, new_id: u128, options: LogOptions) -> Result<Log> {
        disk.create_dir_all(dir)?;
        let lock = Arc::new(disk.lock_dir(dir)?);
        disk.probe(dir)?;
        let id = store_id(&*disk, dir)?.unwrap_or(new_id);
        let epoch = Self::newest_epoch(&*disk, dir)? + 1;
        Self::open_locked(disk, dir, id, epoch, options, Some(lock))
    }

    /// The epoch of the newest segment, which is the largest of any; 0 if there is no log. Reads only.
    ///
    /// ```
    /// use backstay_storage::log::Log;
    /// # let dir = tempfile::tempdir()?;
    /// assert_eq!(Log::newest_epoch(&*backstay_storage::disk::system(), dir.path())?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn newest_epoch(disk: &dyn Disk, dir: &Path) -> Result<u64> {
        if disk.metadata(dir)?.is_none() {
            return Ok(0);
        }
        let newest = segment::list(disk, dir)?.segments.pop();
        let front = newest.map(|name| segment::read_front(disk, &name, false)).transpose()?;
        Ok(front.map_or(0, |front| front.header.epoch))
    }

    /// Buffers a record and returns its number. It is durable after [`Log::wait_durable`] or [`Log::commit`].
    ///
    /// Takes no lock, and does not wait for the disk unless all buffers are full.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a payload of more than [`MOST_RECORD`] bytes.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// let seq = log.append(b"payload")?;
    /// log.wait_durable(seq)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append(&self, payload: &[u8]) -> Result<Seq> {
        self.core.check()?;
        self.core.append(payload)
    }

    /// Buffers records that become durable together: after a crash all of them are there, or none.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// assert_eq!(log.append_batch(&[b"a", b"b"])?, 1..3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append_batch(&self, payloads: &[&[u8]]) -> Result<Range<Seq>> {
        self.core.check()?;
        self.core.append_batch(payloads)
    }

    /// Starts writing what is buffered, without waiting for it, so that the caller's work overlaps the disk's.
    ///
    /// If as much is in flight as [`LogOptions::window`] allows, the write starts when some of it has ended and a
    /// caller waits for or submits something. Only a full segment makes this call wait: for what is in flight, and for
    /// its successor if that is not there yet.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// let seq = log.append(b"step 1")?;
    /// log.submit()?;
    /// // … the step's work …
    /// log.wait_durable(seq)?;
    /// assert_eq!(log.durable(), seq);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit(&self) -> Result<()> {
        self.core.check()?;
        self.core.submit()
    }

    /// Waits until record `seq` and all before it are durable, writing what is needed.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `seq` was not appended yet.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// assert!(log.wait_durable(1).is_err());
    /// log.append(b"x")?;
    /// log.wait_durable(1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_durable(&self, seq: Seq) -> Result<()> {
        self.check_appended(seq)?;
        self.core.wait_durable(seq)
    }

    fn check_appended(&self, seq: Seq) -> Result<()> {
        self.core.check()?;
        let next = self.next_seq();
        if seq >= next {
            return Err(Error::Invalid(format!("record {seq} was not appended: the next is {next}")));
        }
        Ok(())
    }

    /// As [`Log::wait_durable`], without blocking the thread: a future that ends when record `seq` is durable.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # use std::task::{Context, Poll, Waker};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// let seq = log.append(b"x")?;
    /// let mut durable = std::pin::pin!(log.when_durable(seq)?);
    /// // any executor will do; this is the simplest
    /// while durable.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
    ///     std::thread::yield_now();
    /// }
    /// assert_eq!(log.durable(), seq);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn when_durable(&self, seq: Seq) -> Result<WhenDurable> {
        self.check_appended(seq)?;
        Ok(WhenDurable::new(self.core.clone(), seq, self.lock.clone()))
    }

    /// Makes everything appended so far durable and returns the last record's number (0 for an empty log).
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// log.append(b"x")?;
    /// assert_eq!((log.commit()?, log.durable()), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn commit(&self) -> Result<Seq> {
        self.core.check()?;
        let last = self.next_seq().saturating_sub(1);
        self.core.wait_durable(last)?;
        Ok(last)
    }

    /// The last record that is known to be durable; 0 if none is.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// log.append(b"x")?;
    /// assert_eq!(log.durable(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn durable(&self) -> Seq {
        self.core.durable()
    }

    /// The number that the next record gets.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// let next = log.next_seq();
    /// assert_eq!(log.append(b"x")?, next);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_seq(&self) -> Seq {
        self.core.gather.next_seq()
    }

    /// The oldest record that is kept, or what the next one gets if none is.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// assert_eq!(log.first_seq(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn first_seq(&self) -> Seq {
        // Known since the log was opened, or since the segment was looked at to trim the one before.
        let oldest = lock(&self.core.segments).kept.front().cloned();
        oldest.and_then(|s| s.first_seq(&*self.core.disk).ok()).unwrap_or(1)
    }

    /// Reads the records from `from` (0 is taken as 1) up to what is durable now.
    ///
    /// Trimming below `from` does not disturb the scan; trimming what it has still to read makes it fail.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `from` was trimmed. The iterator yields [`Error::Damaged`] at the first unsound byte and ends.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// log.append_batch(&[b"a", b"b", b"c"])?;
    /// log.commit()?;
    /// let seqs = log.scan(2)?.map(|r| r.map(|r| r.seq)).collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(seqs, [2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scan(&self, from: Seq) -> Result<Scan> {
        self.scan_with(ScanOptions::from(from))
    }

    /// As [`Log::scan`], with a say in how it reads.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions, ScanOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// log.append_batch(&[b"a", b"b"])?;
    /// log.commit()?;
    /// let records = log.scan_with(ScanOptions { read_ahead: 8, ..ScanOptions::from(2) })?.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(records[0].payload, "b");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scan_with(&self, options: ScanOptions) -> Result<Scan> {
        self.core.check()?;
        Ok(Scan::new(self.core.disk.clone(), self.parts_from(options.from.max(1))?.into(), options))
    }

    /// A reader of the records from `from` on (0 is taken as 1) that goes on with those still to come.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// let mut follower = log.follow(1);
    /// assert!(follower.try_next()?.is_none());
    /// log.append(b"a")?;
    /// log.commit()?;
    /// assert_eq!(follower.try_next()?.map(|r| r.payload), Some("a".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn follow(&self, from: Seq) -> Follower<'_> {
        Follower::new(self.core.disk.clone(), self, from)
    }

    /// The segments that hold durable records from `from` on, as they are now.
    fn parts_from(&self, from: Seq) -> Result<Vec<Part>> {
        let disk = &*self.core.disk;
        let (kept, tail) = {
            let segments = lock(&self.core.segments);
            (segments.kept.iter().cloned().collect::<Vec<_>>(), segments.tail)
        };
        if let Some(oldest) = kept.first()
            && oldest.first_seq(disk)? > from
        {
            let first = oldest.first_seq(disk)?;
            return Err(Error::Invalid(format!("record {from} is no longer in the log: the first kept is {first}")));
        }
        if tail.last_seq < from {
            return Ok(Vec::new());
        }
        let start = last_that(&kept, |s| Ok(s.first_seq(disk)? <= from))?;
        let mut parts: Vec<Part> = kept
            .windows(2)
            .skip(start)
            .filter_map(|pair| match pair {
                [kept, next] => Some(Part { kept: kept.clone(), end: End::Sealed(next.clone()) }),
                _ => None,
            })
            .collect();
        if let Some(newest) = kept.last().filter(|_| tail.end > format::DATA_START) {
            parts.push(Part { kept: newest.clone(), end: End::Tail(tail) });
        }
        Ok(parts)
    }

    /// Drops the segments that hold only records before `seq`, oldest first. The one that is written stays.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 8192, compress_over: None, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// for _ in 0..3 {
    ///     log.append(&[0; 4000])?; // here a segment holds one
    ///     log.commit()?;
    /// }
    /// log.trim_before(3)?;
    /// assert_eq!(log.first_seq(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn trim_before(&self, seq: Seq) -> Result<()> {
        let core = &self.core;
        core.check()?;
        let _trimming = lock(&core.trimming);
        loop {
            let second = lock(&core.segments).kept.get(1).cloned();
            // A successor's first record tells that all before it lie in older segments.
            match second {
                Some(second) if second.first_seq(&*core.disk)? <= seq => {}
                _ => return Ok(()),
            }
            let Some(oldest) = lock(&core.segments).kept.pop_front() else { return Ok(()) };
            core.retire(oldest).map_err(|e| core.fail(e))?;
            core.counters.trimmed();
        }
    }

    /// Bytes on disk that hold records or will: the lengths of the segments that have begun. At most
    /// [`LogOptions::spare_segments`] more wait to be used again, and one is made ahead.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// assert_eq!(log.bytes(), 1 << 16);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bytes(&self) -> u64 {
        self.core.bytes()
    }

    /// Counters since it was opened.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// log.append_batch(&[b"a", b"b"])?;
    /// log.commit()?;
    /// assert_eq!((log.stats().records, log.stats().commits), (2, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> LogStats {
        self.core.counters.snapshot()
    }
}

impl Core {
    /// Takes the oldest segment off the disk: its file becomes a free one if it may, or is removed. Each is durable before
    /// the next: the numbers on disk never have a hole.
    fn retire(&self, oldest: Arc<Kept>) -> Result<()> {
        let wanted = recovery::segment_bytes(&self.options, 0);
        let spares = lock(&self.segments).free.len();
        // Nobody can come to hold it any more: it is not on the list.
        let pinned = Arc::strong_count(&oldest) > 1 && checked(Check::LogPin);
        if pinned || oldest.file_len != wanted || spares >= self.options.spare_segments {
            self.disk.remove(&oldest.path)?;
            return if checked(Check::LogRemoveSync) { self.disk.sync_dir(&self.dir) } else { Ok(()) };
        }
        let name = segment::Name { id: oldest.id, path: oldest.path.clone(), file_len: oldest.file_len };
        let free = segment::put_aside(&*self.disk, &self.dir, name, Check::LogFreeSync)?;
        lock(&self.segments).free.extend(free);
        Ok(())
    }
}

/// The last of these, in order, for which `is` holds; the first if it holds for none.
fn last_that(kept: &[Arc<Kept>], is: impl Fn(&Kept) -> Result<bool>) -> Result<usize> {
    // The newest is asked for most.
    let (mut low, mut high) = (0, kept.len());
    let mut at = high.saturating_sub(1);
    while low < high {
        match kept.get(at) {
            Some(kept) if is(kept)? => low = at + 1,
            _ => high = at,
        }
        at = low + (high - low) / 2;
    }
    Ok(low.saturating_sub(1))
}

#[cfg(test)]
mod tests;
