//! Rows of partitions in an order: the state of top-k and of window functions.
//!
//! Invariants:
//! 1. A spine row is partition key → order key ‖ the other columns ‖ length of the order key, with the row's weight. So values
//!    of a partition stand in its order, and rows of equal order keys in that of their other columns.
//! 2. Encodings are prefix-free, so that the length at the end never decides a comparison.
//!
//! Known limit: partition columns stand in the key and in the value.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use backstay_storage::spine::{Cursor, Discipline, RowBatch, Spine};

use super::{OpenRole, StateKeys, pick};
use crate::circuit::delta::Delta;
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::SortColumn;
use crate::circuit::row::{RowCodec, normalise};

/// The rows of all partitions; see the module.
pub(super) struct OrderedRows {
    partition: Vec<usize>,
    partition_codec: RowCodec,
    order: Vec<usize>,
    order_codec: RowCodec,
    /// Columns that are no order key, ascending.
    rest: Vec<usize>,
    rest_codec: RowCodec,
    /// Partition key → ordered row.
    pub(super) rows: Spine,
}

/// What a step did to the rows.
pub(super) struct Update {
    /// The consolidated change, as the spine has rows.
    pub(super) delta: RowBatch,
    /// The rows before it.
    pub(super) before: Cursor,
    /// The rows with it.
    pub(super) after: Cursor,
}

impl OrderedRows {
    /// Rows of `input`; the spine is opened as `rows`.
    pub(super) fn new(
        input: &SchemaRef,
        partition: &[usize],
        order: &[SortColumn],
        open: &mut OpenRole<'_>,
    ) -> Result<Self> {
        let types = |columns: &[usize]| -> Vec<DataType> {
            columns.iter().map(|&i| input.field(i).data_type().clone()).collect()
        };
        let order_types: Vec<(DataType, SortOptions)> =
            order.iter().map(|k| (input.field(k.column).data_type().clone(), k.options)).collect();
        let order: Vec<usize> = order.iter().map(|k| k.column).collect();
        let rest: Vec<usize> = (0..input.fields().len()).filter(|i| !order.contains(i)).collect();
        Ok(Self {
            partition: partition.to_vec(),
            partition_codec: RowCodec::new(&types(partition))?,
            order_codec: RowCodec::ordered(&order_types)?,
            rest_codec: RowCodec::new(&types(&rest))?,
            order,
            rest,
            rows: open("rows", Discipline::Weighted)?,
        })
    }

    /// Adds the rows of a step; `None` if they change nothing.
    pub(super) fn update(&mut self, chunks: &[Delta], label: &str) -> Result<Option<Update>> {
        let delta = self.delta(chunks)?;
        if delta.is_empty() {
            return Ok(None);
        }
        let before = self.rows.cursor().map_err(CircuitError::storage(label))?;
        self.rows.insert_batch(&delta).map_err(CircuitError::storage(label))?;
        let after = self.rows.cursor().map_err(CircuitError::storage(label))?;
        Ok(Some(Update { delta, before, after }))
    }

    /// The consolidated rows of a delta, as the spine has them.
    fn delta(&self, chunks: &[Delta]) -> Result<RowBatch> {
        let mut out = RowBatch::new();
        let mut value = Vec::new();
        for chunk in chunks {
            let columns: Vec<ArrayRef> = chunk.rows.columns().iter().map(normalise).collect();
            let order = self.order_codec.encode(&pick(&columns, &self.order), chunk.len())?;
            let rest = self.rest_codec.encode(&pick(&columns, &self.rest), chunk.len())?;
            let mut keys = StateKeys::new(&self.partition_codec, &pick(&columns, &self.partition), chunk.len())?;
            for (i, &weight) in chunk.weights.iter().enumerate() {
                let order = order.get(i);
                value.clear();
                value.extend_from_slice(order);
                value.extend_from_slice(rest.get(i));
                value.extend_from_slice(&(order.len() as u32).to_be_bytes());
                out.push(keys.state(i), &value, weight);
            }
        }
        out.consolidate(Discipline::Weighted);
        Ok(out)
    }

    /// The columns of stored rows, in the order of the input.
    pub(super) fn decode<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let (mut orders, mut rests) = (Vec::new(), Vec::new());
        for value in values {
            let (order, rest) = split_value(value).ok_or_else(|| {
                CircuitError::RowFormat("a stored row of a partition is shorter than its order key".to_owned())
            })?;
            orders.push(order);
            rests.push(rest);
        }
        let mut columns: Vec<(usize, ArrayRef)> = Vec::with_capacity(self.order.len() + self.rest.len());
        for (places, codec, rows) in [(&self.order, &self.order_codec, orders), (&self.rest, &self.rest_codec, rests)] {
            if !places.is_empty() {
                columns.extend(places.iter().copied().zip(codec.decode(rows)?));
            }
        }
        columns.sort_unstable_by_key(|(place, _)| *place);
        Ok(columns.into_iter().map(|(_, column)| column).collect())
    }
}

/// The order key of a stored row, empty if it is damaged.
pub(super) fn order_key(value: &[u8]) -> &[u8] {
    split_value(value).map_or(&[], |(order, _)| order)
}

fn split_value(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (row, length) = value.split_last_chunk::<4>()?;
    row.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// Walks two sorted lists in step: each entry once, with its place in the list or, if `compare` finds them equal, lists that have it.
pub(super) fn in_step(
    left: Range<usize>,
    right: Range<usize>,
    compare: impl Fn(usize, usize) -> Ordering,
) -> impl Iterator<Item = (Option<usize>, Option<usize>)> {
    let (mut i, mut j) = (left.start, right.start);
    std::iter::from_fn(move || {
        let order = match (i < left.end, j < right.end) {
            (true, true) => compare(i, j),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => return None,
        };
        let places = (order.is_le().then_some(i), order.is_ge().then_some(j));
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
        Some(places)
    })
}

/// The stretches of equal keys in a consolidated batch.
pub(super) fn partitions(batch: &RowBatch) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = start;
        while start < batch.len() && batch.key(start) == batch.key(first) {
            start += 1;
        }
        (first < start).then_some(first..start)
    })
}

#[cfg(test)]
mod tests;
