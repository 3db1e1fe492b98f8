//! Values as text: each column is written in one loop of its type.
//!
//! NULL is `null` in JSON, and nothing elsewhere; decimals are strings, to keep every digit; NaN and the infinities are strings too, as JSON has
//! none; binary is hexadecimal. Arrays are lists, structs and maps objects (a map's keys as strings), intervals ISO 8601 strings (`P1DT2H`).
//!
//! Timestamps are `2013-01-31T13:05:00`, with as many of 3, 6 or 9 decimals as they need, in UTC (with a `Z` if the type has a time zone).
//! Floats are the shortest text that reads back as the same number.
//!
//! Invariant: the text is a function of the value and its type, nothing else.

use std::fmt::Write as _;

use arrow::array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::*;
use serde_json::Value;

use crate::connector::{ConnectorError, Result};

/// One column's texts.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    bytes: String,
    ends: Vec<usize>,
}

/// How a column's values stand beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quoting {
    /// As JSON values.
    Json,
    /// As fields of CSV with this delimiter.
    Csv(u8),
    /// As they are; NULL is empty.
    Raw,
}

/// The texts of one column.
pub(crate) fn column(connector: &str, array: &dyn Array, quoting: Quoting) -> Result<Texts> {
    let json = quoting == Quoting::Json;
    let null = if json { "null" } else { "" };
    let quote = if json { "\"" } else { "" };
    macro_rules! plain {
        ($t:ty) => {
            primitive::<$t>(array, null, |out, v| write!(out, "{v}"))
        };
    }
    macro_rules! quoted {
        ($t:ty, $write:expr) => {
            primitive::<$t>(array, null, |out, v| {
                out.push_str(quote);
                $write(out, v)?;
                out.push_str(quote);
                Ok(())
            })
        };
    }
    let texts = match array.data_type() {
        DataType::Boolean => rows(array, null, array.as_boolean().iter(), |out, v| write!(out, "{v}")),
        DataType::Int8 => plain!(Int8Type),
        DataType::Int16 => plain!(Int16Type),
        DataType::Int32 => plain!(Int32Type),
        DataType::Int64 => plain!(Int64Type),
        DataType::UInt8 => plain!(UInt8Type),
        DataType::UInt16 => plain!(UInt16Type),
        DataType::UInt32 => plain!(UInt32Type),
        DataType::UInt64 => plain!(UInt64Type),
        DataType::Float32 => primitive::<Float32Type>(array, null, |out, v| {
            if v.is_finite() { write!(out, "{v:?}") } else { not_finite(out, f64::from(v), quote) }
        }),
        DataType::Float64 => primitive::<Float64Type>(array, null, |out, v| {
            if v.is_finite() { write!(out, "{v:?}") } else { not_finite(out, v, quote) }
        }),
        DataType::Decimal128(_, scale) => quoted!(Decimal128Type, |out: &mut String, v| decimal(out, v, *scale)),
        DataType::Date32 => quoted!(Date32Type, |out: &mut String, v| date(out, i64::from(v))),
        DataType::Time32(TimeUnit::Second) => {
            quoted!(Time32SecondType, |out: &mut String, v| time(out, i64::from(v) * 1_000_000_000))
        }
        DataType::Time32(_) => {
            quoted!(Time32MillisecondType, |out: &mut String, v| time(out, i64::from(v) * 1_000_000))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            quoted!(Time64MicrosecondType, |out: &mut String, v: i64| time(out, v.saturating_mul(1_000)))
        }
        DataType::Time64(_) => quoted!(Time64NanosecondType, |out: &mut String, v| time(out, v)),
        DataType::Timestamp(unit, zone) => {
            let z = if zone.is_some() { "Z" } else { "" };
            match unit {
                TimeUnit::Second => quoted!(TimestampSecondType, |o: &mut String, v| timestamp(o, v, 1, z)),
                TimeUnit::Millisecond => {
                    quoted!(TimestampMillisecondType, |o: &mut String, v| timestamp(o, v, 1_000, z))
                }
                TimeUnit::Microsecond => {
                    quoted!(TimestampMicrosecondType, |o: &mut String, v| timestamp(o, v, 1_000_000, z))
                }
                TimeUnit::Nanosecond => {
                    quoted!(TimestampNanosecondType, |o: &mut String, v| timestamp(o, v, 1_000_000_000, z))
                }
            }
        }
        DataType::Utf8 => rows(array, null, array.as_string::<i32>().iter(), |o, v| text(o, v, quoting)),
        DataType::LargeUtf8 => rows(array, null, array.as_string::<i64>().iter(), |o, v| text(o, v, quoting)),
        DataType::Utf8View => rows(array, null, array.as_string_view().iter(), |o, v| text(o, v, quoting)),
        DataType::Binary => rows(array, null, array.as_binary::<i32>().iter(), |out, v| {
            out.push_str(quote);
            hex(out, v);
            out.push_str(quote);
            Ok(())
        }),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            quoted!(IntervalMonthDayNanoType, |out: &mut String, v: IntervalMonthDayNano| {
                interval(out, v.months, v.days, i128::from(v.nanoseconds))
            })
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            quoted!(DurationMicrosecondType, |out: &mut String, v: i64| interval(out, 0, 0, i128::from(v) * 1_000))
        }
        DataType::List(_) | DataType::Struct(_) | DataType::Map(..) => {
            let documents = documents(connector, array)?;
            return Ok(match quoting {
                Quoting::Csv(delimiter) => documents.quoted(array, delimiter),
                Quoting::Json | Quoting::Raw => documents,
            });
        }
        other => {
            return Err(ConnectorError::new(
                connector,
                format!("a column has the type {other}, which cannot be written"),
            ));
        }
    };
    texts.map_err(|_| ConnectorError::new(connector, "a value cannot be written as text"))
}

