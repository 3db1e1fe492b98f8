//! Rows from contents, such as files: what `file_input` and its like share.
//!
//! A [`Source`] says what partitions there are and opens their [`Content`]; here they are read one after the other, split into records, and read
//! again by descriptor. Offsets are bytes of the (decompressed) content, the header line included in the first range.
//!
//! Invariants:
//! 1. A range is cut where a record ended, so that reading it alone gives the same records ([`split`](super::super::format::split)).
//! 2. What has been read before is verified by its [identity](super::content) before anything is read behind it or again.
//! 3. Of a followed content an unfinished last line waits; of another one it is a record.
//!
//! Limit: a record longer than 16 MiB is an error.

mod reader;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::super::config::FormatConfig;
use super::super::format::Format;
use super::super::format::csv::Layout;
use super::super::format::split::{Framing, Record, split};
use super::super::options::Options;
use super::super::{
    Chunk, ConnectorError, Context, Descriptor, Input, InputReader, Level, NoIdentity, Position, Range, Result,
};
use super::content::{BlockIdentity, Content, PROBE};
use super::parquet::Parquet;
use crate::connector::patience::insist;
use reader::ContentReader;

/// The most rows in a chunk.
const ROWS: usize = 16 << 10;

/// Where contents are.
pub(crate) trait Source: Debug + Send + Sync {
    /// The partitions that the configuration names now, in the order in which they are read.
    fn list(&self) -> Result<Vec<String>>;
    /// Whether the configuration names this partition.
    fn selects(&self, partition: &str) -> bool;
    /// A partition's name in messages.
    fn name(&self, partition: &str) -> String;
    /// Opens a partition, of which `offset` bytes have been read.
    fn open(&self, partition: &str, offset: u64) -> Result<Content>;
    /// The error for a partition that is gone.
    fn missing(&self, partition: &str, offset: u64) -> ConnectorError;
    /// A partition's length, if it is cheap to know whether there is more to read.
    fn len(&self, _partition: &str) -> Result<Option<u64>> {
        Ok(None)
    }
    /// How long a replay tries again what may pass.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }
}

/// A configured input.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    shared: Arc<Shared>,
}

/// What readers share.
#[derive(Debug)]
struct Shared {
    connector: String,
    source: Box<dyn Source>,
    follow: bool,
    format: Format,
}

/// The input that a format makes of a source.
pub(crate) fn input(
    ctx: &Context,
    config: Option<&FormatConfig>,
    source: Box<dyn Source>,
    follow: bool,
) -> Result<Box<dyn Input>> {
    let whole = "\"follow\" needs records, and these are files that are whole when they are there";
    if let Some(config) = config.filter(|c| c.name == "parquet") {
        Options::new(&ctx.name, "format.config of parquet", &config.config, &[], &["buffer_size_records"])?;
        return match follow {
            true => Err(ConnectorError::new(&ctx.name, format!("{whole}: leave it out with parquet"))),
            false => Ok(Box::new(Parquet::new(ctx, source)?)),
        };
    }
    if config.is_some_and(|c| c.name == "avro") {
        let message = "the format \"avro\" is one of messages, of kafka_input; Avro's files are not supported yet";
        return Err(ConnectorError::new(&ctx.name, message));
    }
    let format = Format::new(config, ctx)?;
    if follow && format.framing() == Framing::Whole {
        let fix = "set \"mode\": \"lines\" in format.config of raw, or read whole files without";
        return Err(ConnectorError::new(&ctx.name, format!("{whole}: {fix}")));
    }
    Ok(Box::new(Records { shared: Arc::new(Shared { connector: ctx.name.clone(), source, follow, format }) }))
}

impl Input for Records {
    fn level(&self) -> Level {
        Level::ExactlyOnce
    }

    fn is_finite(&self) -> bool {
        !self.shared.follow
    }

    fn selects(&self, partition: &str) -> bool {
        self.shared.source.selects(partition)
    }

    fn open(&self, position: &Position) -> Result<Box<dyn InputReader>> {
        Ok(Box::new(ContentReader::open(Arc::clone(&self.shared), position)?))
    }

    fn after_loss(&self, position: &Position) -> Result<(Position, Vec<String>)> {
        let (mut kept, mut lost) = (Position::default(), Vec::new());
        for place in &position.partitions {
            match self.shared.verify(&place.partition, place.offset, &place.identity) {
                Ok(()) => kept.partitions.push(place.clone()),
                Err(e) if e.retry => return Err(e),
                Err(e) => lost.push(format!(
                    "given up what it had behind byte {}, and what is there now is read from its beginning: {}",
                    place.offset, e.message
                )),
            }
        }
        Ok((kept, lost))
    }

