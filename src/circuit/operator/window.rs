//! Window functions: for each partition that a step touches, what its rows were with their results goes and what they are
//! comes, where these differ.
//!
//! Invariants:
//! 1. A partition's output is a function of its rows of positive weight alone; a row of weight n is n rows, next to each other.
//! 2. Rows that are peers in the order stand in the order of their other columns, so that ROW_NUMBER and LAG are determined.
//!
//! Where the results of all functions depend on rows at known distances in the order alone, a step reads the rows around those
//! that it changes (`near`). Known limits: otherwise a partition that a step touches is read and evaluated whole, before and after,
//! and stands in memory meanwhile; without partition columns one worker has all rows.
//!
//! Parts: `frames` (rows, peers and the frame of each), `functions` (columns of results), `near` (which rows a step touches).

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use backstay_storage::Result as StorageResult;
use backstay_storage::spine::{Cursor, RowBatch, Spine};

use super::linear::render;
use super::ordered::{OrderedRows, Update, in_step, order_key, partitions};
use super::{OpenRole, Operator, StepContext};
use crate::circuit::delta::{Delta, batch, take_columns};
use crate::circuit::error::{CircuitError, EvalError, Result};
use crate::circuit::plan::{FrameBound, Node, Window, WindowFunction, WindowKind};
use crate::circuit::row::{RowCodec, normalise};

mod frames;
mod functions;
mod near;

use frames::{OrderKeys, Partitions};
use functions::Evaluated;
use near::{Distances, Stretches};

/// Rows from which on the partitions read so far are evaluated.
const EVALUATED_ROWS: usize = 65_536;

/// The operator; see the module.
pub struct WindowOperator {
    label: String,
    schema: SchemaRef,
    input: SchemaRef,
    window: Window,
    ordered: OrderedRows,
    /// If a frame has an end at a distance.
    distances: Option<Distances>,
    /// Whether a changed row changes near rows only.
    is_local: bool,
    result_codec: RowCodec,
}

/// Rows of partitions, one after the other, each as often as it stands there.
#[derive(Default)]
struct Stretch {
    rows: RowBatch,
    partitions: Partitions,
    /// For each partition, or stretch of one, the rows whose results are right: the others are there for the frames of these.
    shown: Vec<Range<usize>>,
}

impl Stretch {
    /// Reads a partition, or the part of it that `within` says.
    fn read(&mut self, cursor: &mut Cursor, partition: &[u8], within: Option<&near::Stretch>) -> StorageResult<()> {
        let first = self.rows.len();
        match within {
            Some(stretch) => cursor.seek_row(partition, &stretch.read.0)?,
            None => cursor.seek(partition)?,
        }
        while cursor.valid() && cursor.key() == partition {
            let row = cursor.value();
            if within.is_some_and(|stretch| order_key(row) > stretch.read.1.as_slice()) {
                break;
            }
            for _ in 0..cursor.weight() {
                let before = self.partitions.in_partition().then(|| order_key(self.rows.key(self.rows.len() - 1)));
                self.partitions.push(before == Some(order_key(row)));
                self.rows.push(row, &[], 1);
            }
            cursor.next()?;
        }
        self.partitions.end();
        let (mut start, mut end) = (first, self.rows.len());
        if let Some(near::Stretch { shown: (from, to), .. }) = within {
            let key = |row: usize| order_key(self.rows.key(row));
            start = (first..end).find(|&row| key(row) >= from.as_slice()).unwrap_or(end);
            end = (start..end).find(|&row| key(row) > to.as_slice()).unwrap_or(end);
        }
        self.shown.push(start..end);
        Ok(())
    }

    fn is_shown(&self, row: usize) -> bool {
        let stretch = self.shown.partition_point(|rows| rows.end <= row);
        self.shown.get(stretch).is_some_and(|rows| rows.contains(&row))
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.partitions = Partitions::default();
        self.shown.clear();
    }
}

impl WindowOperator {
    /// The operator of a window node over rows of `input`.
    ///
    /// # Errors
    /// Functions that are not supported; types without a row encoding; a spine that does not open.
    pub fn new(node: &Node, input: &SchemaRef, window: &Window, open: &mut OpenRole<'_>) -> Result<Self> {
        let results: Vec<DataType> = window.functions.iter().map(|f| f.result.clone()).collect();
        for function in &window.functions {
            functions::check(function, input).map_err(|message| CircuitError::plan(&node.label, message))?;
        }
        let is_local = window.functions.iter().all(WindowFunction::is_local);
        Ok(Self {
            label: node.label.clone(),
            distances: Distances::new(node, input, window)?,
            is_local,
            schema: Arc::clone(&node.schema),
            input: Arc::clone(input),
            window: window.clone(),
            ordered: OrderedRows::new(input, &window.partition, &window.order, open)?,
            result_codec: RowCodec::new(&results)?,
        })
    }

