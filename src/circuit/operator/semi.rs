//! Semi, anti and mark joins: the rows of the left side by whether the right side has their key.
//!
//! Invariants:
//! 1. A key is matched while the weights of the right rows that have it do not add up to zero. A left row stands in the output with
//!    its own weight.
//! 2. The delta of the right side goes first: the left rows of a key that becomes matched, or is no longer, change as they stood before
//!    the step; then the left delta is put out by what is matched after it. What a step's chunks add up to decides, not their order.
//! 3. A left row with a NULL in its key (unless NULLs are equal) never has a match: it passes through and is not kept.
//!
//! Conditions other than equalities are not known here: the compiler makes the left rows that have a match the right side, with
//! all of their columns as the key.
//!
//! Known limit: all left rows of a key that becomes matched are read at once.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use backstay_storage::spine::{Discipline, KeyBatch, RowBatch, Spine};

use super::join::{OUTPUT_ROWS, PROBE_KEYS};
use super::{OpenRole, Operator, StateKeys, StepContext, any_null, pick};
use crate::circuit::delta::{Delta, take_columns};
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::{Node, NodeKind, SemiOutput};
use crate::circuit::row::{RowCodec, normalise};

/// The operator; see the module.
pub struct Semi {
    label: String,
    schema: SchemaRef,
    left_keys: Vec<usize>,
    right_keys: Vec<usize>,
    /// The left columns that are not in the key.
    rest: Vec<usize>,
    /// Of each left column the place among the key's columns followed by the others.
    sources: Vec<usize>,
    key_codec: RowCodec,
    rest_codec: RowCodec,
    null_equals_null: bool,
    output: SemiOutput,
    /// Key → the columns of a left row that are not in it.
    left: Spine,
    /// Key → nothing, with the sum of the weights of the right rows that have it.
    right: Spine,
}

impl Semi {
    /// The operator of a semi join node over inputs of these schemas.
    ///
    /// # Errors
    /// Keys of different types; types without a row encoding; spines that do not open.
    pub fn new(node: &Node, left: &SchemaRef, right: &SchemaRef, open: &mut OpenRole<'_>) -> Result<Self> {
        let NodeKind::Semi { left_keys, right_keys, null_equals_null, output } = &node.kind else {
            return Err(CircuitError::plan(&node.label, "not a semi join"));
        };
        let types = |schema: &SchemaRef, columns: &[usize]| -> Vec<_> {
            columns.iter().map(|&i| schema.field(i).data_type().clone()).collect()
        };
        let (left_types, right_types) = (types(left, left_keys), types(right, right_keys));
        if left_types != right_types {
            let message = format!("joins {left_types:?} with {right_types:?}");
            return Err(CircuitError::plan(&node.label, message));
        }
        let mut rest = Vec::new();
        let sources = (0..left.fields().len()).map(|i| {
            left_keys.iter().position(|&key| key == i).unwrap_or_else(|| {
                rest.push(i);
                left_keys.len() + rest.len() - 1
            })
        });
        let sources = sources.collect();
        Ok(Self {
            label: node.label.clone(),
            schema: node.schema.clone(),
            left_keys: left_keys.clone(),
            right_keys: right_keys.clone(),
            key_codec: RowCodec::new(&left_types)?,
            rest_codec: RowCodec::new(&types(left, &rest))?,
            rest,
            sources,
            null_equals_null: *null_equals_null,
            output: *output,
            left: open("left", Discipline::Weighted)?,
            right: open("right", Discipline::Weighted)?,
        })
    }

    /// The consolidated left delta by key. Rows that cannot have a match go straight to `out`.
    fn left_delta(&self, chunks: &[Delta], out: &mut Vec<Delta>) -> Result<RowBatch> {
        let mut delta = RowBatch::new();
        for chunk in chunks {
            let columns: Vec<ArrayRef> = chunk.rows.columns().iter().map(normalise).collect();
            let key_columns = pick(&columns, &self.left_keys);
            let nulls = any_null(&key_columns).filter(|_| !self.null_equals_null);
            let rest = self.rest_codec.encode(&pick(&columns, &self.rest), chunk.len())?;
            let mut keys = StateKeys::new(&self.key_codec, &key_columns, chunk.len())?;
            let mut without_match = Vec::new();
            for (i, &weight) in chunk.weights.iter().enumerate() {
                if nulls.as_ref().is_none_or(|n| n.is_valid(i)) {
                    delta.push(keys.state(i), rest.get(i), weight);
                } else {
                    without_match.push(i as u32);
                }
            }
            if self.output != SemiOutput::Matched && !without_match.is_empty() {
                let weights = without_match.iter().map(|&i| chunk.weights[i as usize]).collect::<Vec<_>>();
                let columns = take_columns(&columns, &UInt32Array::from(without_match))
                    .map_err(CircuitError::arrow(&self.label))?;
                let matched = vec![false; weights.len()];
                out.push(self.delta(columns, weights, matched)?);
            }
        }
        delta.consolidate(Discipline::Weighted);
        Ok(delta)
    }

    /// The consolidated weights of the right delta's keys.
    fn right_delta(&self, chunks: &[Delta]) -> Result<RowBatch> {
        let mut delta = RowBatch::new();
        for chunk in chunks {
            let key_columns: Vec<ArrayRef> =
                pick(chunk.rows.columns(), &self.right_keys).iter().map(normalise).collect();
            let nulls = any_null(&key_columns).filter(|_| !self.null_equals_null);
            let mut keys = StateKeys::new(&self.key_codec, &key_columns, chunk.len())?;
            for (i, &weight) in chunk.weights.iter().enumerate() {
                if nulls.as_ref().is_none_or(|n| n.is_valid(i)) {
                    delta.push(keys.state(i), &[], weight);
                }
            }
        }
        delta.consolidate(Discipline::Weighted);
        Ok(delta)
    }

