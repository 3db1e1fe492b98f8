//! Why a pipeline did not start or stopped, with the exit code that the binary gives it.

use backstay_storage::Error as StorageError;

use crate::circuit::CircuitError;
use crate::connector::ConnectorError;

/// The result of a pipeline's calls.
pub type Result<T, E = PipelineError> = std::result::Result<T, E>;

/// Why a pipeline did not start or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The configuration asks for something that cannot be, or that this pipeline's store does not fit.
    #[error("{0}")]
    Config(String),
    /// The store failed, is damaged, full, or in use.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A connector failed for good.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// An operator failed (an evaluation error with `on_evaluation_error: stop`).
    #[error(transparent)]
    Circuit(#[from] CircuitError),
    /// A replayed step differs from its record (invariant 3).
    #[error("replay of step {step} differs for {relation}: expected {expected}, got {got}; {hint}")]
    Replay {
        /// The step.
        step: u64,
        /// `input connector t.file` or `view v`.
        relation: String,
        /// What the step record says.
        expected: String,
        /// What was read or computed now.
        got: String,
        /// What may have happened, and what to do.
        hint: &'static str,
    },
    /// A stop was asked for while it waited to begin: nothing was done, and nothing is wrong.
    #[error("stopped before it began")]
    Stopped,
    /// Stored state that this build cannot make sense of.
    #[error("{0}")]
    State(String),
}

impl PipelineError {
    /// The binary's exit code: 2 configuration, 3 damage or a replay that differs, 4 directory in use, 5 no space, 1 all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            PipelineError::Config(_) => 2,
            PipelineError::Replay { .. } | PipelineError::State(_) => 3,
            PipelineError::Storage(error) | PipelineError::Circuit(CircuitError::Storage { source: error, .. }) => {
                match error {
                    full if full.is_no_space() => 5,
                    StorageError::Damaged(_) | StorageError::Unsupported { .. } => 3,
                    StorageError::Locked { .. } => 4,
                    _ => 1,
                }
            }
            _ => 1,
        }
    }
}
