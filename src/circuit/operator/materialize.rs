//! A relation's rows, kept to be read by ad-hoc queries. It puts out nothing.
//!
//! Invariant: after step n the spine is the sum of the deltas of steps 1 … n.
//!
//! Known limit: with several workers all rows are exchanged, by the hash of the whole row.

use arrow::array::ArrayRef;
use backstay_storage::spine::{Discipline, RowBatch, Spine};

use super::{OpenRole, Operator, StateKeys, StepContext};
use crate::circuit::delta::Delta;
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::Node;
use crate::circuit::row::{RowCodec, normalise};

/// The operator; see the module.
pub struct Materialize {
    label: String,
    codec: RowCodec,
    /// Row → nothing, with its weight.
    rows: Spine,
}

impl Materialize {
    /// The operator of a node over rows of the node's schema.
    ///
    /// # Errors
    /// Types without a row encoding; a spine that does not open.
    pub fn new(node: &Node, open: &mut OpenRole<'_>) -> Result<Self> {
        Ok(Self {
            label: node.label.clone(),
            codec: RowCodec::of_schema(&node.schema)?,
            rows: open("rows", Discipline::Weighted)?,
        })
    }
}

impl Operator for Materialize {
    fn step(&mut self, _context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let mut update = RowBatch::new();
        for chunk in inputs.into_iter().flatten() {
            let columns: Vec<ArrayRef> = chunk.rows.columns().iter().map(normalise).collect();
            let mut keys = StateKeys::new(&self.codec, &columns, chunk.len())?;
            for (i, &weight) in chunk.weights.iter().enumerate() {
                update.push(keys.state(i), &[], weight);
            }
        }
        update.consolidate(Discipline::Weighted);
        self.rows.insert_batch(&update).map_err(CircuitError::storage(&self.label))?;
        Ok(Vec::new())
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        vec![&mut self.rows]
    }
}
