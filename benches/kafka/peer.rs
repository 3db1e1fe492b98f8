//! What librdkafka does by itself: a consumer and a transactional producer in a loop.

use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};

use super::broker::{Broker, PATIENCE, next, send};
use super::ours::is_long;

/// As `kafka_output`.
const BYTES: usize = 8 << 20;
const MESSAGES: usize = 100_000;

/// Copies the messages that pass the filter; says how long it took.
pub fn copy(broker: &Broker, input: &str, output: &str, count: u64) -> Duration {
    let begun = Instant::now();
    let reader = broker.reader(input);
    let mut settings = broker.settings();
    settings.set("transactional.id", format!("peer-{output}")).set("linger.ms", "2");
    let producer: BaseProducer = settings.create().expect("a producer");
    producer.init_transactions(PATIENCE).expect("a transactional producer");
    let (mut read, mut bytes, mut messages) = (0, 0, 0);
    producer.begin_transaction().expect("a transaction");
    while read < count {
        match next(&reader) {
            Ok(message) => {
                read += 1;
                let payload = message.payload().unwrap_or_default();
                if is_long(payload.len()) {
                    (bytes, messages) = (bytes + payload.len(), messages + 1);
                    send(&producer, output, payload);
                }
            }
            Err(KafkaError::PartitionEOF(_)) => {}
            Err(e) => panic!("{e}"),
        }
        if bytes >= BYTES || messages >= MESSAGES {
            (bytes, messages) = (0, 0);
            producer.commit_transaction(PATIENCE).expect("a commit");
            producer.begin_transaction().expect("a transaction");
        }
    }
    producer.commit_transaction(PATIENCE).expect("a commit");
    begun.elapsed()
}
