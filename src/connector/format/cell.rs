//! Columns from cells: spans of text, one a row, parsed in one loop a column.
//!
//! Invariants: a column has as many cells as its block has records; a cell that cannot be read marks its row as bad with a message
//! and leaves a null, and [`finish`] takes the bad rows, and those of the same record, out of every column before a batch is made.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, BooleanBuilder, LargeStringBuilder, PrimitiveBuilder, RecordBatch,
    StringBuilder, StringViewBuilder,
};
use arrow::compute::filter;
use arrow::compute::kernels::cast_utils::{Parser, parse_decimal, string_to_datetime};
use arrow::datatypes::*;

use super::Parsed;
use super::nested::nested;
use super::split::Record;
use crate::connector::{ConnectorError, Result, RowError};
use crate::sql::Semantics;

/// What a cell's text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The record does not have it.
    Missing,
    /// JSON's null.
    Null,
    /// CSV text without quotes.
    Plain,
    /// Quoted text, or a JSON string.
    Quoted,
    /// A JSON number.
    Number,
    /// JSON's true or false.
    Bool,
    /// A JSON list or object.
    Nested,
    /// A value that no one looks at: the type's zero.
    Default,
}

/// What a number or a text of digits means where a date or time is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// Nothing.
    #[default]
    Default,
    /// Days, and milliseconds, since 1970 or midnight: Debezium's `time.precision.mode` `connect`.
    DebeziumPostgres,
    /// Likewise, but a time of day is in microseconds.
    DebeziumMysql,
}

impl Flavor {
    /// The unit of a number that is a time of day, in nanoseconds.
    fn time_unit(self) -> Option<i64> {
        match self {
            Self::Default => None,
            Self::DebeziumPostgres => Some(1_000_000),
            Self::DebeziumMysql => Some(1_000),
        }
    }

    /// A number of days.
    fn days(self, text: &str) -> Option<i32> {
        if self == Self::Default { None } else { text.parse().ok() }
    }

    /// A number that is a time of day, in units of so many nanoseconds.
    fn time(self, text: &str, nanos: i64) -> Option<i64> {
        const DAY: i64 = 86_400_000_000_000;
        let value: i64 = text.parse().ok()?;
        let value = value.checked_mul(self.time_unit()?).filter(|v| (0..DAY).contains(v))?;
        Some(value / nanos)
    }

    /// A number that is a point in time, in so many units a second.
    fn timestamp(self, text: &str, per_second: i64) -> Option<i64> {
        let value: i64 = if self == Self::Default { None } else { text.parse().ok() }?;
        if per_second >= 1_000 { value.checked_mul(per_second / 1_000) } else { Some(value.div_euclid(1_000)) }
    }
}

/// One value's text: a span of the block, or of the arena where escapes were resolved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) in_arena: bool,
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Cell {
    /// A value that is not there.
    pub(crate) const MISSING: Self = Self { kind: Kind::Missing, in_arena: false, start: 0, len: 0 };

    /// The cell of `start..end`. Blocks are shorter than 4 GiB.
    pub(crate) fn new(kind: Kind, in_arena: bool, start: usize, end: usize) -> Self {
        Self { kind, in_arena, start: start as u32, len: end.saturating_sub(start) as u32 }
    }
}

/// The cells of a block, by column, and its bad rows.
#[derive(Debug)]
pub(crate) struct Cells<'a> {
    block: &'a [u8],
    /// Text whose escapes are resolved.
    pub(crate) arena: Vec<u8>,
    columns: Vec<Vec<Cell>>,
    /// Whether quoted text is a JSON string.
    pub(crate) is_json: bool,
    pub(crate) flavor: Flavor,
    is_bad: Vec<bool>,
    bad: Vec<(usize, String)>,
}

