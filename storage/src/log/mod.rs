//! The segment log: numbered records in a chain of segment files, durable in groups.
//!
//! - `format`: the bytes; `docs/format.md` has the diagrams and the proof of recovery.
//! - `segment`: the files; `recovery`: opening; `writer`: group commit.
//! - `source` reads blocks ahead, `commits` follows them, `frames` finds their records: on these stand `reader` (a segment's
//!   records), `scan` (a log's), `tail` (where the newest segment ends) and `inspect`.
//!
//! Invariants:
//! 1. A record is acknowledged only once it and all before it are durable.
//! 2. After a crash the log is a contiguous prefix of what was appended, with everything that was acknowledged;
//!    records appended by one [`Log::append_batch`] are there together or not at all.
//! 3. Only what could have been in flight is cut off silently; any other unsound byte is an error that names file,
//!    offset, expected and got.
//! 4. After a failed write or sync every call answers [`Poisoned`](crate::Error::Poisoned).
//!
//! Known limits: damage to the very last commits, which no later block proves to have been durable, looks like a torn
//! tail. Segments are not recycled yet: a new one is written with zeros when the old one is full.

mod commits;
#[doc(hidden)]
pub mod format;
mod frames;
mod inspect;
mod options;
mod reader;
mod recovery;
mod scan;
mod segment;
mod source;
mod tail;
mod writer;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use zstd::bulk::Compressor;

pub use inspect::{decode_segment, inspect};
pub use options::{LogOptions, LogReport, LogStats, Record, SegmentReport, Seq};
pub use scan::{Scan, ScanOptions};

use self::scan::Part;
use self::writer::{Buffer, Kept, Writer, lock};
use crate::disk::Disk;
use crate::{Error, Result};

/// zstd's fastest standard level: the log is written at the speed of the input.
const ZSTD_LEVEL: i32 = 1;

/// An append-only log of records in one directory.
///
/// Any number of threads append; each waits for durability only when it asks for it. There is no thread inside: one
/// of those who wait writes for all.
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
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: LogOptions,
    /// Locked for a copy only. Taken alone, or while `writer` is held.
    buffer: Mutex<Buffer>,
    /// Locked for as long as its holder waits for the disk.
    writer: Mutex<Writer>,
    /// Oldest first, the last is written. Locked for moments, last of all.
    segments: Mutex<VecDeque<Kept>>,
    /// Held by a trim from start to end.
    trimming: Mutex<()>,
    durable: AtomicU64,
    /// Someone wants what is buffered to be written soon.
    wanted: AtomicBool,
    /// Why nothing works any more.
    poison: OnceLock<String>,
    compressors: Mutex<Vec<Compressor<'static>>>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    records: AtomicU64,
    payload_bytes: AtomicU64,
    commits: AtomicU64,
    commit_bytes: AtomicU64,
    segments_created: AtomicU64,
    segments_trimmed: AtomicU64,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.dir).field("durable", &self.durable()).finish_non_exhaustive()
    }
}

/// The identity of the store that the log in `dir` belongs to; `None` if there is no segment. Reads only.
pub(crate) fn store_id(disk: &dyn Disk, dir: &Path) -> Result<Option<u128>> {
    if disk.metadata(dir)?.is_none() {
        return Ok(None);
    }
    let newest = segment::list(disk, dir)?.segments.pop();
    newest.map(|name| Ok(segment::read_header(disk, name)?.header.store_id)).transpose()
}

