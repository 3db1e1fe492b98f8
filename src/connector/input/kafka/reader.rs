//! Reading topics: from positions on, and ranges again.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::metadata::Column;
use super::{Shared, Start};
use crate::connector::format::Parsed;
use crate::connector::format::split::Record;
use crate::connector::kafka::{Consumer, REQUEST, client, code, failed, unanswered};
use crate::connector::patience::{insist, now};
use crate::connector::{
    Chunk, ConnectorError, Identity, InputReader, Next, PartitionPosition, Position, Range, Result, RowError,
};

/// The most messages of a chunk.
pub(super) const ROWS: usize = 16 << 10;
/// The bytes after which a chunk ends.
pub(super) const BYTES: usize = 1 << 20;
/// How long a replay waits for the brokers to go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// A topic, one of the configuration's, and the partition's number in it.
type Partition = (Arc<str>, i32);

/// Messages of one partition that are to be parsed.
#[derive(Debug, Default)]
struct Gathered {
    block: Vec<u8>,
    records: Vec<Record>,
    /// By record: the message's offset, and its hash.
    messages: Vec<(u64, u64)>,
    /// The messages' metadata.
    columns: Vec<Column>,
    /// What is wrong with some of them, by message.
    wrong: BTreeMap<usize, String>,
}

impl Gathered {
    fn new(shared: &Shared) -> Self {
        Self { columns: shared.metadata.columns(), ..Self::default() }
    }

    fn push(&mut self, message: &impl Message) {
        for column in &mut self.columns {
            if let Some(wrong) = column.push(message) {
                self.wrong.entry(self.messages.len()).or_insert(wrong);
            }
        }
        let start = self.block.len();
        let payload = message.payload();
        self.block.extend_from_slice(payload.unwrap_or_default());
        let text_end = self.block.len();
        // Each has an end of its own, be it empty.
        self.block.push(b'\n');
        self.records.push(Record { start, text_end, end: text_end + 1, broken: false, absent: payload.is_none() });
        self.messages.push((offset(message), hash(message)));
    }

    fn next_offset(&self) -> Option<u64> {
        self.messages.last().map(|(offset, _)| offset + 1)
    }
}

fn offset(message: &impl Message) -> u64 {
    u64::try_from(message.offset()).unwrap_or_default()
}

/// What is the same of a message as long as it is the same message.
fn hash(message: &impl Message) -> u64 {
    let timestamp = message.timestamp().to_millis().unwrap_or_default();
    xxh3_64_with_seed(message.payload().unwrap_or_default(), timestamp.cast_unsigned())
}

fn identity(offset: u64, hash: u64) -> String {
    format!("{offset}:{hash:016x}")
}

/// Offsets and hashes of a chunk's messages.
#[derive(Debug)]
struct Messages(Vec<(u64, u64)>);

impl Identity for Messages {
    fn at(&self, end: u64) -> String {
        let behind = self.0.partition_point(|(offset, _)| *offset < end);
        let last = behind.checked_sub(1).and_then(|i| self.0.get(i));
        last.map_or_else(String::new, |(offset, hash)| identity(*offset, *hash))
    }
}

/// How far a partition has been read.
#[derive(Debug, Default)]
struct Place {
    /// The next offset; `None` before the first message.
    next: Option<u64>,
    /// The last message that was read in an earlier life, while it has not been looked for.
    expected: Option<(u64, String)>,
}

/// Reads all partitions.
pub(super) struct KafkaReader {
    shared: Arc<Shared>,
    places: BTreeMap<Partition, Place>,
    consumer: Option<Consumer>,
    looked_at: Option<Instant>,
    /// What was read and is not parsed: a format may have to ask a server for a schema, which may not answer.
    gathered: BTreeMap<Partition, Gathered>,
    ready: VecDeque<Chunk>,
    /// What ends the reader, once what was read before it is handed out.
    failed: Option<ConnectorError>,
}

impl fmt::Debug for KafkaReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaReader").field("places", &self.places).finish()
    }
}

impl KafkaReader {
    /// A reader that connects when it is first asked.
    pub(super) fn new(shared: Arc<Shared>, position: &Position) -> Result<Self> {
        let mut places = BTreeMap::new();
        for known in &position.partitions {
            let (topic, partition) = shared.partition(&known.partition)?;
            if !shared.topics.contains(&topic) {
                continue;
            }
            places.insert((topic, partition), place(known));
        }
        let (gathered, ready) = (BTreeMap::new(), VecDeque::new());
        Ok(Self { shared, places, consumer: None, looked_at: None, gathered, ready, failed: None })
    }

