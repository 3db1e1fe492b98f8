//! A change to a relation: rows with weights (a Z-set).
//!
//! Invariants: `weights` has one entry a row, and a *consolidated* delta has no two equal rows, no zero weight, and its rows
//! in the order of their row encoding (invariant 8 of the design), so that equal changes are equal bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat, filter, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::error::{CircuitError, Result};
use super::row::{EncodedRows, RowCodec, normalise};

/// Rows with weights: positive weights insert, negative ones delete.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The rows, columnar.
    pub rows: RecordBatch,
    /// One weight a row.
    pub weights: Vec<i64>,
}

/// Fingerprint of a consolidated delta that depends neither on the order of its rows nor on the workers that made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewHash {
    /// Number of distinct rows (of entries in the consolidated delta).
    pub rows: u64,
    /// Wrapping sum over the rows of weight × xxh3-64 of the row's encoding.
    pub hash: u64,
}

impl Delta {
    /// No change to a relation of this schema.
    pub fn empty(schema: SchemaRef) -> Self {
        Self { rows: RecordBatch::new_empty(schema), weights: Vec::new() }
    }

    /// Every row of `rows`, once.
    pub fn inserts(rows: RecordBatch) -> Self {
        let weights = vec![1; rows.num_rows()];
        Self { rows, weights }
    }

    /// Rows of the given columns; `weights` says how many, so that there may be no columns.
    ///
    /// # Errors
    /// Columns that do not fit the schema or the number of weights.
    pub fn new(schema: &SchemaRef, columns: Vec<ArrayRef>, weights: Vec<i64>) -> Result<Self, ArrowError> {
        Ok(Self { rows: batch(schema, columns, weights.len())?, weights })
    }

    /// Number of weighted rows.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// The rows at `indices`, in that order.
    ///
    /// # Errors
    /// An index that is out of range.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self, ArrowError> {
        let weights: Option<Vec<i64>> =
            indices.values().iter().map(|&i| self.weights.get(i as usize).copied()).collect();
        let weights =
            weights.ok_or_else(|| ArrowError::ComputeError(format!("a row beyond the last of {}", self.len())))?;
        let columns = take_columns(self.rows.columns(), indices)?;
        Self::new(&self.rows.schema(), columns, weights)
    }

    /// The rows for which `mask` is true, not NULL.
    ///
    /// # Errors
    /// A mask of another length.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Self, ArrowError> {
        if mask.true_count() == self.len() && mask.len() == self.len() {
            return Ok(self.clone());
        }
        let columns = self.rows.columns().iter().map(|c| filter(c, mask)).collect::<Result<_, _>>()?;
        let kept = self.weights.iter().zip(mask.iter()).filter(|(_, keep)| *keep == Some(true));
        Self::new(&self.rows.schema(), columns, kept.map(|(w, _)| *w).collect())
    }

    /// Rows `offset .. offset + length`, sharing the memory of this delta's columns.
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        let weights = self.weights.iter().skip(offset).take(length).copied().collect();
        Self { rows: self.rows.slice(offset, length), weights }
    }

    /// The rows of all chunks, one after the other, under `schema`.
    ///
    /// # Errors
    /// Chunks whose columns do not fit the schema.
    pub fn concat(schema: &SchemaRef, chunks: &[Delta]) -> Result<Self, ArrowError> {
        match chunks {
            [] => Ok(Self::empty(Arc::clone(schema))),
            [one] => Self::new(schema, one.rows.columns().to_vec(), one.weights.clone()),
            many => {
                let columns = concat_columns(schema.fields().len(), many)?;
                Self::new(schema, columns, many.iter().flat_map(|c| c.weights.iter().copied()).collect())
            }
        }
    }

    /// Adds the weights of equal rows, drops those of weight zero, and sorts by row encoding. `codec` must be of the
    /// schema's types. Floats come out [normalised](normalise).
    ///
    /// # Errors
    /// Columns that do not fit the codec.
    pub fn consolidate(self, codec: &RowCodec) -> Result<(Self, ViewHash)> {
        let columns: Vec<ArrayRef> = self.rows.columns().iter().map(normalise).collect();
        let encoded = codec.encode(&columns, self.weights.len())?;
        let (indices, weights) = consolidate_rows(&encoded, &self.weights);
        let mut hash = ViewHash { rows: weights.len() as u64, hash: 0 };
        for (&i, &weight) in indices.iter().zip(&weights) {
            let row = xxh3_64(encoded.get(i as usize));
            hash.hash = hash.hash.wrapping_add(row.wrapping_mul(weight.cast_unsigned()));
        }
        let in_place = indices.len() == self.weights.len() && indices.iter().zip(0u32..).all(|(&i, n)| i == n);
        let columns = if in_place {
            columns
        } else {
            take_columns(&columns, &UInt32Array::from(indices)).map_err(CircuitError::arrow("consolidate"))?
        };
        let delta = Self::new(&self.rows.schema(), columns, weights).map_err(CircuitError::arrow("consolidate"))?;
        Ok((delta, hash))
    }
}

/// Sorts rows by their bytes, adds the weights of equal ones and drops zeros; gives for each row that is left the index
/// of its first copy, and its weight.
fn consolidate_rows(rows: &EncodedRows, weights: &[i64]) -> (Vec<u32>, Vec<i64>) {
    // The first 8 bytes decide most comparisons without following the offsets. A stable sort profits from the sorted
    // stretches that the workers' deltas are.
    let mut order: Vec<(u64, u32)> = (0..rows.len()).map(|i| (prefix(rows.get(i)), i as u32)).collect();
    order.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| rows.get(a.1 as usize).cmp(rows.get(b.1 as usize))));
    let mut indices = Vec::with_capacity(order.len());
    let mut sums: Vec<i64> = Vec::with_capacity(order.len());
    for group in order.chunk_by(|a, b| a.0 == b.0 && rows.get(a.1 as usize) == rows.get(b.1 as usize)) {
        let sum = group.iter().fold(0i64, |sum, (_, i)| sum.wrapping_add(weights[*i as usize]));
        if sum != 0 {
            indices.push(group[0].1);
            sums.push(sum);
        }
    }
    (indices, sums)
}

/// The first eight bytes as a number that compares as they do; shorter rows are padded with zeros.
fn prefix(row: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let n = row.len().min(8);
    bytes[..n].copy_from_slice(&row[..n]);
    u64::from_be_bytes(bytes)
}

/// A batch of `rows` rows, which may have no columns.
pub(super) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// The rows at `indices` of every column.
pub(super) fn take_columns(columns: &[ArrayRef], indices: &UInt32Array) -> Result<Vec<ArrayRef>, ArrowError> {
    columns.iter().map(|c| take(c, indices, None)).collect()
}

/// Column by column the rows of all chunks; unlike a batch, the result need not fit a schema.
pub(super) fn concat_columns(width: usize, chunks: &[Delta]) -> Result<Vec<ArrayRef>, ArrowError> {
    (0..width)
        .map(|column| {
            let parts: Vec<&dyn Array> = chunks.iter().map(|c| c.rows.column(column).as_ref()).collect();
            concat(&parts)
        })
        .collect()
}

#[cfg(test)]
mod tests;
