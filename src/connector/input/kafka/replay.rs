//! Ranges that are read again, and what can be read of a topic that lost some.

use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::Shared;
use super::messages::{Gathered, offset};
use super::reader::{BYTES, ROWS};
use crate::connector::kafka::{Consumer, failed};
use crate::connector::patience::{insist, now};
use crate::connector::{Chunk, PartitionPosition, Position, Range, Result};

/// How long a replay waits for the brokers to go on.
const PATIENCE: Duration = Duration::from_secs(60);

impl Shared {
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