    /// Takes up the partitions that are not read yet.
    fn look(&mut self) -> Result<()> {
        if self.looked_at.is_some_and(|at| at.elapsed() < self.shared.look) {
            return Ok(());
        }
        let is_first = self.consumer.is_none();
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.shared.consumer()?,
        };
        let found = self.take_up(&consumer, is_first);
        // A consumer that was not told where to read is of no use.
        if found.is_ok() || !is_first {
            self.consumer = Some(consumer);
        }
        found?;
        self.looked_at = Some(now());
        Ok(())
    }

    fn take_up(&mut self, consumer: &Consumer, is_first: bool) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut new = TopicPartitionList::new();
        let mut begun = Vec::new();
        let mut first = Vec::new();
        for topic in &shared.topics {
            let partitions = shared.partitions(consumer, topic)?;
            let known = self.places.keys().filter(|(t, _)| t == topic).map(|(_, p)| *p).max();
            if let Some(gone) = known.filter(|p| !partitions.contains(p)) {
                return Err(shared.error(format!(
                    "partition {topic}/{gone} has been read, but the topic has {} partitions: it was made anew. Start in another data directory to read \
                     the new topic from its beginning",
                    partitions.len()
                )));
            }
            for partition in partitions {
                let key = (Arc::clone(topic), partition);
                let place = self.places.get(&key);
                if !is_first && place.is_some() {
                    continue;
                }
                // What is numbered above those that are known came to be while these were read: it is read from its beginning. What is
                // numbered below was there when the topic was taken up, by a process that ended before a step had said where it begins.
                let from = match place.and_then(|p| p.next) {
                    Some(next) => self.resume_at(consumer, &key, next)?,
                    None if known.is_none_or(|last| partition < last) => shared.first(consumer, &key)?,
                    None => Offset::Beginning,
                };
                if let (Offset::Offset(from), None) = (from, place.and_then(|p| p.next)) {
                    first.push((key.clone(), u64::try_from(from).unwrap_or_default()));
                }
                new.add_partition_offset(topic, partition, from)
                    .map_err(|e| failed(&shared.connector, "begin at an offset", &e))?;
                begun.push(key);
            }
        }
        if is_first && shared.rereads {
            shared.check_compaction()?;
        }
        if new.count() > 0 {
            let assigned = if is_first { consumer.assign(&new) } else { consumer.incremental_assign(&new) };
            assigned.map_err(|e| failed(&shared.connector, "read partitions", &e))?;
        }
        for key in begun {
            self.places.entry(key).or_default();
        }
        // The highest number first: see above.
        for (key, from) in first.into_iter().rev() {
            self.places.entry(key.clone()).or_default().next = Some(from);
            self.ready.push_back(shared.begun(&key, from));
        }
        Ok(())
    }

    /// Where a partition is read on from: at the last message that has been read, if it is still there, to see that it is the same.
    fn resume_at(&self, consumer: &Consumer, key: &Partition, next: u64) -> Result<Offset> {
        let (low, high) = self.shared.bounds(consumer, key)?;
        let (topic, partition) = key;
        if next > high {
            return Err(self.shared.error(format!(
                "{topic}/{partition} has been read up to offset {next}, but ends at {high}: the topic was made anew. Start in another data directory to \
                 read the new topic from its beginning"
            )));
        }
        if next < low {
            return Err(self.shared.error(format!(
                "{topic}/{partition}: offsets {next} to {} were deleted (retention) before they were read; the topic now begins at {low}. Raise the topic's \
                 retention, and start in another data directory to read what is left",
                low - 1
            )));
        }
        let expected = self.places.get(key).and_then(|p| p.expected.as_ref()).map(|(offset, _)| *offset);
        let from = expected.filter(|offset| *offset >= low).unwrap_or(next);
        Ok(Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX)))
    }

    /// Reads what has come, up to a chunk's size.
    fn poll(&mut self) -> Result<()> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let shared = &self.shared;
        let (mut rows, mut bytes) = (0, 0);
        let mut failure = None;
        while rows < ROWS && bytes < BYTES {
            let message = match consumer.poll(Duration::ZERO) {
                None => break,
                Some(Err(KafkaError::PartitionEOF(_))) => continue,
                Some(Err(error)) => {
                    failure = Some(shared.read_error(&error));
                    break;
                }
                Some(Ok(message)) => message,
            };
            let Some(topic) = shared.topics.iter().find(|t| ***t == *message.topic()) else { continue };
            let key = (Arc::clone(topic), message.partition());
            let Some(place) = self.places.get_mut(&key) else { continue };
            if let Some((at, known)) = place.expected.take()
                && offset(&message) == at
                && identity(at, hash(&message)) != known
            {
                failure = Some(shared.error(format!(
                        "{}/{}: the message at offset {at} is not the one that has been read there: the topic was made anew. Start in another data \
                         directory to read the new topic from its beginning",
                        key.0, key.1
                    )));
                break;
            }
            if place.next.is_some_and(|next| offset(&message) < next) {
                continue;
            }
            rows += 1;
            bytes += message.payload_len();
            self.gathered.entry(key).or_insert_with(|| Gathered::new(shared)).push(&message);
        }
        if let Err(error) = self.parse() {
            // What was read meanwhile comes with it.
            self.failed = self.failed.take().or(failure.filter(|e| !e.retry));
            return Err(error);
        }
        match failure {
            Some(error) if !error.retry => self.failed = Some(error),
            // It comes again if it stays; what was read before it is not kept from the pipeline.
            Some(error) if self.ready.is_empty() => return Err(error),
            _ => {}
        }
        Ok(())
    }
}

