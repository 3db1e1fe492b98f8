//! Sessions: the rows of a partition whose times follow each other within a gap, each row with the start and the end of its session.
//!
//! A session ends a gap after its last row, and a row at that very time still belongs to it.
//!
//! Invariants:
//! 1. The state is the output: a spine row is vnode ‖ partition key ‖ end of the session → time ‖ the other columns, with the row's weight.
//!    So the sessions of a partition stand in the order of their times, and the first row of one says where it starts.
//! 2. Whatever stands in the state and does not cancel out is a row, also one that was deleted before it came.
//! 3. A step reads the sessions that a changed row lies in or touches, whole, and no other. Whatever it changes, before and after, ends at or
//!    behind the time of a changed row: what ends below a watermark is final ([`floors`](crate::circuit)).
//!
//! Known limits: a session that grows puts its rows out anew, with another end; it stands in memory meanwhile.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use backstay_storage::Result as StorageResult;
use backstay_storage::spine::{Cursor, Discipline, RowBatch, Spine};

use super::ordered::{in_step, partitions};
use super::{OpenRole, Operator, StateKeys, StepContext, pick};
use crate::circuit::delta::{Delta, batch};
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::{Node, Session};
use crate::circuit::row::{RowCodec, normalise};

/// Rows in one output chunk, about.
const OUTPUT_ROWS: usize = 16_384;

/// The operator; see the module.
pub struct SessionOperator {
    label: String,
    schema: SchemaRef,
    session: Session,
    partition_codec: RowCodec,
    /// All columns but the time, ascending.
    rest: Vec<usize>,
    rest_codec: RowCodec,
    rows: Spine,
}

/// A time as the row format has it, so that a watermark's floor compares with it.
const TIME_BYTES: usize = 9;

fn encoded(time_us: i64) -> [u8; TIME_BYTES] {
    let mut out = [1; TIME_BYTES];
    out[1..].copy_from_slice(&(time_us ^ i64::MIN).to_be_bytes());
    out
}

/// The time at the front; of damaged bytes the first one.
fn time_of(bytes: &[u8]) -> i64 {
    bytes.get(1..TIME_BYTES).and_then(|b| b.try_into().ok()).map_or(i64::MIN, |b| i64::from_be_bytes(b) ^ i64::MIN)
}

/// Start and end.
type Span = (i64, i64);

/// Rows of one partition in the order of time, with their sessions.
#[derive(Default)]
struct Sessions {
    /// Rows as the spine has them as values.
    rows: RowBatch,
    spans: Vec<Span>,
}

impl Sessions {
    fn clear(&mut self) {
        self.rows.clear();
        self.spans.clear();
    }

    fn push(&mut self, row: &[u8], weight: i64, span: Span) {
        self.rows.push(row, &[], weight);
        self.spans.push(span);
    }

    /// Finds the sessions of rows that were added without.
    fn divide(&mut self, gap_us: i64) {
        let mut first = 0;
        for i in 0..self.rows.len() {
            let end = time_of(self.rows.key(i)).saturating_add(gap_us);
            let is_last = i + 1 == self.rows.len() || time_of(self.rows.key(i + 1)) > end;
            if is_last {
                let start = time_of(self.rows.key(first));
                self.spans.resize(i + 1, (start, end));
                first = i + 1;
            }
        }
    }
}

/// What a step changes.
#[derive(Default)]
struct Changes {
    state: RowBatch,
    out: Sessions,
    key: Vec<u8>,
}

impl Changes {
    fn state(&mut self, partition: &[u8], end: i64, row: &[u8], weight: i64) {
        self.key.clear();
        self.key.extend_from_slice(partition);
        self.key.extend_from_slice(&encoded(end));
        self.state.push(&self.key, row, weight);
    }

    /// Adds the difference of a partition's rows.
    fn add(&mut self, partition: &[u8], old: &Sessions, new: &Sessions) {
        let compare = |i: usize, j: usize| old.rows.key(i).cmp(new.rows.key(j));
        for (i, j) in in_step(0..old.rows.len(), 0..new.rows.len(), compare) {
            let before = i.map(|i| (old.rows.key(i), old.rows.weight(i), old.spans[i]));
            let after = j.map(|j| (new.rows.key(j), new.rows.weight(j), new.spans[j]));
            match (before, after) {
                (Some((row, was, span)), Some((_, is, same))) if span == same => {
                    if was != is {
                        self.out.push(row, is.wrapping_sub(was), span);
                        self.state(partition, span.1, row, is.wrapping_sub(was));
                    }
                }
                _ => {
                    if let Some((row, was, span)) = before {
                        self.out.push(row, was.wrapping_neg(), span);
                        self.state(partition, span.1, row, was.wrapping_neg());
                    }
                    if let Some((row, is, span)) = after {
                        self.out.push(row, is, span);
                        self.state(partition, span.1, row, is);
                    }
                }
            }
        }
    }
}

impl SessionOperator {
    /// The operator of a session node over rows of `input`.
    ///
    /// # Errors
    /// A time that is no TIMESTAMP; types without a row encoding; a spine that does not open.
    pub fn new(node: &Node, input: &SchemaRef, session: &Session, open: &mut OpenRole<'_>) -> Result<Self> {
        let types = |columns: &[usize]| -> Vec<DataType> {
            columns.iter().map(|&i| input.field(i).data_type().clone()).collect()
        };
        if *input.field(session.time).data_type() != Session::TIME {
            return Err(CircuitError::plan(&node.label, "a session needs a TIMESTAMP"));
        }
        let rest: Vec<usize> = (0..input.fields().len()).filter(|&i| i != session.time).collect();
        Ok(Self {
            label: node.label.clone(),
            schema: Arc::clone(&node.schema),
            session: session.clone(),
            partition_codec: RowCodec::new(&types(&session.partition))?,
            rest_codec: RowCodec::new(&types(&rest))?,
            rest,
            rows: open("rows", Discipline::Weighted)?,
        })
    }

