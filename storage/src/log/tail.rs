//! The end of the newest segment, which may be torn.
//!
//! Commits are followed to the first block that is not sound. What lies behind it was in flight at the crash, never
//! acknowledged; if any block of the segment promises otherwise, the first unsound block is damage (invariant 7 of the
//! design).
//!
//! A block behind the end is hashed only if it says that it promises more than the end: zeros, and what an earlier life
//! left below the end, cost a look at eight bytes.

use std::path::Path;

use super::Seq;
use super::commits::{Commits, Refused};
use super::format::{BLOCK, DATA_START, Fault, Header, Identity, LINK_AT, claimed_promise, sound_block};
use super::segment::Head;
use super::source::{READ_AHEAD, ReadAhead, Source};
use crate::Result;
use crate::disk::{Disk, OpenOptions};
use crate::sabotage::{Check, checked};

/// Where a segment's sound part ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// The end of the last whole commit, in bytes.
    pub end: u64,
    /// Its last record.
    pub last_seq: Seq,
}

/// Finds the end of the newest segment, reading past the page cache: after a failed sync that may hold, as clean, what
/// the device never got.
pub(super) fn find_tail(disk: &dyn Disk, path: &Path, head: &Head) -> Result<Tail> {
    tail_of(whole(disk, path, &head.header)?, head)
}

/// All blocks of a segment from [`DATA_START`] on, read past the page cache.
fn whole(disk: &dyn Disk, path: &Path, header: &Header) -> Result<Source> {
    let options = if checked(Check::LogDirectRead) { OpenOptions::READ_DIRECT } else { OpenOptions::READ };
    let file = disk.open(path, options)?;
    let io = ReadAhead::new(disk, READ_AHEAD)?;
    Ok(Source::ahead(io, file, path, DATA_START..header.segment_bytes))
}

/// What proves that a segment without a sound link had begun, if anything does: a block that promises that the link was
/// durable.
pub(super) fn proof_of(disk: &dyn Disk, path: &Path, header: &Header) -> Result<Option<String>> {
    let mut source = whole(disk, path, header)?;
    let identity = Identity::of(header);
    while let Some(chunk) = source.next()? {
        for (block, offset) in chunk.memory.bytes().chunks_exact(BLOCK).zip((chunk.offset..).step_by(BLOCK)) {
            if let Some(proof) = proves(block, &identity, offset, LINK_AT) {
                return Ok(Some(proof));
            }
        }
    }
    Ok(None)
}

/// Whether a block is sound and promises more than `end`; how, if so.
fn proves(block: &[u8], identity: &Identity, offset: u64, end: u64) -> Option<String> {
    if claimed_promise(block) <= end || !checked(Check::LogPromise) {
        return None;
    }
    let promised = sound_block(block, identity, offset)?.commit.promised;
    Some(format!("the block at {offset} proves {promised} bytes durable"))
}

/// The same, over a source of all blocks from [`DATA_START`] to the segment's size.
pub(super) fn tail_of(mut source: Source, head: &Head) -> Result<Tail> {
    let mut commits = Commits::new(&head.header, DATA_START, head.link.first_seq);
    let mut torn: Option<(u64, Fault)> = None;
    while let Some(chunk) = source.next()? {
        let mut offset = chunk.offset;
        for block in chunk.memory.bytes().chunks_exact(BLOCK) {
            let here = offset;
            offset += BLOCK as u64;
            let Some((at, fault)) = &torn else {
                match commits.take(here, block) {
                    Ok(_) => {}
                    Err(Refused::Unsound(fault)) => torn = Some((here, fault)),
                    Err(Refused::Misplaced(fault)) => return Err(fault.at(source.path(), here)),
                }
                continue;
            };
            if let Some(proof) = proves(block, &commits.identity, here, commits.end) {
                let got = format!("{} ({proof})", fault.got);
                return Err(Fault { got, ..fault.clone() }.at(source.path(), *at));
            }
        }
    }
    if let (Some((at, _)), false) = (&torn, checked(Check::LogWholeCommit)) {
        return Ok(Tail { end: *at, last_seq: commits.last_begun() });
    }
    Ok(Tail { end: commits.end, last_seq: commits.last_seq })
}
