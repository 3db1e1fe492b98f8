//! Window functions: for each partition that a step touches, what its rows were with their results goes and what they are
//! comes, where these differ.
//!
//! Invariants:
//! 1. A partition's output is a function of its rows of positive weight alone; a row of weight n is n rows, next to each other.
//! 2. Rows that are peers in the order stand in the order of their other columns, so that ROW_NUMBER and LAG are determined.
//!
//! Known limits: a partition that a step touches is read and evaluated whole, before and after, and stands in memory meanwhile;
//! without partition columns one worker has all rows.
//!
//! Parts: `frames` (rows, peers and the frame of each), `functions` (columns of results).

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use backstay_storage::Result as StorageResult;
use backstay_storage::spine::{Cursor, RowBatch, Spine};

use super::linear::render;
use super::ordered::{OrderedRows, Update, order_key, partitions};
use super::{OpenRole, Operator, StepContext};
use crate::circuit::delta::{Delta, batch, take_columns};
use crate::circuit::error::{CircuitError, EvalError, Result};
use crate::circuit::plan::{Node, Window};
use crate::circuit::row::{RowCodec, normalise};

mod frames;
mod functions;

use frames::Partitions;
use functions::Evaluated;

/// Rows from which on the partitions read so far are evaluated.
const EVALUATED_ROWS: usize = 65_536;

/// The operator; see the module.
pub struct WindowOperator {
    label: String,
    schema: SchemaRef,
    input: SchemaRef,
    window: Window,
    ordered: OrderedRows,
    result_codec: RowCodec,
}

/// Rows of partitions, one after the other, each as often as it stands there.
#[derive(Default)]
struct Stretch {
    rows: RowBatch,
    partitions: Partitions,
}

impl Stretch {
    fn read(&mut self, cursor: &mut Cursor, partition: &[u8]) -> StorageResult<()> {
        cursor.seek(partition)?;
        while cursor.valid() && cursor.key() == partition {
            let row = cursor.value();
            for _ in 0..cursor.weight() {
                let before = self.partitions.in_partition().then(|| order_key(self.rows.key(self.rows.len() - 1)));
                self.partitions.push(before == Some(order_key(row)));
                self.rows.push(row, &[], 1);
            }
            cursor.next()?;
        }
        self.partitions.end();
        Ok(())
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.partitions = Partitions::default();
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
        Ok(Self {
            label: node.label.clone(),
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
            let Evaluated { column, overflowed } = functions::evaluate(function, &columns, &stretch.partitions)
                .map_err(CircuitError::arrow(&self.label))?;
            results.push(normalise(&column));
            failed.extend(overflowed.into_iter().map(|row| (i, row)));
        }
        if let Some(context) = report {
            let rows =
                batch(&self.input, columns.clone(), stretch.rows.len()).map_err(CircuitError::arrow(&self.label))?;
            failed.into_iter().try_for_each(|(function, row)| self.overflow(context, &rows, function, row))?;
        }
        Ok((columns, results))
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
        for (olds, news) in old.partitions.ranges().zip(new.partitions.ranges()) {
            let (mut i, mut j) = (olds.start, news.start);
            while i < olds.end || j < news.end {
                let order = match (i < olds.end, j < news.end) {
                    (true, true) => old.rows.key(i).cmp(new.rows.key(j)),
                    (true, false) => std::cmp::Ordering::Less,
                    _ => std::cmp::Ordering::Greater,
                };
                if !(order.is_eq() && old_encoded.get(i) == new_encoded.get(j)) {
                    leaving.extend(order.is_le().then_some(i as u32));
                    coming.extend(order.is_ge().then_some(j as u32));
                }
                i += usize::from(order.is_le());
                j += usize::from(order.is_ge());
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
        for rows in partitions(&delta) {
            let partition = delta.key(rows.start);
            old.read(&mut before, partition).map_err(storage(&self.label))?;
            new.read(&mut after, partition).map_err(storage(&self.label))?;
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
