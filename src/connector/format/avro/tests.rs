use std::sync::Arc;

use apache_avro::types::Value as Datum;
use apache_avro::{Schema as AvroSchema, from_avro_datum, to_avro_datum};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use backstay_storage::disk::SimDisk;
use serde_json::{Value, json};

use super::encode::Encoder;
use super::*;
use crate::circuit::Delta;
use crate::connector::format::message::Messages;
use crate::connector::testing::{Rng, context, text};

const ROW: &str = r#"{"type": "record", "name": "row", "fields": [
    {"name": "extra", "type": {"type": "array", "items": "string"}},
    {"name": "NAME", "type": ["null", "string"], "default": null},
    {"name": "id", "type": "int"},
    {"name": "at", "type": {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}}]}"#;

fn table() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("gone", DataType::Int32, true),
    ]))
}

fn ctx() -> Context {
    context(Arc::new(SimDisk::new(1)), table())
}

fn row(id: i32, name: Option<&str>) -> Vec<(String, Datum)> {
    let name = match name {
        None => Datum::Union(0, Box::new(Datum::Null)),
        Some(name) => Datum::Union(1, Box::new(Datum::String(name.to_owned()))),
    };
    let extra = Datum::Array(vec![Datum::String("x".to_owned()), Datum::String("y".to_owned())]);
    let field = |name: &str, value| (name.to_owned(), value);
    vec![field("extra", extra), field("NAME", name), field("id", Datum::Int(id)), field("at", Datum::Long(1_500_000))]
}

fn body(schema: &str, fields: Vec<(String, Datum)>) -> Vec<u8> {
    to_avro_datum(&AvroSchema::parse_str(schema).unwrap(), Datum::Record(fields)).unwrap()
}

/// Parses messages; `None` is one without a value.
fn parse(ctx: &Context, config: &Value, messages: &[Option<Vec<u8>>]) -> Parsed {
    let avro = Avro::new(config, ctx).unwrap();
    let (mut block, mut records) = (Vec::new(), Vec::new());
    for message in messages {
        let start = block.len();
        block.extend_from_slice(message.as_deref().unwrap_or_default());
        let text_end = block.len();
        block.push(b'\n');
        records.push(Record { start, text_end, end: text_end + 1, broken: false, absent: message.is_none() });
    }
    let parsed = avro.parse(&block, 0, &records).unwrap();
    assert_eq!(parsed.rows.num_rows(), parsed.ends.len());
    parsed
}

fn rows(parsed: &Parsed) -> Vec<(i64, String)> {
    let weight = |i: usize| parsed.weights.as_ref().map_or(1, |w| w[i]);
    (0..parsed.rows.num_rows()).map(|i| (weight(i), text(&parsed.rows.slice(i, 1)))).collect()
}

fn fixed(schema: &str, update_format: &str) -> Value {
    json!({"schema": schema, "skip_schema_id": true, "update_format": update_format})
}

#[test]
fn a_spoilt_message_harms_no_other() {
    let good = |id: i32| Some(body(ROW, row(id, Some("a"))));
    let cut = good(2).map(|m| m[..m.len() - 1].to_vec());
    let longer = good(3).map(|m| [m, vec![0]].concat());
    let garbage = Some(vec![0xff; 30]);
    let messages = [good(1), cut, longer, garbage, None, Some(Vec::new()), Some(body(ROW, row(7, None)))];
    let parsed = parse(&ctx(), &fixed(ROW, "raw"), &messages);
    let at = "1970-01-01T00:00:01.500";
    assert_eq!(rows(&parsed), [(1, format!("1,a,{at},NULL")), (1, format!("7,NULL,{at},NULL"))]);
    let said: Vec<&str> = parsed.errors.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(said.len(), 5, "{said:?}");
    assert!(said[0].contains("not Avro of its schema") && said[1].contains("1 bytes are left"), "{said:?}");
    assert!(said[2].contains("not Avro of its schema") && said[3].contains("no value"), "{said:?}");
    assert!(said[4].contains("in the middle of its record"), "{said:?}");

    // Neither does one that begins with something else, or has a value that does not fit.
    let ctx = context(Arc::new(SimDisk::new(1)), Arc::new(Schema::new(vec![Field::new("ID", DataType::Int8, false)])));
    let framed = |id: i32| Some([vec![0, 0, 0, 0, 9], body(ROW, row(id, None))].concat());
    let parsed = parse(&ctx, &json!({"schema": ROW}), &[framed(5), framed(300), good(6), Some(vec![0, 1])]);
    assert_eq!(rows(&parsed), [(1, "5".to_owned())]);
    assert!(parsed.errors[0].message.contains("\"300\" is not a TINYINT"), "{:?}", parsed.errors);
    assert!(parsed.errors[1].message.contains("zero and a schema's id"), "{:?}", parsed.errors);
}

