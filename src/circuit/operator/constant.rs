//! Rows that are there from the first step on, whatever the tables hold: VALUES, or a SELECT without FROM.
//!
//! Invariant: they are put out once in the life of the state, by the worker that owns the empty key.

use arrow::array::RecordBatch;
use backstay_storage::spine::{Discipline, RowBatch, Spine};

use super::{OpenRole, Operator, StepContext};
use crate::circuit::delta::Delta;
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::Node;
use crate::circuit::vnode::vnode;

/// The operator; see the module.
pub struct Constant {
    label: String,
    rows: Delta,
    /// The empty key, once the rows are out.
    emitted: Spine,
    /// Whether this worker owns the rows and has not yet made sure that they are out.
    must_emit: bool,
}

impl Constant {
    /// The operator of a node.
    ///
    /// # Errors
    /// Rows that do not fit the node's schema; a spine that does not open.
    pub fn new(node: &Node, rows: &RecordBatch, owns_global: bool, open: &mut OpenRole<'_>) -> Result<Self> {
        let rows = Delta::new(&node.schema, rows.columns().to_vec(), vec![1; rows.num_rows()]);
        Ok(Self {
            label: node.label.clone(),
            rows: rows.map_err(CircuitError::arrow(&node.label))?,
            emitted: open("emitted", Discipline::Latest)?,
            must_emit: owns_global,
        })
    }
}

impl Operator for Constant {
    fn step(&mut self, _: &mut StepContext, _: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let key = [vnode(&[])];
        let is_first = std::mem::take(&mut self.must_emit)
            && self.emitted.get(&key).map_err(CircuitError::storage(&self.label))?.is_none();
        if !is_first {
            return Ok(Vec::new());
        }
        let mut emitted = RowBatch::new();
        emitted.push(&key, &[], 1);
        self.emitted.insert_batch(&emitted).map_err(CircuitError::storage(&self.label))?;
        Ok(vec![self.rows.clone()])
    }

    fn runs_without_input(&self) -> bool {
        self.must_emit
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        vec![&mut self.emitted]
    }
}
