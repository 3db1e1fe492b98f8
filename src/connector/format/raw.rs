//! Bytes as they are, into one column of VARCHAR or VARBINARY.
//!
//! Settings, as Feldera's: `mode`: `blob` (the default: a whole file, or a whole message, is a row) or `lines` (what stands before each newline is a
//! row); `column_name` (needed where the table has several columns; the others must be nullable, and are NULL). Ours: `delimiter`, an ASCII
//! character that ends rows in place of the newline.
//!
//! Nothing is taken off a row: a `\r` before the newline stays, and an empty line is an empty row. What is not UTF-8 is no VARCHAR: such a row does
//! not parse. A message without a value is NULL.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, StringBuilder, new_null_array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use memchr::memchr;
use serde_json::Value;

use super::Parsed;
use super::cell::excerpt;
use super::split::{Framing, Record};
use crate::connector::options::{Options, suggestion};
use crate::connector::{ConnectorError, Context, Result, RowError};
use crate::sql::Semantics;

/// The settings of raw input.
#[derive(Debug)]
pub(crate) struct Raw {
    connector: String,
    schema: SchemaRef,
    column: usize,
    /// What ends a row; `None`: the whole is one.
    delimiter: Option<u8>,
}

/// The column that holds the bytes: the one that is named, or the only one.
pub(super) fn column(options: &Options<'_>, fields: &[(usize, &Field)]) -> Result<usize> {
    let names: Vec<&str> = fields.iter().map(|(_, f)| f.name().as_str()).collect();
    let (column, field) = match (options.string("column_name")?, fields) {
        (Some(name), _) => fields.iter().find(|(_, f)| f.name() == name).ok_or_else(|| {
            options.error(format!("\"column_name\" names {name}, which is no column; {}", suggestion(name, &names)))
        })?,
        (None, [only]) => only,
        (None, _) => {
            return Err(options.error(format!(
                "\"column_name\" is missing: which of these columns is the bytes? {}",
                names.join(", ")
            )));
        }
    };
    match bytes_type(field) {
        true => Ok(*column),
        false => Err(options.error(format!(
            "column {} has the type {}; raw bytes need VARCHAR or VARBINARY",
            field.name(),
            field.data_type()
        ))),
    }
}

/// Whether a column can hold bytes as they are.
pub(crate) fn bytes_type(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Utf8 | DataType::Binary) && Semantics::of(field).is_none()
}

/// Reads `delimiter`: the byte that ends rows, a newline if it is not there.
pub(super) fn delimiter(options: &Options<'_>) -> Result<u8> {
    match options.string("delimiter")?.map(str::as_bytes) {
        None => Ok(b'\n'),
        Some(&[byte]) if byte.is_ascii() => Ok(byte),
        Some(_) => Err(options.error("\"delimiter\" must be one ASCII character, such as \"\\n\" or \"\\u0000\"")),
    }
}

impl Raw {
    pub(crate) fn new(config: &Value, ctx: &Context) -> Result<Self> {
        let known = ["mode", "column_name", "delimiter"];
        let options = Options::new(&ctx.name, "format.config of raw", config, &known, &[])?;
        let fields: Vec<(usize, &Field)> = ctx.schema.fields().iter().map(|f| &**f).enumerate().collect();
        let column = column(&options, &fields)?;
        if let Some((_, other)) = fields.iter().find(|(i, f)| *i != column && !f.is_nullable()) {
            return Err(options.error(format!(
                "column {} is NOT NULL, and nothing fills it; let it be NULL, or leave it out",
                other.name()
            )));
        }
        let delimiter = match options.string("mode")? {
            Some("lines") => Some(delimiter(&options)?),
            None | Some("blob") if options.value("delimiter").is_none() => None,
            None | Some("blob") => return Err(options.error("\"delimiter\" needs \"mode\": \"lines\"")),
            Some(other) => return Err(options.unknown("mode", other, &["blob", "lines"])),
        };
        Ok(Self { connector: ctx.name.clone(), schema: ctx.schema.clone(), column, delimiter })
    }

    pub(crate) fn framing(&self) -> Framing {
        self.delimiter.map_or(Framing::Whole, Framing::Ended)
    }

