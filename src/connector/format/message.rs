//! Deltas as messages with a key and a value, for Kafka.
//!
//! The value is a [line](super::render) of JSON (`insert_delete`, `debezium`, `raw`), CSV or raw bytes, a message a change: a row of weight w is
//! |w| messages. JSON has one more `update_format`, `upsert`: the key is the row's key, the value the row, or nothing (a tombstone) where the key is
//! gone: what a compacted topic wants.
//!
//! `key_fields`: the columns of the key, a JSON object; without them messages have none. With them, `debezium` writes one event (`u`) for a row that
//! took another's place, and with `tombstones` a message without a value behind the one that takes a key away. Beside raw bytes, the key of one column of VARCHAR or VARBINARY is its bytes too.
//!
//! Invariant: the messages are a function of delta and step. Limit: `upsert` needs a view with one row a key; two rows of one key are
//! noticed if one step brings both.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Schema, SchemaRef};
use hashbrown::HashMap;
use serde_json::Value;

use super::avro;
use super::render::{Carrier, Renderer, bytes_of, is_raw_key};
use super::text::Texts;
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

    /// Appends a message.
    pub(crate) fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let key = key.map(|key| self.append(&[key]));
        let value = value.map(|value| self.append(&[value]));
        self.spans.push(Span { key, value });
    }

    fn append(&mut self, parts: &[&[u8]]) -> Range<usize> {
        let start = self.bytes.len();
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        start..self.bytes.len()
    }
}

/// What is said of tombstones that are asked for in vain.
pub(super) const TOMBSTONES: &str = "\"tombstones\" goes with \"update_format\": \"debezium\" and \"key_fields\"";

/// Makes messages of deltas.
#[derive(Debug)]
pub(crate) struct Encoder {
    connector: String,
    how: How,
    /// The key's columns and how they are written.
    key: Option<(Vec<usize>, KeyText)>,
    /// Whether a tombstone follows the event that takes a key away.
    tombstones: bool,
}

#[derive(Debug)]
enum How {
    /// A message a change.
    Changes(Renderer),
    /// A message a key, of the row as it is now.
    Upserts(Renderer),
    /// A message a change, but an update of one row, known by its key, is one.
    Updates { events: Renderer, rows: Renderer },
    /// Records of Avro's.
    Avro(Box<avro::encode::Encoder>),
}

#[derive(Debug)]
enum KeyText {
    /// A JSON object.
    Object(Renderer),
    /// The bytes of the one column.
    Raw,
}

/// The keys of a delta's rows.
enum Keys<'a> {
    None,
    Objects(Texts),
    Raw(&'a ArrayRef),
}

impl Keys<'_> {
    fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::Objects(texts) => Some(texts.get(row).as_bytes()),
            Self::Raw(array) => bytes_of(array, row),
        }
    }
}

impl Encoder {
    /// The format of an output connector to a topic.
    pub(crate) fn new(config: Option<&FormatConfig>, ctx: &Context, topic: &str) -> Result<Self> {
        let place = format!("format.config of {}", config.map_or("json", |c| c.name.as_str()));
        let none = Value::Null;
        let settings = config.map_or(&none, |c| &c.config);
        let keys: Vec<&str> = settings.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        // The renderer looks at the other keys.
        let options = Options::new(&ctx.name, &place, settings, &keys, &[])?;
        let fields = options.strings("key_fields")?.unwrap_or_default();
        let column = |field: &String| {
            let names: Vec<&str> = ctx.schema.fields().iter().map(|f| f.name().as_str()).collect();
            names.iter().position(|name| name == field).ok_or_else(|| {
                options
                    .error(format!("\"key_fields\" names {field}, which is no column; {}", suggestion(field, &names)))
            })
        };
        let columns = fields.iter().map(column).collect::<Result<Vec<usize>>>()?;
        if config.is_some_and(|c| c.name == "avro") {
            let how = How::Avro(Box::new(avro::encode::Encoder::new(settings, ctx, topic, &columns)?));
            return Ok(Self { connector: ctx.name.clone(), how, key: None, tombstones: false });
        }
        let rows = || Renderer::of_objects(&ctx.name, &ctx.schema);
        let is_json = config.is_some_and(|c| c.name == "json");
        let how = if is_json && options.value("update_format") == Some(&Value::from("upsert")) {
            let known = ["update_format", "include_step", "key_fields"];
            let later = ["json_flavor", "array", "buffer_size_records"];
            let options = Options::new(&ctx.name, &place, settings, &known, &later)?;
            if columns.is_empty() {
                return Err(
                    options.error("\"update_format\": \"upsert\" needs \"key_fields\", the columns of the view's key")
                );
            }
            if options.bool("include_step")? == Some(true) {
                return Err(
                    options.error("\"include_step\" is for \"insert_delete\": an upsert's value is the row alone")
                );
            }
            How::Upserts(rows()?)
        } else {
            let renderer = Renderer::new(config, ctx, &Carrier::Messages(columns.clone()))?;
            match renderer.is_debezium() && !columns.is_empty() {
                true => How::Updates { events: renderer, rows: rows()? },
                false => How::Changes(renderer),
            }
        };
        let is_raw = matches!(&how, How::Changes(renderer) if renderer.is_raw());
        let key = match columns.is_empty() {
            true => None,
            false if is_raw && is_raw_key(&ctx.schema, &columns) => Some((columns, KeyText::Raw)),
            false => {
                let fields: Vec<_> = columns.iter().map(|c| ctx.schema.field(*c).clone()).collect();
                let schema: SchemaRef = Arc::new(Schema::new(fields));
                Some((columns, KeyText::Object(Renderer::of_objects(&ctx.name, &schema)?)))
            }
        };
        let tombstones = options.bool("tombstones")?.unwrap_or(false);
        if tombstones && !matches!(how, How::Updates { .. }) {
            return Err(options.error(TOMBSTONES));
        }
        Ok(Self { connector: ctx.name.clone(), how, key, tombstones })
    }

