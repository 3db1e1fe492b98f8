//! Finding the records in the blocks of a commit: where each one's payload lies, and what of it lies elsewhere.
//!
//! A record whose payload lies in one block stays where it is. One that crosses blocks of a chunk is made whole there, by
//! moving its later parts over the heads of the blocks between ([`compact`]), or, where the chunk must not be changed, it
//! is copied together when it is asked for ([`gather`]). One that crosses chunks is copied together as they come.
//!
//! Invariants:
//! 1. Every byte of every commit belongs to a record, and the records are those that the commit names.
//! 2. Memory is in proportion to one chunk and one record; a length that a record claims is believed only as far as its
//!    commit and the segment have room for it.

use std::path::Path;

use bytes::{Bytes, BytesMut};

use super::Seq;
use super::format::{BLOCK, BLOCK_BYTES, BLOCK_HEAD, Commit, PAYLOAD, RECORD_HEAD, RecordHead, decode_record_head};
use crate::{Error, Result};

/// A record that lies in the chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Where in the chunk its payload starts.
    pub at: u32,
    pub stored: u32,
    pub raw: u32,
    pub zstd: bool,
}

impl Frame {
    /// Whether its payload goes on in another block.
    pub(super) fn crosses(&self) -> bool {
        self.at as usize % BLOCK + self.stored as usize > BLOCK
    }

    /// The block of the chunk that its last byte lies in.
    pub(super) fn last_block(&self) -> u64 {
        let (block, skip) = (self.at as usize / BLOCK, self.at as usize % BLOCK);
        (block + skip.saturating_sub(BLOCK_HEAD).saturating_add(self.stored as usize).saturating_sub(1) / PAYLOAD)
            as u64
    }
}

/// A record that came over several chunks.
#[derive(Debug)]
pub(super) struct Whole {
    pub head: RecordHead,
    pub stored: Bytes,
    /// The file's block that its last byte lies in.
    pub block: u64,
}

/// The record whose payload is not complete yet.
#[derive(Debug)]
struct Open {
    head: RecordHead,
    missing: usize,
    /// Where in the chunk its payload starts; known once there is some of it.
    at: usize,
    /// Whether what there is of it was copied out of an earlier chunk.
    spilled: bool,
}

/// What is known of the records of the chunks so far.
pub(super) struct Frames {
    /// The records of the chunk, in order.
    pub list: Vec<Frame>,
    /// The record before those in `list`, if it began in an earlier chunk.
    pub front: Option<Whole>,
    /// The number of the next record that is found.
    pub next_seq: Seq,
    open: Option<Open>,
    /// The front part of a record's head that is not complete yet, and how much of it there is.
    head: ([u8; RECORD_HEAD], usize),
    /// Where the open record is copied together, over chunks.
    spill: BytesMut,
    /// Where records are copied together that cross blocks of one chunk.
    arena: BytesMut,
}

/// Records that are copied share allocations of this size.
const ARENA: usize = 64 << 10;

impl Frames {
    pub(super) fn new(next_seq: Seq) -> Self {
        let head = ([0; RECORD_HEAD], 0);
        Self {
            list: Vec::new(),
            front: None,
            next_seq,
            open: None,
            head,
            spill: BytesMut::new(),
            arena: BytesMut::new(),
        }
    }

    /// Goes on with a commit's next block, which starts at `offset` of the file and `at` of the chunk. At most `left`
    /// bytes of records follow in the commit.
    pub(super) fn block(&mut self, path: &Path, at: usize, offset: u64, payload: &[u8], left: usize) -> Result<()> {
        let mut rest = payload;
        loop {
            // Where `rest` starts in the chunk.
            let here = at + BLOCK_HEAD + payload.len() - rest.len();
            if let Some(open) = &mut self.open {
                let (part, after) = rest.split_at_checked(open.missing).unwrap_or((rest, &[]));
                if open.missing == open.head.stored as usize {
                    open.at = here;
                }
                open.missing -= part.len();
                if open.spilled {
                    self.spill.extend_from_slice(part);
                }
                if open.missing > 0 {
                    return Ok(());
                }
                rest = after;
                self.close(offset);
                continue;
            }
            let head = match rest.split_first_chunk::<RECORD_HEAD>() {
                Some((head, after)) if self.head.1 == 0 => {
                    rest = after;
                    *head
                }
                _ if rest.is_empty() => return Ok(()),
                _ => match self.piece_of_head(&mut rest) {
                    Some(head) => head,
                    None => return Ok(()),
                },
            };
            let head = decode_record_head(&head).map_err(|fault| fault.at(path, offset))?;
            if head.seq != self.next_seq {
                let (expected, got) = (format!("record {}", self.next_seq), format!("record {}", head.seq));
                return Err(Error::damaged(path, offset, "log record", expected, got));
            }
            let (stored, most) = (head.stored as usize, rest.len().saturating_add(left));
            if stored > most {
                return Err(too_long(
                    path,
                    offset,
                    RECORD_HEAD.saturating_add(most),
                    RECORD_HEAD.saturating_add(stored),
                ));
            }
            let here = at + BLOCK_HEAD + payload.len() - rest.len();
            match rest.get(stored..) {
                Some(after) => {
                    self.push(here, head);
                    rest = after;
                }
                None => self.open = Some(Open { head, missing: stored, at: here, spilled: false }),
            }
        }
    }

