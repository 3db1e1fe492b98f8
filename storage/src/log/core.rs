//! What the threads of a log share, and how those who wait for it come to lead.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use zstd::bulk::Compressor;

use super::counters::Counters;
use super::format::STRIPES;
use super::keeper::Mail;
use super::recovery::Opened;
use super::segment::Segments;
use super::writer::{DEPTH, Job, Next, Pace, Report, Writer, open};
use super::{LogOptions, Seq, lock};
use crate::disk::{ALIGN, Disk, Slab};
use crate::error::Cause;
use crate::queue::gather::{Gather, MOST_BYTES, gather};
use crate::queue::inbox::Inbox;
use crate::queue::lead::{self, Goal};
use crate::queue::striped::Striped;
use crate::{Error, Result};

/// How many buffers records are gathered in: one is filled while the others are written.
pub(super) const BUFFERS: usize = 7;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// This record is durable.
    Durable(Seq),
    /// A buffer was sealed after so many, to make room.
    Sealed(u64),
    /// The same, without anybody waiting: a write is to be started.
    Started(u64),
    /// The lead itself.
    Lead,
}

/// The lead over a log's writer, held.
pub(super) type Led<'a> = lead::Guard<'a, Writer, Wish>;

pub(super) struct Core {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub options: LogOptions,
    pub gather: Gather<Striped>,
    /// Bytes of a buffer.
    pub buffer_capacity: usize,
    lead: lead::Lead<Writer, Wish>,
    /// Locked for moments, and never while something else of the log is locked.
    pub segments: Mutex<Segments>,
    /// Held by a trim from start to end.
    pub trimming: Mutex<()>,
    durable: AtomicU64,
    /// The last record that was put in flight.
    submitted: AtomicU64,
    /// Why nothing works any more.
    poison: OnceLock<Cause>,
    /// What a leader would find to do, as the last one left it.
    open: AtomicU8,
    /// Of writes that callers have done.
    pub reports: Reports,
    pub compressors: Mutex<Vec<Compressor<'static>>>,
    pub counters: Counters,
    /// The log's thread, where it has one.
    pub mail: Option<Arc<Mail>>,
}

/// Reports of writes, for the leader.
#[derive(Default)]
pub(super) struct Reports {
    inbox: Inbox<Report>,
    /// For a leader that can do nothing else than wait for one.
    arrival: (Mutex<()>, Condvar),
}

