//! A ring as an [`IoQueue`].
//!
//! Invariants:
//! 1. An occupied slot owns its buffer and file until the kernel has answered for it; nothing else reaches them.
//! 2. At most one entry of a slot is with the kernel or in the submission queue.
//! 3. The ring has room for an entry of every slot, so neither of its queues overflows.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};

use crate::disk::posix::{LockedDir, Shared};
use crate::disk::shared::check_aligned;
use crate::disk::{ALIGN, AlignedBuf, Completion, File, IoQueue, Op};
use crate::{Error, Result};

/// The most bytes that one entry moves; the rest follows in another.
const MOST: usize = 1 << 30;
/// The deepest queue; the kernel's own limit is 32768.
const DEEPEST: usize = 4096;

/// What a slot's entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Read,
    Write,
    /// A write that is durable when it completes.
    WriteDsync,
    /// A write that a sync will follow.
    WriteThenSync,
    Sync,
}

#[derive(Debug)]
struct Slot {
    token: u64,
    step: Step,
    file: Arc<dyn File>,
    fd: i32,
    offset: u64,
    buf: Option<AlignedBuf>,
    /// Bytes moved so far.
    done: usize,
}

pub(super) struct UringQueue {
    ring: IoUring,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    flying: usize,
    done: Vec<Completion>,
    shared: Arc<Shared>,
    locks: Vec<Weak<LockedDir>>,
    /// Kept while something is in flight.
    held: Vec<Arc<LockedDir>>,
}

/// What to do after an answer of the kernel.
enum Next {
    Again(Step),
    End(io::Result<usize>),
}

impl UringQueue {
    pub(super) fn new(shared: &Arc<Shared>, depth: usize) -> Result<Self> {
        let depth = depth.clamp(1, DEEPEST);
        let fail = |e| Error::io("set up", "io_uring", e);
        let ring = IoUring::new(depth.next_power_of_two() as u32).map_err(fail)?;
        let locks = shared.held_locks();
        let held: Vec<_> = locks.iter().filter_map(Weak::upgrade).collect();
        if !held.is_empty() {
            let fds: Vec<_> = held.iter().map(|l| l.fd()).collect();
            ring.submitter().register_files(&fds).map_err(fail)?;
        }
        Ok(Self {
            ring,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            flying: 0,
            done: Vec::new(),
            shared: Arc::clone(shared),
            locks,
            held: Vec::new(),
        })
    }

    /// Turns an operation into a slot, or refuses it.
    fn slot(&self, token: u64, op: Op) -> Result<Slot, Completion> {
        let fd = match (check_aligned(&op), op.file().raw_fd()) {
            (Err(e), _) => return Err(Completion { token, buf: op.into_buf(), result: Err(e) }),
            (Ok(()), None) => {
                let e =
                    Error::Invalid(format!("{} has no descriptor: it is not of this disk", op.file().path().display()));
                return Err(Completion { token, buf: op.into_buf(), result: Err(e) });
            }
            (Ok(()), Some(fd)) => fd,
        };
        let counters = &self.shared.counters;
        Ok(match op {
            Op::Read { file, offset, buf } => {
                Slot { token, step: Step::Read, file, fd, offset, buf: Some(buf), done: 0 }
            }
            Op::Write { file, offset, buf, durable } => {
                counters.write(buf.len(), durable);
                let step = match (durable, self.shared.no_dsync.load(Ordering::Relaxed)) {
                    (false, _) => Step::Write,
                    (true, false) => Step::WriteDsync,
                    (true, true) => Step::WriteThenSync,
                };
                Slot { token, step, file, fd, offset, buf: Some(buf), done: 0 }
            }
            Op::Sync { file } => {
                counters.sync();
                Slot { token, step: Step::Sync, file, fd, offset: 0, buf: None, done: 0 }
            }
        })
    }