/// What stands in a cell, for its column's type.
enum Content<'a> {
    Null,
    Default,
    Text(&'a [u8]),
    Wrong(&'static str),
}

impl<'a> Cells<'a> {
    /// `rows` missing cells in each of `columns`.
    pub(crate) fn new(block: &'a [u8], columns: usize, rows: usize) -> Self {
        let columns = vec![vec![Cell::MISSING; rows]; columns];
        let (is_bad, bad) = (vec![false; rows], Vec::new());
        Self { block, arena: Vec::new(), columns, is_json: false, flavor: Flavor::Default, is_bad, bad }
    }

    /// These cells, of `rows` rows in a block.
    pub(super) fn of_columns(
        block: &'a [u8],
        arena: Vec<u8>,
        columns: Vec<Vec<Cell>>,
        rows: usize,
        flavor: Flavor,
    ) -> Self {
        Self { block, arena, columns, is_json: true, flavor, is_bad: vec![false; rows], bad: Vec::new() }
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        self.is_bad.len()
    }

    /// Takes a column's cells out.
    pub(super) fn take_column(&mut self, column: usize) -> Vec<Cell> {
        self.columns.get_mut(column).map(std::mem::take).unwrap_or_default()
    }

    /// Takes the bad rows out, with what is wrong with them.
    pub(super) fn take_bad(&mut self) -> Vec<(usize, String)> {
        std::mem::take(&mut self.bad)
    }

    /// Sets a cell.
    pub(crate) fn set(&mut self, column: usize, row: usize, cell: Cell) {
        if let Some(place) = self.columns.get_mut(column).and_then(|c| c.get_mut(row)) {
            *place = cell;
        }
    }

    /// A cell.
    pub(crate) fn get(&self, column: usize, row: usize) -> Cell {
        self.columns.get(column).and_then(|c| c.get(row)).copied().unwrap_or(Cell::MISSING)
    }

    /// Takes a row's values away.
    pub(crate) fn clear(&mut self, row: usize) {
        self.columns.iter_mut().filter_map(|c| c.get_mut(row)).for_each(|cell| *cell = Cell::MISSING);
    }

    /// Lets two rows change places.
    pub(crate) fn swap(&mut self, a: usize, b: usize) {
        self.columns.iter_mut().filter(|c| a.max(b) < c.len()).for_each(|c| c.swap(a, b));
    }

    /// Keeps the first rows only.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|c| c.truncate(rows));
        self.is_bad.truncate(rows);
    }

    /// Marks a row as bad; the first reason stays.
    pub(crate) fn mark(&mut self, row: usize, message: String) {
        if let Some(flag) = self.is_bad.get_mut(row)
            && !*flag
        {
            *flag = true;
            self.bad.push((row, message));
        }
    }

    /// Rows of one record are good or bad together: what was said of the one holds for its neighbours.
    fn mark_whole_records(&mut self, records: &[Record]) {
        let same = |a: usize, b: usize| match (records.get(a), records.get(b)) {
            (Some(a), Some(b)) => a.start == b.start,
            _ => false,
        };
        let marked: Vec<usize> = self.bad.iter().map(|(row, _)| *row).collect();
        for row in marked {
            let (mut from, mut to) = (row, row);
            while from > 0 && same(from - 1, row) {
                from -= 1;
            }
            while same(to + 1, row) {
                to += 1;
            }
            self.is_bad.iter_mut().take(to + 1).skip(from).for_each(|flag| *flag = true);
        }
        self.bad.sort_by_key(|(row, _)| *row);
        self.bad.dedup_by(|later, earlier| same(later.0, earlier.0));
    }

    /// A cell's text.
    pub(super) fn text(&self, cell: &Cell) -> &[u8] {
        let from = if cell.in_arena { &self.arena[..] } else { self.block };
        let start = cell.start as usize;
        from.get(start..start + cell.len as usize).unwrap_or_default()
    }

    fn content(&self, cell: &Cell, data_type: &DataType, is_text: bool, nulls: &[Vec<u8>]) -> Content<'_> {
        match cell.kind {
            Kind::Missing | Kind::Null => Content::Null,
            Kind::Default => Content::Default,
            Kind::Plain => match self.text(cell) {
                [] if !is_text => Content::Null,
                text if nulls.iter().any(|n| n == text) => Content::Null,
                text => Content::Text(text),
            },
            Kind::Quoted => match self.text(cell) {
                [] if !is_text => Content::Null,
                text => Content::Text(text),
            },
            Kind::Number if is_text => Content::Wrong("a number"),
            Kind::Bool if *data_type != DataType::Boolean => Content::Wrong("a truth value"),
            Kind::Nested => Content::Wrong("a list or object"),
            Kind::Number | Kind::Bool => Content::Text(self.text(cell)),
        }
    }

    /// Calls `put` with the value of each row of a column, `None` where it is null or bad; `parse` reads a text.
    fn each<T: Clone>(
        &mut self,
        column: usize,
        field: &Field,
        nulls: &[Vec<u8>],
        zero: T,
        parse: impl Fn(&str) -> Option<T>,
        put: impl FnMut(Option<T>),
    ) {
        self.each_expected(column, field, nulls, zero, expected(field.data_type()), parse, put);
    }

    /// Likewise; `wanted` is what a text must be.
    #[expect(clippy::too_many_arguments, reason = "private, with two callers")]
    fn each_expected<T: Clone>(
        &mut self,
        column: usize,
        field: &Field,
        nulls: &[Vec<u8>],
        zero: T,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
        mut put: impl FnMut(Option<T>),
    ) {
        // An empty text is a string, but no value of any other type.
        let is_text = is_string(field.data_type()) && Semantics::of(field).is_none();
        let cells = self.take_column(column);
        for (row, cell) in cells.iter().enumerate() {
            let reason = match self.content(cell, field.data_type(), is_text, nulls) {
                Content::Default => {
                    put(Some(zero.clone()));
                    continue;
                }
                Content::Null if field.is_nullable() => {
                    put(None);
                    continue;
                }
                Content::Null => match cell.kind {
                    Kind::Missing => "is NOT NULL, and is missing".to_owned(),
                    _ => "is NOT NULL, and is null".to_owned(),
                },
                Content::Text(text) => match std::str::from_utf8(text) {
                    Ok(text) => match parse(text) {
                        Some(value) => {
                            put(Some(value));
                            continue;
                        }
                        None => {
                            format!("expected {wanted}, got \"{}\"", excerpt(text.as_bytes()))
                        }
                    },
                    Err(_) => format!("\"{}\" is not UTF-8", excerpt(text)),
                },
                Content::Wrong(what) => format!("expected {wanted}, got {what}"),
            };
            put(None);
            self.mark(row, format!("column {} {reason}", field.name()));
        }
    }

    fn primitive<T: ArrowPrimitiveType>(
        &mut self,
        column: usize,
        field: &Field,
        nulls: &[Vec<u8>],
        parse: impl Fn(&str) -> Option<T::Native>,
    ) -> ArrayRef {
        let mut builder = PrimitiveBuilder::<T>::with_capacity(self.is_bad.len());
        self.each(column, field, nulls, T::default_value(), parse, |v| builder.append_option(v));
        Arc::new(builder.finish().with_data_type(field.data_type().clone()))
    }

    /// Parses one column.
    pub(super) fn array(&mut self, column: usize, field: &Field, nulls: &[Vec<u8>]) -> ArrayRef {
        macro_rules! strings {
            ($builder:expr) => {{
                let mut builder = $builder;
                let is_text = true;
                let cells = self.take_column(column);
                for (row, cell) in cells.iter().enumerate() {
                    let reason = match self.content(cell, field.data_type(), is_text, nulls) {
                        Content::Text(text) => match std::str::from_utf8(text) {
                            Ok(text) => {
                                builder.append_value(text);
                                continue;
                            }
                            Err(_) => format!("\"{}\" is not UTF-8", excerpt(text)),
                        },
                        Content::Default => {
                            builder.append_value("");
                            continue;
                        }
                        Content::Null if field.is_nullable() => {
                            builder.append_null();
                            continue;
                        }
                        Content::Null if cell.kind == Kind::Missing => "is NOT NULL, and is missing".to_owned(),
                        Content::Null => "is NOT NULL, and is null".to_owned(),
                        Content::Wrong(what) => format!("expected a string, got {what}"),
                    };
                    builder.append_null();
                    self.mark(row, format!("column {} {reason}", field.name()));
                }
                Arc::new(builder.finish()) as ArrayRef
            }};
        }
        macro_rules! numbers {
            ($t:ty) => {
                self.primitive::<$t>(column, field, nulls, <$t as Parser>::parse)
            };
        }
        let rows = self.is_bad.len();
        let flavor = self.flavor;
        match field.data_type() {
            DataType::List(_) | DataType::Struct(_) | DataType::Map(..) => nested(self, column, field, nulls),
            DataType::Utf8 if Semantics::of(field) == Some(Semantics::Json) => self.json(column, field, nulls),
            DataType::Utf8 if Semantics::of(field) == Some(Semantics::Uuid) => {
                let mut builder = StringBuilder::with_capacity(rows, rows * 36);
                self.each_expected(column, field, nulls, String::new(), "a UUID", parse_uuid, |v| {
                    builder.append_option(v)
                });
                Arc::new(builder.finish())
            }
            DataType::Utf8 => strings!(StringBuilder::with_capacity(rows, self.block.len())),
            DataType::LargeUtf8 => strings!(LargeStringBuilder::new()),
            DataType::Utf8View => strings!(StringViewBuilder::new()),
            DataType::Boolean => {
                let mut builder = BooleanBuilder::with_capacity(rows);
                self.each(column, field, nulls, false, parse_bool, |v| builder.append_option(v));
                Arc::new(builder.finish())
            }
            DataType::Int8 => numbers!(Int8Type),
            DataType::Int16 => numbers!(Int16Type),
            DataType::Int32 => numbers!(Int32Type),
            DataType::Int64 => numbers!(Int64Type),
            DataType::UInt8 => numbers!(UInt8Type),
            DataType::UInt16 => numbers!(UInt16Type),
            DataType::UInt32 => numbers!(UInt32Type),
            DataType::UInt64 => numbers!(UInt64Type),
            DataType::Float32 => numbers!(Float32Type),
            DataType::Float64 => numbers!(Float64Type),
            DataType::Date32 => {
                self.primitive::<Date32Type>(column, field, nulls, |t| flavor.days(t).or_else(|| Date32Type::parse(t)))
            }
            DataType::Time32(TimeUnit::Second) => numbers!(Time32SecondType),
            DataType::Time32(TimeUnit::Millisecond) => numbers!(Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => {
                self.primitive::<Time64MicrosecondType>(column, field, nulls, |t| {
                    flavor.time(t, 1_000).or_else(|| Time64MicrosecondType::parse(t))
                })
            }
            DataType::Time64(TimeUnit::Nanosecond) => {
                self.primitive::<Time64NanosecondType>(column, field, nulls, |t| {
                    flavor.time(t, 1).or_else(|| Time64NanosecondType::parse(t))
                })
            }
            DataType::Timestamp(unit, _) => self.timestamps(column, field, nulls, *unit),
            DataType::Decimal128(precision, scale) => {
                let (p, s) = (*precision, *scale);
                self.primitive::<Decimal128Type>(column, field, nulls, |t| {
                    parse_decimal::<Decimal128Type>(t.trim_ascii(), p, s).ok()
                })
            }
            DataType::Binary => {
                let mut builder = BinaryBuilder::new();
                self.each(column, field, nulls, Vec::new(), parse_hex, |v| builder.append_option(v));
                Arc::new(builder.finish())
            }
            // `check_types` has refused all others.
            other => arrow::array::new_null_array(other, rows),
        }
    }

    /// Parses a column of JSON documents: any value is one, as text; what stands in a CSV field is a document's text.
    fn json(&mut self, column: usize, field: &Field, nulls: &[Vec<u8>]) -> ArrayRef {
        let mut builder = StringBuilder::with_capacity(self.rows(), self.rows() * 32);
        let cells = self.take_column(column);
        for (row, cell) in cells.iter().enumerate() {
            let text = self.text(cell);
            let is_null = matches!(cell.kind, Kind::Missing | Kind::Null)
                || cell.kind == Kind::Plain && (text.is_empty() || nulls.iter().any(|n| n == text));
            let document = match cell.kind {
                _ if is_null && field.is_nullable() => {
                    builder.append_null();
                    continue;
                }
                _ if is_null => Err("is NOT NULL, and is null or missing".to_owned()),
                Kind::Default => Ok("null".into()),
                Kind::Quoted if self.is_json => {
                    Ok(serde_json::Value::from(String::from_utf8_lossy(text)).to_string().into())
                }
                _ => match serde_json::from_slice::<serde::de::IgnoredAny>(text) {
                    Ok(_) => Ok(String::from_utf8_lossy(text.trim_ascii())),
                    Err(e) => Err(format!("expected a JSON document, got \"{}\": {e}", excerpt(text))),
                },
            };
            match document {
                Ok(document) => builder.append_value(document),
                Err(wrong) => {
                    builder.append_null();
                    self.mark(row, format!("column {} {wrong}", field.name()));
                }
            }
        }
        Arc::new(builder.finish())
    }

    fn timestamps(&mut self, column: usize, field: &Field, nulls: &[Vec<u8>], unit: TimeUnit) -> ArrayRef {
        let (flavor, per_second) = (self.flavor, per_second(unit));
        let parse = |t: &str| flavor.timestamp(t, per_second).or_else(|| parse_timestamp(t, per_second));
        match unit {
            TimeUnit::Second => self.primitive::<TimestampSecondType>(column, field, nulls, parse),
            TimeUnit::Millisecond => self.primitive::<TimestampMillisecondType>(column, field, nulls, parse),
            TimeUnit::Microsecond => self.primitive::<TimestampMicrosecondType>(column, field, nulls, parse),
            TimeUnit::Nanosecond => self.primitive::<TimestampNanosecondType>(column, field, nulls, parse),
        }
    }
}

