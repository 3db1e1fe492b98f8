//! What a store is told when it is opened, and what it tells of itself.

use crate::disk::DiskStats;
use crate::log::LogOptions;
use crate::{Error, Result};

/// How a store is kept. None of it is remembered by the store itself: it may differ from one opening to the next.
///
/// ```
/// use backstay_storage::StoreOptions;
/// let options = StoreOptions { new_id: 0x6b1e, memory_bytes: 64 << 20, ..StoreOptions::default() };
/// assert_eq!(options.keep_checkpoints, 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The identity that the store gets if it is created: 128 random bits, made by the caller, since nothing in this
    /// crate is random. Every file carries it, so that a file of another store is never read as one's own. Not used
    /// when the store exists.
    pub new_id: u128,
    /// The log's options.
    pub log: LogOptions,
    /// What spines may hold in memory together, in bytes: cached blocks, and rows that are not on disk yet, which are written there
    /// between checkpoints when they fill their part. Default 512 MiB. Indexes of runs, buffers of
    /// merges (some 16 MiB for each thread) and the log's buffers come on top.
    pub memory_bytes: u64,
    /// How much of it is for cached blocks. `None`, the default: half.
    pub cache_bytes: Option<u64>,
    /// Threads that write memtables and merge runs beside the steps, where the disk allows threads. Default 1.
    pub merge_threads: usize,
    /// How many checkpoints stay, the newest included. At least 2, the default.
    pub keep_checkpoints: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            new_id: 0,
            log: LogOptions::default(),
            memory_bytes: 512 << 20,
            cache_bytes: None,
            merge_threads: 1,
            keep_checkpoints: 2,
        }
    }
}

impl StoreOptions {
    /// Refuses what cannot keep the store's promises.
    pub(super) fn check(&self) -> Result<()> {
        if self.keep_checkpoints < 2 {
            let keep = self.keep_checkpoints;
            let said = format!("keep_checkpoints is {keep}, but at least 2 are needed to survive a damaged newest one");
            return Err(Error::Invalid(said));
        }
        Ok(())
    }
}

/// Figures since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// The epoch of this opening.
    pub epoch: u64,
    /// Checkpoints committed.
    pub checkpoints: u64,
    /// Number of the newest checkpoint, 0 if there is none.
    pub newest_checkpoint: u64,
    /// Checkpoints that are kept, the newest included. Of the older ones the manifests are known to be sound; what they
    /// name was last looked at when they were the newest.
    pub kept_checkpoints: u64,
    /// Bytes written for checkpoints: runs and manifests.
    pub checkpoint_bytes: u64,
    /// Files removed because no kept manifest names them.
    pub removed_files: u64,
    /// Merges of runs that have ended. What they replaced stays on disk until no kept checkpoint names it: an embedder that has nothing
    /// else to checkpoint may want to for that.
    pub merges: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// The disk's counters, from before the opening too if the disk is shared.
    pub disk: DiskStats,
}
