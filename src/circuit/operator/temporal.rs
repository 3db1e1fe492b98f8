//! Temporal filters: a row is in the output while the step's clock is in `[enter, leave)`, two times that its columns give.
//!
//! State: the rows whose next time is still to come, by that time: vnode of the bounds' columns ‖ time ‖ row, weighted. A step takes out
//! the rows whose time has come by a read of the range before its clock, so that its work is what changes. A row whose end has passed is
//! forgotten; one that never ends is, once it is in.
//!
//! Invariants:
//! 1. The clock never goes back, so that a row's next time is always after the clock of the last step.
//! 2. What a change of a row does depends on the row and the clock alone, never on what came before it: weights add up, whichever
//!    worker and step sees which part.
//! 3. `next` holds, for each vnode, a time that is not later than its first row's. It is read from the spine at the start.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use backstay_storage::Result as StorageResult;
use backstay_storage::spine::{Cursor, Discipline, RowBatch, Spine};

use super::{OpenRole, Operator, StateKeys, StepContext, pick};
use crate::circuit::delta::{Delta, take_columns};
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::{Edge, Node, TimeBound};
use crate::circuit::row::{RowCodec, normalise};
use crate::circuit::vnode::VNODES;

/// Rows that are taken out of the state at a time.
const TAKEN_ROWS: usize = 16384;
/// No time: a row without a bound at this end.
const NEVER: i64 = i64::MAX;

/// The operator; see the module.
pub struct Temporal {
    label: String,
    schema: SchemaRef,
    bounds: Vec<TimeBound>,
    bound_columns: Vec<usize>,
    bound_codec: RowCodec,
    row_codec: RowCodec,
    /// Vnode ‖ time → row.
    waiting: Spine,
    /// By vnode; see invariant 3.
    next: Vec<i64>,
}

/// When rows enter and leave, ms.
struct Stays {
    enter: Vec<i64>,
    leave: Vec<i64>,
}

impl Stays {
    /// The change of a row's time at `clock`: whether it is in the output, and when that changes next.
    fn at(&self, i: usize, clock: i64) -> (bool, i64) {
        let (enter, leave) = (self.enter[i], self.leave[i]);
        if enter >= leave || clock >= leave {
            (false, NEVER)
        } else if clock < enter {
            (false, enter)
        } else {
            (true, leave)
        }
    }
}

impl Temporal {
    /// The operator of a temporal node over rows of the node's own types.
    ///
    /// # Errors
    /// A bound that is no TIMESTAMP column; types without a row encoding; a spine that does not open or cannot be read.
    pub fn new(node: &Node, bounds: &[TimeBound], open: &mut OpenRole<'_>) -> Result<Self> {
        let is_time = |b: &&TimeBound| node.schema.field(b.column).data_type() == &TimeBound::TYPE;
        if let Some(bound) = bounds.iter().find(|b| !is_time(b)) {
            let message = format!("the bound {bound} is {}", node.schema.field(bound.column).data_type());
            return Err(CircuitError::plan(&node.label, message));
        }
        let bound_columns = TimeBound::columns(bounds);
        let types = vec![TimeBound::TYPE; bound_columns.len()];
        let waiting = open("waiting", Discipline::Weighted)?;
        let next = first_times(&waiting).map_err(CircuitError::storage(&node.label))?;
        Ok(Self {
            label: node.label.clone(),
            schema: node.schema.clone(),
            bounds: bounds.to_vec(),
            bound_columns,
            bound_codec: RowCodec::new(&types)?,
            row_codec: RowCodec::of_schema(&node.schema)?,
            waiting,
            next,
        })
    }

    fn stays(&self, columns: &[ArrayRef], rows: usize) -> Stays {
        let mut stays = Stays { enter: vec![i64::MIN; rows], leave: vec![NEVER; rows] };
        for bound in &self.bounds {
            let times = columns[bound.column].as_primitive::<TimestampMicrosecondType>();
            let values = times.values().iter().map(|&t| bound.clock(t));
            match bound.edge {
                Edge::Enter => stays.enter.iter_mut().zip(values).for_each(|(enter, t)| *enter = (*enter).max(t)),
                Edge::Leave => stays.leave.iter_mut().zip(values).for_each(|(leave, t)| *leave = (*leave).min(t)),
            }
            // A comparison with NULL is never true.
            if let Some(nulls) = times.nulls() {
                stays.leave.iter_mut().zip(nulls).filter(|(_, valid)| !valid).for_each(|(leave, _)| *leave = i64::MIN);
            }
        }
        stays
    }

    /// Notes that a row waits for `time`.
    fn wait(&mut self, changes: &mut RowBatch, vnode: u8, time: i64, row: &[u8], weight: i64) {
        changes.push(&state_key(vnode, time), row, weight);
        let next = &mut self.next[usize::from(vnode)];
        *next = (*next).min(time);
    }

