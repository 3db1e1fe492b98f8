//! An input connector at work: a task reads, parses and hashes ahead of the steps, into a bounded lock-free queue.
//!
//! Bounds: a queue of `QUEUE_CHUNKS` chunks, and a buffer on the controller's side that takes no more once a full step's rows are
//! in it. A connector's chunks are about a MiB, so an input holds some tens of MiB. `max_queued_records` and `max_queued_bytes` bound
//! both together: nothing more is read once so much waits, so that they are exceeded by a chunk at most.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstay_storage::queue;
use crossbeam::sync::Unparker;

use crate::connector::config::ConnectorConfig;
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

/// How long a reader waits that may not have more rows waiting.
const HELD: Duration = Duration::from_millis(1);

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
    /// Whether it is paused, by the configuration or the API.
    pub is_paused: bool,
    /// Whether it waits for the end of others.
    pub is_waiting: bool,
    /// The inputs that it waits for, by their places.
    pub after: Vec<usize>,
    source: Source,
    hasher: RowHasher,
    bounds: Bounds,
    buffer: Buffer,
    reader: Option<Reader>,
    ended: bool,
}

/// What a connector's configuration bounds.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    /// Rows of a step.
    batch: Option<u64>,
    /// Rows that wait.
    rows: Option<u64>,
    /// Bytes that wait.
    bytes: Option<u64>,
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

impl InputEndpoint {
    /// An endpoint that has not started to read.
    pub fn new(
        name: String,
        table: usize,
        input: Arc<dyn Input>,
        hasher: RowHasher,
        (config, after): (&ConnectorConfig, Vec<usize>),
        state: InputState,
    ) -> Self {
        let bounds =
            Bounds { batch: config.max_batch_size, rows: config.max_queued_records, bytes: config.max_queued_bytes };
        Self {
            is_paused: config.paused,
            is_waiting: !after.is_empty(),
            after,
            bounds,
            ended: false,
            ..Self::of(name, table, Source::Connector(input), hasher, state)
        }
    }

    /// The endpoint of what is pushed to a table.
    pub fn pushed(name: String, table: usize, pushes: Arc<Pushes>, hasher: RowHasher, state: InputState) -> Self {
        Self::of(name, table, Source::Pushed(pushes), hasher, state)
    }

    fn of(name: String, table: usize, source: Source, hasher: RowHasher, state: InputState) -> Self {
        Self {
            label: name.as_str().into(),
            name,
            table,
            state,
            is_paused: false,
            is_waiting: false,
            after: Vec::new(),
            source,
            hasher,
            bounds: Bounds::default(),
            buffer: Buffer::default(),
            reader: None,
            ended: true,
        }
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

    /// Starts the reading task where the state says, if it has not been started and nothing holds it back.
    pub fn start(&mut self, scheduler: &dyn Scheduler, wake: Unparker) -> Result<()> {
        let Source::Connector(input) = &self.source else { return Ok(()) };
        if self.reader.is_some() || !self.is_active() {
            return Ok(());
        }
        let reader = input.open(&self.state.position)?;
        let (sender, chunks) = queue::channel(QUEUE_CHUNKS);
        let shared = Arc::new(Shared::default());
        let hasher = self.hasher.clone();
        let bounds = self.bounds;
        let work = Work { reader, sender, waiting: None, shared: Arc::clone(&shared), hasher, bounds, wake };
        let task = scheduler
            .start(&format!("in {}", self.name), Box::new(work))
            .map_err(|e| PipelineError::State(format!("cannot start a thread for input {}: {e}", self.name)))?;
        self.reader = Some(Reader { chunks, shared, _task: task });
        Ok(())
    }

    /// Whether rows are taken of it.
    pub fn is_active(&self) -> bool {
        !self.is_paused && !self.is_waiting
    }

    /// Whether anything was ever taken of it.
    pub fn has_begun(&self) -> bool {
        !self.state.position.partitions.is_empty()
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
        if self.is_active() { self.buffer.rows() } else { 0 }
    }

    /// Whether so much waits that a step must take some before more is read.
    pub fn is_full(&self) -> bool {
        self.is_active() && self.reader.as_ref().is_some_and(|reader| reader.shared.is_full(self.bounds))
    }

    /// Whether there is nothing left to cut and nothing will come.
    pub fn is_done(&self) -> bool {
        let waits = matches!(&self.source, Source::Pushed(pushes) if pushes.is_waiting(self.table));
        self.ended && self.buffer.is_empty() && !waits
    }

    /// Whether there is something to cut, if only a bad row.
    pub fn has_input(&self) -> bool {
        self.is_active() && !self.buffer.is_empty()
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
        self.connector().is_some() || self.has_begun()
    }

    /// Whether the source ends by itself.
    pub fn is_finite(&self) -> bool {
        self.connector().is_some_and(|input| input.is_finite())
    }

    /// Whether a step need not wait for more than is in the buffer.
    pub fn has_ended(&self) -> bool {
        self.ended || !self.is_active()
    }

    /// The most rows that a step takes from here: no more than may wait for it.
    pub fn limit(&self, rows: u64) -> u64 {
        [self.bounds.batch, self.bounds.rows].into_iter().flatten().fold(rows, u64::min)
    }

    /// Whether bytes bound how much waits.
    pub fn is_bounded_by_bytes(&self) -> bool {
        self.bounds.bytes.is_some()
    }

    /// Cuts the batch of a step; of one that is held back, none.
    pub fn cut(&mut self, max_rows: u64, step: u64) -> Batch {
        if !self.is_active() {
            return Batch::default();
        }
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
        let (rows, bytes) = (self.buffer.rows(), self.buffer.bytes());
        let batch = self.buffer.cut(max_rows, &mut order);
        if let Some(Reader { shared, .. }) = &self.reader {
            shared.rows.fetch_sub(rows - self.buffer.rows(), Ordering::AcqRel);
            shared.bytes.fetch_sub(bytes - self.buffer.bytes(), Ordering::AcqRel);
        }
        self.advance(&batch.descriptor, batch.rows, batch.errors.len() as u64, step);
        batch
    }

    /// What hinders the reader now.
    pub fn trouble(&self) -> Option<String> {
        self.reader.as_ref().and_then(|r| lock(&r.shared.trouble).clone())
    }

    /// Its figures of now.
    pub fn figures(&self) -> InputFigures {
        let read = |of: fn(&Shared) -> &AtomicU64| {
            self.reader.as_ref().map(|reader| of(&reader.shared).load(Ordering::Acquire))
        };
        InputFigures {
            name: Arc::clone(&self.label),
            rows: self.state.rows,
            errors: self.state.errors,
            buffered_rows: read(|s| &s.rows).unwrap_or_else(|| self.buffer.rows()),
            buffered_bytes: read(|s| &s.bytes).unwrap_or_else(|| self.buffer.bytes()),
            bytes: read(|s| &s.all_bytes).unwrap_or_default(),
            ended: self.is_done(),
            paused: !self.is_active(),
            transport_errors: read(|s| &s.retries).unwrap_or_default(),
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
    Ok(HashedChunk::new(chunk, hashes))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
