//! Checkpoints: what a manifest says, the order in which one is committed, and the removal of what none names.
//!
//! A checkpoint is a consistent snapshot of the whole store. Its *manifest* names everything that belongs to it: the
//! runs of every spine, the embedder's extra files, the embedder's own blob, and the first log record that is still
//! needed after it. A manifest is self-contained: reading one needs no other.
//!
//! Invariants:
//! 1. A manifest appears under its name only when everything that it names is durable (invariant 2 of the design):
//!    runs and extras are synced with their directories, and the log up to the checkpoint, before the rename.
//! 2. A name `<epoch>-<number>` is given once. Files are created exclusively and never written again.
//! 3. A file is removed only when no kept manifest names it, and only after the removal of the last manifest that named
//!    it is durable. So every manifest found after a crash, the kept ones at least, is whole.
//!    A savepoint's manifest counts like a kept one (`savepoint`).
//! 4. A damaged manifest is never removed. The next checkpoint renames it to `….damaged`; it counts for nothing.
//!
//! Known limits: a checkpoint rewrites the whole manifest, so its size grows with the number of runs (about 100 bytes
//! and two keys each).

mod codec;
mod commit;
pub(crate) mod extra;
pub(crate) mod garbage;
mod manifest;
pub(crate) mod name;
pub(crate) mod recover;
pub(crate) mod savepoint;

pub(crate) use commit::commit;
#[doc(hidden)]
pub use extra::decode_extra;
pub(crate) use manifest::MAX_BYTES;
pub use manifest::{ExtraMeta, FORMAT, Manifest};

use bytes::Bytes;

use crate::log::Seq;
use crate::spine::Snapshot;

/// What [`Store::checkpoint`](crate::Store::checkpoint) makes durable.
///
/// ```
/// use backstay_storage::Checkpoint;
/// let c = Checkpoint { blob: b"step 7".as_slice().into(), log_from: 8, ..Checkpoint::default() };
/// assert!(c.frozen.is_empty() && c.extras.is_empty());
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    /// The spines that changed, frozen at the checkpoint's step. The others are carried over as they were. A state that
    /// was frozen before the one in the last checkpoint is refused.
    pub frozen: Vec<Snapshot>,
    /// The embedder's own bytes, given back by [`Recovered::blob`]. At most 512 MiB: they are part of the manifest, which
    /// every checkpoint writes anew. Larger things belong into an extra file.
    pub blob: Bytes,
    /// The first log record that is still needed after this checkpoint: the log is kept from here on. At least 1, at
    /// most the log's next sequence.
    pub log_from: Seq,
    /// Names of spines that the last checkpoint has and this one leaves out.
    pub dropped: Vec<String>,
    /// Names of extra files, as [`Store::write_extra`](crate::Store::write_extra) gave them, that belong to it.
    pub extras: Vec<String>,
}

impl Default for Checkpoint {
    /// Nothing frozen, an empty blob, and the log from its first record.
    fn default() -> Self {
        Self { frozen: Vec::new(), blob: Bytes::new(), log_from: 1, dropped: Vec::new(), extras: Vec::new() }
    }
}

/// A checkpoint that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// Its number: 1, 2, 3 … for the life of the store.
    pub number: u64,
    /// The epoch it was written in.
    pub epoch: u64,
    /// Bytes written for it: new runs and the manifest. Runs that it shares with older checkpoints are not counted.
    pub bytes: u64,
    /// Runs that it names, over all spines.
    pub runs: u64,
    /// Bytes of the manifest alone.
    pub manifest_bytes: u64,
    /// Files that were removed after it, since no kept manifest names them.
    pub removed: u64,
}

/// The checkpoint that a store was opened from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its number.
    pub number: u64,
    /// The epoch it was written in.
    pub epoch: u64,
    /// The embedder's own bytes.
    pub blob: Bytes,
    /// The first log record that is to be replayed on top of it.
    pub log_from: Seq,
    /// The names of its extra files.
    pub extras: Vec<String>,
    /// The savepoint that it is a copy of ([`copy_savepoint`](crate::copy_savepoint)), until the copy has taken a
    /// checkpoint of its own. The embedder must then begin a new incarnation: the store that it was copied from may go on
    /// beside it, and what the outside world knows of that one is not this one's.
    pub savepoint: Option<String>,
    /// What a person must hear of: damaged newer checkpoints that were passed over, damaged older ones, savepoints that are
    /// not whole. Each names file, offset, expected and got. Empty in a sound store.
    pub warnings: Vec<String>,
    /// Those of them that tell of a newer checkpoint, which was passed over.
    pub passed_over: Vec<String>,
}
