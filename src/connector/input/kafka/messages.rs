//! Messages that were read, until they are rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::message::Message;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::metadata::Column;
use super::{Partition, Shared};
use crate::connector::format::Parsed;
use crate::connector::format::split::Record;
use crate::connector::{Chunk, Identity, Result, RowError};

/// Messages of one partition that are to be parsed.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) block: Vec<u8>,
    pub(super) records: Vec<Record>,
    /// By record: the message's offset, and its hash.
    pub(super) messages: Vec<(u64, u64)>,
    /// The messages' metadata.
    columns: Vec<Column>,
    /// What is wrong with some of them, by message.
    wrong: BTreeMap<usize, String>,
}

impl Gathered {
    pub(super) fn new(shared: &Shared) -> Self {
        Self { columns: shared.metadata.columns(), ..Self::default() }
    }

    pub(super) fn push(&mut self, message: &impl Message) {
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

    /// Offset and identity of the last message.
    pub(super) fn last(&self) -> Option<(u64, String)> {
        self.messages.last().map(|(offset, hash)| (*offset, identity(*offset, *hash)))
    }

    pub(super) fn next_offset(&self) -> Option<u64> {
        self.messages.last().map(|(offset, _)| offset + 1)
    }
}

pub(super) fn offset(message: &impl Message) -> u64 {
    u64::try_from(message.offset()).unwrap_or_default()
}

/// What is the same of a message as long as it is the same message.
pub(super) fn hash(message: &impl Message) -> u64 {
    let timestamp = message.timestamp().to_millis().unwrap_or_default();
    xxh3_64_with_seed(message.payload().unwrap_or_default(), timestamp.cast_unsigned())
}

pub(super) fn identity(offset: u64, hash: u64) -> String {
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

impl Shared {
    pub(super) fn parse(&self, gathered: &Gathered) -> Result<Parsed> {
        self.format.parse(&self.layout, &gathered.block, 0, &gathered.records)
    }

    /// The chunk of a partition's messages, which stand for the offsets from `start` to `end`.
    pub(super) fn chunk(
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
}
