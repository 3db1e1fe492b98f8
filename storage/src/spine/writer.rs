//! Writing run files.
//!
//! Invariants:
//! 1. A file is created exclusively, and written from front to back. Nothing is written twice.
//! 2. A run is read, merged or named by a manifest only after it, and its file's name, are durable (invariant 2 of the design).
//! 3. After an error the writer does nothing more: the file stays unnamed, and is garbage.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use super::context::{RunHandle, SpineContext};
use super::cursor::{Merge, Source};
use super::extent::{Extent, Packing, Tape, raw_bytes};
use super::format::header::FileHeader;
use super::run::{Keep, Run};
use super::version::{FlushGuard, Place, Shared};
use super::{Discipline, Snapshot, SpineMeta, run_file_name};
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

/// Writes what snapshots hold in memory into one file, with large direct writes and one sync. To be used on one thread.
///
/// The file is created when the first row is written: a checkpoint of nothing new makes no file.
///
/// ```
/// use backstay_storage::spine::{Discipline, RowBatch, RunFileWriter, Spine, SpineContext, SpineMeta, SpineOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let disk = std::sync::Arc::new(backstay_storage::disk::PosixDisk::new());
/// # let context = SpineContext::new(disk, dir.path(), 42, SpineOptions::default());
/// let mut spine = Spine::open(context.clone(), SpineMeta::empty("sums", Discipline::Latest, 1))?;
/// # let mut rows = RowBatch::new();
/// # rows.push(b"k", b"v", 1);
/// spine.insert_batch(&rows)?;
/// let snapshot = spine.snapshot(); // on the owner's thread
///
/// let mut writer = RunFileWriter::new(&context); // on the checkpointer's
/// let mut flushed = writer.flush(&snapshot)?;
/// let file = writer.finish()?;
/// assert_eq!((file.runs, flushed.meta().runs.len()), (1, 1));
/// flushed.install();
/// assert_eq!(spine.get(b"k")?.as_deref(), Some(&b"v"[..]));
/// # Ok::<(), backstay_storage::Error>(())
/// ```
#[derive(Debug)]
pub struct RunFileWriter {
    file: NewFile,
    runs: usize,
    failed: bool,
}

impl RunFileWriter {
    /// A writer of a file of `context`.
    ///
    /// ```
    /// # use backstay_storage::spine::{RunFileWriter, SpineContext, SpineOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let disk = std::sync::Arc::new(backstay_storage::disk::PosixDisk::new());
    /// # let context = SpineContext::new(disk, dir.path(), 42, SpineOptions::default());
    /// assert_eq!(RunFileWriter::new(&context).finish()?.name, None);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn new(context: &Arc<SpineContext>) -> Self {
        Self { file: NewFile::new(context), runs: 0, failed: false }
    }

    /// Writes what is not on disk yet of a snapshot as one run, along with the newest small runs if the merge policy says so. Nothing is durable
    /// before [`RunFileWriter::finish`]. Waits for a write of the same spine's rows that is under way elsewhere.
    ///
    /// # Errors
    /// [`Error::Invalid`] if an earlier flush of the same spine is neither installed nor dropped, if rows of the snapshot
    /// were written together with later ones, or if the spine is ephemeral or another store's; those of reading runs and of writing. After
    /// one of the latter the writer is of no more use.
    ///
    /// The example is at [`RunFileWriter`].
    pub fn flush(&mut self, snapshot: &Snapshot) -> Result<Flushed> {
        self.check()?;
        let context = Arc::clone(&self.file.context);
        snapshot.check(&context)?;
        let shared = &snapshot.shared;
        let mut guard = None;
        context.merger().until(&context, || {
            guard = guard.take().or_else(|| shared.begin_flush());
            guard.is_some()
        })?;
        let mut guard = guard.ok_or_else(|| {
            let name = snapshot.name();
            Error::Invalid(format!("spine {name:?} is being flushed already: install or drop that flush first"))
        })?;
        // Behind the guard: nobody else writes tables from here on.
        let tables = match shared.find(&snapshot.pin) {
            Place::Tables(tables) => tables,
            Place::Runs(runs) => return Ok(Flushed { meta: shared.meta(&runs), _runs: runs, install: None }),
            Place::Passed => return Err(snapshot.passed()),
        };
        let up_to = tables.first().map_or(0, |newest| newest.number);
        self.failed = true;
        let sorted: Vec<_> = tables.iter().flat_map(|frozen| frozen.table.sorted()).collect();
        let fresh = sorted.iter().map(|rows| rows.raw_bytes()).sum();
        let (absorbed, oldest) = guard.absorb(fresh, context.small());
        let memory = sorted.into_iter().map(Source::memory);
        let taken = absorbed.iter().map(|run| Source::run(Arc::clone(&context), Arc::clone(run), Keep::Once));
        let merge = Merge::new(shared.discipline, !oldest, shared.merge_floor(), memory.chain(taken).collect());
        let mut encoding = Encoding::new(shared, merge, Packing::Fast, &shared.version().runs);
        while !encoding.step(&mut self.file, u64::MAX)? {}
        let run = encoding.finish(&mut self.file)?;
        self.runs += usize::from(run.is_some());
        self.failed = false;
        let kept = shared.version().runs.clone();
        let runs: Vec<_> = run.iter().cloned().chain(kept.into_iter().skip(absorbed.len())).collect();
        Ok(Flushed { meta: shared.meta(&runs), _runs: runs, install: Some(Install { guard, up_to, run }) })
    }

    fn check(&self) -> Result<()> {
        match self.failed {
            true => Err(Error::Invalid("a run file's writer was used after an error: make a new one".into())),
            false => Ok(()),
        }
    }

    /// Writes the rest, syncs the file once, and its directory: all runs are durable when it returns.
    ///
    /// # Errors
    /// Those of writing; nothing of the file may be used then.
    ///
    /// The example is at [`RunFileWriter`].
    pub fn finish(self) -> Result<RunFile> {
        self.check()?;
        let (name, bytes) = self.file.finish()?;
        Ok(RunFile { name, bytes, runs: self.runs })
    }
}

