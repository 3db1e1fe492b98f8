//! Reading a segment: the records of blocks that must be sound.
//!
//! A chunk of blocks is checked as a whole, then its records are handed out as slices of it: none is copied unless it
//! crosses blocks, and none is allocated for unless it crosses chunks or is compressed.
//!
//! Invariants:
//! 1. Memory is bounded by what the [`Source`] has in flight, one chunk and its list of records, and one record, whatever
//!    the segment's size. What others hold of payloads comes on top: each pins its chunk.
//! 2. Up to the end that was given everything must be sound: the first thing that is not is a
//!    [`Damaged`](crate::Error::Damaged) error, after all records before it; never a skipped record.
//! 3. Nothing beyond that end is read.
//! 4. Nothing of a block is handed out before the block was checked.

use std::fmt;
use std::io::Read;

use bytes::Bytes;

use super::commits::{Commits, Refused};
use super::format::{BLOCK, BLOCK_BYTES, DATA_START, Header, RecordHead};
use super::frames::{Frames, Whole, block_offset};
use super::segment::Head;
use super::source::{Chunk, Memory, ReadAhead, Source};
use super::tail::Tail;
use super::{Record, Seq};
use crate::{Error, Result};

/// A record as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub head: RecordHead,
    pub bytes: Bytes,
    /// The block that its last byte lies in, as an offset in the file.
    pub block: u64,
}

/// The chunk whose records are handed out.
struct Ready {
    offset: u64,
    bytes: Bytes,
    /// Whether each record is whole there.
    compacted: bool,
    /// How many of its records were taken.
    taken: usize,
}

/// The records of a segment below a known end.
pub(super) struct SegmentReader {
    source: Source,
    commits: Commits,
    epoch: u64,
    frames: Frames,
    ready: Ready,
    /// The number of the next record that is handed out.
    next_seq: Seq,
    /// What is wrong behind the records that are ready.
    fault: Option<Error>,
    /// What the segment must end with.
    expected: Tail,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

impl fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentReader")
            .field("source", &self.source)
            .field("next_seq", &self.next_seq)
            .finish_non_exhaustive()
    }
}

impl SegmentReader {
    /// Reads the segment of this header up to `tail`, from a source of the blocks between [`DATA_START`] and there.
    pub(super) fn new(source: Source, head: &Head, tail: Tail) -> Self {
        Self::from_commit(source, &head.header, tail, DATA_START, head.link.first_seq)
    }

    /// Reads from the commit at `start` on, whose first record is `first_seq`. The source begins there.
    pub(super) fn from_commit(source: Source, header: &Header, tail: Tail, start: u64, first_seq: Seq) -> Self {
        Self {
            source,
            commits: Commits::new(header, start, first_seq),
            epoch: header.epoch,
            frames: Frames::new(first_seq),
            ready: Ready { offset: start, bytes: Bytes::new(), compacted: true, taken: 0 },
            next_seq: first_seq,
            fault: None,
            expected: tail,
            decompressor: None,
        }
    }

    /// Lets it go on to `tail`, which is not before the one that it had.
    pub(super) fn extend(&mut self, tail: Tail) {
        self.source.extend(tail.end);
        self.expected = tail;
    }

    /// The next record from `from` on; those before it are checked and passed over.
    pub(super) fn next(&mut self, from: Seq) -> Result<Option<Record>> {
        let Some(stored) = self.next_stored(from)? else { return Ok(None) };
        let seq = stored.head.seq;
        let payload = if stored.head.zstd { self.unzipped(&stored)? } else { stored.bytes };
        Ok(Some(Record { seq, payload, epoch: self.epoch }))
    }

    /// The same, without decompressing it.
    pub(super) fn next_stored(&mut self, from: Seq) -> Result<Option<Stored>> {
        loop {
            if let Some(Whole { head, stored, block }) = self.frames.front.take() {
                self.next_seq = head.seq + 1;
                if head.seq >= from {
                    return Ok(Some(Stored { head, bytes: stored, block }));
                }
            }
            if let Some(stored) = self.take_ready(from)? {
                return Ok(Some(stored));
            }
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            // The old chunk is let go before the next is asked for, so that its buffer can be read into.
            self.ready.bytes = Bytes::new();
            self.frames.list.clear();
            match self.source.next()? {
                Some(chunk) => self.check(chunk),
                None => return self.check_end().map(|()| None),
            }
        }
    }

