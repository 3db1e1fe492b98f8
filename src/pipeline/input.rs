//! An input connector at work: a task reads, parses and hashes ahead of the steps, into a bounded lock-free queue.
//!
//! Bounds: a queue of `QUEUE_CHUNKS` chunks, and a buffer on the controller's side that takes no more once a full step's rows are
//! in it. A connector's chunks are about a MiB, so an input holds some tens of MiB.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstay_storage::queue;
use crossbeam::sync::Unparker;

use crate::connector::{Chunk, ConnectorError, IDLE_POLL, Input, InputReader, Next};
use crate::pipeline::batch::{Batch, Buffer, HashedChunk, replayed};
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::hash::RowHasher;
use crate::pipeline::push::Pushes;
use crate::pipeline::record::InputBatch;
use crate::pipeline::schedule::{Running, Scheduler, Task, Turn};
use crate::pipeline::state::InputState;
use crate::pipeline::status::InputFigures;

/// Chunks that are read ahead, besides those in the controller's buffer.
const QUEUE_CHUNKS: usize = 16;

/// How long a reader waits after an error that may pass.
const RETRY: Duration = Duration::from_secs(1);

/// One input connector of a pipeline.
#[derive(Debug)]
pub struct InputEndpoint {
    /// `<table>.<connector>`.
    pub name: String,
    /// The name again, for those who are told figures.
    label: Arc<str>,
    /// The table, by its place in the program.
    pub table: usize,
    /// How far it has been taken.
    pub state: InputState,
    source: Source,
    hasher: RowHasher,
    max_batch: Option<u64>,
    buffer: Buffer,
    reader: Option<Reader>,
    ended: bool,
}

/// Where rows come from.
#[derive(Debug)]
enum Source {
    Connector(Arc<dyn Input>),
    /// Clients push them. Nobody waits for such rows: with none there, the input counts as ended.
    Pushed(Arc<Pushes>),
}

/// The reading task, seen from the controller.
#[derive(Debug)]
struct Reader {
    /// Before the task: one that waits for room in the queue ends when this is gone.
    chunks: queue::Receiver<HashedChunk>,
    shared: Arc<Shared>,
    _task: Running,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    failed: Mutex<Option<ConnectorError>>,
    trouble: Mutex<Option<String>>,
}

impl InputEndpoint {
    /// An endpoint that has not started to read.
    pub fn new(
        name: String,
        table: usize,
        input: Arc<dyn Input>,
        hasher: RowHasher,
        max_batch: Option<u64>,
        state: InputState,
    ) -> Self {
        let label = name.as_str().into();
        let (source, buffer, reader) = (Source::Connector(input), Buffer::default(), None);
        Self { name, label, table, state, source, hasher, max_batch, buffer, reader, ended: false }
    }

    /// The endpoint of what is pushed to a table.
    pub fn pushed(name: String, table: usize, pushes: Arc<Pushes>, hasher: RowHasher, state: InputState) -> Self {
        let label = name.as_str().into();
        let (source, buffer, reader) = (Source::Pushed(pushes), Buffer::default(), None);
        Self { name, label, table, state, source, hasher, max_batch: None, buffer, reader, ended: true }
    }

    /// Reads what a step record names again, and verifies it (invariant 3).
    pub fn replay(&mut self, step: u64, record: &InputBatch) -> Result<Batch> {
        let of_step =
            |e: ConnectorError| ConnectorError { message: format!("replay of step {step}: {}", e.message), ..e };
        let batch = match &self.source {
            Source::Connector(input) => {
                let chunks = input.replay(&record.descriptor).map_err(of_step)?;
                let chunks = chunks.into_iter().map(|chunk| hashed(chunk, &self.hasher)).collect::<Result<_, _>>()?;
                replayed(chunks)
            }
            Source::Pushed(pushes) => {
                // The log's records before the step's have brought the rows.
                let end = record.descriptor.ranges.last().map_or(0, |range| range.end);
                pushes.fill_to(self.table, &mut self.buffer, end);
                self.buffer.cut_to(end)
            }
        };
        if (batch.rows, batch.hash) != (record.rows, record.hash) {
            return Err(PipelineError::Replay {
                step,
                relation: format!("input connector {}", self.name),
                expected: format!("{} rows with hash {:016x}", record.rows, record.hash),
                got: format!("{} rows with hash {:016x}", batch.rows, batch.hash),
                hint: "the source's content, or the format's configuration, is not what it was when the step was made: put it back",
            });
        }
        self.advance(&record.descriptor, batch.rows, batch.errors.len() as u64, step);
        Ok(batch)
    }

