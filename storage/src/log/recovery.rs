//! Opening a directory of segments.
//!
//! The order, each step needing the one before:
//! 1. sync the directory and the newest segment, so that only durable bytes are trusted: what a killed process left
//!    in caches could still vanish after having been read;
//! 2. remove unfinished segments;
//! 3. check numbers, headers and how they chain;
//! 4. find the newest segment's tail;
//! 5. make a new segment whose header, once durable, fixes that end for ever. Nothing is appended to a segment that
//!    was found, so no record of the old life can come back behind one of the new.
//!
//! A crash in between leaves what 1 started from, plus perhaps an unfinished or an empty segment: the steps are
//! idempotent.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::LogOptions;
use super::format::{BLOCK_BYTES, Header, Identity};
use super::segment::{self, Found, Name};
use super::tail::{Tail, find_tail};
use super::writer::{Active, DEPTH, Kept, Writer};
use crate::disk::{Create, Disk, OpenOptions};
use crate::{Error, Result};

/// A log's parts after opening.
pub(super) struct Opened {
    pub segments: VecDeque<Kept>,
    pub writer: Writer,
    /// The last record found.
    pub last_seq: u64,
}

/// Size of a segment that has room for `commit` bytes of blocks.
pub(super) fn segment_bytes(options: &LogOptions, commit: u64) -> u64 {
    let wanted = options.segment_bytes.clamp(2 * BLOCK_BYTES, u64::MAX / 2).next_multiple_of(BLOCK_BYTES);
    wanted.max(BLOCK_BYTES.saturating_add(commit))
}

/// Steps 1 to 5.
pub(super) fn open(disk: &dyn Disk, dir: &Path, store_id: u128, epoch: u64, options: &LogOptions) -> Result<Opened> {
    disk.create_dir_all(dir)?;
    disk.sync_dir(dir)?;
    let listing = segment::list(disk, dir)?;
    for path in &listing.unfinished {
        // Needs no sync: come back, it would be removed again.
        disk.remove(path)?;
    }
    if let Some(newest) = listing.segments.last() {
        writable(disk, newest)?.sync()?;
    }
    let mut chain = segment::read_chain(disk, listing.segments)?;
    let found = match chain.last() {
        None => None,
        Some(newest) => {
            check_owner(newest, store_id, epoch)?;
            Some((newest.header.segment, find_tail(disk, &newest.path, &newest.header)?))
        }
    };
    let (prev, tail) = found.unwrap_or((0, Tail { end: 0, last_seq: 0 }));
    let header = Header {
        store_id,
        segment: prev + 1,
        epoch,
        segment_bytes: segment_bytes(options, 0),
        window: options.window,
        first_seq: tail.last_seq + 1,
        prev_len: tail.end,
    };
    let mut queue = disk.queue(DEPTH)?;
    let file = segment::create(disk, &mut *queue, DEPTH, dir, &header)?;
    if let Some(newest) = chain.last_mut() {
        // The rest is void now; giving it back keeps a process that restarts in a loop from filling the disk. It
        // need not be durable: either length is right.
        let cut = writable(disk, &Name { id: prev, path: newest.path.clone(), file_len: newest.file_len })?;
        cut.set_len(tail.end)?;
        newest.file_len = tail.end;
    }
    let mut segments: VecDeque<Kept> = chain
        .iter()
        .enumerate()
        .map(|(i, f)| {
            let (end, last_seq) = match chain.get(i + 1) {
                Some(next) => (next.header.prev_len, next.header.first_seq - 1),
                None => (tail.end, tail.last_seq),
            };
            Kept::new(f.path.clone(), f.header.clone(), f.file_len, Tail { end, last_seq })
        })
        .collect();
    let path = segment::path_of(dir, header.segment);
    let empty = Tail { end: BLOCK_BYTES, last_seq: tail.last_seq };
    segments.push_back(Kept::new(path, header.clone(), header.segment_bytes, empty));
    let active = Active { file, identity: Identity::of(&header), header, next: BLOCK_BYTES, durable: BLOCK_BYTES };
    Ok(Opened { segments, writer: Writer::new(queue, active, tail.last_seq), last_seq: tail.last_seq })
}

fn writable(disk: &dyn Disk, name: &Name) -> Result<Arc<dyn crate::disk::File>> {
    disk.open(&name.path, OpenOptions { write: true, create: Create::Never, direct: false })
}

/// Refuses another store's log, and an epoch that is not newer than all that is there (invariant 5 of the design).
fn check_owner(newest: &Found, store_id: u128, epoch: u64) -> Result<()> {
    let Header { store_id: got, epoch: newest_epoch, .. } = newest.header;
    if got != store_id {
        let (expected, got) = (format!("store {store_id:032x}"), format!("store {got:032x}"));
        return Err(Error::damaged(&newest.path, 0, "log segment header", expected, got));
    }
    if epoch <= newest_epoch {
        return Err(Error::Invalid(format!(
            "epoch {epoch} cannot open the log at {}: epoch {newest_epoch} has already; use a larger one",
            newest.path.display()
        )));
    }
    Ok(())
}
