//! Writing run files.
//!
//! Invariants:
//! 1. A file is created exclusively and holds the runs of one checkpoint. Nothing is written twice.
//! 2. After [`RunFileWriter::finish`] returns, every run in it is durable, and so is the file's name: only then
//!    may a manifest name it (invariant 2 of the design).
//! 3. After an error the writer does nothing more: the file stays unnamed, and is garbage.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Default;

use super::context::{RunHandle, SpineContext};
use super::cursor::Merge;
use super::filter::{Filter, key_hash};
use super::format::block::BlockBuilder;
use super::format::footer::{self, Footer};
use super::format::frame::{self, Kind};
use super::format::header::{self, FileHeader};
use super::format::{self, index::Index};
use super::run::Run;
use super::version::{Flushed, FrozenSpine};
use super::{Discipline, RowBatch, RunMeta, run_file_name};
use crate::disk::{ALIGN, AlignedBuf, IoQueue, Op, OpenOptions};
use crate::{Error, Result};

/// Bytes of one write.
const CHUNK: usize = 1 << 20;
/// Writes in flight.
const WRITES: usize = 4;

/// What [`RunFileWriter::finish`] made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFile {
    /// The file's name in the runs directory; `None` if there was nothing to write.
    pub name: Option<String>,
    /// Its length in bytes.
    pub bytes: u64,
    /// The number of runs in it.
    pub runs: usize,
}

/// Writes the runs of one checkpoint into one file, with large direct writes and one sync. To be used on one thread.
///
/// The file is created when the first row is written: a checkpoint of nothing new makes no file.
///
/// ```
/// use backstay_storage::spine::{Discipline, RowBatch, RunFileWriter, Spine, SpineContext, SpineMeta};
/// # let dir = tempfile::tempdir().unwrap();
/// # let disk = std::sync::Arc::new(backstay_storage::disk::PosixDisk::new());
/// # let context = SpineContext::new(disk, dir.path(), 42, 1 << 20);
/// let mut spine = Spine::open(context.clone(), SpineMeta::empty("sums", Discipline::Latest, 1))?;
/// # let mut rows = RowBatch::new();
/// # rows.push(b"k", b"v", 1);
/// spine.insert_batch(&rows)?;
/// let frozen = spine.freeze(); // on the owner's thread
///
/// let mut writer = RunFileWriter::new(&context, 1, 1); // on the checkpointer's
/// let flushed = writer.flush(&frozen)?;
/// let file = writer.finish()?;
/// assert_eq!((file.runs, flushed.meta().runs.len()), (1, 1));
/// // … here a manifest with flushed.meta() is committed …
/// flushed.install();
/// assert_eq!(spine.get(b"k")?.as_deref(), Some(&b"v"[..]));
/// # Ok::<(), backstay_storage::Error>(())
/// ```
#[derive(Debug)]
pub struct RunFileWriter {
    context: Arc<SpineContext>,
    epoch: u64,
    number: u64,
    output: Option<Output>,
    runs: usize,
    failed: bool,
}

