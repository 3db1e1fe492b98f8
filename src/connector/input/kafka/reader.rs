//! Reading topics from positions on.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::messages::{Gathered, hash, identity, offset};
use super::{Partition, Shared, Start, requests};
use crate::connector::kafka::{Consumer, MadeAnew, failed, poll};
use crate::connector::patience::now;
use crate::connector::{Chunk, ConnectorError, InputReader, Next, PartitionPosition, Position, Result};

/// The most messages of a chunk.
pub(super) const ROWS: usize = 16 << 10;
/// The bytes after which a chunk ends.
pub(super) const BYTES: usize = 1 << 20;

/// What is wrong with a topic that is not the one that was read, and what to do.
const ANEW: &str = "was made anew. Start in another data directory to read the new topic from its beginning";

/// How often topics that are missing are looked for.
const SEEK: Duration = Duration::from_secs(1);

/// How far a partition has been read.
#[derive(Debug, Default)]
struct Place {
    /// The next offset; `None` before the first message.
    next: Option<u64>,
    /// The last message that was read: its offset, and the identity of what ends behind it.
    last: Option<(u64, String)>,
    /// Whether that was read by this consumer, or found there again.
    is_verified: bool,
    /// Whether this consumer reads it.
    is_reading: bool,
}

/// Reads all partitions.
pub(super) struct KafkaReader {
    shared: Arc<Shared>,
    places: BTreeMap<Partition, Place>,
    consumer: Option<Consumer>,
    /// When all topics were looked at last, and when those that are missing were.
    looked_at: Option<Instant>,
    sought_at: Option<Instant>,
    /// The topics that cannot be read now, and why.
    missing: BTreeMap<Arc<str>, String>,
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
        Ok(Self {
            shared,
            places,
            consumer: None,
            looked_at: None,
            sought_at: None,
            missing: BTreeMap::new(),
            gathered: BTreeMap::new(),
            ready: VecDeque::new(),
            failed: None,
        })
    }

    /// Takes up the partitions that are not read yet; of topics that are missing more often.
    fn look(&mut self) -> Result<()> {
        let passed = |at: Option<Instant>, time: Duration| at.is_none_or(|at| at.elapsed() >= time);
        let sought = if passed(self.looked_at, self.shared.look) {
            self.shared.topics.clone()
        } else if !self.missing.is_empty() && passed(self.sought_at, SEEK) {
            self.missing.keys().cloned().collect()
        } else {
            return Ok(());
        };
        let is_first = self.consumer.is_none();
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.shared.knowing_consumer()?,
        };
        let found = self.take_up(&consumer, &sought, is_first);
        // A consumer that was not told where to read is of no use.
        if found.is_ok() || !is_first {
            self.consumer = Some(consumer);
        }
        found?;
        self.sought_at = Some(now());
        if sought.len() == self.shared.topics.len() {
            self.looked_at = self.sought_at;
        }
        Ok(())
    }

    fn take_up(&mut self, consumer: &Consumer, sought: &[Arc<str>], is_first: bool) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut new = TopicPartitionList::new();
        let (mut begun, mut first, mut missing) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut begun_topics: Vec<Arc<str>> = Vec::new();
        for topic in sought {
            let own = self.places.iter().filter(|((t, _), _)| t == topic);
            let known = own.clone().map(|((_, partition), _)| *partition).max();
            let partitions = match shared.partitions(consumer, topic)? {
                Ok(partitions) => partitions,
                Err(why) => {
                    let was_read = own.clone().any(|(_, place)| place.last.is_some());
                    let then = if was_read {
                        "it has been read; was it deleted? One that is made anew is refused"
                    } else {
                        "create it, it goes on by itself"
                    };
                    missing.insert(Arc::clone(topic), format!("{why}: {then}"));
                    // Whatever it will have comes later than now.
                    if known.is_none() && shared.start == Start::Latest {
                        first.push(((Arc::clone(topic), 0), 0));
                    }
                    continue;
                }
            };
            if let Some(gone) = known.filter(|p| !partitions.contains(p)) {
                return Err(shared.error(format!(
                    "partition {topic}/{gone} has been read, but the topic has {} partitions: it {ANEW}",
                    partitions.len()
                )));
            }
            if is_first || !own.clone().any(|(_, place)| place.is_reading) {
                begun_topics.push(Arc::clone(topic));
            }
            for partition in partitions {
                let key = (Arc::clone(topic), partition);
                let place = self.places.get(&key);
                if !is_first && place.is_some_and(|p| p.is_reading) {
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
        if shared.rereads && !begun_topics.is_empty() {
            shared.check_compaction(&begun_topics)?;
        }
        if new.count() > 0 {
            let is_idle = consumer.assignment().is_ok_and(|list| list.count() == 0);
            let assigned = if is_idle { consumer.assign(&new) } else { consumer.incremental_assign(&new) };
            assigned.map_err(|e| failed(&shared.connector, "read partitions", &e))?;
        }
        for key in begun {
            self.places.entry(key).or_default().is_reading = true;
        }
        // The highest number first: see above.
        for (key, from) in first.into_iter().rev() {
            self.places.entry(key.clone()).or_default().next = Some(from);
            self.ready.push_back(shared.begun(&key, from));
        }
        self.missing.retain(|topic, _| !sought.contains(topic));
        self.missing.append(&mut missing);
        Ok(())
    }

    /// Where a partition is read on from: at the last message that has been read, if it is still there, to see that it is the same.
    fn resume_at(&self, consumer: &Consumer, key: &Partition, next: u64) -> Result<Offset> {
        let (low, high) = self.shared.bounds(consumer, key)?;
        let (topic, partition) = key;
        if next > high {
            return Err(self.shared.error(format!(
                "{topic}/{partition} has been read up to offset {next}, but ends at {high}: the topic {ANEW}"
            )));
        }
        if next < low {
            return Err(self.shared.error(format!(
                "{topic}/{partition}: offsets {next} to {} were deleted (retention) before they were read; the topic now begins at {low}. Raise the topic's \
                 retention, and start in another data directory to read what is left",
                low - 1
            )));
        }
        let last = self.places.get(key).and_then(|p| p.last.as_ref()).map(|(offset, _)| *offset);
        let from = last.filter(|offset| *offset >= low).unwrap_or(next);
        Ok(Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX)))
    }

    /// Reads what has come, up to a chunk's size.
    fn poll(&mut self) -> Result<()> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let shared = &self.shared;
        let (mut rows, mut bytes) = (0, 0);
        let (mut failure, mut is_missing) = (None, false);
        while rows < ROWS && bytes < BYTES {
            let message = match poll(consumer) {
                None => break,
                Some(Err(KafkaError::PartitionEOF(_))) => continue,
                // Others are read on; the next look tells which it is.
                Some(Err(error)) if requests::is_missing(&error) => {
                    is_missing = true;
                    continue;
                }
                Some(Err(error)) => {
                    failure = Some(shared.read_error(&error));
                    break;
                }
                Some(Ok(message)) => message,
            };
            let Some(topic) = shared.topics.iter().find(|t| ***t == *message.topic()) else { continue };
            let key = (Arc::clone(topic), message.partition());
            let Some(place) = self.places.get_mut(&key) else { continue };
            if !std::mem::replace(&mut place.is_verified, true)
                && let Some((at, known)) = &place.last
                && offset(&message) == *at
                && identity(*at, hash(&message)) != *known
            {
                failure = Some(shared.error(format!(
                    "{}/{}: the message at offset {at} is not the one that has been read there: the topic {ANEW}",
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
        if let Some(anew) = consumer.context().ids.made_anew() {
            return self.begin_anew(&anew);
        }
        if is_missing {
            self.looked_at = None;
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
    /// A topic was made anew: what was polled since may be the new one's, and is thrown away. One of which messages have been read is refused; else it is taken up as
    /// at a start.
    fn begin_anew(&mut self, MadeAnew { topic, was, is }: &MadeAnew) -> Result<()> {
        self.gathered.clear();
        (self.consumer, self.looked_at) = (None, None);
        let mut read = self.places.iter().filter(|((t, _), place)| **t == **topic && place.last.is_some());
        if let Some(((_, partition), Place { next: Some(next), .. })) = read.next() {
            return Err(self.shared.error(format!(
                "{topic}/{partition} has been read up to offset {next} of the topic with the id {was}, but topic {topic} has the id {is} now: the topic \
                 {ANEW}"
            )));
        }
        self.places.values_mut().for_each(|place| (place.is_verified, place.is_reading) = (false, false));
        Ok(())
    }

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
            place.last = entry.get().last();
            let (key, gathered) = entry.remove_entry();
            self.ready.push_back(self.shared.chunk(&key, (start, end), gathered, parsed)?);
            place.next = Some(end);
        }
        Ok(())
    }
}

fn place(known: &PartitionPosition) -> Place {
    let last = known.identity.split_once(':').and_then(|(offset, _)| offset.parse().ok());
    Place { next: Some(known.offset), last: last.map(|offset| (offset, known.identity.clone())), ..Place::default() }
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

    fn warning(&self) -> Option<ConnectorError> {
        let all: Vec<&str> = self.missing.values().map(String::as_str).collect();
        (!all.is_empty()).then(|| self.shared.error(all.join("; ")))
    }
}