    /// Takes out the rows whose time has come.
    fn drain(&mut self, clock: i64, changes: &mut RowBatch, out: &mut Vec<Delta>) -> Result<()> {
        if self.next.iter().all(|&next| next > clock) {
            return Ok(());
        }
        let mut cursor = self.waiting.cursor().map_err(CircuitError::storage(&self.label))?;
        let mut taken = RowBatch::new();
        for vnode in 0..=u8::MAX {
            if self.next[usize::from(vnode)] > clock {
                continue;
            }
            self.next[usize::from(vnode)] = NEVER;
            cursor.seek(&[vnode]).map_err(CircuitError::storage(&self.label))?;
            while let Some(time) = time_at(&cursor, vnode) {
                if time > clock {
                    let next = &mut self.next[usize::from(vnode)];
                    *next = (*next).min(time);
                    break;
                }
                changes.push(cursor.key(), cursor.value(), cursor.weight().wrapping_neg());
                taken.push(cursor.key(), cursor.value(), cursor.weight());
                if taken.len() == TAKEN_ROWS {
                    self.advance(clock, &taken, changes, out)?;
                    taken.clear();
                }
                cursor.next().map_err(CircuitError::storage(&self.label))?;
            }
        }
        self.advance(clock, &taken, changes, out)
    }

    /// Rows whose time has come enter or leave.
    fn advance(&mut self, clock: i64, taken: &RowBatch, changes: &mut RowBatch, out: &mut Vec<Delta>) -> Result<()> {
        if taken.is_empty() {
            return Ok(());
        }
        let columns = self.row_codec.decode((0..taken.len()).map(|i| taken.value(i)))?;
        let stays = self.stays(&columns, taken.len());
        let mut rows: Vec<u32> = Vec::new();
        let mut weights = Vec::new();
        for i in 0..taken.len() {
            let (vnode, time) = split_key(taken.key(i)).unwrap_or((0, i64::MIN));
            // It waited for its end, or else for its beginning.
            let was_in = time == stays.leave[i];
            let (is_in, next) = stays.at(i, clock);
            if is_in != was_in {
                rows.push(i as u32);
                weights.push(if is_in { taken.weight(i) } else { taken.weight(i).wrapping_neg() });
            }
            if next != NEVER {
                self.wait(changes, vnode, next, taken.value(i), taken.weight(i));
            }
        }
        let delta = take_columns(&columns, &UInt32Array::from(rows))
            .and_then(|columns| Delta::new(&self.schema, columns, weights))
            .map_err(CircuitError::arrow(&self.label))?;
        out.push(delta);
        Ok(())
    }

    /// Rows that come in: those whose time it is go on, and what is still to happen to them waits.
    fn admit(&mut self, clock: i64, chunk: &Delta, changes: &mut RowBatch, out: &mut Vec<Delta>) -> Result<()> {
        let columns: Vec<ArrayRef> = chunk.rows.columns().iter().map(normalise).collect();
        let stays = self.stays(&columns, chunk.len());
        let (is_in, next): (Vec<bool>, Vec<i64>) = (0..chunk.len()).map(|i| stays.at(i, clock)).unzip();
        if next.iter().any(|&time| time != NEVER) {
            let keys = StateKeys::new(&self.bound_codec, &pick(&columns, &self.bound_columns), chunk.len())?;
            let rows = self.row_codec.encode(&columns, chunk.len())?;
            for (i, &time) in next.iter().enumerate().filter(|(_, time)| **time != NEVER) {
                self.wait(changes, keys.vnode(i), time, rows.get(i), chunk.weights[i]);
            }
        }
        let delta = chunk.filter(&BooleanArray::from(is_in)).map_err(CircuitError::arrow(&self.label))?;
        out.push(
            Delta::new(&self.schema, delta.rows.columns().to_vec(), delta.weights)
                .map_err(CircuitError::arrow(&self.label))?,
        );
        Ok(())
    }
}

impl Operator for Temporal {
    fn step(&mut self, context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let clock = context.clock_ms;
        let (mut changes, mut out) = (RowBatch::new(), Vec::new());
        self.drain(clock, &mut changes, &mut out)?;
        for chunk in inputs.iter().flatten() {
            self.admit(clock, chunk, &mut changes, &mut out)?;
        }
        changes.consolidate(Discipline::Weighted);
        self.waiting.insert_batch(&changes).map_err(CircuitError::storage(&self.label))?;
        Ok(out)
    }

    fn runs_without_input(&self) -> bool {
        true
    }

    fn next_due(&self) -> Option<i64> {
        self.next.iter().min().copied().filter(|&time| time != NEVER)
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        vec![&mut self.waiting]
    }
}

/// Vnode ‖ time, in the order of time.
fn state_key(vnode: u8, time: i64) -> [u8; 9] {
    let mut key = [vnode; 9];
    key[1..].copy_from_slice(&(time.cast_unsigned() ^ 1 << 63).to_be_bytes());
    key
}

fn split_key(key: &[u8]) -> Option<(u8, i64)> {
    let (vnode, time) = key.split_first()?;
    Some((*vnode, (u64::from_be_bytes(time.try_into().ok()?) ^ 1 << 63).cast_signed()))
}

/// The time of the row at the cursor, if it is one of this vnode.
fn time_at(cursor: &Cursor, vnode: u8) -> Option<i64> {
    let (found, time) = cursor.valid().then(|| split_key(cursor.key())).flatten()?;
    (found == vnode).then_some(time)
}

/// The first time of each vnode.
fn first_times(waiting: &Spine) -> StorageResult<Vec<i64>> {
    let mut next = vec![NEVER; VNODES];
    let mut cursor = waiting.cursor()?;
    while let Some((vnode, time)) = cursor.valid().then(|| split_key(cursor.key())).flatten() {
        next[usize::from(vnode)] = time;
        match vnode.checked_add(1) {
            Some(following) => cursor.seek(&[following])?,
            None => break,
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests;