    /// Makes rows of records. One of a file is a row; a message is one, or as many as it has lines.
    pub(crate) fn parse(&self, block: &[u8], base: u64, records: &[Record]) -> Result<Parsed> {
        let field = self.schema.field(self.column);
        let mut rows = Rows {
            is_text: *field.data_type() == DataType::Utf8,
            text: StringBuilder::new(),
            bytes: BinaryBuilder::new(),
            ends: Vec::with_capacity(records.len()),
            errors: Vec::new(),
        };
        for record in records {
            let (start, end) = (base + record.start as u64, base + record.end as u64);
            if record.absent {
                match field.is_nullable() {
                    true => rows.null(end),
                    false => {
                        let message = format!("column {} is NOT NULL, and the message has no value", field.name());
                        rows.errors.push(RowError { offset: start, message });
                    }
                }
                continue;
            }
            let mut rest = block.get(record.start..record.text_end).unwrap_or_default();
            let mut at = start;
            while let Some(i) = self.delimiter.and_then(|byte| memchr(byte, rest)) {
                rows.push(rest.get(..i).unwrap_or_default(), at, end, field.name());
                rest = rest.get(i + 1..).unwrap_or_default();
                at += i as u64 + 1;
                if rest.is_empty() {
                    break;
                }
            }
            if at == start || !rest.is_empty() {
                rows.push(rest, at, end, field.name());
            }
        }
        let Rows { is_text, mut text, mut bytes, ends, errors } = rows;
        let values: ArrayRef = if is_text { Arc::new(text.finish()) } else { Arc::new(bytes.finish()) };
        let arrays = self.schema.fields().iter().enumerate().map(|(i, f)| match i == self.column {
            true => Arc::clone(&values),
            false => new_null_array(f.data_type(), ends.len()),
        });
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), arrays.collect())
            .map_err(|e| ConnectorError::new(&self.connector, format!("the rows do not fit the table: {e}")))?;
        Ok(Parsed { rows, weights: None, ends, errors })
    }
}

/// Rows that are being gathered.
struct Rows {
    is_text: bool,
    text: StringBuilder,
    bytes: BinaryBuilder,
    ends: Vec<u64>,
    errors: Vec<RowError>,
}

impl Rows {
    fn push(&mut self, value: &[u8], at: u64, end: u64, column: &str) {
        match (self.is_text, std::str::from_utf8(value)) {
            (false, _) => self.bytes.append_value(value),
            (true, Ok(text)) => self.text.append_value(text),
            (true, Err(_)) => {
                let message =
                    format!("column {column}: \"{}\" is not UTF-8; VARBINARY takes any bytes", excerpt(value));
                self.errors.push(RowError { offset: at, message });
                return;
            }
        }
        self.ends.push(end);
    }

    fn null(&mut self, end: u64) {
        match self.is_text {
            true => self.text.append_null(),
            false => self.bytes.append_null(),
        }
        self.ends.push(end);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use backstay_storage::disk::SimDisk;
    use serde_json::json;

    use super::*;
    use crate::connector::testing::context;

    fn raw(data_type: DataType, config: &Value) -> Result<Raw> {
        let fields = vec![Field::new("id", DataType::Int64, true), Field::new("data", data_type, true)];
        let schema = Arc::new(arrow::datatypes::Schema::new(fields));
        Raw::new(config, &context(Arc::new(SimDisk::new(1)), schema))
    }

    fn message(start: usize, text_end: usize, absent: bool) -> Record {
        Record { start, text_end, end: text_end + 1, broken: false, absent }
    }

    #[test]
    fn messages_are_rows_or_lines() {
        let block = b"a\nb\n\0\xff\nc\0\0";
        let records = [message(0, 4, false), message(5, 8, false), message(9, 9, false), message(10, 10, true)];
        let lines = raw(DataType::Utf8, &json!({"column_name": "data", "mode": "lines"})).unwrap();
        let parsed = lines.parse(block, 0, &records).unwrap();
        let found: Vec<Option<&str>> = parsed.rows.column(1).as_string::<i32>().iter().collect();
        assert_eq!(found, [Some("a"), Some("b"), Some("c"), Some(""), None]);
        assert_eq!(parsed.ends, [5, 5, 9, 10, 11]);
        assert_eq!(parsed.errors.len(), 1);
        assert_eq!(parsed.errors[0].offset, 5);
        assert_eq!(parsed.rows.column(0).null_count(), 5);

        let blob = raw(DataType::Binary, &json!({"column_name": "data"})).unwrap();
        let parsed = blob.parse(block, 100, &records).unwrap();
        let found: Vec<Option<&[u8]>> = parsed.rows.column(1).as_binary::<i32>().iter().collect();
        assert_eq!(found, [Some(&b"a\nb\n"[..]), Some(b"\xff\nc"), Some(b""), None]);
        assert_eq!((parsed.ends[3], parsed.errors.len()), (111, 0));
    }

    #[test]
    fn settings_are_checked() {
        let error = |data_type, config: Value| raw(data_type, &config).unwrap_err().to_string();
        assert!(error(DataType::Utf8, json!({})).contains("which of these columns is the bytes? id, data"));
        let e = error(DataType::Utf8, json!({"column_name": "dat"}));
        assert!(e.contains("did you mean \"data\"?"), "{e}");
        assert!(error(DataType::Utf8, json!({"column_name": "id"})).contains("VARCHAR or VARBINARY"));
        let e = error(DataType::Utf8, json!({"column_name": "data", "mode": "line"}));
        assert!(e.contains("did you mean \"lines\"?"), "{e}");
        let e = error(DataType::Utf8, json!({"column_name": "data", "delimiter": ";"}));
        assert!(e.contains("\"mode\": \"lines\""), "{e}");
    }
}
