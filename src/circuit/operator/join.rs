//! Inner equi-join of two sides' rows, each by key in an `Index`.
//!
//! Invariant: with L and R the sides before the step, the delta is L ⋈ dR + dL ⋈ (R + dR); weights multiply. R + dR is consolidated before it is joined:
//! a row that the step takes back meets none that it brings, so that no expression is evaluated for the pair. A right side of the join's own has dR put in
//! between the two; one that is shared is put forward for all of its readers at once, when the step ends, and dR is added in memory.
//!
//! Known limit: all rows of one key go to one worker, so a join without an equality (no key) runs on one worker.

use std::ops::Range;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::datatypes::SchemaRef;
use backstay_storage::spine::{KeyBatch, RowBatch, Spine};

use super::index::{Index, Stand, Value};
use super::linear::Evaluator;
use super::{OpenRole, Operator, StepContext};
use crate::circuit::delta::{Delta, take_columns};
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::{CircuitPlan, NodeId, NodeKind, Stage};

/// Keys looked up at a time: bounds the rows held in memory where each key matches many.
pub(super) const PROBE_KEYS: usize = 4096;
/// Joined rows in one output chunk.
pub(super) const OUTPUT_ROWS: usize = 16384;

/// The operator; see the module.
pub struct Join {
    label: String,
    schema: SchemaRef,
    left: Index,
    right: Index,
    filter: Option<Evaluator>,
}

/// Rows of a side that a block of keys has: their columns, and for each key its range of them.
struct Matches<'a> {
    rows: &'a RowBatch,
    columns: Vec<ArrayRef>,
    ranges: Vec<Range<usize>>,
    /// The row that the columns begin with.
    first: usize,
}

impl<'a> Matches<'a> {
    /// Those of these rows that are in the ranges, by key; nothing, if all ranges are empty.
    fn of(side: &Index, rows: &'a RowBatch, ranges: Vec<Range<usize>>, stand: Stand) -> Result<Option<Self>> {
        let found = || ranges.iter().filter(|range| !range.is_empty());
        let (Some(first), Some(last)) = (found().next().map(|r| r.start), found().next_back().map(|r| r.end)) else {
            return Ok(None);
        };
        let kept = (first..last).map(|i| (rows.key(i), rows.value(i)));
        Ok(Some(Self { rows, columns: side.decode(stand, kept)?, ranges, first }))
    }
}

impl Join {
    /// The operator of a join node.
    ///
    /// # Errors
    /// Keys of different types; types without a row encoding; spines that do not open.
    pub fn new(plan: &CircuitPlan, id: NodeId, open: &mut OpenRole<'_>) -> Result<Self> {
        let node = &plan.nodes[id];
        let NodeKind::Join { filter, .. } = &node.kind else {
            return Err(CircuitError::plan(&node.label, "not a join"));
        };
        let (left, right) = Index::both(plan, id, [Value::Row; 2], open)?;
        Ok(Self {
            label: node.label.clone(),
            schema: node.schema.clone(),
            left,
            right,
            filter: filter.clone().map(|f| Evaluator { label: node.label.clone(), stages: vec![Stage::Filter(f)] }),
        })
    }