impl KafkaReader {
    /// Makes chunks of what was gathered; what an error leaves is gathered still.
    fn parse(&mut self) -> Result<()> {
        while let Some(entry) = self.gathered.first_entry() {
            let Some(end) = entry.get().next_offset() else {
                entry.remove();
                continue;
            };
            let place = self.places.entry(entry.key().clone()).or_default();
            let first = entry.get().messages.first().map_or(end, |(offset, _)| *offset);
            let start = place.next.unwrap_or(first);
            let parsed = self.shared.parse(entry.get())?;
            let (key, gathered) = entry.remove_entry();
            self.ready.push_back(self.shared.chunk(&key, (start, end), gathered, parsed)?);
            place.next = Some(end);
        }
        Ok(())
    }
}

fn place(known: &PartitionPosition) -> Place {
    let expected = known.identity.split_once(':').and_then(|(offset, _)| offset.parse().ok());
    Place { next: Some(known.offset), expected: expected.map(|offset| (offset, known.identity.clone())) }
}

impl InputReader for KafkaReader {
    fn next(&mut self) -> Result<Next> {
        if self.ready.is_empty() {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            self.parse()?;
            if self.ready.is_empty() {
                self.look()?;
                self.poll()?;
            }
        }
        match self.ready.pop_front() {
            Some(chunk) => Ok(Next::Chunk(chunk)),
            None => self.failed.take().map_or(Ok(Next::Idle), Err),
        }
    }
}

impl Shared {
    fn error(&self, message: impl Into<String>) -> ConnectorError {
        ConnectorError::new(&self.connector, message)
    }

    fn consumer(&self) -> Result<Consumer> {
        client(&self.settings).map_err(|e| failed(&self.connector, "make a consumer", &e))
    }

    /// A request that failed. A consumer that reads is not asked why: messages would be lost.
    fn refused(&self, consumer: &Consumer, what: &str, error: &KafkaError) -> ConnectorError {
        match consumer.assignment() {
            Ok(list) if list.count() == 0 => unanswered(&self.connector, what, error, consumer),
            _ => failed(&self.connector, what, error),
        }
    }

    /// Topic and number of a partition's name.
    fn partition(&self, name: &str) -> Result<Partition> {
        let parsed = name.rsplit_once('/').and_then(|(topic, number)| Some((Arc::from(topic), number.parse().ok()?)));
        parsed.ok_or_else(|| {
            self.error(format!(
                "{name} is not a partition of a topic: another transport read it under this connector's name"
            ))
        })
    }

