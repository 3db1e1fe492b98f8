//! Avro in messages: what Kafka's clients with a schema registry write and read. In here; [`encode`] is the way out.
//!
//! Settings, as Feldera's: the [registry's](registry), or `schema`, a schema by which all messages are read; `skip_schema_id` (`false`: a message begins with a
//! zero byte and the schema's id, as Confluent's do); `update_format`: `raw` (the default: a message is a row, inserted) or `debezium` (`before`, `after`, `op`,
//! as [`debezium`](super::debezium) has them).
//!
//! Each message is read by the schema that it was written with, and its fields found by the columns' names ([`columns`](super::columns)): a schema that
//! evolves needs nothing. What Debezium marks by `connect.name` as dates and times is that.
//!
//! Invariants:
//! 1. A message that does not parse spoils no other: it is read apart from those around it if they do not go through together.
//! 2. A schema that the registry does not give now is an error to be tried again; one that it says is not there makes a row that does not parse.
//!
//! Limits: no schemas that refer to others; no recursive ones, and no unions but those with null (a column of such a type is refused).

mod decode;
pub(crate) mod encode;
mod events;
mod registry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use serde_json::Value;

use super::cell::check_types;
use super::split::Record;
use super::{Parsed, columns};
use crate::connector::options::{Options, suggestion};
use crate::connector::{ConnectorError, Context, Result, RowError};
use decode::Writer;
use registry::Registry;

/// The bytes before a message's body: zero, and the schema's id.
const HEADER: usize = 5;

/// The settings of Avro input.
#[derive(Debug)]
pub(crate) struct Avro {
    connector: String,
    table: SchemaRef,
    primary_key: Vec<usize>,
    append_only: bool,
    is_debezium: bool,
    has_id: bool,
    source: Source,
    /// What is known of schemas, by id; `Err`: why messages of it do not parse.
    known: Mutex<BTreeMap<u32, Result<Arc<Writer>, String>>>,
}

/// Where schemas come from.
#[derive(Debug)]
enum Source {
    Registry(Registry),
    Fixed(String),
}

/// Rows of the table's schema that messages are.
struct Rows {
    batch: RecordBatch,
    weights: Vec<i64>,
    /// By row: its record.
    records: Vec<usize>,
}

impl Avro {
    pub(crate) fn new(config: &Value, ctx: &Context) -> Result<Self> {
        let known = [&["update_format", "schema", "skip_schema_id"][..], &registry::KEYS].concat();
        let later = ["no_schema_id", "registry_proxy"];
        let options = Options::new(&ctx.name, "format.config of avro", config, &known, &later)?;
        check_types(&ctx.name, &ctx.schema)?;
        let is_debezium = match options.string("update_format")? {
            None | Some("raw") => false,
            Some("debezium") => true,
            Some(other) => {
                let hint = suggestion(other, &["raw", "debezium"]);
                return Err(options.error(format!("there is no \"update_format\": \"{other}\" to be read; {hint}")));
            }
        };
        let has_id = !options.bool("skip_schema_id")?.unwrap_or(false);
        let source = match (Registry::new(&options, &ctx.name)?, options.string("schema")?) {
            (Some(registry), None) if has_id => Source::Registry(registry),
            (None, Some(schema)) => Source::Fixed(schema.to_owned()),
            (Some(_), None) => {
                return Err(
                    options.error("\"skip_schema_id\" needs \"schema\": nothing else says how messages are read")
                );
            }
            (Some(_), Some(_)) => return Err(options.error("\"schema\" and \"registry_urls\" exclude each other")),
            (None, None) => return Err(options.error("\"registry_urls\" is missing, or \"schema\"")),
        };
        let this = Self {
            connector: ctx.name.clone(),
            table: Arc::clone(&ctx.schema),
            primary_key: ctx.primary_key.clone(),
            append_only: ctx.append_only,
            is_debezium,
            has_id,
            source,
            known: Mutex::default(),
        };
        if let Source::Fixed(schema) = &this.source {
            // What does not fit at all is told now.
            let writer =
                Writer::new(schema, &this.table, is_debezium).map_err(|e| options.error(format!("\"schema\": {e}")))?;
            this.known.lock().unwrap_or_else(PoisonError::into_inner).insert(0, Ok(Arc::new(writer)));
        }
        Ok(this)
    }

    /// Parses messages.
    pub(crate) fn parse(&self, block: &[u8], base: u64, records: &[Record]) -> Result<Parsed> {
        let mut errors: BTreeMap<usize, String> = BTreeMap::new();
        let mut bodies: BTreeMap<u32, Vec<(usize, &[u8])>> = BTreeMap::new();
        for (i, record) in records.iter().enumerate() {
            let message = block.get(record.start..record.text_end).unwrap_or_default();
            match self.parted(message) {
                // The tombstone behind a delete.
                _ if record.absent && self.is_debezium => {}
                _ if record.absent => drop(errors.insert(i, "the message has no value".to_owned())),
                Some((id, body)) => bodies.entry(id).or_default().push((i, body)),
                None => {
                    let message = "it does not begin with a zero and a schema's id, as Confluent's messages do; is it Avro? If it has no id, set \"schema\" and \
                         \"skip_schema_id\": true";
                    errors.insert(i, message.to_owned());
                }
            }
        }
        let mut rows: Vec<Rows> = Vec::new();
        for (id, messages) in bodies {
            match self.writer(id)? {
                Err(why) => errors.extend(messages.iter().map(|(i, _)| (*i, why.clone()))),
                Ok(writer) => self.decoded(&writer, &messages, &mut errors, &mut rows)?,
            }
        }
        self.joined(rows, base, records, errors)
    }

