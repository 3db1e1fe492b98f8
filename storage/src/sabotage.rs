//! Checks, syncs and orders that a test can switch off, to show that something notices: one that nothing misses is not
//! tested.
//!
//! Without the feature `sim` (and outside of tests) every check is on and costs nothing. With it, a check is looked up in a
//! list of the thread's own: a simulation runs on one thread, and others are not disturbed.

#[cfg(any(test, feature = "sim"))]
use std::cell::Cell;
use std::fmt;
#[cfg(any(test, feature = "sim"))]
use std::thread::LocalKey;

/// What can be switched off: each is a check, a sync or an order on which recovery relies.
///
/// ```
/// use backstay_storage::sabotage::Check;
/// assert!(Check::ALL.contains(&Check::LogBlockChecksum));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// A log segment's header block has the checksum that stands in it.
    LogHeaderChecksum,
    /// A log segment's link block has the checksum that stands in it.
    LogLinkChecksum,
    /// A log block has the checksum that stands in it.
    LogBlockChecksum,
    /// The checksum of a log block, or of a link, covers segment and epoch: a block of an old life is not of this one.
    LogBlockIdentity,
    /// The checksum of a log block covers its place: a block that went astray is not read elsewhere.
    LogBlockPlace,
    /// A sound block that promises more than the sound part of the log is proof of damage.
    LogPromise,
    /// What a segment's successor says of its length and last record is where reading it ends.
    LogSealedEnd,
    /// The segments' numbers have no hole, and neighbours agree on store and epoch.
    LogChain,
    /// A commit that is followed by an unsound block is dropped whole.
    LogWholeCommit,
    /// Recovery reads past the page cache: after a failed sync that shows what the device never got.
    LogDirectRead,
    /// A commit counts only once all before it have completed.
    LogContiguous,
    /// A segment begins only when all of the one before is durable.
    LogSettle,
    /// The next segment is ordered only when the active one has begun durably.
    LogAheadOrder,
    /// A trimmed segment that a scan still holds does not become another.
    LogPin,
    /// A commit that its caller writes is written durably.
    LogCallerWrite,
    /// A commit that the ring writes for somebody who waits, or will, is written durably.
    LogRingWrite,
    /// Plain writes are synced before they count.
    LogBulkSync,
    /// The link that opening writes is written durably.
    LogLinkWrite,
    /// The header over an old one is written durably.
    LogReuseWrite,
    /// A new segment's bytes are synced before it gets its name.
    LogNewSync,
    /// The directory is synced after a segment has got its name.
    LogNameSync,
    /// The directory is synced after a trimmed segment was removed.
    LogRemoveSync,
    /// The directory is synced after a trimmed segment has become a free file.
    LogFreeSync,
    /// The directory is synced after opening has given up a segment that has not begun.
    LogGiveUpSync,
    /// Opening begins with a sync of the directory.
    LogOpenDirSync,
    /// Opening syncs the newest segment before it reads it.
    LogOpenNewestSync,
    /// The same for the one before, which is the one that is read if the newest has not begun.
    LogOpenBeforeSync,
    /// A run file's header has the checksum that stands in it.
    RunHeaderChecksum,
    /// A run file's header names the store, epoch and number that its name and manifest do.
    RunFileIdentity,
    /// A run's footer has the checksum that stands in it.
    RunFooterChecksum,
    /// A run's footer is the one that the manifest names by its checksum.
    RunFooterNamed,
    /// What a run's footer says is what the manifest says.
    RunFooterFields,
    /// A frame of a run has the checksum that stands in it.
    RunFrameChecksum,
    /// The checksum of a frame covers its file and its place.
    RunFramePlace,
    /// The frames of a run are those that its footer was written for.
    RunContent,
    /// A run's index agrees with its footer and its manifest.
    RunIndexFields,
    /// A block has the first key, last key and number of rows that the index names.
    RunBlockBounds,
    /// The rows of a block ascend.
    RunBlockOrder,
    /// The weights of a block are those that its discipline has.
    RunBlockWeights,
    /// A block's restarts and abbreviated keys are where and what its entries say.
    RunBlockRestarts,
    /// A filter page has the size that its number of keys gives.
    RunPageSize,
    /// A savepoint's bytes are synced before it gets its name.
    SavepointBytesSync,
    /// The folder is synced after a savepoint has got its name.
    SavepointNameSync,
    /// A savepoint's removal is durable before anything that it named goes.
    SavepointRemoveSync,
    /// Opening syncs the folder of the savepoints before it trusts their names.
    SavepointOpenSync,
    /// A savepoint's manifest bears the name of its file.
    SavepointName,
    /// A savepoint's manifest is of this store.
    SavepointOwner,
    /// Run files that a savepoint names stay.
    SavepointRuns,
    /// Extra files that a savepoint names stay.
    SavepointExtras,
    /// While a savepoint cannot be read, whatever it might name stays.
    SavepointSpare,
    /// A store that has savepoints and no checkpoint is not opened as a new one.
    SavepointWithout,
    /// A copy is marked as unfinished, durably, before anything else is in it.
    CopyMark,
    /// Opening refuses a directory that is so marked.
    CopyRefuse,
    /// The mark goes when all else is durable.
    CopyLast,
    /// A copied file's bytes are synced.
    CopyBytesSync,
    /// The folders of a copy are synced.
    CopyNamesSync,
    /// What was copied is read and checked.
    CopyVerify,
    /// The removal of the mark is durable before the copy is acknowledged.
    CopyEndSync,
}

