//! The writing half of the log, in the hands of whoever leads: takes what was gathered, makes commits of it, keeps
//! several in flight, and goes on in the next segment when one is full.
//!
//! Invariants:
//! 1. A block is written once. A commit starts where the one before ends.
//! 2. The durable end moves over a contiguous prefix of commits only: a commit counts once it and all before it have
//!    completed, and were durable writes or have been synced since.
//! 3. A commit starts at most `window` bytes behind the durable end that its blocks promise.
//! 4. A segment begins only when all of the one before is durable; its link is part of its first commit's write.
//! 5. The first failed call poisons the log. No write or sync is tried again (invariant 6 of the design).
//!
//! Three ways to durability. Who waits for a record writes the commit that holds it with a blocking call and without the
//! lead, so that others can decide on the next: a few such writes overlap, and each groups what came while those before
//! it were on their way ("autonomous commit", SIGMOD 2025: several small log writes beat one large group). Who only
//! starts a write has the ring do it. Who only needs room has the ring do plain writes, with one sync for many of
//! them when somebody asks or the window is half used: bulk appends cost what the device writes at. While there are
//! plain writes, durable ones would vouch for nothing, and all wait for the sync.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ahead::Ahead;
use super::core::Core;
use super::format::{BLOCK, BLOCK_BYTES, Commit, Header, Identity, LINK_AT, Link, STRIPES, blocks_for, stamp};
use super::segment::{Kept, Name, short_write};
use super::tail::Tail;
use super::{Seq, lock};
use crate::disk::{AlignedBuf, Completion, File, IoQueue, Op};
use crate::queue::gather::{Sealed, Sealer};
use crate::queue::striped::Striped;
use crate::sabotage::{Check, checked};
use crate::{Error, Result};

/// Most writes in flight at once. More than the buffers: large records have their own.
pub(super) const DEPTH: usize = 16;
/// The token of the one sync in flight.
const SYNC: u64 = u64::MAX;

/// Records that are to become one commit.
pub(super) struct Ready {
    pub buf: AlignedBuf,
    pub first_seq: Seq,
    pub records: u32,
    /// Bytes of records, framed.
    pub stream: usize,
}

impl Ready {
    fn of(sealed: Sealed<Striped>) -> Self {
        Self {
            buf: sealed.buffer.into_buf(),
            first_seq: sealed.first_seq,
            // A buffer is far smaller than so many records.
            records: sealed.records as u32,
            stream: sealed.bytes,
        }
    }
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    pub file: Arc<dyn File>,
    pub header: Header,
    pub identity: Identity,
    /// To be written before the first commit, with it.
    pub link: Option<Link>,
    /// Where the next commit starts.
    pub next: u64,
    /// Below this all is durable; [`LINK_AT`] while the link is not.
    pub durable: u64,
}

/// Most of them that are written by the callers who wait for them.
const CALLERS: usize = 4;

/// A commit in flight.
#[derive(Debug)]
struct Write {
    token: u64,
    tail: Tail,
    durable: bool,
    done: bool,
}

/// The write of a commit.
pub(super) struct Job {
    token: u64,
    file: Arc<dyn File>,
    offset: u64,
    buf: AlignedBuf,
    /// Whether it vouches for itself: a plain write needs a sync.
    durable: bool,
}

/// A job that a caller has done.
pub(super) struct Report {
    token: u64,
    buf: AlignedBuf,
    result: Result<()>,
}

impl Job {
    /// What is reported if the write panics.
    pub(super) fn panicked(&self) -> Report {
        let result = Err(Error::panicked(format_args!("wrote {}", self.file.path().display())));
        Report { token: self.token, buf: AlignedBuf::default(), result }
    }

    /// Does it, durably.
    pub(super) fn run(self) -> Report {
        let Job { token, file, offset, buf, .. } = self;
        let durable = checked(Check::LogCallerWrite);
        let result = if durable { file.write_durable(&buf, offset) } else { file.write_at(&buf, offset) };
        Report { token, buf, result }
    }
}

/// What somebody who waits for a record is to do.
pub(super) enum Next {
    /// Nothing: it is durable.
    Done,
    /// This write, without the lead.
    Write(Job),
    /// Wait: others write.
    Wait,
}

/// What a leader would find to do, for those who do not lead ([`Core::work`]).
pub(super) mod open {
    /// Something is in the ring, or unsynced: somebody has to wait for it.
    pub const RING: u8 = 1;
    /// A commit is sealed and may be started.
    pub const READY: u8 = 2;
    /// What is gathered may be sealed and started.
    pub const GATHERED: u8 = 4;
}

