//! What goes into a step and what comes out of it.

use backstay_storage::spine::{Discipline, Spine};

use super::delta::{Delta, ViewHash};
use super::error::EvalError;
use super::figures::Stopwatch;

/// What to do with a row on which an expression fails (division by zero, a cast of bad text).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEvalError {
    /// The step fails with an error that names view, row and expression.
    #[default]
    Stop,
    /// The row is left out of this node's output; the step counts it in [`StepOutput::eval_errors`].
    Skip,
}

/// How a circuit is run.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// Number of workers, 1 to 256 (the number of vnodes).
    pub workers: usize,
    /// Treatment of evaluation errors.
    pub on_eval_error: OnEvalError,
    /// What operators' times are taken with.
    pub stopwatch: Stopwatch,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self { workers: 1, on_eval_error: OnEvalError::Stop, stopwatch: Stopwatch::default() }
    }
}

/// Opens the spine of a worker by its name, `<node>.<role>#<worker>`.
pub type OpenSpine<'a> = dyn FnMut(usize, &str, Discipline) -> backstay_storage::Result<Spine> + 'a;

/// Chooses one of `n` things to be next: a number below `n`, which is at least 1.
pub type Pick = Box<dyn FnMut(usize) -> usize + Send>;

/// The input of one step.
#[derive(Clone, Debug, Default)]
pub struct StepInput {
    /// The step's number, larger than that of the step before.
    pub step: u64,
    /// The step's clock, ms since the Unix epoch.
    pub clock_ms: i64,
    /// By index in the plan's tables: raw chunks in order of arrival. In a table with a primary key a positive weight puts
    /// the row in the place of the one with its key, and a negative one deletes the row with that key.
    pub tables: Vec<Vec<Delta>>,
    /// By the plan's columns with LATENESS, in the order of tables and columns: what no row of this or a later step is below. It may be
    /// shorter: then there is no watermark yet. It never goes back.
    pub watermarks: Vec<Option<i64>>,
}

/// What a step did to the views.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    /// The step's number.
    pub step: u64,
    /// By index in the plan's views: consolidated deltas, sorted by row encoding.
    pub views: Vec<Delta>,
    /// By index in the plan's views: row count and hash of the delta (invariant 3).
    pub view_hashes: Vec<ViewHash>,
    /// Rows that were left out because an expression failed on them; sorted. Empty with [`OnEvalError::Stop`].
    pub eval_errors: Vec<EvalError>,
    /// The first clock, in ms, at which time alone changes a view; it may be too early, never too late.
    pub next_due_ms: Option<i64>,
}