    /// Starts the reading task where the state says.
    pub fn start(&mut self, scheduler: &dyn Scheduler, wake: Unparker) -> Result<()> {
        let Source::Connector(input) = &self.source else { return Ok(()) };
        let reader = input.open(&self.state.position)?;
        let (sender, chunks) = queue::channel(QUEUE_CHUNKS);
        let shared = Arc::new(Shared::default());
        let hasher = self.hasher.clone();
        let work = Work { reader, sender, waiting: None, shared: Arc::clone(&shared), hasher, wake };
        let task = scheduler
            .start(&format!("in {}", self.name), Box::new(work))
            .map_err(|e| PipelineError::State(format!("cannot start a thread for input {}: {e}", self.name)))?;
        self.reader = Some(Reader { chunks, shared, _task: task });
        Ok(())
    }

    /// Takes over what was read, up to about `rows` rows.
    pub fn fill(&mut self, rows: u64) -> Result<()> {
        if let Source::Pushed(pushes) = &self.source {
            pushes.fill(self.table, &mut self.buffer, rows);
            return Ok(());
        }
        let Some(reader) = &mut self.reader else { return Ok(()) };
        // Read before the queue: what was pushed before the end is then in the queue below.
        let ended = reader.shared.ended.load(Ordering::Acquire);
        while self.buffer.rows() < rows {
            match reader.chunks.try_recv() {
                Some(chunk) => self.buffer.push(chunk),
                None => {
                    if let Some(error) = lock(&reader.shared.failed).take() {
                        return Err(error.into());
                    }
                    self.ended = ended;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Rows that can be cut now.
    pub fn ready_rows(&self) -> u64 {
        self.buffer.rows()
    }

    /// Whether there is nothing left to cut and nothing will come.
    pub fn is_done(&self) -> bool {
        let waits = matches!(&self.source, Source::Pushed(pushes) if pushes.is_waiting(self.table));
        self.ended && self.buffer.is_empty() && !waits
    }

    /// Whether there is something to cut, if only a bad row.
    pub fn has_input(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The connector; none, if clients push its rows.
    pub fn connector(&self) -> Option<&dyn Input> {
        match &self.source {
            Source::Connector(input) => Some(&**input),
            Source::Pushed(_) => None,
        }
    }

    /// Whether there is anything to tell of it: of a connector always, of pushed rows once there were some.
    pub fn is_used(&self) -> bool {
        self.connector().is_some() || !self.state.position.partitions.is_empty()
    }

    /// Whether the source ends by itself.
    pub fn is_finite(&self) -> bool {
        self.connector().is_some_and(|input| input.is_finite())
    }

    /// Whether nothing more will come behind what is in the buffer.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The most rows that a step takes from here.
    pub fn limit(&self, rows: u64) -> u64 {
        self.max_batch.map_or(rows, |own| own.min(rows))
    }

    /// Cuts the batch of a step.
    pub fn cut(&mut self, max_rows: u64, step: u64) -> Batch {
        let known = &self.state.position.partitions;
        let mut new: Vec<String> = Vec::new();
        let mut order = |partition: &str| -> usize {
            if let Some(place) = known.iter().position(|p| p.partition == partition) {
                return place;
            }
            let place = new.iter().position(|p| p == partition).unwrap_or_else(|| {
                new.push(partition.to_string());
                new.len() - 1
            });
            known.len() + place
        };
        let batch = self.buffer.cut(max_rows, &mut order);
        self.advance(&batch.descriptor, batch.rows, batch.errors.len() as u64, step);
        batch
    }

    /// What hinders the reader now.
    pub fn trouble(&self) -> Option<String> {
        self.reader.as_ref().and_then(|r| lock(&r.shared.trouble).clone())
    }

    /// Its figures of now.
    pub fn figures(&self) -> InputFigures {
        InputFigures {
            name: Arc::clone(&self.label),
            rows: self.state.rows,
            errors: self.state.errors,
            buffered_rows: self.ready_rows(),
            ended: self.is_done(),
            trouble: self.trouble(),
        }
    }

    fn advance(&mut self, descriptor: &crate::connector::Descriptor, rows: u64, errors: u64, step: u64) {
        if let (Source::Pushed(pushes), Some(range)) = (&self.source, descriptor.ranges.last()) {
            pushes.took(self.table, range.end, step);
        }
        self.state.position.apply(descriptor);
        self.state.rows += rows;
        self.state.errors += errors;
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
    wake: Unparker,
}

impl Task for Work {
    fn turn(&mut self, patience: Duration) -> Turn {
        if let Some(chunk) = self.waiting.take() {
            return self.send(chunk, patience);
        }
        let next = self.reader.next();
        if next.is_ok() {
            *lock(&self.shared.trouble) = None;
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
                self.waiting = Some(chunk);
                Turn::Again
            }
            Err(error) if error.retry => {
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
fn hashed(chunk: Chunk, hasher: &RowHasher) -> Result<HashedChunk, ConnectorError> {
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
    Ok(HashedChunk { chunk, hashes })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
