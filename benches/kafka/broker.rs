//! The broker of a bench.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

pub const PATIENCE: Duration = Duration::from_secs(120);

/// A broker; ended when it is dropped, if it was started here.
pub struct Broker {
    dir: PathBuf,
    pub address: String,
}

impl Broker {
    pub fn start(dir: &Path) -> Self {
        let output = script("start", dir);
        assert!(output.status.success(), "no Kafka: {}", String::from_utf8_lossy(&output.stderr));
        Self { dir: dir.to_owned(), address: String::from_utf8_lossy(&output.stdout).trim().to_owned() }
    }

    pub fn settings(&self) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.address).set_log_level(rdkafka::config::RDKafkaLogLevel::Critical);
        settings
    }

    pub fn create(&self, topic: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.settings().create().expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let new = [NewTopic::new(topic, partitions, TopicReplication::Fixed(1))];
        let made = runtime.block_on(admin.create_topics(&new, &AdminOptions::new())).expect("an answer");
        made.into_iter().for_each(|made| drop(made.expect("a topic")));
    }

    /// Makes a topic with these messages.
    pub fn fill(&self, topic: &str, count: u64, message: impl Fn(u64) -> String) {
        self.create(topic, 1);
        let producer: BaseProducer =
            self.settings().set("enable.idempotence", "true").set("linger.ms", "20").create().expect("a producer");
        for n in 0..count {
            send(&producer, topic, message(n).as_bytes());
        }
        producer.flush(PATIENCE).expect("a flush");
    }

    /// A reader of committed messages from a topic's beginning.
    pub fn reader(&self, topic: &str) -> BaseConsumer {
        let mut settings = self.settings();
        settings.set("group.id", "bench").set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = settings.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
        consumer.assign(&list).expect("an assignment");
        consumer
    }

    /// How many committed messages a topic has.
    pub fn count(&self, topic: &str) -> u64 {
        let reader = self.reader(topic);
        let mut count = 0;
        loop {
            match next(&reader) {
                Ok(_) => count += 1,
                Err(KafkaError::PartitionEOF(_)) => return count,
                Err(e) => panic!("{e}"),
            }
        }
    }
}

/// What a reader has next. The library's own call also ends, with nothing, when it has served something else.
pub fn next(reader: &BaseConsumer) -> Result<BorrowedMessage<'_>, KafkaError> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(message) = reader.poll(PATIENCE) {
            return message;
        }
        assert!(Instant::now() < end, "no message comes");
    }
}

/// Hands a message over; waits for room.
pub fn send(producer: &BaseProducer, topic: &str, payload: &[u8]) {
    let mut record = BaseRecord::<(), [u8]>::to(topic).payload(payload);
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
            Err((e, _)) => panic!("{e}"),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        script("kill", &self.dir);
    }
}

fn script(command: &str, dir: &Path) -> std::process::Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/kafka");
    Command::new(script).arg(command).arg(dir).output().expect("the script runs")
}
