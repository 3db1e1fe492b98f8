//! Segment files: their names, what stands at their front, and what a directory of them must look like.
//!
//! | name | what |
//! |---|---|
//! | `<id>.seg` | a segment of the chain, or the one after the newest, made ahead: it has not begun until its link is there |
//! | `<id>.seg.new` | a segment that is being made from nothing |
//! | `<id>.free` | a file that was segment `<id>` and waits to become another; whatever stands in it is void |
//!
//! Invariants:
//! 1. A `.seg` name is durable only over a whole file with a durable header: anything else under that name is damage.
//! 2. Numbers have no hole: creation is in order, trimming goes from the oldest and syncs the directory each time.
//! 3. A segment begins (its link is written) only when all that counts of the one before is durable. So of all segments
//!    only the newest that has begun can have a torn tail.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::Seq;
use super::format::{BLOCK, DATA_START, Fault, Header, LINK_AT, Link, decode_header, decode_link};
use super::tail::Tail;
use crate::disk::{Disk, File, OpenOptions};
use crate::sabotage::{Check, checked};
use crate::{Error, Result};

const SUFFIX: &str = ".seg";
const NEW_SUFFIX: &str = ".seg.new";
const FREE_SUFFIX: &str = ".free";

/// A name in the directory, of which nothing has been read yet.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub id: u64,
    pub path: PathBuf,
    pub file_len: u64,
}

/// The segments of a directory by number, leftovers of unfinished ones, and files to make others of.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub segments: Vec<Name>,
    pub unfinished: Vec<PathBuf>,
    pub free: Vec<Name>,
}

pub(super) fn path_of(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}{SUFFIX}"))
}

pub(super) fn new_path_of(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}{NEW_SUFFIX}"))
}

pub(super) fn free_path_of(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}{FREE_SUFFIX}"))
}

/// Lists a log's directory. Files that are not named like segments are not the log's business.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        let file_len = entry.metadata.len;
        let id_of = |stem: &str, again: fn(&Path, u64) -> PathBuf| {
            u64::from_str_radix(stem, 16).ok().filter(|id| *id > 0 && again(dir, *id) == path)
        };
        if entry.name.ends_with(NEW_SUFFIX) {
            listing.unfinished.push(path);
        } else if let Some(stem) = entry.name.strip_suffix(SUFFIX) {
            let id = id_of(stem, path_of).ok_or_else(|| {
                Error::damaged(&path, 0, "log segment name", "a number of 16 hexadecimal digits", &entry.name)
            })?;
            listing.segments.push(Name { id, path, file_len });
        } else if let Some(id) = entry.name.strip_suffix(FREE_SUFFIX).and_then(|stem| id_of(stem, free_path_of)) {
            listing.free.push(Name { id, path, file_len });
        }
    }
    listing.segments.sort_by_key(|s| s.id);
    listing.free.sort_by_key(|s| s.id);
    Ok(listing)
}

impl Listing {
    /// Checks that the numbers have no hole.
    pub(super) fn check_numbers(&self, dir: &Path) -> Result<()> {
        for (a, b) in self.segments.iter().zip(self.segments.iter().skip(1)) {
            if b.id != a.id + 1 && checked(Check::LogChain) {
                let expected = format!("the segment between {} and {}", a.id, b.id);
                return Err(Error::damaged(path_of(dir, a.id + 1), 0, "log segment", expected, "no such file"));
            }
        }
        Ok(())
    }
}

/// Takes a segment's name away, durably. Its file becomes a free one, unless there is a free file of that number already
/// (which may be being made into another segment at this moment): then it is removed. `sync` is what a test switches off.
pub(super) fn put_aside(disk: &dyn Disk, dir: &Path, name: Name, sync: Check) -> Result<Option<Name>> {
    let sync_dir = || if checked(sync) { disk.sync_dir(dir) } else { Ok(()) };
    let free = free_path_of(dir, name.id);
    if disk.metadata(&free)?.is_some() {
        disk.remove(&name.path)?;
        sync_dir()?;
        return Ok(None);
    }
    disk.rename(&name.path, &free)?;
    sync_dir()?;
    Ok(Some(Name { path: free, ..name }))
}

/// What stands at the front of a segment that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub header: Header,
    pub link: Link,
}

/// The front of a segment: its header, and its link if that is sound.
pub(super) struct Front {
    pub header: Header,
    pub link: Result<Link, Fault>,
}

impl Front {
    /// Of a segment that must have begun.
    pub(super) fn begun(self, path: &Path) -> Result<Head> {
        Ok(Head { header: self.header, link: self.link.map_err(|fault| fault.at(path, LINK_AT))? })
    }
}

/// Reads the front of an open segment. A header that is not sound is damage; a link may be missing.
pub(super) fn front_of(file: &dyn File, path: &Path) -> Result<Front> {
    let mut blocks = vec![0; DATA_START as usize];
    let n = file.read_at(&mut blocks, 0)?;
    let blocks = blocks.get(..n).unwrap_or_default();
    let header = decode_header(blocks).map_err(|fault| fault.at(path, 0))?;
    let link = decode_link(blocks.get(BLOCK..).unwrap_or_default(), &header);
    Ok(Front { header, link })
}

