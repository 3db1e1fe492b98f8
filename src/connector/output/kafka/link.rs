//! Connections to the brokers: a [`Reader`] of markers, and a [`Link`] that also sends transactions.

use std::fmt;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::broker;
use super::marker::Marker;
use crate::connector::format::message::Messages;
use crate::connector::kafka::{Consumer, Producer, REQUEST, client, code, unanswered, unanswered_by};
use crate::connector::patience::now;
use crate::connector::{ConnectorError, Result};

/// How long messages that were handed over may take to be sent, before it is tried anew.
const SEND: Duration = Duration::from_secs(20);

/// Where an output writes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) connector: String,
    /// Name of the transactional producer and of the group of the marker.
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) settings: ClientConfig,
    /// What every message has.
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Why a transaction failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ConnectorError,
    pub(super) code: Option<Code>,
    /// The brokers say that another producer has taken this one's place.
    pub(super) is_fence: bool,
}

impl Failure {
    fn new(target: &Target, what: &str, error: &KafkaError) -> Self {
        let code = code(error);
        let is_fence = matches!(
            code,
            Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::TransactionCoordinatorFenced)
        );
        Self { error: broker(target, what, error), code, is_fence }
    }
}

/// Reads the marker.
pub(super) struct Reader(Consumer);

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    /// With `read_committed` a group\'s offset is asked for as a stable one: transactions under way are waited for.
    pub(super) fn new(target: &Target, isolation: &str) -> Result<Self> {
        let mut settings = target.settings.clone();
        settings.set("group.id", &target.id).set("enable.auto.commit", "false").set("isolation.level", isolation);
        client(&settings).map(Self).map_err(|e| broker(target, "make a consumer", &e))
    }

    /// The marker.
    pub(super) fn marker(&self, target: &Target) -> Result<Option<Marker>> {
        let fail = |e: KafkaError| unanswered(&target.connector, "read the marker", &e, &self.0);
        let mut list = TopicPartitionList::new();
        list.add_partition(&target.topic, 0);
        let found = self.0.committed_offsets(list, REQUEST).map_err(fail)?;
        let Some(element) = found.elements().into_iter().next() else { return Ok(None) };
        element.error().map_err(fail)?;
        let Offset::Offset(offset) = element.offset() else { return Ok(None) };
        match Marker::parse(offset, element.metadata()) {
            Some(marker) => Ok(Some(marker)),
            None => Err(ConnectorError::new(
                &target.connector,
                format!(
                    "the consumer group {} has offset {offset} with metadata \"{}\" on topic {}: that is not a marker of Backstay's; delete the group's offset",
                    target.id,
                    element.metadata(),
                    target.topic
                ),
            )),
        }
    }

    /// Whether the topic has messages, or what is left of some.
    pub(super) fn has_messages(&self, target: &Target) -> Result<bool> {
        let fail = |e: KafkaError| unanswered(&target.connector, "look at the topic", &e, &self.0);
        let metadata = self.0.fetch_metadata(Some(&target.topic), REQUEST).map_err(fail)?;
        for partition in metadata.topics().iter().flat_map(|t| t.partitions()) {
            let (_, high) = self.0.fetch_watermarks(&target.topic, partition.id(), REQUEST).map_err(fail)?;
            if high > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A producer whose transactions are initialised, and a reader.
pub(super) struct Link {
    producer: Producer,
    pub(super) reader: Reader,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    /// Connects, and ends what a former producer of this name left under way.
    pub(super) fn new(target: &Target, transaction_ms: u64) -> Result<Self, Failure> {
        let fail = |what: &'static str| move |e: KafkaError| Failure::new(target, what, &e);
        let mut settings = target.settings.clone();
        settings.set("transactional.id", &target.id).set("transaction.timeout.ms", transaction_ms.to_string());
        if settings.get("linger.ms").is_none() {
            settings.set("linger.ms", "2");
        }
        let producer: Producer = client(&settings).map_err(fail("make a producer"))?;
        let metadata = producer.client().fetch_metadata(Some(&target.topic), REQUEST).map_err(|e| Failure {
            error: unanswered_by(&target.connector, "reach the brokers", &e, &producer),
            ..Failure::new(target, "reach the brokers", &e)
        })?;
        let topic = metadata.topics().iter().find(|t| t.name() == target.topic);
        if topic.is_none_or(|t| t.error().is_some() || t.partitions().is_empty()) {
            let message = format!("topic {} does not exist; create it, it goes on by itself", target.topic);
            let error = ConnectorError { retry: true, ..ConnectorError::new(&target.connector, message) };
            return Err(Failure { error, code: None, is_fence: false });
        }
        producer.init_transactions(REQUEST).map_err(fail("begin as a transactional producer"))?;
        let reader =
            Reader::new(target, "read_committed").map_err(|error| Failure { error, code: None, is_fence: false })?;
        Ok(Self { producer, reader })
    }

    /// Sends messages and the marker in one transaction.
    pub(super) fn transaction(&self, target: &Target, messages: &Messages, marker: &Marker) -> Result<(), Failure> {
        let fail = |what: &'static str| move |e: KafkaError| Failure::new(target, what, &e);
        let producer = &self.producer;
        producer.begin_transaction().map_err(fail("begin a transaction"))?;
        for (key, value) in messages.iter() {
            self.send(target, key, value)?;
        }
        let mut offsets = TopicPartitionList::new();
        let step = i64::try_from(marker.step).unwrap_or(i64::MAX);
        {
            let mut element = offsets.add_partition(&target.topic, 0);
            element.set_offset(Offset::Offset(step)).map_err(fail("write the marker"))?;
            element.set_metadata(marker.metadata());
        }
        let group = self.reader.0.group_metadata().ok_or_else(|| Failure {
            error: ConnectorError::new(&target.connector, "internal error: a consumer without a group"),
            code: None,
            is_fence: false,
        })?;
        producer.send_offsets_to_transaction(&offsets, &group, REQUEST).map_err(fail("write the marker"))?;
        // Serves the delivery reports, which the commit waits for.
        producer.flush(SEND).map_err(fail("send messages"))?;
        producer.commit_transaction(REQUEST).map_err(fail("commit a transaction"))
    }

    /// Hands one message over; waits for room.
    fn send(&self, target: &Target, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Failure> {
        let end = now() + SEND;
        let headers = |headers: OwnedHeaders| {
            let all = target.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() });
            all.fold(headers, OwnedHeaders::insert)
        };
        loop {
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&target.topic);
            (record.key, record.payload) = (key, value);
            record.headers = (!target.headers.is_empty()).then(|| headers(OwnedHeaders::new()));
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), _)) if now() < end => {
                    self.producer.poll(Duration::from_millis(50));
                }
                Err((error, _)) => return Err(Failure::new(target, "send a message", &error)),
            }
        }
    }
}
