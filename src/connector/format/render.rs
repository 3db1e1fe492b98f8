//! Deltas as lines: of a file, or as the values of messages.
//!
//! JSON, by `update_format`, with keys in the schema's order and values as [`text`](super::text) has them:
//! - `insert_delete` (the default): `{"insert":{…}}` or `{"delete":{…}}`;
//! - `debezium`: `{"before":null,"after":{…},"op":"c"}` or `{"before":{…},"after":null,"op":"d"}`;
//! - `raw`: the row, of a view that never takes one back.
//!
//! CSV: a header line (in files), then the row; the last column, `op`, is `insert` or `delete`. NULL is an empty field, the empty string is
//! `""`; arrays, structs and maps are JSON text.
//!
//! Raw: the bytes of one column of VARCHAR or VARBINARY, of a view that never takes a row back: `column_name` says which, `delimiter` what
//! ends a row in a file (a newline).
//!
//! A row of weight w stands on |w| lines. With `include_step` the line begins with the step's number (`{"step":7,"insert":{…}}`; in CSV the first
//! column, `step`).
//!
//! Invariant: the lines are a function of the delta and the step, nothing else.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use memchr::memchr;
use serde_json::Value;

use super::cell::{check_output_types, excerpt};
use super::json::UpdateFormat;
use super::text::{Quoting, Texts, column, csv_text};
use super::{csv, raw};
use crate::circuit::Delta;
use crate::connector::config::FormatConfig;
use crate::connector::options::{Options, suggestion};
use crate::connector::{ConnectorError, Context, Result};

/// What carries the lines.
#[derive(Clone, Debug)]
pub(crate) enum Carrier {
    /// A file.
    File,
    /// Messages, whose key has these columns.
    Messages(Vec<usize>),
}

/// Renders deltas.
#[derive(Debug)]
pub(crate) struct Renderer {
    connector: String,
    schema: SchemaRef,
    include_step: bool,
    style: Style,
}

#[derive(Debug)]
enum Style {
    /// The keys with quotes and colon, and a comma before all but the first.
    Json {
        keys: Vec<String>,
        update_format: UpdateFormat,
    },
    Csv {
        delimiter: u8,
    },
    /// What ends a row in a file, `None` in messages.
    Raw {
        column: usize,
        end: Option<u8>,
    },
}

/// The columns' names as keys of an object.
fn json_keys(schema: &SchemaRef) -> Vec<String> {
    let key = |(i, f): (usize, &FieldRef)| {
        let comma = if i == 0 { "" } else { "," };
        format!("{comma}{}:", Value::String(f.name().clone()))
    };
    schema.fields().iter().enumerate().map(key).collect()
}

impl Renderer {
    /// The format of an output connector.
    pub(crate) fn new(config: Option<&FormatConfig>, ctx: &Context, carrier: &Carrier) -> Result<Self> {
        let Some(config) = config else {
            let message = "a \"format\" is missing: {\"name\": \"json\"}, {\"name\": \"csv\"} or {\"name\": \"raw\"}";
            return Err(ConnectorError::new(&ctx.name, message));
        };
        check_output_types(&ctx.name, &ctx.schema)?;
        let keys: &[&str] = match carrier {
            Carrier::File => &[],
            Carrier::Messages(_) => &["key_fields", "tombstones"],
        };
        let mut later = vec!["buffer_size_records"];
        if keys.is_empty() {
            later.push("key_fields");
        }
        let (place, config) = (format!("format.config of {}", config.name), config);
        let read = |known: &[&str], later: &[&str]| {
            let known = [known, keys].concat();
            Options::new(&ctx.name, &place, &config.config, &known, later)
        };
        let (include_step, style) = match config.name.as_str() {
            "json" => {
                later.extend(["json_flavor", "array"]);
                let options = read(&["update_format", "include_step"], &later)?;
                let (update_format, include_step) = (UpdateFormat::new(&options)?, options.bool("include_step")?);
                if update_format == UpdateFormat::Raw && include_step == Some(true) {
                    return Err(
                        options.error("\"include_step\" is not for \"update_format\": \"raw\": that is the row alone")
                    );
                }
                (include_step, Style::Json { keys: json_keys(&ctx.schema), update_format })
            }
            "csv" => {
                let options = read(&["delimiter", "include_step"], &later)?;
                (options.bool("include_step")?, Style::Csv { delimiter: csv::delimiter(&options)? })
            }
            "raw" => {
                let (column, end) = match carrier {
                    Carrier::File => {
                        let options = read(&["column_name", "delimiter"], &[])?;
                        (raw_column(&options, ctx, &[])?, Some(raw::delimiter(&options)?))
                    }
                    Carrier::Messages(key) => (raw_column(&read(&["column_name"], &[])?, ctx, key)?, None),
                };
                (None, Style::Raw { column, end })
            }
            "avro" => {
                let message = "the format \"avro\" is one of messages: of kafka_output";
                return Err(ConnectorError::new(&ctx.name, message));
            }
            "parquet" => {
                let message = "a Parquet file ends with its footer, so that nothing can be appended to it: use s3_output, which makes a file of each step, also in \
                     a folder (\"url\": \"file:///folder\")";
                return Err(ConnectorError::new(&ctx.name, message));
            }
            other => {
                let hint = suggestion(other, &["json", "csv", "raw"]);
                return Err(ConnectorError::new(&ctx.name, format!("there is no output format \"{other}\"; {hint}")));
            }
        };
        Ok(Self {
            connector: ctx.name.clone(),
            schema: ctx.schema.clone(),
            include_step: include_step.unwrap_or(false),
            style,
        })
    }

