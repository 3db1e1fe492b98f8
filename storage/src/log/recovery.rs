//! Opening a directory of segments.
//!
//! The order, each step needing the one before:
//! 1. sync the directory and the two newest segments, so that only durable bytes are trusted: what a killed process left
//!    in caches could still vanish after having been read;
//! 2. remove unfinished segments, and more free files than are wanted;
//! 3. look at the newest segment: if it was made ahead and has not begun, give it up (its name is freed);
//! 4. check that the newest that has begun goes on from the one before, and find its tail;
//! 5. make a new segment and write its link, which, once durable, fixes that end for ever. Nothing is appended to a
//!    segment that was found, so no record of the old life can come back behind one of the new;
//! 6. cut off what the old segment holds beyond its end, to give the room back.
//!
//! A crash in between leaves what 1 started from, plus perhaps a segment that has not begun, or one that has and is empty:
//! the steps are idempotent. The cost does not depend on how long the log is, but for the listing of names.

use std::path::Path;
use std::sync::Arc;

use super::LogOptions;
use super::format::{BLOCK, DATA_START, Header, LINK_AT, Link};
use super::maker::Maker;
use super::segment::{self, Front, Head, Kept, Listing, Name, Segments, check_link};
use super::tail::{Tail, find_tail, proof_of};
use super::writer::Active;
use crate::disk::{AlignedBuf, Create, Disk, File, OpenOptions};
use crate::sabotage::{Check, checked};
use crate::{Error, Result};

/// A log's parts after opening.
pub(super) struct Opened {
    pub segments: Segments,
    pub active: Active,
    /// The last record found.
    pub last_seq: u64,
    /// Whether the new segment was made of a free file.
    pub recycled: bool,
}

/// Size of a segment that has room for `commit` bytes of blocks.
pub(super) fn segment_bytes(options: &LogOptions, commit: u64) -> u64 {
    let block = BLOCK as u64;
    let wanted = options.segment_bytes.clamp(DATA_START + block, u64::MAX / 2).next_multiple_of(block);
    wanted.max(DATA_START.saturating_add(commit))
}

/// Steps 1 to 6.
pub(super) fn open(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    store_id: u128,
    epoch: u64,
    options: &LogOptions,
) -> Result<Opened> {
    let wanted = segment_bytes(options, 0);
    disk.create_dir_all(dir)?;
    if checked(Check::LogOpenDirSync) {
        disk.sync_dir(dir)?;
    }
    let mut listing = segment::list(&**disk, dir)?;
    listing.check_numbers(dir)?;
    for (name, sync) in listing.segments.iter().rev().zip([Check::LogOpenNewestSync, Check::LogOpenBeforeSync]) {
        let file = writable(&**disk, name)?;
        if checked(sync) {
            file.sync()?;
        }
    }
    for path in &listing.unfinished {
        // Needs no sync: come back, it would be removed again.
        disk.remove(path)?;
    }
    let newest = newest_begun(disk, dir, &mut listing, store_id, epoch)?;
    clear_free(&**disk, &mut listing, options.spare_segments, wanted)?;
    let mut kept: Vec<Arc<Kept>> =
        listing.segments.iter().map(|name| Arc::new(Kept::new(name.clone(), None))).collect();
    let (prev, tail) = match &newest {
        None => (0, Tail { end: 0, last_seq: 0 }),
        Some((name, head)) => {
            if let Some(last) = kept.last_mut() {
                *last = Arc::new(Kept::new(name.clone(), Some(head.clone())));
            }
            if let [.., before, last] = kept.as_slice() {
                check_link(before.head(&**disk)?, before, head, last)?;
            }
            (name.id, find_tail(&**disk, &name.path, head)?)
        }
    };
    let header = Header { store_id, segment: prev + 1, epoch, segment_bytes: wanted, window: options.window };
    let link = Link { first_seq: tail.last_seq + 1, prev_len: tail.end };
    let free = listing.free.iter().position(|name| name.file_len == wanted).map(|at| listing.free.swap_remove(at));
    let recycled = free.is_some();
    let made = Maker::new(disk.clone(), dir, header.clone(), free).finish()?;
    write_link(&*made.file, &header, link)?;
    if let Some((name, head)) = newest {
        // It need not be durable: either length is right.
        writable(&**disk, &name)?.set_len(tail.end)?;
        if let Some(last) = kept.last_mut() {
            *last = Arc::new(Kept::new(Name { file_len: tail.end, ..name }, Some(head)));
        }
    }
    let name = Name { id: header.segment, path: made.path, file_len: header.segment_bytes };
    kept.push(Arc::new(Kept::new(name, Some(Head { header: header.clone(), link }))));
    if let Some(oldest) = kept.first() {
        // Its first record is asked for without errors later.
        oldest.head(&**disk)?;
    }
    let segments =
        Segments { kept: kept.into(), tail: Tail { end: DATA_START, last_seq: tail.last_seq }, free: listing.free };
    Ok(Opened { segments, active: Active::begun(made.file, header, None), last_seq: tail.last_seq, recycled })
}

