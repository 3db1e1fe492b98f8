//! What is asked of the brokers.

use std::sync::Arc;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use super::{Partition, Shared, Start};
use crate::connector::kafka::{Consumer, REQUEST, TopicIds, client, code, failed, unanswered};
use crate::connector::{Chunk, ConnectorError, Result};

impl Shared {
    pub(super) fn error(&self, message: impl Into<String>) -> ConnectorError {
        ConnectorError::new(&self.connector, message)
    }

    pub(super) fn consumer(&self) -> Result<Consumer> {
        client(&self.settings).map_err(|e| failed(&self.connector, "make a consumer", &e))
    }

    /// A consumer that knows the ids of the topics that it reads.
    pub(super) fn knowing_consumer(&self) -> Result<Consumer> {
        let mut settings = self.settings.clone();
        TopicIds::ask(&mut settings);
        client(&settings).map_err(|e| failed(&self.connector, "make a consumer", &e))
    }

    /// A request that failed. A consumer that reads is not asked why: messages would be lost.
    pub(super) fn refused(&self, consumer: &Consumer, what: &str, error: &KafkaError) -> ConnectorError {
        match consumer.assignment() {
            Ok(list) if list.count() == 0 => unanswered(&self.connector, what, error, consumer),
            _ => failed(&self.connector, what, error),
        }
    }

    /// Topic and number of a partition's name.
    pub(super) fn partition(&self, name: &str) -> Result<Partition> {
        let parsed = name.rsplit_once('/').and_then(|(topic, number)| Some((Arc::from(topic), number.parse().ok()?)));
        parsed.ok_or_else(|| {
            self.error(format!(
                "{name} is not a partition of a topic: another transport read it under this connector's name"
            ))
        })
    }

    /// The numbers of a topic's partitions; or, if it cannot be read now, why.
    pub(super) fn partitions(&self, consumer: &Consumer, topic: &str) -> Result<Result<Vec<i32>, String>> {
        let metadata = consumer
            .fetch_metadata(Some(topic), REQUEST)
            .map_err(|e| self.refused(consumer, "reach the brokers", &e))?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        if let Some(error) = found.and_then(|t| t.error()).map(|e| KafkaError::MetadataFetch(e.into()))
            && !is_missing(&error)
        {
            let error = failed(&self.connector, &format!("read topic {topic}"), &error);
            return if error.retry { Ok(Err(error.message)) } else { Err(error) };
        }
        let mut partitions: Vec<i32> = found.iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect();
        partitions.sort_unstable();
        match partitions.is_empty() {
            true => Ok(Err(format!("topic {topic} does not exist"))),
            false => Ok(Ok(partitions)),
        }
    }

    /// Refuses topics that are compacted, where their messages may be read a second time: some of them will be gone. Brokers that do not say are
    /// believed: then a replay whose messages are gone is refused when it comes.
    pub(super) fn check_compaction(&self, topics: &[Arc<str>]) -> Result<()> {
        let what = "ask for a topic's cleanup.policy";
        let admin: AdminClient<DefaultClientContext> =
            self.settings.create().map_err(|e| failed(&self.connector, what, &e))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|e| self.error(format!("no runtime for a request: {e}")))?;
        let options = AdminOptions::new().request_timeout(Some(REQUEST));
        let topics: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let described = runtime.block_on(admin.describe_configs(&topics, &options));
        let described = match described.map_err(|e| failed(&self.connector, what, &e)) {
            Ok(described) => described,
            Err(error) if error.retry => return Err(error),
            Err(_) => return Ok(()),
        };
        let is_compacted = |topic: &ConfigResource| {
            let policy = topic.get("cleanup.policy").and_then(|entry| entry.value.as_deref());
            policy.is_some_and(|policy| policy.contains("compact"))
        };
        let compacted = described.into_iter().flatten().find(is_compacted).map(|topic| topic.specifier);
        match compacted {
            Some(OwnedResourceSpecifier::Topic(topic)) => Err(self.error(format!(
                "topic {topic} is compacted: messages that a step had may be gone when it is replayed, so that exactly-once needs \"replay\": \"bytes\" beside \
                 the connector's \"transport\", which keeps them in the log"
            ))),
            _ => Ok(()),
        }
    }

    /// First offset that is there, and the one after the last.
    pub(super) fn bounds(&self, consumer: &Consumer, (topic, partition): &Partition) -> Result<(u64, u64)> {
        let (low, high) = consumer
            .fetch_watermarks(topic, *partition, REQUEST)
            .map_err(|e| self.refused(consumer, "ask for a partition's bounds", &e))?;
        Ok((u64::try_from(low).unwrap_or_default(), u64::try_from(high).unwrap_or_default()))
    }

    /// The offset behind a partition's last message.
    pub(super) fn end(&self, consumer: &Consumer, key: &Partition) -> Result<Offset> {
        let (_, high) = self.bounds(consumer, key)?;
        Ok(Offset::Offset(i64::try_from(high).unwrap_or(i64::MAX)))
    }

    /// Says where a partition begins, before there is anything of it: a restart goes on from there.
    pub(super) fn begun(&self, (topic, partition): &Partition, from: u64) -> Chunk {
        Chunk::nothing(&format!("{topic}/{partition}"), (from, from), self.metadata.table())
    }

    /// Where a partition that was never read begins.
    pub(super) fn first(&self, consumer: &Consumer, key: &Partition) -> Result<Offset> {
        let (topic, partition) = key;
        match &self.start {
            Start::Earliest => Ok(Offset::Beginning),
            Start::Latest => self.end(consumer, key),
            Start::Timestamp(ms) => {
                let fail = |e: KafkaError| failed(&self.connector, "find the offset of a time", &e);
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(topic, *partition, Offset::Offset(*ms)).map_err(fail)?;
                let found = consumer.offsets_for_times(list, REQUEST).map_err(fail)?;
                let offset = found.elements().first().map(|e| e.offset());
                match offset {
                    Some(found @ Offset::Offset(_)) => Ok(found),
                    _ => self.end(consumer, key),
                }
            }
            Start::Offsets(offsets) => {
                let named = offsets.get(&format!("{topic}/{partition}")).and_then(serde_json::Value::as_i64);
                Ok(named.map_or(Offset::Beginning, Offset::Offset))
            }
        }
    }

    /// An error of reading, in our words.
    pub(super) fn read_error(&self, error: &KafkaError) -> ConnectorError {
        match code(error) {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => self.error(
                "an offset that was to be read next is not there any more: retention deleted it before it was read, or the topic was made anew. Restart \
                 to see which",
            ),
            _ => failed(&self.connector, "read", error),
        }
    }
}

/// Whether an error says that a topic, or a partition of it, is not there.
pub(super) fn is_missing(error: &KafkaError) -> bool {
    matches!(code(error), Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition))
}
