//! One Parquet file: its footer, and its rows by row group.

use std::fmt;
use std::ops::Range as Span;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::{Buf as _, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use xxhash_rust::xxh3::xxh3_64;

use super::super::super::format::Parsed;
use super::super::super::format::columns::{Columns, Wrong, chosen};
use super::super::super::{Chunk, ConnectorError, Identity, Result, RowError};
use super::super::content::{Blob, Content};

/// The most rows in a chunk.
const ROWS: usize = 8 << 10;
/// How much is read at once of what is not held.
const PEEK: usize = 64 << 10;
/// What a file ends with: the footer's length (4 bytes) and `PAR1`.
const TAIL: usize = 8;

/// An open file.
pub(super) struct File {
    connector: String,
    blob: Arc<dyn Blob>,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    columns: Columns,
    table: SchemaRef,
    identity: String,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("blob", &self.blob).field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl File {
    /// Reads the footer, and finds the table's columns.
    pub(super) fn open(connector: &str, content: &Content, table: &SchemaRef) -> Result<Self> {
        let blob = Arc::clone(content.blob());
        let error = |message: &str| ConnectorError::new(connector, format!("{}: {message}", blob.name()));
        if content.is_gzip() {
            return Err(error("it is compressed as a whole, but Parquet is compressed within: decompress it"));
        }
        let identity = identity(connector, &blob)?;
        let held = Held::new(Arc::clone(&blob), Vec::new());
        // The file's own schema: that which Arrow's writers keep beside it says no more of the values.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&held, options).map_err(|e| held.failed(connector, &e))?;
        let columns = Columns::new(metadata.schema().fields(), table).map_err(|e| error(&e))?;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), columns.wanted());
        let (connector, table) = (connector.to_owned(), Arc::clone(table));
        Ok(Self { connector, metadata, mask, columns: columns.of_wanted(), table, identity, blob })
    }

    pub(super) fn error(&self, message: impl fmt::Display) -> ConnectorError {
        ConnectorError::new(&self.connector, format!("{}: {message}", self.blob.name()))
    }

    /// What tells it from another file.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// How many rows it has.
    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or_default()
    }

    /// The rows from `start` on, up to `end` or the end of their row group; `None`: there are none.
    pub(super) fn rows(&self, start: u64, end: u64) -> Result<Option<Rows>> {
        let mut before: u64 = 0;
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            let behind = before.saturating_add(u64::try_from(group.num_rows()).unwrap_or_default());
            if start >= behind || start >= end {
                before = behind;
                continue;
            }
            let wanted = group.columns().iter().enumerate().filter(|(leaf, _)| self.mask.leaf_included(*leaf));
            let wanted = wanted.map(|(_, column)| {
                let (from, len) = column.byte_range();
                from..from.saturating_add(len)
            });
            let held = Held::new(Arc::clone(&self.blob), wanted.collect());
            let usize = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(held.clone(), self.metadata.clone())
                .with_projection(self.mask.clone())
                .with_row_groups(vec![number])
                .with_offset(usize(start - before))
                .with_limit(usize(end - start))
                .with_batch_size(ROWS)
                .build();
            let reader = reader.map_err(|e| held.failed(&self.connector, &e))?;
            return Ok(Some(Rows { reader, held, left: behind.min(end) - start }));
        }
        Ok(None)
    }

    /// The chunk of a batch that begins with row `start`.
    pub(super) fn chunk(&self, partition: &Arc<str>, start: u64, batch: &RecordBatch) -> Result<Chunk> {
        let fail = |e| self.error(format!("the rows do not fit the table: {e}"));
        let mut wrong = Wrong::new();
        let arrays = self.columns.take(batch.columns(), batch.num_rows(), None, &mut wrong).map_err(fail)?;
        let end = start + batch.num_rows() as u64;
        let place = |row: usize| start + row as u64;
        let good: Vec<usize> = (0..batch.num_rows()).filter(|row| !wrong.contains_key(row)).collect();
        let ends = good.iter().map(|row| place(*row) + 1).collect();
        let rows = chosen(&self.table, arrays, &good).map_err(fail)?;
        let errors = wrong.into_iter().map(|(row, message)| RowError { offset: place(row), message }).collect();
        let parsed = Parsed { rows, weights: None, ends, errors };
        Ok(parsed.into_chunk(Arc::clone(partition), (start, end), Arc::new(Whole(self.identity.clone()))))
    }
}

/// The identity of ranges of a file that is all there.
#[derive(Debug)]
struct Whole(String);

impl Identity for Whole {
    fn at(&self, _end: u64) -> String {
        self.0.clone()
    }
}

