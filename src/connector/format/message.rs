//! Deltas as messages with a key and a value, for Kafka: JSON, one message a change.
//!
//! Settings: `update_format`:
//! - `insert_delete` (the default): the value is `{"insert":{…}}` or `{"delete":{…}}`; a row of weight w is |w| messages.
//! - `upsert`: the key is the row's key, the value the row, or nothing (a tombstone) where the key is gone: what a compacted topic wants.
//!
//! `key_fields`: the columns of the key, a JSON object; without them messages have none. `include_step`: `insert_delete`'s value begins with the
//! step's number.
//!
//! Invariant: the messages are a function of delta and step. Limit: `upsert` needs a view with one row a key; two rows of one key are
//! noticed if one step brings both.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use hashbrown::HashMap;

use super::render::{Renderer, Texts};
use crate::circuit::Delta;
use crate::connector::config::FormatConfig;
use crate::connector::options::{Options, suggestion};
use crate::connector::{ConnectorError, Context, Result};

/// Messages, one after the other in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Clone, Debug)]
struct Span {
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
}

impl Messages {
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// Keys and values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Option<&[u8]>, Option<&[u8]>)> {
        let text = |range: &Option<Range<usize>>| range.clone().and_then(|r| self.bytes.get(r));
        self.spans.iter().map(move |span| (text(&span.key), text(&span.value)))
    }

    fn append(&mut self, parts: &[&[u8]]) -> Range<usize> {
        let start = self.bytes.len();
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        start..self.bytes.len()
    }
}

/// Makes messages of deltas.
#[derive(Debug)]
pub(crate) struct Encoder {
    connector: String,
    row: Renderer,
    /// The key's columns and their renderer.
    key: Option<(Vec<usize>, Renderer)>,
    upsert: bool,
    include_step: bool,
}

impl Encoder {
    /// The format of an output connector.
    pub(crate) fn new(config: Option<&FormatConfig>, ctx: &Context) -> Result<Self> {
        let Some(config) = config.filter(|c| c.name == "json") else {
            let message = "its \"format\" must be {\"name\": \"json\"}: others are not supported for messages yet";
            return Err(ConnectorError::new(&ctx.name, message));
        };
        let known = ["update_format", "include_step", "key_fields"];
        let later = ["json_flavor", "array", "buffer_size_records"];
        let options = Options::new(&ctx.name, "format.config of json", &config.config, &known, &later)?;
        let formats = ["insert_delete", "upsert"];
        let upsert = match options.string("update_format")? {
            None | Some("insert_delete") => false,
            Some("upsert") => true,
            Some(other) => {
                let hint = suggestion(other, &formats);
                return Err(options.error(format!("there is no \"update_format\": \"{other}\" for messages; {hint}")));
            }
        };
        let fields = options.strings("key_fields")?.unwrap_or_default();
        let column = |field: &String| {
            let names: Vec<&str> = ctx.schema.fields().iter().map(|f| f.name().as_str()).collect();
            names.iter().position(|name| name == field).ok_or_else(|| {
                options
                    .error(format!("\"key_fields\" names {field}, which is no column; {}", suggestion(field, &names)))
            })
        };
        let columns = fields.iter().map(column).collect::<Result<Vec<usize>>>()?;
        let include_step = options.bool("include_step")?.unwrap_or(false);
        if upsert && columns.is_empty() {
            return Err(
                options.error("\"update_format\": \"upsert\" needs \"key_fields\", the columns of the view's key")
            );
        }
        if upsert && include_step {
            return Err(options.error("\"include_step\" is for \"insert_delete\": an upsert's value is the row alone"));
        }
        let key = match columns.is_empty() {
            true => None,
            false => {
                let fields: Vec<_> = columns.iter().map(|c| ctx.schema.field(*c).clone()).collect();
                let schema: SchemaRef = Arc::new(Schema::new(fields));
                Some((columns, Renderer::of_objects(&ctx.name, &schema)?))
            }
        };
        let row = Renderer::of_objects(&ctx.name, &ctx.schema)?;
        Ok(Self { connector: ctx.name.clone(), row, key, upsert, include_step })
    }

    /// Appends a step's messages.
    pub(crate) fn encode(&self, step: u64, delta: &Delta, out: &mut Messages) -> Result<()> {
        if delta.is_empty() {
            return Ok(());
        }
        let rows = self.row.objects(delta.rows.columns(), delta.len())?;
        let keys = match &self.key {
            Some((columns, renderer)) => {
                let columns: Vec<_> = columns.iter().filter_map(|c| delta.rows.columns().get(*c)).cloned().collect();
                Some(renderer.objects(&columns, delta.len())?)
            }
            None => None,
        };
        if let Some(keys) = keys.as_ref().filter(|_| self.upsert) {
            return self.upserts(&delta.weights, &rows, keys, out);
        }
        let step = if self.include_step { format!("\"step\":{step},") } else { String::new() };
        for (row, weight) in delta.weights.iter().enumerate() {
            let operation: &[u8] = if *weight > 0 { b"\"insert\":" } else { b"\"delete\":" };
            for _ in 0..weight.unsigned_abs() {
                let key = keys.as_ref().map(|keys| out.append(&[keys.get(row).as_bytes()]));
                let value = out.append(&[b"{", step.as_bytes(), operation, rows.get(row).as_bytes(), b"}"]);
                out.spans.push(Span { key, value: Some(value) });
            }
        }
        Ok(())
    }