    /// The next record from `from` on of those that are ready.
    fn take_ready(&mut self, from: Seq) -> Result<Option<Stored>> {
        let passed = usize::try_from(from.saturating_sub(self.next_seq)).unwrap_or(usize::MAX);
        let passed = passed.min(self.frames.list.len().saturating_sub(self.ready.taken));
        self.ready.taken += passed;
        self.next_seq += passed as u64;
        let Some(frame) = self.frames.list.get(self.ready.taken).copied() else { return Ok(None) };
        let (at, end) = (frame.at as usize, (frame.at as usize).saturating_add(frame.stored as usize));
        let bytes = if !self.ready.compacted && frame.crosses() {
            self.frames.gathered(&self.ready.bytes, &frame)
        } else if end <= self.ready.bytes.len() {
            self.ready.bytes.slice(at..end)
        } else {
            // The frames were found in these bytes.
            let at = block_offset(self.ready.offset, frame.last_block());
            let (expected, got) = (format!("{end} bytes of records"), format!("{}", self.ready.bytes.len()));
            return Err(Error::damaged(self.source.path(), at, "log segment", expected, got));
        };
        let head = RecordHead { seq: self.next_seq, stored: frame.stored, raw: frame.raw, zstd: frame.zstd };
        self.ready.taken += 1;
        self.next_seq += 1;
        Ok(Some(Stored { head, bytes, block: block_offset(self.ready.offset, frame.last_block()) }))
    }

    /// Checks a chunk's blocks and finds their records, as far as they are sound.
    fn check(&mut self, chunk: Chunk) {
        let Chunk { offset, mut memory } = chunk;
        self.ready = Ready { offset, bytes: Bytes::new(), compacted: false, taken: 0 };
        self.fault = self.walk(offset, memory.bytes()).err();
        let room = usize::try_from(self.source.end().saturating_sub(offset)).unwrap_or(usize::MAX);
        self.frames.leave(memory.bytes(), room);
        (self.ready.bytes, self.ready.compacted) = match memory {
            Memory::Owned(ref mut pooled) => {
                self.frames.compact(pooled.bytes_mut());
                let Memory::Owned(pooled) = memory else { return };
                (Bytes::from_owner(pooled), true)
            }
            Memory::Shared(bytes) => (bytes, false),
        };
    }

    fn walk(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let path = self.source.path();
        let mut at = 0;
        for block in bytes.chunks_exact(BLOCK) {
            let here = offset + at as u64;
            let (commit, payload) =
                self.commits.take(here, block).map_err(Refused::into_fault).map_err(|fault| fault.at(path, here))?;
            self.frames.block(path, at, here, payload, self.commits.bytes_left())?;
            if !self.commits.is_open() {
                self.frames.end_commit(path, here, &commit)?;
            }
            at += BLOCK;
        }
        Ok(())
    }

    /// The payload of a record.
    pub(super) fn payload(&mut self, stored: &Stored) -> Result<Bytes> {
        if stored.head.zstd { self.unzipped(stored) } else { Ok(stored.bytes.clone()) }
    }

    /// The payload of a compressed record.
    fn unzipped(&mut self, stored: &Stored) -> Result<Bytes> {
        let raw = stored.head.raw as usize;
        let got = match unzip(&mut self.decompressor, &stored.bytes, raw) {
            Ok(payload) if payload.len() == raw => return Ok(payload.into()),
            Ok(payload) => format!("{} bytes", payload.len()),
            Err(e) => e.to_string(),
        };
        Err(Error::damaged(self.source.path(), stored.block, "log record", format!("{raw} bytes of zstd"), got))
    }

    fn check_end(&self) -> Result<()> {
        let Tail { end, last_seq } = self.expected;
        let path = self.source.path();
        if self.commits.is_open() {
            let last = self.source.end().saturating_sub(BLOCK_BYTES);
            let expected = format!("a commit that ends by {end}");
            return Err(Error::damaged(path, last, "log commit", expected, "one that goes on"));
        }
        if (self.commits.end, self.commits.last_seq) == (end, last_seq) {
            return Ok(());
        }
        let got = format!("whole commits up to {} with record {}", self.commits.end, self.commits.last_seq);
        let expected = format!("whole commits up to {end} with record {last_seq}");
        Err(Error::damaged(path, self.commits.end, "log segment", expected, got))
    }

    /// Starts reading, before the first record is asked for.
    pub(super) fn start(&mut self) {
        self.source.start();
    }

    /// Whether the device has nothing left to do for this segment.
    pub(super) fn is_started(&self) -> bool {
        self.source.is_started()
    }

    /// What read ahead, for the next segment.
    pub(super) fn into_read_ahead(self) -> Option<ReadAhead> {
        self.source.into_read_ahead()
    }
}

/// Decompressed lengths up to this many bytes are believed; a longer one is allocated only as the bytes come.
const TRUSTED_RAW: usize = 1 << 20;

/// Decompresses into `raw` bytes, or one more if there are more.
fn unzip(
    decompressor: &mut Option<zstd::bulk::Decompressor<'static>>,
    stored: &[u8],
    raw: usize,
) -> std::io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    if raw > TRUSTED_RAW {
        let limit = (raw as u64).saturating_add(1);
        zstd::stream::read::Decoder::with_buffer(stored)?.take(limit).read_to_end(&mut payload)?;
        return Ok(payload);
    }
    let decompressor = match decompressor {
        Some(d) => d,
        None => decompressor.insert(zstd::bulk::Decompressor::new()?),
    };
    payload.try_reserve_exact(raw)?;
    decompressor.decompress_to_buffer(stored, &mut payload)?;
    Ok(payload)
}

#[cfg(test)]
mod tests;
