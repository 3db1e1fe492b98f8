//! Reading records over segments.
//!
//! Invariants:
//! 1. A scan holds each segment that it has still to read, so that none of them is recycled under it.
//! 2. So does a map, for as long as the scan or anyone's payload holds it: its bytes are the file's.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{DATA_START, LINK_AT};
use super::reader::SegmentReader;
use super::segment::Kept;
use super::source::{READ_AHEAD, ReadAhead, Source};
use super::tail::Tail;
use super::{Record, Seq};
use crate::disk::{Disk, Map, OpenOptions};
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
    /// Whether finished segments are mapped into memory: best for what was read a short time ago, or will be again.
    /// Otherwise they are read past the page cache, as the one that is still written always is. Default false.
    pub mapped: bool,
    /// Reads in flight, of 1 MiB each; at least one. Default 4.
    pub read_ahead: usize,
}

impl From<Seq> for ScanOptions {
    fn from(from: Seq) -> Self {
        Self { from, mapped: false, read_ahead: READ_AHEAD }
    }
}

/// A segment to read. It pins the segment: its file does not become another one while this is held.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub kept: Arc<Kept>,
    pub end: End,
}

/// What of a segment may be read.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// What its successor says: nothing is written to it any more.
    Sealed(Arc<Kept>),
    /// What is durable of the newest.
    Tail(Tail),
}

/// A map of a segment. Payloads are slices of it: while any of them is held, the segment must not be written again.
struct Pinned {
    map: Map,
    _pin: Arc<Kept>,
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Part {
    fn is_sealed(&self) -> bool {
        matches!(self.end, End::Sealed(_))
    }

    pub(super) fn tail(&self, disk: &dyn Disk) -> Result<Tail> {
        match &self.end {
            End::Sealed(next) => self.kept.sealed_tail(disk, next),
            End::Tail(tail) => Ok(*tail),
        }
    }

    /// Opens it for reading up to its tail. `wanted` is the record that is asked for, for the error if it is gone.
    pub(super) fn open(&self, disk: &dyn Disk, wanted: Seq, mapped: bool, io: ReadAhead) -> Result<SegmentReader> {
        self.read(disk, wanted, mapped, io).map_err(|e| self.gone(wanted, e))
    }

    fn read(&self, disk: &dyn Disk, wanted: Seq, mapped: bool, io: ReadAhead) -> Result<SegmentReader> {
        let mapped = mapped && self.is_sealed();
        let options = if mapped { OpenOptions::READ } else { OpenOptions::READ_DIRECT };
        let path = &self.kept.path;
        let file = disk.open(path, options)?;
        let head = self.kept.head(disk)?;
        self.kept.check_front(&*file)?;
        if head.link.first_seq > wanted {
            let (expected, got) = (format!("a first record of at most {wanted}"), head.link.first_seq.to_string());
            return Err(Error::damaged(path, LINK_AT, "log segment link", expected, got));
        }
        let tail = self.tail(disk)?;
        let part = DATA_START..tail.end;
        let source = match mapped {
            true => {
                // A file that is too short is found, as damage, once all that it has was read.
                let map = disk.map(&file, tail.end.min(file.len()?))?;
                Source::memory(Bytes::from_owner(Pinned { map, _pin: self.kept.clone() }), path, part)
            }
            false => Source::ahead(io, file, path, part),
        };
        Ok(SegmentReader::new(source, head, tail))
    }

    /// The error for a segment that has no file any more.
    fn gone(&self, wanted: Seq, error: Error) -> Error {
        match error {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                gone(wanted, self.kept.id, &self.kept.path)
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

/// The records that [`Log::scan`](super::Log::scan) asked for, in order. It ends after the first error.
///
/// Payloads are slices of what was read: one that is kept keeps up to 1 MiB with it, or, where segments are mapped, the
/// whole segment. Copy what is kept for long.
pub struct Scan {
    disk: Arc<dyn Disk>,
    /// The segments that are still to be read; the first is the one that `reader` reads, if there is one.
    parts: VecDeque<Part>,
    reader: Option<SegmentReader>,
    /// Reads the second part already, while the last of the first is used.
    ahead: Option<SegmentReader>,
    /// Whether that was tried.
    looked_ahead: bool,
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
        Self { disk, parts, reader: None, ahead: None, looked_ahead: false, io: None, options, next }
    }

    fn advance(&mut self) -> Result<Option<Record>> {
        loop {
            if !self.looked_ahead && self.reader.as_ref().is_some_and(SegmentReader::is_started) {
                self.looked_ahead = true;
                // What goes wrong here is found again, and told, when the scan comes to it.
                self.ahead = self.open_second().ok().flatten();
            }
            if let Some(reader) = &mut self.reader {
                if let Some(record) = reader.next(self.next)? {
                    self.next = record.seq + 1;
                    return Ok(Some(record));
                }
                self.io = self.reader.take().and_then(SegmentReader::into_read_ahead);
                self.parts.pop_front();
                self.reader = self.ahead.take();
                self.looked_ahead = false;
                continue;
            }
            let Some(part) = self.parts.front().cloned() else { return Ok(None) };
            let io = self.read_ahead()?;
            self.reader = Some(part.open(&*self.disk, self.next, self.options.mapped, io)?);
        }
    }

    fn read_ahead(&mut self) -> Result<ReadAhead> {
        match self.io.take() {
            Some(io) => Ok(io),
            None => ReadAhead::new(&*self.disk, self.options.read_ahead),
        }
    }

    /// Starts to read the second part.
    fn open_second(&mut self) -> Result<Option<SegmentReader>> {
        let (Some(first), Some(second)) = (self.parts.front().cloned(), self.parts.get(1).cloned()) else {
            return Ok(None);
        };
        let wanted = first.tail(&*self.disk)?.last_seq + 1;
        let io = self.read_ahead()?;
        let mut reader = second.open(&*self.disk, wanted, self.options.mapped, io)?;
        reader.start();
        Ok(Some(reader))
    }
}

impl Iterator for Scan {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if !matches!(next, Some(Ok(_))) {
            (self.reader, self.ahead) = (None, None);
            self.parts.clear();
        }
        next
    }
}

#[cfg(test)]
mod tests;
