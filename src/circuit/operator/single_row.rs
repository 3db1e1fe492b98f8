//! The value of a scalar sub-query: the one row of the input, a row of NULLs if it has none.
//!
//! Invariants:
//! 1. From the first step on there is exactly one output row, on the worker that owns the empty key.
//! 2. Copies count: two equal rows are two. Rows of negative weight, which stand for deletes that came too early, are none.
//! 3. More than one row is an evaluation error; where those are skipped, the value is NULL until one row is left.
//!
//! Known limit: a step that changes the input reads all of its rows, which are one unless errors are skipped.

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::SchemaRef;
use backstay_storage::spine::{Discipline, KeyBatch, RowBatch, Spine};

use super::linear::render;
use super::{OpenRole, Operator, StepContext};
use crate::circuit::delta::{Delta, batch};
use crate::circuit::error::{CircuitError, EvalError, Result};
use crate::circuit::plan::Node;
use crate::circuit::row::{RowCodec, normalise};
use crate::circuit::vnode::vnode;

/// The operator; see the module.
pub struct SingleRow {
    label: String,
    schema: SchemaRef,
    codec: RowCodec,
    /// The empty key → row.
    rows: Spine,
    /// The empty key → the row that was put out last.
    shown: Spine,
    /// Whether this worker owns the row and has not yet made sure that it is there.
    must_emit: bool,
}

impl SingleRow {
    /// The operator of a node.
    ///
    /// # Errors
    /// Types without a row encoding; spines that do not open.
    pub fn new(node: &Node, owns_global: bool, open: &mut OpenRole<'_>) -> Result<Self> {
        Ok(Self {
            label: node.label.clone(),
            schema: node.schema.clone(),
            codec: RowCodec::of_schema(&node.schema)?,
            rows: open("rows", Discipline::Weighted)?,
            shown: open("shown", Discipline::Latest)?,
            must_emit: owns_global,
        })
    }

    fn insert(&mut self, chunks: &[Delta], key: &[u8]) -> Result<()> {
        let mut delta = RowBatch::new();
        for chunk in chunks {
            let columns: Vec<ArrayRef> = chunk.rows.columns().iter().map(normalise).collect();
            let rows = self.codec.encode(&columns, chunk.len())?;
            for (i, &weight) in chunk.weights.iter().enumerate() {
                delta.push(key, rows.get(i), weight);
            }
        }
        delta.consolidate(Discipline::Weighted);
        self.rows.insert_batch(&delta).map_err(CircuitError::storage(&self.label))
    }

    /// The value's encoding.
    fn value(&mut self, context: &mut StepContext, key: &[u8]) -> Result<Vec<u8>> {
        let mut keys = KeyBatch::new();
        keys.push(key);
        let found = self.rows.probe(&keys).map_err(CircuitError::storage(&self.label))?.rows;
        let mut there = (0..found.len()).filter(|&i| found.weight(i) > 0);
        let first = there.next();
        match first {
            Some(row) if found.weight(row) == 1 && there.next().is_none() => return Ok(found.value(row).to_vec()),
            Some(row) => self.fail(context, found.value(row))?,
            None => {}
        }
        let nulls: Vec<ArrayRef> = self.schema.fields().iter().map(|f| new_null_array(f.data_type(), 1)).collect();
        Ok(self.codec.encode(&nulls, 1)?.get(0).to_vec())
    }

    fn fail(&self, context: &mut StepContext, row: &[u8]) -> Result<()> {
        let row = batch(&self.schema, self.codec.decode([row])?, 1).map_err(CircuitError::arrow(&self.label))?;
        context.fail(EvalError {
            label: self.label.clone(),
            expression: "the scalar sub-query".to_owned(),
            message: "it has more than one row; this is the smallest".to_owned(),
            row: render(&row),
            rows: 1,
        })
    }
}

impl Operator for SingleRow {
    fn step(&mut self, context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        self.must_emit = false;
        let key = [vnode(&[])];
        let chunks: Vec<Delta> = inputs.into_iter().flatten().collect();
        self.insert(&chunks, &key)?;
        let old = self.shown.get(&key).map_err(CircuitError::storage(&self.label))?;
        if chunks.is_empty() && old.is_some() {
            return Ok(Vec::new());
        }
        let new = self.value(context, &key)?;
        if old.as_ref() == Some(&new) {
            return Ok(Vec::new());
        }
        let mut shown = RowBatch::new();
        shown.push(&key, &new, 1);
        self.shown.insert_batch(&shown).map_err(CircuitError::storage(&self.label))?;
        let weights = old.iter().map(|_| -1).chain([1]).collect();
        let columns = self.codec.decode(old.iter().chain([&new]).map(Vec::as_slice))?;
        let delta = Delta::new(&self.schema, columns, weights);
        Ok(vec![delta.map_err(CircuitError::arrow(&self.label))?])
    }

    fn runs_without_input(&self) -> bool {
        self.must_emit
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        vec![&mut self.rows, &mut self.shown]
    }
}
