//! Tables with LATENESS, and streams into them whose time goes on from step to step, out of order, with rows that are late.
//!
//! Which rows are late is decided here once more, row by row, from what docs/sql.md says: that the program's own [`Watermarks`](backstay::circuit::Watermarks)
//! come to the same is part of the test.

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, TimeUnit};
use backstay::sql::{Program, Table};
use datafusion::common::ScalarValue;

use super::super::changes::{self, Row, Step};
use super::super::tables::TYPES;
use crate::rng::Rng;

/// Types of columns with LATENESS and bounds for them.
const LATE: [(&str, [&str; 3]); 5] = [
    ("TIMESTAMP", ["INTERVAL '30 minutes'", "INTERVAL '6' HOUR", "INTERVAL '0 minutes'"]),
    ("TIMESTAMP", ["INTERVAL '4 hours'", "INTERVAL '1' HOUR", "INTERVAL '1' DAY"]),
    ("DATE", ["INTERVAL '1' DAY", "INTERVAL '0' DAY", "INTERVAL '2' DAY"]),
    ("BIGINT", ["0", "1", "3"]),
    ("INT", ["0", "1", "2"]),
];

/// What the columns with LATENESS are called, in tables and in views: [`queries`](super::queries) look for them.
pub(super) const PREFIX: &str = "late";

/// Two or three tables, the first with LATENESS, the others mostly.
pub(super) fn create(rng: &mut Rng) -> String {
    let mut sql = String::new();
    // Mostly of one type, so that they are compared.
    let usual = rng.one_of(&LATE);
    for table in 0..2 + rng.below(2) {
        let mut columns = vec![format!("k0 {}", rng.one_of(&["INT", "BIGINT"]))];
        for column in 1..1 + rng.below(4) {
            let not_null = if rng.once_in(5) { " NOT NULL" } else { "" };
            columns.push(format!("k{column} {}{not_null}", rng.one_of(&TYPES)));
        }
        let mut options = Vec::new();
        let bounded = if table > 0 && rng.once_in(4) { 0 } else { 1 + u64::from(rng.once_in(4)) };
        for number in 0..bounded {
            let (data_type, bounds) = if rng.once_in(4) { rng.one_of(&LATE) } else { usual };
            let column = format!("{PREFIX}{number} {data_type} NOT NULL LATENESS {}", rng.one_of(&bounds));
            columns.insert(rng.below(columns.len() as u64 + 1) as usize, column);
        }
        if bounded > 0 && rng.once_in(3) {
            options.push(format!("'late_rows' = 'x{table}'"));
        }
        if bounded == 0 && rng.once_in(2) {
            columns.push("PRIMARY KEY (k0)".to_owned());
        } else if rng.once_in(4) {
            options.push("'append_only' = 'true'".to_owned());
        }
        let options = if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
        sql.push_str(&format!("CREATE TABLE t{table} ({}){options};\n", columns.join(", ")));
    }
    sql
}

/// The tables as they are behind the steps so far.
pub(super) struct Stream {
    tables: Vec<Contents>,
    /// Hours.
    now: i64,
    /// Rows that were late.
    pub(super) late_rows: u64,
}

struct Contents {
    table: Table,
    rows: Vec<Row>,
    /// The largest value of each column with LATENESS.
    most: Vec<Option<i64>>,
    /// Where its late rows go.
    late: Option<usize>,
    /// It takes the late rows of another table and nothing else.
    is_for_late: bool,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, table) in self.tables.iter().enumerate() {
            writeln!(f, "table {i}, at most {:?}:", table.most)?;
            for row in &table.rows {
                let cells: Vec<String> = row.iter().map(ToString::to_string).collect();
                writeln!(f, "  {}", cells.join(", "))?;
            }
        }
        Ok(())
    }
}

impl Stream {
    pub(super) fn new(program: &Program) -> Self {
        let number = |name: &str| program.tables.iter().position(|t| t.name == name).unwrap();
        let contents = |table: &Table| Contents {
            table: table.clone(),
            rows: Vec::new(),
            most: vec![None; table.lateness.len()],
            late: table.late_rows().map(number),
            is_for_late: program.tables.iter().any(|t| t.late_rows() == Some(&table.name)),
        };
        Self { tables: program.tables.iter().map(contents).collect(), now: 0, late_rows: 0 }
    }

    /// A table's rows as a query sees them: those that were not late.
    pub(super) fn batch(&self, table: usize) -> RecordBatch {
        let Contents { table, rows, .. } = &self.tables[table];
        changes::batch(table, rows)
    }

    /// What arrives in the next step, late rows among it.
    pub(super) fn step(&mut self, program: &Program, rng: &mut Rng) -> Step {
        self.now += rng.one_of(&[0, 1, 3, 6, 12, 18]);
        let mut step = Step::new();
        for (i, table) in program.tables.iter().enumerate() {
            let count = if rng.once_in(5) { 0 } else { rng.below(8) };
            let changes = match () {
                () if self.tables[i].is_for_late => Vec::new(),
                () if !table.primary_key.is_empty() => {
                    changes::keyed_changes(table, &mut self.tables[i].rows, rng, count)
                }
                () => self.changes(table, i, rng, count),
            };
            step.push(changes::chunks(&table.schema, &changes, rng));
        }
        step
    }

