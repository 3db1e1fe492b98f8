//! Rows in log records: what push records and taken records have in common.
//!
//! A log payload is a kind byte, one format byte, the length of a JSON header (u32, little-endian), the header, then the rows as an Arrow
//! IPC stream: the table's columns followed by `#weight` (Int64).
//!
//! Known limit: the reader of Arrow IPC may panic on damaged bytes; the storage engine's checksums keep these away from it.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pipeline::error::{PipelineError, Result};

/// A kind of record: its first byte, the format that this build writes and reads, and its name in errors.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The first byte.
    pub byte: u8,
    /// The second.
    pub format: u8,
    /// `push`, say.
    pub name: &'static str,
}

impl Kind {
    /// The log payload of a header and [rows](encode_rows).
    pub fn encode(self, header: &impl Serialize, rows: &[u8]) -> Result<Vec<u8>> {
        let fail =
            |e: &dyn std::fmt::Display| PipelineError::State(format!("a {} record cannot be written: {e}", self.name));
        let header = serde_json::to_vec(header).map_err(|e| fail(&e))?;
        let length = u32::try_from(header.len()).map_err(|e| fail(&e))?;
        let mut bytes = Vec::with_capacity(6 + header.len() + rows.len());
        bytes.extend_from_slice(&[self.byte, self.format]);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(rows);
        Ok(bytes)
    }

    /// Reads the header of a log payload, and where its rows are. `seq` is its place in the log, for the error.
    pub fn decode<H: DeserializeOwned>(self, seq: u64, payload: &[u8]) -> Result<(H, &[u8])> {
        let Kind { byte, format: known, name } = self;
        let fail = |what: String| PipelineError::State(format!("log record {seq}: {what}"));
        let (format, rest) = match payload {
            [kind, format, rest @ ..] if *kind == byte => (*format, rest),
            _ => return Err(fail(format!("no {name} record"))),
        };
        if format != known {
            return Err(fail(format!(
                "{name} format {format:#04x}, this version reads {known:#04x}; use the version that wrote it"
            )));
        }
        let parts = rest.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        let (header, rows) = parts.ok_or_else(|| fail(format!("a {name} record that ends in its header")))?;
        let header =
            serde_json::from_slice(header).map_err(|e| fail(format!("not the header of a {name} record: {e}")))?;
        Ok((header, rows))
    }
}

/// The rows as they stand in a record.
pub fn encode_rows(rows: &RecordBatch, weights: Option<&[i64]>) -> Result<Vec<u8>> {
    let fail = |e: ArrowError| PipelineError::State(format!("rows cannot be written to the log: {e}"));
    let schema = extended(&rows.schema());
    let weights = match weights {
        Some(weights) => Int64Array::from(weights.to_vec()),
        None => Int64Array::from_value(1, rows.num_rows()),
    };
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(weights));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(fail)?;
    writer.write(&RecordBatch::try_new(schema, columns).map_err(fail)?).map_err(fail)?;
    writer.into_inner().map_err(fail)
}

/// The rows of a record that has so many, and their weights.
pub fn decode_rows(seq: u64, schema: &SchemaRef, (count, rows): (u64, &[u8])) -> Result<(RecordBatch, Vec<i64>)> {
    let fail = |e: &dyn std::fmt::Display| {
        PipelineError::State(format!("log record {seq}: its rows are not those of the table: {e}"))
    };
    let mut batches = Vec::new();
    for batch in StreamReader::try_new(rows, None).map_err(|e| fail(&e))? {
        batches.push(batch.map_err(|e| fail(&e))?);
    }
    let all = concat_batches(&extended(schema), &batches).map_err(|e| fail(&e))?;
    let (columns, weights) =
        all.columns().split_at_checked(schema.fields().len()).ok_or_else(|| fail(&"columns are missing"))?;
    let weights = weights.first().and_then(|w| w.as_primitive_opt::<Int64Type>());
    let weights = weights.ok_or_else(|| fail(&"there is no column of weights"))?.values().to_vec();
    let rows = RecordBatch::try_new(Arc::clone(schema), columns.to_vec()).map_err(|e| fail(&e))?;
    if rows.num_rows() as u64 != count {
        return Err(fail(&format!("there are {}, expected {count}", rows.num_rows())));
    }
    Ok((rows, weights))
}

fn extended(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("#weight", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}