impl Reports {
    /// Does a write, and reports it even if it panics: a leader may wait for it.
    fn run(&self, job: Job) {
        struct Running<'a>(&'a Reports, Option<Report>);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                if let Some(report) = self.1.take() {
                    self.0.push(report);
                }
            }
        }
        let mut running = Running(self, Some(job.panicked()));
        running.1 = Some(job.run());
    }

    fn push(&self, report: Report) {
        self.inbox.push(report);
        let (mutex, arrived) = &self.arrival;
        drop(lock(mutex));
        arrived.notify_one();
    }

    fn are_there(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// All that are there.
    pub(super) fn take(&self) -> impl Iterator<Item = Report> + use<> {
        self.inbox.take()
    }

    /// Waits until there is one.
    pub(super) fn wait(&self) {
        let (mutex, arrived) = &self.arrival;
        let mut guard = lock(mutex);
        while self.inbox.is_empty() {
            guard = arrived.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

impl Goal for Core {
    type Wish = Wish;

    fn met(&self, wish: Wish) -> bool {
        self.poison.get().is_some()
            || match wish {
                Wish::Durable(seq) => self.durable() >= seq,
                Wish::Sealed(seals) | Wish::Started(seals) => self.gather.seals() > seals,
                Wish::Lead => false,
            }
    }

    fn work(&self, wish: Wish) -> bool {
        let open = self.open.load(Ordering::Acquire);
        let startable = || open & open::READY != 0 || (open & open::GATHERED != 0 && !self.gather.is_empty());
        self.reports.are_there()
            || open & open::RING != 0
            || match wish {
                Wish::Lead => true,
                Wish::Durable(seq) => seq > self.submitted() && startable(),
                Wish::Sealed(_) | Wish::Started(_) => startable(),
            }
    }

    fn can_meet(&self, wish: Wish) -> bool {
        match wish {
            Wish::Durable(seq) => seq < self.gather.next_seq(),
            Wish::Sealed(_) | Wish::Started(_) | Wish::Lead => true,
        }
    }

    fn tasks_wait(&self) {
        if let Some(mail) = &self.mail {
            mail.lead();
        }
    }
}

impl Core {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, options: LogOptions, opened: Opened) -> Result<Self> {
        let capacity = STRIPES.buffer(options.buffer_bytes.clamp(1, MOST_BYTES));
        let (slab, mut buffers) = Slab::new(capacity, BUFFERS);
        // One more for the sync beside the writes.
        let mut queue = disk.queue(DEPTH + 1)?;
        queue.register(&slab)?;
        let first = buffers.pop().unwrap_or_default();
        let (gather, sealer) = gather(opened.last_seq + 1, Striped::new(first, STRIPES));
        let writer = Writer::new(queue, sealer, buffers, opened.active, opened.last_seq);
        let mail = disk.threads().then(Arc::default);
        Ok(Self {
            disk,
            dir,
            options,
            gather,
            buffer_capacity: capacity.next_multiple_of(ALIGN),
            lead: lead::Lead::new(writer),
            segments: Mutex::new(opened.segments),
            trimming: Mutex::default(),
            durable: AtomicU64::new(opened.last_seq),
            submitted: AtomicU64::new(opened.last_seq),
            poison: OnceLock::new(),
            open: AtomicU8::new(open::GATHERED),
            reports: Reports::default(),
            compressors: Mutex::default(),
            counters: Counters::opened(opened.recycled),
            mail,
        })
    }

    pub(super) fn durable(&self) -> Seq {
        self.durable.load(Ordering::Acquire)
    }

    pub(super) fn set_durable(&self, seq: Seq) {
        self.durable.store(seq, Ordering::Release);
    }

    pub(super) fn submitted(&self) -> Seq {
        self.submitted.load(Ordering::Acquire)
    }

    pub(super) fn set_submitted(&self, seq: Seq) {
        self.submitted.store(seq, Ordering::Release);
    }

    /// Fails if something failed before.
    pub(super) fn check(&self) -> Result<()> {
        self.poison.get().map_or(Ok(()), |cause| Err(cause.into()))
    }

    /// Poisons the log with a failure of its own, and wakes all who wait.
    pub(super) fn fail(&self, error: Error) -> Error {
        // Only the first is kept: what comes after may be its consequence.
        let _ = self.poison.set(Cause::from(&error));
        self.lead.wake(self, Wish::Lead);
        error
    }

    /// Starts what others asked for, does `work` with the lead, and hands over.
    fn with<T>(&self, mut led: Led<'_>, work: impl FnOnce(&mut Led<'_>) -> Result<T>) -> Result<T> {
        if self.lead.is_broken() {
            let _ = self.poison.set("a thread panicked while it wrote the log".to_owned().into());
        }
        led.read_notes();
        if self.check().is_ok() && led.any_waits(|wish| matches!(wish, Wish::Started(_)) && !self.met(wish)) {
            // Before the work: a write that comes of that is not under way before the lead is free. A failure here is
            // found by the next check.
            let _ = self.start_all(&mut led, Pace::Durable).and_then(|()| self.harvest(&mut led, 0));
        }
        let result = self.check().and_then(|()| work(&mut led));
        self.open.store(led.open(), Ordering::Release);
        led.hand_over(self);
        result
    }

    /// Waits until `seq`, which was appended, is durable.
    pub(super) fn wait_durable(&self, seq: Seq) -> Result<()> {
        loop {
            if self.durable() >= seq {
                return Ok(());
            }
            self.check()?;
            if let Some(led) = self.lead.wait(self, Wish::Durable(seq)) {
                match self.with(led, |led| self.lead_to_durable(led, seq))? {
                    Next::Done => return Ok(()),
                    Next::Write(job) => self.reports.run(job),
                    Next::Wait => {}
                }
            }
        }
    }

    /// Waits until a buffer was sealed after so many.
    pub(super) fn wait_for_room(&self, seals: u64) -> Result<()> {
        loop {
            self.check()?;
            if self.gather.seals() > seals {
                return Ok(());
            }
            if let Some(led) = self.lead.wait(self, Wish::Sealed(seals)) {
                return self.with(led, |led| self.lead_to_room(led, seals));
            }
        }
    }

    /// Waits for the lead, and does `work` with it.
    pub(super) fn lead<T>(&self, work: impl FnOnce(&mut Led<'_>) -> Result<T>) -> Result<T> {
        loop {
            self.check()?;
            if let Some(led) = self.lead.wait(self, Wish::Lead) {
                return self.with(led, work);
            }
        }
    }

    /// Starts what can be started, without waiting: here, or by whoever leads now.
    pub(super) fn submit(&self) -> Result<()> {
        let seals = self.gather.seals();
        // With nothing gathered there would be no seal to meet the wish, and the note would stay.
        let led =
            if self.gather.is_empty() { self.lead.try_lead() } else { self.lead.lead_or_note(Wish::Started(seals)) };
        match led {
            Some(led) => self.with(led, |led| {
                self.start_all(led, Pace::Durable)?;
                self.harvest(led, 0)
            }),
            None => Ok(()),
        }
    }

    /// Leaves a note of a task that waits for a record. The caller looks again, and then calls [`Core::lead_for_tasks`] or
    /// has it called.
    pub(super) fn note(&self, seq: Seq, waker: std::task::Waker) -> lead::Note<Wish> {
        self.lead.note_task(Wish::Durable(seq), waker)
    }

    /// Makes durable what was appended, for tasks that wait for it. Never waits for the lead: whoever holds it may wait for
    /// this thread to make a segment, and sees the note that is left.
    pub(super) fn lead_for_tasks(&self) {
        let last = self.gather.next_seq().saturating_sub(1);
        loop {
            let led = self.lead.lead_or_note(Wish::Durable(last));
            // A failure has poisoned the log, of which the tasks are told.
            match led.map(|led| self.with(led, |led| self.lead_to_durable(led, last))) {
                Some(Ok(Next::Write(job))) => self.reports.run(job),
                _ => return,
            }
        }
    }

    /// Makes durable what tasks wait for, if any do, as the last thing that the log's thread does. It may wait for the
    /// lead: whoever has it needs this thread no more ([`Mail::made`]).
    pub(super) fn release_tasks(&self) {
        let last = self.gather.next_seq().saturating_sub(1);
        if let Some(mut led) = self.lead.wait(self, Wish::Lead) {
            led.read_notes();
            let waits = led.any_waits(|wish| self.can_meet(wish));
            led.hand_over(self);
            if waits {
                // A failure has poisoned the log, of which the tasks are told.
                let _ = self.wait_durable(last);
            }
        }
    }

    /// Bytes of the segments that are kept.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.segments).kept.iter().map(|s| s.file_len).sum()
    }
}
