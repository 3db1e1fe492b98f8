//! Inner equi-join, kept by both sides' rows in weighted spines.
//!
//! Invariant: with L and R the sides before the step, the delta is L ⋈ dR + dL ⋈ (R + dR); weights multiply. So the right
//! delta looks at the left spine before dL goes in, and the left delta at the right spine after dR went in.
//!
//! Known limit: all rows of one key go to one worker, so a join without an equality (no key) runs on one worker.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::datatypes::SchemaRef;
use backstay_storage::spine::{Discipline, KeyBatch, RowBatch, Spine};

use super::linear::Evaluator;
use super::{OpenRole, Operator, StateKeys, StepContext, any_null, pick};
use crate::circuit::delta::{Delta, take_columns};
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::{Node, NodeKind, Stage};
use crate::circuit::row::{RowCodec, normalise};

/// Keys looked up at a time: bounds the rows held in memory where each key matches many.
pub(super) const PROBE_KEYS: usize = 4096;
/// Joined rows in one output chunk.
pub(super) const OUTPUT_ROWS: usize = 16384;

/// The operator; see the module.
pub struct Join {
    label: String,
    schema: SchemaRef,
    left: Side,
    right: Side,
    null_equals_null: bool,
    filter: Option<Evaluator>,
}

/// One input of the join.
struct Side {
    key_columns: Vec<usize>,
    key_codec: RowCodec,
    row_codec: RowCodec,
    /// Join key → row.
    rows: Spine,
}

impl Side {
    fn new(schema: &SchemaRef, keys: &[usize], rows: Spine) -> Result<Self> {
        let types: Vec<_> = keys.iter().map(|&i| schema.field(i).data_type().clone()).collect();
        Ok(Self {
            key_columns: keys.to_vec(),
            key_codec: RowCodec::new(&types)?,
            row_codec: RowCodec::of_schema(schema)?,
            rows,
        })
    }

    /// The consolidated rows of this side's delta, by key.
    fn delta(&self, chunks: &[Delta], null_equals_null: bool) -> Result<RowBatch> {
        let mut out = RowBatch::new();
        for chunk in chunks {
            let columns: Vec<ArrayRef> = chunk.rows.columns().iter().map(normalise).collect();
            let key_columns = pick(&columns, &self.key_columns);
            let nulls = any_null(&key_columns);
            let rows = self.row_codec.encode(&columns, chunk.len())?;
            let mut keys = StateKeys::new(&self.key_codec, &key_columns, chunk.len())?;
            for (i, &weight) in chunk.weights.iter().enumerate() {
                if null_equals_null || nulls.as_ref().is_none_or(|n| n.is_valid(i)) {
                    out.push(keys.state(i), rows.get(i), weight);
                }
            }
        }
        out.consolidate(Discipline::Weighted);
        Ok(out)
    }
}

impl Join {
    /// The operator of a join node over inputs of these schemas.
    ///
    /// # Errors
    /// Keys of different types; types without a row encoding; spines that do not open.
    pub fn new(node: &Node, left: &SchemaRef, right: &SchemaRef, open: &mut OpenRole<'_>) -> Result<Self> {
        let NodeKind::Join { left_keys, right_keys, null_equals_null, filter } = &node.kind else {
            return Err(CircuitError::plan(&node.label, "not a join"));
        };
        let left = Side::new(left, left_keys, open("left", Discipline::Weighted)?)?;
        let right = Side::new(right, right_keys, open("right", Discipline::Weighted)?)?;
        if left.key_codec.types() != right.key_codec.types() {
            let message = format!("joins {:?} with {:?}", left.key_codec.types(), right.key_codec.types());
            return Err(CircuitError::plan(&node.label, message));
        }
        Ok(Self {
            label: node.label.clone(),
            schema: node.schema.clone(),
            left,
            right,
            null_equals_null: *null_equals_null,
            filter: filter.clone().map(|f| Evaluator { label: node.label.clone(), stages: vec![Stage::Filter(f)] }),
        })
    }

