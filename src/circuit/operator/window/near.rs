//! The rows whose results a step can change where frames end at distances: those of which a frame has a changed row in it.
//!
//! A row's frame goes from `start(key)` to `end(key)` of its order key, and both grow with it. So a change at the key k reaches the rows
//! from the inverse of `end` at k to the inverse of `start` at k, and the frames of these go from `start` of the first to `end` of the last.
//! All keys are compared as they are encoded, in the window's order.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use backstay_storage::spine::RowBatch;
use datafusion_physical_expr::PhysicalExpr;

use super::frames::FrameEnds;
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::operator::ordered::{order_key, partitions};
use crate::circuit::plan::{Distance, FrameBound, Node, SortColumn, Window};
use crate::circuit::row::{EncodedRows, RowCodec, normalise};

/// What is read of a partition: a row of the delta that lies in it and, if not all, from where to where.
pub(super) type Stretches<'a> = Vec<(usize, Option<&'a Stretch>)>;

/// Rows of a partition, by their encoded order keys, ends included.
#[derive(Debug)]
pub(super) struct Stretch {
    /// A row of the delta that lies in the partition.
    pub(super) row: usize,
    /// Rows whose results may have changed.
    pub(super) shown: (Vec<u8>, Vec<u8>),
    /// These and the rows of their frames.
    pub(super) read: (Vec<u8>, Vec<u8>),
}

/// Evaluates distances from order keys.
pub(super) struct Distances {
    label: String,
    column: usize,
    codec: RowCodec,
    schema: SchemaRef,
}

impl Distances {
    /// Nothing, if no row's results depend on order keys at a distance.
    pub(super) fn new(node: &Node, input: &SchemaRef, window: &Window) -> Result<Option<Self>> {
        let is_distance = |bound: &FrameBound| matches!(bound, FrameBound::Distance(_));
        let mut frames = window.functions.iter().map(|f| &f.frame);
        if !frames.any(|frame| is_distance(&frame.start) || is_distance(&frame.end)) {
            return Ok(None);
        }
        let [SortColumn { column, options }] = window.order.as_slice() else {
            return Err(CircuitError::plan(&node.label, "RANGE with a distance needs one order column"));
        };
        let data_type: DataType = input.field(*column).data_type().clone();
        Ok(Some(Self {
            label: node.label.clone(),
            column: *column,
            codec: RowCodec::ordered(&[(data_type.clone(), *options)])?,
            schema: Arc::new(Schema::new(vec![Field::new("key", data_type, true)])),
        }))
    }

    /// The ends at a distance of these rows' frames.
    pub(super) fn ends(&self, distance: &Distance, columns: &[ArrayRef]) -> Result<FrameEnds> {
        let own = &columns[self.column];
        let beyond = match &distance.beyond {
            Some(beyond) => Some(self.evaluated(beyond, own)?.as_boolean().clone()),
            None => None,
        };
        Ok(FrameEnds { keys: self.encoded(&distance.bound, own)?, beyond })
    }

    /// The order keys that an expression gives for others.
    fn encoded(&self, expr: &Arc<dyn PhysicalExpr>, keys: &ArrayRef) -> Result<EncodedRows> {
        self.codec.encode(&[normalise(&self.evaluated(expr, keys)?)], keys.len())
    }

    fn evaluated(&self, expr: &Arc<dyn PhysicalExpr>, keys: &ArrayRef) -> Result<ArrayRef> {
        let arrow = CircuitError::arrow(&self.label);
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::clone(keys)]).map_err(arrow)?;
        let column = expr.evaluate(&batch).and_then(|value| value.into_array(keys.len()));
        column.map_err(|e| CircuitError::arrow(&self.label)(e.into()))
    }

    /// The stretches that a delta touches, in its order, if all functions are local.
    pub(super) fn near(&self, window: &Window, delta: &RowBatch) -> Result<Vec<Stretch>> {
        let key = |row: usize| order_key(delta.value(row));
        let changed = self.decoded((0..delta.len()).map(key))?;
        let mut shown: Vec<(Vec<u8>, Vec<u8>)> =
            (0..delta.len()).map(|row| (key(row).to_vec(), key(row).to_vec())).collect();
        for function in &window.functions {
            if let Some(reached) = self.inverse(&function.frame.end, &changed)? {
                shown.iter_mut().enumerate().for_each(|(i, (from, _))| widen(from, reached.get(i), |a, b| a < b));
            }
            if let Some(reached) = self.inverse(&function.frame.start, &changed)? {
                shown.iter_mut().enumerate().for_each(|(i, (_, to))| widen(to, reached.get(i), |a, b| a > b));
            }
        }
        let mut read = shown.clone();
        let first = self.decoded(shown.iter().map(|(from, _)| from.as_slice()))?;
        let last = self.decoded(shown.iter().map(|(_, to)| to.as_slice()))?;
        for function in &window.functions {
            if let FrameBound::Distance(distance) = &function.frame.start {
                let starts = self.encoded(&distance.bound, &first)?;
                read.iter_mut().enumerate().for_each(|(i, (from, _))| widen(from, starts.get(i), |a, b| a < b));
            }
            if let FrameBound::Distance(distance) = &function.frame.end {
                let ends = self.encoded(&distance.bound, &last)?;
                read.iter_mut().enumerate().for_each(|(i, (_, to))| widen(to, ends.get(i), |a, b| a > b));
            }
        }
        let mut near: Vec<Stretch> = Vec::new();
        let mut parts = shown.into_iter().zip(read);
        for rows in partitions(delta) {
            let first = near.len();
            for (row, (shown, read)) in rows.zip(parts.by_ref()) {
                match near.get_mut(first..).and_then(<[Stretch]>::last_mut) {
                    // Keys ascend, and what they reach with them.
                    Some(last) if read.0 <= last.read.1 => {
                        last.shown.1 = shown.1.max(std::mem::take(&mut last.shown.1));
                        last.read.1 = read.1.max(std::mem::take(&mut last.read.1));
                    }
                    _ => near.push(Stretch { row, shown, read }),
                }
            }
        }
        Ok(near)
    }

    /// For each key the key of the row whose frame ends there; nothing, if it is the key itself.
    fn inverse(&self, bound: &FrameBound, keys: &ArrayRef) -> Result<Option<EncodedRows>> {
        match bound {
            FrameBound::Distance(distance) => {
                distance.inverse.as_ref().map(|inverse| self.encoded(inverse, keys)).transpose()
            }
            FrameBound::Unbounded | FrameBound::Offset(_) => Ok(None),
        }
    }

    fn decoded<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<ArrayRef> {
        let mut columns = self.codec.decode(keys)?;
        columns.pop().ok_or_else(|| CircuitError::RowFormat("an order key without a column".to_owned()))
    }
}

fn widen(end: &mut Vec<u8>, other: &[u8], is_wider: impl Fn(&[u8], &[u8]) -> bool) {
    if is_wider(other, end) {
        other.clone_into(end);
    }
}