    /// The consolidated rows of a step: vnode ‖ partition key → time ‖ the other columns. Rows without a time are in no session.
    fn delta(&self, chunks: &[Delta]) -> Result<RowBatch> {
        let mut out = RowBatch::new();
        let mut value = Vec::new();
        for chunk in chunks {
            let columns: Vec<ArrayRef> = chunk.rows.columns().iter().map(normalise).collect();
            let times = columns[self.session.time].as_primitive::<TimestampMicrosecondType>();
            let rest = self.rest_codec.encode(&pick(&columns, &self.rest), chunk.len())?;
            let partition = pick(&columns, &self.session.partition);
            let mut keys = StateKeys::new(&self.partition_codec, &partition, chunk.len())?;
            for (i, (time, &weight)) in times.iter().zip(&chunk.weights).enumerate() {
                let Some(time) = time else { continue };
                value.clear();
                value.extend_from_slice(&encoded(time));
                value.extend_from_slice(rest.get(i));
                out.push(keys.state(i), &value, weight);
            }
        }
        out.consolidate(Discipline::Weighted);
        Ok(out)
    }

    /// Reads the sessions that the changed rows of a partition touch. Partitions must be asked for in ascending order.
    fn touched(
        &self,
        cursor: &mut Cursor,
        delta: &RowBatch,
        rows: Range<usize>,
        old: &mut Sessions,
    ) -> StorageResult<()> {
        old.clear();
        let partition = delta.key(rows.start);
        let (mut from, mut session) = (Vec::new(), Vec::new());
        for (n, i) in rows.enumerate() {
            let time = time_of(delta.value(i));
            from.clear();
            from.extend_from_slice(partition);
            from.extend_from_slice(&encoded(time));
            if n == 0 || (cursor.valid() && cursor.key() < from.as_slice()) {
                cursor.seek(&from)?;
            }
            let last = time.saturating_add(self.session.gap_us);
            while cursor.valid() && cursor.key().starts_with(partition) && time_of(cursor.value()) <= last {
                session.clear();
                session.extend_from_slice(cursor.key());
                let span = (time_of(cursor.value()), time_of(&session[partition.len()..]));
                while cursor.valid() && cursor.key() == session {
                    old.push(cursor.value(), cursor.weight(), span);
                    cursor.next()?;
                }
            }
        }
        Ok(())
    }

    /// The rows of output.
    fn emit(&self, changes: &Sessions, out: &mut Vec<Delta>) -> Result<()> {
        for start in (0..changes.rows.len()).step_by(OUTPUT_ROWS) {
            let range = start..changes.rows.len().min(start + OUTPUT_ROWS);
            let row = |i: usize| changes.rows.key(i);
            let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
            if !self.rest.is_empty() {
                let rest = range.clone().map(|i| row(i).get(TIME_BYTES..).unwrap_or_default());
                columns = self.rest_codec.decode(rest)?;
            }
            let times = |time: &dyn Fn(usize) -> i64| -> ArrayRef {
                Arc::new(TimestampMicrosecondArray::from_iter_values(range.clone().map(time)))
            };
            columns.insert(self.session.time, times(&|i| time_of(row(i))));
            columns.push(times(&|i| changes.spans[i].0));
            columns.push(times(&|i| changes.spans[i].1));
            let rows = batch(&self.schema, columns, range.len()).map_err(CircuitError::arrow(&self.label))?;
            out.push(Delta { rows, weights: range.clone().map(|i| changes.rows.weight(i)).collect() });
        }
        Ok(())
    }
}

/// The sum of two lists of rows, both in their order.
fn merge(old: &Sessions, delta: &RowBatch, changed: Range<usize>, new: &mut Sessions) {
    new.clear();
    let compare = |i: usize, j: usize| old.rows.key(i).cmp(delta.value(j));
    for places in in_step(0..old.rows.len(), changed, compare) {
        let row = match places {
            (Some(i), _) => old.rows.key(i),
            (None, Some(j)) => delta.value(j),
            (None, None) => continue,
        };
        let weight = places.0.map_or(0, |i| old.rows.weight(i)).wrapping_add(places.1.map_or(0, |j| delta.weight(j)));
        if weight != 0 {
            new.rows.push(row, &[], weight);
        }
    }
}

impl Operator for SessionOperator {
    fn step(&mut self, _context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let chunks: Vec<Delta> = inputs.into_iter().flatten().collect();
        let delta = self.delta(&chunks)?;
        if delta.is_empty() {
            return Ok(Vec::new());
        }
        let storage = CircuitError::storage;
        let mut cursor = self.rows.cursor().map_err(storage(&self.label))?;
        let (mut old, mut new, mut changes) = (Sessions::default(), Sessions::default(), Changes::default());
        let mut out = Vec::new();
        for rows in partitions(&delta) {
            self.touched(&mut cursor, &delta, rows.clone(), &mut old).map_err(storage(&self.label))?;
            merge(&old, &delta, rows.clone(), &mut new);
            new.divide(self.session.gap_us);
            changes.add(delta.key(rows.start), &old, &new);
            if changes.out.rows.len() >= OUTPUT_ROWS {
                self.emit(&changes.out, &mut out)?;
                changes.out.clear();
            }
        }
        self.emit(&changes.out, &mut out)?;
        let mut state = changes.state;
        state.consolidate(Discipline::Weighted);
        self.rows.insert_batch(&state).map_err(storage(&self.label))?;
        Ok(out)
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        vec![&mut self.rows]
    }
}

#[cfg(test)]
mod tests;
