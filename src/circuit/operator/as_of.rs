//! ASOF join: each left row with the right row of its key whose time is nearest on one side.
//!
//! Invariants:
//! 1. A row of either spine is vnode ‖ join key ‖ time ‖ side → the row. Times are encoded in the direction of the search, and the byte
//!    `side` orders the sides at equal times, so that a left row's match is the last right row that stands before it.
//! 2. A *point* is a time at which a right row of positive weight stands; the match is the smallest such row of the last point.
//! 3. With M the matches before a step and M' those after its right rows, the delta is L × (M' − M) + dL × M'. Between a changed point and the next
//!    point, before or after the step, all left rows had one match and have one now: only these rows are read.
//!
//! Known limit: a right row that comes late changes all left rows up to the next point, and these are put out anew.

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::SchemaRef;
use backstay_storage::Result as StorageResult;
use backstay_storage::spine::{Cursor, Discipline, RowBatch, Spine};

use super::join::OUTPUT_ROWS;
use super::ordered::partitions;
use super::{OpenRole, Operator, StateKeys, StepContext, any_null, pick};
use crate::circuit::delta::Delta;
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::{AsOf, Node, TimeSide};
use crate::circuit::row::{RowCodec, normalise};

/// The operator; see the module.
pub struct AsOfJoin {
    label: String,
    schema: SchemaRef,
    left: Side,
    right: Side,
    /// The right columns of a left row without a match; nothing, if it is not put out.
    unmatched: Option<Vec<u8>>,
}

/// One input of the join.
struct Side {
    keys: Vec<usize>,
    time: usize,
    key_codec: RowCodec,
    time_codec: RowCodec,
    row_codec: RowCodec,
    /// Where it stands at a time that both sides have.
    side: u8,
    rows: Spine,
}

/// Bytes of a delta's value before the row: the length of vnode and join key in the key.
const PREFIX_BYTES: usize = 4;

/// A delta's row: vnode and join key, and the row.
fn parts<'a>(key: &'a [u8], value: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let (length, row) = value.split_at(PREFIX_BYTES.min(value.len()));
    let length = length.try_into().map_or(0, u32::from_be_bytes) as usize;
    (key.get(..length).unwrap_or_default(), row)
}

impl Side {
    fn new(schema: &SchemaRef, keys: &[usize], time: usize, plan: &AsOf, side: u8, rows: Spine) -> Result<Self> {
        let types: Vec<_> = keys.iter().map(|&i| schema.field(i).data_type().clone()).collect();
        let time_type = [schema.field(time).data_type().clone()];
        Ok(Self {
            keys: keys.to_vec(),
            time,
            key_codec: RowCodec::new(&types)?,
            time_codec: match plan.side {
                TimeSide::Before => RowCodec::new(&time_type)?,
                TimeSide::After => RowCodec::descending(&time_type)?,
            },
            row_codec: RowCodec::of_schema(schema)?,
            side,
            rows,
        })
    }

    /// The consolidated rows of this side's delta, and those that have a NULL in their key or time, which match nothing.
    fn delta(&self, chunks: &[Delta]) -> Result<(RowBatch, RowBatch)> {
        let (mut out, mut without) = (RowBatch::new(), RowBatch::new());
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let columns: Vec<ArrayRef> = chunk.rows.columns().iter().map(normalise).collect();
            let (key_columns, time) = (pick(&columns, &self.keys), pick(&columns, &[self.time]));
            let nulls = any_null(&[key_columns.clone(), time.clone()].concat());
            let rows = self.row_codec.encode(&columns, chunk.len())?;
            let times = self.time_codec.encode(&time, chunk.len())?;
            let mut keys = StateKeys::new(&self.key_codec, &key_columns, chunk.len())?;
            for (i, &weight) in chunk.weights.iter().enumerate() {
                if nulls.as_ref().is_some_and(|n| n.is_null(i)) {
                    without.push(rows.get(i), &[], weight);
                    continue;
                }
                key.clear();
                key.extend_from_slice(keys.state(i));
                value.clear();
                value.extend_from_slice(&(key.len() as u32).to_be_bytes());
                value.extend_from_slice(rows.get(i));
                key.extend_from_slice(times.get(i));
                key.push(self.side);
                out.push(&key, &value, weight);
            }
        }
        out.consolidate(Discipline::Weighted);
        without.consolidate(Discipline::Weighted);
        Ok((out, without))
    }

    /// Takes a delta into the state.
    fn insert(&mut self, delta: &RowBatch) -> StorageResult<()> {
        let mut rows = RowBatch::new();
        for i in 0..delta.len() {
            rows.push(delta.key(i), parts(delta.key(i), delta.value(i)).1, delta.weight(i));
        }
        self.rows.insert_batch(&rows)
    }
}