/// Length, and hash of the footer.
fn identity(connector: &str, blob: &Arc<dyn Blob>) -> Result<String> {
    let len = blob.len()?;
    let read = |count: u64| {
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
        let n = blob.read_at(&mut bytes, len - count)?;
        bytes.truncate(n);
        Ok(bytes)
    };
    let no_file =
        || ConnectorError::new(connector, format!("{}: it is no Parquet file: it does not end with PAR1", blob.name()));
    let tail = read(len.min(TAIL as u64))?;
    let Some((size, b"PAR1")) = tail.split_first_chunk::<4>() else { return Err(no_file()) };
    let footer = read(u64::from(u32::from_le_bytes(*size)).saturating_add(TAIL as u64).min(len))?;
    let space = if blob.version().is_empty() { "" } else { " " };
    Ok(format!("{len}-{:016x}{space}{}", xxh3_64(&footer), blob.version()))
}

/// Rows of one row group.
pub(super) struct Rows {
    reader: ParquetRecordBatchReader,
    held: Held,
    /// Rows that are still to come, as the footer has it.
    left: u64,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rows")
    }
}

impl Rows {
    /// The next of them.
    pub(super) fn next(&mut self, file: &File) -> Result<Option<RecordBatch>> {
        let batch = self.reader.next().transpose().map_err(|e| self.held.failed(&file.connector, &e))?;
        self.left = self.left.saturating_sub(batch.as_ref().map_or(0, |batch| batch.num_rows() as u64));
        match batch {
            // To look for them again would find as few.
            None if self.left > 0 => Err(file
                .error(format!("a row group has {} rows less than the footer says: the file is damaged", self.left))),
            batch => Ok(batch),
        }
    }
}

/// The bytes of a file for the decoder, which holds what it wants of a row group: pages are asked for column by column, in turns.
#[derive(Clone, Debug)]
struct Held {
    blob: Arc<dyn Blob>,
    /// Where the wanted columns stand.
    wanted: Arc<[Span<u64>]>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    held: Vec<(u64, Bytes)>,
    /// What went wrong below the decoder, whose own errors do not carry it.
    failed: Option<ConnectorError>,
}

impl Held {
    fn new(blob: Arc<dyn Blob>, wanted: Vec<Span<u64>>) -> Self {
        Self { blob, wanted: wanted.into(), state: Arc::default() }
    }

    /// An error of the decoder's, or what lies below it.
    fn failed(&self, connector: &str, error: &dyn fmt::Display) -> ConnectorError {
        let below = self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.take();
        below.unwrap_or_else(|| {
            ConnectorError::new(connector, format!("{}: it cannot be read as Parquet: {error}", self.blob.name()))
        })
    }

    fn read(&self, span: &Span<u64>, state: &mut State) -> Result<Bytes, ParquetError> {
        let mut bytes = vec![0; usize::try_from(span.end - span.start)?];
        match self.blob.read_at(&mut bytes, span.start) {
            Ok(n) => {
                bytes.truncate(n);
                Ok(bytes.into())
            }
            Err(e) => {
                let error = ParquetError::General(e.message.clone());
                state.failed = Some(e);
                Err(error)
            }
        }
    }

    /// The bytes from `start` on, up to the end of their column.
    fn from(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(span) = self.wanted.iter().find(|span| span.contains(&start)) else {
            let end = start.saturating_add(length as u64).min(self.blob_len(&mut state)?).max(start);
            return self.read(&(start..end), &mut state);
        };
        let found = state.held.iter().find(|(at, _)| *at == span.start).map(|(_, bytes)| bytes.clone());
        let mut bytes = match found {
            Some(bytes) => bytes,
            None => {
                let bytes = self.read(span, &mut state)?;
                state.held.push((span.start, bytes.clone()));
                bytes
            }
        };
        let skip = usize::try_from(start - span.start)?;
        bytes.advance(skip.min(bytes.len()));
        Ok(bytes)
    }

    fn blob_len(&self, state: &mut State) -> Result<u64, ParquetError> {
        self.blob.len().map_err(|e| {
            let error = ParquetError::General(e.message.clone());
            state.failed = Some(e);
            error
        })
    }
}

impl Length for Held {
    fn len(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.blob_len(&mut state).unwrap_or_default()
    }
}

impl ChunkReader for Held {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        self.from(start, PEEK).map(Bytes::reader)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = self.from(start, length)?;
        match bytes.len() < length {
            true => {
                Err(ParquetError::EOF(format!("{length} bytes at {start} were wanted, and {} are there", bytes.len())))
            }
            false => Ok(bytes.split_to(length)),
        }
    }
}