#[test]
fn no_bytes_end_the_process() {
    let mut random = Rng(3);
    let sound = body(&envelope(), event("u", Some(row(1, Some("name"))), Some(row(2, None))));
    for _ in 0..3_000 {
        let mut spoilt = sound.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(spoilt.len());
            spoilt[at] = random.below(256) as u8;
        }
        spoilt.truncate(1 + random.below(spoilt.len()));
        parse(&ctx(), &fixed(&envelope(), "debezium"), &[Some(spoilt.clone())]);
        parse(&ctx(), &fixed(ROW, "raw"), &[Some(spoilt)]);
    }
}

fn envelope() -> String {
    format!(
        r#"{{"type": "record", "name": "Envelope", "namespace": "db", "fields": [
        {{"name": "before", "type": ["null", {ROW}], "default": null}}, {{"name": "after", "type": ["null", "row"], "default": null}},
        {{"name": "source", "type": {{"type": "record", "name": "source", "fields": [{{"name": "lsn", "type": ["null", "long"]}}]}}}},
        {{"name": "op", "type": "string"}}]}}"#
    )
}

fn event(op: &str, before: Option<Vec<(String, Datum)>>, after: Option<Vec<(String, Datum)>>) -> Vec<(String, Datum)> {
    let image = |image: Option<Vec<(String, Datum)>>| match image {
        None => Datum::Union(0, Box::new(Datum::Null)),
        Some(row) => Datum::Union(1, Box::new(Datum::Record(row))),
    };
    let source = Datum::Record(vec![("lsn".to_owned(), Datum::Union(1, Box::new(Datum::Long(7))))]);
    let field = |name: &str, value| (name.to_owned(), value);
    vec![
        field("before", image(before)),
        field("after", image(after)),
        field("source", source),
        field("op", Datum::String(op.to_owned())),
    ]
}

#[test]
fn events_are_rows() {
    let envelope = envelope();
    let a = |id: i32, name: &str| Some(row(id, Some(name)));
    let message = |op: &str, before, after| Some(body(&envelope, event(op, before, after)));
    let messages = [
        message("r", None, a(1, "a")),
        message("u", a(1, "a"), a(1, "b")),
        None,
        message("u", a(1, "b"), a(2, "b")),
        message("d", a(2, "b"), None),
        message("u", None, a(3, "c")),
        message("t", None, None),
        message("d", None, a(1, "a")),
    ];
    let config = fixed(&envelope, "debezium");
    let row = |weight, row: &str| (weight, format!("{row},1970-01-01T00:00:01.500,NULL"));
    let parsed = parse(&ctx(), &config, &messages);
    let moved = [row(-1, "1,b"), row(1, "2,b"), row(-1, "2,b")];
    assert_eq!(rows(&parsed), [&[row(1, "1,a"), row(-1, "1,a"), row(1, "1,b")], &moved[..]].concat());
    assert_eq!(parsed.ends[1], parsed.ends[2]);
    let said: Vec<&str> = parsed.errors.iter().map(|e| e.message.as_str()).collect();
    assert!(said[0].contains("REPLICA IDENTITY FULL") && said[1].contains("got \"t\""), "{said:?}");
    assert!(said[2].contains("\"before\" is missing") && said.len() == 3, "{said:?}");

    // Updates alone: each is its old row and its new one.
    let updates = [message("u", a(1, "a"), a(1, "b")), message("u", a(2, "a"), a(2, "b"))];
    let two = |id: i32| [row(-1, &format!("{id},a")), row(1, &format!("{id},b"))];
    assert_eq!(rows(&parse(&ctx(), &config, &updates)), [two(1), two(2)].concat());

    // With a key an update is one row, unless it changes the key.
    let keyed = Context { primary_key: vec![0], ..ctx() };
    let parsed = parse(&keyed, &config, &messages);
    assert_eq!(rows(&parsed), [&[row(1, "1,a"), row(1, "1,b")], &moved[..], &[row(1, "3,c")]].concat());
}

#[test]
fn schemas_are_checked() {
    let error = |config: Value| Avro::new(&config, &ctx()).unwrap_err().to_string();
    assert!(error(json!({})).contains("\"registry_urls\" is missing, or \"schema\""));
    let e = error(fixed(r#"{"type": "record", "name": "r", "fields": [{"name": "name", "type": "string"}]}"#, "raw"));
    assert!(e.contains("no column id, which is NOT NULL in the table; there are: name"), "{e}");
    assert!(error(fixed(ROW, "debezium")).contains("an event of Debezium's has the fields before, after and op"));
    assert!(error(fixed("{", "raw")).contains("not JSON"));
    let e = error(json!({"registry_urls": ["http://h"], "skip_schema_id": true}));
    assert!(e.contains("needs \"schema\""), "{e}");
    assert!(error(json!({"registry_ulrs": []})).contains("did you mean \"registry_urls\"?"));
}

fn delta(rows: &[(i64, &str, i64)]) -> Delta {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| Some(r.0)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| Some(r.1)).collect::<StringArray>()),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000); rows.len()])),
        Arc::new(arrow::array::Int32Array::new_null(rows.len())),
    ];
    Delta { rows: RecordBatch::try_new(table(), columns).unwrap(), weights: rows.iter().map(|r| r.2).collect() }
}