    /// Inserts and deletes, in any order.
    fn changes(&mut self, table: &Table, at: usize, rng: &mut Rng, count: u64) -> Vec<(Row, i64)> {
        // What is late is so by the steps before this one.
        let most = self.tables[at].most.clone();
        let mut changes = Vec::new();
        for _ in 0..count {
            let first = changes.len();
            match rng.below(if table.is_append_only() { 4 } else { 7 }) {
                0..4 => {
                    let copies = 1 + if rng.once_in(4) { rng.below(3) as i64 } else { 0 };
                    changes.push((self.row(table, rng), copies));
                }
                4 | 5 => changes.extend(self.delete(table, at, &most, rng).map(|row| (row, -1))),
                // A row that comes and goes.
                _ => {
                    let row = self.row(table, rng);
                    changes.extend([(row.clone(), 1), (row, -1)]);
                }
            }
            for (row, weight) in &changes[first..] {
                self.apply(table, at, &most, row, *weight);
            }
        }
        for i in (1..changes.len()).rev() {
            changes.swap(i, rng.below(i as u64 + 1) as usize);
        }
        changes
    }

    /// A row that is there to be deleted, in the table or among its late rows. If those are left out, then so are late deletes, of rows that stay.
    fn delete(&self, table: &Table, at: usize, most: &[Option<i64>], rng: &mut Rng) -> Option<Row> {
        let late = self.tables[at].late;
        let of = late.filter(|_| rng.once_in(4)).unwrap_or(at);
        let rows = &self.tables[of].rows;
        let row = rows.get(rng.below(rows.len().max(1) as u64) as usize)?;
        (of != at || late.is_none() || !is_late(table, most, row)).then(|| row.clone())
    }

    /// Does to the tables what a change does to them.
    fn apply(&mut self, table: &Table, at: usize, most: &[Option<i64>], row: &Row, weight: i64) {
        let is_late = is_late(table, most, row);
        let to = match (is_late, self.tables[at].late) {
            (false, _) => Some(at),
            (true, late) => late,
        };
        self.late_rows += u64::from(is_late);
        if !is_late {
            for (lateness, most) in table.lateness.iter().zip(&mut self.tables[at].most) {
                *most = (*most).max(Some(number(&row[lateness.column])));
            }
        }
        let Some(to) = to else { return };
        let rows = &mut self.tables[to].rows;
        match weight {
            1.. => rows.extend((0..weight).map(|_| row.clone())),
            _ => {
                let there = rows.iter().position(|other| other == row).unwrap();
                rows.swap_remove(there);
            }
        }
    }

    fn row(&self, table: &Table, rng: &mut Rng) -> Row {
        let mut row = changes::row(table, rng);
        for lateness in &table.lateness {
            row[lateness.column] = self.time(rng, table.schema.field(lateness.column));
        }
        row
    }

    /// A time about now: some way behind it, sometimes far, and once in a while before all others.
    fn time(&self, rng: &mut Rng, field: &Field) -> ScalarValue {
        let hours = match rng.below(40) {
            0 => self.now + rng.below(24) as i64,
            1..6 => self.now - rng.below(60) as i64,
            _ => self.now - rng.below(5) as i64,
        };
        let days = 19_800;
        match field.data_type() {
            DataType::Int64 => ScalarValue::Int64(Some(hours.div_euclid(6))),
            DataType::Int32 => ScalarValue::Int32(Some(hours.div_euclid(6) as i32)),
            DataType::Date32 => ScalarValue::Date32(Some(days + hours.div_euclid(24) as i32)),
            DataType::Timestamp(TimeUnit::Microsecond, None) => {
                let quarters = if rng.once_in(4) { rng.below(4) as i64 } else { 0 };
                let hour = 3_600_000_000;
                ScalarValue::TimestampMicrosecond(
                    Some((i64::from(days) * 24 + hours) * hour + quarters * hour / 4),
                    None,
                )
            }
            other => panic!("no LATENESS of type {other}"),
        }
    }
}

/// Whether a row is below one of its table's watermarks.
fn is_late(table: &Table, most: &[Option<i64>], row: &Row) -> bool {
    let mut columns = table.lateness.iter().zip(most);
    columns.any(|(lateness, most)| most.is_some_and(|most| number(&row[lateness.column]) < most - lateness.bound))
}

/// A value of a column with LATENESS as a number.
fn number(value: &ScalarValue) -> i64 {
    match value {
        ScalarValue::Int64(Some(n)) | ScalarValue::TimestampMicrosecond(Some(n), None) => *n,
        ScalarValue::Int32(Some(n)) | ScalarValue::Date32(Some(n)) => i64::from(*n),
        other => panic!("{other} is no number"),
    }
}