/// A payload as it will be stored.
struct Stored<'a> {
    bytes: Cow<'a, [u8]>,
    raw: u32,
    zstd: bool,
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
        let opened = recovery::open(&*disk, dir, store_id, epoch, &options)?;
        Ok(Self {
            disk,
            dir: dir.into(),
            options,
            buffer: Mutex::new(Buffer::new(opened.last_seq + 1)),
            writer: Mutex::new(opened.writer),
            segments: Mutex::new(opened.segments),
            trimming: Mutex::default(),
            durable: AtomicU64::new(opened.last_seq),
            wanted: AtomicBool::new(false),
            poison: OnceLock::new(),
            compressors: Mutex::default(),
            counters: Counters { segments_created: AtomicU64::new(1), ..Counters::default() },
        })
    }

    /// The largest epoch named in any segment header; 0 if there is no log. Reads only.
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
        let chain = segment::read_chain(disk, segment::list(disk, dir)?.segments)?;
        Ok(chain.iter().map(|s| s.header.epoch).max().unwrap_or(0))
    }

    /// Buffers a record and returns its number. It is durable after [`Log::wait_durable`] or [`Log::commit`].
    ///
    /// Does not wait for the disk unless more than [`LogOptions::buffer_bytes`] are buffered.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a payload of 4 GiB or more.
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
        self.append_batch(&[payload]).map(|seqs| seqs.start)
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
        self.check()?;
        // Outside of the lock: compression is what takes time.
        let stored = payloads.iter().map(|payload| self.stored(payload)).collect::<Result<Vec<_>>>()?;
        self.make_room()?;
        let mut buffer = lock(&self.buffer);
        if !buffer.takes(stored.len()) {
            return Err(Error::Invalid(format!(
                "{} records are too many for one commit; commit more often",
                stored.len()
            )));
        }
        let first = buffer.next_seq;
        for Stored { bytes, raw, zstd } in &stored {
            buffer.push(bytes, *raw, *zstd);
        }
        let next = buffer.next_seq;
        drop(buffer);
        self.counters.records.fetch_add(next - first, Ordering::Relaxed);
        self.counters.payload_bytes.fetch_add(payloads.iter().map(|p| p.len() as u64).sum(), Ordering::Relaxed);
        Ok(first..next)
    }

    /// A payload as it is stored: compressed if it is long and that makes it smaller.
    fn stored<'a>(&self, payload: &'a [u8]) -> Result<Stored<'a>> {
        let raw = u32::try_from(payload.len()).map_err(|_| {
            Error::Invalid(format!("a record of {} bytes is too large: the limit is {} bytes", payload.len(), u32::MAX))
        })?;
        let plain = Stored { bytes: Cow::Borrowed(payload), raw, zstd: false };
        if self.options.compress_over.is_none_or(|over| payload.len() <= over) {
            return Ok(plain);
        }
        let kept = lock(&self.compressors).pop();
        // A compressor that cannot be made, or fails, costs space only.
        let Some(mut compressor) = kept.or_else(|| Compressor::new(ZSTD_LEVEL).ok()) else { return Ok(plain) };
        let compressed = compressor.compress(payload);
        lock(&self.compressors).push(compressor);
        Ok(match compressed {
            Ok(bytes) if bytes.len() < payload.len() => Stored { bytes: Cow::Owned(bytes), raw, zstd: true },
            _ => plain,
        })
    }

    /// Starts writing what is buffered, without waiting for it, so that the caller's work overlaps the disk's.
    ///
    /// If as much is in flight as [`LogOptions::window`] allows, the write starts when some of it has ended and a
    /// caller waits for or submits something. Only a full segment makes this call wait: for its successor to be made.
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
        self.check()?;
        self.wanted.store(true, Ordering::Relaxed);
        self.run_wanted()
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
        self.check()?;
        let next = self.next_seq();
        if seq >= next {
            return Err(Error::Invalid(format!("record {seq} was not appended: the next is {next}")));
        }
        self.drive(seq)
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
        self.check()?;
        let last = self.next_seq() - 1;
        self.drive(last)?;
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
        self.durable.load(Ordering::Acquire)
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
        lock(&self.buffer).next_seq
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
        lock(&self.segments).front().map_or(1, |s| s.header.first_seq)
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
        self.check()?;
        Ok(Scan::new(self.disk.clone(), self.parts_from(options.from.max(1))?.into(), options))
    }

    /// The segments that hold durable records from `from` on, as they are now.
    fn parts_from(&self, from: Seq) -> Result<Vec<Part>> {
        let segments = lock(&self.segments);
        let first = segments.front().map_or(1, |s| s.header.first_seq);
        if from < first {
            return Err(Error::Invalid(format!("record {from} is no longer in the log: the first kept is {first}")));
        }
        let last = segments.len().saturating_sub(1);
        let wanted = segments.iter().enumerate().filter(|(_, s)| s.tail.last_seq >= from);
        Ok(wanted.map(|(i, s)| Part::of(Arc::new(s.clone()), i < last)).collect())
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
        self.check()?;
        let _trimming = lock(&self.trimming);
        loop {
            let oldest = {
                let mut segments = lock(&self.segments);
                // A successor's first record tells that all before it lie in older segments.
                match segments.get(1).is_some_and(|next| next.header.first_seq <= seq) {
                    true => segments.pop_front(),
                    false => None,
                }
            };
            let Some(oldest) = oldest else { return Ok(()) };
            // Each removal is durable before the next: the numbers on disk never have a hole.
            self.disk.remove(&oldest.path).map_err(|e| self.fail(e))?;
            self.disk.sync_dir(&self.dir).map_err(|e| self.fail(e))?;
            self.counters.segments_trimmed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes on disk: the lengths of all segment files.
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
        lock(&self.segments).iter().map(|s| s.file_len).sum()
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
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            records: read(&self.counters.records),
            payload_bytes: read(&self.counters.payload_bytes),
            commits: read(&self.counters.commits),
            commit_bytes: read(&self.counters.commit_bytes),
            segments_created: read(&self.counters.segments_created),
            segments_trimmed: read(&self.counters.segments_trimmed),
        }
    }
}

#[cfg(test)]
mod tests;