/// Makes the block's rows: parses every column, and takes the bad rows out.
pub(crate) fn finish(
    connector: &str,
    mut cells: Cells<'_>,
    schema: &SchemaRef,
    nulls: &[Vec<u8>],
    base: u64,
    records: &[Record],
    weights: Option<Vec<i64>>,
) -> Result<Parsed> {
    let mut arrays: Vec<ArrayRef> = schema.fields().iter().enumerate().map(|(i, f)| cells.array(i, f, nulls)).collect();
    let arrow = |e| ConnectorError::new(connector, format!("the rows do not fit the table: {e}"));
    if !cells.bad.is_empty() {
        cells.mark_whole_records(records);
        let keep = BooleanArray::from(cells.is_bad.iter().map(|b| !b).collect::<Vec<_>>());
        arrays = arrays.iter().map(|a| filter(a, &keep)).collect::<Result<_, _>>().map_err(arrow)?;
    }
    let rows = RecordBatch::try_new(Arc::clone(schema), arrays).map_err(arrow)?;
    let good = |row: usize| !cells.is_bad.get(row).copied().unwrap_or(false);
    let kept = records.iter().enumerate().filter(|(row, _)| good(*row));
    let ends = kept.map(|(_, r)| base + r.end as u64).collect();
    let weights = weights.map(|w| w.into_iter().enumerate().filter(|(row, _)| good(*row)).map(|(_, w)| w).collect());
    let bad = std::mem::take(&mut cells.bad);
    let error = |(row, message): (usize, String)| {
        let record = records.get(row)?;
        let line = cells.block.get(record.start..record.text_end).unwrap_or_default();
        Some(RowError { offset: base + record.start as u64, message: format!("{message}; in: {}", excerpt(line)) })
    };
    let errors = bad.into_iter().filter_map(error).collect();
    Ok(Parsed { rows, weights, ends, errors })
}