    /// A renderer of JSON for [`Renderer::objects`].
    pub(crate) fn of_objects(connector: &str, schema: &SchemaRef) -> Result<Self> {
        check_output_types(connector, schema)?;
        let style = Style::Json { keys: json_keys(schema), update_format: UpdateFormat::Raw };
        Ok(Self { connector: connector.to_owned(), schema: schema.clone(), include_step: false, style })
    }

    /// Whether it writes Debezium's events.
    pub(crate) fn is_debezium(&self) -> bool {
        matches!(self.style, Style::Json { update_format: UpdateFormat::Debezium, .. })
    }

    /// Whether it writes bytes as they are.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.style, Style::Raw { .. })
    }

    /// How a JSON line of this step begins, behind its brace.
    pub(crate) fn step_text(&self, step: u64) -> String {
        if self.include_step { format!("\"step\":{step},") } else { String::new() }
    }

    /// A JSON object for each row.
    pub(crate) fn objects(&self, columns: &[ArrayRef], rows: usize) -> Result<Texts> {
        let mut objects = Texts::default();
        let Style::Json { keys, .. } = &self.style else { return Ok(objects) };
        let columns =
            columns.iter().map(|c| column(&self.connector, c, Quoting::Json)).collect::<Result<Vec<Texts>>>()?;
        for row in 0..rows {
            objects.push(&["{"]);
            for (texts, key) in columns.iter().zip(keys) {
                objects.push(&[key, texts.get(row)]);
            }
            objects.push(&["}"]);
            objects.end();
        }
        Ok(objects)
    }

    /// What a file begins with.
    pub(crate) fn header(&self, out: &mut Vec<u8>) {
        let Style::Csv { delimiter } = self.style else { return };
        let mut names: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        names.push("op");
        if self.include_step {
            names.insert(0, "step");
        }
        for (i, name) in names.iter().enumerate() {
            if i > 0 {
                out.push(delimiter);
            }
            let mut text = String::new();
            csv_text(&mut text, name, delimiter);
            out.extend_from_slice(text.as_bytes());
        }
        out.push(b'\n');
    }

    /// Appends a step's lines, each with what ends it.
    pub(crate) fn render(&self, step: u64, delta: &Delta, out: &mut Vec<u8>) -> Result<()> {
        let end = match self.style {
            Style::Raw { end, .. } => end.unwrap_or(b'\n'),
            Style::Json { .. } | Style::Csv { .. } => b'\n',
        };
        self.lines(step, delta, |_, line, count| {
            for _ in 0..count {
                out.extend_from_slice(line.unwrap_or_default());
                out.push(end);
            }
        })
    }

    /// Calls `put` with each row's number, line, and how often it stands there. Only in messages a line can be missing: it is NULL.
    pub(crate) fn lines(&self, step: u64, delta: &Delta, mut put: impl FnMut(usize, Option<&[u8]>, u64)) -> Result<()> {
        if delta.is_empty() {
            return Ok(());
        }
        let quoting = match self.style {
            Style::Csv { delimiter } => Quoting::Csv(delimiter),
            Style::Json { .. } => Quoting::Json,
            Style::Raw { column, end } => return self.raw_lines(step, delta, (column, end), put),
        };
        self.refuse_deletes(step, delta)?;
        let connector = &self.connector;
        let columns =
            delta.rows.columns().iter().map(|c| column(connector, c, quoting)).collect::<Result<Vec<Texts>>>()?;
        let mut readers: Vec<_> = columns.iter().map(Texts::iter).collect();
        let (json_step, csv_step) = (self.step_text(step), step.to_string());
        let mut line = Vec::new();
        for (row, weight) in delta.weights.iter().enumerate() {
            line.clear();
            let inserts = *weight > 0;
            match &self.style {
                Style::Json { keys, update_format } => {
                    let (before, after): (&[u8], &[u8]) = match (update_format, inserts) {
                        (UpdateFormat::Raw, _) => (b"", b""),
                        (UpdateFormat::InsertDelete, true) => (b"\"insert\":", b"}"),
                        (UpdateFormat::InsertDelete, false) => (b"\"delete\":", b"}"),
                        (UpdateFormat::Debezium, true) => (b"\"before\":null,\"after\":", b",\"op\":\"c\"}"),
                        (UpdateFormat::Debezium, false) => (b"\"before\":", b",\"after\":null,\"op\":\"d\"}"),
                    };
                    if *update_format != UpdateFormat::Raw {
                        line.push(b'{');
                        line.extend_from_slice(json_step.as_bytes());
                    }
                    line.extend_from_slice(before);
                    line.push(b'{');
                    for (reader, key) in readers.iter_mut().zip(keys) {
                        line.extend_from_slice(key.as_bytes());
                        line.extend_from_slice(reader.next().unwrap_or_default().as_bytes());
                    }
                    line.push(b'}');
                    line.extend_from_slice(after);
                }
                Style::Csv { delimiter } => {
                    if self.include_step {
                        line.extend_from_slice(csv_step.as_bytes());
                        line.push(*delimiter);
                    }
                    for reader in &mut readers {
                        line.extend_from_slice(reader.next().unwrap_or_default().as_bytes());
                        line.push(*delimiter);
                    }
                    line.extend_from_slice(if inserts { b"insert" } else { b"delete" });
                }
                Style::Raw { .. } => {}
            }
            put(row, Some(&line), weight.unsigned_abs());
        }
        Ok(())
    }

    fn raw_lines(
        &self,
        step: u64,
        delta: &Delta,
        (column, end): (usize, Option<u8>),
        mut put: impl FnMut(usize, Option<&[u8]>, u64),
    ) -> Result<()> {
        self.refuse_deletes(step, delta)?;
        let Some(array) = delta.rows.columns().get(column) else { return Ok(()) };
        let name = self.schema.field(column).name();
        for (row, weight) in delta.weights.iter().enumerate() {
            let value = bytes_of(array, row);
            let wrong = match (end, value) {
                (Some(_), None) => {
                    Some("is NULL, which a file of raw bytes cannot say: filter such rows out".to_owned())
                }
                (Some(end), Some(value)) => memchr(end, value).map(|_| {
                    format!(
                        "has a row with the byte {end} in it, which ends rows: set another \"delimiter\"; it is: {}",
                        excerpt(value)
                    )
                }),
                (None, _) => None,
            };
            if let Some(wrong) = wrong {
                return Err(ConnectorError::new(&self.connector, format!("step {step}: column {name} {wrong}")));
            }
            put(row, value, weight.unsigned_abs());
        }
        Ok(())
    }

    /// A row that is taken back cannot be said in the raw formats.
    fn refuse_deletes(&self, step: u64, delta: &Delta) -> Result<()> {
        match &self.style {
            Style::Json { update_format: UpdateFormat::Raw, .. } => {
                refuse_deletes(&self.connector, step, delta, "\"update_format\": \"raw\"")
            }
            Style::Raw { .. } => refuse_deletes(&self.connector, step, delta, "the format \"raw\""),
            _ => Ok(()),
        }
    }
}