    /// One message a key, in the order in which the keys stand in the delta.
    fn upserts(&self, weights: &[i64], rows: &Texts, keys: &Texts, out: &mut Messages) -> Result<()> {
        let mut order: Vec<(&str, Option<&str>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (i, weight) in weights.iter().enumerate() {
            let (row, key) = (rows.get(i), keys.get(i));
            let place = *places.entry(key).or_insert_with(|| {
                order.push((key, None));
                order.len() - 1
            });
            let Some((_, value)) = order.get_mut(place).filter(|_| *weight > 0) else { continue };
            if *weight > 1 || value.replace(row).is_some() {
                let message = format!(
                    "the view has two rows with the key {key}, so that \"update_format\": \"upsert\" cannot say what it holds: name all of its \
                     key's columns in \"key_fields\", or use \"insert_delete\""
                );
                return Err(ConnectorError::new(&self.connector, message));
            }
        }
        for (key, value) in order {
            let key = Some(out.append(&[key.as_bytes()]));
            let value = value.map(|row| out.append(&[row.as_bytes()]));
            out.spans.push(Span { key, value });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
    use backstay_storage::disk::SimDisk;

    use super::*;
    use crate::connector::testing::{config, context, schema};

    fn encoder(format: &str) -> Result<Encoder> {
        let config = config(&format!(
            r#"{{"transport": {{"name": "kafka_output"}}, "format": {{"name": "json", "config": {format}}}}}"#
        ));
        Encoder::new(config.format.as_ref(), &context(Arc::new(SimDisk::new(1)), schema()))
    }

    fn delta(rows: &[(i64, &str, i64)]) -> Delta {
        let n = rows.len();
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(rows.iter().map(|r| Some(r.0)).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|r| Some(r.1)).collect::<StringArray>()),
            Arc::new(TimestampMicrosecondArray::new_null(n)),
            Arc::new(Float64Array::new_null(n)),
        ];
        let rows_batch = RecordBatch::try_new(schema(), columns).unwrap();
        Delta { rows: rows_batch, weights: rows.iter().map(|r| r.2).collect() }
    }

    fn texts(messages: &Messages) -> Vec<(Option<String>, Option<String>)> {
        let text = |b: Option<&[u8]>| b.map(|b| String::from_utf8(b.to_vec()).unwrap());
        messages.iter().map(|(k, v)| (text(k), text(v))).collect()
    }

    #[test]
    fn golden_messages() {
        let changes = delta(&[(1, "a", -1), (1, "b", 1), (2, "c", -1), (3, "d", 2)]);
        let mut out = Messages::default();
        encoder(r#"{"include_step": true}"#).unwrap().encode(7, &changes, &mut out).unwrap();
        assert_eq!(out.len(), 5);
        let row = r#"{"step":7,"delete":{"id":1,"name":"a","at":null,"price":null}}"#;
        assert_eq!(texts(&out)[0], (None, Some(row.to_owned())));
        assert_eq!(texts(&out)[3], texts(&out)[4]);

        let changes = delta(&[(1, "a", -1), (1, "b", 1), (2, "c", -1)]);
        out.clear();
        encoder(r#"{"update_format": "upsert", "key_fields": ["id"]}"#).unwrap().encode(7, &changes, &mut out).unwrap();
        let row = r#"{"id":1,"name":"b","at":null,"price":null}"#.to_owned();
        let expected = vec![(Some(r#"{"id":1}"#.to_owned()), Some(row)), (Some(r#"{"id":2}"#.to_owned()), None)];
        assert_eq!(texts(&out), expected);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let upsert = encoder(r#"{"update_format": "upsert", "key_fields": ["id"]}"#).unwrap();
        for rows in [&[(1, "a", 1), (1, "b", 1)][..], &[(1, "a", 2)]] {
            let e = upsert.encode(1, &delta(rows), &mut Messages::default()).unwrap_err();
            assert!(e.to_string().contains(r#"two rows with the key {"id":1}"#), "{e}");
        }
        let e = encoder(r#"{"key_fields": ["idd"]}"#).unwrap_err().to_string();
        assert!(e.contains("idd") && e.contains("did you mean \"id\"?"), "{e}");
        assert!(encoder(r#"{"update_format": "upsert"}"#).unwrap_err().to_string().contains("needs \"key_fields\""));
        assert!(encoder(r#"{"update_format": "raw"}"#).unwrap_err().to_string().contains("insert_delete, upsert"));
    }
}