/// Who leads has it.
pub(super) struct Writer {
    pub queue: Box<dyn IoQueue>,
    pub sealer: Sealer<Striped>,
    /// Empty buffers.
    pub spare: Vec<AlignedBuf>,
    /// Sealed and not started.
    ready: VecDeque<Ready>,
    pub active: Active,
    in_flight: VecDeque<Write>,
    /// How many of them callers write.
    callers: usize,
    /// What was written without a gap.
    written: Tail,
    /// What the sync in flight makes durable.
    syncing: Option<Tail>,
    /// Operations to be handed to the queue with the next wait.
    ops: Vec<(u64, Op)>,
    next_token: u64,
    /// The segment after the active one.
    pub ahead: Ahead,
}

/// What the leader is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Somebody waits: durable writes.
    Durable,
    /// Only the buffer was full.
    Bulk,
}

impl Writer {
    pub(super) fn new(
        queue: Box<dyn IoQueue>,
        sealer: Sealer<Striped>,
        spare: Vec<AlignedBuf>,
        active: Active,
        last_seq: Seq,
    ) -> Self {
        Self {
            queue,
            sealer,
            spare,
            ready: VecDeque::new(),
            written: Tail { end: active.durable, last_seq },
            active,
            in_flight: VecDeque::new(),
            callers: 0,
            syncing: None,
            ops: Vec::new(),
            next_token: 0,
            ahead: Ahead::Idle,
        }
    }

    /// Whether a commit may be started (invariant 3).
    fn has_room(&self) -> bool {
        // The link counts as nothing: a segment's first commits may follow it at once.
        let ahead = self.active.next.saturating_sub(self.active.durable.max(super::format::DATA_START));
        self.in_flight.len() < DEPTH && ahead <= self.active.header.window
    }

    /// Whether something is written, or was, that no durable write vouches for.
    fn is_unsynced(&self) -> bool {
        self.written.end > self.active.durable || self.in_flight.iter().any(|w| !w.durable)
    }

    fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.sealer.is_empty()
    }

    /// Whether the ring has nothing to do, and nothing that it did is unsynced.
    fn ring_is_idle(&self) -> bool {
        self.ops.is_empty() && self.queue.in_flight() == 0 && !self.is_unsynced()
    }

    /// What a leader would find to do, as [`open`].
    pub(super) fn open(&self) -> u8 {
        if !self.ring_is_idle() {
            return open::RING;
        }
        match self.has_room() && self.callers < CALLERS {
            true if !self.ready.is_empty() => open::READY,
            true if !self.spare.is_empty() => open::GATHERED,
            _ => 0,
        }
    }
}

impl Core {
    /// Decides what somebody who waits for record `seq`, which was appended, does next.
    pub(super) fn lead_to_durable(&self, writer: &mut Writer, seq: Seq) -> Result<Next> {
        loop {
            self.harvest(writer, 0)?;
            if self.durable() >= seq {
                return Ok(Next::Done);
            }
            if writer.ring_is_idle() {
                // Who has a write to report waits for it to be read: so nobody takes one that does not bring it further.
                if seq <= self.submitted() {
                    return Ok(Next::Wait);
                }
                let job = if writer.callers < CALLERS { self.next_job(writer, Pace::Durable)? } else { None };
                writer.callers += usize::from(job.is_some());
                return Ok(job.map_or(Next::Wait, Next::Write));
            }
            self.start_all(writer, Pace::Durable)?;
            self.sync_if(writer, |w| w.written.last_seq >= seq || w.in_flight.is_empty())?;
            self.wait(writer)?;
        }
    }

    /// Works until appenders have an empty buffer again, after `seals` seals.
    pub(super) fn lead_to_room(&self, writer: &mut Writer, seals: u64) -> Result<()> {
        while self.gather.seals() <= seals {
            self.harvest(writer, 0)?;
            if !self.start(writer, Pace::Bulk)? {
                self.sync_if(writer, |w| w.in_flight.is_empty() || w.half_window())?;
                self.wait(writer)?;
            }
        }
        self.sync_if(writer, Writer::half_window)?;
        self.harvest(writer, 0)
    }

    /// Starts what can be started.
    pub(super) fn start_all(&self, writer: &mut Writer, pace: Pace) -> Result<()> {
        while self.start(writer, pace)? {}
        Ok(())
    }

    /// Has the ring write the next commit. False if there is none, or no room for it.
    fn start(&self, writer: &mut Writer, pace: Pace) -> Result<bool> {
        let Some(Job { token, file, offset, buf, durable }) = self.next_job(writer, pace)? else { return Ok(false) };
        let durable = durable && checked(Check::LogRingWrite);
        writer.ops.push((token, Op::Write { file, offset, buf, durable }));
        Ok(true)
    }

