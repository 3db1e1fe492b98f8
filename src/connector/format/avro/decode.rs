//! Messages of one schema, decoded by the crate `arrow-avro`.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Fields, SchemaRef};
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use serde_json::{Value, json};

use super::super::columns::Columns;

/// How messages of a schema are read.
#[derive(Debug)]
pub(super) struct Writer {
    store: SchemaStore,
    /// The record's fields that are wanted.
    fields: Vec<usize>,
    /// The table's columns: among these fields, or among those of `before` and `after`.
    pub(super) columns: Columns,
    /// Of an event: where among `fields` its parts are.
    pub(super) event: Option<Event>,
}

/// Where the parts of Debezium's events are.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) before: Option<usize>,
    pub(super) after: usize,
    pub(super) op: usize,
}

/// The decoder takes messages with ids; there is one schema here, which has this one.
const ID: [u8; 5] = [0; 5];

impl Writer {
    /// The error says why the schema cannot be read, or does not fit the table.
    pub(super) fn new(schema: &str, table: &SchemaRef, is_event: bool) -> Result<Self, String> {
        let mut parsed: Value = serde_json::from_str(schema).map_err(|e| format!("it is not JSON: {e}"))?;
        mark_times(&mut parsed);
        let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
        let stored = store.set(Fingerprint::Id(0), AvroSchema::new(parsed.to_string()));
        stored.map_err(|e| e.to_string())?;
        let whole = decoder(&store, None, 1)?.schema();
        let Some(parts) = is_event.then(|| whole.fields()) else {
            let columns = Columns::new(whole.fields(), table)?;
            return Ok(Self { store, fields: columns.wanted(), columns: columns.of_wanted(), event: None });
        };
        let place = |name: &str| parts.iter().position(|f| f.name() == name);
        let (Some(after), Some(op)) = (place("after"), place("op")) else {
            let there: Vec<&str> = parts.iter().map(|f| f.name().as_str()).collect();
            return Err(format!(
                "an event of Debezium's has the fields before, after and op, and this record has: {}; is \"update_format\" right?",
                there.join(", ")
            ));
        };
        let image = |place: usize| -> Option<&Fields> {
            match parts.get(place)?.data_type() {
                DataType::Struct(fields) => Some(fields),
                _ => None,
            }
        };
        let rows = image(after).ok_or("its field \"after\" is no record")?;
        let before = place("before").filter(|at| image(*at) == Some(rows));
        let mut fields: Vec<usize> = [before, Some(after), Some(op)].into_iter().flatten().collect();
        fields.sort_unstable();
        let among = |place: usize| fields.iter().position(|f| *f == place);
        let event = Event {
            before: before.and_then(among),
            after: among(after).unwrap_or_default(),
            op: among(op).unwrap_or_default(),
        };
        Ok(Self { columns: Columns::new(rows, table)?, store, fields, event: Some(event) })
    }

    /// The messages' records; an error is that of one of them, after which nothing of the others is known.
    pub(super) fn decode(&self, bodies: &[&[u8]]) -> Result<RecordBatch, String> {
        let mut decoder = decoder(&self.store, Some(self.fields.clone()), bodies.len())?;
        let mut framed = Vec::new();
        for body in bodies {
            framed.clear();
            framed.extend_from_slice(&ID);
            framed.extend_from_slice(body);
            let room = decoder.capacity();
            let consumed = decoder.decode(&framed).map_err(|e| format!("it is not Avro of its schema: {e}"))?;
            if room - decoder.capacity() != 1 {
                return Err("it ends in the middle of its record".to_owned());
            }
            if consumed < framed.len() {
                return Err(format!("{} bytes are left behind its record", framed.len() - consumed));
            }
        }
        let flushed = decoder.flush().map_err(|e| format!("it is not Avro of its schema: {e}"))?;
        flushed.ok_or_else(|| "there is no record".to_owned())
    }
}

fn decoder(store: &SchemaStore, fields: Option<Vec<usize>>, rows: usize) -> Result<Decoder, String> {
    let mut builder = ReaderBuilder::new()
        .with_batch_size(rows.max(1))
        .with_writer_schema_store(store.clone())
        .with_active_fingerprint(Fingerprint::Id(0));
    if let Some(fields) = fields {
        builder = builder.with_projection(fields);
    }
    builder.build_decoder().map_err(|e| e.to_string())
}

/// Gives numbers that Debezium means as dates and times the logical types that say so.
fn mark_times(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(mark_times),
        Value::Object(map) => {
            let logical = match map.get("connect.name").and_then(Value::as_str) {
                Some("io.debezium.time.Date") => Some("date"),
                Some("io.debezium.time.Time") => Some("time-millis"),
                Some("io.debezium.time.MicroTime") => Some("time-micros"),
                Some("io.debezium.time.Timestamp") => Some("timestamp-millis"),
                Some("io.debezium.time.MicroTimestamp") => Some("timestamp-micros"),
                _ => None,
            };
            if let Some(logical) = logical.filter(|_| !map.contains_key("logicalType")) {
                map.insert("logicalType".to_owned(), json!(logical));
            }
            map.iter_mut().for_each(|(_, value)| mark_times(value));
        }
        _ => {}
    }
}
