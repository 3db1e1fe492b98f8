//! Looking at a log without changing it or taking its lock.

use std::path::Path;

use bytes::Bytes;

use super::format::{DATA_START, decode_header};
use super::reader::SegmentReader;
use super::segment::{self, Found};
use super::source::{READ_AHEAD, ReadAhead, Source};
use super::tail::{Tail, find_tail, tail_of};
use super::{LogReport, Record, SegmentReport};
use crate::disk::{Disk, OpenOptions};
use crate::{Damage, Error, Result};

/// Reads the log in `dir` without changing it: headers and the newest segment, with `verify` every record. Damage is
/// reported, not returned as an error.
///
/// On a log that another process writes, the newest records may be missing from the report, and one that is
/// trimmed meanwhile makes the call fail: try again.
///
/// ```
/// use backstay_storage::log::inspect;
/// # use backstay_storage::log::{Log, LogOptions};
/// # let dir = tempfile::tempdir()?;
/// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
/// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
/// log.append_batch(&[b"a", b"b"])?;
/// log.commit()?;
/// let report = inspect(&*backstay_storage::disk::system(), dir.path(), true)?;
/// assert_eq!((report.first_seq, report.last_seq, report.damage), (1, 2, vec![]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn inspect(disk: &dyn Disk, dir: &Path, verify: bool) -> Result<LogReport> {
    let mut report = LogReport::default();
    if disk.metadata(dir)?.is_none() {
        return Ok(report);
    }
    let Some(listing) = note(&mut report.damage, segment::list(disk, dir))? else { return Ok(report) };
    report.bytes = listing.segments.iter().map(|s| s.file_len).sum();
    let newest = listing.segments.last().map(|s| s.id);
    let mut chain: Vec<Found> = Vec::new();
    // Whether the one before was read: else there is no link to check, and the damage is noted already.
    let mut linked = true;
    for name in listing.segments {
        let Some(found) = note(&mut report.damage, segment::read_header(disk, name))? else {
            linked = false;
            continue;
        };
        if let Some(prev) = chain.last().filter(|_| linked) {
            note(&mut report.damage, segment::check_link(prev, &found))?;
        }
        linked = true;
        chain.push(found);
    }
    for (i, found) in chain.iter().enumerate() {
        // Only the segment right after knows where this one ends.
        let successor = chain.get(i + 1).map(|next| &next.header).filter(|h| h.segment == found.header.segment + 1);
        let tail = match successor {
            Some(next) => Some(Tail { end: next.prev_len, last_seq: next.first_seq - 1 }),
            None if newest == Some(found.header.segment) => {
                note(&mut report.damage, find_tail(disk, &found.path, &found.header))?
            }
            None => None,
        };
        if let Some(tail) = tail.filter(|_| verify) {
            let reader = open_reader(disk, found, tail)?;
            note(&mut report.damage, read_all(reader, |_| ()))?;
        }
        report.segments.push(SegmentReport {
            id: found.header.segment,
            file: found.path.clone(),
            epoch: found.header.epoch,
            first_seq: found.header.first_seq,
            last_seq: tail.map(|t| t.last_seq),
            bytes: found.file_len,
            used: tail.map_or(0, |t| t.end),
        });
    }
    let last = report.segments.last().filter(|s| Some(s.id) == newest);
    report.last_seq = last.and_then(|s| s.last_seq).unwrap_or(0);
    let first = report.segments.first().map_or(0, |s| s.first_seq);
    report.first_seq = if first > report.last_seq { 0 } else { first };
    Ok(report)
}

/// Puts damage aside; any other error stays one.
fn note<T>(damage: &mut Vec<Damage>, result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Damaged(found)) => {
            damage.push(*found);
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

fn read_all(mut reader: SegmentReader, mut each: impl FnMut(Record)) -> Result<()> {
    while let Some(record) = reader.next(0)? {
        each(record);
    }
    Ok(())
}

/// A reader of a segment up to `tail`.
pub(super) fn open_reader(disk: &dyn Disk, found: &Found, tail: Tail) -> Result<SegmentReader> {
    let file = disk.open(&found.path, OpenOptions::READ_DIRECT)?;
    let io = ReadAhead::new(disk, READ_AHEAD)?;
    Ok(SegmentReader::new(Source::ahead(io, file, &found.path, DATA_START..tail.end), &found.header, tail))
}

/// The records of a segment file's bytes, as recovery of the newest segment and a scan of it would find them. For
/// tools and fuzzing: any bytes give records or an error.
///
/// ```
/// assert!(backstay_storage::log::decode_segment(b"not a segment").is_err());
/// ```
#[doc(hidden)]
pub fn decode_segment(bytes: &[u8]) -> Result<Vec<Record>> {
    let path = Path::new("bytes");
    let header = decode_header(bytes).map_err(|fault| fault.at(path, 0))?;
    let bytes = Bytes::copy_from_slice(bytes);
    let tail = tail_of(Source::memory(bytes.clone(), path, DATA_START..header.segment_bytes), &header)?;
    let source = Source::memory(bytes, path, DATA_START..tail.end);
    let mut records = Vec::new();
    read_all(SegmentReader::new(source, &header, tail), |record| records.push(record))?;
    Ok(records)
}