    fn partitions(&self, consumer: &Consumer, topic: &str) -> Result<Vec<i32>> {
        let metadata = consumer
            .fetch_metadata(Some(topic), REQUEST)
            .map_err(|e| self.refused(consumer, "reach the brokers", &e))?;
        let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
        let mut partitions: Vec<i32> = found.iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect();
        partitions.sort_unstable();
        if partitions.is_empty() {
            let error = self.error(format!("topic {topic} does not exist; create it, it goes on by itself"));
            return Err(ConnectorError { retry: true, ..error });
        }
        Ok(partitions)
    }

    /// Refuses topics that are compacted, where their messages may be read a second time: some of them will be gone. Brokers that do not say are
    /// believed: then a replay whose messages are gone is refused when it comes.
    fn check_compaction(&self) -> Result<()> {
        let what = "ask for a topic's cleanup.policy";
        let admin: AdminClient<DefaultClientContext> =
            self.settings.create().map_err(|e| failed(&self.connector, what, &e))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|e| self.error(format!("no runtime for a request: {e}")))?;
        let options = AdminOptions::new().request_timeout(Some(REQUEST));
        let topics: Vec<_> = self.topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
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
    fn bounds(&self, consumer: &Consumer, (topic, partition): &Partition) -> Result<(u64, u64)> {
        let (low, high) = consumer
            .fetch_watermarks(topic, *partition, REQUEST)
            .map_err(|e| self.refused(consumer, "ask for a partition's bounds", &e))?;
        Ok((u64::try_from(low).unwrap_or_default(), u64::try_from(high).unwrap_or_default()))
    }

    /// The offset behind a partition's last message.
    fn end(&self, consumer: &Consumer, key: &Partition) -> Result<Offset> {
        let (_, high) = self.bounds(consumer, key)?;
        Ok(Offset::Offset(i64::try_from(high).unwrap_or(i64::MAX)))
    }

    /// Says where a partition begins, before there is anything of it: a restart goes on from there.
    fn begun(&self, (topic, partition): &Partition, from: u64) -> Chunk {
        Chunk::nothing(&format!("{topic}/{partition}"), (from, from), self.metadata.table())
    }

