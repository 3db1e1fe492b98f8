//! Reading records over segments.
//!
//! Invariant: a scan holds a pin on each segment that it has still to read, so that none of them is recycled under it.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{DATA_START, Header};
use super::reader::SegmentReader;
use super::segment::header_of;
use super::source::{READ_AHEAD, ReadAhead, Source};
use super::tail::Tail;
use super::writer::Kept;
use super::{Record, Seq};
use crate::disk::{AlignedBuf, Disk, File, OpenOptions};
use crate::{Error, Result};

/// How a log is scanned.
///
/// ```
/// use backstay_storage::log::ScanOptions;
/// let mapped = ScanOptions { mapped: true, ..ScanOptions::from(7) };
/// assert_eq!((mapped.from, mapped.read_ahead), (7, 4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// The first record wanted; 0 is taken as 1.
    pub from: Seq,
    /// Whether finished segments are held in memory whole while they are read, instead of being read past the page
    /// cache in pieces. The one that is still written is always read in pieces. Default false.
    pub mapped: bool,
    /// Reads in flight, of 1 MiB each; at least one. Default 4.
    pub read_ahead: usize,
}

impl From<Seq> for ScanOptions {
    fn from(from: Seq) -> Self {
        Self { from, mapped: false, read_ahead: READ_AHEAD }
    }
}

/// A segment to read: all of it, or what is durable of the newest.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Its number.
    pub segment: u64,
    pub path: PathBuf,
    /// What its header says, if that is known: then the file must say the same.
    pub header: Option<Header>,
    /// What of it may be read.
    pub tail: Tail,
    /// Whether nothing is written to it any more.
    pub sealed: bool,
    /// Keeps the segment from being recycled.
    #[expect(dead_code, reason = "held for its drop")]
    pub pin: Pin,
}

/// Keeps a segment from being recycled for as long as it is held.
#[derive(Clone)]
pub(super) struct Pin(#[expect(dead_code, reason = "held for its drop")] pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

impl Part {
    /// The segment as it is kept now.
    pub(super) fn of(kept: Arc<Kept>, sealed: bool) -> Self {
        let (path, header) = (kept.path.clone(), kept.header.clone());
        Self { segment: header.segment, path, header: Some(header), tail: kept.tail, sealed, pin: Pin(kept) }
    }

    /// Opens it for reading up to its tail. `wanted` is the record that is asked for, for the error if it is gone.
    pub(super) fn open(&self, disk: &dyn Disk, wanted: Seq, mapped: bool, io: ReadAhead) -> Result<SegmentReader> {
        let options = if mapped && self.sealed { OpenOptions::READ } else { OpenOptions::READ_DIRECT };
        let file = disk.open(&self.path, options).map_err(|e| self.gone(wanted, e))?;
        let header = self.checked_header(&*file)?;
        let part = DATA_START..self.tail.end;
        let source = match mapped && self.sealed {
            true => Source::memory(in_memory(&*file, self.tail.end)?, &self.path, part),
            false => Source::ahead(io, file, &self.path, part),
        };
        Ok(SegmentReader::new(source, &header, self.tail))
    }

    fn checked_header(&self, file: &dyn File) -> Result<Header> {
        let header = header_of(file, &self.path)?;
        let wrong = |expected, got| Err(Error::damaged(&self.path, 0, "log segment header", expected, got));
        match &self.header {
            Some(known) if *known != header => wrong(format!("{known:?}"), format!("{header:?}")),
            _ if header.segment != self.segment => {
                wrong(format!("segment {}", self.segment), format!("segment {}", header.segment))
            }
            _ => Ok(header),
        }
    }

    /// The error for a segment that has no file any more.
    fn gone(&self, wanted: Seq, error: Error) -> Error {
        match error {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                gone(wanted, self.segment, &self.path)
            }
            other => other,
        }
    }
}

fn gone(wanted: Seq, segment: u64, path: &Path) -> Error {
    let file = path.display();
    Error::Invalid(format!(
        "record {wanted} is no longer in the log: its segment {segment} ({file}) was trimmed meanwhile"
    ))
}

/// The first `len` bytes of a file.
fn in_memory(file: &dyn File, len: u64) -> Result<Bytes> {
    let mut buf = AlignedBuf::zeroed(usize::try_from(len).unwrap_or(usize::MAX));
    let n = file.read_at(&mut buf, 0)?;
    struct Owner(AlignedBuf);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Ok(Bytes::from_owner(Owner(buf)).slice(..n))
}

/// The records that [`Log::scan`](super::Log::scan) asked for, in order. It ends after the first error.
///
/// Payloads are slices of what was read: one that is kept keeps up to 1 MiB with it, or, where segments are mapped, the
/// whole segment. Copy what is kept for long.
pub struct Scan {
    disk: Arc<dyn Disk>,
    /// The segments that are still to be read; the first is the one that `reader` reads, if there is one.
    parts: VecDeque<Part>,
    reader: Option<SegmentReader>,
    /// What reads ahead, while no reader has it.
    io: Option<ReadAhead>,
    options: ScanOptions,
    /// The next record.
    next: Seq,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").field("next", &self.next).field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl Scan {
    pub(super) fn new(disk: Arc<dyn Disk>, parts: VecDeque<Part>, options: ScanOptions) -> Self {
        let next = options.from.max(1);
        Self { disk, parts, reader: None, io: None, options, next }
    }

    fn advance(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some(reader) = &mut self.reader {
                if let Some(record) = reader.next(self.next)? {
                    self.next = record.seq + 1;
                    return Ok(Some(record));
                }
                self.io = self.reader.take().and_then(SegmentReader::into_read_ahead);
                self.parts.pop_front();
            }
            let Some(part) = self.parts.front() else { return Ok(None) };
            let io = match self.io.take() {
                Some(io) => io,
                None => ReadAhead::new(&*self.disk, self.options.read_ahead)?,
            };
            self.reader = Some(part.open(&*self.disk, self.next, self.options.mapped, io)?);
        }
    }
}

impl Iterator for Scan {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.reader = None;
            self.parts.clear();
        }
        next
    }
}