impl RunFileWriter {
    /// A writer of the file `run_file_name(epoch, number)`, which must not exist.
    ///
    /// ```
    /// # use backstay_storage::spine::{RunFileWriter, SpineContext};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let disk = std::sync::Arc::new(backstay_storage::disk::PosixDisk::new());
    /// # let context = SpineContext::new(disk, dir.path(), 42, 1 << 20);
    /// assert_eq!(RunFileWriter::new(&context, 1, 1).finish()?.name, None);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn new(context: &Arc<SpineContext>, epoch: u64, number: u64) -> Self {
        Self { context: Arc::clone(context), epoch, number, output: None, runs: 0, failed: false }
    }

    /// Writes what was frozen of a spine as one run, taking in older runs by the merge policy. Nothing is durable before
    /// [`RunFileWriter::finish`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if an earlier flush of the same spine is neither installed nor dropped, if a later freeze of it
    /// was installed, or if the spine is ephemeral or another store's; those of reading runs and of writing. After one of
    /// the latter the writer is of no more use.
    ///
    /// The example is at [`RunFileWriter`].
    pub fn flush(&mut self, frozen: &FrozenSpine) -> Result<Flushed> {
        if self.failed {
            return Err(Error::Invalid("a run file's writer was used after an error: make a new one".into()));
        }
        let flush = frozen.begin(&self.context)?;
        self.failed = true;
        let run = match flush.merge(&self.context) {
            Some(merge) => self.write_run(frozen, merge)?,
            None => None,
        };
        self.failed = false;
        Ok(flush.done(run))
    }

    fn write_run(&mut self, frozen: &FrozenSpine, mut merge: Merge) -> Result<Option<Arc<Run>>> {
        merge.rewind()?;
        if !merge.valid() {
            return Ok(None);
        }
        let output = match &mut self.output {
            Some(output) => output,
            none => none.insert(Output::create(&self.context, self.epoch, self.number)?),
        };
        let mut extent = Extent::new(output, frozen.discipline(), frozen.format())?;
        while merge.valid() {
            extent.push(merge.key(), merge.value(), merge.weight())?;
            merge.next()?;
        }
        self.runs += 1;
        extent.finish(run_file_name(self.epoch, self.number)).map(|run| Some(Arc::new(run)))
    }

    /// Writes the rest, syncs the file once, and its directory: all runs are durable when it returns.
    ///
    /// # Errors
    /// Those of writing; nothing of the file may be used then.
    ///
    /// The example is at [`RunFileWriter`].
    pub fn finish(self) -> Result<RunFile> {
        if self.failed {
            return Err(Error::Invalid("a run file's writer was used after an error: make a new one".into()));
        }
        let Some(output) = self.output else { return Ok(RunFile::default()) };
        let bytes = output.finish(&self.context)?;
        Ok(RunFile { name: Some(run_file_name(self.epoch, self.number)), bytes, runs: self.runs })
    }
}

/// A file that is written from front to back.
#[derive(Debug)]
struct Output {
    handle: Arc<RunHandle>,
    queue: Box<dyn IoQueue>,
    /// Bytes not yet handed to the queue. They start at `start`, a multiple of [`ALIGN`].
    pending: Vec<u8>,
    start: u64,
    /// Lengths of the writes in flight by token, to tell a short one.
    writes: VecDeque<(u64, usize)>,
}

impl Output {
    fn create(context: &SpineContext, epoch: u64, number: u64) -> Result<Self> {
        let name = run_file_name(epoch, number);
        let path = context.dir().join(&name);
        let file = context.disk().open(&path, OpenOptions::CREATE_DIRECT)?;
        let header = FileHeader::new(context.store_id(), epoch, number);
        let handle = Arc::new(RunHandle::new(file, path, header));
        context.register(&name, &handle);
        let queue = context.take_queue()?;
        Ok(Self { handle, queue, pending: header.encode(), start: 0, writes: VecDeque::new() })
    }

    /// Where the next byte goes.
    fn offset(&self) -> u64 {
        self.start + self.pending.len() as u64
    }

    fn pad(&mut self) {
        self.pending.resize(self.pending.len().next_multiple_of(ALIGN), 0);
    }

    /// Hands whole chunks to the queue; with `all`, what is left too (padded before).
    fn drain(&mut self, all: bool) -> Result<()> {
        while self.pending.len() >= CHUNK || (all && !self.pending.is_empty()) {
            let rest = self.pending.split_off(self.pending.len().min(CHUNK));
            let chunk = mem::replace(&mut self.pending, rest);
            self.wait(WRITES - 1)?;
            let buf = AlignedBuf::from_slice(&chunk);
            let (offset, len) = (self.start, buf.len());
            let file = Arc::clone(&self.handle.file);
            self.writes.push_back((offset, len));
            self.queue.submit(vec![(offset, Op::Write { file, offset, buf, durable: false })])?;
            self.start += len as u64;
        }
        Ok(())
    }

    /// Waits until at most `left` writes are in flight.
    fn wait(&mut self, left: usize) -> Result<()> {
        while self.writes.len() > left {
            let done = self.queue.wait(1)?;
            if done.is_empty() {
                return Err(Error::Invalid("an I/O queue lost a write: a bug in the disk".into()));
            }
            for completion in done {
                let written = completion.result?;
                self.writes.retain(|&(token, len)| token != completion.token || len != written);
            }
        }
        Ok(())
    }

    fn finish(mut self, context: &SpineContext) -> Result<u64> {
        self.pad();
        self.drain(true)?;
        self.wait(0)?;
        self.handle.file.sync()?;
        context.disk().sync_dir(context.dir())?;
        context.put_queue(self.queue);
        Ok(self.start)
    }
}