    /// Where a partition that was never read begins.
    fn first(&self, consumer: &Consumer, key: &Partition) -> Result<Offset> {
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
    fn read_error(&self, error: &KafkaError) -> ConnectorError {
        match code(error) {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => self.error(
                "an offset that was to be read next is not there any more: retention deleted it before it was read, or the topic was made anew. Restart \
                 to see which",
            ),
            _ => failed(&self.connector, "read", error),
        }
    }

    fn parse(&self, gathered: &Gathered) -> Result<Parsed> {
        self.format.parse(&self.layout, &gathered.block, 0, &gathered.records)
    }

    /// The chunk of a partition's messages, which stand for the offsets from `start` to `end`.
    fn chunk(
        &self,
        key: &Partition,
        (start, end): (u64, u64),
        gathered: Gathered,
        mut parsed: Parsed,
    ) -> Result<Chunk> {
        let Gathered { records, messages, columns, wrong, .. } = gathered;
        // Places in the block become offsets. A message may be several rows, or none.
        let mut at = 0;
        let mut of_rows: Vec<u32> = Vec::with_capacity(parsed.ends.len());
        for place in &mut parsed.ends {
            while records.get(at).is_some_and(|r| (r.end as u64) < *place) {
                at += 1;
            }
            *place = messages.get(at).map_or(end, |(offset, _)| offset + 1);
            of_rows.push(at as u32);
        }
        for error in &mut parsed.errors {
            let behind = records.partition_point(|r| r.start as u64 <= error.offset);
            let message = behind.checked_sub(1).and_then(|i| messages.get(i));
            error.offset = message.map_or(start, |(offset, _)| *offset);
        }
        if !self.metadata.is_empty() {
            if !wrong.is_empty() {
                let keep: Vec<bool> = of_rows.iter().map(|m| !wrong.contains_key(&(*m as usize))).collect();
                parsed.keep(&self.connector, &keep)?;
                of_rows.retain(|m| !wrong.contains_key(&(*m as usize)));
            }
            for (message, wrong) in wrong {
                let offset = messages.get(message).map_or(start, |(offset, _)| *offset);
                let at = parsed.errors.partition_point(|e| e.offset < offset);
                parsed.errors.insert(at, RowError { offset, message: wrong });
            }
            parsed.rows = self.metadata.complete(&parsed.rows, columns, of_rows)?;
        }
        Ok(parsed.into_chunk(Arc::from(format!("{}/{}", key.0, key.1)), (start, end), Arc::new(Messages(messages))))
    }

    /// Where each partition can be read on from: behind what retention took; of a topic that is shorter than it was, as if it were new.
    pub(super) fn after_loss(&self, position: &Position) -> Result<(Position, Vec<String>)> {
        let consumer = self.consumer()?;
        let (mut kept, mut lost) = (Position::default(), Vec::new());
        for place in &position.partitions {
            let (low, high) = insist(PATIENCE, || self.bounds(&consumer, &self.partition(&place.partition)?))?;
            let (partition, next) = (&place.partition, place.offset);
            if next > high {
                lost.push(format!(
                    "{partition} was made anew, and is read as one that is new; of the old one, offsets up to {next} had been read"
                ));
            } else if next < low {
                lost.push(format!(
                    "given up offsets {next} to {} of {partition}, which were deleted (retention)",
                    low - 1
                ));
                kept.partitions.push(PartitionPosition { offset: low, identity: String::new(), ..place.clone() });
            } else {
                kept.partitions.push(place.clone());
            }
        }
        Ok((kept, lost))
    }

    /// Reads a range again.
    pub(super) fn replay(&self, range: &Range, kept: &mut Option<Consumer>, chunks: &mut Vec<Chunk>) -> Result<()> {
        let key = self.partition(&range.partition)?;
        if range.start == range.end {
            chunks.push(self.begun(&key, range.start));
            return Ok(());
        }
        insist(PATIENCE, || {
            if kept.is_none() {
                *kept = Some(self.consumer()?);
            }
            let Some(consumer) = kept else { return Ok(()) };
            let (low, high) = self.bounds(consumer, &key)?;
            if range.end > high {
                return Err(self.error(format!(
                    "{}: offsets {} to {} are to be read again, but it ends at {high}: the topic was made anew",
                    range.partition, range.start, range.end
                )));
            }
            // Offsets without messages may stand before the range's first one; its rows' hash tells whether one of them was one.
            if range.end <= low {
                return Err(self.error(format!(
                    "{}: offsets {} to {} are to be read again, but were deleted (retention): the partition begins at {low}. Raise the topic's retention \
                     above the time between checkpoints",
                    range.partition, range.start, range.end
                )));
            }
            Ok(())
        })?;
        let Some(consumer) = kept else { return Ok(()) };
        let mut list = TopicPartitionList::new();
        let fail = |e: KafkaError| failed(&self.connector, "read again", &e);
        let from = Offset::Offset(i64::try_from(range.start).unwrap_or(i64::MAX));
        list.add_partition_offset(&key.0, key.1, from).map_err(fail)?;
        consumer.assign(&list).map_err(fail)?;
        let mut start = range.start;
        let mut gathered = Gathered::new(self);
        let mut end = now() + PATIENCE;
        while gathered.next_offset().unwrap_or(start) < range.end {
            let message = match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    let error = self.read_error(&error);
                    if !error.retry || now() > end {
                        return Err(error);
                    }
                    continue;
                }
                None if now() > end => {
                    return Err(self.error(format!(
                        "{}: offsets {} to {} are to be read again, but for a minute nothing came: are the brokers up?",
                        range.partition, range.start, range.end
                    )));
                }
                None => continue,
            };
            if (message.topic(), message.partition()) != (&*key.0, key.1) || offset(&message) < start {
                continue;
            }
            if offset(&message) >= range.end {
                break;
            }
            gathered.push(&message);
            end = now() + PATIENCE;
            if gathered.records.len() >= ROWS || gathered.block.len() >= BYTES {
                let behind = gathered.next_offset().unwrap_or(start);
                if behind < range.end {
                    let gathered = std::mem::replace(&mut gathered, Gathered::new(self));
                    let parsed = insist(PATIENCE, || self.parse(&gathered))?;
                    chunks.push(self.chunk(&key, (start, behind), gathered, parsed)?);
                    start = behind;
                }
            }
        }
        let parsed = insist(PATIENCE, || self.parse(&gathered))?;
        chunks.push(self.chunk(&key, (start, range.end), gathered, parsed)?);
        Ok(())
    }
}