    /// Appends a step's messages.
    pub(crate) fn encode(&self, step: u64, delta: &Delta, out: &mut Messages) -> Result<()> {
        if delta.is_empty() {
            return Ok(());
        }
        let column = |c: &usize| delta.rows.columns().get(*c);
        let keys = match &self.key {
            None => Keys::None,
            Some((columns, KeyText::Object(renderer))) => {
                let columns: Vec<_> = columns.iter().filter_map(column).cloned().collect();
                Keys::Objects(renderer.objects(&columns, delta.len())?)
            }
            Some((columns, KeyText::Raw)) => columns.first().and_then(column).map_or(Keys::None, Keys::Raw),
        };
        match &self.how {
            How::Changes(renderer) => renderer.lines(step, delta, |row, line, count| {
                for _ in 0..count {
                    out.push(keys.get(row), line);
                }
            }),
            How::Upserts(rows) => {
                let rows = rows.objects(delta.rows.columns(), delta.len())?;
                let key = |row: usize| keys.get(row).unwrap_or_default();
                let shown = |row: usize| String::from_utf8_lossy(key(row)).into_owned();
                for (of, value) in latest(&self.connector, &delta.weights, key, shown)? {
                    out.push(Some(key(of)), value.map(|row| rows.get(row).as_bytes()));
                }
                Ok(())
            }
            How::Updates { events: renderer, rows } => {
                let rows = rows.objects(delta.rows.columns(), delta.len())?;
                let step = renderer.step_text(step);
                let row = |row: Option<usize>| row.map_or("null", |row| rows.get(row)).as_bytes();
                for event in events(&delta.weights, |row| keys.get(row).unwrap_or_default()) {
                    let (before, after, op) = (row(event.before), row(event.after), event.op.as_bytes());
                    let parts = [
                        b"{",
                        step.as_bytes(),
                        b"\"before\":",
                        before,
                        b",\"after\":",
                        after,
                        b",\"op\":\"",
                        op,
                        b"\"}",
                    ];
                    for _ in 0..event.count {
                        let key = keys.get(event.key).map(|key| out.append(&[key]));
                        let value = Some(out.append(&parts));
                        out.spans.push(Span { key, value });
                    }
                    if event.is_last && self.tombstones {
                        out.push(keys.get(event.key), None);
                    }
                }
                Ok(())
            }
            How::Avro(encoder) => encoder.encode(step, delta, out),
        }
    }
}

/// One of Debezium's events.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The row that has its key.
    pub(crate) key: usize,
    pub(crate) before: Option<usize>,
    pub(crate) after: Option<usize>,
    pub(crate) op: &'static str,
    /// How often it is sent.
    pub(crate) count: u64,
    /// Whether its key is gone behind it.
    pub(crate) is_last: bool,
}

impl Event {
    fn change(row: usize, comes: bool, count: u64) -> Self {
        let (before, after) = if comes { (None, Some(row)) } else { (Some(row), None) };
        Self { key: row, before, after, op: if comes { "c" } else { "d" }, count, is_last: false }
    }
}

