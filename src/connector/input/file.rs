//! `file_input`: rows from files, plain or gzip.
//!
//! Settings: `path` (a file, or a pattern with `*`, `?`, `[…]`) or `paths` (a list of them), `follow` (default false: the files are read to
//! their ends; true: they are watched, and so are patterns for new files). Relative paths start at the SQL file's folder.
//!
//! Files are read one after the other: a list's in its order, a pattern's by name. A partition is a file, named by its path as
//! configured, without `./`; offsets are bytes of its (decompressed) content, the header line included in the first range.
//!
//! Invariants:
//! 1. A range is cut where a record ended, so that reading it alone gives the same records ([`split`](super::super::format::split)).
//! 2. What has been read before is verified by its [identity](super::content) before anything is read behind it or again.
//! 3. Of a followed file an unfinished last line waits; of another one it is a record.
//!
//! Limits: a file that is moved is another file, and is read again. gzip cannot be followed, and is decompressed from its start at a restart.
//! A record longer than 16 MiB is an error.

mod reader;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use ::glob::Pattern;
use backstay_storage::disk::Disk;

use super::super::config::ConnectorConfig;
use super::super::format::Format;
use super::super::format::csv::Layout;
use super::super::format::split::{Framing, Record, split};
use super::super::options::Options;
use super::super::{
    Chunk, ConnectorError, Context, Descriptor, Input, InputReader, Level, NoIdentity, Position, Range, Result,
};
use super::content::{BlockIdentity, Content, PROBE, missing};
use super::glob;
use reader::FileReader;

/// The most rows in a chunk.
const ROWS: usize = 16 << 10;

/// A configured file input.
#[derive(Clone, Debug)]
pub(crate) struct FileInput {
    shared: Arc<Shared>,
}

/// What readers share.
#[derive(Debug)]
struct Shared {
    connector: String,
    disk: Arc<dyn Disk>,
    base_dir: PathBuf,
    paths: Vec<Selector>,
    follow: bool,
    format: Format,
}

/// One entry of the list of paths.
#[derive(Debug)]
enum Selector {
    File(String),
    Pattern(Pattern),
}

impl FileInput {
    pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let place = "transport.config of file_input";
        let options = Options::new(
            &ctx.name,
            place,
            &config.transport.config,
            &["path", "paths", "follow"],
            &["buffer_size_bytes"],
        )?;
        let paths = match (options.string("path")?, options.strings("paths")?) {
            (Some(path), None) => vec![path.to_owned()],
            (None, Some(paths)) if !paths.is_empty() => paths,
            (None, Some(_)) => return Err(options.error("\"paths\" is empty; name at least one file")),
            (Some(_), Some(_)) => {
                return Err(options.error("\"path\" and \"paths\" exclude each other; name all in \"paths\""));
            }
            (None, None) => {
                return Err(options.error("\"path\" is missing: a file, or a pattern such as \"data/*.csv\""));
            }
        };
        let selector = |path: String| {
            let path = plain(&path);
            if path.is_empty() {
                Err(options.error("a path is empty"))
            } else if glob::is_pattern(&path) {
                glob::check(&ctx.name, &path).map(Selector::Pattern)
            } else {
                Ok(Selector::File(path))
            }
        };
        let format = Format::new(config.format.as_ref(), ctx)?;
        let follow = options.bool("follow")?.unwrap_or(false);
        if follow && format.framing() == Framing::Whole {
            return Err(options.error(
                "\"follow\" needs records: set \"mode\": \"lines\" in format.config of raw, or read whole files without",
            ));
        }
        let shared = Shared {
            connector: ctx.name.clone(),
            disk: Arc::clone(&ctx.disk),
            base_dir: ctx.base_dir.clone(),
            paths: paths.into_iter().map(selector).collect::<Result<_>>()?,
            follow,
            format,
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// A path without what names nothing (`./`, doubled slashes): a file must not be another partition because it is spelled otherwise.
fn plain(path: &str) -> String {
    let root = if path.starts_with('/') { "/" } else { "" };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("{root}{}", parts.join("/"))
}

impl Input for FileInput {
    fn level(&self) -> Level {
        Level::ExactlyOnce
    }

    fn is_finite(&self) -> bool {
        !self.shared.follow
    }

    fn selects(&self, partition: &str) -> bool {
        self.shared.selects(partition)
    }

    fn open(&self, position: &Position) -> Result<Box<dyn InputReader>> {
        Ok(Box::new(FileReader::open(Arc::clone(&self.shared), position)?))
    }

    fn replay(&self, descriptor: &Descriptor) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        for range in &descriptor.ranges {
            self.shared.replay(range, &mut chunks)?;
        }
        Ok(chunks)
    }
}

impl Shared {
    /// The partitions that the configuration names now, in order.
    fn list(&self) -> Result<Vec<String>> {
        let mut partitions: Vec<String> = Vec::new();
        for selector in &self.paths {
            match selector {
                Selector::File(path) => partitions.push(path.clone()),
                Selector::Pattern(pattern) => {
                    let found = glob::list(&self.connector, &*self.disk, &self.base_dir, pattern.as_str())?;
                    if found.is_empty() && !self.follow {
                        let message = format!(
                            "no file is named like \"{}\" (relative paths start at {}); set \"follow\": true to wait for one",
                            pattern.as_str(),
                            self.base_dir.display()
                        );
                        return Err(ConnectorError::new(&self.connector, message));
                    }
                    partitions.extend(found);
                }
            }
        }
        // A file that is named twice is read once, at its first place.
        let mut seen = std::collections::BTreeSet::new();
        partitions.retain(|p| seen.insert(p.clone()));
        Ok(partitions)
    }

    /// Whether the configuration names this partition.
    fn selects(&self, partition: &str) -> bool {
        self.paths.iter().any(|s| match s {
            Selector::File(path) => path == partition,
            Selector::Pattern(pattern) => glob::matches(pattern, partition),
        })
    }

    fn path(&self, partition: &str) -> PathBuf {
        self.base_dir.join(partition)
    }

    fn open(&self, partition: &str, offset: u64) -> Result<Content> {
        let path = self.path(partition);
        let content = Content::open(&self.connector, &*self.disk, &path)?;
        let content = content.ok_or_else(|| missing(&self.connector, &path, offset))?;
        if self.follow && content.is_gzip() {
            let message =
                format!("{}: \"follow\" is not supported for gzip; decompress it, or read it without", path.display());
            return Err(ConnectorError::new(&self.connector, message));
        }
        Ok(content)
    }

    /// A file's layout, and the offset after its header line; `None` while that is not finished.
    fn layout(&self, partition: &str) -> Result<Option<(Layout, u64)>> {
        let path = self.path(partition);
        if !self.format.has_header() {
            return Ok(Some((self.format.layout(&path, &[])?, 0)));
        }
        let mut content = self.open(partition, 0)?;
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
        Ok(Some((self.format.layout(&path, text)?, header.end as u64)))
    }

    fn too_long(&self, partition: &str, offset: u64) -> ConnectorError {
        let message = format!(
            "{}: the record at byte {offset} is longer than 16 MiB; is it the format that is configured?",
            self.path(partition).display()
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
    fn replay(&self, range: &Range, chunks: &mut Vec<Chunk>) -> Result<()> {
        let mut content = self.open(&range.partition, range.end)?;
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
                head: around.head.clone(),
                start: from + before as u64,
                bytes: buf.get(before..place(end)).unwrap_or_default().to_vec(),
            });
            start = end;
            chunks.push(chunk);
            if is_last {
                return Ok(());
            }
        }
    }
}