    /// Puts the entry of a slot's step into the submission queue.
    fn push(&mut self, at: usize) -> Result<()> {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return Ok(()) };
        let entry = slot.entry().user_data(at as u64);
        loop {
            // SAFETY: 1. the entry's memory is the slot's buffer, from `done` to its end: initialised, of stable
            // address, uniquely the slot's (invariant 1), and freed or given back only after the kernel's answer, or
            // never (drop leaks it if the ring breaks). 2. its descriptor stays open: the slot owns the file.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.enter(0)?;
        }
    }

    /// Hands the entries to the kernel and waits for `want` answers to be there.
    fn enter(&mut self, want: usize) -> Result<()> {
        loop {
            match self.ring.submit_and_wait(want) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The kernel is short of memory or wants its answers collected first.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                    if !self.ring.completion().is_empty() {
                        return Ok(());
                    }
                    std::thread::yield_now();
                }
                Err(e) => return Err(Error::io("submit to", "io_uring", e)),
            }
        }
    }

    /// Collects the answers that are there; follow-up entries are pushed, not yet submitted. True if there are any.
    fn collect(&mut self) -> Result<bool> {
        let answers: Vec<(u64, i32)> = self.ring.completion().map(|c| (c.user_data(), c.result())).collect();
        let mut pushed = false;
        for (at, answer) in answers {
            let at = at as usize;
            let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { continue };
            let next = slot.answered(answer);
            match next {
                Next::Again(step) => {
                    if slot.step == Step::WriteDsync && step == Step::WriteThenSync {
                        self.shared.no_dsync.store(true, Ordering::Relaxed);
                        let path = slot.file.path();
                        self.shared.note(|| format!("RWF_DSYNC is not available for {}", path.display()));
                    }
                    slot.step = step;
                    self.push(at)?;
                    pushed = true;
                }
                Next::End(result) => {
                    let Some(slot) = self.slots.get_mut(at).and_then(Option::take) else { continue };
                    self.free.push(at);
                    self.flying -= 1;
                    self.done.push(slot.completion(result, &self.shared));
                }
            }
        }
        if self.flying == 0 {
            self.held.clear();
        }
        Ok(pushed)
    }

    /// Waits until at most `left` operations are in flight.
    fn drain_to(&mut self, left: usize) -> Result<()> {
        let mut unsubmitted = self.collect()?;
        while self.flying > left {
            self.enter(1)?;
            unsubmitted = self.collect()?;
        }
        if unsubmitted {
            self.enter(0)?;
        }
        Ok(())
    }
}

impl Slot {
    /// The entry for what is left of the slot's step.
    fn entry(&mut self) -> squeue::Entry {
        let fd = Fd(self.fd);
        let at = self.offset + self.done as u64;
        let rest = self.buf.as_deref_mut().and_then(|b| b.get_mut(self.done..)).unwrap_or_default();
        let len = rest.len().min(MOST) as u32;
        match self.step {
            Step::Read => opcode::Read::new(fd, rest.as_mut_ptr(), len).offset(at).build(),
            Step::Write | Step::WriteThenSync => opcode::Write::new(fd, rest.as_ptr(), len).offset(at).build(),
            Step::WriteDsync => opcode::Write::new(fd, rest.as_ptr(), len).offset(at).rw_flags(libc::RWF_DSYNC).build(),
            Step::Sync => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
        }
    }

    /// Notes what the kernel did, and says what is next.
    fn answered(&mut self, answer: i32) -> Next {
        let moved = match usize::try_from(answer) {
            Ok(moved) => moved,
            Err(_) => return self.refused(-answer),
        };
        let len = self.buf.as_ref().map_or(0, |b| b.len());
        let before = self.done;
        self.done += moved;
        match self.step {
            Step::Sync => Next::End(Ok(len)),
            Step::Read if moved == 0 || self.done == len => Next::End(Ok(self.done)),
            Step::Read => {
                let read = self.done;
                let ended = self.file.len().is_ok_and(|file_len| file_len <= self.offset + read as u64);
                // Blocks count whole: direct I/O cannot go on inside one.
                self.done -= self.done % ALIGN;
                if ended || self.done == before { Next::End(Ok(read)) } else { Next::Again(Step::Read) }
            }
            Step::Write | Step::WriteDsync | Step::WriteThenSync if self.done < len => {
                self.done -= self.done % ALIGN;
                if self.done == before {
                    Next::End(Err(io::ErrorKind::WriteZero.into()))
                } else {
                    Next::Again(self.step)
                }
            }
            Step::Write | Step::WriteDsync => Next::End(Ok(len)),
            Step::WriteThenSync => Next::Again(Step::Sync),
        }
    }

    fn refused(&self, errno: i32) -> Next {
        match (self.step, errno) {
            // A sync is never repeated after an error.
            (Step::Read | Step::Write | Step::WriteDsync | Step::WriteThenSync, libc::EINTR | libc::EAGAIN) => {
                Next::Again(self.step)
            }
            (Step::WriteDsync, libc::EOPNOTSUPP | libc::EINVAL) => Next::Again(Step::WriteThenSync),
            _ => Next::End(Err(io::Error::from_raw_os_error(errno))),
        }
    }

    fn completion(self, result: io::Result<usize>, shared: &Shared) -> Completion {
        let op = match self.step {
            Step::Read => "read",
            Step::Sync => "sync",
            _ => "write",
        };
        if let (Step::Read, Ok(n)) = (self.step, &result) {
            shared.counters.read(*n);
        }
        let result = result.map_err(|e| Error::io(op, self.file.path(), e));
        Completion { token: self.token, buf: self.buf, result }
    }
}