    /// Takes what there is of a head that crosses blocks; gives it once it is complete.
    fn piece_of_head(&mut self, rest: &mut &[u8]) -> Option<[u8; RECORD_HEAD]> {
        let (head, have) = &mut self.head;
        let free = head.get_mut(*have..).unwrap_or_default();
        let n = free.len().min(rest.len());
        let (part, after) = rest.split_at_checked(n)?;
        free.get_mut(..n)?.copy_from_slice(part);
        *rest = after;
        *have += n;
        if *have < RECORD_HEAD {
            return None;
        }
        *have = 0;
        Some(*head)
    }

    fn push(&mut self, at: usize, head: RecordHead) {
        let RecordHead { stored, raw, zstd, .. } = head;
        self.list.push(Frame { at: at as u32, stored, raw, zstd });
        self.next_seq += 1;
    }

    /// The open record is complete, with the block at `offset` of the file.
    fn close(&mut self, offset: u64) {
        let Some(Open { head, at, spilled, .. }) = self.open.take() else { return };
        if spilled {
            self.front = Some(Whole { head, stored: self.spill.split().freeze(), block: offset });
            self.next_seq += 1;
        } else {
            self.push(at, head);
        }
    }

    /// Checks that the commit which ends with the block at `offset` has the records that it names.
    pub(super) fn end_commit(&self, path: &Path, offset: u64, commit: &Commit) -> Result<()> {
        if let Some(Open { head, missing, .. }) = &self.open {
            let whole = RECORD_HEAD.saturating_add(head.stored as usize);
            return Err(too_long(path, offset, whole - missing, whole));
        }
        if self.head.1 > 0 {
            return Err(too_long(path, offset, self.head.1, RECORD_HEAD));
        }
        if commit.last_seq().checked_add(1) != Some(self.next_seq) {
            let expected = format!("records up to {}", commit.last_seq());
            let got = format!("records up to {}", self.next_seq - 1);
            return Err(Error::damaged(path, commit.start, "log commit", expected, got));
        }
        Ok(())
    }

    /// Copies out of a chunk what belongs to a record that goes on in the next. `room` is what the segment has from the
    /// chunk on: more than that is not believed of the record's length.
    pub(super) fn leave(&mut self, chunk: &[u8], room: usize) {
        let Some(open) = self.open.as_mut().filter(|open| !open.spilled) else { return };
        let stored = open.head.stored as usize;
        if open.missing < stored {
            open.spilled = true;
            reserve(&mut self.spill, stored.min(room));
            gather(&mut self.spill, chunk, open.at, stored - open.missing);
        }
    }

    /// The payload of a record that crosses blocks of a chunk which was not compacted.
    pub(super) fn gathered(&mut self, chunk: &[u8], frame: &Frame) -> Bytes {
        reserve(&mut self.arena, frame.stored as usize);
        gather(&mut self.arena, chunk, frame.at as usize, frame.stored as usize);
        self.arena.split().freeze()
    }

    /// Makes the records that cross blocks of the chunk whole, in place.
    pub(super) fn compact(&self, chunk: &mut [u8]) {
        for frame in self.list.iter().filter(|frame| frame.crosses()) {
            compact(chunk, frame.at as usize, frame.stored as usize);
        }
    }
}

fn too_long(path: &Path, offset: u64, most: usize, got: usize) -> Error {
    Error::damaged(path, offset, "log record", format!("a record of at most {most} bytes"), format!("{got} bytes"))
}

/// Makes room for `len` bytes: an allocation is shared by small records and reused once nobody holds any of them.
fn reserve(arena: &mut BytesMut, len: usize) {
    if arena.capacity() < len {
        arena.reserve(len.max(ARENA));
    }
}

/// Appends the `len` payload bytes that start at `at`, from as many blocks as they lie in.
fn gather(to: &mut BytesMut, chunk: &[u8], mut at: usize, len: usize) {
    let mut left = len;
    while left > 0 {
        let n = left.min(BLOCK - at % BLOCK);
        to.extend_from_slice(chunk.get(at..at + n).unwrap_or_default());
        left -= n;
        at += n + BLOCK_HEAD;
    }
}

/// Moves the later parts of the `len` payload bytes that start at `at` up to the first.
fn compact(chunk: &mut [u8], at: usize, len: usize) {
    let mut to = at.next_multiple_of(BLOCK);
    let mut left = len - (to - at).min(len);
    let mut from = to + BLOCK_HEAD;
    while left > 0 && from < chunk.len() {
        let n = left.min(PAYLOAD).min(chunk.len() - from);
        chunk.copy_within(from..from + n, to);
        left -= n;
        to += n;
        from += n + BLOCK_HEAD;
    }
}

/// The offset in the file of block `n` of the chunk at `offset`.
pub(super) fn block_offset(offset: u64, n: u64) -> u64 {
    offset + n * BLOCK_BYTES
}