    /// Joins one side's delta with the rows that the other has, and with `also`, a delta of the other's that is not yet in.
    fn matches(
        &mut self,
        context: &mut StepContext,
        delta: &RowBatch,
        delta_is_left: bool,
        also: Option<&RowBatch>,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let mut keys = KeyBatch::new();
        // Rows of the delta that have the key of the same index.
        let mut ranges = Vec::new();
        let (mut start, mut met) = (0, 0);
        while start < delta.len() {
            let end = same_key(delta, start);
            keys.push(delta.key(start));
            ranges.push(start..end);
            start = end;
            if ranges.len() == PROBE_KEYS || start == delta.len() {
                let other = if delta_is_left { &mut self.right } else { &mut self.left };
                let probe = other.probe(context, &self.label, &keys)?;
                let mut stood: Vec<Range<usize>> = (0..keys.len()).map(|key| probe.range(key)).collect();
                let other = if delta_is_left { &self.right } else { &self.left };
                let mut theirs = Vec::new();
                let after;
                if let Some(also) = also {
                    let mut changed = meet(&keys, also, &mut met);
                    // Keys that stood before and are changed: their rows are taken out here, and stand together there.
                    let pairs = stood.iter_mut().zip(&mut changed);
                    let pairs = pairs.filter(|(old, new)| !Range::is_empty(old) && !Range::is_empty(new));
                    let both: Vec<_> = pairs.map(|(old, new)| (std::mem::take(old), std::mem::take(new))).collect();
                    after = other.after(&probe.rows, also, &both)?;
                    theirs.extend(Matches::of(other, also, changed, Stand::Delta)?);
                    theirs.extend(Matches::of(other, &after, meet(&keys, &after, &mut 0), Stand::Delta)?);
                }
                let stood = Matches::of(other, &probe.rows, stood, Stand::Before)?;
                let theirs: Vec<Matches<'_>> = stood.into_iter().chain(theirs).collect();
                self.join(context, delta, &ranges, delta_is_left, &theirs, out)?;
                keys = KeyBatch::new();
                ranges.clear();
            }
        }
        Ok(())
    }

    /// Joins the rows of a delta, by key, with what matches them.
    fn join(
        &self,
        context: &mut StepContext,
        delta: &RowBatch,
        ranges: &[Range<usize>],
        delta_is_left: bool,
        matches: &[Matches<'_>],
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        if matches.is_empty() {
            return Ok(());
        }
        let (first, last) = (ranges.first().map_or(0, |r| r.start), ranges.last().map_or(0, |r| r.end));
        let ours = if delta_is_left { &self.left } else { &self.right };
        let ours = ours.decode(Stand::Delta, (first..last).map(|i| (delta.key(i), delta.value(i))))?;
        for theirs in matches {
            let mut pairs = Pairs::default();
            for (range, found) in ranges.iter().zip(&theirs.ranges) {
                for i in range.clone() {
                    for j in found.clone() {
                        let weight = delta.weight(i).wrapping_mul(theirs.rows.weight(j));
                        pairs.push((i - first) as u32, (j - theirs.first) as u32, weight);
                        if pairs.weights.len() == OUTPUT_ROWS {
                            self.emit(context, std::mem::take(&mut pairs), &ours, &theirs.columns, delta_is_left, out)?;
                        }
                    }
                }
            }
            self.emit(context, pairs, &ours, &theirs.columns, delta_is_left, out)?;
        }
        Ok(())
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

/// Behind the last row that has the key of row `start`.
fn same_key(rows: &RowBatch, start: usize) -> usize {
    let mut end = start + 1;
    while end < rows.len() && rows.key(end) == rows.key(start) {
        end += 1;
    }
    end
}

/// The rows of each of these ascending keys; `from` is where those of earlier keys end, and is moved on.
pub(super) fn meet(keys: &KeyBatch, rows: &RowBatch, from: &mut usize) -> Vec<Range<usize>> {
    let range = |i: usize| {
        while *from < rows.len() && rows.key(*from) < keys.get(i) {
            *from += 1;
        }
        let start = *from;
        while *from < rows.len() && rows.key(*from) == keys.get(i) {
            *from += 1;
        }
        start..*from
    };
    (0..keys.len()).map(range).collect()
}

impl Operator for Join {
    fn step(&mut self, context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let chunks = |port: usize| inputs.get(port).map_or(&[][..], Vec::as_slice);
        let left = self.left.delta(context, chunks(0))?;
        let right = self.right.delta(context, chunks(1))?;
        let mut out = Vec::new();
        self.matches(context, &right, false, None, &mut out)?;
        self.right.insert(&self.label, &right)?;
        let also = self.right.is_shared().then_some(&*right);
        self.matches(context, &left, true, also, &mut out)?;
        self.left.insert(&self.label, &left)?;
        Ok(out)
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        self.left.spine().into_iter().chain(self.right.spine()).collect()
    }
}
