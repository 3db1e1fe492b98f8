//! The operators of a circuit: deltas in, deltas out, spines as state. They know nothing of threads, workers or Timely.
//!
//! Invariants:
//! 1. What an operator puts out over steps 1 … n adds up to its relation over what came in over steps 1 … n; whatever order
//!    or chunks the rows of a step come in (only [`upsert`] looks at the order, which the runtime fixes).
//! 2. The first byte of every key in a spine is the [vnode](super::vnode) of the operator's distribution key.
//! 3. Weights add and multiply wrapping, so that a retraction undoes what it retracts whatever came in between.

mod accumulator;
pub mod aggregate;
pub mod arrange;
pub mod as_of;
pub mod clock;
pub mod constant;
mod extrema;
mod index;
pub mod join;
pub mod linear;
pub mod materialize;
mod ordered;
pub mod semi;
pub mod session;
pub mod single_row;
pub mod temporal;
pub mod top;
pub mod upsert;
pub mod window;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use backstay_storage::spine::{Discipline, Spine};

use arrange::Arrangements;

use super::delta::Delta;
use super::error::{CircuitError, EvalError, Result};
use super::plan::{CircuitPlan, NodeId, NodeKind};
use super::row::{EncodedRows, RowCodec};
use super::step::OnEvalError;
use super::vnode::vnode;

/// What an operator may know of the step that it runs in.
#[derive(Debug)]
pub struct StepContext {
    /// The step's number.
    pub step: u64,
    /// The step's clock, ms since the Unix epoch.
    pub clock_ms: i64,
    /// What to do with rows that an expression fails on.
    pub on_eval_error: OnEvalError,
    /// Rows left out so far.
    pub eval_errors: EvalErrors,
    /// State that several operators read.
    pub arrangements: Arrangements,
}

impl StepContext {
    /// Of a step that begins.
    pub fn new(step: u64, clock_ms: i64, on_eval_error: OnEvalError, arrangements: Arrangements) -> Self {
        Self { step, clock_ms, on_eval_error, eval_errors: EvalErrors::default(), arrangements }
    }

    /// Stops the step for rows that an expression failed on, or counts them as left out.
    fn fail(&mut self, error: EvalError) -> Result<()> {
        match self.on_eval_error {
            OnEvalError::Stop => Err(CircuitError::Eval(Box::new(error))),
            OnEvalError::Skip => {
                self.eval_errors.add(error);
                Ok(())
            }
        }
    }
}

/// Counts rows left out, one entry for each (node, expression, message).
#[derive(Clone, Debug, Default)]
pub struct EvalErrors(Vec<EvalError>);

impl EvalErrors {
    /// Adds failed rows.
    pub fn add(&mut self, error: EvalError) {
        let same = |e: &&mut EvalError| {
            e.label == error.label && e.expression == error.expression && e.message == error.message
        };
        match self.0.iter_mut().find(same) {
            Some(known) => {
                known.rows += error.rows;
                if error.row < known.row {
                    known.row = error.row;
                }
            }
            None => self.0.push(error),
        }
    }

    /// Adds what another worker left out.
    pub fn merge(&mut self, other: Self) {
        other.0.into_iter().for_each(|e| self.add(e));
    }

    /// The entries, sorted.
    pub fn into_sorted(mut self) -> Vec<EvalError> {
        self.0.sort_unstable();
        self.0
    }
}

