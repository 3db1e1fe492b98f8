//! What happens to the tables: inserts, updates, deletes, and rows that come and go, cut into steps and chunks at random.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use backstay::circuit::Delta;
use backstay::circuit::row::normalise;
use backstay::sql::{Declared, Program, Table};
use datafusion::common::ScalarValue;

use super::tables::value;
use crate::rng::Rng;

pub(super) type Row = Vec<ScalarValue>;

/// One step: for each table its chunks.
pub(super) type Step = Vec<Vec<Delta>>;

/// Rows of the tables; those that stand there several times are repeated.
pub(super) struct Contents(Vec<(Table, Vec<Row>)>);

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (_, rows)) in self.0.iter().enumerate() {
            writeln!(f, "table {i}:")?;
            for row in rows {
                let cells: Vec<String> = row.iter().map(ToString::to_string).collect();
                writeln!(f, "  {}", cells.join(", "))?;
            }
        }
        Ok(())
    }
}

impl Contents {
    pub(super) fn new(program: &Program) -> Self {
        Self(program.tables.iter().map(|table| (table.clone(), Vec::new())).collect())
    }

    /// A table's rows as a query sees them.
    pub(super) fn batch(&self, table: usize) -> RecordBatch {
        let (table, rows) = &self.0[table];
        batch(table, rows)
    }

    /// Changes all tables, in one to four steps.
    pub(super) fn phase(&mut self, program: &Program, rng: &mut Rng, first: bool) -> Vec<Step> {
        let steps = 1 + rng.below(4) as usize;
        let mut out: Vec<Step> = vec![Vec::new(); steps];
        for (table, (_, rows)) in program.tables.iter().zip(&mut self.0) {
            // Sometimes nothing happens to a table, and sometimes it stays empty for a while.
            let count = if rng.once_in(5) { 0 } else { rng.below(if first { 16 } else { 10 }) };
            let changes = match table.primary_key.is_empty() {
                true => plain_changes(table, rows, rng, count),
                false => keyed_changes(table, rows, rng, count),
            };
            let mut cuts: Vec<usize> = (1..steps).map(|_| rng.below(changes.len() as u64 + 1) as usize).collect();
            cuts.sort_unstable();
            cuts.push(changes.len());
            let mut start = 0;
            for (step, end) in out.iter_mut().zip(cuts) {
                step.push(chunks(&table.schema, &changes[start..end], rng));
                start = end;
            }
        }
        out
    }
}

/// A table's rows as a query sees them. Columns that are skipped have any values: no answer depends on them.
pub(super) fn batch(table: &Table, rows: &[Row]) -> RecordBatch {
    let mut kept = columns(&table.schema, rows.iter()).into_iter();
    if table.declared.is_empty() {
        return RecordBatch::try_new(table.schema.clone(), kept.map(|c| normalise(&c)).collect()).unwrap();
    }
    let mut rng = Rng::new(rows.len() as u64);
    let column = |column: &Declared| match column.is_skipped {
        false => kept.next().unwrap(),
        true => match rows.len() {
            0 => arrow::array::new_empty_array(column.field.data_type()),
            n => ScalarValue::iter_to_array((0..n).map(|_| value(&mut rng, &column.field))).unwrap(),
        },
    };
    let columns = table.declared.iter().map(column).map(|c| normalise(&c)).collect();
    let fields: Vec<_> = table.declared.iter().map(|column| column.field.clone()).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn columns<'a>(schema: &SchemaRef, rows: impl Iterator<Item = &'a Row> + Clone) -> Vec<ArrayRef> {
    let column = |(i, field): (usize, &arrow::datatypes::FieldRef)| {
        let mut cells = rows.clone().map(|row| row[i].clone()).peekable();
        match cells.peek() {
            None => arrow::array::new_empty_array(field.data_type()),
            Some(_) => ScalarValue::iter_to_array(cells).unwrap(),
        }
    };
    schema.fields().iter().enumerate().map(column).collect()
}

/// Changes in the chunks in which they might arrive.
pub(super) fn chunks(schema: &SchemaRef, changes: &[(Row, i64)], rng: &mut Rng) -> Vec<Delta> {
    let mut out = Vec::new();
    let mut rest = changes;
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(1 + rng.below(rest.len() as u64) as usize);
        let rows = columns(schema, chunk.iter().map(|(row, _)| row));
        out.push(Delta::new(schema, rows, chunk.iter().map(|(_, weight)| *weight).collect()).unwrap());
        rest = later;
    }
    out
}

pub(super) fn row(table: &Table, rng: &mut Rng) -> Row {
    table.schema.fields().iter().map(|field| value(rng, field)).collect()
}

fn remove(rows: &mut Vec<Row>, rng: &mut Rng) -> Option<Row> {
    (!rows.is_empty()).then(|| rows.swap_remove(rng.below(rows.len() as u64) as usize))
}

/// Inserts and deletes in any order: a row may go before it has come.
fn plain_changes(table: &Table, rows: &mut Vec<Row>, rng: &mut Rng, count: u64) -> Vec<(Row, i64)> {
    let mut changes = Vec::new();
    let kinds = if table.is_append_only() { 4 } else { 8 };
    for _ in 0..count {
        match rng.below(kinds) {
            0..4 => {
                let row = row(table, rng);
                let copies = 1 + if rng.once_in(4) { rng.below(3) } else { 0 };
                rows.extend((0..copies).map(|_| row.clone()));
                changes.push((row, copies as i64));
            }
            4..6 => changes.extend(remove(rows, rng).map(|row| (row, -1))),
            // An update.
            6 => {
                if let Some(mut row) = remove(rows, rng) {
                    changes.push((row.clone(), -1));
                    let column = rng.below(row.len() as u64) as usize;
                    row[column] = value(rng, table.schema.field(column));
                    rows.push(row.clone());
                    changes.push((row, 1));
                }
            }
            // A row that comes and goes.
            _ => {
                let row = row(table, rng);
                changes.extend([(row.clone(), -1), (row, 1)]);
            }
        }
    }
    // Everything goes, as at the end of a day.
    if !table.is_append_only() && rng.once_in(12) {
        changes.extend(rows.drain(..).map(|row| (row, -1)));
    }
    for i in (1..changes.len()).rev() {
        changes.swap(i, rng.below(i as u64 + 1) as usize);
    }
    changes
}

/// Upserts and deletes by key, of which the last one counts.
pub(super) fn keyed_changes(table: &Table, rows: &mut Vec<Row>, rng: &mut Rng, count: u64) -> Vec<(Row, i64)> {
    let mut changes = Vec::new();
    for _ in 0..count {
        let row = row(table, rng);
        let weight = if rng.below(4) == 0 { -1 } else { 1 };
        rows.retain(|other| table.primary_key.iter().any(|&i| other[i] != row[i]));
        if weight > 0 {
            rows.push(row.clone());
        }
        changes.push((row, weight));
    }
    changes
}
