//! Push records: the log entry of rows that a client pushed.
//!
//! A log payload is the kind byte `P`, one format byte, the length of a JSON header (u32, little-endian), the header, then the rows as an Arrow
//! IPC stream: the table's columns followed by `#weight` (Int64). Unlike a step record it holds the rows, since nobody can be asked for
//! them again.
//!
//! Known limit: the reader of Arrow IPC may panic on damaged bytes; the storage engine's checksums keep these away from it.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};

use crate::pipeline::error::{PipelineError, Result};

/// First byte of a push record.
pub const KIND_PUSH: u8 = b'P';
/// The format of push records that this build writes and reads.
pub const FORMAT: u8 = 1;

/// What a push record says besides its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushHeader {
    /// The table.
    pub table: String,
    /// The pushes of a table are numbered from 0.
    pub number: u64,
    /// Number of rows.
    pub rows: u64,
    /// The client's key, if it gave one, so that it may repeat the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PushKey>,
}

/// A client's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushKey {
    /// Hash of the key's text, in hexadecimal.
    #[serde(with = "hex")]
    pub hash: u128,
    /// Hash of the request that it was given with.
    pub body: u64,
    /// When it came, in ms since 1970.
    pub at_ms: i64,
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(n: &u128, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&format!("{n:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        u128::from_str_radix(&String::deserialize(from)?, 16).map_err(de::Error::custom)
    }
}

/// The rows as they stand in a record.
pub fn encode_rows(rows: &RecordBatch, weights: Option<&[i64]>) -> Result<Vec<u8>> {
    let fail = |e: ArrowError| PipelineError::State(format!("pushed rows cannot be written: {e}"));
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

/// The log payload.
pub fn encode(header: &PushHeader, rows: &[u8]) -> Result<Vec<u8>> {
    let fail = |e: &dyn std::fmt::Display| PipelineError::State(format!("a push record cannot be written: {e}"));
    let header = serde_json::to_vec(header).map_err(|e| fail(&e))?;
    let length = u32::try_from(header.len()).map_err(|e| fail(&e))?;
    let mut bytes = Vec::with_capacity(6 + header.len() + rows.len());
    bytes.extend_from_slice(&[KIND_PUSH, FORMAT]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(rows);
    Ok(bytes)
}

/// Reads the header of a log payload, and where its rows are. `seq` is its place in the log, for the error.
pub fn decode(seq: u64, payload: &[u8]) -> Result<(PushHeader, &[u8])> {
    let fail = |what: String| PipelineError::State(format!("log record {seq}: {what}"));
    let [KIND_PUSH, format, rest @ ..] = payload else { return Err(fail("no push record".to_owned())) };
    if *format != FORMAT {
        return Err(fail(format!(
            "push format {format:#04x}, this version reads {FORMAT:#04x}; use the version that wrote it"
        )));
    }
    let parts = rest.split_first_chunk::<4>().and_then(|(length, rest)| {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        rest.split_at_checked(length)
    });
    let (header, rows) = parts.ok_or_else(|| fail("a push record that ends in its header".to_owned()))?;
    let header = serde_json::from_slice(header).map_err(|e| fail(format!("not the header of a push record: {e}")))?;
    Ok((header, rows))
}

/// The rows of a record and their weights, if these are not all 1.
pub fn decode_rows(
    seq: u64,
    schema: &SchemaRef,
    (header, rows): (&PushHeader, &[u8]),
) -> Result<(RecordBatch, Option<Vec<i64>>)> {
    let fail = |e: &dyn std::fmt::Display| {
        PipelineError::State(format!("log record {seq}: the pushed rows are not those of the table: {e}"))
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
    if rows.num_rows() as u64 != header.rows {
        return Err(fail(&format!("there are {}, expected {}", rows.num_rows(), header.rows)));
    }
    Ok((rows, weights.iter().any(|&w| w != 1).then_some(weights)))
}

fn extended(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("#weight", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;

    fn header() -> PushHeader {
        PushHeader {
            table: "t".into(),
            number: 7,
            rows: 2,
            key: Some(PushKey { hash: 0xabc, body: u64::MAX, at_ms: 1_700_000_000_000 }),
        }
    }

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true)]))
    }

    fn rows() -> RecordBatch {
        RecordBatch::try_new(schema(), vec![Arc::new(StringArray::from(vec![Some("a"), None]))]).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let golden = r#"{"table":"t","number":7,"rows":2,"key":{"hash":"00000000000000000000000000000abc","body":18446744073709551615,"at_ms":1700000000000}}"#;
        let bytes = encode(&header(), b"rows").unwrap();
        let length = u32::try_from(golden.len()).unwrap().to_le_bytes();
        assert_eq!(bytes, [b"P\x01", &length[..], golden.as_bytes(), b"rows"].concat());
        assert_eq!(decode(1, &bytes).unwrap(), (header(), &b"rows"[..]));
        let without = PushHeader { key: None, ..header() };
        assert_eq!(decode(1, &encode(&without, &[]).unwrap()).unwrap().0, without);
    }

    #[test]
    fn rows_come_back_with_their_weights() {
        for weights in [None, Some(vec![1, -1])] {
            let bytes = encode_rows(&rows(), weights.as_deref()).unwrap();
            assert_eq!(decode_rows(1, &schema(), (&header(), &bytes)).unwrap(), (rows(), weights));
        }
        let (none, header) = (RecordBatch::new_empty(schema()), PushHeader { rows: 0, ..header() });
        assert_eq!(decode_rows(1, &schema(), (&header, &encode_rows(&none, None).unwrap())).unwrap(), (none, None));
    }

    #[test]
    fn damage_is_an_error_with_its_place() {
        let bytes = encode(&header(), &encode_rows(&rows(), None).unwrap()).unwrap();
        for length in 0..bytes.len() {
            let read =
                decode(9, &bytes[..length]).and_then(|(header, rows)| decode_rows(9, &schema(), (&header, rows)));
            let is_whole = read.as_ref().is_ok_and(|(rows, _)| rows.num_rows() == 2);
            assert!(is_whole || read.is_err_and(|e| e.to_string().starts_with("log record 9: ")), "{length}");
        }
        assert!(decode(9, b"P\x02").unwrap_err().to_string().contains("format 0x02"));
        let other: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        assert!(decode_rows(9, &other, (&header(), &encode_rows(&rows(), None).unwrap())).is_err());
    }
}