/// The last point of a join key at or before `bound`: its key, and its first row.
fn last_point(cursor: &mut Cursor, prefix: &[u8], bound: &[u8]) -> StorageResult<Option<(Vec<u8>, Vec<u8>)>> {
    cursor.seek_for_prev(bound)?;
    while cursor.valid() && cursor.key().starts_with(prefix) {
        let key = cursor.key().to_vec();
        let mut first = None;
        while cursor.valid() && cursor.key() == key {
            if cursor.weight() > 0 {
                first = Some(cursor.value().to_vec());
            }
            cursor.prev()?;
        }
        if let Some(row) = first {
            return Ok(Some((key, row)));
        }
    }
    Ok(None)
}

/// The key of the first point of a join key behind `key`.
fn next_point(cursor: &mut Cursor, prefix: &[u8], key: &[u8]) -> StorageResult<Option<Vec<u8>>> {
    cursor.seek(key)?;
    while cursor.valid() && cursor.key().starts_with(prefix) {
        if cursor.weight() > 0 && cursor.key() != key {
            return Ok(Some(cursor.key().to_vec()));
        }
        cursor.next()?;
    }
    Ok(None)
}

impl AsOfJoin {
    /// The operator of an ASOF join over inputs of these schemas.
    ///
    /// # Errors
    /// Keys or times of different types; types without a row encoding; spines that do not open.
    pub fn new(node: &Node, left: &SchemaRef, right: &SchemaRef, plan: &AsOf, open: &mut OpenRole<'_>) -> Result<Self> {
        let (before, at_equal) = if plan.takes_equal { (2, 1) } else { (0, 1) };
        let spine = open("left", Discipline::Weighted)?;
        let left = Side::new(left, &plan.left_keys, plan.left_time, plan, before, spine)?;
        let nulls: Vec<ArrayRef> = right.fields().iter().map(|f| new_null_array(f.data_type(), 1)).collect();
        let spine = open("right", Discipline::Weighted)?;
        let right = Side::new(right, &plan.right_keys, plan.right_time, plan, at_equal, spine)?;
        let types = |side: &Side| [side.key_codec.types(), side.time_codec.types()].concat();
        if types(&left) != types(&right) {
            let message = format!("matches {:?} with {:?}", types(&left), types(&right));
            return Err(CircuitError::plan(&node.label, message));
        }
        let unmatched = match plan.keeps_unmatched {
            true => Some(right.row_codec.encode(&nulls, 1)?.get(0).to_vec()),
            false => None,
        };
        Ok(Self { label: node.label.clone(), schema: node.schema.clone(), left, right, unmatched })
    }

    /// Adds a left row with its match: a left row as the key of `pairs`, with the right columns as its value.
    fn add(
        &self,
        pairs: &mut RowBatch,
        left: &[u8],
        right: Option<&[u8]>,
        weight: i64,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        if let Some(right) = right.or(self.unmatched.as_deref()) {
            pairs.push(left, right, weight);
            if pairs.len() == OUTPUT_ROWS {
                self.emit(pairs, out)?;
            }
        }
        Ok(())
    }

