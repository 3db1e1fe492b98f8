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

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::SchemaRef;
use backstay_storage::spine::{KeyBatch, Probe, RowBatch, Spine};

use super::index::{Index, Stand, Value};
use super::join::{OUTPUT_ROWS, PROBE_KEYS, meet};
use super::{OpenRole, Operator, StepContext};
use crate::circuit::delta::Delta;
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::{CircuitPlan, NodeId, NodeKind, SemiOutput};
use crate::circuit::row::normalise;

/// The operator; see the module.
pub struct Semi {
    label: String,
    schema: SchemaRef,
    output: SemiOutput,
    /// Key → the columns of a left row that are not in it.
    left: Index,
    /// Key → nothing, with the sum of the weights of the right rows that have it.
    right: Index,
}

impl Semi {
    /// The operator of a semi join node.
    ///
    /// # Errors
    /// Keys of different types; types without a row encoding; spines that do not open.
    pub fn new(plan: &CircuitPlan, id: NodeId, open: &mut OpenRole<'_>) -> Result<Self> {
        let node = &plan.nodes[id];
        let NodeKind::Semi { output, .. } = &node.kind else {
            return Err(CircuitError::plan(&node.label, "not a semi join"));
        };
        let (left, right) = Index::both(plan, id, [Value::Rest, Value::Nothing], open)?;
        Ok(Self { label: node.label.clone(), schema: node.schema.clone(), output: *output, left, right })
    }

    /// Puts out the left rows that cannot have a match and are not kept.
    fn pass(&self, chunks: &[Delta], out: &mut Vec<Delta>) -> Result<()> {
        if self.output == SemiOutput::Matched {
            return Ok(());
        }
        for chunk in chunks {
            let rows = self.left.layout().left_out(chunk);
            if !rows.is_empty() {
                let rows = chunk.take(&rows).map_err(CircuitError::arrow(&self.label))?;
                let matched = vec![false; rows.len()];
                let columns = rows.rows.columns().iter().map(normalise).collect();
                out.push(self.delta(columns, rows.weights, matched)?);
            }
        }
        Ok(())
    }

    /// Puts out what the right delta changes about the left rows as they stand.
    fn change_matches(&mut self, context: &mut StepContext, delta: &RowBatch, out: &mut Vec<Delta>) -> Result<()> {
        for start in (0..delta.len()).step_by(PROBE_KEYS) {
            let range = start..delta.len().min(start + PROBE_KEYS);
            let mut keys = KeyBatch::new();
            range.clone().for_each(|i| keys.push(delta.key(i)));
            let sums = self.right.probe(context, &self.label, &keys)?;
            let mut changed = KeyBatch::new();
            let mut now_matched = Vec::new();
            for (n, i) in range.enumerate() {
                let before = sum(&sums, n);
                let after = before.wrapping_add(delta.weight(i));
                if (before != 0) != (after != 0) {
                    changed.push(delta.key(i));
                    now_matched.push(after != 0);
                }
            }
            let left = self.left.probe(context, &self.label, &changed)?;
            let mut rows = Rows::of(Stand::Before);
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

    /// Puts out the left delta by the right side as its delta leaves it.
    fn change_left(
        &mut self,
        context: &mut StepContext,
        delta: &RowBatch,
        right: &RowBatch,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let (mut start, mut met) = (0, 0);
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
            let sums = self.right.probe(context, &self.label, &keys)?;
            let changes = meet(&keys, right, &mut met);
            let change = |rows: &Range<usize>| rows.clone().fold(0i64, |sum, i| sum.wrapping_add(right.weight(i)));
            let matched: Vec<bool> =
                changes.iter().enumerate().map(|(key, rows)| sum(&sums, key).wrapping_add(change(rows)) != 0).collect();
            let mut rows = Rows::of(Stand::Delta);
            for (i, key) in (start..end).zip(key_of) {
                let matched = matched.get(key).is_some_and(|matched| *matched);
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
            true => {
                let full = std::mem::replace(rows, Rows::of(rows.stand));
                self.emit(full, out)
            }
            false => Ok(()),
        }
    }

    fn emit(&self, rows: Rows<'_>, out: &mut Vec<Delta>) -> Result<()> {
        if rows.weights.is_empty() {
            return Ok(());
        }
        let stored = rows.keys.iter().copied().zip(rows.rests.iter().copied());
        let columns = self.left.decode(rows.stand, stored)?;
        out.push(self.delta(columns, rows.weights, rows.matched)?);
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
struct Rows<'a> {
    stand: Stand,
    keys: Vec<&'a [u8]>,
    rests: Vec<&'a [u8]>,
    weights: Vec<i64>,
    matched: Vec<bool>,
}

impl Rows<'_> {
    fn of(stand: Stand) -> Self {
        Self { stand, keys: Vec::new(), rests: Vec::new(), weights: Vec::new(), matched: Vec::new() }
    }
}

/// The sum of the weights that a key has.
fn sum(found: &Probe, key: usize) -> i64 {
    found.range(key).fold(0i64, |sum, row| sum.wrapping_add(found.rows.weight(row)))
}

impl Operator for Semi {
    fn step(&mut self, context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let chunks = |port: usize| inputs.get(port).map_or(&[][..], Vec::as_slice);
        let mut out = Vec::new();
        self.pass(chunks(0), &mut out)?;
        let left = self.left.delta(context, chunks(0))?;
        let right = self.right.delta(context, chunks(1))?;
        self.change_matches(context, &right, &mut out)?;
        self.change_left(context, &left, &right, &mut out)?;
        self.right.insert(&self.label, &right)?;
        self.left.insert(&self.label, &left)?;
        Ok(out)
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        self.left.spine().into_iter().chain(self.right.spine()).collect()
    }
}
