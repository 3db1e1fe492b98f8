//! Rows from Parquet files and objects: what `file_input` and its like make of the format `parquet`.
//!
//! A partition is a file, an offset a number of rows. Columns are found by name ([`columns`](super::super::format::columns)); all rows are inserts.
//!
//! Invariants:
//! 1. A range's identity is the file's length and a hash of its footer, which names the place and size of all that is in it, with the version of its
//!    [content](super::content). A file that is another one is refused before anything of it is read behind a position, or again.
//! 2. What changed in a file whose footer stayed is found at replay by the rows' hash (invariant 3 of the design).
//!
//! Limits: the wanted columns of one row group are in memory, compressed. Compressions: snappy, gzip, zstd, LZ4. A file is whole when it is there: it cannot be followed.

mod file;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::super::format::cell::check_types;
use super::super::{Chunk, Context, Descriptor, Input, InputReader, Level, Next, Position, Range, Result};
use super::records::Source;
use crate::connector::patience::insist;
use file::{File, Rows};

/// A configured input.
#[derive(Clone, Debug)]
pub(crate) struct Parquet {
    shared: Arc<Shared>,
}

/// What readers share.
#[derive(Debug)]
struct Shared {
    connector: String,
    source: Box<dyn Source>,
    table: SchemaRef,
}

impl Parquet {
    pub(crate) fn new(ctx: &Context, source: Box<dyn Source>) -> Result<Self> {
        check_types(&ctx.name, &ctx.schema)?;
        let table = Arc::clone(&ctx.schema);
        Ok(Self { shared: Arc::new(Shared { connector: ctx.name.clone(), source, table }) })
    }
}

impl Input for Parquet {
    fn level(&self) -> Level {
        Level::ExactlyOnce
    }

    fn is_finite(&self) -> bool {
        true
    }

    fn selects(&self, partition: &str) -> bool {
        self.shared.source.selects(partition)
    }

    fn open(&self, position: &Position) -> Result<Box<dyn InputReader>> {
        Ok(Box::new(FilesReader::open(Arc::clone(&self.shared), position)?))
    }

    fn replay(&self, descriptor: &Descriptor) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        for range in &descriptor.ranges {
            chunks.append(&mut insist(self.shared.source.patience(), || self.shared.replay(range))?);
        }
        Ok(chunks)
    }
}

/// Reads files one after the other.
#[derive(Debug)]
struct FilesReader {
    shared: Arc<Shared>,
    files: Vec<Tracked>,
    /// The file that is being read.
    current: usize,
    open: Option<(File, Option<Rows>)>,
}

/// How far a file has been read.
#[derive(Debug)]
struct Tracked {
    partition: Arc<str>,
    /// The next row.
    offset: u64,
    identity: String,
}

impl FilesReader {
    fn open(shared: Arc<Shared>, position: &Position) -> Result<Self> {
        let names = insist(shared.source.patience(), || shared.source.list())?;
        let tracked = |name: String| Tracked { partition: Arc::from(name), offset: 0, identity: String::new() };
        let mut files: Vec<Tracked> = names.into_iter().map(tracked).collect();
        for known in &position.partitions {
            match files.iter_mut().find(|f| *f.partition == *known.partition) {
                Some(file) => {
                    (file.offset, file.identity) = (known.offset, known.identity.clone());
                    // What may pass is met again when it is read, which can wait.
                    let found = shared.open(&known.partition, known.offset, &known.identity);
                    found.map(drop).or_else(|e| if e.retry { Ok(()) } else { Err(e) })?;
                }
                None if shared.source.selects(&known.partition) => {
                    return Err(shared.source.missing(&known.partition, known.offset));
                }
                // The configuration does not name it any more.
                None => {}
            }
        }
        Ok(Self { shared, files, current: 0, open: None })
    }
}

impl InputReader for FilesReader {
    fn next(&mut self) -> Result<Next> {
        loop {
            let Some(tracked) = self.files.get_mut(self.current) else { return Ok(Next::End) };
            let (file, rows) = match self.open.take() {
                Some(open) => open,
                None => (self.shared.open(&tracked.partition, tracked.offset, &tracked.identity)?, None),
            };
            let rows = match rows {
                Some(rows) => Some(rows),
                None => file.rows(tracked.offset, file.len())?,
            };
            let Some(mut rows) = rows else {
                self.current += 1;
                continue;
            };
            match rows.next(&file)? {
                None => self.open = Some((file, None)),
                Some(batch) => {
                    let chunk = file.chunk(&tracked.partition, tracked.offset, &batch)?;
                    (tracked.offset, tracked.identity) = (chunk.end, file.identity().to_owned());
                    self.open = Some((file, Some(rows)));
                    return Ok(Next::Chunk(chunk));
                }
            }
        }
    }
}

impl Shared {
    /// Opens a file, and refuses one that is not the `expected` one (empty: none is known).
    fn open(&self, partition: &str, offset: u64, expected: &str) -> Result<File> {
        let content = self.source.open(partition, offset)?;
        let file = File::open(&self.connector, &content, &self.table)?;
        if !expected.is_empty() && file.identity() != expected {
            return Err(file.error(format!(
                "it was replaced since its first {offset} rows were read: expected length and footer {expected}, got {}; put the old file back, or \
                 start anew with an empty data directory",
                file.identity()
            )));
        }
        Ok(file)
    }

    /// Reads a range again.
    fn replay(&self, range: &Range) -> Result<Vec<Chunk>> {
        let file = self.open(&range.partition, range.end, &range.identity)?;
        let partition: Arc<str> = Arc::from(range.partition.as_str());
        let (mut chunks, mut at) = (Vec::new(), range.start);
        while let Some(mut rows) = file.rows(at, range.end)? {
            while let Some(batch) = rows.next(&file)? {
                let chunk = file.chunk(&partition, at, &batch)?;
                at = chunk.end;
                chunks.push(chunk);
            }
        }
        Ok(chunks)
    }
}
