//! Tables with a primary key: upserts and deletes by key become a delta of rows.
//!
//! Invariant: the spine holds, for each key, the row that was put last; the delta of a step takes the old row away and adds
//! the new one, and says nothing where they are equal. Of several changes of one key in a step the last one counts.
//!
//! The spine, key → row, is one of the worker's [`Arrangements`], for joins by the primary key.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use backstay_storage::spine::{Discipline, KeyBatch, RowBatch};
use hashbrown::HashSet;

use super::arrange::Arrangements;
use super::{OpenRole, Operator, StateKeys, StepContext, pick};
use crate::circuit::delta::{Delta, concat_columns, take_columns};
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::{Node, NodeId};
use crate::circuit::row::{RowCodec, normalise};

/// The operator; see the module.
pub struct Upsert {
    id: NodeId,
    label: String,
    schema: SchemaRef,
    key_columns: Vec<usize>,
    key_codec: RowCodec,
    row_codec: RowCodec,
}

impl Upsert {
    /// The operator of a table node; its state goes to `arrangements`.
    ///
    /// # Errors
    /// Types without a row encoding; a spine that does not open.
    pub fn new(
        node: &Node,
        id: NodeId,
        primary_key: &[usize],
        arrangements: &mut Arrangements,
        open: &mut OpenRole<'_>,
    ) -> Result<Self> {
        arrangements.add(id, &node.label, open("rows", Discipline::Latest)?);
        let types: Vec<_> = primary_key.iter().map(|&i| node.schema.field(i).data_type().clone()).collect();
        Ok(Self {
            id,
            label: node.label.clone(),
            schema: node.schema.clone(),
            key_columns: primary_key.to_vec(),
            key_codec: RowCodec::new(&types)?,
            row_codec: RowCodec::of_schema(&node.schema)?,
        })
    }
}

impl Operator for Upsert {
    fn step(&mut self, context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let chunks: Vec<Delta> = inputs.into_iter().flatten().collect();
        let columns = concat_columns(self.schema.fields().len(), &chunks).map_err(CircuitError::arrow(&self.label))?;
        let columns: Vec<ArrayRef> = columns.iter().map(normalise).collect();
        let weights: Vec<i64> = chunks.iter().flat_map(|c| c.weights.iter().copied()).collect();
        let mut keys = StateKeys::new(&self.key_codec, &pick(&columns, &self.key_columns), weights.len())?;
        let rows = self.row_codec.encode(&columns, weights.len())?;

        let changed = last_changes(&keys, &weights);
        let mut probe_keys = KeyBatch::new();
        changed.iter().for_each(|&i| probe_keys.push(keys.state(i as usize)));
        let probe = context.arrangements.probe(self.id, &probe_keys)?;

        let mut update = RowBatch::new();
        let mut old_rows = Vec::new();
        let mut new_rows: Vec<u32> = Vec::new();
        for (&i, found) in changed.iter().zip(probe.offsets.windows(2)) {
            let old = (found[0] < found[1]).then(|| probe.rows.value(found[0] as usize));
            let new = (weights[i as usize] > 0).then(|| rows.get(i as usize));
            if old == new {
                continue;
            }
            update.push(keys.state(i as usize), new.unwrap_or_default(), if new.is_some() { 1 } else { -1 });
            old_rows.extend(old);
            new_rows.extend(new.map(|_| i));
        }
        context.arrangements.change(self.id, update)?;

        let mut weights = vec![-1; old_rows.len()];
        weights.resize(old_rows.len() + new_rows.len(), 1);
        let old_columns = self.row_codec.decode(old_rows)?;
        let delta = take_columns(&columns, &UInt32Array::from(new_rows))
            .and_then(|new| old_columns.iter().zip(&new).map(|(old, new)| concat(&[old, new])).collect())
            .and_then(|columns| Delta::new(&self.schema, columns, weights));
        Ok(vec![delta.map_err(CircuitError::arrow(&self.label))?])
    }
}

/// Index of the last change of each key, in order of arrival. Weight zero changes nothing.
fn last_changes(keys: &StateKeys, weights: &[i64]) -> Vec<u32> {
    let mut seen = HashSet::with_capacity(weights.len());
    let mut last: Vec<u32> = (0..weights.len())
        .rev()
        .filter(|&i| weights[i] != 0 && seen.insert(keys.distribution(i)))
        .map(|i| i as u32)
        .collect();
    last.reverse();
    last
}
