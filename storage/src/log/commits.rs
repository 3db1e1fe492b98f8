//! Following the commits of a segment over its blocks.
//!
//! Invariant: a block is taken only if it is sound and the one that must come next: the commit that is open goes on, or
//! a new one starts where the last ended, with the record after its last.

use super::Seq;
use super::format::{Commit, Fault, Header, Identity, PAYLOAD, block_fault, sound_block};

/// Where in a commit a reader stands.
#[derive(Clone, Copy)]
struct Place {
    commit: Commit,
    /// The next block's index.
    next: u32,
}

/// The commits that were read so far.
pub(super) struct Commits {
    pub identity: Identity,
    /// The commit that is not complete yet.
    open: Option<Place>,
    /// Where the last complete commit ends.
    pub end: u64,
    /// Its last record.
    pub last_seq: Seq,
}

/// Why a block was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is not sound.
    Unsound(Fault),
    /// It is sound, but not the one that must come next.
    Misplaced(Fault),
}

impl Refused {
    pub(super) fn into_fault(self) -> Fault {
        match self {
            Refused::Unsound(fault) | Refused::Misplaced(fault) => fault,
        }
    }
}

impl Commits {
    /// Starts with the commit at `start`, whose first record is `first_seq`.
    pub(super) fn new(header: &Header, start: u64, first_seq: Seq) -> Self {
        Self { identity: Identity::of(header), open: None, end: start, last_seq: first_seq.saturating_sub(1) }
    }

    /// Takes the block at `offset`; gives its commit and its part of the commit's records.
    pub(super) fn take<'b>(&mut self, offset: u64, bytes: &'b [u8]) -> Result<(Commit, &'b [u8]), Refused> {
        let Some(block) = sound_block(bytes, &self.identity, offset) else {
            return Err(Refused::Unsound(block_fault(bytes, &self.identity, offset)));
        };
        let (expected, index) = match self.open {
            Some(place) => (place.commit, place.next),
            // What a commit may choose is taken from the block; where it stands and starts is not.
            None => (Commit { start: self.end, first_seq: self.last_seq.saturating_add(1), ..block.commit }, 0),
        };
        if (block.commit, block.index) != (expected, index) {
            let fault = Fault::new("log block", describe(&expected, index), describe(&block.commit, block.index));
            return Err(Refused::Misplaced(fault));
        }
        self.open = Some(Place { commit: expected, next: index + 1 });
        if index + 1 == expected.blocks {
            self.open = None;
            self.end = expected.end();
            self.last_seq = expected.last_seq();
        }
        Ok((expected, block.payload))
    }

    /// Whether the last block taken was not the last of its commit.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The last record of the commit that is open, or of the last one.
    pub(super) fn last_begun(&self) -> Seq {
        self.open.map_or(self.last_seq, |place| place.commit.last_seq())
    }

    /// How many bytes of records the rest of the open commit can have.
    pub(super) fn bytes_left(&self) -> usize {
        self.open.map_or(0, |place| (place.commit.blocks - place.next) as usize).saturating_mul(PAYLOAD)
    }
}

fn describe(commit: &Commit, index: u32) -> String {
    let Commit { start, blocks, first_seq, records, promised } = commit;
    format!(
        "block {index} of {blocks} of the commit at {start} ({records} records from {first_seq}, promising {promised})"
    )
}
