//! Group commit without a thread: whoever waits for the disk writes for all.
//!
//! Appends go to a buffer under a mutex that is held for a copy only. The thread that gets the writer takes all that
//! is buffered, as one commit and one durable write. While it waits for the disk, others append; the next to get the
//! writer takes all of theirs.
//!
//! Invariants:
//! 1. A block is written once. A commit starts where the one before ends.
//! 2. Several commits may be in flight; the durable end moves over a contiguous prefix of them only, so `durable`
//!    never passes a write that has not ended.
//! 3. A commit starts at most `window` bytes behind the durable end that its blocks promise.
//! 4. The first failed call poisons the log. No write or sync is tried again (invariant 6 of the design).
//!
//! Known limit: a full segment's successor is made, zeros and all, by the thread that needs it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::format::{BLOCK_BYTES, Commit, Header, Identity, RecordHead, blocks_for, encode_commit, encode_record};
use super::recovery::segment_bytes;
use super::tail::Tail;
use super::{Log, Seq, segment};
use crate::disk::{Completion, File, IoQueue, Op};
use crate::{Error, Result};

/// Most writes in flight at once.
pub(super) const DEPTH: usize = 16;

/// A segment that is kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub path: PathBuf,
    pub header: Header,
    pub file_len: u64,
    /// What of it may be read: all that counts, or what is durable of the newest.
    pub tail: Tail,
}

impl Kept {
    pub(super) fn new(path: PathBuf, header: Header, file_len: u64, tail: Tail) -> Self {
        Self { path, header, file_len, tail }
    }
}

/// Records that no write has taken yet.
#[derive(Debug)]
pub(super) struct Buffer {
    /// The records, framed.
    pub stream: Vec<u8>,
    records: u32,
    pub next_seq: Seq,
}

impl Buffer {
    pub(super) fn new(next_seq: Seq) -> Self {
        Self { stream: Vec::new(), records: 0, next_seq }
    }

    /// Whether `more` records may be added to the commit that is being gathered.
    pub(super) fn takes(&self, more: usize) -> bool {
        u32::try_from(more).is_ok_and(|more| self.records.checked_add(more).is_some())
    }

    /// Adds a record whose payload is stored as `stored`.
    pub(super) fn push(&mut self, stored: &[u8], raw: u32, zstd: bool) {
        let head = RecordHead { seq: self.next_seq, stored: stored.len() as u32, raw, zstd };
        encode_record(&mut self.stream, head, stored);
        self.records += 1;
        self.next_seq += 1;
    }
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    pub file: Arc<dyn File>,
    pub header: Header,
    pub identity: Identity,
    /// Where the next commit starts.
    pub next: u64,
    /// Below this all is durable.
    pub durable: u64,
}

/// A commit in flight.
#[derive(Debug)]
struct Write {
    token: u64,
    end: u64,
    last_seq: Seq,
    done: bool,
}

/// Who holds it does the I/O.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Box<dyn IoQueue>,
    active: Active,
    in_flight: VecDeque<Write>,
    /// The last record that a write was started for.
    submitted: Seq,
    next_token: u64,
    /// An empty buffer to swap for the full one.
    spare: Vec<u8>,
}

impl Writer {
    pub(super) fn new(queue: Box<dyn IoQueue>, active: Active, last_seq: Seq) -> Self {
        Self { queue, active, in_flight: VecDeque::new(), submitted: last_seq, next_token: 0, spare: Vec::new() }
    }

    /// Whether another commit may be started (invariant 3).
    fn has_room(&self) -> bool {
        let ahead = self.active.next - self.active.durable;
        self.in_flight.is_empty() || (self.in_flight.len() < DEPTH && ahead <= self.active.header.window)
    }
}

