//! Min and max, first and last value: every value of every group in a weighted spine, in the order that brings the wanted one
//! first. The value may stand behind columns that it is ordered by.
//!
//! Invariant: a group's extremum is the first value of positive weight under its key. It is read back only where the step
//! may have changed it: a value before it came in, or it was itself taken away. Where no row is ever taken back there is no such spine.

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use backstay_storage::Result as StorageResult;
use backstay_storage::spine::{Cursor, Discipline, KeyBatch, RowBatch, Spine};

use super::accumulator::{count, split};
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::row::RowCodec;

/// What stands for "no value" in saved states, where a value's length stands otherwise.
const NO_VALUE: u32 = u32::MAX;

/// The values of one min or max over all groups.
pub(super) struct Extrema {
    codec: RowCodec,
    null_row: Vec<u8>,
    ignore_nulls: bool,
    /// Group key → value, in the order of the codec; `None` where no value is ever taken away.
    pub(super) values: Option<Spine>,
}

/// The extrema of the groups that a step touches: one entry a group.
#[derive(Clone, Debug, Default)]
pub(super) struct Current {
    /// Rows that count.
    pub(super) counts: Vec<i64>,
    arena: Vec<u8>,
    /// Start and end in the arena; `None` without a value.
    spans: Vec<Option<(usize, usize)>>,
}

impl Current {
    fn get(&self, group: usize) -> Option<&[u8]> {
        self.spans[group].map(|(start, end)| &self.arena[start..end])
    }

    fn append(&mut self, value: Option<&[u8]>) -> Option<(usize, usize)> {
        let start = self.arena.len();
        self.arena.extend_from_slice(value?);
        Some((start, self.arena.len()))
    }

    fn set(&mut self, group: usize, value: Option<&[u8]>) {
        self.spans[group] = self.append(value);
    }

    /// Adds a group without values.
    pub(super) fn push_empty(&mut self) {
        self.counts.push(0);
        self.spans.push(None);
    }

    /// Adds a group from the front of its saved state; `None` if the state is too short.
    pub(super) fn push_saved(&mut self, state: &mut &[u8]) -> Option<()> {
        self.counts.push(i64::from_le_bytes(split(state)?));
        let length = u32::from_le_bytes(split(state)?);
        let value = match length {
            NO_VALUE => None,
            length => {
                let (value, rest) = state.split_at_checked(length as usize)?;
                *state = rest;
                Some(value)
            }
        };
        let span = self.append(value);
        self.spans.push(span);
        Some(())
    }

    /// Appends a group's state.
    pub(super) fn save(&self, group: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.counts[group].to_le_bytes());
        let value = self.get(group);
        out.extend_from_slice(&value.map_or(NO_VALUE, |v| v.len() as u32).to_le_bytes());
        out.extend_from_slice(value.unwrap_or_default());
    }

    /// Whether the group has no values. A multiset of count zero without a value of positive weight is empty.
    pub(super) fn is_zero(&self, group: usize) -> bool {
        self.counts[group] == 0 && self.spans[group].is_none()
    }
}

impl Extrema {
    /// The first row in the order of these columns. With `ignore_nulls` rows do not count in which the last one is NULL.
    pub(super) fn new(columns: &[(DataType, SortOptions)], ignore_nulls: bool, values: Option<Spine>) -> Result<Self> {
        let codec = RowCodec::ordered(columns)?;
        let nulls: Vec<ArrayRef> = codec.types().iter().map(|t| new_null_array(t, 1)).collect();
        let null_row = codec.encode(&nulls, 1)?.get(0).to_vec();
        Ok(Self { codec, null_row, ignore_nulls, values })
    }

    /// Adds rows of the columns to the groups of its rows. `keys` are the groups' keys, ascending; `known` says which of
    /// them had a state before the step.
    pub(super) fn update(
        &mut self,
        current: &mut Current,
        columns: &[ArrayRef],
        weights: &[i64],
        groups: &[u32],
        keys: &KeyBatch,
        known: &[bool],
    ) -> Result<StorageResult<()>> {
        let values = self.codec.encode(columns, weights.len())?;
        let nulls = columns.last().filter(|_| self.ignore_nulls).and_then(|value| value.logical_nulls());
        count(&mut current.counts, nulls.as_ref(), weights, groups);
        let mut changes = RowBatch::new();
        for (i, (&group, &weight)) in groups.iter().zip(weights).enumerate() {
            if nulls.as_ref().is_none_or(|n| n.is_valid(i)) {
                changes.push(keys.get(group as usize), values.get(i), weight);
            }
        }
        changes.consolidate(Discipline::Weighted);
        let inserted = self.values.as_mut().map_or(Ok(()), |values| values.insert_batch(&changes));
        Ok(inserted.and_then(|()| self.follow(current, &changes, keys, known)))
    }

    /// Finds the new extrema after `changes`, sorted by key and value, went into the spine.
    fn follow(&self, current: &mut Current, changes: &RowBatch, keys: &KeyBatch, known: &[bool]) -> StorageResult<()> {
        let mut cursor = None;
        let mut start = 0;
        for (group, &known) in known.iter().enumerate() {
            let key = keys.get(group);
            let mut end = start;
            while end < changes.len() && changes.key(end) == key {
                end += 1;
            }
            let rows = start..end;
            start = end;
            if !known {
                // Nothing was there before: the changes are all there is.
                let first = rows.clone().find(|&i| changes.weight(i) > 0);
                current.set(group, first.map(|i| changes.value(i)));
                continue;
            }
            let old = current.get(group);
            let moves = |i: usize| match old {
                None => changes.weight(i) > 0,
                Some(old) if changes.weight(i) > 0 => changes.value(i) < old,
                Some(old) => changes.value(i) == old,
            };
            let Some(moved) = rows.clone().find(|&i| moves(i)) else { continue };
            let Some(values) = &self.values else {
                // The first of the changes that is before the old one is before all of them.
                current.set(group, Some(changes.value(moved)));
                continue;
            };
            let cursor = match &mut cursor {
                Some(cursor) => cursor,
                none => none.insert(values.cursor()?),
            };
            let first = first_positive(cursor, key)?;
            current.set(group, first);
        }
        Ok(())
    }

    /// The argument in the first row of each group, NULL without rows.
    pub(super) fn finish(&self, current: &Current) -> Result<ArrayRef> {
        let rows = (0..current.spans.len()).map(|group| current.get(group).unwrap_or(&self.null_row));
        let value = self.codec.decode(rows)?.pop();
        value.ok_or_else(|| CircuitError::RowFormat("a value without columns".to_owned()))
    }
}

/// The first value of positive weight under `key`. Keys must be asked for in ascending order.
fn first_positive<'a>(cursor: &'a mut Cursor, key: &[u8]) -> StorageResult<Option<&'a [u8]>> {
    cursor.seek(key)?;
    while cursor.valid() && cursor.key() == key {
        if cursor.weight() > 0 {
            return Ok(Some(cursor.value()));
        }
        cursor.next()?;
    }
    Ok(None)
}