/// A spine whose snapshot was written: what the manifest is to say of it, and what is to be installed once the file is durable. Dropped
/// without that, everything stays as it was: the frozen rows go into the next flush.
///
/// The example is at [`RunFileWriter`].
#[derive(Debug)]
pub struct Flushed {
    meta: SpineMeta,
    /// What the manifest will name: such files are not removed while this lives.
    _runs: Vec<Arc<Run>>,
    install: Option<Install>,
}

#[derive(Debug)]
struct Install {
    guard: FlushGuard,
    up_to: u64,
    run: Option<Arc<Run>>,
}

impl Flushed {
    /// What a manifest stores of the spine.
    ///
    /// The example is at [`RunFileWriter`].
    pub fn meta(&self) -> &SpineMeta {
        &self.meta
    }

    /// Lets the spine read the new run in place of the rows and runs that are in it. To be called after [`RunFileWriter::finish`], from any
    /// thread. As long as this value lives after that, the run files stay, whether or not a manifest names them.
    ///
    /// The example is at [`RunFileWriter`].
    pub fn install(&mut self) {
        if let Some(Install { guard, up_to, run }) = self.install.take() {
            let shared = Arc::clone(guard.shared());
            guard.install(up_to, run);
            shared.plan();
        }
    }
}

/// The rows of a merge on their way into a run, in steps.
#[derive(Debug)]
pub(super) struct Encoding {
    discipline: Discipline,
    format: u32,
    packing: Packing,
    merge: Merge,
    /// Whether the run's blocks and filter pages are put into the cache.
    warm: bool,
    begun: bool,
    extent: Option<Extent>,
}

impl Encoding {
    /// What readers have of `runs` in the cache says whether the new run belongs there.
    pub(super) fn new(shared: &Shared, merge: Merge, packing: Packing, runs: &[Arc<Run>]) -> Self {
        let Shared { discipline, format, .. } = *shared;
        Self { discipline, format, packing, merge, warm: shared.is_warm(runs), begun: false, extent: None }
    }

    /// Writes rows of about `fuel` bytes; true if that were the last.
    pub(super) fn step(&mut self, file: &mut NewFile, fuel: u64) -> Result<bool> {
        if !mem::replace(&mut self.begun, true) {
            self.merge.rewind()?;
        }
        let Self { discipline, format, packing, merge, warm, extent, .. } = self;
        let context = Arc::clone(&file.context);
        let mut used = 0;
        while merge.valid() && used < fuel {
            let output = file.output()?;
            let extent = extent.get_or_insert_with(|| {
                let handle = &output.handle;
                let mut extent = Extent::new(&mut output.tape, handle.ident, *discipline, *format, *packing);
                if *warm {
                    extent.keep_warm(&context, handle);
                }
                extent
            });
            // Rows until a write is due.
            while merge.valid() && used < fuel && output.tape.pending.len() < CHUNK {
                extent.push(&mut output.tape, merge.key(), merge.value(), merge.weight())?;
                used += raw_bytes(merge.key(), merge.value());
                merge.next()?;
            }
            output.drain(false)?;
        }
        Ok(!merge.valid())
    }

    /// Writes what ends the run; `None` if it has no row.
    pub(super) fn finish(self, file: &mut NewFile) -> Result<Option<Arc<Run>>> {
        let Some(extent) = self.extent else { return Ok(None) };
        let output = file.output()?;
        let name = run_file_name(output.handle.header.epoch, output.handle.header.number);
        let encoded = extent.finish(&mut output.tape, name)?;
        output.drain(false)?;
        Ok(Some(Arc::new(Run::new(Arc::clone(&output.handle), encoded))))
    }
}

/// A file that is created when the first byte is written.
#[derive(Debug)]
pub(super) struct NewFile {
    context: Arc<SpineContext>,
    output: Option<Output>,
}

impl NewFile {
    pub(super) fn new(context: &Arc<SpineContext>) -> Self {
        Self { context: Arc::clone(context), output: None }
    }

    fn output(&mut self) -> Result<&mut Output> {
        Ok(match &mut self.output {
            Some(output) => output,
            none => none.insert(Output::create(&self.context)?),
        })
    }

    /// Makes all of it durable; gives its name and length, if there is one.
    pub(super) fn finish(self) -> Result<(Option<String>, u64)> {
        let Some(output) = self.output else { return Ok((None, 0)) };
        let FileHeader { epoch, number, .. } = output.handle.header;
        Ok((Some(run_file_name(epoch, number)), output.finish(&self.context)?))
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
    fn create(context: &SpineContext) -> Result<Self> {
        let handle = context.create_file(OpenOptions::CREATE_DIRECT)?;
        let queue = context.take_queue()?;
        let tape = Tape { pending: handle.header.encode(), start: 0 };
        Ok(Self { handle, queue, tape, writes: VecDeque::new() })
    }

    /// Hands whole chunks to the queue; with `all`, what is left too (padded before).
    fn drain(&mut self, all: bool) -> Result<()> {
        while self.tape.pending.len() >= CHUNK || (all && !self.tape.pending.is_empty()) {
            self.wait(WRITES - 1)?;
            let chunk = self.tape.pending.len().min(CHUNK);
            let buf = AlignedBuf::from_slice(self.tape.pending.get(..chunk).unwrap_or(&[]));
            // Little is left: a chunk is due as soon as it is full.
            self.tape.pending.drain(..chunk);
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
