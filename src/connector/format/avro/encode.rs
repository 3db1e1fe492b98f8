//! A view's changes as messages in Avro.
//!
//! Settings, as Feldera's: `update_format`: `raw` (the default: the row, of a view that never takes one back), `debezium` (`before`, `after`, `op`) or `confluent_jdbc` (the key's
//! columns as the key; the row as the value, or none where the key is gone); `key_fields`; `tombstones`; the [registry's](super::registry), where the schemas are made known when the
//! first message is; `skip_schema_id`; `schema`, of values, in place of the one made of the view's columns; `namespace`; `subject_name_strategy`: `topic_name`
//! (`<topic>-value`, `-key`), `record_name` or `topic_record_name`; by default `record_name` for `raw`, else `topic_name`.
//!
//! Invariant: messages are a function of delta, step and the registry's ids. Nothing is appended before all ids are known.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch, StringArray, StructArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use arrow_avro::schema::{
    AVRO_NAME_METADATA_KEY, AVRO_NAMESPACE_METADATA_KEY, AvroSchema, FingerprintStrategy, SCHEMA_METADATA_KEY,
};
use arrow_avro::writer::format::{AvroBinaryFormat, AvroSoeFormat};
use arrow_avro::writer::{EncodedRows, WriterBuilder};
use serde_json::{Value, json};

use super::super::cell::check_output_types;
use super::super::message::{Event, Messages, TOMBSTONES, changes, events, latest};
use super::super::render::refuse_deletes;
use super::registry::{self, Registry};
use crate::circuit::Delta;
use crate::connector::options::Options;
use crate::connector::{ConnectorError, Context, Result};

/// Where a time zone is asked for.
const UTC: &str = "+00:00";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpdateFormat {
    Raw,
    Debezium,
    Upsert,
}

/// Makes messages of deltas.
#[derive(Debug)]
pub(crate) struct Encoder {
    connector: String,
    update_format: UpdateFormat,
    /// The view's columns as they are written.
    row: Fields,
    value: Shape,
    key: Option<(Vec<usize>, Shape)>,
    registry: Option<Registry>,
    has_id: bool,
    tombstones: bool,
}

/// A schema, and its id once it is known.
#[derive(Debug)]
struct Shape {
    schema: Schema,
    subject: String,
    id: OnceLock<u32>,
}

