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

use super::context::{RunHandle, SpineContext};
use super::cursor::Merge;
use super::extent::{Extent, Packing, Tape};
use super::format::header::FileHeader;
use super::run::Run;
use super::run_file_name;
use super::version::{Flushed, FrozenSpine};
use crate::disk::{AlignedBuf, IoQueue, Op, OpenOptions};
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
            Some(merge) => self.write_run(frozen, merge, flush.packing())?,
            None => None,
        };
        self.failed = false;
        Ok(flush.done(run))
    }

    fn write_run(&mut self, frozen: &FrozenSpine, mut merge: Merge, packing: Packing) -> Result<Option<Arc<Run>>> {
        merge.rewind()?;
        if !merge.valid() {
            return Ok(None);
        }
        let output = match &mut self.output {
            Some(output) => output,
            none => none.insert(Output::create(&self.context, self.epoch, self.number)?),
        };
        let ident = output.handle.ident;
        let mut extent = Extent::new(&mut output.tape, ident, frozen.discipline(), frozen.format(), packing);
        while merge.valid() {
            extent.push(&mut output.tape, merge.key(), merge.value(), merge.weight())?;
            output.drain(false)?;
            merge.next()?;
        }
        self.runs += 1;
        let encoded = extent.finish(&mut output.tape, run_file_name(self.epoch, self.number))?;
        Ok(Some(Arc::new(Run::new(Arc::clone(&output.handle), encoded))))
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
    tape: Tape,
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
        let tape = Tape { pending: header.encode(), start: 0 };
        Ok(Self { handle, queue, tape, writes: VecDeque::new() })
    }

    /// Hands whole chunks to the queue; with `all`, what is left too (padded before).
    fn drain(&mut self, all: bool) -> Result<()> {
        while self.tape.pending.len() >= CHUNK || (all && !self.tape.pending.is_empty()) {
            let rest = self.tape.pending.split_off(self.tape.pending.len().min(CHUNK));
            let chunk = mem::replace(&mut self.tape.pending, rest);
            self.wait(WRITES - 1)?;
            let buf = AlignedBuf::from_slice(&chunk);
            let (offset, len) = (self.tape.start, buf.len());
            let file = Arc::clone(&self.handle.file);
            self.writes.push_back((offset, len));
            self.queue.submit(vec![(offset, Op::Write { file, offset, buf, durable: false })])?;
            self.tape.start += len as u64;
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
        self.tape.pad();
        self.drain(true)?;
        self.wait(0)?;
        self.handle.file.sync()?;
        context.disk().sync_dir(context.dir())?;
        context.put_queue(self.queue);
        Ok(self.tape.start)
    }
}
