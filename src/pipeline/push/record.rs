//! Push records: the log entry of rows that a client pushed.
//!
//! Unlike a step record it holds the rows, as [`rows`] writes them, since nobody can be asked for them again.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::pipeline::error::Result;
use crate::pipeline::rows::{self, Kind};

/// First byte of a push record.
pub const KIND_PUSH: u8 = b'P';
const KIND: Kind = Kind { byte: KIND_PUSH, format: 1, name: "push" };

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

/// The log payload; `rows` as [`rows::encode_rows`] writes them.
pub fn encode(header: &PushHeader, rows: &[u8]) -> Result<Vec<u8>> {
    KIND.encode(header, rows)
}

/// Reads the header of a log payload, and where its rows are. `seq` is its place in the log, for the error.
pub fn decode(seq: u64, payload: &[u8]) -> Result<(PushHeader, &[u8])> {
    KIND.decode(seq, payload)
}

/// The rows of a record and their weights, if these are not all 1.
pub fn decode_rows(
    seq: u64,
    schema: &SchemaRef,
    (header, rows): (&PushHeader, &[u8]),
) -> Result<(RecordBatch, Option<Vec<i64>>)> {
    let (rows, weights) = rows::decode_rows(seq, schema, (header.rows, rows))?;
    Ok((rows, weights.iter().any(|&w| w != 1).then_some(weights)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::pipeline::rows::encode_rows;

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