impl Encoder {
    /// `key` are the columns of `key_fields`.
    pub(crate) fn new(config: &Value, ctx: &Context, topic: &str, key: &[usize]) -> Result<Self> {
        let known = [
            "update_format",
            "schema",
            "namespace",
            "subject_name_strategy",
            "key_fields",
            "tombstones",
            "skip_schema_id",
        ];
        let known = [&known[..], &registry::KEYS].concat();
        let later = ["cdc_field", "key_mode", "threads", "workers", "registry_proxy"];
        let options = Options::new(&ctx.name, "format.config of avro", config, &known, &later)?;
        check_output_types(&ctx.name, &ctx.schema)?;
        let update_format = match options.string("update_format")? {
            None | Some("raw") => UpdateFormat::Raw,
            Some("debezium") => UpdateFormat::Debezium,
            Some("confluent_jdbc") if key.is_empty() => {
                let message =
                    "\"update_format\": \"confluent_jdbc\" needs \"key_fields\", the columns of the view's key";
                return Err(options.error(message));
            }
            Some("confluent_jdbc") => UpdateFormat::Upsert,
            Some(other) => {
                return Err(options.unknown("update_format", other, &["raw", "debezium", "confluent_jdbc"]));
            }
        };
        let tombstones = options.bool("tombstones")?.unwrap_or(false);
        if tombstones && (update_format != UpdateFormat::Debezium || key.is_empty()) {
            return Err(options.error(TOMBSTONES));
        }
        let row: Fields = ctx.schema.fields().iter().map(|f| written(f)).collect();
        if let Some(field) = row.iter().find(|f| !is_name(f.name())) {
            let message = format!(
                "column {} has a name that Avro does not take (letters, digits and _): rename it in the view",
                field.name()
            );
            return Err(options.error(message));
        }
        let view = ctx.name.split('.').next().unwrap_or_default();
        let view: String = view.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let view = if is_name(&view) { view } else { format!("_{view}") };
        let namespace = options.string("namespace")?;
        let full = |name: &str| namespace.map_or_else(|| name.to_owned(), |space| format!("{space}.{name}"));
        let strategy = match (options.string("subject_name_strategy")?, update_format) {
            (Some(strategy @ ("topic_name" | "record_name" | "topic_record_name")), _) => strategy,
            (Some(other), _) => {
                let there_are = ["topic_name", "record_name", "topic_record_name"];
                return Err(options.unknown("subject_name_strategy", other, &there_are));
            }
            (None, UpdateFormat::Raw) => "record_name",
            (None, _) => "topic_name",
        };
        let subject = |record: &str, part: &str| match strategy {
            "topic_name" => format!("{topic}-{part}"),
            "record_name" => record.to_owned(),
            _ => format!("{topic}-{record}"),
        };
        let fail = |e: &dyn std::fmt::Display| options.error(format!("the view cannot be written as Avro: {e}"));
        let made = |fields: Fields, name: &str| -> Result<Schema> {
            let mut schema = Schema::new(fields);
            schema.metadata.insert(AVRO_NAME_METADATA_KEY.to_owned(), name.to_owned());
            if let Some(space) = namespace {
                schema.metadata.insert(AVRO_NAMESPACE_METADATA_KEY.to_owned(), space.to_owned());
            }
            let json = AvroSchema::try_from(&schema).map_err(|e| fail(&e))?.json_string;
            schema.metadata = HashMap::from([(SCHEMA_METADATA_KEY.to_owned(), json)]);
            Ok(schema)
        };
        let shape = |schema: Schema, record: &str, part: &str| -> Result<Shape> {
            // What cannot be written at all is told now.
            WriterBuilder::new(schema.clone()).build_encoder::<AvroBinaryFormat>().map_err(|e| fail(&e))?;
            Ok(Shape { schema, subject: subject(&full(record), part), id: OnceLock::new() })
        };
        let (mut schema, mut record) = (made(row.clone(), &view)?, view.clone());
        if update_format == UpdateFormat::Debezium {
            record = "Envelope".to_owned();
            schema = envelope(&schema, &row, &full(&view), namespace);
        }
        if let Some(given) = options.string("schema")? {
            let parsed: Value =
                serde_json::from_str(given).map_err(|e| options.error(format!("\"schema\" is not JSON: {e}")))?;
            if let Some(name) = parsed.get("name").and_then(Value::as_str) {
                name.clone_into(&mut record);
            }
            schema.metadata.insert(SCHEMA_METADATA_KEY.to_owned(), given.to_owned());
        }
        let value = shape(schema, &record, "value")?;
        let key = match key {
            [] => None,
            columns => {
                let name = format!("{view}_key");
                let fields = columns.iter().filter_map(|c| row.get(*c).cloned()).collect();
                Some((columns.to_vec(), shape(made(fields, &name)?, &name, "key")?))
            }
        };
        let has_id = !options.bool("skip_schema_id")?.unwrap_or(false);
        let registry = Registry::new(&options, &ctx.name)?;
        Ok(Self { connector: ctx.name.clone(), update_format, row, value, key, registry, has_id, tombstones })
    }

    fn error(&self, step: u64, error: &dyn std::fmt::Display) -> ConnectorError {
        ConnectorError::new(&self.connector, format!("step {step} cannot be written as Avro: {error}"))
    }

    /// Appends a step's messages.
    pub(crate) fn encode(&self, step: u64, delta: &Delta, out: &mut Messages) -> Result<()> {
        let columns = delta.rows.columns().iter().zip(&self.row).map(|(c, field)| cast(c, field.data_type()));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>().map_err(|e| self.error(step, &e))?;
        let keys = match &self.key {
            None => None,
            Some((places, shape)) => {
                let columns = places.iter().filter_map(|c| columns.get(*c).cloned()).collect();
                Some(self.encoded(step, shape, columns)?)
            }
        };
        let key = |row: usize| keys.as_ref().and_then(|keys| row_of(keys, row));
        match self.update_format {
            UpdateFormat::Raw => {
                refuse_deletes(&self.connector, step, delta, "\"update_format\": \"raw\"")?;
                let values = self.encoded(step, &self.value, columns)?;
                for (row, weight) in delta.weights.iter().enumerate() {
                    for _ in 0..weight.unsigned_abs() {
                        out.push(key(row), row_of(&values, row));
                    }
                }
            }
            UpdateFormat::Upsert => {
                let shown = |row: usize| {
                    let places = self.key.iter().flat_map(|(places, _)| places);
                    let columns = places.filter_map(|c| delta.rows.columns().get(*c));
                    let show = |c: &ArrayRef| arrow::util::display::array_value_to_string(c, row).unwrap_or_default();
                    columns.map(show).collect::<Vec<_>>().join(", ")
                };
                let plan = latest(&self.connector, &delta.weights, |row| key(row).unwrap_or_default(), shown)?;
                let values = self.encoded(step, &self.value, columns)?;
                for (of, value) in plan {
                    out.push(key(of), value.and_then(|row| row_of(&values, row)));
                }
            }
            UpdateFormat::Debezium => {
                let plan = match &keys {
                    Some(_) => events(&delta.weights, |row| key(row).unwrap_or_default()),
                    None => changes(&delta.weights),
                };
                let values = self.encoded(step, &self.value, self.envelopes(step, &columns, &plan)?)?;
                for (i, event) in plan.iter().enumerate() {
                    for _ in 0..event.count {
                        out.push(key(event.key), row_of(&values, i));
                    }
                    if event.is_last && self.tombstones {
                        out.push(key(event.key), None);
                    }
                }
            }
        }
        Ok(())
    }

