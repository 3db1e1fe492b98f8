//! The bytes of a segment: header block, data blocks, commits, records. Pure functions, no I/O; `docs/format.md` has
//! the diagrams.
//!
//! Invariants:
//! 1. Decoding never panics and never allocates more than it was given, whatever the bytes.
//! 2. A block decodes only in the place it was written for: store, segment, epoch and offset go into its checksum.
//! 3. `promised <= start of its commit <= promised + window` (the link block not counted), so that a block proves what
//!    was durable before it.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Seq;
use crate::disk::ALIGN;
use crate::queue::striped::Stripes;
use crate::sabotage::{Check, checked};
use crate::{Error, Result};

/// Bytes of a block; header and link are one block each.
pub const BLOCK: usize = ALIGN;
/// The same, for offsets.
pub const BLOCK_BYTES: u64 = BLOCK as u64;
/// Bytes of a data block's own header.
pub const BLOCK_HEAD: usize = 40;
/// Bytes of a data block that hold records.
pub const PAYLOAD: usize = BLOCK - BLOCK_HEAD;
/// Bytes before each record's payload.
pub const RECORD_HEAD: usize = 20;
/// The format written and read here.
pub const VERSION: u32 = 2;
/// Where in a segment the link block stands.
pub const LINK_AT: u64 = BLOCK_BYTES;
/// Where in a segment the first commit starts.
pub const DATA_START: u64 = 2 * BLOCK_BYTES;

/// How records lie in a buffer that is to be written: room for a link, then blocks with room for their heads.
pub(crate) const STRIPES: Stripes = Stripes { front: BLOCK, block: BLOCK, head: BLOCK_HEAD };

const MAGIC: &[u8; 8] = b"BKSTLOG1";
/// Segment numbers, epochs and record numbers stay so far below the end of u64 that counting on never overflows.
const MOST: u64 = u64::MAX / 2;
/// The payload is compressed with zstd.
const ZSTD: u32 = 1;

/// What is wrong with some bytes, before it is known where they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What stands there.
    pub what: &'static str,
    /// What a sound unit would hold.
    pub expected: String,
    /// What was found.
    pub got: String,
    /// Sound, but of a format that this build does not read.
    pub unsupported: bool,
}

impl Fault {
    pub(super) fn new(what: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { what, expected: expected.into(), got: got.into(), unsupported: false }
    }

    /// The error, now that the place is known.
    pub(super) fn at(self, file: &std::path::Path, offset: u64) -> Error {
        if self.unsupported {
            return Error::Unsupported { path: file.into(), what: self.what, expected: self.expected, got: self.got };
        }
        Error::damaged(file, offset, self.what, self.expected, self.got)
    }
}

/// What the header block of a segment says: who it is. Durable before the segment has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The store that it belongs to.
    pub store_id: u128,
    /// Its number: 1, 2, 3 …
    pub segment: u64,
    /// The opening of the store that made it.
    pub epoch: u64,
    /// Its whole size in bytes.
    pub segment_bytes: u64,
    /// How far beyond what it promises a commit may start, in bytes.
    pub window: u64,
}

/// What the link block says: where the segment goes on from. A segment without one has not begun: it was made ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The number that its first record has, or would have.
    pub first_seq: Seq,
    /// How many bytes of the predecessor count; what it holds beyond is void. 0 for segment 1.
    pub prev_len: u64,
}

/// Reads little-endian fields off the front of bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_le_bytes)
    }
}

fn short(what: &'static str, bytes: &[u8]) -> Fault {
    Fault::new(what, format!("{BLOCK} bytes"), format!("{} bytes", bytes.len()))
}

fn checksum_fault(what: &'static str, bytes: &[u8], expected: u64, got: u64) -> Fault {
    let got = match bytes.iter().all(|b| *b == 0) {
        true => "a block of zeros".into(),
        false => format!("{got:016x}"),
    };
    Fault::new(what, format!("checksum {expected:016x}"), got)
}

impl Header {
    /// The header block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK);
        block.extend_from_slice(MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&(BLOCK as u32).to_le_bytes());
        block.extend_from_slice(&self.store_id.to_le_bytes());
        for field in [self.segment, self.epoch, self.segment_bytes, self.window] {
            block.extend_from_slice(&field.to_le_bytes());
        }
        block.resize(BLOCK - 8, 0);
        block.extend_from_slice(&xxh3_64(&block).to_le_bytes());
        block
    }
}

fn whole(bytes: u64) -> bool {
    bytes.is_multiple_of(BLOCK_BYTES)
}