    /// Takes the next commit and puts it in flight.
    fn next_job(&self, writer: &mut Writer, pace: Pace) -> Result<Option<Job>> {
        if !writer.has_work() || !writer.has_room() {
            return Ok(None);
        }
        let ready = match writer.ready.pop_front() {
            Some(ready) => ready,
            None => match writer.spare.pop() {
                Some(next) => Ready::of(writer.sealer.seal(Striped::new(next, STRIPES), 0)),
                None => return Ok(None),
            },
        };
        self.job(writer, ready, pace).map(Some)
    }

    /// Seals what was gathered, leaves out the numbers of `records` records of another buffer, and puts both in line.
    /// Gives the first of those numbers.
    pub(super) fn queue_large(&self, writer: &mut Writer, records: u32) -> Result<Seq> {
        // An empty buffer is needed to seal the open one, which may be empty too.
        let next = loop {
            if let Some(next) = writer.spare.pop() {
                break next;
            }
            self.start_all(writer, Pace::Bulk)?;
            self.sync_if(writer, |w| w.in_flight.is_empty())?;
            self.wait(writer)?;
        };
        let sealed = writer.sealer.seal(Striped::new(next, STRIPES), u64::from(records));
        let first = sealed.first_seq + sealed.records;
        match sealed.records {
            0 => writer.spare.push(sealed.buffer.into_buf()),
            _ => writer.ready.push_back(Ready::of(sealed)),
        }
        Ok(first)
    }

    /// Puts the commit of large records in line and starts its write, and those before it: large buffers do not pile up.
    pub(super) fn start_large(&self, writer: &mut Writer, ready: Ready) -> Result<()> {
        writer.ready.push_back(ready);
        loop {
            self.start_all(writer, Pace::Bulk)?;
            if writer.ready.is_empty() {
                return self.harvest(writer, 0);
            }
            self.sync_if(writer, |w| w.in_flight.is_empty() || w.half_window())?;
            self.wait(writer)?;
        }
    }

    /// Gives a commit its place, and puts it in flight.
    fn job(&self, writer: &mut Writer, ready: Ready, pace: Pace) -> Result<Job> {
        let Ready { mut buf, first_seq, records, stream } = ready;
        let blocks = blocks_for(stream);
        let bytes = blocks * BLOCK_BYTES;
        if writer.active.next + bytes > writer.active.header.segment_bytes {
            self.roll(writer, bytes)?;
        }
        let blocks = u32::try_from(blocks).map_err(|_| {
            self.fail(Error::Invalid(format!("a commit of {bytes} bytes is too large; commit more often")))
        })?;
        let durable = pace == Pace::Durable && !writer.is_unsynced();
        let Active { file, header, identity, link, next, durable: promised } = &mut writer.active;
        let commit = Commit { start: *next, blocks, first_seq, records, promised: *promised };
        buf.widen();
        let end = BLOCK + bytes as usize;
        if let Some(blocks) = buf.get_mut(BLOCK..end) {
            stamp(blocks, stream, &commit, identity);
        }
        let (mut from, mut offset) = (BLOCK, commit.start);
        if let Some(link) = link.take() {
            if let Some(front) = buf.get_mut(..BLOCK) {
                link.encode(front, header);
            }
            (from, offset) = (0, LINK_AT);
        }
        buf.narrow(from..end).map_err(|e| self.fail(e))?;
        let tail = Tail { end: commit.end(), last_seq: commit.last_seq() };
        let job = Job { token: writer.next_token, file: file.clone(), offset, buf, durable };
        *next = tail.end;
        writer.in_flight.push_back(Write { token: job.token, tail, durable, done: false });
        writer.next_token += 1;
        self.set_submitted(tail.last_seq);
        self.counters.commit(bytes);
        self.prepare_next(writer)?;
        Ok(job)
    }

    /// Starts a sync of what was written, if none is in flight, something is unsynced, and `now` says so.
    fn sync_if(&self, writer: &mut Writer, now: impl Fn(&Writer) -> bool) -> Result<()> {
        if writer.syncing.is_none() && writer.written.end > writer.active.durable && now(writer) {
            if !checked(Check::LogBulkSync) {
                self.durable_to(writer, writer.written);
                return Ok(());
            }
            writer.syncing = Some(writer.written);
            writer.ops.push((SYNC, Op::Sync { file: writer.active.file.clone() }));
            self.counters.sync();
        }
        Ok(())
    }

