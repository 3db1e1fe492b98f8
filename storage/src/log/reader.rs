//! Reading a segment: blocks in file order, the records of blocks that must be sound, and the tail of the newest
//! segment, which may be torn.
//!
//! Invariants:
//! 1. Memory is bounded by one chunk of blocks and one record, whatever the segment's size.
//! 2. Below a known end everything must be sound: the first thing that is not is a [`Damaged`](crate::Error::Damaged)
//!    error, never a skipped record.

use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{
    BLOCK, BLOCK_BYTES, Commit, Fault, Header, Identity, PAYLOAD, RECORD_HEAD, RecordHead, decode_block,
    decode_record_head,
};
use super::{Record, Seq};
use crate::disk::File;
use crate::{Error, Result};

/// Blocks are read this many bytes at a time.
const CHUNK: usize = 64 * BLOCK;

/// The blocks of a part of a file, in order.
struct Blocks {
    file: Arc<dyn File>,
    path: PathBuf,
    /// What is still to be read from the file.
    rest: Range<u64>,
    chunk: Vec<u8>,
    /// Where in `chunk` the next block starts.
    at: usize,
    /// The next block's offset in the file.
    offset: u64,
}

impl Blocks {
    fn new(file: Arc<dyn File>, path: &Path, part: Range<u64>) -> Self {
        Self { file, path: path.into(), offset: part.start, rest: part, chunk: Vec::new(), at: 0 }
    }

    /// The next block and its offset.
    fn next(&mut self) -> Result<Option<(u64, &[u8])>> {
        if self.at >= self.chunk.len() {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let len = CHUNK.min(usize::try_from(self.rest.end - self.rest.start).unwrap_or(CHUNK));
            self.chunk.resize(len, 0);
            let n = self.file.read_at(&mut self.chunk, self.rest.start)?;
            if n < len {
                let (here, expected) = (self.rest.start + n as u64, format!("a file of {} bytes", self.rest.end));
                let got = format!("{here} bytes");
                return Err(Error::damaged(&self.path, here, "log segment", expected, got));
            }
            self.rest.start += len as u64;
            self.at = 0;
        }
        let Some(block) = self.chunk.get(self.at..self.at + BLOCK) else { return Ok(None) };
        let offset = self.offset;
        self.at += BLOCK;
        self.offset += BLOCK_BYTES;
        Ok(Some((offset, block)))
    }
}

/// Where in a commit a reader stands.
#[derive(Clone, Copy)]
struct Place {
    commit: Commit,
    /// The next block's index.
    next: u32,
}

/// Follows the commits of a segment over its blocks.
struct Commits {
    identity: Identity,
    /// The commit that is not complete yet.
    open: Option<Place>,
    /// Where the last complete commit ends.
    end: u64,
    last_seq: Seq,
}

impl Commits {
    fn new(header: &Header) -> Self {
        Self { identity: Identity::of(header), open: None, end: BLOCK_BYTES, last_seq: header.first_seq - 1 }
    }

    /// Takes the next block; `Err(fault, false)` if it is not sound, `(fault, true)` if it is, but is out of place.
    fn take<'b>(&mut self, offset: u64, bytes: &'b [u8]) -> Result<(Commit, &'b [u8]), (Fault, bool)> {
        let block = decode_block(bytes, &self.identity, offset).map_err(|fault| (fault, false))?;
        let (expected, index) = match self.open {
            Some(place) => (place.commit, place.next),
            // What a commit may choose is taken from the block; where it stands and starts is not.
            None => (Commit { start: self.end, first_seq: self.last_seq.saturating_add(1), ..block.commit }, 0),
        };
        if (block.commit, block.index) != (expected, index) {
            let fault = Fault::new("log block", describe(&expected, index), describe(&block.commit, block.index));
            return Err((fault, true));
        }
        self.open = Some(Place { commit: expected, next: index + 1 });
        if index + 1 == expected.blocks {
            self.open = None;
            self.end = expected.end();
            self.last_seq = expected.last_seq();
        }
        Ok((expected, block.payload))
    }
}

fn describe(commit: &Commit, index: u32) -> String {
    let Commit { start, blocks, first_seq, records, promised } = commit;
    format!(
        "block {index} of {blocks} of the commit at {start} ({records} records from {first_seq}, promising {promised})"
    )
}

/// Where the newest segment's sound part ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The end of the last whole commit, in bytes.
    pub end: u64,
    /// Its last record.
    pub last_seq: Seq,
}

/// Finds the end of the newest segment. What lies behind it was in flight at the crash, never acknowledged; if any
/// block of the segment promises otherwise, the first unsound block is damage (invariant 7 of the design).
pub(super) fn find_tail(file: Arc<dyn File>, path: &Path, header: &Header) -> Result<Tail> {
    let mut blocks = Blocks::new(file, path, BLOCK_BYTES..header.segment_bytes);
    let mut commits = Commits::new(header);
    let mut torn: Option<(u64, Fault)> = None;
    while let Some((offset, bytes)) = blocks.next()? {
        let Some((at, fault)) = &torn else {
            match commits.take(offset, bytes) {
                Ok(_) => {}
                Err((fault, false)) => torn = Some((offset, fault)),
                Err((fault, true)) => return Err(fault.at(path, offset)),
            }
            continue;
        };
        let Ok(block) = decode_block(bytes, &commits.identity, offset) else { continue };
        let promised = block.commit.promised;
        if promised > commits.end {
            let proof = format!("{} (the block at {offset} proves {promised} bytes durable)", fault.got);
            return Err(Fault { got: proof, ..fault.clone() }.at(path, *at));
        }
    }
    Ok(Tail { end: commits.end, last_seq: commits.last_seq })
}

