//! Which columns of a table can take which of a view.
//!
//! Invariant: what fits keeps every digit: a numeric column has room for all of a DECIMAL's, a time or timestamp all its microseconds.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

/// How a value stands in a line for COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As its text.
    Plain,
    /// As PostgreSQL's arrays are written.
    Array,
    /// As JSON.
    Document,
}

/// A column's type at the server.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnType {
    /// As SQL writes it, `numeric(10,2)`.
    pub(super) sql: String,
    /// Its name in the catalogue, `int4`; a domain's underlying one.
    pub(super) name: String,
    pub(super) is_enum: bool,
    /// An array's items, by name in the catalogue.
    pub(super) item: Option<String>,
    /// Length, precision and scale, as the catalogue has them; −1: none.
    pub(super) modifier: i32,
}

/// The form in which values of a view's column go into such a column; `None`: they do not fit.
pub(super) fn fit(from: &DataType, to: &ColumnType) -> Option<Form> {
    let is_json = ["json", "jsonb"].contains(&to.name.as_str());
    match from {
        DataType::List(_) | DataType::Struct(_) | DataType::Map(..) if is_json => Some(Form::Document),
        DataType::List(item) => {
            let name = to.item.clone()?;
            let nested = matches!(item.data_type(), DataType::List(_) | DataType::Struct(_) | DataType::Map(..));
            let item_type = ColumnType { name, modifier: to.modifier, ..ColumnType::default() };
            (!nested && fit(item.data_type(), &item_type) == Some(Form::Plain)).then_some(Form::Array)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if to.is_enum => Some(Form::Plain),
        _ => (names(from).contains(&to.name.as_str()) && has_room(from, to)).then_some(Form::Plain),
    }
}

/// The types that take such values, the best first.
pub(super) fn names(from: &DataType) -> &'static [&'static str] {
    match from {
        DataType::Boolean => &["bool"],
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => &["int2", "int4", "int8", "numeric"],
        DataType::Int32 | DataType::UInt16 => &["int4", "int8", "numeric"],
        DataType::Int64 | DataType::UInt32 => &["int8", "numeric"],
        DataType::UInt64 | DataType::Decimal128(..) => &["numeric"],
        DataType::Float32 => &["float4", "float8"],
        DataType::Float64 => &["float8"],
        DataType::Date32 => &["date"],
        DataType::Time32(_) | DataType::Time64(_) => &["time"],
        DataType::Timestamp(_, None) => &["timestamp"],
        DataType::Timestamp(_, Some(_)) => &["timestamptz"],
        // Views keep the text only of what is a UUID or JSON in a table.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            &["text", "varchar", "bpchar", "uuid", "json", "jsonb"]
        }
        DataType::Binary => &["bytea"],
        DataType::Interval(IntervalUnit::MonthDayNano) | DataType::Duration(_) => &["interval"],
        DataType::Struct(_) | DataType::Map(..) => &["jsonb", "json"],
        _ => &[],
    }
}

/// What a column for such values would be declared as.
pub(super) fn declaration(from: &DataType) -> String {
    match from {
        DataType::List(item)
            if !matches!(item.data_type(), DataType::List(_) | DataType::Struct(_) | DataType::Map(..)) =>
        {
            format!("{}[]", declaration(item.data_type()))
        }
        DataType::List(_) => "jsonb".to_owned(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::UInt64 => "numeric(20,0)".to_owned(),
        other => names(other).first().copied().unwrap_or("text").to_owned(),
    }
}

fn has_room(from: &DataType, to: &ColumnType) -> bool {
    if to.modifier < 0 {
        return true;
    }
    match (to.name.as_str(), from) {
        ("numeric", _) => {
            // As the catalogue packs them: precision in the upper half, scale in eleven signed bits below.
            let packed = to.modifier - 4;
            let (precision, scale) = ((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024);
            let (digits, decimals) = match from {
                DataType::Decimal128(precision, scale) => (i32::from(*precision), i32::from(*scale)),
                DataType::Int8 | DataType::UInt8 => (3, 0),
                DataType::Int16 | DataType::UInt16 => (5, 0),
                DataType::Int32 | DataType::UInt32 => (10, 0),
                DataType::UInt64 => (20, 0),
                _ => (19, 0),
            };
            scale >= decimals && precision - scale >= digits - decimals
        }
        ("time" | "timestamp" | "timestamptz", DataType::Timestamp(TimeUnit::Second, _)) => true,
        ("time" | "timestamp" | "timestamptz", _) => to.modifier >= 6,
        _ => true,
    }
}