/// Reads the header block of a segment.
pub fn decode_header(bytes: &[u8]) -> Result<Header, Fault> {
    const WHAT: &str = "log segment header";
    let (body, sum) = bytes.get(..BLOCK).and_then(<[u8]>::split_last_chunk::<8>).ok_or_else(|| short(WHAT, bytes))?;
    let mut fields = Fields(body);
    match fields.take::<8>() {
        Some(magic) if magic == *MAGIC => {}
        got => {
            return Err(Fault::new(
                WHAT,
                "the magic BKSTLOG1",
                format!("{:?}", got.unwrap_or_default().escape_ascii().to_string()),
            ));
        }
    }
    // Every version keeps magic and checksum where they are, so that a flipped bit is never taken for a new version.
    let (expected, got) = (xxh3_64(body), u64::from_le_bytes(*sum));
    if checked(Check::LogHeaderChecksum) && expected != got {
        return Err(checksum_fault(WHAT, bytes, expected, got));
    }
    let mut read = || {
        Some((fields.u32()?, fields.u32()?, fields.u128()?, fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?))
    };
    let (version, block, store_id, segment, epoch, segment_bytes, window) = read().ok_or_else(|| short(WHAT, bytes))?;
    if version != VERSION {
        return Err(Fault {
            unsupported: true,
            ..Fault::new("log format version", VERSION.to_string(), version.to_string())
        });
    }
    if block as usize != BLOCK {
        return Err(Fault { unsupported: true, ..Fault::new("log block size", BLOCK.to_string(), block.to_string()) });
    }
    let sound = (1..=MOST).contains(&segment) && epoch <= MOST && whole(segment_bytes) && segment_bytes >= DATA_START;
    if !sound {
        let got = format!("segment {segment} of epoch {epoch} and {segment_bytes} bytes");
        return Err(Fault::new(WHAT, "consistent fields", got));
    }
    Ok(Header { store_id, segment, epoch, segment_bytes, window })
}

impl Link {
    /// The link block of the segment of this header.
    pub(super) fn encode(&self, block: &mut [u8], header: &Header) {
        block.fill(0);
        let Some((sum, body)) = block.split_first_chunk_mut::<8>() else { return };
        let fields = [self.first_seq, header.segment - 1, self.prev_len, self.first_seq.saturating_sub(1)];
        body.iter_mut().zip(fields.into_iter().flat_map(u64::to_le_bytes)).for_each(|(to, from)| *to = from);
        *sum = Identity::of(header).checksum(body, LINK_AT).to_le_bytes();
    }
}

/// Reads the link block of the segment of this header.
pub fn decode_link(bytes: &[u8], header: &Header) -> Result<Link, Fault> {
    const WHAT: &str = "log segment link";
    let (sum, body) = bytes.get(..BLOCK).and_then(<[u8]>::split_first_chunk::<8>).ok_or_else(|| short(WHAT, bytes))?;
    let (expected, got) = (Identity::of(header).checksum(body, LINK_AT), u64::from_le_bytes(*sum));
    if checked(Check::LogLinkChecksum) && expected != got {
        return Err(checksum_fault(WHAT, bytes, expected, got));
    }
    let mut fields = Fields(body);
    let mut read = || Some((fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?));
    let (first_seq, prev, prev_len, prev_last) = read().ok_or_else(|| short(WHAT, bytes))?;
    let sound = (1..=MOST).contains(&first_seq)
        && prev == header.segment - 1
        && prev_last == first_seq - 1
        && whole(prev_len)
        && if prev == 0 { prev_len == 0 && prev_last == 0 } else { prev_len >= DATA_START };
    if !sound {
        let got = format!("first record {first_seq} after segment {prev} of {prev_len} bytes up to record {prev_last}");
        return Err(Fault::new(WHAT, "consistent fields", got));
    }
    Ok(Link { first_seq, prev_len })
}

/// What a data block's place adds to its checksum, and the bounds of what it may say.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    seed: u64,
    segment_bytes: u64,
    window: u64,
}

impl Identity {
    /// The identity of the blocks of a segment.
    pub fn of(header: &Header) -> Self {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend_from_slice(&header.store_id.to_le_bytes());
        if checked(Check::LogBlockIdentity) {
            bytes.extend_from_slice(&header.segment.to_le_bytes());
            bytes.extend_from_slice(&header.epoch.to_le_bytes());
        }
        Self { seed: xxh3_64(&bytes), segment_bytes: header.segment_bytes, window: header.window }
    }