    /// Puts out what the right delta changes about the left rows as they stand.
    fn change_matches(&mut self, delta: &RowBatch, out: &mut Vec<Delta>) -> Result<()> {
        for start in (0..delta.len()).step_by(PROBE_KEYS) {
            let range = start..delta.len().min(start + PROBE_KEYS);
            let mut keys = KeyBatch::new();
            range.clone().for_each(|i| keys.push(delta.key(i)));
            let sums = self.right.probe(&keys).map_err(CircuitError::storage(&self.label))?;
            let mut changed = KeyBatch::new();
            let mut now_matched = Vec::new();
            for (n, i) in range.enumerate() {
                let before = sums.range(n).fold(0i64, |sum, row| sum.wrapping_add(sums.rows.weight(row)));
                let after = before.wrapping_add(delta.weight(i));
                if (before != 0) != (after != 0) {
                    changed.push(delta.key(i));
                    now_matched.push(after != 0);
                }
            }
            let left = self.left.probe(&changed).map_err(CircuitError::storage(&self.label))?;
            let mut rows = Rows::default();
            for (n, &matched) in now_matched.iter().enumerate() {
                for row in left.range(n) {
                    let (key, rest, weight) = (left.rows.key(row), left.rows.value(row), left.rows.weight(row));
                    self.put(&mut rows, key, rest, weight, matched);
                    self.put(&mut rows, key, rest, weight.wrapping_neg(), !matched);
                    self.emit_if_full(&mut rows, out)?;
                }
            }
            self.emit(rows, out)?;
        }
        Ok(())
    }

    /// Puts out the left delta by the right side as it stands.
    fn change_left(&mut self, delta: &RowBatch, out: &mut Vec<Delta>) -> Result<()> {
        let mut start = 0;
        while start < delta.len() {
            let mut keys = KeyBatch::new();
            // The key of each row, as an index into `keys`.
            let mut key_of = Vec::new();
            let mut end = start;
            while end < delta.len() {
                if end == start || delta.key(end) != delta.key(end - 1) {
                    if keys.len() == PROBE_KEYS {
                        break;
                    }
                    keys.push(delta.key(end));
                }
                key_of.push(keys.len() - 1);
                end += 1;
            }
            let sums = self.right.probe(&keys).map_err(CircuitError::storage(&self.label))?;
            let mut rows = Rows::default();
            for (i, key) in (start..end).zip(key_of) {
                let matched = !sums.range(key).is_empty();
                self.put(&mut rows, delta.key(i), delta.value(i), delta.weight(i), matched);
                self.emit_if_full(&mut rows, out)?;
            }
            self.emit(rows, out)?;
            start = end;
        }
        Ok(())
    }

    /// Adds a row that has a match or not, if such rows are put out.
    fn put<'a>(&self, rows: &mut Rows<'a>, key: &'a [u8], rest: &'a [u8], weight: i64, matched: bool) {
        let is_shown = match self.output {
            SemiOutput::Matched => matched,
            SemiOutput::Unmatched => !matched,
            SemiOutput::Marked => true,
        };
        if is_shown {
            rows.keys.push(key);
            rows.rests.push(rest);
            rows.weights.push(weight);
            rows.matched.push(matched);
        }
    }

    fn emit_if_full(&self, rows: &mut Rows<'_>, out: &mut Vec<Delta>) -> Result<()> {
        match rows.weights.len() >= OUTPUT_ROWS {
            true => self.emit(std::mem::take(rows), out),
            false => Ok(()),
        }
    }

    fn emit(&self, rows: Rows<'_>, out: &mut Vec<Delta>) -> Result<()> {
        if rows.weights.is_empty() {
            return Ok(());
        }
        // The first byte of a key is its vnode.
        let mut stored = self.key_codec.decode(rows.keys.iter().map(|key| &key[1..]))?;
        stored.extend(self.rest_codec.decode(rows.rests.iter().copied())?);
        out.push(self.delta(pick(&stored, &self.sources), rows.weights, rows.matched)?);
        Ok(())
    }

    fn delta(&self, mut columns: Vec<ArrayRef>, weights: Vec<i64>, matched: Vec<bool>) -> Result<Delta> {
        if self.output == SemiOutput::Marked {
            columns.push(Arc::new(BooleanArray::from(matched)));
        }
        Delta::new(&self.schema, columns, weights).map_err(CircuitError::arrow(&self.label))
    }
}

/// Left rows to be put out, as they are stored.
#[derive(Default)]
struct Rows<'a> {
    keys: Vec<&'a [u8]>,
    rests: Vec<&'a [u8]>,
    weights: Vec<i64>,
    matched: Vec<bool>,
}

impl Operator for Semi {
    fn step(&mut self, _: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let chunks = |port: usize| inputs.get(port).map_or(&[][..], Vec::as_slice);
        let mut out = Vec::new();
        let left = self.left_delta(chunks(0), &mut out)?;
        let right = self.right_delta(chunks(1))?;
        self.change_matches(&right, &mut out)?;
        self.right.insert_batch(&right).map_err(CircuitError::storage(&self.label))?;
        self.change_left(&left, &mut out)?;
        self.left.insert_batch(&left).map_err(CircuitError::storage(&self.label))?;
        Ok(out)
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        vec![&mut self.left, &mut self.right]
    }
}
