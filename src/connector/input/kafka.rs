//! `kafka_input`: rows from topics, exactly once.
//!
//! Settings: `topic` or `topics`; `start_from`: `"earliest"` (the default), `"latest"`, `{"offsets": {"<topic>/<partition>": n}}` or
//! `{"timestamp": ms}`; those of [`metadata`]; all else is librdkafka's. A message is a document of the format, `json`, `avro`, `csv` without a header, or `raw`
//! bytes.
//!
//! A partition is `<topic>/<number>`, an offset Kafka's. Positions are the checkpoint's alone: the consumer group's name is there because
//! librdkafka wants one, and nothing is ever committed to it. Only committed transactions are read.
//!
//! Invariants:
//! 1. Offsets without a message (transaction markers, compacted and aborted ones) belong to the range of the next message.
//! 2. A range's identity is the last message's offset, and the hash of its content and timestamp. A reader that goes on behind it looks
//!    whether it is still there: a topic that was made anew is refused, not read as the old one. One that was compacted away proves nothing.
//!    While it reads, the [topic's id](crate::connector::kafka::TopicIds) tells: what comes behind a change of it is not looked at.
//! 3. What retention deleted before it was read, or before it could be read again, is an error that names topic, partition and offsets.
//!
//! Bounds: chunks of [`reader::ROWS`] messages or [`reader::BYTES`]; librdkafka reads ahead `queued.max.messages.kbytes` (16 MiB unless set).
//! Where `start_from` leaves a partition is known before anything of it is read: an empty range says so to the first checkpoint. Those of one topic come
//! with the highest number first, so that a partition without one is known for one that had none yet, or for one that came later.
//! Limit: a message without a value is a row that does not parse (`raw`: NULL; `debezium`: no row).

mod messages;
mod metadata;
mod reader;
mod replay;
mod requests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use serde_json::Value;

use super::super::config::ConnectorConfig;
use super::super::format::Format;
use super::super::format::csv::Layout;
use super::super::options::Options;
use super::super::{Chunk, ConnectorError, Context, Descriptor, Input, InputReader, Level, Position, Result};
use crate::connector::kafka;
use metadata::Metadata;
use reader::KafkaReader;

/// How often it is looked whether topics have more partitions, unless `topic.metadata.refresh.interval.ms` says it.
const LOOK: Duration = Duration::from_secs(30);

/// A topic, one of the configuration's, and the partition's number in it.
type Partition = (Arc<str>, i32);

/// A configured input.
#[derive(Debug)]
pub(crate) struct KafkaInput {
    shared: Arc<Shared>,
}

/// Where a partition that was never read begins.
#[derive(Clone, Debug, PartialEq)]
enum Start {
    Earliest,
    Latest,
    Timestamp(i64),
    Offsets(serde_json::Map<String, Value>),
}

/// What readers share.
struct Shared {
    connector: String,
    topics: Vec<Arc<str>>,
    start: Start,
    settings: ClientConfig,
    metadata: Metadata,
    format: Format,
    layout: Layout,
    /// Whether a replay reads messages a second time.
    rereads: bool,
    /// How often it is looked whether topics have more partitions.
    look: Duration,
    /// The consumer that replays steps, once there is one.
    replaying: Mutex<Option<kafka::Consumer>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaInput").field("connector", &self.connector).field("topics", &self.topics).finish()
    }
}

impl KafkaInput {
    pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let place = "transport.config of kafka_input";
        let known = [&["topic", "topics", "start_from"][..], &metadata::KEYS].concat();
        let later = [
            "log_level",
            "kafka_service",
            "poller_threads",
            "partitions",
            "synchronize_partitions",
            "group_join_timeout_secs",
            "region",
            "resume_earliest_if_data_expires",
        ];
        let own: Vec<&str> = known.iter().chain(&later).copied().collect();
        let (ours, mut settings) = kafka::settings(&ctx.name, place, &config.transport.config, &own)?;
        let options = Options::new(&ctx.name, place, &ours, &known, &later)?;
        let topics = match (options.string("topic")?, options.strings("topics")?) {
            (Some(topic), None) => vec![topic.to_owned()],
            (None, Some(topics)) if !topics.is_empty() => topics,
            (None, _) => return Err(options.error("\"topic\" is missing, or \"topics\", a list")),
            (Some(_), Some(_)) => return Err(options.error("\"topic\" and \"topics\" exclude each other")),
        };
        let metadata = Metadata::new(&options, ctx)?;
        let format = Format::new(config.format.as_ref(), &metadata.rest(ctx))?;
        if format.has_header() {
            return Err(ConnectorError::new(
                &ctx.name,
                "messages have no header line: set \"headers\": false in format.config of csv; the columns then stand in the table's order",
            ));
        }
        settings
            .set("group.id", format!("backstay.{}.{}", ctx.pipeline, ctx.name))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error");
        if settings.get("queued.max.messages.kbytes").is_none() {
            settings.set("queued.max.messages.kbytes", "16384");
        }
        // librdkafka's own word for it; it takes a number of milliseconds, and -1 for never.
        let look = settings.get("topic.metadata.refresh.interval.ms").and_then(|ms| ms.parse::<i64>().ok());
        let look = look.map_or(LOOK, |ms| u64::try_from(ms).map_or(Duration::MAX, Duration::from_millis));
        let shared = Shared {
            rereads: ctx.rereads,
            look,
            connector: ctx.name.clone(),
            topics: topics.into_iter().map(Arc::from).collect(),
            start: start(&options)?,
            settings,
            metadata,
            layout: format.layout("", &[])?,
            format,
            replaying: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

fn start(options: &Options<'_>) -> Result<Start> {
    let wrong = || {
        options.error(
            "\"start_from\" must be \"earliest\", \"latest\", {\"timestamp\": milliseconds} or {\"offsets\": {\"topic/0\": 17}}",
        )
    };
    match options.value("start_from") {
        None | Some(Value::Null) => Ok(Start::Earliest),
        Some(Value::String(s)) if s == "earliest" => Ok(Start::Earliest),
        Some(Value::String(s)) if s == "latest" => Ok(Start::Latest),
        Some(Value::Object(map)) if map.len() == 1 => match (map.get("timestamp"), map.get("offsets")) {
            (Some(ms), None) => ms.as_i64().map(Start::Timestamp).ok_or_else(wrong),
            (None, Some(Value::Object(offsets))) if offsets.values().all(Value::is_u64) => {
                Ok(Start::Offsets(offsets.clone()))
            }
            _ => Err(wrong()),
        },
        Some(_) => Err(wrong()),
    }
}

impl Input for KafkaInput {
    fn level(&self) -> Level {
        Level::ExactlyOnce
    }

    fn is_finite(&self) -> bool {
        false
    }

    fn open(&self, position: &Position) -> Result<Box<dyn InputReader>> {
        Ok(Box::new(KafkaReader::new(Arc::clone(&self.shared), position)?))
    }

    fn after_loss(&self, position: &Position) -> Result<(Position, Vec<String>)> {
        self.shared.after_loss(position)
    }

    fn replay(&self, descriptor: &Descriptor) -> Result<Vec<Chunk>> {
        let mut consumer = self.shared.replaying.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunks = Vec::new();
        for range in &descriptor.ranges {
            self.shared.replay(range, &mut consumer, &mut chunks)?;
        }
        Ok(chunks)
    }
}
