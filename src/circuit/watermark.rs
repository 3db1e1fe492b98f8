//! Watermarks: how far the columns with LATENESS have come, and which rows are late.
//!
//! The watermark of a column is the largest value that steps before this one brought, less the column's lateness. A row below it is late:
//! it is left out before the circuit sees it, or put into the table for late rows, and counted. So whatever a step brings is at or above the watermarks that it begins with,
//! and state below them can be freed ([`floors`](super::floors)).
//!
//! Invariants:
//! 1. A watermark is a function of the input rows of the steps before: a replay comes to the same ones.
//! 2. It never goes back.
//! 3. A late row has no effect but that it is counted, or stands in the table for late rows: it moves no other column's watermark either, in whatever order
//!    the columns stand.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::compute::kernels::aggregate::max;
use arrow::compute::{cast, not};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::delta::Delta;
use super::plan::CircuitPlan;

/// A column with LATENESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// The column of the table.
    pub column: usize,
    /// By how much a row may be behind, in the unit of the column's type.
    pub bound: i64,
}

/// How far one column has come: part of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The largest value so far.
    pub max: Option<i64>,
    /// Rows that were late by it.
    pub late_rows: u64,
}

/// The columns with LATENESS of a program, in the order of tables and columns.
#[derive(Debug, Default)]
pub struct Watermarks {
    /// Table, column, and the table that late rows go to.
    columns: Vec<(usize, Lateness, Option<usize>)>,
    marks: Vec<Mark>,
    names: Vec<String>,
}

impl Watermarks {
    /// Those of a plan, as far as they had come.
    pub fn new(plan: &CircuitPlan, known: &BTreeMap<String, Mark>) -> Self {
        let mut this = Self::default();
        for (table, definition) in plan.tables.iter().enumerate() {
            let schema = plan.nodes.get(definition.node).map(|n| &n.schema);
            for lateness in &definition.lateness {
                let column = schema.map_or("", |s| s.field(lateness.column).name());
                let name = format!("{}.{column}", definition.name);
                this.marks.push(known.get(&name).copied().unwrap_or_default());
                this.columns.push((table, *lateness, definition.late));
                this.names.push(name);
            }
        }
        this
    }

    /// How far each has come, by `table.column`.
    pub fn marks(&self) -> BTreeMap<String, Mark> {
        self.names.iter().cloned().zip(self.marks.iter().copied()).collect()
    }

    /// Rows that were late so far.
    pub fn late_rows(&self) -> u64 {
        self.marks.iter().map(|m| m.late_rows).sum()
    }

    /// The watermarks that the next step begins with; none before the first row.
    pub fn values(&self) -> Vec<Option<i64>> {
        let value = |((_, lateness, _), mark): (&(usize, Lateness, Option<usize>), &Mark)| {
            Some(mark.max?.saturating_sub(lateness.bound))
        };
        self.columns.iter().zip(&self.marks).map(value).collect()
    }

    /// Takes the late rows out of a step's input, and moves on by what it brings.
    ///
    /// # Errors
    /// A column that is not of its type.
    pub fn advance(&mut self, tables: &mut [Vec<Delta>]) -> Result<(), ArrowError> {
        let values = self.values();
        for (((table, lateness, late), mark), watermark) in self.columns.iter().zip(&mut self.marks).zip(values) {
            let Some(watermark) = watermark else { continue };
            let mut aside = Vec::new();
            for delta in tables.get_mut(*table).into_iter().flatten() {
                let column = numbers(delta.rows.column(lateness.column))?;
                let before = delta.len();
                aside.extend(take_late(delta, column.as_primitive::<Int64Type>(), watermark)?);
                mark.late_rows += (before - delta.len()) as u64;
            }
            if let Some(to) = late.and_then(|late| tables.get_mut(late)) {
                to.extend(aside);
            }
        }
        // A row that is late by one column moves no watermark of another.
        for ((table, lateness, _), mark) in self.columns.iter().zip(&mut self.marks) {
            for delta in tables.get(*table).into_iter().flatten() {
                let column = numbers(delta.rows.column(lateness.column))?;
                mark.max = mark.max.max(max(column.as_primitive::<Int64Type>()));
            }
        }
        Ok(())
    }
}

/// A column with LATENESS as whole numbers.
fn numbers(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Int64 => Ok(ArrayRef::clone(column)),
        // Days are 32 bits wide, and so is what stands between.
        DataType::Date32 => cast(&cast(column, &DataType::Int32)?, &DataType::Int64),
        _ => cast(column, &DataType::Int64),
    }
}

/// Takes out the rows below the watermark.
fn take_late(delta: &mut Delta, times: &Int64Array, watermark: i64) -> Result<Option<Delta>, ArrowError> {
    if times.values().iter().all(|&time| time >= watermark) {
        return Ok(None);
    }
    let is_late: BooleanArray = times.values().iter().map(|&time| Some(time < watermark)).collect();
    let late = delta.filter(&is_late)?;
    *delta = delta.filter(&not(&is_late)?)?;
    Ok(Some(late))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use arrow::datatypes::{Field, Schema};

    use super::*;

    /// What is late by one column moves the watermark of no other, whichever of them comes first.
    #[test]
    fn late_rows_move_no_watermark() {
        let schema = Arc::new(Schema::new(["a", "b"].map(|name| Field::new(name, DataType::Int64, false)).to_vec()));
        let step = |rows: &[[i64; 2]]| {
            let column = |i: usize| Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row[i]))) as ArrayRef;
            vec![vec![Delta::inserts(RecordBatch::try_new(Arc::clone(&schema), vec![column(0), column(1)]).unwrap())]]
        };
        let of = |column| (0, Lateness { column, bound: 1 }, None);
        let mut watermarks = Watermarks {
            columns: vec![of(0), of(1)],
            marks: vec![Mark::default(); 2],
            names: vec!["t.a".to_owned(), "t.b".to_owned()],
        };
        watermarks.advance(&mut step(&[[10, 10]])).unwrap();
        assert_eq!(watermarks.values(), [Some(9), Some(9)]);
        let mut late = step(&[[100, 8], [8, 100], [9, 11]]);
        watermarks.advance(&mut late).unwrap();
        assert_eq!((late[0][0].len(), watermarks.late_rows()), (1, 2));
        assert_eq!(watermarks.values(), [Some(9), Some(10)]);
    }
}
