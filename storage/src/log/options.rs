//! What a log can be told and what it tells of itself.

use std::path::PathBuf;

use bytes::Bytes;

use crate::Damage;

/// A record's place in the log: 1, 2, 3 … for the life of the store; 0 means "none".
pub type Seq = u64;

/// How a log is kept.
///
/// ```
/// use backstay_storage::log::LogOptions;
/// let small = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
/// assert_eq!(small.compress_over, Some(4096));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Size of a segment file in bytes, header included; rounded up to whole blocks. A commit that
    /// does not fit gets a segment of its own size. Opening reads one segment or two. Default 32 MiB.
    pub segment_bytes: u64,
    /// Payloads longer than this many bytes are compressed with zstd (kept so only if smaller);
    /// `None` never compresses. Default 4096.
    pub compress_over: Option<usize>,
    /// How far beyond the durable offset a write may start, in bytes: bounds what is in flight, or written and not yet
    /// synced, at once (plus one commit), and so what a crash can tear. 0 means one write at a time. Default 8 MiB.
    pub window: u64,
    /// Bytes of records that each of the seven buffers holds that they are gathered in, locked in memory where the disk is
    /// io_uring. A record that does not fit one gets a buffer of its own until it is written. At most 256 MiB.
    /// Default 1 MiB and 64 KiB.
    pub buffer_bytes: usize,
    /// How many trimmed segments are kept as files to make new ones of: a new file has to be written with zeros first.
    /// Default 2.
    pub spare_segments: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            compress_over: Some(4096),
            window: 8 << 20,
            buffer_bytes: (1 << 20) + (64 << 10),
            spare_segments: 2,
        }
    }
}

/// One record, as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its sequence number.
    pub seq: Seq,
    /// The bytes that were appended.
    pub payload: Bytes,
    /// The epoch (opening of the store) that appended it.
    pub epoch: u64,
}

/// Counters since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records appended.
    pub records: u64,
    /// Their bytes, before compression.
    pub payload_bytes: u64,
    /// Writes started: one for each group of appends.
    pub commits: u64,
    /// Bytes of those writes, whole blocks.
    pub commit_bytes: u64,
    /// Syncs of what was written without anybody waiting for it.
    pub syncs: u64,
    /// Segments made from nothing, the one made by opening included.
    pub segments_created: u64,
    /// Segments made of trimmed ones.
    pub segments_recycled: u64,
    /// Segments removed by trimming.
    pub segments_trimmed: u64,
}

/// One segment, as [`inspect`](super::inspect) found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its number: 1, 2, 3 …
    pub id: u64,
    /// Its file.
    pub file: PathBuf,
    /// The epoch that wrote it.
    pub epoch: u64,
    /// The first record's number, whether or not there is one yet.
    pub first_seq: Seq,
    /// The last record's number; `first_seq - 1` if it is empty, `None` if that could not be read.
    pub last_seq: Option<Seq>,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Bytes of it that count: header and whole commits.
    pub used: u64,
}

/// What [`inspect`](super::inspect) found. Empty for a directory without a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// The segments, oldest first. One whose header is damaged is missing here and named in `damage`.
    pub segments: Vec<SegmentReport>,
    /// The oldest record kept (0 if there is none).
    pub first_seq: Seq,
    /// The newest record (0 if there is none, or it could not be read).
    pub last_seq: Seq,
    /// Bytes of the segments, the one that was made ahead included.
    pub bytes: u64,
    /// Bytes of files that wait to become segments again.
    pub spare_bytes: u64,
    /// Every damage found. Without `verify` only headers and the newest segment are looked at.
    pub damage: Vec<Damage>,
}