/// Locks what holds no invariant across a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Fails if something failed before.
    pub(super) fn check(&self) -> Result<()> {
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Poisons the log with a failure of its own.
    pub(super) fn fail(&self, error: Error) -> Error {
        // Only the first is kept: what comes after may be its consequence.
        let _ = self.poison.set(error.to_string());
        error
    }

    fn panicked(&self) -> Error {
        self.fail(Error::Poisoned { cause: "a thread panicked while it wrote the log".into() })
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let writer = self.writer.lock().map_err(|_| self.panicked())?;
        self.check()?;
        Ok(writer)
    }

    /// The writer, unless another thread has it.
    fn try_writer(&self) -> Result<Option<MutexGuard<'_, Writer>>> {
        let writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Poisoned(_)) => return Err(self.panicked()),
        };
        self.check()?;
        Ok(Some(writer))
    }

    /// Writes out the buffer if it holds more than it should.
    pub(super) fn make_room(&self) -> Result<()> {
        let full = || lock(&self.buffer).stream.len() > self.options.buffer_bytes;
        if !full() {
            return Ok(());
        }
        let mut writer = self.writer()?;
        // Another thread may have done it while this one waited for the writer.
        if full() {
            while !writer.has_room() {
                self.harvest(&mut writer, 1)?;
            }
            self.start(&mut writer)?;
        }
        drop(writer);
        self.run_wanted()
    }

    /// Starts a write of what is buffered if the writer is free; else its holder does, or finds it done.
    pub(super) fn run_wanted(&self) -> Result<()> {
        loop {
            // The flag was set, or the writer was let go, before this fence; the flag is read, or the writer is tried,
            // behind it. So of a caller of submit and the writer's holder, one sees what the other did.
            fence(Ordering::SeqCst);
            if !self.wanted.load(Ordering::Relaxed) {
                return Ok(());
            }
            let Some(mut writer) = self.try_writer()? else { return Ok(()) };
            self.harvest(&mut writer, 0)?;
            if !writer.has_room() {
                // Whoever waits for the writes in flight looks at the flag too.
                return Ok(());
            }
            if self.wanted.swap(false, Ordering::Relaxed) {
                self.start(&mut writer)?;
            }
        }
    }

    /// Waits until `seq`, which was appended, is durable.
    pub(super) fn drive(&self, seq: Seq) -> Result<()> {
        let durable = || self.durable.load(Ordering::Acquire) >= seq;
        if durable() {
            return Ok(());
        }
        let mut writer = self.writer()?;
        while !durable() {
            if writer.has_room() && (writer.submitted < seq || self.wanted.swap(false, Ordering::Relaxed)) {
                self.start(&mut writer)?;
            }
            self.harvest(&mut writer, 1)?;
        }
        drop(writer);
        // A failure here is not this caller's: its record is durable. The next call will tell of it.
        let _ = self.run_wanted();
        Ok(())
    }

    /// Takes what is buffered as one commit and starts its write. There must be room.
    fn start(&self, writer: &mut Writer) -> Result<()> {
        let (stream, records, first_seq) = {
            let mut buffer = lock(&self.buffer);
            let records = std::mem::take(&mut buffer.records);
            let stream = std::mem::replace(&mut buffer.stream, std::mem::take(&mut writer.spare));
            (stream, records, buffer.next_seq - u64::from(records))
        };
        if records == 0 {
            writer.spare = stream;
            return Ok(());
        }
        let blocks = blocks_for(stream.len());
        let bytes = blocks * BLOCK_BYTES;
        if writer.active.next + bytes > writer.active.header.segment_bytes {
            self.roll(writer, bytes)?;
        }
        let Active { file, identity, next, durable, .. } = &mut writer.active;
        let blocks = u32::try_from(blocks).map_err(|_| {
            self.fail(Error::Invalid(format!("a commit of {bytes} bytes is too large; commit more often")))
        })?;
        let commit = Commit { start: *next, blocks, first_seq, records, promised: *durable };
        let buf = encode_commit(&stream, &commit, identity);
        let (token, end, last_seq) = (writer.next_token, commit.end(), commit.last_seq());
        let op = Op::Write { file: file.clone(), offset: *next, buf, durable: true };
        *next = end;
        writer.next_token += 1;
        writer.submitted = last_seq;
        writer.in_flight.push_back(Write { token, end, last_seq, done: false });
        writer.queue.submit(vec![(token, op)]).map_err(|e| self.fail(e))?;
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.counters.commit_bytes.fetch_add(bytes, Ordering::Relaxed);
        writer.spare = stream;
        writer.spare.clear();
        writer.spare.shrink_to(self.options.buffer_bytes.saturating_mul(2));
        Ok(())
    }

    /// Waits for `at_least` writes to end and moves the durable end over those that have no gap before them.
    fn harvest(&self, writer: &mut Writer, at_least: usize) -> Result<()> {
        for Completion { token, buf, result } in writer.queue.wait(at_least).map_err(|e| self.fail(e))? {
            let (written, len) = (result.map_err(|e| self.fail(e))?, buf.map_or(0, |b| b.len()));
            if written != len {
                return Err(self.fail(segment::short_write(writer.active.file.path(), written, len)));
            }
            if let Some(write) = writer.in_flight.iter_mut().find(|w| w.token == token) {
                write.done = true;
            }
        }
        let mut tail = None;
        while let Some(write) = writer.in_flight.pop_front_if(|w| w.done) {
            tail = Some(Tail { end: write.end, last_seq: write.last_seq });
        }
        if let Some(tail) = tail {
            writer.active.durable = tail.end;
            // First what a scan may see, then the number that lets callers go and scan.
            if let Some(kept) = lock(&self.segments).back_mut() {
                kept.tail = tail;
            }
            self.durable.store(tail.last_seq, Ordering::Release);
        }
        Ok(())
    }

    /// Goes on in a new segment with room for a commit of `commit` bytes.
    fn roll(&self, writer: &mut Writer, commit: u64) -> Result<()> {
        // The new header fixes the old length for ever, so everything before it has to be durable first.
        while !writer.in_flight.is_empty() {
            self.harvest(writer, 1)?;
        }
        let old = &writer.active;
        let header = Header {
            segment: old.header.segment + 1,
            segment_bytes: segment_bytes(&self.options, commit),
            window: self.options.window,
            first_seq: self.durable.load(Ordering::Acquire) + 1,
            prev_len: old.durable,
            ..old.header
        };
        let file =
            segment::create(&*self.disk, &mut *writer.queue, DEPTH, &self.dir, &header).map_err(|e| self.fail(e))?;
        let path = segment::path_of(&self.dir, header.segment);
        let empty = Tail { end: BLOCK_BYTES, last_seq: header.first_seq - 1 };
        lock(&self.segments).push_back(Kept::new(path, header.clone(), header.segment_bytes, empty));
        writer.active =
            Active { file, identity: Identity::of(&header), header, next: BLOCK_BYTES, durable: BLOCK_BYTES };
        self.counters.segments_created.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
