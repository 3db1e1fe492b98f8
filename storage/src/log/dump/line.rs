//! What a dump says, a line at a time.

use std::fmt;
use std::path::PathBuf;

use crate::Damage;
use crate::log::Seq;
use crate::log::format::Commit;

/// What [`dump`](super::dump) lists. Damage is always told.
///
/// ```
/// use backstay_storage::log::Dump;
/// let all = Dump { chain: true, blocks: true, records: true };
/// assert_ne!(all, Dump::default()); // which lists nothing but damage of the chain
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// The segments with what their headers and links say, and the files that wait to become segments.
    pub chain: bool,
    /// Every block of every segment.
    pub blocks: bool,
    /// Every record.
    pub records: bool,
}

/// One thing that a dump found. Prints as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DumpLine {
    /// A segment whose header is sound.
    Segment(DumpSegment),
    /// A block of the segment named last.
    Block(DumpBlock),
    /// A record of the segment named last.
    Record(DumpRecord),
    /// A file that waits to become a segment. What it holds is void.
    Free(DumpFree),
    /// Something that is not as it should be.
    Damage(Damage),
}

/// A segment's header and link, and where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpSegment {
    /// Its number.
    pub id: u64,
    /// Its file.
    pub file: PathBuf,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// The store that it belongs to.
    pub store_id: u128,
    /// The opening that made it.
    pub epoch: u64,
    /// The size that it was made with, in bytes.
    pub segment_bytes: u64,
    /// How far beyond its promise a commit may start, in bytes.
    pub window: u64,
    /// What its link says.
    pub link: DumpLink,
    /// How many bytes of it count, and its last record; `None` if that is not known: it or its successor is damaged.
    /// Nothing counts of one that has not begun.
    pub end: Option<(u64, Seq)>,
}

/// Where a segment goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpLink {
    /// A sound link.
    Sound {
        /// The segment's first record, whether or not there is one yet.
        first_seq: Seq,
        /// How many bytes of its predecessor count; what that holds beyond is void. 0 for segment 1.
        prev_len: u64,
    },
    /// A damaged one, which is told as damage.
    Unsound,
    /// None: the segment was made ahead and has not begun.
    Missing,
}

/// A file that was a segment and waits to become another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpFree {
    /// The file.
    pub file: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A block, or several of zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpBlock {
    /// The segment's number.
    pub segment: u64,
    /// Where it starts in the file, in bytes.
    pub offset: u64,
    /// Whether it lies behind the end of what counts.
    pub void: bool,
    /// What it is.
    pub state: BlockState,
}

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// A sound one.
    Sound {
        /// Its commit.
        commit: Commit,
        /// Which of the commit's blocks it is, from 0.
        index: u32,
        /// Bytes of records in it.
        used: usize,
    },
    /// One that is not sound.
    Unsound {
        /// What a sound one would hold.
        expected: String,
        /// What is there.
        got: String,
    },
    /// Zeros.
    Zeros {
        /// How many blocks of them, one behind the other.
        blocks: u64,
    },
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpRecord {
    /// The segment's number.
    pub segment: u64,
    /// Where the block starts that its last byte lies in, in bytes.
    pub block: u64,
    /// Its number.
    pub seq: Seq,
    /// Bytes of payload as it is stored.
    pub stored: u32,
    /// Bytes of payload uncompressed.
    pub raw: u32,
    /// Whether it is compressed.
    pub compressed: bool,
    /// The payload's first bytes, uncompressed: at most 32. Empty if it cannot be decompressed, which is told as damage.
    pub first: Vec<u8>,
}

impl fmt::Display for DumpLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DumpLine::Segment(s) => write_segment(s, f),
            DumpLine::Block(b) => write_block(b, f),
            DumpLine::Record(r) => write_record(r, f),
            DumpLine::Free(DumpFree { file, bytes }) => write!(f, "free file {}: {bytes} bytes", file.display()),
            DumpLine::Damage(d) => {
                let Damage { file, offset, what, expected, got } = d;
                write!(f, "DAMAGED {what} at {}, offset {offset}: expected {expected}, got {got}", file.display())
            }
        }
    }
}

fn write_segment(s: &DumpSegment, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let DumpSegment { id, bytes, store_id, epoch, segment_bytes, window, .. } = s;
    write!(
        f,
        "segment {id}: {bytes} bytes, made with {segment_bytes}, window {window}, store {store_id:032x}, epoch {epoch}, "
    )?;
    let first_seq = match s.link {
        DumpLink::Missing => return write!(f, "made ahead, has not begun"),
        DumpLink::Unsound => {
            write!(f, "its link is not sound, ")?;
            None
        }
        DumpLink::Sound { first_seq, prev_len } => {
            write!(f, "after {prev_len} bytes of segment {}, ", id.saturating_sub(1))?;
            Some(first_seq)
        }
    };
    match (first_seq, s.end) {
        (Some(first), Some((end, last))) if last >= first => write!(f, "records {first} to {last}, ends at {end}"),
        (Some(first), Some((end, _))) => write!(f, "no record, the next is {first}, ends at {end}"),
        (Some(first), None) => write!(f, "records from {first}, ends at an unknown place"),
        (None, Some((end, last))) => write!(f, "records up to {last}, ends at {end}"),
        (None, None) => write!(f, "ends at an unknown place"),
    }
}

fn write_block(b: &DumpBlock, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let void = if b.void { ", void" } else { "" };
    match &b.state {
        BlockState::Sound { commit: Commit { start, blocks, first_seq, records, promised }, index, used } => write!(
            f,
            "  block at {}: {index} of {blocks} of the commit at {start}, {records} records from {first_seq}, promising \
             {promised}, {used} bytes{void}",
            b.offset
        ),
        // Ordinary in a file that was another segment before.
        BlockState::Unsound { .. } if b.void => {
            write!(f, "  block at {}: another segment's, or torn{void}", b.offset)
        }
        BlockState::Unsound { expected, got } => {
            write!(f, "  block at {}: NOT SOUND: expected {expected}, got {got}{void}", b.offset)
        }
        BlockState::Zeros { blocks } => write!(f, "  block at {}: zeros, {blocks} blocks{void}", b.offset),
    }
}

fn write_record(r: &DumpRecord, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let DumpRecord { block, seq, stored, raw, first, .. } = r;
    write!(f, "  record {seq}, ends in the block at {block}: {raw} bytes")?;
    if r.compressed {
        write!(f, ", {stored} compressed")?;
    }
    let more = if first.len() < *raw as usize { "…" } else { "" };
    if first.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
        return write!(f, ": \"{}\"{more}", first.escape_ascii());
    }
    write!(f, ": ")?;
    first.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
    write!(f, "{more}")
}