/// The newest segment that has begun. One that was made ahead and has not is given up: it becomes a free file.
fn newest_begun(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    listing: &mut Listing,
    store_id: u128,
    epoch: u64,
) -> Result<Option<(Name, Head)>> {
    let Some(newest) = listing.segments.last().cloned() else { return Ok(None) };
    // Past the page cache: after a failed sync it may hold, as clean, what the device never got.
    let Front { header, link } = segment::read_front(&**disk, &newest, true)?;
    check_owner(&newest, &header, store_id, epoch)?;
    let fault = match link {
        Ok(link) => return Ok(Some((newest, Head { header, link }))),
        Err(fault) => fault,
    };
    if let Some(proof) = proof_of(&**disk, &newest.path, &header)? {
        // It had begun: its link is damaged.
        return Err(super::format::Fault { got: format!("{} ({proof})", fault.got), ..fault }.at(&newest.path, LINK_AT));
    }
    listing.segments.pop();
    let before = listing.segments.last().cloned();
    if before.is_none() && newest.id > 1 {
        let expected = format!("the segment before {}, which has not begun", newest.id);
        return Err(Error::damaged(segment::path_of(dir, newest.id - 1), 0, "log segment", expected, "no such file"));
    }
    listing.free.extend(segment::put_aside(&**disk, dir, newest, Check::LogGiveUpSync)?);
    let Some(before) = before else { return Ok(None) };
    let head = segment::read_front(&**disk, &before, true)?.begun(&before.path)?;
    check_owner(&before, &head.header, store_id, epoch)?;
    Ok(Some((before, head)))
}

/// Removes free files that are not of the wanted size, or too many.
fn clear_free(disk: &dyn Disk, listing: &mut Listing, most: usize, wanted: u64) -> Result<()> {
    let mut left = most;
    let mut kept = Vec::new();
    for name in listing.free.drain(..) {
        if name.file_len == wanted && left > 0 {
            left -= 1;
            kept.push(name);
        } else {
            // Needs no sync: come back, it would be removed again.
            disk.remove(&name.path)?;
        }
    }
    listing.free = kept;
    Ok(())
}

/// Makes a segment begin.
pub(super) fn write_link(file: &dyn File, header: &Header, link: Link) -> Result<()> {
    let mut block = AlignedBuf::zeroed(BLOCK);
    link.encode(&mut block, header);
    if checked(Check::LogLinkWrite) { file.write_durable(&block, LINK_AT) } else { file.write_at(&block, LINK_AT) }
}

fn writable(disk: &dyn Disk, name: &Name) -> Result<Arc<dyn File>> {
    disk.open(&name.path, OpenOptions { write: true, create: Create::Never, direct: false })
}

/// Refuses another store's log, and an epoch that is not newer than all that is there (invariant 5 of the design).
fn check_owner(newest: &Name, header: &Header, store_id: u128, epoch: u64) -> Result<()> {
    if header.store_id != store_id && checked(Check::LogChain) {
        let (expected, got) = (format!("store {store_id:032x}"), format!("store {:032x}", header.store_id));
        return Err(Error::damaged(&newest.path, 0, "log segment header", expected, got));
    }
    if epoch <= header.epoch {
        return Err(Error::Invalid(format!(
            "epoch {epoch} cannot open the log at {}: epoch {} has already; use a larger one",
            newest.path.display(),
            header.epoch
        )));
    }
    Ok(())
}