/// An event a change.
pub(crate) fn changes(weights: &[i64]) -> Vec<Event> {
    weights.iter().enumerate().map(|(row, weight)| Event::change(row, *weight > 0, weight.unsigned_abs())).collect()
}

/// The changes of one key: rows that went and rows that came, with how often each.
#[derive(Debug, Default)]
struct Changes {
    gone: Vec<(usize, u64)>,
    come: Vec<(usize, u64)>,
}

/// Events by key, in the order in which the keys stand in the delta: an update where one row took the place of another.
pub(crate) fn events<'a>(weights: &[i64], key: impl Fn(usize) -> &'a [u8]) -> Vec<Event> {
    let mut order: Vec<(usize, Changes)> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for (i, weight) in weights.iter().enumerate() {
        let place = *places.entry(key(i)).or_insert_with(|| {
            order.push((i, Changes::default()));
            order.len() - 1
        });
        let Some((_, changes)) = order.get_mut(place) else { continue };
        let side = if *weight > 0 { &mut changes.come } else { &mut changes.gone };
        side.push((i, weight.unsigned_abs()));
    }
    let mut events = Vec::with_capacity(weights.len());
    for (key, changes) in order {
        if let ([(before, 1)], [(after, 1)]) = (changes.gone.as_slice(), changes.come.as_slice()) {
            events.push(Event { key, before: Some(*before), after: Some(*after), op: "u", count: 1, is_last: false });
            continue;
        }
        events.extend(changes.gone.iter().map(|(row, count)| Event::change(*row, false, *count)));
        if let Some(last) = events.last_mut().filter(|_| changes.come.is_empty()) {
            last.is_last = true;
        }
        events.extend(changes.come.iter().map(|(row, count)| Event::change(*row, true, *count)));
    }
    events
}