    /// Hands the ring what was started, waits until at least so many of its operations have ended, reads what callers
    /// report, and moves the durable end.
    pub(super) fn harvest(&self, writer: &mut Writer, at_least: usize) -> Result<()> {
        if !writer.ops.is_empty() || writer.queue.in_flight() > 0 {
            let ops = std::mem::take(&mut writer.ops);
            let completions = writer.queue.submit_and_wait(ops, at_least).map_err(|e| self.fail(e))?;
            for completion in completions {
                self.ended(writer, completion)?;
            }
        }
        for Report { token, buf, result } in self.reports.take() {
            writer.callers -= 1;
            let result = result.map(|()| buf.len());
            self.ended(writer, Completion { token, buf: Some(buf), result })?;
        }
        while let Some(write) = next_done(&mut writer.in_flight) {
            let unsynced = writer.written.end > writer.active.durable;
            writer.written = write.tail;
            if write.durable && !unsynced {
                self.durable_to(writer, write.tail);
            }
        }
        Ok(())
    }

    /// Notes that an operation has ended.
    fn ended(&self, writer: &mut Writer, completion: Completion) -> Result<()> {
        let Completion { token, buf, result } = completion;
        let (written, len) = (result.map_err(|e| self.fail(e))?, buf.as_ref().map_or(0, |b| b.len()));
        if token == SYNC {
            // It covers what had completed when it was started.
            if let Some(tail) = writer.syncing.take() {
                self.durable_to(writer, tail);
            }
            return Ok(());
        }
        if written != len {
            return Err(self.fail(short_write(writer.active.file.path(), written, len)));
        }
        if let Some(write) = writer.in_flight.iter_mut().find(|w| w.token == token) {
            write.done = true;
        }
        // A buffer of another size was one large record's.
        if let Some(mut buf) = buf.filter(|b| b.capacity() == self.buffer_capacity) {
            buf.widen();
            writer.spare.push(buf);
        }
        Ok(())
    }

    /// Waits until something in flight has ended.
    fn wait(&self, writer: &mut Writer) -> Result<()> {
        if writer.ops.is_empty() && writer.queue.in_flight() == 0 && writer.callers > 0 {
            self.reports.wait();
        }
        self.harvest(writer, 1)
    }

    /// All up to `tail` is durable.
    fn durable_to(&self, writer: &mut Writer, tail: Tail) {
        writer.active.durable = tail.end;
        // First what a scan may see, then the number that lets callers go and scan.
        lock(&self.segments).tail = tail;
        self.set_durable(tail.last_seq);
    }

    /// Waits until all that was started is durable.
    fn settle(&self, writer: &mut Writer) -> Result<()> {
        while !writer.in_flight.is_empty() || !writer.ops.is_empty() || writer.is_unsynced() {
            self.sync_if(writer, |w| w.in_flight.is_empty())?;
            self.wait(writer)?;
        }
        Ok(())
    }

    /// Goes on in the next segment, which has room for a commit of `commit` bytes.
    fn roll(&self, writer: &mut Writer, commit: u64) -> Result<()> {
        // Invariant 4.
        if checked(Check::LogSettle) {
            self.settle(writer)?;
        }
        let made = self.next_segment(writer, commit)?;
        let (prev_len, last_seq) = match checked(Check::LogSettle) {
            true => (writer.active.durable, self.durable()),
            false => (writer.active.next, self.submitted()),
        };
        let link = Link { first_seq: last_seq + 1, prev_len };
        let old = std::mem::replace(&mut writer.active, Active::begun(made.file, made.header.clone(), Some(link)));
        writer.queue.forget(&old.file).map_err(|e| self.fail(e))?;
        writer.written = Tail { end: LINK_AT, last_seq: self.durable() };
        let name = Name { id: made.header.segment, path: made.path, file_len: made.header.segment_bytes };
        self.begin(name, made.header, link);
        Ok(())
    }

    /// Notes that a segment has begun: from here on a scan knows it, and the old one's end is known by it.
    fn begin(&self, name: Name, header: Header, link: Link) {
        let kept = Arc::new(Kept::new(name, Some(super::segment::Head { header, link })));
        let mut segments = lock(&self.segments);
        segments.tail = Tail { end: super::format::DATA_START, last_seq: link.first_seq - 1 };
        segments.kept.push_back(kept);
    }
}

/// The oldest write, if it has ended.
fn next_done(in_flight: &mut VecDeque<Write>) -> Option<Write> {
    let at = if checked(Check::LogContiguous) { 0 } else { in_flight.iter().position(|w| w.done)? };
    in_flight.get(at).filter(|w| w.done)?;
    in_flight.remove(at)
}

impl Writer {
    fn half_window(&self) -> bool {
        self.written.end.saturating_sub(self.active.durable) > self.active.header.window / 2
    }
}

impl Active {
    /// A segment at its beginning; without a link to write, that is durable already.
    pub(super) fn begun(file: Arc<dyn File>, header: Header, link: Option<Link>) -> Self {
        let durable = if link.is_some() { LINK_AT } else { super::format::DATA_START };
        Self { file, identity: Identity::of(&header), header, link, next: super::format::DATA_START, durable }
    }
}