    /// The columns of a stretch and of its results.
    fn evaluate(&self, stretch: &Stretch, report: Option<&mut StepContext>) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let columns = self.ordered.decode(stretch.rows.iter().map(|(row, _, _)| row))?;
        let mut results = Vec::with_capacity(self.window.functions.len());
        let mut failed = Vec::new();
        for (i, function) in self.window.functions.iter().enumerate() {
            let frames = self.frames(function, &columns, stretch)?;
            let Evaluated { column, overflowed } =
                functions::evaluate(function, &columns, &stretch.partitions, &frames)
                    .map_err(CircuitError::arrow(&self.label))?;
            results.push(normalise(&column));
            failed.extend(overflowed.into_iter().filter(|&row| stretch.is_shown(row)).map(|row| (i, row)));
        }
        if let Some(context) = report {
            let rows =
                batch(&self.input, columns.clone(), stretch.rows.len()).map_err(CircuitError::arrow(&self.label))?;
            failed.into_iter().try_for_each(|(function, row)| self.overflow(context, &rows, function, row))?;
        }
        Ok((columns, results))
    }

    /// The frames of a function's rows, if it looks at them.
    fn frames(&self, function: &WindowFunction, columns: &[ArrayRef], stretch: &Stretch) -> Result<Vec<Range<usize>>> {
        if !matches!(function.kind, WindowKind::Nth(_) | WindowKind::Aggregate(_)) {
            return Ok(Vec::new());
        }
        let ends = |bound: &FrameBound| match (bound, &self.distances) {
            (FrameBound::Distance(distance), Some(distances)) => distances.ends(distance, columns).map(Some),
            _ => Ok(None),
        };
        let (starts, ends) = (ends(&function.frame.start)?, ends(&function.frame.end)?);
        Ok(stretch.partitions.frames(&function.frame, &OrderKeys { rows: &stretch.rows, starts, ends }))
    }

    fn overflow(&self, context: &mut StepContext, rows: &RecordBatch, function: usize, row: usize) -> Result<()> {
        let field = self.schema.field(self.input.fields().len() + function);
        context.fail(EvalError {
            label: self.label.clone(),
            expression: field.name().clone(),
            message: format!("the result does not fit {}", field.data_type()),
            row: render(&rows.slice(row, 1)),
            rows: 1,
        })
    }

    /// Appends what changed between two readings of the same partitions.
    fn emit(&self, context: &mut StepContext, old: &Stretch, new: &Stretch, out: &mut Vec<Delta>) -> Result<()> {
        let (old_columns, old_results) = self.evaluate(old, None)?;
        let (new_columns, new_results) = self.evaluate(new, Some(context))?;
        let old_encoded = self.result_codec.encode(&old_results, old.rows.len())?;
        let new_encoded = self.result_codec.encode(&new_results, new.rows.len())?;
        let (mut leaving, mut coming): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        for (olds, news) in old.shown.iter().zip(&new.shown) {
            let compare = |i: usize, j: usize| old.rows.key(i).cmp(new.rows.key(j));
            for places in in_step(olds.clone(), news.clone(), compare) {
                if let (Some(i), Some(j)) = places
                    && old_encoded.get(i) == new_encoded.get(j)
                {
                    continue;
                }
                leaving.extend(places.0.map(|i| i as u32));
                coming.extend(places.1.map(|j| j as u32));
            }
        }
        let sides = [(leaving, old_columns, old_results, -1), (coming, new_columns, new_results, 1)];
        for (rows, mut columns, results, weight) in sides {
            if !rows.is_empty() {
                columns.extend(results);
                let weights = vec![weight; rows.len()];
                let delta = take_columns(&columns, &UInt32Array::from(rows))
                    .and_then(|columns| Delta::new(&self.schema, columns, weights));
                out.push(delta.map_err(CircuitError::arrow(&self.label))?);
            }
        }
        Ok(())
    }
}

impl Operator for WindowOperator {
    fn step(&mut self, context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let chunks: Vec<Delta> = inputs.into_iter().flatten().collect();
        let storage = CircuitError::storage;
        let Some(Update { delta, mut before, mut after }) = self.ordered.update(&chunks, &self.label)? else {
            return Ok(Vec::new());
        };
        let mut out = Vec::new();
        let (mut old, mut new) = (Stretch::default(), Stretch::default());
        let near = match &self.distances {
            Some(distances) if self.is_local => Some(distances.near(&self.window, &delta)?),
            _ => None,
        };
        let whole = || partitions(&delta).map(|rows| (rows.start, None)).collect::<Vec<_>>();
        let stretches: Stretches<'_> =
            near.as_ref().map_or_else(whole, |near| near.iter().map(|s| (s.row, Some(s))).collect());
        for (row, within) in stretches {
            let partition = delta.key(row);
            old.read(&mut before, partition, within).map_err(storage(&self.label))?;
            new.read(&mut after, partition, within).map_err(storage(&self.label))?;
            if old.rows.len() + new.rows.len() >= EVALUATED_ROWS {
                self.emit(context, &old, &new, &mut out)?;
                old.clear();
                new.clear();
            }
        }
        self.emit(context, &old, &new, &mut out)?;
        Ok(out)
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        vec![&mut self.ordered.rows]
    }
}

#[cfg(test)]
mod tests;