    fn replay(&self, descriptor: &Descriptor) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        for range in &descriptor.ranges {
            chunks.append(&mut insist(self.shared.source.patience(), || self.shared.replay(range))?);
        }
        Ok(chunks)
    }
}

impl Shared {
    /// Refuses content that is not the one that was read up to `offset`.
    fn verify(&self, partition: &str, offset: u64, identity: &str) -> Result<()> {
        let mut content = self.source.open(partition, offset)?;
        if offset > 0 {
            content.verify(offset, identity)?;
        }
        Ok(())
    }

    /// A content's layout, and the offset after its header line; `None` while that is not finished.
    fn layout(&self, partition: &str) -> Result<Option<(Layout, u64)>> {
        let name = self.source.name(partition);
        if !self.format.has_header() {
            return Ok(Some((self.format.layout(&name, &[])?, 0)));
        }
        let mut content = self.source.open(partition, 0)?;
        let (mut buf, mut records, mut more) = (Vec::new(), Vec::new(), true);
        while records.is_empty() && more {
            let count = 64 << 10;
            more = content.read(&mut buf, count)? == count;
            let last = !more && !self.follow;
            let split = split(&buf, 0, self.format.framing(), last, 1, &mut records);
            split.map_err(|_| self.too_long(partition, 0))?;
        }
        let Some(header) = records.first() else { return Ok(None) };
        let text = buf.get(header.start..header.text_end).unwrap_or_default();
        Ok(Some((self.format.layout(&name, text)?, header.end as u64)))
    }

    fn too_long(&self, partition: &str, offset: u64) -> ConnectorError {
        let message = format!(
            "{}: the record at byte {offset} is longer than 16 MiB; is it the format that is configured?",
            self.source.name(partition)
        );
        ConnectorError::new(&self.connector, message)
    }

    /// The chunk of `records`, which stand in `buf`, which begins at `buf_start`.
    fn chunk(
        &self,
        partition: &Arc<str>,
        layout: &Layout,
        (start, end): (u64, u64),
        (buf, buf_start): (&[u8], u64),
        records: &mut [Record],
    ) -> Result<Chunk> {
        // Cells are spans of 32 bits: the block begins where the records do.
        let from = records.first().map_or(0, |r| r.start);
        let to = records.last().map_or(from, |r| r.end);
        for record in records.iter_mut() {
            record.start -= from;
            record.text_end -= from;
            record.end -= from;
        }
        let block = buf.get(from..to).unwrap_or_default();
        let parsed = self.format.parse(layout, block, buf_start + from as u64, records)?;
        Ok(parsed.into_chunk(Arc::clone(partition), (start, end), Arc::new(NoIdentity)))
    }

    /// Reads a range again.
    fn replay(&self, range: &Range) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        let mut content = self.source.open(&range.partition, range.end)?;
        let around = content.verify(range.end, &range.identity)?;
        let (layout, header_end) = self.layout(&range.partition)?.unwrap_or_default();
        // What stands before the range is read with it for the chunks' identities.
        let from = range.start.saturating_sub(PROBE as u64);
        let count = usize::try_from(range.end.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut buf = Vec::new();
        content.seek(from)?;
        content.read(&mut buf, count)?;
        let place = |offset: u64| usize::try_from(offset.saturating_sub(from)).unwrap_or(usize::MAX);
        let partition: Arc<str> = Arc::from(range.partition.as_str());
        let mut start = range.start;
        let mut at = place(if start == 0 { header_end } else { start });
        loop {
            let mut records = Vec::new();
            let framing = self.format.framing();
            let limit = ROWS;
            at = split(&buf, at, framing, true, limit, &mut records)
                .map_err(|e| self.too_long(&range.partition, from + e.0 as u64))?;
            let is_last = at >= buf.len();
            let end = if is_last { range.end } else { from + at as u64 };
            let mut chunk = self.chunk(&partition, &layout, (start, end), (&buf, from), &mut records)?;
            let before = place(start.saturating_sub(PROBE as u64));
            chunk.identity = Arc::new(BlockIdentity {
                version: content.version().to_owned(),
                head: around.head.clone(),
                start: from + before as u64,
                bytes: buf.get(before..place(end)).unwrap_or_default().to_vec(),
            });
            start = end;
            chunks.push(chunk);
            if is_last {
                return Ok(chunks);
            }
        }
    }
}
