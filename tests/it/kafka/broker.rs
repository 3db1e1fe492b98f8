//! A broker for one test, and what a test does with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::process::repository;

const PATIENCE: Duration = Duration::from_secs(60);

/// A broker. One that the test did not start is left alone.
pub struct Broker {
    dir: tempfile::TempDir,
    pub address: String,
    /// Where it wants TLS, a client's certificate, and a password, if it was started so.
    pub secure: Vec<String>,
}

/// A message's key and value.
pub type Pair = (Option<String>, Option<String>);

impl Broker {
    /// Starts one; `None`, said on standard error, if there can be none here and `BACKSTAY_REQUIRE_SERVERS` is not set.
    pub fn start() -> Option<Self> {
        Self::started(&std::env::temp_dir(), "", &[])
    }

    /// Starts one whose data are below a folder, with more lines of its properties.
    pub fn start_in(folder: &Path, properties: &str) -> Option<Self> {
        Self::started(folder, properties, &[])
    }

    /// As [`Broker::start`], one that has secure addresses too; `None` for one that is there already.
    pub fn start_secure() -> Option<Self> {
        Self::is_own().then(|| Self::started(&std::env::temp_dir(), "", &["secure"]))?
    }

    fn started(folder: &Path, properties: &str, more: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir_in(folder).unwrap();
        match script_with("start", &dir, properties, more) {
            Ok(addresses) => {
                let mut addresses = addresses.split(' ').map(str::to_owned);
                Some(Self { dir, address: addresses.next().unwrap(), secure: addresses.collect() })
            }
            Err(why) if std::env::var_os("BACKSTAY_REQUIRE_SERVERS").is_some() => panic!("no Kafka: {why}"),
            Err(why) => {
                eprintln!("SKIPPED, there is no Kafka: {why}");
                None
            }
        }
    }

    /// Whether it can be killed.
    pub fn is_own() -> bool {
        std::env::var_os("BACKSTAY_TEST_KAFKA").is_none()
    }

    pub fn kill(&self) {
        script("kill", &self.dir, &[]).unwrap();
    }

    pub fn restart(&self) {
        script("start", &self.dir, &[]).unwrap();
    }

    /// A file of those that clients of a secure broker need.
    pub fn certificate(&self, name: &str) -> String {
        self.dir.path().join("certificates").join(name).to_str().unwrap().to_owned()
    }

    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        let pid = std::fs::read_to_string(self.dir.path().join("pid")).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        // One that has ended and that nobody waited for is none.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    fn settings(&self) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.address).set_log_level(rdkafka::config::RDKafkaLogLevel::Critical);
        settings
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.settings().create().unwrap()
    }

    /// Makes topics of so many partitions.
    pub fn create(&self, topics: &[(&str, i32)]) {
        self.create_with(topics, &[]);
    }

    /// As [`Broker::create`], with settings of the topics'.
    pub fn create_with(&self, topics: &[(&str, i32)], settings: &[(&str, &str)]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let new = topics.iter().map(|(name, partitions)| {
            let topic = NewTopic::new(name, *partitions, TopicReplication::Fixed(1));
            settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
        });
        let new: Vec<_> = new.collect();
        for result in runtime.block_on(self.admin().create_topics(&new, &AdminOptions::new())).unwrap() {
            result.unwrap();
        }
    }

    /// Gives a topic more partitions, so that it has so many.
    pub fn extend(&self, topic: &str, partitions: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let wanted = [NewPartitions::new(topic, partitions)];
        for result in runtime.block_on(self.admin().create_partitions(&wanted, &AdminOptions::new())).unwrap() {
            result.unwrap();
        }
    }

    /// Deletes a topic, and waits until it is gone.
    pub fn delete(&self, topic: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let admin = self.admin();
        for result in runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap() {
            result.unwrap();
        }
        let end = Instant::now() + PATIENCE;
        let is_there = || {
            let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(10)).unwrap();
            metadata.topics().iter().any(|t| t.name() == topic)
        };
        while is_there() {
            assert!(Instant::now() < end, "{topic} stays");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Deletes the messages of partition 0 before an offset, or all there are, as retention does.
    pub fn delete_before(&self, topic: &str, offset: i64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let admin = self.admin();
        let (_, high) = admin.inner().fetch_watermarks(topic, 0, PATIENCE).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(offset.min(high))).unwrap();
        runtime.block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
    }

    pub fn producer(&self, transactional_id: Option<&str>) -> BaseProducer {
        let mut settings = self.settings();
        settings.set("enable.idempotence", "true");
        match transactional_id {
            Some(id) => settings.set("transactional.id", id),
            None => settings.set("message.timeout.ms", "120000"),
        };
        settings.create().unwrap()
    }

    /// Sends values, and waits until the broker has them.
    pub fn send(&self, topic: &str, values: &[String]) {
        let producer = self.producer(None);
        for value in values {
            producer.send(BaseRecord::<[u8], str>::to(topic).payload(value)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// Sends values to one partition, of these times if any are given, and waits until the broker has them.
    pub fn send_to(&self, topic: &str, partition: i32, values: &[String], times_ms: &[i64]) {
        let producer = self.producer(None);
        for (i, value) in values.iter().enumerate() {
            let mut record = BaseRecord::<[u8], str>::to(topic).partition(partition).payload(value);
            record.timestamp = times_ms.get(i).copied();
            producer.send(record).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// Sends keys and values, and waits until the broker has them.
    pub fn send_keyed(&self, topic: &str, pairs: &[(String, String)]) {
        let producer = self.producer(None);
        for (key, value) in pairs {
            producer.send(BaseRecord::to(topic).key(key).payload(value)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// Key and value of every committed message of a topic, by partition in order.
    pub fn read(&self, topic: &str) -> BTreeMap<i32, Vec<Pair>> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let pair = |m: OwnedMessage| (m.key().map(text), m.payload().map(text));
        let pairs =
            |(partition, messages): (i32, Vec<OwnedMessage>)| (partition, messages.into_iter().map(pair).collect());
        self.messages(topic).into_iter().map(pairs).collect()
    }

    /// Every committed message of a topic, by partition in order.
    pub fn messages(&self, topic: &str) -> BTreeMap<i32, Vec<OwnedMessage>> {
        let mut settings = self.settings();
        settings.set("group.id", "test").set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = settings.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let mut list = TopicPartitionList::new();
        let mut read: BTreeMap<i32, Vec<OwnedMessage>> = BTreeMap::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
            read.insert(partition.id(), Vec::new());
        }
        consumer.assign(&list).unwrap();
        let mut left = read.len();
        while left > 0 {
            match consumer.poll(PATIENCE).expect("messages or the end") {
                Ok(m) => read.get_mut(&m.partition()).unwrap().push(m.detach()),
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => left -= 1,
                Err(e) => panic!("{e}"),
            }
        }
        read
    }
}

/// A row for each id, as the tests' programs read them.
pub fn ids(ids: std::ops::Range<u64>) -> Vec<String> {
    ids.map(|id| format!("{{\"id\": {id}}}")).collect()
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = script("kill", &self.dir, &[]);
    }
}

fn script(command: &str, dir: &tempfile::TempDir, more: &[&str]) -> Result<String, String> {
    script_with(command, dir, "", more)
}

fn script_with(command: &str, dir: &tempfile::TempDir, properties: &str, more: &[&str]) -> Result<String, String> {
    let mut script = Command::new(repository().join("tests/servers/kafka"));
    script.arg(command).arg(dir.path()).args(more);
    if !properties.is_empty() {
        script.env("BACKSTAY_KAFKA_PROPERTIES", properties);
    }
    let output = script.output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
