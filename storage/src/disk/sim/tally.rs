//! What an exploration did, and where it failed.

use std::fmt;

use super::CrashPlan;

/// One loss of power, or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The seed of the exploration.
    pub seed: u64,
    /// The operation of the workload at which the power goes, from 1; one more than it has for a loss after its end.
    pub op: u64,
    /// What becomes of what was pending.
    pub plan: CrashPlan,
    /// The operation of the recovery at which the power goes again, from 1, and what becomes of what was pending then.
    pub nested: Option<(u64, CrashPlan)>,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, op, plan, nested } = self;
        write!(f, "seed {seed}, crash at operation {op}, {plan:?}")?;
        if let Some((op, plan)) = nested {
            write!(f, ", then at operation {op} of the recovery, {plan:?}")?;
        }
        Ok(())
    }
}

/// What an exploration did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Operations of the workload.
    pub operations: u64,
    /// Losses of power in it (and one behind its end).
    pub crash_points: u64,
    /// Of these, those of which all outcomes were tried: any coverage but
    /// [`super::Coverage::Sampled`].
    pub exhausted: u64,
    /// Recoveries from them.
    pub recoveries: u64,
    /// Recoveries from a loss of power in a recovery.
    pub nested: u64,
    /// The most syncs that were lies ([`super::SimDisk::sabotaged`]) in any one of them.
    pub lies: u64,
}

/// What went wrong, and when. Its text says all that is needed to see it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed of the exploration.
    pub seed: u64,
    /// The operation at which the power was to go or went.
    pub op: u64,
    /// The outcome that was not recovered from; `None` if the workload itself failed.
    pub moment: Option<Box<Moment>>,
    /// What the closure said.
    pub why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.moment {
            Some(moment) => write!(f, "{moment}: {}", self.why),
            None => write!(f, "seed {}, before the crash at operation {}: {}", self.seed, self.op, self.why),
        }
    }
}

impl std::error::Error for Failure {}

/// Says where a panic came from.
pub(super) struct Told(pub(super) Moment);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("panicked: {}", self.0);
        }
    }
}