/// For each key, in the order in which they stand in the delta, a row that has it, and the row that it has now, if any.
pub(crate) fn latest<'a>(
    connector: &str,
    weights: &[i64],
    key: impl Fn(usize) -> &'a [u8],
    shown: impl Fn(usize) -> String,
) -> Result<Vec<(usize, Option<usize>)>> {
    let mut order: Vec<(usize, Option<usize>)> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for (i, weight) in weights.iter().enumerate() {
        let place = *places.entry(key(i)).or_insert_with(|| {
            order.push((i, None));
            order.len() - 1
        });
        let Some((_, value)) = order.get_mut(place).filter(|_| *weight > 0) else { continue };
        if *weight > 1 || value.replace(i).is_some() {
            let message = format!(
                "the view has two rows with the key {}, so that upserts cannot say what it holds: name all of its key's columns in \"key_fields\", or \
                 use another \"update_format\"",
                shown(i)
            );
            return Err(ConnectorError::new(connector, message));
        }
    }
    Ok(order)
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
        Encoder::new(config.format.as_ref(), &context(Arc::new(SimDisk::new(1)), schema()), "topic")
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
    fn updates_of_a_key_are_one_event() {
        let changes =
            delta(&[(1, "a", -1), (1, "b", 1), (2, "c", -1), (3, "d", 2), (4, "e", -1), (4, "f", 1), (4, "g", 1)]);
        let mut out = Messages::default();
        encoder(r#"{"update_format": "debezium", "key_fields": ["id"]}"#)
            .unwrap()
            .encode(7, &changes, &mut out)
            .unwrap();
        let row = |id: i64, name: &str| format!(r#"{{"id":{id},"name":"{name}","at":null,"price":null}}"#);
        let event = |id: i64, before: String, after: String, op: &str| {
            let value = format!(r#"{{"before":{before},"after":{after},"op":"{op}"}}"#);
            (Some(format!(r#"{{"id":{id}}}"#)), Some(value))
        };
        let null = || "null".to_owned();
        let expected = [
            event(1, row(1, "a"), row(1, "b"), "u"),
            event(2, row(2, "c"), null(), "d"),
            event(3, null(), row(3, "d"), "c"),
            event(3, null(), row(3, "d"), "c"),
            event(4, row(4, "e"), null(), "d"),
            event(4, null(), row(4, "f"), "c"),
            event(4, null(), row(4, "g"), "c"),
        ];
        assert_eq!(texts(&out), expected);

        out.clear();
        let tombstones = r#"{"update_format": "debezium", "key_fields": ["id"], "tombstones": true}"#;
        encoder(tombstones).unwrap().encode(7, &delta(&[(2, "c", -1), (4, "e", -2), (4, "f", 1)]), &mut out).unwrap();
        let gone = (Some(r#"{"id":2}"#.to_owned()), None);
        let moved = [
            event(4, row(4, "e"), null(), "d"),
            event(4, row(4, "e"), null(), "d"),
            event(4, null(), row(4, "f"), "c"),
        ];
        assert_eq!(texts(&out), [&[event(2, row(2, "c"), null(), "d"), gone], &moved[..]].concat());
        for wrong in
            [r#"{"key_fields": ["id"], "tombstones": true}"#, r#"{"update_format": "debezium", "tombstones": true}"#]
        {
            assert!(encoder(wrong).unwrap_err().to_string().contains("\"tombstones\" goes with"));
        }

        // Without a key nothing says that the one row took the other's place.
        out.clear();
        let changes = delta(&[(1, "a", -1), (1, "b", 1)]);
        let steps = r#"{"update_format": "debezium", "include_step": true}"#;
        encoder(steps).unwrap().encode(7, &changes, &mut out).unwrap();
        let value = |before, after, op| Some(format!(r#"{{"step":7,"before":{before},"after":{after},"op":"{op}"}}"#));
        let expected = [(None, value(row(1, "a"), null(), "d")), (None, value(null(), row(1, "b"), "c"))];
        assert_eq!(texts(&out), expected);
    }

    #[test]
    fn csv_and_raw_messages() {
        let format = |json: &str, fields: &[&str]| {
            let config = config(&format!(r#"{{"transport": {{"name": "kafka_output"}}, "format": {json}}}"#));
            let columns: Vec<usize> = fields.iter().map(|f| schema().index_of(f).unwrap()).collect();
            let ctx = context(Arc::new(SimDisk::new(1)), Arc::new(schema().project(&columns).unwrap()));
            Encoder::new(config.format.as_ref(), &ctx, "topic")
        };
        let all = ["id", "name", "at", "price"];
        let mut out = Messages::default();
        let csv = format(r#"{"name": "csv", "config": {"key_fields": ["id"], "include_step": true}}"#, &all).unwrap();
        csv.encode(7, &delta(&[(1, "a,b", -1), (2, "c", 1)]), &mut out).unwrap();
        let pair = |key: &str, value: &str| (Some(key.to_owned()), Some(value.to_owned()));
        assert_eq!(texts(&out), [pair("{\"id\":1}", "7,1,\"a,b\",,,delete"), pair("{\"id\":2}", "7,2,c,,,insert")]);

        let project = |rows: &[(i64, &str, i64)], columns: &[usize]| {
            let delta = delta(rows);
            Delta { rows: delta.rows.project(columns).unwrap(), weights: delta.weights }
        };
        out.clear();
        let keyed = r#"{"name": "raw", "config": {"key_fields": ["id"]}}"#;
        let raw = format(keyed, &["id", "name"]).unwrap();
        raw.encode(7, &project(&[(1, "a\n", 2)], &[0, 1]), &mut out).unwrap();
        assert_eq!(texts(&out), [pair("{\"id\":1}", "a\n"), pair("{\"id\":1}", "a\n")]);
        let e = raw.encode(7, &project(&[(1, "a", -1)], &[0, 1]), &mut out).unwrap_err().to_string();
        assert!(e.contains("the format \"raw\" cannot say"), "{e}");
        out.clear();
        format(r#"{"name": "raw", "config": {"key_fields": ["name"], "column_name": "name"}}"#, &["name"]).unwrap_err();

        let e = format(keyed, &all).unwrap_err().to_string();
        assert!(e.contains("which of these columns is the bytes? name, at, price"), "{e}");
        let e =
            format(r#"{"name": "raw", "config": {"column_name": "name"}}"#, &["id", "name"]).unwrap_err().to_string();
        assert!(e.contains("the view has id too"), "{e}");
        let e = format(r#"{"name": "csv", "config": {"key_filds": ["id"]}}"#, &all).unwrap_err().to_string();
        assert!(e.contains("did you mean \"key_fields\"?"), "{e}");
        assert!(format(r#"{"name": "cvs"}"#, &all).unwrap_err().to_string().contains("did you mean \"csv\"?"));
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
        let e = encoder(r#"{"update_format": "upsrt"}"#).unwrap_err().to_string();
        assert!(e.contains("no \"update_format\": \"upsrt\""), "{e}");
        let raw = encoder(r#"{"update_format": "raw"}"#).unwrap();
        let e = raw.encode(7, &delta(&[(1, "a", -1)]), &mut Messages::default()).unwrap_err().to_string();
        assert!(e.contains("step 7 takes the row (1, a, , ) back"), "{e}");
    }
}