    /// The checksum of the block at `offset`, of what follows the checksum itself.
    fn checksum(&self, body: &[u8], offset: u64) -> u64 {
        let offset = if checked(Check::LogBlockPlace) { offset } else { 0 };
        xxh3_64_with_seed(body, self.seed.wrapping_add((offset / BLOCK_BYTES).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }
}

/// What every block of a commit says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where it starts in the segment, in bytes.
    pub start: u64,
    /// How many blocks it has.
    pub blocks: u32,
    /// Its first record.
    pub first_seq: Seq,
    /// How many records it has, at least one.
    pub records: u32,
    /// All bytes of the segment below this offset were durable when it was written.
    pub promised: u64,
}

impl Commit {
    /// Where it ends in the segment, in bytes.
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.blocks) * BLOCK_BYTES)
    }

    /// Its last record.
    pub(super) fn last_seq(&self) -> Seq {
        self.first_seq.saturating_add(u64::from(self.records)).saturating_sub(1)
    }
}

/// A sound data block.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The commit it belongs to.
    pub commit: Commit,
    /// Which of the commit's blocks it is, from 0.
    pub index: u32,
    /// Its part of the commit's records.
    pub payload: &'a [u8],
}

/// How many blocks `stream` bytes of records take.
pub(super) fn blocks_for(stream: usize) -> u64 {
    stream.div_ceil(PAYLOAD) as u64
}

/// Turns blocks whose payload parts hold `stream` bytes of records (see [`encode_record_head`]) into a commit: fills in the
/// blocks' heads, and zeros behind the stream.
pub(super) fn stamp(blocks: &mut [u8], stream: usize, commit: &Commit, identity: &Identity) {
    let (mut index, mut offset, mut left) = (0_u32, commit.start, stream);
    for block in blocks.chunks_exact_mut(BLOCK) {
        let used = left.min(PAYLOAD);
        left -= used;
        if let Some(padding) = block.get_mut(BLOCK_HEAD + used..) {
            padding.fill(0);
        }
        let Some((sum, body)) = block.split_first_chunk_mut::<8>() else { continue };
        let fields: [&[u8]; 7] = [
            &commit.promised.to_le_bytes(),
            &commit.first_seq.to_le_bytes(),
            &commit.records.to_le_bytes(),
            &commit.blocks.to_le_bytes(),
            &index.to_le_bytes(),
            &(used as u16).to_le_bytes(),
            &[0; 2],
        ];
        let mut rest = &mut *body;
        for field in fields {
            let Some((to, behind)) = rest.split_at_mut_checked(field.len()) else { break };
            to.copy_from_slice(field);
            rest = behind;
        }
        *sum = identity.checksum(body, offset).to_le_bytes();
        index += 1;
        offset += BLOCK_BYTES;
    }
}

/// A data block's fields, as they stand there.
struct BlockHead {
    promised: u64,
    first_seq: Seq,
    records: u32,
    blocks: u32,
    index: u32,
    used: u16,
    reserved: u16,
}

impl BlockHead {
    /// The fields behind a block's checksum, and what follows them.
    fn read(body: &[u8]) -> Option<(Self, &[u8])> {
        let mut fields = Fields(body);
        let head = Self {
            promised: fields.u64()?,
            first_seq: fields.u64()?,
            records: fields.u32()?,
            blocks: fields.u32()?,
            index: fields.u32()?,
            used: fields.u16()?,
            reserved: fields.u16()?,
        };
        Some((head, fields.0))
    }
}

/// The data block that stands at `offset` of its segment, if it is sound. Allocates nothing: this is the inner loop of
/// every reader.
pub(super) fn sound_block<'a>(bytes: &'a [u8], identity: &Identity, offset: u64) -> Option<Block<'a>> {
    let (sum, body) = bytes.get(..BLOCK)?.split_first_chunk::<8>()?;
    if identity.checksum(body, offset) != u64::from_le_bytes(*sum) && checked(Check::LogBlockChecksum) {
        return None;
    }
    let (BlockHead { promised, first_seq, records, blocks, index, used, reserved }, payload) = BlockHead::read(body)?;
    let payload = payload.get(..usize::from(used))?;
    let start = offset.checked_sub(u64::from(index) * BLOCK_BYTES)?;
    let commit = Commit { start, blocks, first_seq, records, promised };
    let last = index.checked_add(1) == Some(blocks);
    let sound = index < blocks
        && reserved == 0
        && (1..=MOST).contains(&first_seq)
        && records >= 1
        && if last { !payload.is_empty() } else { payload.len() == PAYLOAD }
        && (LINK_AT..=start).contains(&promised)
        && promised.is_multiple_of(BLOCK_BYTES)
        && start >= DATA_START
        && start - promised.max(DATA_START) <= identity.window
        && commit.end() <= identity.segment_bytes;
    sound.then_some(Block { commit, index, payload })
}

