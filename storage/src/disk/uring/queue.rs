//! A ring as an [`IoQueue`].
//!
//! Invariants:
//! 1. An occupied slot owns its buffer and file until the kernel has answered for it; nothing else reaches them.
//! 2. At most one entry of a slot is with the kernel or in the submission queue.
//! 3. The ring has room for an entry of every slot, so neither of its queues overflows.
//! 4. The slab that is registered lives longer than the ring.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use io_uring::IoUring;

use super::files::{EMPTY, Files, PLACES};
use super::slot::{Next, Slot, Step};
use crate::disk::posix::{LockedDir, Shared};
use crate::disk::shared::check_aligned;
use crate::disk::{Completion, File, IoQueue, Op, Slab};
use crate::{Error, Result};

/// The deepest queue; the kernel's own limit is 32768.
const DEEPEST: usize = 4096;

pub(super) struct UringQueue {
    /// Before the slab: fields are dropped in order (invariant 4).
    ring: IoUring,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    flying: usize,
    done: Vec<Completion>,
    shared: Arc<Shared>,
    locks: Vec<Weak<LockedDir>>,
    /// Kept while something is in flight.
    held: Vec<Arc<LockedDir>>,
    files: Files,
    slab: Option<Arc<Slab>>,
}

impl UringQueue {
    pub(super) fn new(shared: &Arc<Shared>, depth: usize) -> Result<Self> {
        let depth = depth.clamp(1, DEEPEST);
        let fail = |e| Error::io("set up", "io_uring", e);
        let ring = IoUring::new(depth.next_power_of_two() as u32).map_err(fail)?;
        let locks = shared.held_locks();
        let held: Vec<_> = locks.iter().filter_map(Weak::upgrade).collect();
        // The locks first, then room for data files. A table cannot grow later without letting go of the locks.
        let mut fds: Vec<_> = held.iter().map(|l| l.fd()).collect();
        fds.extend([EMPTY; PLACES]);
        let has_places = ring.submitter().register_files(&fds).is_ok();
        fds.truncate(held.len());
        if !has_places && !held.is_empty() {
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
            files: Files::new(has_places.then_some(fds.len())),
            slab: None,
        })
    }

    /// The descriptor for an operation, or why it is refused.
    fn check(op: &Op) -> Result<i32> {
        check_aligned(op)?;
        op.file().raw_fd().ok_or_else(|| {
            Error::Invalid(format!("{} has no descriptor: it is not of this disk", op.file().path().display()))
        })
    }

    /// Turns an operation into a slot.
    fn slot(&mut self, token: u64, op: Op, fd: i32) -> Slot {
        let place = self.files.take(&self.ring.submitter(), op.file(), fd).unwrap_or_else(|e| {
            self.shared.note(|| format!("files are not registered with the ring: {e}"));
            None
        });
        let counters = &self.shared.counters;
        let (step, file, offset, buf) = match op {
            Op::Read { file, offset, buf } => (Step::Read, file, offset, Some(buf)),
            Op::Write { file, offset, buf, durable } => {
                counters.write(buf.len(), durable);
                let step = match (durable, self.shared.no_dsync.load(Ordering::Relaxed)) {
                    (false, _) => Step::Write,
                    (true, false) => Step::WriteDsync,
                    (true, true) => Step::WriteThenSync,
                };
                (step, file, offset, Some(buf))
            }
            Op::Sync { file } => {
                counters.sync();
                (Step::Sync, file, 0, None)
            }
        };
        let slab = buf.as_ref().and_then(|b| b.slab());
        let registered = self.slab.as_ref().zip(slab).is_some_and(|(ours, its)| Arc::ptr_eq(ours, its));
        Slot { token, step, file, fd, place, registered, offset, buf, done: 0 }
    }

    /// Makes entries of operations, without a call to the kernel as long as there are free slots.
    fn start(&mut self, ops: Vec<(u64, Op)>) -> Result<()> {
        for (token, op) in ops {
            let fd = match Self::check(&op) {
                Ok(fd) => fd,
                Err(e) => {
                    self.done.push(Completion { token, buf: op.into_buf(), result: Err(e) });
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
                self.held.extend(self.locks.iter().filter_map(Weak::upgrade));
            }
            let slot = self.slot(token, op, fd);
            if let Some(place) = self.slots.get_mut(at) {
                *place = Some(slot);
            }
            self.flying += 1;
            self.push(at)?;
        }
        Ok(())
    }

    /// Puts the entry of a slot's step into the submission queue.
    fn push(&mut self, at: usize) -> Result<()> {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return Ok(()) };
        let entry = slot.entry().user_data(at as u64);
        loop {
            // SAFETY: 1. the entry's memory is the slot's buffer, from `done` to its end: initialised, of stable
            // address, uniquely the slot's (invariant 1), and freed or given back only after the kernel's answer, or
            // never (drop leaks it if the ring breaks). 2. its descriptor stays open: the slot owns the file, and a
            // registered one stays registered while the slot uses its place. 3. an entry that names the registered
            // buffer lies in it: the slot's buffer is of the slab that was registered, whole, in one piece.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.enter(0)?;
        }
    }

    /// Hands the entries to the kernel and waits for `want` answers to be there.
    fn enter(&mut self, want: usize) -> Result<()> {
        if want == 0 && self.ring.submission().is_empty() {
            return Ok(());
        }
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
        let mut pushed = false;
        loop {
            let Some(answer) = self.ring.completion().next() else { break };
            let at = answer.user_data() as usize;
            let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { continue };
            match slot.answered(answer.result()) {
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
                    if let Some(place) = &slot.place {
                        self.files.give_back(&self.ring.submitter(), place);
                    }
                    self.done.push(slot.completion(result, &self.shared));
                }
            }
        }
        if self.flying == 0 {
            self.held.clear();
        }
        Ok(pushed)
    }

    /// How many answers to wait for if `ops` operations must end: all of them in one call, unless some may need a second
    /// entry, which should not wait for the others' first.
    fn answers_for(&self, ops: usize) -> usize {
        if self.shared.no_dsync.load(Ordering::Relaxed) { ops.min(1) } else { ops }
    }

    /// Waits until at most `left` operations are in flight.
    fn drain_to(&mut self, left: usize) -> Result<()> {
        let mut unsubmitted = self.collect()?;
        while self.flying > left {
            self.enter(self.answers_for(self.flying - left))?;
            unsubmitted = self.collect()?;
        }
        if unsubmitted {
            self.enter(0)?;
        }
        Ok(())
    }

    /// How many of those in flight have to end for `at_least` to be told of.
    fn wanted(&self, at_least: usize) -> usize {
        at_least.saturating_sub(self.done.len()).min(self.flying)
    }
}