    /// Joins one side's delta with the rows of the other that its spine holds now.
    fn matches(
        &mut self,
        context: &mut StepContext,
        delta: &RowBatch,
        delta_is_left: bool,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let mut keys = KeyBatch::new();
        // Rows of the delta that have the key of the same index.
        let mut ranges = Vec::new();
        let mut start = 0;
        while start < delta.len() {
            let mut end = start + 1;
            while end < delta.len() && delta.key(end) == delta.key(start) {
                end += 1;
            }
            keys.push(delta.key(start));
            ranges.push(start..end);
            start = end;
            if ranges.len() == PROBE_KEYS || start == delta.len() {
                self.probe(context, delta, &keys, &ranges, delta_is_left, out)?;
                keys = KeyBatch::new();
                ranges.clear();
            }
        }
        Ok(())
    }

    fn probe(
        &mut self,
        context: &mut StepContext,
        delta: &RowBatch,
        keys: &KeyBatch,
        ranges: &[std::ops::Range<usize>],
        delta_is_left: bool,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let (this, other) = match delta_is_left {
            true => (&self.left, &mut self.right),
            false => (&self.right, &mut self.left),
        };
        let probe = other.rows.probe(keys).map_err(CircuitError::storage(&self.label))?;
        if probe.rows.is_empty() {
            return Ok(());
        }
        let (first, last) = (ranges.first().map_or(0, |r| r.start), ranges.last().map_or(0, |r| r.end));
        let ours = this.row_codec.decode((first..last).map(|i| delta.value(i)))?;
        let theirs = other.row_codec.decode((0..probe.rows.len()).map(|i| probe.rows.value(i)))?;
        let mut pairs = Pairs::default();
        for (range, found) in ranges.iter().zip(probe.offsets.windows(2)) {
            for i in range.clone() {
                for j in found[0]..found[1] {
                    pairs.push((i - first) as u32, j, delta.weight(i).wrapping_mul(probe.rows.weight(j as usize)));
                    if pairs.weights.len() == OUTPUT_ROWS {
                        self.emit(context, pairs, &ours, &theirs, delta_is_left, out)?;
                        pairs = Pairs::default();
                    }
                }
            }
        }
        self.emit(context, pairs, &ours, &theirs, delta_is_left, out)
    }

    fn emit(
        &self,
        context: &mut StepContext,
        pairs: Pairs,
        ours: &[ArrayRef],
        theirs: &[ArrayRef],
        ours_is_left: bool,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        if pairs.weights.is_empty() {
            return Ok(());
        }
        let (ours, theirs) = take_columns(ours, &UInt32Array::from(pairs.ours))
            .and_then(|ours| Ok((ours, take_columns(theirs, &UInt32Array::from(pairs.theirs))?)))
            .map_err(CircuitError::arrow(&self.label))?;
        let (mut columns, right) = if ours_is_left { (ours, theirs) } else { (theirs, ours) };
        columns.extend(right);
        let delta = Delta::new(&self.schema, columns, pairs.weights).map_err(CircuitError::arrow(&self.label))?;
        match &self.filter {
            Some(filter) => filter.run(context, delta, out),
            None => {
                out.push(delta);
                Ok(())
            }
        }
    }
}

/// Rows to be joined, as indices into both sides' decoded rows.
#[derive(Default)]
struct Pairs {
    ours: Vec<u32>,
    theirs: Vec<u32>,
    weights: Vec<i64>,
}

impl Pairs {
    fn push(&mut self, ours: u32, theirs: u32, weight: i64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
        self.weights.push(weight);
    }
}

impl Operator for Join {
    fn step(&mut self, context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let chunks = |port: usize| inputs.get(port).map_or(&[][..], Vec::as_slice);
        let left = self.left.delta(chunks(0), self.null_equals_null)?;
        let right = self.right.delta(chunks(1), self.null_equals_null)?;
        let mut out = Vec::new();
        self.matches(context, &right, false, &mut out)?;
        self.right.rows.insert_batch(&right).map_err(CircuitError::storage(&self.label))?;
        self.matches(context, &left, true, &mut out)?;
        self.left.rows.insert_batch(&left).map_err(CircuitError::storage(&self.label))?;
        Ok(out)
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        vec![&mut self.left.rows, &mut self.right.rows]
    }
}