/// The records of a segment below a known end.
pub(super) struct SegmentReader {
    path: PathBuf,
    blocks: Blocks,
    commits: Commits,
    epoch: u64,
    /// The commit whose records are in `stream`.
    commit: Option<Commit>,
    /// Bytes of records that were read and not yet taken.
    stream: Vec<u8>,
    /// Where in `stream` the next record starts.
    at: usize,
    next_seq: Seq,
    /// What the segment must end with.
    expected: Tail,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

impl fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentReader")
            .field("path", &self.path)
            .field("next_seq", &self.next_seq)
            .finish_non_exhaustive()
    }
}

impl SegmentReader {
    /// Reads the segment of this header up to `tail`.
    pub(super) fn new(file: Arc<dyn File>, path: &Path, header: &Header, tail: Tail) -> Self {
        Self {
            path: path.into(),
            blocks: Blocks::new(file, path, BLOCK_BYTES..tail.end),
            commits: Commits::new(header),
            epoch: header.epoch,
            commit: None,
            stream: Vec::new(),
            at: 0,
            next_seq: header.first_seq,
            expected: tail,
            decompressor: None,
        }
    }

    /// The next record from `from` on; those before it are checked and passed over.
    pub(super) fn next(&mut self, from: Seq) -> Result<Option<Record>> {
        loop {
            if self.at == self.stream.len() && self.commits.open.is_none() {
                if let Some(commit) = self.commit.take()
                    && commit.last_seq().checked_add(1) != Some(self.next_seq)
                {
                    let got = format!("records up to {}", self.next_seq - 1);
                    return Err(self.damaged(
                        commit.start,
                        "log commit",
                        format!("records up to {}", commit.last_seq()),
                        got,
                    ));
                }
                if !self.read_block()? {
                    return self.check_end().map(|()| None);
                }
            }
            let head = self.head()?;
            let stored = self.need(RECORD_HEAD, head.stored as usize)?;
            let taken = RECORD_HEAD + stored.len();
            let payload = match head.seq < from {
                true => None,
                false => Some(self.payload(head)?),
            };
            self.at += taken;
            self.next_seq += 1;
            if let Some(payload) = payload {
                return Ok(Some(Record { seq: head.seq, payload, epoch: self.epoch }));
            }
        }
    }

    fn damaged(&self, offset: u64, what: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Error {
        Error::damaged(&self.path, offset, what, expected, got)
    }

    /// The block that was read last.
    fn here(&self) -> u64 {
        self.blocks.offset.saturating_sub(BLOCK_BYTES)
    }

    fn head(&mut self) -> Result<RecordHead> {
        let head = decode_record_head(self.need(0, RECORD_HEAD)?).map_err(|fault| fault.at(&self.path, self.here()))?;
        if head.seq != self.next_seq {
            let (expected, got) = (format!("record {}", self.next_seq), format!("record {}", head.seq));
            return Err(self.damaged(self.here(), "log record", expected, got));
        }
        Ok(head)
    }

    /// `len` bytes of the stream from `skip` bytes after the next record's start, reading blocks of its commit as needed.
    fn need(&mut self, skip: usize, len: usize) -> Result<&[u8]> {
        let end = |at: usize| at.saturating_add(skip).saturating_add(len);
        while end(self.at) > self.stream.len() {
            let blocks_left = self.commits.open.map_or(0, |place| (place.commit.blocks - place.next) as usize);
            if end(self.at) - self.stream.len() > blocks_left.saturating_mul(PAYLOAD) {
                let expected =
                    format!("a record of at most {} bytes", self.stream.len() - self.at + blocks_left * PAYLOAD);
                return Err(self.damaged(
                    self.here(),
                    "log record",
                    expected,
                    format!("{} bytes", skip.saturating_add(len)),
                ));
            }
            if !self.read_block()? {
                let expected = format!("a commit that ends by {}", self.expected.end);
                return Err(self.damaged(self.here(), "log commit", expected, "one that goes on"));
            }
        }
        Ok(self.stream.get(self.at + skip..end(self.at)).unwrap_or_default())
    }

    /// Adds the next block's payload to the stream; `false` at the end.
    fn read_block(&mut self) -> Result<bool> {
        let Some((offset, bytes)) = self.blocks.next()? else { return Ok(false) };
        let (commit, payload) = self.commits.take(offset, bytes).map_err(|(fault, _)| fault.at(&self.path, offset))?;
        self.commit = Some(commit);
        if self.at > 0 {
            self.stream.drain(..self.at);
            self.at = 0;
        }
        self.stream.extend_from_slice(payload);
        Ok(true)
    }

    /// The payload of the record at the stream's front, which has been read whole.
    fn payload(&mut self, head: RecordHead) -> Result<Bytes> {
        let start = self.at + RECORD_HEAD;
        let stored = self.stream.get(start..start + head.stored as usize).unwrap_or_default();
        if !head.zstd {
            return Ok(Bytes::copy_from_slice(stored));
        }
        let raw = head.raw as usize;
        let result = unzip(&mut self.decompressor, stored, raw);
        let got = match result {
            Ok(payload) if payload.len() == raw => return Ok(payload.into()),
            Ok(payload) => format!("{} bytes", payload.len()),
            Err(e) => e.to_string(),
        };
        Err(self.damaged(self.here(), "log record", format!("{raw} bytes of zstd"), got))
    }

    fn check_end(&self) -> Result<()> {
        let Tail { end, last_seq } = self.expected;
        if (self.commits.end, self.commits.last_seq) == (end, last_seq) && self.commits.open.is_none() {
            return Ok(());
        }
        let got = format!("whole commits up to {} with record {}", self.commits.end, self.commits.last_seq);
        Err(self.damaged(
            self.commits.end,
            "log segment",
            format!("whole commits up to {end} with record {last_seq}"),
            got,
        ))
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
