//! Figures that are too dear for every step: what operators did and keep, and where inputs stand. Looked at once a second where an API is
//! served, and when somebody asks. Nothing is frozen for it, and nothing of it reaches a delta.
//!
//! Known limits: a look waits for the step under way, so that figures are older than a second where steps take longer; of
//! an input with many partitions (a file each, say) only some are told.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::connector::PartitionPosition;
use crate::pipeline::controller::Pipeline;
use crate::pipeline::error::Result;
use crate::pipeline::state::OperatorState;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// Partitions told of an input.
const PARTITIONS: usize = 32;

/// What was found at the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The step after which was looked.
    pub step: u64,
    /// The operators, by node id.
    pub operators: Vec<OperatorState>,
    /// Rows of all operators' state; those that a newer one will cancel when they are merged count too.
    pub state_rows: u64,
    /// Bytes of all operators' state, on disk and in memory.
    pub state_bytes: u64,
    /// Where inputs stand, by connector.
    pub positions: Vec<(Arc<str>, InputPlace)>,
}

/// How far an input has been taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InputPlace {
    /// Partitions in all.
    pub partitions: usize,
    /// The last of them, each with the next offset to read.
    pub last: Vec<PartitionPosition>,
}

impl Measured {
    /// Where the input `connector` stands.
    pub fn place(&self, connector: &str) -> Option<&InputPlace> {
        self.positions.iter().find(|(name, _)| **name == *connector).map(|(_, place)| place)
    }
}

impl Pipeline {
    /// Looks, if it is time to or somebody asks.
    pub(super) fn measure(&mut self) -> Result<()> {
        let asking = self.control.take_looking();
        let now = self.env.clock.elapsed();
        // Changes are kept for an API's listeners: without them there is none.
        let is_due = self.feed.is_some() && self.measured_at.is_none_or(|at| now.saturating_sub(at) >= EVERY);
        if asking.is_empty() && !is_due {
            return Ok(());
        }
        self.measured_at = Some(now);
        let operators = self.operators()?;
        let measured = Arc::new(Measured {
            step: self.state.step,
            state_rows: operators.iter().map(|o| o.figures.state_rows).sum(),
            state_bytes: operators.iter().map(|o| o.figures.state_bytes).sum(),
            operators,
            positions: self.inputs.iter().filter(|i| i.is_used()).map(|i| i.place(PARTITIONS)).collect(),
        });
        for answer in asking {
            // Who has stopped waiting gets nothing.
            let _ = answer.try_send(Arc::clone(&measured));
        }
        self.control.update(|s| s.measured = Some(measured));
        Ok(())
    }
}