/// Refuses a delta that takes a row back, which `what` cannot say.
pub(crate) fn refuse_deletes(connector: &str, step: u64, delta: &Delta, what: &str) -> Result<()> {
    let Some(row) = delta.weights.iter().position(|w| *w < 0) else { return Ok(()) };
    let shown = delta.rows.slice(row, 1);
    let texts = shown.columns().iter().map(|c| column(connector, c, Quoting::Raw)).collect::<Result<Vec<Texts>>>()?;
    let texts: Vec<&str> = texts.iter().map(|t| t.get(0)).collect();
    Err(ConnectorError::new(
        connector,
        format!(
            "step {step} takes the row ({}) back, which {what} cannot say; it is for views that only grow: use \"insert_delete\" of json",
            excerpt(texts.join(", ").as_bytes())
        ),
    ))
}

/// The column of raw bytes among those that are not the key's.
fn raw_column(options: &Options<'_>, ctx: &Context, key: &[usize]) -> Result<usize> {
    let fields = ctx.schema.fields().iter().map(|f| &**f).enumerate();
    let fields: Vec<(usize, &Field)> = fields.filter(|(i, _)| !key.contains(i)).collect();
    let column = raw::column(options, &fields)?;
    // The other columns would be lost.
    if let Some((_, other)) = fields.iter().find(|(i, _)| *i != column) {
        return Err(options.error(format!(
            "raw bytes are one column, and the view has {} too: leave it out of the view, or use json",
            other.name()
        )));
    }
    Ok(column)
}

/// Whether a key of one column can be its bytes.
pub(crate) fn is_raw_key(schema: &SchemaRef, key: &[usize]) -> bool {
    match key {
        [only] => schema.fields().get(*only).is_some_and(|f| raw::bytes_type(f)),
        _ => false,
    }
}

/// The bytes of a row of a column of VARCHAR or VARBINARY; `None`: NULL.
pub(crate) fn bytes_of(array: &ArrayRef, row: usize) -> Option<&[u8]> {
    match array.data_type() {
        _ if array.is_null(row) => None,
        DataType::Utf8 => array.as_string_opt::<i32>().map(|a| a.value(row).as_bytes()),
        DataType::Binary => array.as_binary_opt::<i32>().map(|a| a.value(row)),
        _ => None,
    }
}
