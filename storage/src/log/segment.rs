//! Segment files: their names, how one comes to be, and what a directory of them must look like.
//!
//! Invariants:
//! 1. A `.seg` name is durable only over a whole file with a durable header: anything else under that name is damage.
//! 2. Numbers have no hole: creation is in order, trimming goes from the oldest and syncs the directory each time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{BLOCK, BLOCK_BYTES, Header, decode_header};
use crate::disk::{AlignedBuf, Completion, Create, Disk, File, IoQueue, Op, OpenOptions};
use crate::{Error, Result};

const SUFFIX: &str = ".seg";
/// A segment that is being made. Open removes what a crash left of one.
const NEW_SUFFIX: &str = ".seg.new";
/// Zeros are written in pieces of this many bytes.
const ZEROS: u64 = 1 << 20;

/// A segment file and what its header says.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub path: PathBuf,
    pub file_len: u64,
    pub header: Header,
}

/// A segment's name without its header having been read.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub id: u64,
    pub path: PathBuf,
    pub file_len: u64,
}

/// The segments of a directory by number, and leftovers of unfinished ones.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub segments: Vec<Name>,
    pub unfinished: Vec<PathBuf>,
}

pub(super) fn path_of(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}{SUFFIX}"))
}

/// Lists a log's directory. Files that are not named like segments are not the log's business.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.name.ends_with(NEW_SUFFIX) {
            listing.unfinished.push(path);
        } else if let Some(stem) = entry.name.strip_suffix(SUFFIX) {
            let id = u64::from_str_radix(stem, 16).ok().filter(|id| *id > 0 && path_of(dir, *id) == path);
            let id = id.ok_or_else(|| {
                Error::damaged(&path, 0, "log segment name", "a number of 16 hexadecimal digits", &entry.name)
            })?;
            listing.segments.push(Name { id, path, file_len: entry.metadata.len });
        }
    }
    listing.segments.sort_by_key(|s| s.id);
    Ok(listing)
}

/// Reads and checks a segment's header.
pub(super) fn read_header(disk: &dyn Disk, name: Name) -> Result<Found> {
    let file = disk.open(&name.path, OpenOptions::READ)?;
    let header = header_of(&*file, &name.path)?;
    if header.segment != name.id {
        let (expected, got) = (format!("segment {}", name.id), format!("segment {}", header.segment));
        return Err(Error::damaged(&name.path, 0, "log segment header", expected, got));
    }
    Ok(Found { path: name.path, file_len: name.file_len, header })
}

/// Reads the header block of an open segment.
pub(super) fn header_of(file: &dyn File, path: &Path) -> Result<Header> {
    let mut block = vec![0; BLOCK];
    let n = file.read_at(&mut block, 0)?;
    decode_header(block.get(..n).unwrap_or_default()).map_err(|fault| fault.at(path, 0))
}

/// Reads the headers of all segments and checks that they chain.
pub(super) fn read_chain(disk: &dyn Disk, names: Vec<Name>) -> Result<Vec<Found>> {
    let chain = names.into_iter().map(|name| read_header(disk, name)).collect::<Result<Vec<_>>>()?;
    for (prev, next) in chain.iter().zip(chain.iter().skip(1)) {
        check_link(prev, next)?;
    }
    Ok(chain)
}

/// Checks that `next` is the segment after `prev`.
pub(super) fn check_link(prev: &Found, next: &Found) -> Result<()> {
    let (a, b) = (&prev.header, &next.header);
    if b.segment != a.segment + 1 {
        let missing = prev.path.with_file_name(format!("{:016x}{SUFFIX}", a.segment + 1));
        let expected = format!("the segment between {} and {}", a.segment, b.segment);
        return Err(Error::damaged(missing, 0, "log segment", expected, "no such file"));
    }
    let wrong = |expected: String, got: String| Err(Error::damaged(&next.path, 0, "log segment header", expected, got));
    if b.store_id != a.store_id {
        return wrong(format!("store {:032x}", a.store_id), format!("store {:032x}", b.store_id));
    }
    if b.epoch < a.epoch {
        return wrong(format!("an epoch of at least {}", a.epoch), b.epoch.to_string());
    }
    if b.first_seq < a.first_seq {
        return wrong(format!("a first record of at least {}", a.first_seq), b.first_seq.to_string());
    }
    if b.prev_len > a.segment_bytes {
        return wrong(format!("a predecessor of at most {} bytes", a.segment_bytes), b.prev_len.to_string());
    }
    if prev.file_len < b.prev_len {
        let (expected, got) = (format!("a file of {} bytes", b.prev_len), format!("{} bytes", prev.file_len));
        return Err(Error::damaged(&prev.path, prev.file_len, "log segment", expected, got));
    }
    Ok(())
}

/// Makes a segment: zeros, header, one sync over both, rename, directory sync. Nothing may be in flight in `queue`.
///
/// The zeros make later commits overwrites of mapped blocks, which need no change of the file system's own structures.
pub(super) fn create(
    disk: &dyn Disk,
    queue: &mut dyn IoQueue,
    depth: usize,
    dir: &Path,
    header: &Header,
) -> Result<Arc<dyn File>> {
    let path = path_of(dir, header.segment);
    let new = dir.join(format!("{:016x}{NEW_SUFFIX}", header.segment));
    let file = disk.open(&new, OpenOptions::CREATE_DIRECT)?;
    let mut spare = Vec::new();
    let mut offset = BLOCK_BYTES;
    let first =
        Op::Write { file: file.clone(), offset: 0, buf: AlignedBuf::from_slice(&header.encode()), durable: false };
    queue.submit(vec![(0, first)])?;
    while offset < header.segment_bytes {
        if queue.in_flight() >= depth {
            spare.extend(ended(&new, queue.wait(1)?)?);
        }
        let len = ZEROS.min(header.segment_bytes - offset);
        // Buffers of zeros are written again, all but the header's and the last are of one size.
        let reused = spare.pop().filter(|b| b.len() as u64 == len);
        let buf = reused.unwrap_or_else(|| AlignedBuf::zeroed(len as usize));
        queue.submit(vec![(offset, Op::Write { file: file.clone(), offset, buf, durable: false })])?;
        offset += len;
    }
    while queue.in_flight() > 0 {
        ended(&new, queue.wait(usize::MAX)?)?;
    }
    file.sync()?;
    drop(file);
    disk.rename(&new, &path)?;
    disk.sync_dir(dir)?;
    disk.open(&path, OpenOptions { write: true, create: Create::Never, direct: true })
}

/// Checks that all of these writes succeeded in whole; gives back the buffers of zeros.
fn ended(path: &Path, completions: Vec<Completion>) -> Result<Vec<AlignedBuf>> {
    let mut buffers = Vec::new();
    for Completion { token, buf, result } in completions {
        let (written, len) = (result?, buf.as_ref().map_or(0, |b| b.len()));
        if written != len {
            return Err(short_write(path, written, len));
        }
        // Token 0 is the header's.
        buffers.extend(buf.filter(|_| token != 0));
    }
    Ok(buffers)
}

/// The error for a disk that wrote less than it was given, which it must not (invariant 2 of `disk`).
pub(super) fn short_write(path: &Path, written: usize, len: usize) -> Error {
    let cause = format!("{written} of {len} bytes were written");
    Error::io("write", path, std::io::Error::new(std::io::ErrorKind::WriteZero, cause))
}
