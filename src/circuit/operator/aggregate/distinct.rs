//! DISTINCT in aggregates: how often every value stands in every group, in a weighted spine.
//!
//! Invariant: an aggregate sees a value with weight 1 when its count stops being zero, and with −1 when it is zero again.
//! Rows in which an argument is NULL are no values.

use arrow::array::Array;
use arrow::datatypes::DataType;
use backstay_storage::spine::{KeyBatch, RowBatch, Spine};

use super::selection::Selection;
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::row::RowCodec;

/// The values of some columns over all groups. Aggregates of the same columns and filter share one.
pub(super) struct DistinctValues {
    pub(super) arguments: Vec<usize>,
    pub(super) filter: Option<usize>,
    codec: RowCodec,
    /// Group key → value.
    pub(super) values: Spine,
}

impl DistinctValues {
    /// The values of columns of these types.
    pub(super) fn new(arguments: &[usize], filter: Option<usize>, types: &[DataType], values: Spine) -> Result<Self> {
        Ok(Self { arguments: arguments.to_vec(), filter, codec: RowCodec::new(types)?, values })
    }

    /// Counts the rows of a step and gives those that bring a value or take the last one away. `keys` are the groups' keys,
    /// ascending.
    pub(super) fn update(&mut self, rows: &Selection<'_>, keys: &KeyBatch, label: &str) -> Result<Selection<'static>> {
        let encoded = self.codec.encode(&rows.columns, rows.weights.len())?;
        let nulls: Vec<_> = rows.columns.iter().filter_map(|column| column.logical_nulls()).collect();
        let mut order: Vec<u32> = (0..rows.weights.len() as u32).collect();
        order.retain(|&row| nulls.iter().all(|n| n.is_valid(row as usize)));
        let value = |row: u32| (rows.groups[row as usize], encoded.get(row as usize));
        order.sort_unstable_by(|&a, &b| value(a).cmp(&value(b)));

        let (mut changes, mut samples) = (RowBatch::new(), Vec::new());
        for same in order.chunk_by(|&a, &b| value(a) == value(b)) {
            let weight = same.iter().fold(0i64, |sum, &row| sum.wrapping_add(rows.weights[row as usize]));
            if weight != 0 {
                let (group, bytes) = value(same[0]);
                changes.push(keys.get(group as usize), bytes, weight);
                samples.push(same[0]);
            }
        }
        let before = self.values.probe_rows(&changes).map_err(CircuitError::storage(label))?;
        self.values.insert_batch(&changes).map_err(CircuitError::storage(label))?;

        let (mut turned, mut weights) = (Vec::new(), Vec::new());
        for ((i, &before), &row) in before.iter().enumerate().zip(&samples) {
            let after = before.wrapping_add(changes.weight(i));
            if (before == 0) != (after == 0) {
                turned.push(row);
                weights.push(if after == 0 { -1 } else { 1 });
            }
        }
        rows.take(turned, weights).map_err(CircuitError::arrow(label))
    }
}
