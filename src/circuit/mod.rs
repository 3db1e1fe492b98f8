//! The incremental circuit: a [`plan`] of operators over [`delta`]s, run step by step by a [`runtime`].

mod append_only;
pub mod delta;
pub mod error;
pub mod exact;
mod explain;
mod figures;
pub mod floors;
mod growth;
mod message;
pub mod operator;
pub mod placement;
pub mod plan;
pub mod reshard;
pub mod row;
pub mod runtime;
pub mod step;
pub mod vnode;
pub mod watermark;
mod worker;

pub use delta::{Delta, ViewHash};
pub use error::{CircuitError, EvalError};
pub use figures::{NodeFigures, Stopwatch};
pub use growth::{Growth, growing_state};
pub use plan::CircuitPlan;
pub use reshard::reshard;
pub use row::ROW_FORMAT;
pub use runtime::Runtime;
pub use step::{OnEvalError, OpenSpine, Pick, RuntimeOptions, StepInput, StepOutput};
pub use watermark::{Lateness, Mark, Watermarks};