impl IoQueue for UringQueue {
    fn submit(&mut self, ops: Vec<(u64, Op)>) -> Result<()> {
        self.start(ops)?;
        self.enter(0)
    }

    fn wait(&mut self, at_least: usize) -> Result<Vec<Completion>> {
        self.drain_to(self.flying - self.wanted(at_least))?;
        Ok(std::mem::take(&mut self.done))
    }

    fn submit_and_wait(&mut self, ops: Vec<(u64, Op)>, at_least: usize) -> Result<Vec<Completion>> {
        self.start(ops)?;
        let wanted = self.wanted(at_least);
        let left = self.flying - wanted;
        self.enter(self.answers_for(wanted))?;
        self.drain_to(left)?;
        Ok(std::mem::take(&mut self.done))
    }

    fn in_flight(&self) -> usize {
        self.flying + self.done.len()
    }

    fn register(&mut self, slab: &Arc<Slab>) -> Result<()> {
        self.files.open();
        if self.slab.is_some() || slab.is_empty() {
            return Ok(());
        }
        let (ptr, len) = slab.range();
        let iov = libc::iovec { iov_base: ptr.as_ptr().cast(), iov_len: len };
        // SAFETY: 4. the memory is allocated and initialised, and stays so until the ring is gone: the queue holds the slab,
        // and drops it after the ring (invariant 4).
        match unsafe { self.ring.submitter().register_buffers(&[iov]) } {
            Ok(()) => self.slab = Some(Arc::clone(slab)),
            Err(e) => self.shared.note(|| {
                format!("{len} bytes of buffers are not registered with the ring ({e}); RLIMIT_MEMLOCK may be too low")
            }),
        }
        Ok(())
    }

    fn forget(&mut self, file: &Arc<dyn File>) -> Result<()> {
        if let Some(fd) = file.raw_fd() {
            self.files.forget(&self.ring.submitter(), fd);
        }
        Ok(())
    }
}

impl Drop for UringQueue {
    fn drop(&mut self) {
        if self.drain_to(0).is_err() {
            // The ring is broken and the kernel may still write to the buffers: they (and with them their slab), the files
            // and the locks stay for the life of the process.
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
mod tests;
