//! The reading task: reads, parses and hashes ahead of the steps, into a bounded lock-free queue.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstay_storage::queue;
use crossbeam::sync::Unparker;

use crate::connector::{Chunk, ConnectorError, IDLE_POLL, InputReader, Next};
use crate::pipeline::batch::HashedChunk;
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::hash::RowHasher;
use crate::pipeline::schedule::{Running, Scheduler, Task, Turn};

/// Chunks that are read ahead, besides those in the controller's buffer.
const QUEUE_CHUNKS: usize = 16;

/// How long a reader waits after an error that may pass.
const RETRY: Duration = Duration::from_secs(1);

/// How long a reader waits that may not have more rows waiting.
const HELD: Duration = Duration::from_millis(1);

/// What a connector's configuration bounds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    /// Rows of a step.
    pub(super) batch: Option<u64>,
    /// Rows that wait.
    pub(super) rows: Option<u64>,
    /// Bytes that wait.
    pub(super) bytes: Option<u64>,
}

/// The reading task, seen from the controller.
#[derive(Debug)]
pub(super) struct Reader {
    /// Before the task: one that waits for room in the queue ends when this is gone.
    chunks: queue::Receiver<HashedChunk>,
    shared: Arc<Shared>,
    bounds: Bounds,
    _task: Running,
}

/// What has been read, in figures.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReaderFigures {
    /// Rows that wait for steps, and what they take in memory.
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// What all rows took in memory.
    pub(super) all_bytes: u64,
    /// Errors that passed, or may pass.
    pub(super) errors: u64,
}

impl Reader {
    /// Starts to read.
    pub(super) fn start(
        name: &str,
        reader: Box<dyn InputReader>,
        (hasher, bounds): (RowHasher, Bounds),
        scheduler: &dyn Scheduler,
        wake: Unparker,
    ) -> Result<Self> {
        let (sender, chunks) = queue::channel(QUEUE_CHUNKS);
        let shared = Arc::new(Shared::default());
        let work = Work { reader, sender, waiting: None, shared: Arc::clone(&shared), hasher, bounds, wake };
        let task = scheduler
            .start(&format!("in {name}"), Box::new(work))
            .map_err(|e| PipelineError::State(format!("cannot start a thread for input {name}: {e}")))?;
        Ok(Self { chunks, shared, bounds, _task: task })
    }

    /// Whether it has been read to its end: what was read before that can be received.
    pub(super) fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// What was read next, if anything was.
    pub(super) fn receive(&mut self) -> Result<Option<HashedChunk>> {
        if let Some(chunk) = self.chunks.try_recv() {
            return Ok(Some(chunk));
        }
        lock(&self.shared.failed).take().map_or(Ok(None), |error| Err(error.into()))
    }

    /// Steps have taken so many rows, and let go of so many bytes.
    pub(super) fn took(&self, rows: u64, bytes: u64) {
        self.shared.rows.fetch_sub(rows, Ordering::AcqRel);
        self.shared.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Whether so much waits that a step must take some before more is read.
    pub(super) fn is_full(&self) -> bool {
        self.shared.is_full(self.bounds)
    }

    /// What hinders it now.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).clone()
    }

    pub(super) fn figures(&self) -> ReaderFigures {
        let of = |figure: &AtomicU64| figure.load(Ordering::Acquire);
        let Shared { rows, bytes, all_bytes, retries, .. } = &*self.shared;
        ReaderFigures { rows: of(rows), bytes: of(bytes), all_bytes: of(all_bytes), errors: of(retries) }
    }
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    failed: Mutex<Option<ConnectorError>>,
    trouble: Mutex<Option<String>>,
    /// What was read and not yet cut.
    rows: AtomicU64,
    bytes: AtomicU64,
    /// What was read.
    all_bytes: AtomicU64,
    retries: AtomicU64,
}

impl Shared {
    /// Whether so much waits that no more may be read.
    fn is_full(&self, bounds: Bounds) -> bool {
        let over = |bound: Option<u64>, now: &AtomicU64| bound.is_some_and(|most| now.load(Ordering::Acquire) >= most);
        over(bounds.rows, &self.rows) || over(bounds.bytes, &self.bytes)
    }
}

/// The reading task.
struct Work {
    reader: Box<dyn InputReader>,
    sender: queue::Sender<HashedChunk>,
    /// Read, and waits for room in the queue.
    waiting: Option<HashedChunk>,
    shared: Arc<Shared>,
    hasher: RowHasher,
    bounds: Bounds,
    wake: Unparker,
}

impl Task for Work {
    fn turn(&mut self, patience: Duration) -> Turn {
        if let Some(chunk) = self.waiting.take() {
            return self.send(chunk, patience);
        }
        if self.shared.is_full(self.bounds) {
            return Turn::Pause(HELD);
        }
        let next = self.reader.next();
        if next.is_ok() {
            *lock(&self.shared.trouble) = self.reader.warning().map(|warning| warning.to_string());
        }
        let next = match next {
            Ok(Next::Chunk(chunk)) => hashed(chunk, &self.hasher),
            Ok(Next::Idle) => return Turn::Pause(IDLE_POLL),
            Ok(Next::End) => {
                self.shared.ended.store(true, Ordering::Release);
                self.wake.unpark();
                return Turn::End;
            }
            Err(error) => Err(error),
        };
        match next {
            Ok(chunk) => {
                self.shared.rows.fetch_add(chunk.chunk.rows.num_rows() as u64, Ordering::AcqRel);
                self.shared.bytes.fetch_add(chunk.bytes, Ordering::AcqRel);
                self.shared.all_bytes.fetch_add(chunk.bytes, Ordering::AcqRel);
                self.waiting = Some(chunk);
                Turn::Again
            }
            Err(error) if error.retry => {
                self.shared.retries.fetch_add(1, Ordering::AcqRel);
                *lock(&self.shared.trouble) = Some(error.to_string());
                Turn::Pause(RETRY)
            }
            Err(error) => {
                *lock(&self.shared.failed) = Some(error);
                self.wake.unpark();
                Turn::End
            }
        }
    }
}

impl Work {
    /// Waits for room; ends if the pipeline has gone.
    fn send(&mut self, chunk: HashedChunk, patience: Duration) -> Turn {
        match self.sender.send_timeout(chunk, patience) {
            Ok(()) => {
                self.wake.unpark();
                Turn::Again
            }
            Err(back) if back.is_disconnected() => Turn::End,
            Err(back) => {
                self.waiting = Some(back.into_inner());
                Turn::Again
            }
        }
    }
}

/// A chunk with its hashes. An append-only table's connectors have been told so: one that brings a delete nevertheless is at fault.
pub(super) fn hashed(chunk: Chunk, hasher: &RowHasher) -> Result<HashedChunk, ConnectorError> {
    if hasher.append_only && chunk.weights.as_ref().is_some_and(|weights| weights.iter().any(|&w| w < 0)) {
        return Err(ConnectorError {
            connector: chunk.partition.to_string(),
            message: format!(
                "offsets {} to {} hold a delete, but the table is append-only: leave that option out, which begins a new pipeline",
                chunk.start, chunk.end
            ),
            retry: false,
        });
    }
    let hashes = hasher.hash(&chunk.rows, chunk.weights.as_deref()).map_err(|e| ConnectorError {
        connector: chunk.partition.to_string(),
        message: format!("rows cannot be encoded: {e}"),
        retry: false,
    })?;
    Ok(HashedChunk::new(chunk, hashes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