/// Keys and values, as another implementation reads them by these schemas.
fn encoded(config: &Value, key: &[usize], schemas: [&str; 2], delta: &Delta) -> Vec<(Option<String>, Option<String>)> {
    let encoder = Encoder::new(config, &ctx(), "topic", key).unwrap();
    let mut out = Messages::default();
    encoder.encode(7, delta, &mut out).unwrap();
    let read = |bytes: Option<&[u8]>, schema: &str| {
        let (header, mut body) = bytes?.split_at(HEADER);
        assert_eq!(header, [0; HEADER]);
        let datum = from_avro_datum(&AvroSchema::parse_str(schema).unwrap(), &mut body, None).unwrap();
        assert!(body.is_empty());
        Some(Value::try_from(datum).unwrap().to_string())
    };
    out.iter().map(|(key, value)| (read(key, schemas[0]), read(value, schemas[1]))).collect()
}

#[test]
fn deltas_are_messages() {
    let row = r#"{"type": "record", "name": "t", "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"]},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]}, {"name": "gone", "type": ["null", "int"]}]}"#;
    let key = r#"{"type": "record", "name": "t_key", "fields": [{"name": "id", "type": "long"}]}"#;
    let envelope = format!(
        r#"{{"type": "record", "name": "Envelope", "fields": [{{"name": "before", "type": ["null", {row}]}}, {{"name": "after", "type": ["null", "t"]}},
        {{"name": "op", "type": "string"}}]}}"#
    );
    let text = |id: i64, name: &str| format!(r#"{{"at":1500000,"gone":null,"id":{id},"name":"{name}"}}"#);
    let sorted = |found: Option<String>| {
        let value: std::collections::BTreeMap<String, Value> = serde_json::from_str(&found.unwrap()).unwrap();
        serde_json::to_string(&value).unwrap()
    };
    let raw = encoded(&json!({}), &[], [key, row], &delta(&[(1, "a", 2)]));
    assert_eq!(raw.len(), 2);
    assert_eq!((raw[0].0.clone(), sorted(raw[1].1.clone())), (None, text(1, "a")));

    let changes = delta(&[(1, "a", -1), (1, "b", 1), (2, "c", -1)]);
    let config = json!({"update_format": "confluent_jdbc"});
    let upserts = encoded(&config, &[0], [key, row], &changes);
    let keys: Vec<Option<&str>> = upserts.iter().map(|(key, _)| key.as_deref()).collect();
    assert_eq!(keys, [Some(r#"{"id":1}"#), Some(r#"{"id":2}"#)]);
    assert_eq!((sorted(upserts[0].1.clone()), &upserts[1].1), (text(1, "b"), &None));

    let debezium = json!({"update_format": "debezium"});
    let events = encoded(&debezium, &[0], [key, &envelope], &changes);
    let told = |found: &Option<String>| {
        let event: Value = serde_json::from_str(found.as_deref().unwrap()).unwrap();
        (event["op"].clone(), event["before"]["name"].clone(), event["after"]["name"].clone())
    };
    let events: Vec<_> = events.iter().map(|(_, value)| told(value)).collect();
    assert_eq!(events, [(json!("u"), json!("a"), json!("b")), (json!("d"), json!("c"), Value::Null)]);
    let events = encoded(&debezium, &[], [key, &envelope], &delta(&[(1, "a", -1), (1, "b", 1)]));
    let events: Vec<_> = events.iter().map(|(_, value)| told(value)).collect();
    assert_eq!(events, [(json!("d"), json!("a"), Value::Null), (json!("c"), Value::Null, json!("b"))]);

    let encoder = |config: Value, key: &[usize]| Encoder::new(&config, &ctx(), "topic", key);
    let e = encoder(json!({}), &[]).unwrap().encode(7, &changes, &mut Messages::default()).unwrap_err().to_string();
    assert!(e.contains("step 7 takes the row (1, a,"), "{e}");
    let two = delta(&[(1, "a", 1), (1, "b", 1)]);
    let e = encoder(config.clone(), &[0]).unwrap().encode(7, &two, &mut Messages::default()).unwrap_err().to_string();
    assert!(e.contains("two rows with the key 1"), "{e}");
    assert!(encoder(config, &[]).unwrap_err().to_string().contains("needs \"key_fields\""));
    let e = encoder(json!({"schema": r#"{"type": "record", "name": "x", "fields": []}"#}), &[]);
    assert!(e.is_ok() || e.is_err_and(|e| e.to_string().contains("cannot be written as Avro")));
}