    /// A message's schema id (0 if that is fixed) and body.
    fn parted<'a>(&self, message: &'a [u8]) -> Option<(u32, &'a [u8])> {
        if !self.has_id {
            return Some((0, message));
        }
        let (header, body) = message.split_at_checked(HEADER)?;
        let [0, id @ ..] = header else { return None };
        let id = u32::from_be_bytes(id.try_into().ok()?);
        Some((if matches!(self.source, Source::Fixed(_)) { 0 } else { id }, body))
    }

    /// What is known of a schema.
    fn writer(&self, id: u32) -> Result<Result<Arc<Writer>, String>> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&id) {
            return Ok(known.clone());
        }
        let Source::Registry(registry) = &self.source else { return Ok(Err("internal error: no schema".to_owned())) };
        let made = match registry.schema(id)? {
            Ok(schema) => {
                let made = Writer::new(&schema, &self.table, self.is_debezium);
                made.map(Arc::new).map_err(|e| format!("schema {id} of the registry: {e}"))
            }
            // It may be there tomorrow.
            Err(why) => return Ok(Err(why)),
        };
        lock().insert(id, made.clone());
        Ok(made)
    }

    /// Takes the rows of messages of one schema. If they do not go through together, each half is tried, down to the one that is spoilt.
    fn decoded(
        &self,
        writer: &Writer,
        messages: &[(usize, &[u8])],
        errors: &mut BTreeMap<usize, String>,
        rows: &mut Vec<Rows>,
    ) -> Result<()> {
        let fail = |e| ConnectorError::new(&self.connector, format!("the messages do not fit the table: {e}"));
        let bodies: Vec<&[u8]> = messages.iter().map(|(_, body)| *body).collect();
        let batch = match (writer.decode(&bodies), messages) {
            (Ok(batch), _) => batch,
            (Err(_), []) => return Ok(()),
            (Err(why), [(record, _)]) => {
                errors.insert(*record, why);
                return Ok(());
            }
            (Err(_), _) => {
                let (first, second) = messages.split_at(messages.len() / 2);
                self.decoded(writer, first, errors, rows)?;
                return self.decoded(writer, second, errors, rows);
            }
        };
        let mut wrong = BTreeMap::new();
        let mut made = self.rows(writer, &batch, &mut wrong).map_err(fail)?;
        let record = |message: usize| messages.get(message).map_or(0, |(record, _)| *record);
        made.records.iter_mut().for_each(|message| *message = record(*message));
        errors.extend(wrong.into_iter().map(|(message, what)| (record(message), what)));
        rows.push(made);
        Ok(())
    }

    /// Rows of decoded messages; what is wrong with some of them is told by message.
    fn rows(
        &self,
        writer: &Writer,
        batch: &RecordBatch,
        wrong: &mut BTreeMap<usize, String>,
    ) -> Result<Rows, arrow::error::ArrowError> {
        if self.is_debezium {
            return self.events(writer, batch, wrong);
        }
        let columns = writer.columns.take(batch.columns(), batch.num_rows(), None, wrong)?;
        let good: Vec<usize> = (0..batch.num_rows()).filter(|row| !wrong.contains_key(row)).collect();
        let weights = vec![1; good.len()];
        Ok(Rows { batch: columns::chosen(&self.table, columns, &good)?, weights, records: good })
    }

    /// All rows in the order of their messages.
    fn joined(
        &self,
        rows: Vec<Rows>,
        base: u64,
        records: &[Record],
        errors: BTreeMap<usize, String>,
    ) -> Result<Parsed> {
        let fail = |e| ConnectorError::new(&self.connector, format!("the rows do not fit the table: {e}"));
        let mut batch = concat_batches(&self.table, rows.iter().map(|r| &r.batch)).map_err(fail)?;
        let weights: Vec<i64> = rows.iter().flat_map(|r| r.weights.iter().copied()).collect();
        let mut order: Vec<(usize, u32, i64)> = Vec::with_capacity(weights.len());
        let of = rows.iter().flat_map(|r| r.records.iter().copied());
        order.extend(of.zip(0_u32..).zip(&weights).map(|((record, row), weight)| (record, row, *weight)));
        if !order.is_sorted() {
            // Two rows of one message stay in their order.
            order.sort_unstable_by_key(|(record, row, _)| (*record, *row));
            let places = UInt32Array::from_iter_values(order.iter().map(|(_, row, _)| *row));
            batch = take_record_batch(&batch, &places).map_err(fail)?;
        }
        let end = |record: &usize| records.get(*record).map_or(base, |r| base + r.end as u64);
        let start = |record: usize| records.get(record).map_or(base, |r| base + r.start as u64);
        let weights: Vec<i64> = order.iter().map(|(_, _, weight)| *weight).collect();
        Ok(Parsed {
            rows: batch,
            weights: weights.contains(&-1).then_some(weights),
            ends: order.iter().map(|(record, _, _)| end(record)).collect(),
            errors: errors.into_iter().map(|(i, message)| RowError { offset: start(i), message }).collect(),
        })
    }
}