/// Opens a segment and reads its front, past the page cache if `direct`.
pub(super) fn read_front(disk: &dyn Disk, name: &Name, direct: bool) -> Result<Front> {
    let options = if direct && checked(Check::LogDirectRead) { OpenOptions::READ_DIRECT } else { OpenOptions::READ };
    let front = front_of(&*disk.open(&name.path, options)?, &name.path)?;
    check_number(&name.path, name.id, &front.header)?;
    Ok(front)
}

fn check_number(path: &Path, id: u64, header: &Header) -> Result<()> {
    if header.segment == id || !checked(Check::LogChain) {
        return Ok(());
    }
    let (expected, got) = (format!("segment {id}"), format!("segment {}", header.segment));
    Err(Error::damaged(path, 0, "log segment header", expected, got))
}

/// A segment of the chain that is kept. Holding it keeps its file from becoming another segment, though not from being
/// removed.
#[derive(Debug)]
pub(super) struct Kept {
    pub id: u64,
    pub path: PathBuf,
    pub file_len: u64,
    /// Read when it is first needed: opening a long log looks at its two ends only.
    head: OnceLock<Head>,
}

impl Kept {
    pub(super) fn new(name: Name, head: Option<Head>) -> Self {
        let lazy = OnceLock::new();
        if let Some(head) = head {
            let _ = lazy.set(head);
        }
        Self { id: name.id, path: name.path, file_len: name.file_len, head: lazy }
    }

    /// What stands at its front.
    pub(super) fn head(&self, disk: &dyn Disk) -> Result<&Head> {
        if let Some(head) = self.head.get() {
            return Ok(head);
        }
        let name = Name { id: self.id, path: self.path.clone(), file_len: self.file_len };
        let head = read_front(disk, &name, false)?.begun(&self.path)?;
        Ok(self.head.get_or_init(|| head))
    }

    /// Checks that the file's front still says what it said when it was first read.
    pub(super) fn check_front(&self, file: &dyn File) -> Result<()> {
        let (Some(expected), got) = (self.head.get(), front_of(file, &self.path)?.begun(&self.path)?) else {
            return Ok(());
        };
        if *expected == got {
            return Ok(());
        }
        Err(Error::damaged(&self.path, 0, "log segment header", format!("{expected:?}"), format!("{got:?}")))
    }

    /// What counts of it, as its successor says.
    pub(super) fn sealed_tail(&self, disk: &dyn Disk, next: &Kept) -> Result<Tail> {
        check_link(self.head(disk)?, self, next.head(disk)?, next)?;
        let link = next.head(disk)?.link;
        let end = if checked(Check::LogSealedEnd) { link.prev_len } else { self.file_len };
        Ok(Tail { end, last_seq: link.first_seq - 1 })
    }

    /// The first record that it has, or would have.
    pub(super) fn first_seq(&self, disk: &dyn Disk) -> Result<Seq> {
        Ok(self.head(disk)?.link.first_seq)
    }
}

/// Checks that `next` is the segment after `prev`.
pub(super) fn check_link(a: &Head, prev: &Kept, b: &Head, next: &Kept) -> Result<()> {
    if !checked(Check::LogChain) {
        return Ok(());
    }
    let wrong =
        |at, expected: String, got: String| Err(Error::damaged(&next.path, at, "log segment link", expected, got));
    if b.header.store_id != a.header.store_id {
        let (expected, got) =
            (format!("store {:032x}", a.header.store_id), format!("store {:032x}", b.header.store_id));
        return wrong(0, expected, got);
    }
    if b.header.epoch < a.header.epoch {
        return wrong(0, format!("an epoch of at least {}", a.header.epoch), b.header.epoch.to_string());
    }
    let (first, prev_len) = (b.link.first_seq, b.link.prev_len);
    if first < a.link.first_seq {
        return wrong(LINK_AT, format!("a first record of at least {}", a.link.first_seq), first.to_string());
    }
    if prev_len > a.header.segment_bytes {
        let expected = format!("a predecessor of at most {} bytes", a.header.segment_bytes);
        return wrong(LINK_AT, expected, prev_len.to_string());
    }
    if prev.file_len < prev_len {
        let (expected, got) = (format!("a file of {prev_len} bytes"), format!("{} bytes", prev.file_len));
        return Err(Error::damaged(&prev.path, prev.file_len, "log segment", expected, got));
    }
    Ok(())
}

/// The segments that are kept, and files to make others of.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Oldest first, the last is written. None that has not begun.
    pub kept: std::collections::VecDeque<Arc<Kept>>,
    /// What of the last one may be read.
    pub tail: Tail,
    /// Files to make segments of; each of its name durably.
    pub free: Vec<Name>,
}

/// The error for a disk that wrote less than it was given, which it must not (invariant 2 of `disk`).
pub(super) fn short_write(path: &Path, written: usize, len: usize) -> Error {
    let cause = format!("{written} of {len} bytes were written");
    Error::io("write", path, std::io::Error::new(std::io::ErrorKind::WriteZero, cause))
}
