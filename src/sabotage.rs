//! Orders and checks of the pipeline that a test can switch off, to show that the simulation notices: what nothing misses is
//! not tested. As `backstay_storage::sabotage`, for this crate.
//!
//! Without the feature `sim` (and outside of unit tests) every check is on and costs nothing. With it, a check is looked up on the
//! thread's own: a simulation runs on one thread, and others are not disturbed.

/// What can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// Deltas of a step are handed out only when its record is durable.
    WriteAhead,
    /// Every step that is logged after the checkpoint runs again.
    ReplayStep,
    /// An output is not sent the steps that its sink is known to hold.
    SinkSkip,
    /// A delta that its sink does not hold goes into the checkpoint.
    PendingDeltas,
    /// The log is kept from the first step on that a checkpoint does not have.
    LogFrom,
    /// A checkpoint names how far inputs have been taken.
    InputPositions,
    /// The rows of inputs that cannot be read again are logged before the step that took them.
    TakenRows,
    /// What waits for an operator is put in order, whatever the order in which it came.
    MessageOrder,
    /// State moves to the worker that owns it when their number changes.
    Reshard,
    /// A step that runs again has the clock of its record.
    RecordedClock,
    /// A savepoint's copy lets go of the sinks of its original.
    CopySinks,
    /// A savepoint's copy begins a new incarnation.
    CopyIncarnation,
}

impl Check {
    /// All of them but the clock, which not every program sees, and those of copies.
    pub const ALL: [Check; 9] = [
        Check::WriteAhead,
        Check::ReplayStep,
        Check::SinkSkip,
        Check::PendingDeltas,
        Check::LogFrom,
        Check::InputPositions,
        Check::TakenRows,
        Check::MessageOrder,
        Check::Reshard,
    ];

    /// What a savepoint's copy relies on.
    pub const COPIES: [Check; 2] = [Check::CopySinks, Check::CopyIncarnation];
}

#[cfg(any(test, feature = "sim"))]
thread_local! {
    static OFF: std::cell::Cell<Option<Check>> = const { std::cell::Cell::new(None) };
}

/// Runs `f` with one check switched off on this thread.
///
/// ```
/// use backstay::sabotage::{Check, without};
/// assert_eq!(without(Check::WriteAhead, || 7), 7);
/// ```
#[cfg(any(test, feature = "sim"))]
pub fn without<T>(check: Check, f: impl FnOnce() -> T) -> T {
    backstay_storage::sabotage::with_off(&OFF, check, f)
}

/// Whether a check is to be made, an order to be kept.
#[cfg(any(test, feature = "sim"))]
pub(crate) fn checked(check: Check) -> bool {
    OFF.get() != Some(check)
}

/// Whether a check is to be made, an order to be kept: always.
#[cfg(not(any(test, feature = "sim")))]
#[inline]
pub(crate) const fn checked(_: Check) -> bool {
    true
}
