//! Looking at a log without changing it or taking its lock.

use std::path::Path;

use bytes::Bytes;

use super::format::{BLOCK, DATA_START, LINK_AT, decode_header, decode_link};
use super::reader::SegmentReader;
use super::segment::{self, Front, Head, Kept, Listing};
use super::source::{READ_AHEAD, ReadAhead, Source};
use super::tail::{Tail, find_tail, proof_of, tail_of};
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
    report.spare_bytes = listing.free.iter().map(|s| s.file_len).sum();
    note(&mut report.damage, listing.check_numbers(dir))?;
    let newest = listing.segments.last().map(|s| s.id);
    let (kept, made_ahead) = begun(disk, &mut report.damage, listing)?;
    for (i, segment) in kept.iter().enumerate() {
        let head = segment.head(disk)?;
        let tail = match kept.get(i + 1) {
            // Only the segment right after knows where this one ends.
            Some(next) if next.id == segment.id + 1 => note(&mut report.damage, segment.sealed_tail(disk, next))?,
            // Of a newer one nothing could be read: this one's end is not known.
            _ if newest.is_some_and(|newest| newest > segment.id && made_ahead != Some(newest)) => None,
            Some(_) => None,
            None => note(&mut report.damage, find_tail(disk, &segment.path, head))?,
        };
        if let Some(tail) = tail.filter(|_| verify) {
            let reader = open_reader(disk, segment, tail)?;
            note(&mut report.damage, read_all(reader, |_| ()))?;
        }
        report.segments.push(SegmentReport {
            id: segment.id,
            file: segment.path.clone(),
            epoch: head.header.epoch,
            first_seq: head.link.first_seq,
            last_seq: tail.map(|t| t.last_seq),
            bytes: segment.file_len,
            used: tail.map_or(0, |t| t.end),
        });
    }
    let last = report.segments.last().filter(|s| newest == Some(s.id) || made_ahead.is_some());
    report.last_seq = last.and_then(|s| s.last_seq).unwrap_or(0);
    let first = report.segments.first().map_or(0, |s| s.first_seq);
    report.first_seq = if first > report.last_seq { 0 } else { first };
    Ok(report)
}

/// The segments that have begun, with their fronts read, and the one that was made ahead. What is wrong with others is
/// noted.
fn begun(disk: &dyn Disk, damage: &mut Vec<Damage>, listing: Listing) -> Result<(Vec<Kept>, Option<u64>)> {
    let mut made_ahead = None;
    let newest = listing.segments.last().map(|s| s.id);
    let mut kept = Vec::new();
    for name in listing.segments {
        let Some(front) = note(damage, segment::read_front(disk, &name, true))? else { continue };
        let Front { header, link } = front;
        let fault = match link {
            Ok(link) => {
                kept.push(Kept::new(name, Some(Head { header, link })));
                continue;
            }
            Err(fault) => fault,
        };
        // The newest may have been made ahead.
        let is_made_ahead = match newest == Some(name.id) {
            true => proof_of(disk, &name.path, &header).map(|proof| proof.is_none()),
            false => Ok(false),
        };
        match note(damage, is_made_ahead)? {
            Some(true) => made_ahead = Some(name.id),
            Some(false) => drop(note::<()>(damage, Err(fault.at(&name.path, LINK_AT)))?),
            // What is wrong with it was noted.
            None => {}
        }
    }
    Ok((kept, made_ahead))
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
pub(super) fn open_reader(disk: &dyn Disk, segment: &Kept, tail: Tail) -> Result<SegmentReader> {
    let file = disk.open(&segment.path, OpenOptions::READ_DIRECT)?;
    let io = ReadAhead::new(disk, READ_AHEAD)?;
    let source = Source::ahead(io, file, &segment.path, DATA_START..tail.end);
    Ok(SegmentReader::new(source, segment.head(disk)?, tail))
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
    let link = decode_link(bytes.get(BLOCK..).unwrap_or_default(), &header).map_err(|fault| fault.at(path, LINK_AT))?;
    let head = Head { header, link };
    let bytes = Bytes::copy_from_slice(bytes);
    let tail = tail_of(Source::memory(bytes.clone(), path, DATA_START..head.header.segment_bytes), &head)?;
    let source = Source::memory(bytes, path, DATA_START..tail.end);
    let mut records = Vec::new();
    read_all(SegmentReader::new(source, &head, tail), |record| records.push(record))?;
    Ok(records)
}