/// Lists, structs and maps as JSON.
fn documents(connector: &str, array: &dyn Array) -> Result<Texts> {
    let mut keys: Option<Vec<String>> = None;
    // Where the elements of each row begin; without, each row is an element.
    let mut offsets: Option<&[i32]> = None;
    let parts: Vec<Texts> = match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            offsets = Some(list.value_offsets());
            vec![column(connector, list.values(), Quoting::Json)?]
        }
        DataType::Map(..) => {
            let map = array.as_map();
            offsets = Some(map.value_offsets());
            vec![column(connector, map.keys(), Quoting::Json)?, column(connector, map.values(), Quoting::Json)?]
        }
        _ => {
            let row = array.as_struct();
            keys = Some(row.fields().iter().map(|f| Value::String(f.name().clone()).to_string()).collect());
            row.columns().iter().map(|c| column(connector, c, Quoting::Json)).collect::<Result<_>>()?
        }
    };
    let range = |row: usize| match offsets {
        Some(offsets) => offsets_range(offsets, row),
        None => row..row + 1,
    };
    let (open, close) = if keys.is_none() && parts.len() == 1 { ('[', ']') } else { ('{', '}') };
    let mut texts = Texts::default();
    for row in 0..array.len() {
        let out = &mut texts.bytes;
        if array.is_null(row) {
            out.push_str("null");
            texts.ends.push(texts.bytes.len());
            continue;
        }
        out.push(open);
        let start = out.len();
        for element in range(row) {
            for (i, part) in parts.iter().enumerate() {
                let is_value = keys.is_none() && parts.len() == 2 && i == 1;
                if out.len() > start && !is_value {
                    out.push(',');
                }
                let text = part.get(element);
                match &keys {
                    Some(keys) => {
                        out.push_str(keys.get(i).map_or("", String::as_str));
                        out.push(':');
                        out.push_str(text);
                    }
                    // A key of another type than text is quoted.
                    None if parts.len() == 2 && i == 0 => {
                        let quote = if text.starts_with('"') { "" } else { "\"" };
                        out.extend([quote, text, quote, ":"]);
                    }
                    None => out.push_str(text),
                }
            }
        }
        out.push(close);
        texts.ends.push(texts.bytes.len());
    }
    Ok(texts)
}

fn offsets_range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    let at = |i: usize| offsets.get(i).map_or(0, |&offset| offset as usize);
    at(row)..at(row + 1)
}

impl Texts {
    /// Texts one behind the other.
    pub(crate) fn push(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.bytes.push_str(part));
    }

    /// Ends the text that was pushed.
    pub(crate) fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// The texts in their order; nothing behind the last one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| self.bytes.get(std::mem::replace(&mut start, *end)..*end).unwrap_or_default())
    }

    /// The text of a row.
    pub(crate) fn get(&self, row: usize) -> &str {
        let start = row.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(row).copied().unwrap_or(start);
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// The texts as fields of CSV, empty where the column is NULL.
    fn quoted(&self, array: &dyn Array, delimiter: u8) -> Self {
        let mut texts = Self::default();
        for row in 0..self.ends.len() {
            if array.is_valid(row) {
                csv_text(&mut texts.bytes, self.get(row), delimiter);
            }
            texts.ends.push(texts.bytes.len());
        }
        texts
    }
}

/// Writes bytes as hexadecimal digits.
pub(crate) fn hex(out: &mut String, bytes: &[u8]) {
    let digit = |d: u8| char::from_digit(u32::from(d), 16).unwrap_or('0');
    out.extend(bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]));
}

type Written = std::fmt::Result;

fn primitive<T: ArrowPrimitiveType>(
    array: &dyn Array,
    null: &str,
    write: impl FnMut(&mut String, T::Native) -> Written,
) -> Result<Texts, std::fmt::Error> {
    let typed: &PrimitiveArray<T> = array.as_primitive();
    rows(array, null, typed.iter(), write)
}

