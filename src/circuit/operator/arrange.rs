//! Arrangements: the rows of a relation by a key, kept once for all joins that look them up. A table with a primary key is one by that key.
//!
//! The operator puts out what came in, so that its readers run when something has changed; the rows are in [`Arrangements`], which each
//! worker carries through its steps.
//!
//! Invariants:
//! 1. Readers run after the operator, in the same stage of the same step or in a later one, and on the worker of the key.
//! 2. During a step the spine holds what stood before it, and `Arrangements::delta` is what the step changes: whether a reader needs the
//!    relation before or after the change, it has both, in whatever order the readers run.
//! 3. When the step ends, the delta goes into the spine ([`Arrangements::settle`]); so a spine is frozen with all of its step's rows.
//! 4. What a floor hides is asked for by none of the readers.
//!
//! Known limit: a reader that wants fewer columns decodes those that others want too, and its rows are not consolidated without them.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay_storage::spine::{Discipline, KeyBatch, Probe, RowBatch, Spine};

use super::index::{Layout, Value};
use super::{OpenRole, Operator, StepContext};
use crate::circuit::delta::Delta;
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::{Arrange, Node, NodeId};

/// The arrangements of a worker, by node.
#[derive(Debug, Default)]
pub struct Arrangements(BTreeMap<NodeId, Arrangement>);

/// The state of one.
#[derive(Debug)]
struct Arrangement {
    label: String,
    rows: Spine,
    /// What the step under way changes, as the spine takes it.
    delta: Arc<RowBatch>,
}

impl Arrangements {
    /// Adds a node whose state others may read.
    pub(super) fn add(&mut self, node: NodeId, label: &str, rows: Spine) {
        self.0.insert(node, Arrangement { label: label.to_owned(), rows, delta: Arc::default() });
    }

    /// Says what the step changes of a node's state.
    ///
    /// # Errors
    /// A node that is no arrangement.
    pub(super) fn change(&mut self, node: NodeId, delta: RowBatch) -> Result<()> {
        self.0.get_mut(&node).ok_or_else(|| absent(node))?.delta = Arc::new(delta);
        Ok(())
    }

    /// The consolidated change of an arrangement in this step, as its spine has rows.
    ///
    /// # Errors
    /// A node that is no arrangement.
    pub(super) fn delta(&self, node: NodeId) -> Result<Arc<RowBatch>> {
        self.0.get(&node).map(|a| Arc::clone(&a.delta)).ok_or_else(|| absent(node))
    }

    /// The rows of these keys as they stood before the step.
    ///
    /// # Errors
    /// Storage errors; a node that is no arrangement.
    pub(super) fn probe(&mut self, node: NodeId, keys: &KeyBatch) -> Result<Probe> {
        let arrangement = self.0.get_mut(&node).ok_or_else(|| absent(node))?;
        arrangement.rows.probe(keys).map_err(CircuitError::storage(&arrangement.label))
    }

    /// The state of a node, if it is an arrangement.
    pub fn spine(&mut self, node: NodeId) -> Option<&mut Spine> {
        self.0.get_mut(&node).map(|a| &mut a.rows)
    }

    /// The nodes of which this step has changed something.
    pub fn changed(&self) -> Vec<NodeId> {
        self.0.iter().filter(|(_, a)| !a.delta.is_empty()).map(|(&node, _)| node).collect()
    }

    /// Ends the step for a node.
    ///
    /// # Errors
    /// Storage errors.
    pub fn settle(&mut self, node: NodeId) -> Result<()> {
        let Some(arrangement) = self.0.get_mut(&node) else { return Ok(()) };
        let delta = std::mem::take(&mut arrangement.delta);
        arrangement.rows.insert_batch(&delta).map_err(CircuitError::storage(&arrangement.label))
    }
}

fn absent(node: NodeId) -> CircuitError {
    CircuitError::plan("circuit", format!("operator {node} is no arrangement"))
}

/// The operator; see the module. Its spine has key → the columns that are not in it.
pub struct ArrangeOperator {
    id: NodeId,
    layout: Layout,
}

impl ArrangeOperator {
    /// The operator of a node; its state goes to `arrangements`.
    ///
    /// # Errors
    /// Types without a row encoding; a spine that does not open.
    pub fn new(
        node: &Node,
        id: NodeId,
        plan: &Arrange,
        arrangements: &mut Arrangements,
        open: &mut OpenRole<'_>,
    ) -> Result<Self> {
        arrangements.add(id, &node.label, open("rows", Discipline::Weighted)?);
        Ok(Self { id, layout: Layout::new(&node.schema, &plan.keys, Value::Rest, plan.null_equals_null)? })
    }
}

impl Operator for ArrangeOperator {
    fn step(&mut self, context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let chunks: Vec<Delta> = inputs.into_iter().flatten().collect();
        context.arrangements.change(self.id, self.layout.delta(&chunks)?)?;
        Ok(chunks)
    }
}