/// A run while it is written.
struct Extent<'a> {
    output: &'a mut Output,
    discipline: Discipline,
    format: u32,
    start: u64,
    block: BlockBuilder,
    /// The first row of the block.
    first: RowBatch,
    index: Index,
    hashes: Vec<u64>,
    content: Xxh3Default,
    rows: u64,
    raw_bytes: u64,
}

impl<'a> Extent<'a> {
    fn new(output: &'a mut Output, discipline: Discipline, format: u32) -> Result<Self> {
        output.pad();
        let start = output.offset();
        debug_assert!(start >= header::LEN as u64);
        Ok(Self {
            output,
            discipline,
            format,
            start,
            block: BlockBuilder::default(),
            first: RowBatch::new(),
            index: Index::default(),
            hashes: Vec::new(),
            content: Xxh3Default::new(),
            rows: 0,
            raw_bytes: 0,
        })
    }

    /// Appends a row greater than the last one.
    fn push(&mut self, key: &[u8], value: &[u8], weight: i64) -> Result<()> {
        let last = if self.block.rows() > 0 { self.block.last_key() } else { self.index.max_key() };
        if self.rows == 0 || last != key {
            self.hashes.push(key_hash(key));
        }
        if self.block.rows() == 0 {
            let value = if self.discipline == Discipline::Weighted { value } else { &[] };
            self.first.push(key, value, 0);
        }
        self.block.push(key, value, weight);
        self.rows += 1;
        self.raw_bytes += raw_bytes(key, value);
        if self.block.is_full() { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<()> {
        let rows = self.block.rows();
        let before = self.output.offset();
        let last = self.block.last_key().to_vec();
        let payload = self.block.finish();
        let ident = self.output.handle.ident;
        let sum = frame::encode(&mut self.output.pending, Kind::Block, ident, before, rows, payload, true)?;
        self.content.update(&sum.to_le_bytes());
        let len = self.output.offset() - before;
        let rows = format::to_u32(rows, "the rows of a block")?;
        self.index.push(len, rows, self.first.key(0), self.first.value(0), &last);
        self.first.clear();
        self.block.clear();
        self.output.drain(false)
    }

    /// Appends an index or filter frame; returns its length.
    fn frame(&mut self, kind: Kind, count: usize, payload: &[u8], compress: bool) -> Result<u64> {
        let before = self.output.offset();
        let ident = self.output.handle.ident;
        let sum = frame::encode(&mut self.output.pending, kind, ident, before, count, payload, compress)?;
        self.content.update(&sum.to_le_bytes());
        Ok(self.output.offset() - before)
    }

    fn finish(mut self, file: String) -> Result<Run> {
        if self.block.rows() > 0 {
            self.close_block()?;
        }
        let data_len = self.output.offset() - self.start;
        let filter = Filter::build(&self.hashes);
        let index = mem::take(&mut self.index);
        let index_len = self.frame(Kind::Index, index.len(), &index.encode(), true)?;
        let filter_len = self.frame(Kind::Filter, self.hashes.len(), &filter.encode(), false)?;
        let footer = Footer {
            version: format::VERSION,
            discipline: self.discipline,
            format: self.format,
            blocks: format::to_u32(index.len(), "the blocks of a run")?,
            rows: self.rows,
            raw_bytes: self.raw_bytes,
            extent: self.start,
            data_len,
            index_len,
            filter_len,
            content: self.content.digest(),
            keys: self.hashes.len() as u64,
        };
        let (bytes, checksum) = footer.encode(self.output.handle.ident, self.output.offset());
        self.output.pending.extend_from_slice(&bytes);
        let meta = RunMeta {
            file,
            offset: self.start,
            len: data_len + index_len + filter_len + footer::LEN as u64,
            checksum,
            rows: self.rows,
            raw_bytes: self.raw_bytes,
            min_key: index.min_key().to_vec(),
            max_key: index.max_key().to_vec(),
        };
        Ok(Run { handle: Arc::clone(&self.output.handle), meta, footer, index, filter })
    }
}

/// What a row weighs for the merge policy.
pub(super) fn raw_bytes(key: &[u8], value: &[u8]) -> u64 {
    key.len() as u64 + value.len() as u64 + 8
}