fn rows<V>(
    array: &dyn Array,
    null: &str,
    values: impl Iterator<Item = Option<V>>,
    mut write: impl FnMut(&mut String, V) -> Written,
) -> Result<Texts, std::fmt::Error> {
    let mut texts = Texts { bytes: String::with_capacity(array.len() * 8), ends: Vec::with_capacity(array.len()) };
    for value in values {
        match value {
            Some(v) => write(&mut texts.bytes, v)?,
            None => texts.bytes.push_str(null),
        }
        texts.ends.push(texts.bytes.len());
    }
    Ok(texts)
}

fn text(out: &mut String, value: &str, quoting: Quoting) -> Written {
    match quoting {
        Quoting::Csv(delimiter) => csv_text(out, value, delimiter),
        Quoting::Json => json_text(out, value)?,
        Quoting::Raw => out.push_str(value),
    }
    Ok(())
}

pub(crate) fn csv_text(out: &mut String, value: &str, delimiter: u8) {
    let special = |b: u8| b == delimiter || matches!(b, b'"' | b'\n' | b'\r');
    if !value.is_empty() && !value.bytes().any(special) {
        out.push_str(value);
        return;
    }
    out.push('"');
    out.push_str(&value.replace('"', "\"\""));
    out.push('"');
}

pub(crate) fn json_text(out: &mut String, value: &str) -> Written {
    out.push('"');
    let mut rest = value;
    while let Some(i) = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\') {
        let (plain, special) = rest.split_at_checked(i).unwrap_or((rest, ""));
        out.push_str(plain);
        let mut chars = special.chars();
        match chars.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(c) => write!(out, "\\u{:04x}", u32::from(c))?,
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
    Ok(())
}

fn not_finite(out: &mut String, value: f64, quote: &str) -> Written {
    let name = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    write!(out, "{quote}{name}{quote}")
}

fn decimal(out: &mut String, value: i128, scale: i8) -> Written {
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.push('-');
    }
    match usize::try_from(scale) {
        Ok(0) => out.push_str(&digits),
        Ok(scale) => {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at_checked(padded.len() - scale).unwrap_or((&padded, ""));
            write!(out, "{whole}.{fraction}")?;
        }
        Err(_) => {
            out.push_str(&digits);
            if value != 0 {
                out.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
            }
        }
    }
    Ok(())
}

/// An interval as ISO 8601 has it, such as `P1Y2M3DT4H5M6.7S`; none is `PT0S`.
fn interval(out: &mut String, months: i32, days: i32, nanos: i128) -> Written {
    out.push('P');
    let mut part = |value: i64, unit: char| if value == 0 { Ok(()) } else { write!(out, "{value}{unit}") };
    part(i64::from(months / 12), 'Y')?;
    part(i64::from(months % 12), 'M')?;
    part(i64::from(days), 'D')?;
    if nanos == 0 && (months, days) != (0, 0) {
        return Ok(());
    }
    out.push('T');
    let mut part = |value: i128, unit: char| if value == 0 { Ok(()) } else { write!(out, "{value}{unit}") };
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    part(seconds / 3600, 'H')?;
    part(seconds / 60 % 60, 'M')?;
    let seconds = seconds % 60;
    if fraction != 0 {
        let sign = if nanos < 0 { "-" } else { "" };
        let digits = format!("{:09}", fraction.unsigned_abs());
        write!(out, "{sign}{}.{}S", seconds.unsigned_abs(), digits.trim_end_matches('0'))?;
    } else if seconds != 0 || nanos == 0 {
        write!(out, "{seconds}S")?;
    }
    Ok(())
}

/// Year, month and day of a day number since 1970, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that a leap day ends its year; 146097 days are 400 years.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day = z.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let m = (5 * day_of_year + 2) / 153;
    let month = if m < 10 { m + 3 } else { m - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * m + 2) / 5 + 1)
}

fn date(out: &mut String, days: i64) -> Written {
    let (year, month, day) = civil(days);
    match year {
        0..=9999 => write!(out, "{year:04}-{month:02}-{day:02}"),
        _ => write!(out, "{year:+05}-{month:02}-{day:02}"),
    }
}

/// A time of day in nanoseconds.
fn time(out: &mut String, nanos: i64) -> Written {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
    match fraction {
        0 => Ok(()),
        f if f % 1_000_000 == 0 => write!(out, ".{:03}", f / 1_000_000),
        f if f % 1_000 == 0 => write!(out, ".{:06}", f / 1_000),
        f => write!(out, ".{f:09}"),
    }
}

/// A point in time in `per_second` units since 1970.
fn timestamp(out: &mut String, value: i64, per_second: i64, zone: &str) -> Written {
    let (seconds, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    date(out, seconds.div_euclid(86_400))?;
    out.push('T');
    time(out, seconds.rem_euclid(86_400) * 1_000_000_000 + fraction * (1_000_000_000 / per_second))?;
    out.push_str(zone);
    Ok(())
}