    /// The columns of events.
    fn envelopes(&self, step: u64, columns: &[ArrayRef], plan: &[Event]) -> Result<Vec<ArrayRef>> {
        let image = |side: fn(&Event) -> Option<usize>| {
            let places: UInt32Array = plan.iter().map(|e| side(e).and_then(|row| u32::try_from(row).ok())).collect();
            let taken = columns.iter().map(|c| take(c, &places, None)).collect::<Result<Vec<ArrayRef>, _>>()?;
            let nulls = arrow::array::Array::nulls(&places).cloned();
            let fields: Fields = self.row.iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true))).collect();
            StructArray::try_new(fields, taken, nulls).map(|rows| Arc::new(rows) as ArrayRef)
        };
        let fail = |e| self.error(step, &e);
        let ops = StringArray::from_iter_values(plan.iter().map(|event| event.op));
        Ok(vec![image(|e| e.before).map_err(fail)?, image(|e| e.after).map_err(fail)?, Arc::new(ops)])
    }

    /// Rows by a schema, each with what messages begin with.
    fn encoded(&self, step: u64, shape: &Shape, columns: Vec<ArrayRef>) -> Result<EncodedRows> {
        let fail = |e: &dyn std::fmt::Display| self.error(step, e);
        let batch = RecordBatch::try_new(Arc::new(shape.schema.clone()), columns).map_err(|e| fail(&e))?;
        let builder = WriterBuilder::new(shape.schema.clone());
        let mut encoder = match self.has_id {
            false => builder.build_encoder::<AvroBinaryFormat>(),
            true => {
                let id = self.id(shape)?;
                builder.with_fingerprint_strategy(FingerprintStrategy::Id(id)).build_encoder::<AvroSoeFormat>()
            }
        }
        .map_err(|e| fail(&e))?;
        encoder.encode(&batch).map_err(|e| fail(&e))?;
        Ok(encoder.flush())
    }

    /// A schema's id; 0 without a registry.
    fn id(&self, shape: &Shape) -> Result<u32> {
        if let Some(id) = shape.id.get() {
            return Ok(*id);
        }
        let Some(registry) = &self.registry else { return Ok(0) };
        let json = shape.schema.metadata.get(SCHEMA_METADATA_KEY).map_or("", String::as_str);
        let id = registry.register(&shape.subject, json)?;
        Ok(*shape.id.get_or_init(|| id))
    }
}

/// A row's bytes.
fn row_of(rows: &EncodedRows, row: usize) -> Option<&[u8]> {
    let (from, to) = (rows.offsets().get(row)?, rows.offsets().get(row + 1)?);
    rows.bytes().get(*from..*to)
}

/// A column as it is written: a timestamp is one of UTC, as it is by convention.
fn written(field: &Field) -> Arc<Field> {
    let data_type = match field.data_type() {
        DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        other => other.clone(),
    };
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.chars().next().is_some_and(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// The schema of Debezium's events of rows.
fn envelope(rows: &Schema, row: &Fields, name: &str, namespace: Option<&str>) -> Schema {
    let value: Value =
        rows.metadata.get(SCHEMA_METADATA_KEY).and_then(|j| serde_json::from_str(j).ok()).unwrap_or_default();
    let mut json = json!({"type": "record", "name": "Envelope", "fields": [
        {"name": "before", "type": ["null", value], "default": null},
        {"name": "after", "type": ["null", name], "default": null},
        {"name": "op", "type": "string"},
    ]});
    if let (Some(space), Some(map)) = (namespace, json.as_object_mut()) {
        map.insert("namespace".to_owned(), space.into());
    }
    let fields: Fields = row.iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true))).collect();
    let image = |side: &str| Field::new(side, DataType::Struct(fields.clone()), true);
    let schema = Schema::new(vec![image("before"), image("after"), Field::new("op", DataType::Utf8, false)]);
    schema.with_metadata(HashMap::from([(SCHEMA_METADATA_KEY.to_owned(), json.to_string())]))
}
