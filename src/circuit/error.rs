//! What can go wrong in the circuit, told so that a person knows the view, the row and the fix.

use std::fmt;

/// The result of every fallible call of the circuit.
pub type Result<T, E = CircuitError> = std::result::Result<T, E>;

/// An error of the circuit. After one, the [`Runtime`](super::Runtime) answers only [`CircuitError::Stopped`]: its state may
/// stand between two steps, so the pipeline restarts from its last checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CircuitError {
    /// An expression failed on a row, and the pipeline is configured to stop then.
    #[error(
        "{0}; correct the row or the expression, or set \"on_evaluation_error\" to \"skip\" to leave such rows out"
    )]
    Eval(Box<EvalError>),
    /// The plan asks for something that the operators cannot do; the compiler should have refused it.
    #[error("{label}: {message}")]
    Plan {
        /// Label of the node.
        label: String,
        /// What does not fit.
        message: String,
    },
    /// The storage engine refused.
    #[error("{label}: {source}")]
    Storage {
        /// Label of the node whose state it is.
        label: String,
        /// What the storage said.
        #[source]
        source: backstay_storage::Error,
    },
    /// Stored bytes that this build cannot read as rows, or rows that it cannot encode.
    #[error("row format: {0}")]
    RowFormat(String),
    /// Arrow refused an operation on columns.
    #[error("{label}: {source}")]
    Arrow {
        /// What was being done.
        label: String,
        /// What Arrow said.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// A worker thread ended without an answer (it panicked): state and progress of its step are unknown.
    #[error("worker {worker} ended in the middle of a step; restart the pipeline to resume from its last checkpoint")]
    WorkerLost {
        /// Index of the worker.
        worker: usize,
    },
    /// The runtime was called after an error, or out of order.
    #[error("the circuit has stopped: {0}")]
    Stopped(String),
}

impl CircuitError {
    /// Names the node whose state the storage error is about.
    pub fn storage(label: &str) -> impl FnOnce(backstay_storage::Error) -> Self + '_ {
        move |source| Self::Storage { label: label.to_owned(), source }
    }

    /// Names what was being done when Arrow refused.
    pub fn arrow(label: &str) -> impl FnOnce(arrow::error::ArrowError) -> Self + '_ {
        move |source| Self::Arrow { label: label.to_owned(), source }
    }

    /// A plan that an operator cannot run.
    pub fn plan(label: &str, message: impl Into<String>) -> Self {
        Self::Plan { label: label.to_owned(), message: message.into() }
    }
}

/// Rows that an expression failed on within one step, all with the same message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EvalError {
    /// Label of the node, e.g. `late_by_carrier: projection`.
    pub label: String,
    /// The expression.
    pub expression: String,
    /// What DataFusion said.
    pub message: String,
    /// One of the rows, rendered `column: value, …`: the smallest as text, so that it does not depend on the workers.
    pub row: String,
    /// How many rows failed so.
    pub rows: u64,
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} failed on row ({}): {}", self.label, self.expression, self.row, self.message)
    }
}
