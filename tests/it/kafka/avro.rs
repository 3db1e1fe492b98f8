//! Avro from topic to topic, by a registry, under SIGKILL; with schemas that evolve, messages that are spoilt, and a registry that is away.
//!
//! What is sent and what comes is written and read by `apache-avro`, another implementation than the product's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use apache_avro::types::Value as Datum;
use apache_avro::{Schema, from_avro_datum, to_avro_datum};
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::Value;

use super::broker::Broker;
use super::registry::Registry;
use crate::process::Running;
use crate::rng::{Rng, number_from};

const PATIENCE: Duration = Duration::from_secs(120);

/// Orders as they were first, and later: a field more, one less, and another order.
const OLD: &str = r#"{"type": "record", "name": "order", "fields": [{"name": "id", "type": "int"}, {"name": "customer", "type": "string"},
    {"name": "note", "type": "string"}]}"#;
const NEW: &str = r#"{"type": "record", "name": "order", "fields": [{"name": "customer", "type": ["null", "string"]},
    {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}, {"name": "id", "type": "long"}]}"#;

fn sql(broker: &Broker, registry: &Registry) -> String {
    let kafka = |topic: &str| format!(r#""bootstrap.servers": "{}", "topic": "{topic}""#, broker.address);
    let avro = |more: &str| {
        let (url, user) = (&registry.url, r#""registry_username": "me", "registry_password": "secret/7""#);
        format!(r#""format": {{"name": "avro", "config": {{"registry_urls": ["{url}"], {user}{more}}}}}"#)
    };
    let output = |topic: &str, more: &str| {
        format!(r#"[{{"transport": {{"name": "kafka_output", "config": {{{}}}}}, {}}}]"#, kafka(topic), avro(more))
    };
    format!(
        r#"CREATE TABLE orders (id BIGINT NOT NULL, customer VARCHAR, amount DECIMAL(10, 2))
        WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "kafka_input", "config": {{{}}}}}, {}}}]');
        CREATE VIEW copies WITH ('connectors' = '{}') AS SELECT * FROM orders;
        CREATE VIEW totals WITH ('connectors' = '{}') AS SELECT customer, count(*) AS n, sum(amount) AS total FROM orders GROUP BY customer;
        CREATE VIEW events WITH ('connectors' = '{}') AS SELECT customer, count(*) AS n FROM orders GROUP BY customer;"#,
        kafka("orders"),
        avro(""),
        output("copies", ""),
        output("totals", r#", "update_format": "confluent_jdbc", "key_fields": ["customer"]"#),
        output("events", r#", "update_format": "debezium", "key_fields": ["customer"], "namespace": "shop""#),
    )
}

struct Pipeline {
    broker: Broker,
    registry: Registry,
    temp: tempfile::TempDir,
    /// Ids of the two schemas.
    ids: [u32; 2],
}

impl Pipeline {
    fn new(more: &str) -> Option<Self> {
        let (broker, registry) = (Broker::start()?, Registry::start());
        broker.create(&[("orders", 2), ("copies", 2), ("totals", 2), ("events", 1)]);
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("p.sql"), sql(&broker, &registry)).unwrap();
        let config = format!(r#"{{"storage": true, "fault_tolerance": {{"checkpoint_interval_secs": 1}}{more}}}"#);
        std::fs::write(temp.path().join("p.config.json"), config).unwrap();
        let ids = [OLD, NEW].map(|schema| registry.register("orders-value", schema));
        Some(Self { broker, registry, temp, ids })
    }

    fn start(&self, workers: &str) -> Running {
        let path = |name: &str| -> PathBuf { self.temp.path().join(name) };
        Running::start(&path("p.sql"), &path("data"), &["--workers", workers])
    }

    /// Key and value of a topic's messages, by partition.
    fn read(&self, topic: &str) -> Vec<Vec<(Option<Value>, Option<Value>)>> {
        use rdkafka::message::Message as _;
        let read = |bytes: Option<&[u8]>| {
            let (header, mut body) = bytes?.split_at(5);
            assert_eq!(header[0], 0);
            let schema = self.registry.known.schema(u32::from_be_bytes(header[1..].try_into().unwrap()));
            let datum = from_avro_datum(&Schema::parse_str(&schema).unwrap(), &mut body, None).unwrap();
            assert!(body.is_empty());
            Some(plain(datum))
        };
        let all = self.broker.messages(topic).into_values();
        all.map(|messages| messages.iter().map(|m| (read(m.key()), read(m.payload()))).collect()).collect()
    }

    fn count(&self, topic: &str) -> usize {
        self.broker.messages(topic).values().map(Vec::len).sum()
    }
}

/// A datum as JSON; decimals as numbers of hundredths.
fn plain(datum: Datum) -> Value {
    match datum {
        Datum::Union(_, inner) => plain(*inner),
        Datum::Record(fields) => fields.into_iter().map(|(name, value)| (name, plain(value))).collect(),
        Datum::Decimal(decimal) => {
            let bytes = <Vec<u8>>::try_from(&decimal).unwrap();
            let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
            bytes.iter().fold(if negative { -1_i64 } else { 0 }, |n, b| n << 8 | i64::from(*b)).into()
        }
        other => Value::try_from(other).unwrap(),
    }
}

/// An order of the old or the new schema: its message, and the row that it is.
fn order(ids: [u32; 2], id: u64, random: &mut Rng) -> (Vec<u8>, (u64, String, Option<i64>)) {
    let (customer, amount) = (format!("c{}", random.below(9)), random.below(90_000) as i64);
    let field = |name: &str, value| (name.to_owned(), value);
    let text = |text: &str| Datum::String(text.to_owned());
    let is_old = random.once_in(2);
    let (schema, record) = match is_old {
        true => (
            OLD,
            vec![field("id", Datum::Int(id as i32)), field("customer", text(&customer)), field("note", text("é"))],
        ),
        false => {
            let amount = Datum::Decimal(apache_avro::Decimal::from(amount.to_be_bytes().to_vec()));
            let customer = Datum::Union(1, Box::new(text(&customer)));
            (NEW, vec![field("customer", customer), field("amount", amount), field("id", Datum::Long(id as i64))])
        }
    };
    let mut message = vec![0];
    message.extend(ids[usize::from(!is_old)].to_be_bytes());
    message.extend(to_avro_datum(&Schema::parse_str(schema).unwrap(), Datum::Record(record)).unwrap());
    (message, (id, customer, (!is_old).then_some(amount)))
}

#[test]
fn schemas_may_change_in_the_middle_of_a_topic_under_kills() {
    let Some(pipeline) = Pipeline::new("") else { return };
    let (mut random, seed) = Rng::from_env(31);
    let kills = number_from("BACKSTAY_KILLS", 5);
    let producer = pipeline.broker.producer(None);
    let mut sent: Vec<(u64, String, Option<i64>)> = Vec::new();
    for _ in 0..kills {
        let running = pipeline.start(&(1 + random.below(2)).to_string());
        let end = std::time::Instant::now() + Duration::from_millis(800 + random.below(1500));
        while std::time::Instant::now() < end {
            for _ in 0..random.below(40) {
                let (message, row) = order(pipeline.ids, sent.len() as u64, &mut random);
                producer.send(BaseRecord::<[u8], [u8]>::to("orders").payload(&message)).map_err(|(e, _)| e).unwrap();
                sent.push(row);
            }
            producer.poll(Duration::from_millis(random.below(10)));
        }
        running.kill();
    }
    producer.flush(PATIENCE).unwrap();
    let mut totals: BTreeMap<&str, (i64, Option<i64>)> = BTreeMap::new();
    for (_, customer, amount) in &sent {
        let (n, total) = totals.entry(customer).or_default();
        *n += 1;
        *total = amount.map_or(*total, |amount| Some(total.unwrap_or_default() + amount));
    }
    let total = |(customer, (n, total)): (&&str, &(i64, Option<i64>))| {
        let row = [("customer", Value::from(*customer)), ("n", (*n).into()), ("total", (*total).into())];
        row.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<serde_json::Map<_, _>>().into()
    };
    let expected: Vec<Value> = totals.iter().map(total).collect();
    // The last value of each key is the view.
    let latest = || -> Vec<Value> {
        let mut last: BTreeMap<String, Option<Value>> = BTreeMap::new();
        for (key, value) in pipeline.read("totals").into_iter().flatten() {
            last.insert(key.unwrap()["customer"].to_string(), value);
        }
        last.into_values().flatten().collect()
    };
    let mut running = pipeline.start("2");
    running.wait_until("every order", PATIENCE, || pipeline.count("copies") >= sent.len());
    running.wait_until("the totals", PATIENCE, || latest() == expected);
    running.stop();

    let mut copies: Vec<(u64, String, Option<i64>)> = Vec::new();
    for (key, value) in pipeline.read("copies").into_iter().flatten() {
        let (None, Some(value)) = (key, value) else { panic!("a key, or no value") };
        let customer = value["customer"].as_str().unwrap().to_owned();
        copies.push((value["id"].as_u64().unwrap(), customer, value["amount"].as_i64()));
    }
    copies.sort();
    assert!(copies == sent, "seed {seed}: {} orders, {} copies", sent.len(), copies.len());
    // Each event says what was and what is.
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for (key, value) in pipeline.read("events").into_iter().flatten() {
        let (customer, value) = (key.unwrap()["customer"].to_string(), value.unwrap());
        let before = counts.insert(customer.clone(), value["after"]["n"].as_i64().unwrap());
        assert_eq!(before, value["before"]["n"].as_i64(), "seed {seed}: {customer}");
        assert_eq!(value["op"], if before.is_some() { "u" } else { "c" }, "seed {seed}");
    }
    let expected: BTreeMap<String, i64> = totals.iter().map(|(c, (n, _))| (format!("\"{c}\""), *n)).collect();
    assert_eq!(counts, expected, "seed {seed}");
    let mut subjects = pipeline.registry.known.subjects();
    subjects.sort();
    let ours = ["copies", "events-key", "events-value", "orders-value", "orders-value", "totals-key", "totals-value"];
    assert_eq!(subjects, ours);
    eprintln!("{} orders", sent.len());
}

#[test]
fn a_spoilt_message_and_a_registry_that_is_away_lose_nothing() {
    let Some(pipeline) = Pipeline::new(r#", "on_parse_error": "skip""#) else { return };
    let mut random = Rng::new(5);
    let producer = pipeline.broker.producer(None);
    let send = |message: &[u8]| {
        producer
            .send(BaseRecord::<[u8], [u8]>::to("orders").partition(0).payload(message))
            .map_err(|(e, _)| e)
            .unwrap();
        producer.flush(PATIENCE).unwrap();
    };
    pipeline.registry.known.set_down(true);
    let mut running = pipeline.start("1");
    let good: Vec<_> = (0..10).map(|id| order(pipeline.ids, id, &mut random)).collect();
    for (i, (message, _)) in good.iter().enumerate() {
        send(message);
        if i == 4 {
            send(b"not Avro at all");
            send(&[&[0, 0, 0, 0, 99], &message[5..]].concat());
            send(&message[..message.len() - 1]);
        }
    }
    running.wait_until_said(&["schema registry at 127.0.0.1", "503, not now"], PATIENCE);
    assert_eq!(pipeline.count("copies"), 0);
    pipeline.registry.known.set_down(false);
    running.wait_until("the good ones", PATIENCE, || pipeline.count("copies") == 10);
    let wrong = ["zero and a schema's id", "the registry has no schema 99", "not Avro of its schema"];
    running.wait_until_said(&wrong, PATIENCE);
    assert!(!running.said().contains("secret"), "{}", running.said());
    running.stop();
}

#[test]
fn what_the_registry_refuses_is_told() {
    let Some(pipeline) = Pipeline::new("") else { return };
    let file = pipeline.temp.path().join("p.sql");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("secret/7", "wrong")).unwrap();
    let (message, _) = order(pipeline.ids, 1, &mut Rng::new(1));
    let producer = pipeline.broker.producer(None);
    producer.send(BaseRecord::<[u8], [u8]>::to("orders").payload(&message)).map_err(|(e, _)| e).unwrap();
    producer.flush(PATIENCE).unwrap();
    let said = pipeline.start("1").fails(PATIENCE);
    for word in
        ["connector orders.in", "schema registry at 127.0.0.1", "401, who are you?", "correct \"registry_username\""]
    {
        assert!(said.contains(word), "no \"{word}\" in: {said}");
    }
    // A schema that does not fit: the row does not parse.
    std::fs::write(&file, good.replace("customer VARCHAR", "customer DOUBLE")).unwrap();
    std::fs::remove_dir_all(pipeline.temp.path().join("data")).unwrap();
    let mut running = pipeline.start("1");
    running.wait_until_said(&["column customer is Utf8 there, which is not a number"], PATIENCE);
    running.stop();
}
