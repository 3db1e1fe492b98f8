//! Where a reader's blocks come from: reads that run ahead of it, or memory that holds the file.
//!
//! Invariants:
//! 1. Chunks come in file order, without gap, and never from beyond the end that was given.
//! 2. Of a file that is read there are at most `depth` chunks in flight and the one that was handed out. What is
//!    pinned by payloads that others hold comes on top of that.
//! 3. What was read before an error is handed out before the error.
//!
//! Reading ahead ends with the segment; who reads many starts with the next one ([`Source::start`]) once all reads of this
//! one are started ([`Source::is_started`]).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::format::BLOCK;
use crate::disk::{AlignedBuf, Completion, Disk, File, IoQueue, Op, Slab};
use crate::{Error, Result};

/// Reads in flight, unless the caller says otherwise.
pub(super) const READ_AHEAD: usize = 4;
/// Bytes of one read, a multiple of the block size.
pub(super) const CHUNK: usize = 1 << 20;
/// Parts that end below this many bytes are not worth opening the next one before they are used up.
const AHEAD_OF: u64 = 4 * CHUNK as u64;
/// Bytes of mapped memory that are checked at a time: few enough to be in the cache still when the records are used.
const WINDOW: usize = 128 << 10;

/// Buffers of [`CHUNK`] bytes that nobody uses at the moment: a fresh one costs as much as checking what is read into it.
/// They lie in one slab, for its huge pages; if payloads that others hold keep some of them, others are made.
#[derive(Debug)]
struct Pool {
    /// `None` until the first is needed.
    spare: Mutex<Option<Vec<AlignedBuf>>>,
    most: usize,
}

/// A buffer that goes back to its pool.
pub(super) struct Pooled {
    buf: AlignedBuf,
    /// Bytes of it that were read, whole blocks.
    len: usize,
    pool: Arc<Pool>,
}

impl Pooled {
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.buf.get_mut(..self.len).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let buf = std::mem::take(&mut self.buf);
        let mut spare = self.pool.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spare) = spare.as_mut().filter(|spare| buf.len() == CHUNK && spare.len() < self.pool.most) {
            spare.push(buf);
        }
    }
}

/// Blocks that stand one behind the other, from `offset` of their file.
pub(super) struct Chunk {
    pub offset: u64,
    pub memory: Memory,
}

/// A chunk's bytes.
pub(super) enum Memory {
    /// Nobody else's: they may be moved about.
    Owned(Pooled),
    /// A map's.
    Shared(Bytes),
}

impl Memory {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Memory::Owned(pooled) => pooled.as_ref(),
            Memory::Shared(bytes) => bytes,
        }
    }
}

/// What reading ahead needs, from one segment to the next.
pub(super) struct ReadAhead {
    queue: Box<dyn IoQueue>,
    depth: usize,
    pool: Arc<Pool>,
}

impl ReadAhead {
    /// Keeps up to `depth` reads in flight, at least one.
    pub(super) fn new(disk: &dyn Disk, depth: usize) -> Result<Self> {
        let depth = depth.max(1);
        Ok(Self { queue: disk.queue(depth)?, depth, pool: Arc::new(Pool { spare: Mutex::default(), most: depth + 1 }) })
    }

    fn buffer(&mut self, len: usize) -> Result<AlignedBuf> {
        if len != CHUNK {
            return Ok(AlignedBuf::zeroed(len));
        }
        let mut spare = self.pool.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = match &mut *spare {
            Some(spare) => spare,
            none => {
                let (slab, buffers) = Slab::new(CHUNK, self.pool.most);
                self.queue.register(&slab)?;
                none.insert(buffers)
            }
        };
        Ok(spare.pop().unwrap_or_else(|| AlignedBuf::zeroed(len)))
    }
}

/// A read that was started.
struct Slot {
    offset: u64,
    done: Option<(AlignedBuf, Result<usize>)>,
}

/// A file that is read ahead.
struct Ahead {
    io: ReadAhead,
    file: Arc<dyn File>,
    /// What no read was started for yet.
    rest: Range<u64>,
    /// The reads that were started, in file order.
    slots: VecDeque<Slot>,
}

impl Ahead {
    /// Starts as many reads as may be in flight.
    fn fill(&mut self) -> Result<()> {
        let mut ops = Vec::new();
        while self.slots.len() < self.io.depth && !self.rest.is_empty() {
            let offset = self.rest.start;
            let len = usize::try_from(self.rest.end - offset).unwrap_or(CHUNK).min(CHUNK);
            let buf = self.io.buffer(len)?;
            ops.push((offset, Op::Read { file: self.file.clone(), offset, buf }));
            self.slots.push_back(Slot { offset, done: None });
            self.rest.start += len as u64;
        }
        if ops.is_empty() { Ok(()) } else { self.io.queue.submit(ops) }
    }