impl IoQueue for UringQueue {
    fn submit(&mut self, ops: Vec<(u64, Op)>) -> Result<()> {
        for (token, op) in ops {
            let slot = match self.slot(token, op) {
                Ok(slot) => slot,
                Err(refused) => {
                    self.done.push(refused);
                    continue;
                }
            };
            if self.free.is_empty() {
                self.drain_to(self.slots.len() - 1)?;
            }
            let Some(at) = self.free.pop() else {
                return Err(Error::Invalid("a queue has no free slot after one was freed".into()));
            };
            if self.held.is_empty() {
                self.held = self.locks.iter().filter_map(Weak::upgrade).collect();
            }
            if let Some(place) = self.slots.get_mut(at) {
                *place = Some(slot);
            }
            self.flying += 1;
            self.push(at)?;
        }
        self.enter(0)
    }

    fn wait(&mut self, at_least: usize) -> Result<Vec<Completion>> {
        let wanted = at_least.saturating_sub(self.done.len()).min(self.flying);
        self.drain_to(self.flying - wanted)?;
        Ok(std::mem::take(&mut self.done))
    }

    fn in_flight(&self) -> usize {
        self.flying + self.done.len()
    }
}

impl Drop for UringQueue {
    fn drop(&mut self) {
        if self.drain_to(0).is_err() {
            // The ring is broken and the kernel may still write to the buffers: they, the files and the locks stay for
            // the life of the process.
            std::mem::forget(std::mem::take(&mut self.slots));
            std::mem::forget(std::mem::take(&mut self.held));
        }
    }
}

impl fmt::Debug for UringQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringQueue").field("depth", &self.slots.len()).field("in_flight", &self.flying).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Create, Disk, OpenOptions, PosixDisk, UringDisk};

    const RW: OpenOptions = OpenOptions { write: true, create: Create::IfAbsent, direct: false };

    fn slot(step: Step, blocks: usize, file_len: u64) -> (tempfile::TempDir, Slot) {
        let dir = tempfile::tempdir().unwrap();
        let file = PosixDisk::new().open(&dir.path().join("a"), RW).unwrap();
        file.set_len(file_len).unwrap();
        let fd = file.raw_fd().unwrap();
        let buf = Some(AlignedBuf::zeroed(blocks * ALIGN));
        (dir, Slot { token: 1, step, file, fd, offset: 0, buf, done: 0 })
    }

    #[test]
    fn short_writes_go_on_at_a_whole_block() {
        for step in [Step::Write, Step::WriteDsync, Step::WriteThenSync] {
            let (_dir, mut slot) = slot(step, 3, 0);
            assert!(matches!(slot.answered(ALIGN as i32 + 100), Next::Again(s) if s == step), "{step:?}");
            assert_eq!(slot.done, ALIGN);
            assert!(matches!(slot.answered(100), Next::End(Err(_))), "{step:?}: no progress must end");
        }
        let (_dir, mut slot) = slot(Step::WriteThenSync, 1, 0);
        assert!(matches!(slot.answered(ALIGN as i32), Next::Again(Step::Sync)));
        slot.step = Step::Sync;
        assert!(matches!(slot.answered(0), Next::End(Ok(ALIGN))));
    }

    #[test]
    fn short_reads_go_on_unless_the_file_ends() {
        let (_dir, mut slot) = slot(Step::Read, 3, 2 * ALIGN as u64 + 7);
        assert!(matches!(slot.answered(ALIGN as i32 + 5), Next::Again(Step::Read)));
        assert_eq!(slot.done, ALIGN);
        assert!(matches!(slot.answered(ALIGN as i32 + 7), Next::End(Ok(n)) if n == 2 * ALIGN + 7));
    }

    #[test]
    fn refusals() {
        let (_dir, mut slot) = slot(Step::WriteDsync, 1, 0);
        assert!(matches!(slot.answered(-libc::EOPNOTSUPP), Next::Again(Step::WriteThenSync)));
        assert!(matches!(slot.answered(-libc::EIO), Next::End(Err(_))));
        slot.step = Step::Sync;
        assert!(matches!(slot.answered(-libc::EINTR), Next::End(Err(_))), "a failed sync is never repeated");
    }

    #[test]
    fn durable_writes_without_dsync() {
        let Ok(disk) = UringDisk::new() else {
            eprintln!("skipped: no io_uring here");
            return;
        };
        let shared = Arc::new(Shared::default());
        shared.no_dsync.store(true, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        let file = disk.open(&dir.path().join("a"), RW).unwrap();
        let mut queue = UringQueue::new(&shared, 3).unwrap();
        let write = |i: u64| {
            let buf = AlignedBuf::from_slice(&[i as u8; ALIGN]);
            (i, Op::Write { file: Arc::clone(&file), offset: i * ALIGN as u64, buf, durable: true })
        };
        queue.submit((0..10).map(write).collect()).unwrap();
        let done = queue.wait(10).unwrap();
        assert!(done.len() == 10 && done.iter().all(|c| matches!(c.result, Ok(ALIGN))), "{done:?}");
        assert_eq!(shared.counters.snapshot().durable_writes, 10);
        assert_eq!(shared.counters.snapshot().syncs, 0);
    }
}