/// What is wrong with a block that [`sound_block`] refuses.
#[cold]
pub(super) fn block_fault(bytes: &[u8], identity: &Identity, offset: u64) -> Fault {
    const WHAT: &str = "log block";
    let Some((sum, body)) = bytes.get(..BLOCK).and_then(<[u8]>::split_first_chunk::<8>) else {
        return short(WHAT, bytes);
    };
    let (expected, got) = (identity.checksum(body, offset), u64::from_le_bytes(*sum));
    if expected != got {
        return checksum_fault(WHAT, bytes, expected, got);
    }
    let Some((BlockHead { promised, first_seq, records, blocks, index, used, .. }, _)) = BlockHead::read(body) else {
        return short(WHAT, bytes);
    };
    let got = format!(
        "block {index} of {blocks} with {used} bytes, {records} records from {first_seq}, promising {promised}"
    );
    Fault::new(WHAT, "consistent fields", got)
}

/// Reads the data block that stands at `offset` of its segment.
pub fn decode_block<'a>(bytes: &'a [u8], identity: &Identity, offset: u64) -> Result<Block<'a>, Fault> {
    sound_block(bytes, identity, offset).ok_or_else(|| block_fault(bytes, identity, offset))
}

/// What a block says that it promises, sound or not: cheap to read where only a promise beyond some offset matters.
pub(super) fn claimed_promise(bytes: &[u8]) -> u64 {
    bytes.get(8..).and_then(<[u8]>::first_chunk).map_or(0, |field| u64::from_le_bytes(*field))
}

/// What stands before each record's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// The record's number.
    pub seq: Seq,
    /// Bytes of it that follow.
    pub stored: u32,
    /// Bytes it has uncompressed.
    pub raw: u32,
    /// Whether it is compressed with zstd.
    pub zstd: bool,
}

/// What stands before a record's payload in a commit's stream.
pub(super) fn encode_record_head(head: RecordHead) -> [u8; RECORD_HEAD] {
    let mut bytes = [0; RECORD_HEAD];
    let flags = if head.zstd { ZSTD } else { 0 };
    let fields: [&[u8]; 4] =
        [&head.stored.to_le_bytes(), &flags.to_le_bytes(), &head.seq.to_le_bytes(), &head.raw.to_le_bytes()];
    let mut rest = &mut bytes[..];
    for field in fields {
        let Some((to, behind)) = rest.split_at_mut_checked(field.len()) else { break };
        to.copy_from_slice(field);
        rest = behind;
    }
    bytes
}

/// Reads what stands before a record's payload.
pub fn decode_record_head(bytes: &[u8]) -> Result<RecordHead, Fault> {
    const WHAT: &str = "log record";
    let mut fields = Fields(bytes);
    let mut read = || Some((fields.u32()?, fields.u32()?, fields.u64()?, fields.u32()?));
    let (stored, flags, seq, raw) = read()
        .ok_or_else(|| Fault::new(WHAT, format!("{RECORD_HEAD} bytes before it"), format!("{} bytes", bytes.len())))?;
    let zstd = flags == ZSTD;
    if !zstd && (flags != 0 || stored != raw) {
        return Err(Fault::new(
            WHAT,
            "flags 0 and equal lengths, or flags 1",
            format!("flags {flags}, {stored} of {raw} bytes"),
        ));
    }
    Ok(RecordHead { seq, stored, raw, zstd })
}

/// A commit of these records, framed by [`encode_record`].
#[cfg(test)]
pub(super) fn encode_commit(stream: &[u8], commit: &Commit, identity: &Identity) -> Vec<u8> {
    let mut blocks = vec![0xaa; stream.len().div_ceil(PAYLOAD) * BLOCK];
    for (block, part) in blocks.chunks_mut(BLOCK).zip(stream.chunks(PAYLOAD)) {
        block[BLOCK_HEAD..BLOCK_HEAD + part.len()].copy_from_slice(part);
    }
    stamp(&mut blocks, stream.len(), commit, identity);
    blocks
}

/// Appends a record to a commit's stream.
#[cfg(test)]
pub(super) fn encode_record(stream: &mut Vec<u8>, head: RecordHead, stored: &[u8]) {
    stream.extend_from_slice(&encode_record_head(head));
    stream.extend_from_slice(stored);
}

#[cfg(test)]
mod tests;