    /// The oldest read's chunk, and how many bytes of it there are; `None` if all was read.
    fn next(&mut self) -> Result<Option<(u64, AlignedBuf, usize)>> {
        self.fill()?;
        loop {
            match self.slots.front_mut().map(|slot| (slot.offset, slot.done.take())) {
                None => return Ok(None),
                Some((offset, Some((buf, result)))) => {
                    self.slots.pop_front();
                    let read = result?;
                    // The next reads run while this chunk is used.
                    self.fill()?;
                    return Ok(Some((offset, buf, read)));
                }
                Some((_, None)) => self.harvest()?,
            }
        }
    }

    fn harvest(&mut self) -> Result<()> {
        let completions = self.io.queue.wait(1)?;
        if completions.is_empty() {
            let lost = io::Error::other("a read that was started has not ended");
            return Err(Error::io("read", self.file.path(), lost));
        }
        for Completion { token, buf, result } in completions {
            if let Some(slot) = self.slots.iter_mut().find(|slot| slot.offset == token) {
                slot.done = Some((buf.unwrap_or_default(), result));
            }
        }
        Ok(())
    }
}

enum Kind {
    Ahead(Box<Ahead>),
    /// The file's bytes from its start, and which of them are still to be handed out.
    Memory(Bytes, Range<u64>),
}

/// The blocks of a part of a file, in order, in chunks.
pub(super) struct Source {
    kind: Kind,
    path: PathBuf,
    /// Where the part ends, in bytes.
    end: u64,
    /// What is reported once the chunk before it was used.
    failed: Option<Error>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.path).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Source {
    /// Reads `part`, which is made of whole blocks, with `io`.
    pub(super) fn ahead(io: ReadAhead, file: Arc<dyn File>, path: &Path, part: Range<u64>) -> Self {
        let end = part.end;
        let ahead = Ahead { io, file, rest: part, slots: VecDeque::new() };
        Self { kind: Kind::Ahead(Box::new(ahead)), path: path.into(), end, failed: None }
    }

    /// Takes `part` of a file whose bytes, from its start, are in memory.
    pub(super) fn memory(bytes: Bytes, path: &Path, part: Range<u64>) -> Self {
        let end = part.end;
        Self { kind: Kind::Memory(bytes, part), path: path.into(), end, failed: None }
    }

    /// Starts the first reads. What fails now is tried again, and reported, by the first [`Source::next`].
    pub(super) fn start(&mut self) {
        if let Kind::Ahead(ahead) = &mut self.kind {
            let _ = ahead.fill();
        }
    }

    /// Whether no read is left to be started, of a part that is worth being read ahead of.
    pub(super) fn is_started(&self) -> bool {
        match &self.kind {
            Kind::Ahead(ahead) => ahead.rest.is_empty() && self.end >= AHEAD_OF,
            Kind::Memory(..) => false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Lets it go on to `end`, which is not before the end that it had. Memory does not grow.
    pub(super) fn extend(&mut self, end: u64) {
        match &mut self.kind {
            Kind::Ahead(ahead) => ahead.rest.end = end,
            Kind::Memory(_, rest) => rest.end = end,
        }
        self.end = end;
    }

    /// The next chunk; `None` at the end of the part.
    pub(super) fn next(&mut self) -> Result<Option<Chunk>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let (chunk, short_at) = match &mut self.kind {
            Kind::Ahead(ahead) => {
                let Some((offset, buf, read)) = ahead.next()? else { return Ok(None) };
                let wanted = buf.len();
                let len = read.min(wanted) / BLOCK * BLOCK;
                let here = offset + read as u64;
                let pooled = Pooled { buf, len, pool: ahead.io.pool.clone() };
                (Chunk { offset, memory: Memory::Owned(pooled) }, (read < wanted).then_some(here))
            }
            Kind::Memory(bytes, rest) => {
                if rest.is_empty() {
                    return Ok(None);
                }
                let offset = rest.start;
                let wanted = usize::try_from(rest.end - offset).unwrap_or(WINDOW).min(WINDOW);
                rest.start += wanted as u64;
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let read = wanted.min(bytes.len() - from);
                let part = bytes.slice(from..from + read / BLOCK * BLOCK);
                let here = offset + read as u64;
                (Chunk { offset, memory: Memory::Shared(part) }, (read < wanted).then_some(here))
            }
        };
        if let Some(here) = short_at {
            let (expected, got) = (format!("a file of {} bytes", self.end), format!("{here} bytes"));
            self.failed = Some(Error::damaged(&self.path, here, "log segment", expected, got));
        }
        Ok(Some(chunk))
    }

    /// What read ahead, if nothing of it is in flight any more, for the next segment.
    pub(super) fn into_read_ahead(self) -> Option<ReadAhead> {
        match self.kind {
            Kind::Ahead(ahead) if ahead.io.queue.in_flight() == 0 => Some(ahead.io),
            _ => None,
        }
    }
}
