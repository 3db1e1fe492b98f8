//! An input connector at work: what its reading task (`reader`) has read becomes the batches of steps.
//!
//! Bounds: a queue of 16 chunks, and a buffer on the controller's side that takes no more once a full step's rows are
//! in it. A connector's chunks are about a MiB, so an input holds some tens of MiB. `max_queued_records` and `max_queued_bytes` bound
//! both together: nothing more is read once so much waits, so that they are exceeded by a chunk at most.

mod reader;

use std::sync::Arc;

use crossbeam::sync::Unparker;

use crate::circuit::Delta;
use crate::connector::config::{ConnectorConfig, Replay};
use crate::connector::{ConnectorError, Input, Position};
use crate::pipeline::batch::{self, Batch, Buffer, replayed};
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::hash::RowHasher;
use crate::pipeline::measure::InputPlace;
use crate::pipeline::push::Pushes;
use crate::pipeline::record::InputBatch;
use crate::pipeline::schedule::Scheduler;
use crate::pipeline::state::InputState;
use crate::pipeline::status::InputFigures;
use reader::{Bounds, Reader, hashed};

/// What to do where nothing can be mended.
const WAYS_ON: &str = "`backstay recover DATA_DIR` shows ways on";

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
    /// Whether it may go on with what its source still has, if that has lost or changed what was to be read next.
    pub is_lossy: bool,
    source: Source,
    hasher: RowHasher,
    bounds: Bounds,
    logs_rows: bool,
    buffer: Buffer,
    reader: Option<Reader>,
    ended: bool,
    /// The position in the last checkpoint of this process, and in the one under way.
    committed: Option<Position>,
    begun: Option<Position>,
}

/// Where rows come from.
#[derive(Debug)]
enum Source {
    Connector(Arc<dyn Input>),
    /// Clients push them. Nobody waits for such rows: with none there, the input counts as ended.
    Pushed(Arc<Pushes>),
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
            logs_rows: config.replay == Replay::Bytes,
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
            is_lossy: false,
            source,
            hasher,
            bounds: Bounds::default(),
            logs_rows: false,
            buffer: Buffer::default(),
            reader: None,
            ended: true,
            committed: None,
            begun: None,
        }
    }

    /// Has what a step record names again, and verifies it (invariant 3): from the log, if that has the rows (`logged`), or by reading it.
    pub fn replay(&mut self, step: u64, record: &InputBatch, logged: Option<Vec<Delta>>) -> Result<Batch> {
        let of_step = |e: ConnectorError| ConnectorError {
            message: format!("replay of step {step}: {}; if it cannot be mended, {WAYS_ON}", e.message),
            ..e
        };
        let batch = match (&self.source, logged) {
            (_, Some(deltas)) => batch::logged(deltas, &self.hasher)?,
            (Source::Connector(input), None) => {
                let chunks = input.replay(&record.descriptor).map_err(of_step)?;
                let chunks = chunks.into_iter().map(|chunk| hashed(chunk, &self.hasher)).collect::<Result<_, _>>()?;
                replayed(chunks)
            }
            (Source::Pushed(pushes), None) => {
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
                hint: "the source's content, or the format's configuration, is not what it was when the step was made: put it back; if that cannot be, \
                       `backstay recover DATA_DIR` shows ways on",
            });
        }
        self.advance(&record.descriptor, batch.rows, record.errors, step);
        Ok(batch)
    }

    /// Takes what a step record names for read, without its rows: they were given up.
    pub fn pass_over(&mut self, step: u64, record: &InputBatch) {
        self.advance(&record.descriptor, 0, 0, step);
    }

    /// Whether its rows are to be logged.
    pub fn logs_rows(&self) -> bool {
        self.logs_rows
    }

    /// Starts the reading task where the state says, if it has not been started and nothing holds it back. Gives what is lost between there
    /// and where the source can be read from, if that may be.
    pub fn start(&mut self, scheduler: &dyn Scheduler, wake: &Unparker) -> Result<Vec<String>> {
        let Source::Connector(input) = &self.source else { return Ok(Vec::new()) };
        if self.reader.is_some() || !self.is_active() {
            return Ok(Vec::new());
        }
        let mut lost = Vec::new();
        if self.is_lossy {
            (self.state.position, lost) = input.after_loss(&self.state.position)?;
        }
        let has_begun = self.has_begun();
        let reader = input.open(&self.state.position).map_err(|e| {
            let ways = if has_begun { format!("; if it cannot be mended, {WAYS_ON}") } else { String::new() };
            ConnectorError { message: format!("{}{ways}", e.message), ..e }
        })?;
        let with = (self.hasher.clone(), self.bounds);
        self.reader = Some(Reader::start(&self.name, reader, with, scheduler, wake.clone())?);
        Ok(lost)
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
        // Asked before the queue: what was read before the end is then in the queue below.
        let ended = reader.has_ended();
        while self.buffer.rows() < rows {
            match reader.receive()? {
                Some(chunk) => self.buffer.push(chunk),
                None => {
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
        self.is_active() && self.reader.as_ref().is_some_and(Reader::is_full)
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
        if let Some(reader) = &self.reader {
            reader.took(rows - self.buffer.rows(), bytes - self.buffer.bytes());
        }
        self.advance(&batch.descriptor, batch.rows, batch.errors.len() as u64, step);
        batch
    }

    /// A checkpoint is begun that has the present position.
    pub fn checkpoint_begun(&mut self) {
        self.begun = Some(self.state.position.clone());
    }

    /// It was committed. The store keeps two, so that the one before it is the oldest now.
    pub fn checkpoint_committed(&mut self) {
        let oldest = std::mem::replace(&mut self.committed, self.begun.take());
        if let (Some(oldest), Some(input)) = (oldest, self.connector()) {
            input.kept(&oldest);
        }
    }

    /// What hinders the reader now.
    pub fn trouble(&self) -> Option<String> {
        self.reader.as_ref().and_then(Reader::trouble)
    }

    /// Rows that were read and not yet cut.
    pub fn buffered_rows(&self) -> u64 {
        self.reader.as_ref().map_or(self.buffer.rows(), |reader| reader.figures().rows)
    }

    /// Its figures of now.
    pub fn figures(&self) -> InputFigures {
        let read = self.reader.as_ref().map(Reader::figures).unwrap_or_default();
        let is_pushed = self.connector().is_none();
        InputFigures {
            name: Arc::clone(&self.label),
            rows: self.state.rows,
            errors: self.state.errors,
            buffered_rows: self.buffered_rows(),
            buffered_bytes: if is_pushed { self.buffer.bytes() } else { read.bytes },
            bytes: read.all_bytes,
            ended: self.is_done(),
            paused: !self.is_active(),
            transport_errors: read.errors,
            trouble: self.trouble(),
        }
    }

    /// Its name and how far it has been taken, with at most `partitions` of its partitions.
    pub fn place(&self, partitions: usize) -> (Arc<str>, InputPlace) {
        let all = &self.state.position.partitions;
        let last = all.iter().skip(all.len().saturating_sub(partitions)).cloned().collect();
        (Arc::clone(&self.label), InputPlace { partitions: all.len(), last })
    }

    fn advance(&mut self, descriptor: &crate::connector::Descriptor, rows: u64, errors: u64, step: u64) {
        if let (Source::Pushed(pushes), Some(range)) = (&self.source, descriptor.ranges.last()) {
            pushes.took(self.table, range.end, step);
        }
        self.state.position.apply(descriptor);
        // A step has it where it goes on from.
        self.is_lossy &= self.reader.is_none();
        self.state.rows += rows;
        self.state.errors += errors;
    }
}