    fn emit(&self, pairs: &mut RowBatch, out: &mut Vec<Delta>) -> Result<()> {
        let rows = &*pairs;
        if rows.is_empty() {
            return Ok(());
        }
        let mut columns = self.left.row_codec.decode((0..rows.len()).map(|i| rows.key(i)))?;
        columns.extend(self.right.row_codec.decode((0..rows.len()).map(|i| rows.value(i)))?);
        let weights = (0..rows.len()).map(|i| rows.weight(i)).collect();
        out.push(Delta::new(&self.schema, columns, weights).map_err(CircuitError::arrow(&self.label))?);
        pairs.clear();
        Ok(())
    }

    /// What the right rows change: left rows of before with their old match taken back, and with the new one.
    fn rematched(
        &self,
        delta: &RowBatch,
        before: &mut Cursor,
        after: &mut Cursor,
        pairs: &mut RowBatch,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let storage = CircuitError::storage;
        let mut lefts = self.left.rows.cursor().map_err(storage(&self.label))?;
        for changed in partitions(delta) {
            let key = delta.key(changed.start);
            let (prefix, _) = parts(key, delta.value(changed.start));
            let old = last_point(before, prefix, key).map_err(storage(&self.label))?;
            let new = last_point(after, prefix, key).map_err(storage(&self.label))?;
            let is_point = [&old, &new].into_iter().flatten().any(|(at, _)| at == key);
            let [old, new] = [old, new].map(|point| point.map(|(_, row)| row));
            if !is_point || old == new {
                continue;
            }
            let ends = [
                next_point(before, prefix, key).map_err(storage(&self.label))?,
                next_point(after, prefix, key).map_err(storage(&self.label))?,
            ];
            let end = ends.into_iter().flatten().min();
            lefts.seek(key).map_err(storage(&self.label))?;
            while lefts.valid()
                && lefts.key().starts_with(prefix)
                && end.as_ref().is_none_or(|end| lefts.key() < end.as_slice())
            {
                let weight = lefts.weight();
                self.add(pairs, lefts.value(), old.as_deref(), weight.wrapping_neg(), out)?;
                self.add(pairs, lefts.value(), new.as_deref(), weight, out)?;
                lefts.next().map_err(storage(&self.label))?;
            }
        }
        Ok(())
    }

    /// The left rows of a step with their matches.
    fn matched(&self, delta: &RowBatch, after: &mut Cursor, pairs: &mut RowBatch, out: &mut Vec<Delta>) -> Result<()> {
        for rows in partitions(delta) {
            let key = delta.key(rows.start);
            let (prefix, _) = parts(key, delta.value(rows.start));
            let found = last_point(after, prefix, key).map_err(CircuitError::storage(&self.label))?;
            for i in rows {
                let right = found.as_ref().map(|(_, row)| row.as_slice());
                self.add(pairs, parts(key, delta.value(i)).1, right, delta.weight(i), out)?;
            }
        }
        Ok(())
    }
}

impl Operator for AsOfJoin {
    fn step(&mut self, _context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let storage = CircuitError::storage;
        let chunks = |port: usize| inputs.get(port).map_or(&[][..], Vec::as_slice);
        let (left, without) = self.left.delta(chunks(0))?;
        let (right, _) = self.right.delta(chunks(1))?;
        let (mut pairs, mut out) = (RowBatch::new(), Vec::new());
        for i in 0..without.len() {
            self.add(&mut pairs, without.key(i), None, without.weight(i), &mut out)?;
        }
        let mut before = self.right.rows.cursor().map_err(storage(&self.label))?;
        self.right.insert(&right).map_err(storage(&self.label))?;
        let mut after = self.right.rows.cursor().map_err(storage(&self.label))?;
        self.rematched(&right, &mut before, &mut after, &mut pairs, &mut out)?;
        self.matched(&left, &mut after, &mut pairs, &mut out)?;
        self.left.insert(&left).map_err(storage(&self.label))?;
        self.emit(&mut pairs, &mut out)?;
        Ok(out)
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        vec![&mut self.left.rows, &mut self.right.rows]
    }
}
