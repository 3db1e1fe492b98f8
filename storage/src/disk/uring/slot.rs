//! One operation of a ring's queue, and what each answer of the kernel means for it.

use std::io;
use std::sync::Arc;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};

use super::files::Place;
use crate::Error;
use crate::disk::posix::Shared;
use crate::disk::{ALIGN, AlignedBuf, Completion, File};

/// The most bytes that one entry moves; the rest follows in another.
const MOST: usize = 1 << 30;
/// The index of the slab among the ring's registered buffers: the only one.
const SLAB: u16 = 0;

/// What a slot's entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Read,
    Write,
    /// A write that is durable when it completes.
    WriteDsync,
    /// A write that a sync will follow.
    WriteThenSync,
    Sync,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) token: u64,
    pub(super) step: Step,
    pub(super) file: Arc<dyn File>,
    pub(super) fd: i32,
    /// Where the file is registered, if it is.
    pub(super) place: Option<Place>,
    /// Whether the buffer lies in the slab that is registered.
    pub(super) registered: bool,
    pub(super) offset: u64,
    pub(super) buf: Option<AlignedBuf>,
    /// Bytes moved so far.
    pub(super) done: usize,
}

/// What to do after an answer of the kernel.
pub(super) enum Next {
    Again(Step),
    End(io::Result<usize>),
}

impl Slot {
    /// The entry for what is left of the slot's step.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        let fd = Fd(self.place.as_ref().map_or(self.fd, |place| place.index));
        let at = self.offset + self.done as u64;
        let rest = self.buf.as_deref_mut().and_then(|b| b.get_mut(self.done..)).unwrap_or_default();
        let (ptr, len) = (rest.as_mut_ptr(), rest.len().min(MOST) as u32);
        let flags = if self.step == Step::WriteDsync { libc::RWF_DSYNC } else { 0 };
        let entry = match (self.step, self.registered) {
            (Step::Read, false) => opcode::Read::new(fd, ptr, len).offset(at).build(),
            (Step::Read, true) => opcode::ReadFixed::new(fd, ptr, len, SLAB).offset(at).build(),
            (Step::Sync, _) => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
            (_, false) => opcode::Write::new(fd, ptr, len).offset(at).rw_flags(flags).build(),
            (_, true) => opcode::WriteFixed::new(fd, ptr, len, SLAB).offset(at).rw_flags(flags).build(),
        };
        // What the crate's `types::Fixed` does; whether it is one is known here only.
        if self.place.is_some() { entry.flags(squeue::Flags::FIXED_FILE) } else { entry }
    }

    /// Notes what the kernel did, and says what is next.
    pub(super) fn answered(&mut self, answer: i32) -> Next {
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

    pub(super) fn completion(self, result: io::Result<usize>, shared: &Shared) -> Completion {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Create, Disk, OpenOptions, PosixDisk};

    const RW: OpenOptions = OpenOptions { write: true, create: Create::IfAbsent, direct: false };

    fn slot(step: Step, blocks: usize, file_len: u64) -> (tempfile::TempDir, Slot) {
        let dir = tempfile::tempdir().unwrap();
        let file = PosixDisk::new().open(&dir.path().join("a"), RW).unwrap();
        file.set_len(file_len).unwrap();
        let fd = file.raw_fd().unwrap();
        let buf = Some(AlignedBuf::zeroed(blocks * ALIGN));
        (dir, Slot { token: 1, step, file, fd, place: None, registered: false, offset: 0, buf, done: 0 })
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
    fn entries_say_what_is_registered_and_keep_the_flags() {
        /// Opcode, flags, descriptor, rw_flags and buffer index, by their places in `struct io_uring_sqe`.
        fn fields(entry: &squeue::Entry) -> (u8, u8, i32, i32, u16) {
            // SAFETY: a test's: an entry is the kernel's 64 bytes and nothing else, all of them set at its making.
            let b: [u8; 64] = unsafe { std::mem::transmute_copy(entry) };
            let int = |at: usize| i32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
            (b[0], b[1], int(4), int(28), u16::from_ne_bytes([b[40], b[41]]))
        }
        let fixed_file = squeue::Flags::FIXED_FILE.bits();
        for (step, flags, plain, fixed) in [
            (Step::Read, 0, opcode::Read::CODE, opcode::ReadFixed::CODE),
            (Step::Write, 0, opcode::Write::CODE, opcode::WriteFixed::CODE),
            (Step::WriteDsync, libc::RWF_DSYNC, opcode::Write::CODE, opcode::WriteFixed::CODE),
            (Step::WriteThenSync, 0, opcode::Write::CODE, opcode::WriteFixed::CODE),
        ] {
            let (_dir, mut slot) = slot(step, 1, 0);
            assert_eq!(fields(&slot.entry()), (plain, 0, slot.fd, flags, 0), "{step:?}");
            slot.registered = true;
            assert_eq!(fields(&slot.entry()), (fixed, 0, slot.fd, flags, SLAB), "{step:?}");
            slot.place = Some(Place { at: 1, index: 3 });
            assert_eq!(fields(&slot.entry()), (fixed, fixed_file, 3, flags, SLAB), "{step:?}");
        }
        let (_dir, mut slot) = slot(Step::Sync, 0, 0);
        slot.place = Some(Place { at: 1, index: 3 });
        let datasync = FsyncFlags::DATASYNC.bits() as i32;
        assert_eq!(fields(&slot.entry()), (opcode::Fsync::CODE, fixed_file, 3, datasync, 0));
    }
}
