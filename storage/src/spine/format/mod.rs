//! The bytes of a run file, as pure functions over byte slices: `docs/format.md` has the diagrams.
//!
//! ```text
//! file    = header (4096 bytes) · extent · extent · …      each extent starts at a multiple of 4096
//! extent  = group · group · … · index · footer             without gaps
//! group   = block · block · … · page of the keys' filter · page of the rows' filter, perhaps
//! block, page, index = frame: 24 bytes of header, then the stored bytes
//! ```
//!
//! Invariants:
//! 1. No byte of an extent or header is outside a checksum, and the seed of every checksum holds the file's
//!    identity and the unit's place in it, so that a misdirected or stale read fails too.
//! 2. The manifest holds the footer's checksum, the footer one of all frames' checksums in their order:
//!    from a sound manifest on, everything is proven.
//! 3. No function here panics or allocates out of proportion, whatever the bytes are.

pub mod block;
pub(super) mod entry;
pub mod footer;
pub mod frame;
pub mod header;
pub mod index;
mod scan;
pub(super) mod search;

use std::path::Path;

use crate::Error;

/// The version of everything in a run file.
pub const VERSION: u32 = 2;

/// Bytes that are not what they should be; the caller knows the file and the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What a sound unit would hold.
    pub expected: String,
    /// What was found.
    pub got: String,
}

impl Malformed {
    /// `expected` one thing, `got` another.
    pub(crate) fn new(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { expected: expected.into(), got: got.into() }
    }

    /// The bytes end inside `part`.
    fn cut(part: &str) -> Self {
        Self::new(part, "the end of its bytes")
    }

    /// The error of a file damaged so.
    pub(crate) fn at(self, file: &Path, offset: u64, what: &'static str) -> Error {
        Error::damaged(file, offset, what, self.expected, self.got)
    }
}

fn checksum_is(expected: u64, got: u64) -> Result<(), Malformed> {
    if expected == got {
        return Ok(());
    }
    Err(Malformed::new(format!("checksum {expected:016x}"), format!("{got:016x}")))
}

pub(super) fn to_u32(n: usize, what: &str) -> Result<u32, Error> {
    u32::try_from(n).map_err(|_| Error::Invalid(format!("{what} of {n} is more than a run can hold ({})", u32::MAX)))
}