/// Refuses columns whose type no text format can hold yet.
pub(crate) fn check_types(connector: &str, schema: &Schema) -> Result<()> {
    for field in schema.fields() {
        if !is_supported(field.data_type()) {
            let message = format!(
                "column {} has the type {}, which files cannot carry yet; leave it out of the relation, or cast it to VARCHAR",
                field.name(),
                field.data_type()
            );
            return Err(ConnectorError::new(connector, message));
        }
    }
    Ok(())
}

/// Refuses columns whose type cannot be written.
pub(crate) fn check_output_types(connector: &str, schema: &Schema) -> Result<()> {
    let is_span = |f: &&FieldRef| {
        !matches!(
            f.data_type(),
            DataType::Interval(IntervalUnit::MonthDayNano) | DataType::Duration(TimeUnit::Microsecond)
        )
    };
    let fields: Vec<FieldRef> = schema.fields().iter().filter(is_span).cloned().collect();
    check_types(connector, &Schema::new(fields))
}

fn is_supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::Map(item, _) => is_supported(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|f| is_supported(f.data_type())),
        other => expected(other) != UNSUPPORTED,
    }
}

const UNSUPPORTED: &str = "a value of another type";

/// What the text of a column's value must be.
pub(super) fn expected(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "a string",
        DataType::Boolean => "true or false",
        DataType::Int8 => "a TINYINT (-128 to 127)",
        DataType::Int16 => "a SMALLINT (-32768 to 32767)",
        DataType::Int32 => "an INT (-2147483648 to 2147483647)",
        DataType::Int64 => "a BIGINT",
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => "an unsigned whole number in range",
        DataType::Float32 | DataType::Float64 => "a number",
        DataType::Date32 => "a date (2013-01-31)",
        DataType::Time32(_) | DataType::Time64(_) => "a time (13:05:00)",
        DataType::Timestamp(..) => "a timestamp (2013-01-31T13:05:00)",
        DataType::Decimal128(..) => "a decimal number in range",
        DataType::Binary => "hexadecimal digits",
        DataType::List(_) => "a JSON list",
        DataType::Struct(_) | DataType::Map(..) => "a JSON object",
        _ => UNSUPPORTED,
    }
}

