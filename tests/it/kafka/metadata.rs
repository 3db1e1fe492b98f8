//! Keys, headers and places of messages as columns, and raw bytes from topic to topic, under SIGKILL.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer};

use super::broker::Broker;
use crate::process::Running;
use crate::rng::{Rng, number_from};

const PATIENCE: Duration = Duration::from_secs(120);

fn sql(address: &str) -> String {
    format!(
        r#"CREATE TABLE t (kafka_key VARCHAR, data VARBINARY, h MAP<VARCHAR, VARCHAR>, kafka_topic VARCHAR NOT NULL, kafka_partition INT NOT NULL,
            place BIGINT NOT NULL, kafka_timestamp BIGINT)
        WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "kafka_input", "config": {{"bootstrap.servers": "{address}", "topic": "in",
            "include_key": true, "include_headers": "h", "include_topic": true, "include_partition": true, "include_offset": "place", "include_timestamp": true}}}},
            "format": {{"name": "raw", "config": {{"column_name": "data"}}}}}}]');
        CREATE VIEW copy WITH ('connectors' = '[{{"transport": {{"name": "kafka_output", "config": {{"bootstrap.servers": "{address}", "topic": "copy"}}}},
            "format": {{"name": "raw", "config": {{"key_fields": ["kafka_key"]}}}}}}]')
        AS SELECT kafka_key, data FROM t;
        CREATE VIEW facts WITH ('connectors' = '[{{"transport": {{"name": "kafka_output", "config": {{"bootstrap.servers": "{address}", "topic": "facts",
            "headers": [{{"key": "from", "value": "facts"}}, {{"key": "bytes", "value": [0, 255]}}, {{"key": "none"}}]}}}},
            "format": {{"name": "json", "config": {{"update_format": "raw", "key_fields": ["kafka_key"]}}}}}}]')
        AS SELECT kafka_key, h, kafka_topic, kafka_partition, place, kafka_timestamp FROM t;"#
    )
}

fn counted<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    counts
}

fn all(messages: BTreeMap<i32, Vec<OwnedMessage>>) -> Vec<OwnedMessage> {
    messages.into_values().flatten().collect()
}

#[test]
fn metadata_and_raw_bytes_are_as_they_were_sent_under_kills() {
    let Some(broker) = Broker::start() else { return };
    let (mut random, seed) = Rng::from_env(23);
    let kills = number_from("BACKSTAY_KILLS", 5);
    broker.create(&[("in", 2), ("copy", 2), ("facts", 1)]);
    let temp = tempfile::tempdir().unwrap();
    let (file, data) = (temp.path().join("p.sql"), temp.path().join("data"));
    std::fs::write(&file, sql(&broker.address)).unwrap();
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#;
    std::fs::write(temp.path().join("p.config.json"), config).unwrap();

    let producer = broker.producer(None);
    let mut number = 0;
    for _ in 0..kills {
        let running = Running::start(&file, &data, &["--workers", "2"]);
        let end = Instant::now() + Duration::from_millis(800 + random.below(1500));
        while Instant::now() < end {
            for _ in 0..random.below(40) {
                let value: Vec<u8> = (0..random.below(6)).map(|_| random.below(256) as u8).collect();
                let (key, header) = (format!("k{}", random.below(9)), format!("{number}"));
                let headers = OwnedHeaders::new().insert(Header { key: "n", value: Some(&header) });
                let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to("in").key(key.as_str()).headers(headers);
                record.payload = (!random.once_in(9)).then_some(&value);
                producer.send(record).map_err(|(e, _)| e).unwrap();
                number += 1;
            }
            producer.poll(Duration::from_millis(random.below(10)));
        }
        running.kill();
    }
    producer.flush(PATIENCE).unwrap();
    let mut running = Running::start(&file, &data, &["--workers", "1"]);
    let count = |topic: &str| all(broker.messages(topic)).len();
    running
        .wait_until("every message in both topics", PATIENCE, || count("copy") >= number && count("facts") >= number);
    running.stop();

    let sent = all(broker.messages("in"));
    assert_eq!(sent.len(), number, "seed {seed}");
    let pair = |m: &OwnedMessage| (m.key().map(<[u8]>::to_vec), m.payload().map(<[u8]>::to_vec));
    let copied = all(broker.messages("copy"));
    assert!(counted(sent.iter().map(pair)) == counted(copied.iter().map(pair)), "seed {seed}: the copies are others");
    let fact = |m: &OwnedMessage| {
        let key = std::str::from_utf8(m.key().unwrap()).unwrap();
        let header = std::str::from_utf8(m.headers().unwrap().get(0).value.unwrap()).unwrap();
        let (partition, offset, time) = (m.partition(), m.offset(), m.timestamp().to_millis().unwrap());
        format!(
            r#"{{"kafka_key":"{key}","h":{{"n":"{header}"}},"kafka_topic":"in","kafka_partition":{partition},"place":{offset},"kafka_timestamp":{time}}}"#
        )
    };
    let facts = all(broker.messages("facts"));
    let told = facts.iter().map(|m| String::from_utf8(m.payload().unwrap().to_vec()).unwrap());
    assert_eq!(counted(sent.iter().map(fact)), counted(told), "seed {seed}");
    for message in &facts {
        let headers = message.headers().unwrap();
        let headers: Vec<_> = headers.iter().map(|h| (h.key, h.value)).collect();
        assert_eq!(headers, [("from", Some(&b"facts"[..])), ("bytes", Some(&[0, 255])), ("none", None)]);
    }
    eprintln!("{number} messages");
}