impl Check {
    /// All of the log's and the runs'.
    pub const ALL: [Check; 41] = [
        Check::LogHeaderChecksum,
        Check::LogLinkChecksum,
        Check::LogBlockChecksum,
        Check::LogBlockIdentity,
        Check::LogBlockPlace,
        Check::LogPromise,
        Check::LogSealedEnd,
        Check::LogChain,
        Check::LogWholeCommit,
        Check::LogDirectRead,
        Check::LogContiguous,
        Check::LogSettle,
        Check::LogAheadOrder,
        Check::LogPin,
        Check::LogCallerWrite,
        Check::LogRingWrite,
        Check::LogBulkSync,
        Check::LogLinkWrite,
        Check::LogReuseWrite,
        Check::LogNewSync,
        Check::LogNameSync,
        Check::LogRemoveSync,
        Check::LogFreeSync,
        Check::LogGiveUpSync,
        Check::LogOpenDirSync,
        Check::LogOpenNewestSync,
        Check::LogOpenBeforeSync,
        Check::RunHeaderChecksum,
        Check::RunFileIdentity,
        Check::RunFooterChecksum,
        Check::RunFooterNamed,
        Check::RunFooterFields,
        Check::RunFrameChecksum,
        Check::RunFramePlace,
        Check::RunContent,
        Check::RunIndexFields,
        Check::RunBlockBounds,
        Check::RunBlockOrder,
        Check::RunBlockWeights,
        Check::RunBlockRestarts,
        Check::RunPageSize,
    ];

    /// All of the savepoints' and their copies'.
    pub const SAVEPOINTS: [Check; 17] = [
        Check::SavepointBytesSync,
        Check::SavepointNameSync,
        Check::SavepointRemoveSync,
        Check::SavepointOpenSync,
        Check::SavepointName,
        Check::SavepointOwner,
        Check::SavepointRuns,
        Check::SavepointExtras,
        Check::SavepointSpare,
        Check::SavepointWithout,
        Check::CopyMark,
        Check::CopyRefuse,
        Check::CopyLast,
        Check::CopyBytesSync,
        Check::CopyNamesSync,
        Check::CopyVerify,
        Check::CopyEndSync,
    ];
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[cfg(any(test, feature = "sim"))]
thread_local! {
    static OFF: Cell<Option<Check>> = const { Cell::new(None) };
}

/// Runs `f` with one check switched off on this thread.
///
/// ```
/// use backstay_storage::sabotage::{Check, without};
/// assert_eq!(without(Check::LogPromise, || 7), 7);
/// ```
#[cfg(any(test, feature = "sim"))]
pub fn without<T>(check: Check, f: impl FnOnce() -> T) -> T {
    with_off(&OFF, check, f)
}

/// Runs `f` with `check` in `off`, for embedders that have switches of their own.
///
/// ```
/// use backstay_storage::sabotage::with_off;
/// thread_local!(static OFF: std::cell::Cell<Option<u8>> = const { std::cell::Cell::new(None) });
/// assert_eq!(with_off(&OFF, 7, || OFF.get()), Some(7));
/// assert_eq!(OFF.get(), None);
/// ```
#[cfg(any(test, feature = "sim"))]
pub fn with_off<C: Copy, T>(off: &'static LocalKey<Cell<Option<C>>>, check: C, f: impl FnOnce() -> T) -> T {
    /// Switches it on again, also if `f` panics.
    struct Restore<C: Copy + 'static>(&'static LocalKey<Cell<Option<C>>>, Option<C>);
    impl<C: Copy> Drop for Restore<C> {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _restore = Restore(off, off.replace(Some(check)));
    f()
}

/// Whether a check is to be made, a sync to be done, an order to be kept.
#[cfg(any(test, feature = "sim"))]
#[inline]
pub(crate) fn checked(check: Check) -> bool {
    OFF.get() != Some(check)
}

/// Whether a check is to be made: always.
#[cfg(not(any(test, feature = "sim")))]
#[inline]
pub(crate) const fn checked(_: Check) -> bool {
    true
}