fn is_string(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn parse_bool(text: &str) -> Option<bool> {
    let text = text.trim_ascii();
    let any = |words: &[&str]| words.iter().any(|w| text.eq_ignore_ascii_case(w));
    if any(&["true", "t", "1"]) {
        Some(true)
    } else if any(&["false", "f", "0"]) {
        Some(false)
    } else {
        None
    }
}

/// A timestamp in so many units a second since 1970; a time zone in the text is converted to UTC, none means UTC.
fn parse_timestamp(text: &str, per_second: i64) -> Option<i64> {
    let utc: Tz = "+00:00".parse().ok()?;
    let time = string_to_datetime(&utc, text.trim_ascii()).ok()?;
    let (seconds, nanos) = (time.timestamp(), i64::from(time.timestamp_subsec_nanos()));
    seconds.checked_mul(per_second)?.checked_add(nanos / (1_000_000_000 / per_second))
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// A UUID as PostgreSQL writes it: 32 hexadecimal digits in lower case, with hyphens.
pub(super) fn parse_uuid(text: &str) -> Option<String> {
    uuid::Uuid::try_parse(text.trim_ascii()).ok().map(|uuid| uuid.hyphenated().to_string())
}

/// Bytes from hexadecimal digits.
pub(crate) fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

/// The beginning of a text, for an error.
pub(crate) fn excerpt(text: &[u8]) -> String {
    const MOST: usize = 120;
    let shown = String::from_utf8_lossy(text.get(..MOST).unwrap_or(text)).into_owned();
    let shown = shown.replace('\n', "\\n").replace('\r', "\\r");
    if text.len() > MOST { format!("{shown}…") } else { shown }
}
