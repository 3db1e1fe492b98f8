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
use super::format::{BLOCK, DATA_START, Fault, Header, claimed_promise, sound_block};
use super::source::{READ_AHEAD, ReadAhead, Source};
use crate::Result;
use crate::disk::{Disk, OpenOptions};

/// Where a segment's sound part ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The end of the last whole commit, in bytes.
    pub end: u64,
    /// Its last record.
    pub last_seq: Seq,
}

/// Finds the end of the newest segment, reading past the page cache: after a failed sync that may hold, as clean, what
/// the device never got.
pub(super) fn find_tail(disk: &dyn Disk, path: &Path, header: &Header) -> Result<Tail> {
    let file = disk.open(path, OpenOptions::READ_DIRECT)?;
    let io = ReadAhead::new(disk, READ_AHEAD)?;
    tail_of(Source::ahead(io, file, path, DATA_START..header.segment_bytes), header)
}

/// The same, over a source of all blocks from [`DATA_START`] to the segment's size.
pub(super) fn tail_of(mut source: Source, header: &Header) -> Result<Tail> {
    let mut commits = Commits::new(header, DATA_START, header.first_seq);
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
            if claimed_promise(block) > commits.end
                && let Some(proof) = sound_block(block, &commits.identity, here)
            {
                let promised = proof.commit.promised;
                let got = format!("{} (the block at {here} proves {promised} bytes durable)", fault.got);
                return Err(Fault { got, ..fault.clone() }.at(source.path(), *at));
            }
        }
    }
    Ok(Tail { end: commits.end, last_seq: commits.last_seq })
}
