//! Kafka to SQL to Kafka under SIGKILLs of the pipeline and of the broker.
//!
//! The views go to Kafka and to a file: the file is exactly-once by tests of its own, so that the messages must be its lines, each once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::broker::{Broker, Pair};
use crate::process::{Running, integrate};
use crate::rng::{Rng, number_from};

const CUSTOMERS: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(120);

fn sql(address: &str) -> String {
    let input = |topic: &str, format: &str| {
        format!(
            r#"[{{"name": "in", "transport": {{"name": "kafka_input", "config": {{"bootstrap.servers": "{address}", "topic": "{topic}"}}}},
            "format": {{"name": "json", "config": {{"update_format": "{format}"}}}}}}]"#
        )
    };
    let outputs = |view: &str, kafka: &str| {
        format!(
            r#"[{{"name": "kafka", "transport": {{"name": "kafka_output", "config": {{"bootstrap.servers": "{address}", "topic": "{view}"}}}},
             "format": {{"name": "json", "config": {{{kafka}}}}}}},
            {{"name": "file", "transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/{view}.ndjson"}}}},
             "format": {{"name": "json", "config": {{"include_step": true}}}}}}]"#
        )
    };
    format!(
        "CREATE TABLE orders (id BIGINT NOT NULL, customer BIGINT NOT NULL, amount BIGINT NOT NULL) WITH ('connectors' = '{}');
         CREATE TABLE customers (id BIGINT NOT NULL PRIMARY KEY, city VARCHAR NOT NULL) WITH ('connectors' = '{}');
         CREATE VIEW totals WITH ('connectors' = '{}')
         AS SELECT c.city, count(*) AS n, sum(o.amount) AS total FROM orders o JOIN customers c ON o.customer = c.id GROUP BY c.city;
         CREATE VIEW large WITH ('connectors' = '{}') AS SELECT id, amount FROM orders WHERE amount >= 900;",
        input("orders", "raw"),
        input("customers", "debezium"),
        outputs("totals", r#""update_format": "upsert", "key_fields": ["city"]"#),
        outputs("large", r#""include_step": true"#),
    )
}

/// What the inputs hold, and what the views must come to.
#[derive(Debug, Default)]
struct Expected {
    customers: BTreeMap<u64, String>,
    orders: Vec<(u64, u64, u64)>,
}

impl Expected {
    fn totals(&self) -> BTreeMap<String, i64> {
        let mut by_city: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (_, customer, amount) in &self.orders {
            let Some(city) = self.customers.get(customer) else { continue };
            let (n, total) = by_city.entry(city).or_default();
            *n += 1;
            *total += amount;
        }
        let row = |(city, (n, total))| (format!(r#"{{"city":"{city}","n":{n},"total":{total}}}"#), 1);
        by_city.into_iter().map(row).collect()
    }

    fn large(&self) -> BTreeMap<String, i64> {
        let large = self.orders.iter().filter(|(_, _, amount)| *amount >= 900);
        large.map(|(id, _, amount)| (format!(r#"{{"id":{id},"amount":{amount}}}"#), 1)).collect()
    }
}

/// Sends orders in transactions, of which some are aborted, and change events of customers, until it is told to stop.
fn produce(broker: &Broker, mut random: Rng, done: &AtomicBool) -> Expected {
    let mut expected = Expected::default();
    let plain = broker.producer(None);
    let customer = |id: u64, random: &mut Rng| {
        // Changes of one customer stay in order.
        let key = id.to_string();
        if random.once_in(8) {
            send(
                &plain,
                "customers",
                Some(&key),
                Some(&format!(r#"{{"before": {{"id": {id}}}, "after": null, "op": "d"}}"#)),
            );
            send(&plain, "customers", Some(&key), None);
            return None;
        }
        let city = format!("city {}", random.below(20));
        let event = format!(r#"{{"before": null, "after": {{"id": {id}, "city": "{city}"}}, "op": "u"}}"#);
        send(&plain, "customers", Some(&key), Some(&format!(r#"{{"schema": {{}}, "payload": {event}}}"#)));
        Some(city)
    };
    let change = |expected: &mut Expected, id: u64, random: &mut Rng| match customer(id, random) {
        Some(city) => expected.customers.insert(id, city),
        None => expected.customers.remove(&id),
    };
    for id in 0..CUSTOMERS {
        change(&mut expected, id, &mut random);
    }
    let mut orders = transactional(broker);
    let mut id = 0;
    while !done.load(Ordering::Acquire) {
        let batch: Vec<(u64, u64, u64)> =
            (0..1 + random.below(60)).map(|i| (id + i, random.below(CUSTOMERS + 5), random.below(1000))).collect();
        let is_aborted = random.once_in(6);
        // Of a transaction whose end is not known, nobody knows: it is ended by a new producer, and looked for in the topic.
        match transaction(&orders, &batch, is_aborted) {
            Ok(()) => {}
            Err(e) => {
                eprintln!("the test's producer begins anew: {e}");
                orders = transactional(broker);
                let there = broker.read("orders");
                let first = format!("\"id\": {id},");
                if !there.values().flatten().any(|(_, v)| v.as_ref().is_some_and(|v| v.contains(&first))) {
                    id += batch.len() as u64;
                    continue;
                }
            }
        }
        id += batch.len() as u64;
        if !is_aborted {
            expected.orders.extend(batch);
        }
        if random.once_in(3) {
            let id = random.below(CUSTOMERS);
            change(&mut expected, id, &mut random);
        }
        plain.poll(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(random.below(20)));
    }
    plain.flush(PATIENCE).unwrap();
    expected
}

fn transactional(broker: &Broker) -> BaseProducer {
    let end = Instant::now() + PATIENCE;
    loop {
        let producer = broker.producer(Some("the test"));
        match producer.init_transactions(Duration::from_secs(10)) {
            Ok(()) => return producer,
            Err(e) => assert!(Instant::now() < end, "{e}"),
        }
    }
}

fn transaction(
    producer: &BaseProducer,
    orders: &[(u64, u64, u64)],
    is_aborted: bool,
) -> rdkafka::error::KafkaResult<()> {
    producer.begin_transaction()?;
    for (id, customer, amount) in orders {
        let value = format!(r#"{{"id": {id}, "customer": {customer}, "amount": {amount}}}"#);
        send(producer, "orders", None, Some(&value));
    }
    producer.flush(Duration::from_secs(20))?;
    match is_aborted {
        true => producer.abort_transaction(Duration::from_secs(10)),
        false => producer.commit_transaction(Duration::from_secs(10)),
    }
}

fn send(producer: &BaseProducer, topic: &str, key: Option<&str>, value: Option<&str>) {
    let mut record = BaseRecord::<str, str>::to(topic);
    (record.key, record.payload) = (key, value);
    producer.send(record).map_err(|(e, _)| e).unwrap();
}

/// Values with how often they are there.
fn counted<'a>(values: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    values.for_each(|v| *counts.entry(v).or_default() += 1);
    counts
}

#[test]
fn every_step_is_in_the_topics_once_and_whole_under_kills() {
    let Some(broker) = Broker::start() else { return };
    let (mut random, seed) = Rng::from_env(11);
    let (kills, broker_kills) = (number_from("BACKSTAY_KILLS", 8), number_from("BACKSTAY_BROKER_KILLS", 2));
    eprintln!("BACKSTAY_SEED={seed} BACKSTAY_KILLS={kills} BACKSTAY_BROKER_KILLS={broker_kills}");
    broker.create(&[("orders", 3), ("customers", 2), ("totals", 2), ("large", 3)]);
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("orders.sql"), sql(&broker.address)).unwrap();
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#;
    std::fs::write(temp.path().join("orders.config.json"), config).unwrap();
    let (file, data) = (temp.path().join("orders.sql"), temp.path().join("data"));
    let start = |workers: u64| Running::start(&file, &data, &["--workers", &workers.to_string()]);
    let done = AtomicBool::new(false);
    let expected = std::thread::scope(|scope| {
        let producing = scope.spawn(|| produce(&broker, Rng::new(seed), &done));
        for kill in 0..kills {
            let pipeline = start(1 + random.below(3));
            std::thread::sleep(Duration::from_millis(200 + random.below(2500)));
            let of_broker = Broker::is_own() && kill * broker_kills / kills != (kill + 1) * broker_kills / kills;
            if of_broker {
                broker.kill();
                std::thread::sleep(Duration::from_millis(random.below(2000)));
                broker.restart();
                std::thread::sleep(Duration::from_millis(random.below(4000)));
            }
            pipeline.kill();
        }
        done.store(true, Ordering::Release);
        producing.join().unwrap()
    });
    let mut pipeline = start(2);
    let content =
        |view: &str| std::fs::read(temp.path().join("data").join(format!("{view}.ndjson"))).unwrap_or_default();
    let whole = |bytes: Vec<u8>| bytes[..bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)].to_vec();
    let end = Instant::now() + PATIENCE;
    loop {
        let (totals, large) =
            (integrate("totals", &whole(content("totals"))), integrate("large", &whole(content("large"))));
        if (&totals, &large) == (&expected.totals(), &expected.large()) {
            break;
        }
        pipeline.is_alive();
        let say =
            || format!("{totals:?}\n{:?}\n{} of {} large", expected.totals(), large.len(), expected.large().len());
        assert!(Instant::now() < end, "seed {seed}: the views do not come to their end: {}", say());
        std::thread::sleep(Duration::from_millis(100));
    }
    pipeline.stop();

    let text = String::from_utf8(content("large")).unwrap();
    let read = broker.read("large");
    let values = read.values().flatten().map(|(_, value)| value.as_deref().unwrap());
    let (lines, messages) = (counted(text.lines()), counted(values));
    let missing: Vec<_> = lines.iter().filter(|(l, n)| messages.get(*l) != Some(n)).take(5).collect();
    let strange: Vec<_> = messages.iter().filter(|(m, n)| lines.get(*m) != Some(n)).take(5).collect();
    assert!(
        missing.is_empty() && strange.is_empty(),
        "seed {seed}: not in Kafka {missing:?}, not in the file {strange:?}"
    );
    // The last value of each key is the view.
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for partition in broker.read("totals").values() {
        let by_key: BTreeMap<&str, &Pair> = partition.iter().map(|p| (p.0.as_deref().unwrap(), p)).collect();
        last.extend(by_key.values().filter_map(|(_, value)| Some((value.clone()?, 1))));
    }
    assert_eq!(last, expected.totals(), "seed {seed}");
    eprintln!("{} orders, {} lines of `large`, each in Kafka once", expected.orders.len(), lines.len());
}