/// One operator of one worker.
pub trait Operator: Send {
    /// Takes what came in on each port in this step and gives the change of the operator's relation, in chunks that need not
    /// be consolidated. Called once a step, if anything came in or [`Self::runs_without_input`].
    ///
    /// # Errors
    /// Storage errors, and evaluation errors with [`OnEvalError::Stop`]. The state is then undefined.
    fn step(&mut self, context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>>;

    /// Whether the operator has to act in steps that bring it nothing.
    fn runs_without_input(&self) -> bool {
        false
    }

    /// The first clock, in ms, at which time alone changes its relation; it may say too early a one, never too late.
    fn next_due(&self) -> Option<i64> {
        None
    }

    /// Its state, in a fixed order, but for what is in the worker's [`Arrangements`].
    fn spines(&mut self) -> Vec<&mut Spine> {
        Vec::new()
    }
}

/// Opens an operator's spine by its role, e.g. `left`.
pub type OpenRole<'a> = dyn FnMut(&str, Discipline) -> Result<Spine> + 'a;

/// The operator of a node; `None` for nodes that only pass on what comes in ([`NodeKind::Union`], tables without a key).
/// `owns_global` says whether this worker owns the row of aggregates without group columns, `append_only` whether its inputs take no row back.
/// The state of a [`NodeKind::Arrange`], and of a table, goes to `arrangements`.
///
/// # Errors
/// A plan that does not fit together, or state that does not open.
pub fn build(
    plan: &CircuitPlan,
    id: NodeId,
    owns_global: bool,
    append_only: bool,
    arrangements: &mut Arrangements,
    open: &mut OpenRole<'_>,
) -> Result<Option<Box<dyn Operator>>> {
    let node = &plan.nodes[id];
    let input = |port: usize| plan.nodes[node.inputs[port]].schema.clone();
    Ok(match &node.kind {
        NodeKind::Union => None,
        NodeKind::Table { primary_key } if primary_key.is_empty() => None,
        NodeKind::Table { primary_key } => {
            Some(Box::new(upsert::Upsert::new(node, id, primary_key, arrangements, open)?))
        }
        NodeKind::Linear(stages) => Some(Box::new(linear::Linear::new(node, stages.clone()))),
        NodeKind::Clock => Some(Box::new(clock::Clock::new(node, owns_global, open)?)),
        NodeKind::Temporal { bounds } => Some(Box::new(temporal::Temporal::new(node, bounds, open)?)),
        NodeKind::Materialize => Some(Box::new(materialize::Materialize::new(node, open)?)),
        NodeKind::Join { .. } => Some(Box::new(join::Join::new(plan, id, open)?)),
        NodeKind::TopK(top) => Some(Box::new(top::TopKOperator::new(node, &input(0), top, append_only, open)?)),
        NodeKind::Window(window) => Some(Box::new(window::WindowOperator::new(node, &input(0), window, open)?)),
        NodeKind::Session(session) => Some(Box::new(session::SessionOperator::new(node, &input(0), session, open)?)),
        NodeKind::Semi { .. } => Some(Box::new(semi::Semi::new(plan, id, open)?)),
        NodeKind::AsOf(plan) => Some(Box::new(as_of::AsOfJoin::new(node, &input(0), &input(1), plan, open)?)),
        NodeKind::Arrange(arrange) => {
            Some(Box::new(arrange::ArrangeOperator::new(node, id, arrange, arrangements, open)?))
        }
        NodeKind::Constant(rows) => Some(Box::new(constant::Constant::new(node, rows, owns_global, open)?)),
        NodeKind::SingleRow => Some(Box::new(single_row::SingleRow::new(node, owns_global, open)?)),
        NodeKind::Aggregate { group, aggregates } => {
            let of = (&**group, &**aggregates);
            Some(Box::new(aggregate::AggregateOperator::new(node, &input(0), of, owns_global, append_only, open)?))
        }
    })
}

/// The columns at `indices`.
pub(super) fn pick(columns: &[ArrayRef], indices: &[usize]) -> Vec<ArrayRef> {
    indices.iter().map(|&i| columns[i].clone()).collect()
}

/// Where one of the columns is NULL; `None` if nowhere.
pub(super) fn any_null(columns: &[ArrayRef]) -> Option<NullBuffer> {
    columns.iter().fold(None, |all, c| NullBuffer::union(all.as_ref(), c.logical_nulls().as_ref()))
}

/// State keys of a chunk: the vnode of the key columns, followed by their encoding. One buffer for all.
#[derive(Debug)]
pub(super) struct StateKeys {
    rows: EncodedRows,
    key: Vec<u8>,
}

impl StateKeys {
    /// Keys of `count` rows with these (normalised) key columns.
    pub(super) fn new(codec: &RowCodec, columns: &[ArrayRef], count: usize) -> Result<Self> {
        Ok(Self { rows: codec.encode(columns, count)?, key: Vec::new() })
    }

    /// The distribution key of row `i`.
    pub(super) fn distribution(&self, i: usize) -> &[u8] {
        self.rows.get(i)
    }

    /// The vnode of row `i`.
    pub(super) fn vnode(&self, i: usize) -> u8 {
        vnode(self.rows.get(i))
    }

    /// The state key of row `i`, valid until the next call.
    pub(super) fn state(&mut self, i: usize) -> &[u8] {
        let row = self.rows.get(i);
        self.key.clear();
        self.key.push(vnode(row));
        self.key.extend_from_slice(row);
        &self.key
    }
}
