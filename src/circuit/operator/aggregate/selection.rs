//! The rows that one aggregate sees: all of a step, or those for which its FILTER is true.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{filter, prep_null_mask_filter};
use arrow::error::ArrowError;

use super::super::pick;
use crate::circuit::delta::take_columns;

/// Some columns of some rows of a step, with the rows' weights and groups.
pub(super) struct Selection<'a> {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) weights: Cow<'a, [i64]>,
    pub(super) groups: Cow<'a, [u32]>,
}

impl<'a> Selection<'a> {
    /// The columns at `arguments` of the rows for which the column at `condition`, if there is one, is true.
    pub(super) fn new(
        columns: &[ArrayRef],
        arguments: &[usize],
        condition: Option<usize>,
        weights: &'a [i64],
        groups: &'a [u32],
    ) -> Result<Self, ArrowError> {
        let picked = pick(columns, arguments);
        let Some(condition) = condition else {
            return Ok(Self { columns: picked, weights: Cow::Borrowed(weights), groups: Cow::Borrowed(groups) });
        };
        let condition = columns[condition].as_boolean();
        // NULL is not true.
        let mask = match condition.nulls() {
            Some(_) => prep_null_mask_filter(condition),
            None => condition.clone(),
        };
        let rows = || mask.values().set_indices();
        Ok(Self {
            columns: picked.iter().map(|column| filter(column, &mask)).collect::<Result<_, _>>()?,
            weights: rows().map(|row| weights[row]).collect(),
            groups: rows().map(|row| groups[row]).collect(),
        })
    }

    /// Some of the rows, each with a new weight.
    pub(super) fn take(&self, rows: Vec<u32>, weights: Vec<i64>) -> Result<Selection<'static>, ArrowError> {
        let groups = rows.iter().map(|&row| self.groups[row as usize]).collect();
        let columns = take_columns(&self.columns, &UInt32Array::from(rows))?;
        Ok(Selection { columns, weights: Cow::Owned(weights), groups: Cow::Owned(groups) })
    }
}
