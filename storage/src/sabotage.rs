//! Checks that a test can switch off, to show that something notices: a check that nothing misses is not tested.
//!
//! Without the feature `sim` (and outside of tests) every check is on and costs nothing. With it, a check is looked up in a
//! list of the thread's own: a simulation runs on one thread, and others are not disturbed.

use std::fmt;

/// What can be switched off: each is a check on which recovery relies.
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
    /// A segment that was found is never written to again: opening makes a new one.
    LogFreshSegment,
}

impl Check {
    /// All of them.
    pub const ALL: [Check; 10] = [
        Check::LogHeaderChecksum,
        Check::LogLinkChecksum,
        Check::LogBlockChecksum,
        Check::LogBlockIdentity,
        Check::LogBlockPlace,
        Check::LogPromise,
        Check::LogSealedEnd,
        Check::LogChain,
        Check::LogWholeCommit,
        Check::LogFreshSegment,
    ];
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[cfg(any(test, feature = "sim"))]
thread_local! {
    static OFF: std::cell::Cell<Option<Check>> = const { std::cell::Cell::new(None) };
}

/// Runs `f` with one check switched off on this thread.
///
/// ```
/// use backstay_storage::sabotage::{Check, without};
/// assert_eq!(without(Check::LogPromise, || 7), 7);
/// ```
#[cfg(any(test, feature = "sim"))]
pub fn without<T>(check: Check, f: impl FnOnce() -> T) -> T {
    /// Switches it on again, also if `f` panics.
    struct Restore(Option<Check>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OFF.set(self.0);
        }
    }
    let _restore = Restore(OFF.replace(Some(check)));
    f()
}

/// Whether a check is to be made.
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
