//! Pushed input: rows that clients send, which are in the log before they are acknowledged, and which steps take from there.
//!
//! Clients' threads call [`Pushes::push`]; the controller takes what was pushed as the batches of one [input](super::input) a table.
//!
//! Invariants:
//! 1. The pushes of a table are numbered, in the order of their log records. Offsets of its descriptors are number ·
//!    2^24 + row, so that a step takes a contiguous range of them, and may end within a push.
//! 2. A step's record follows the records of the pushes that it took. So a replay that reads the log in order has the rows when it comes to
//!    the step; what no step has taken is left for the steps to come.
//! 3. The log is kept from the first push on that a checkpoint has not taken whole (`first_untaken`).
//! 4. A key stands in its push's record, and in checkpoints ([`keys`]), so that what was acknowledged stays known across a crash.
//!
//! What was pushed and not taken stands in memory, up to [`MOST_BYTES`]; beyond that pushes are refused until steps have taken some.

pub mod keys;
pub mod record;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use backstay_storage::Store;
use backstay_storage::log::Seq;
use backstay_storage::spine::Snapshot;
use crossbeam::sync::Unparker;

use super::batch::{Buffer, HashedChunk};
use super::config::HttpConfig;
use super::error::{PipelineError, Result};
use super::hash::RowHasher;
use super::rows;
use crate::connector::{Chunk, NoIdentity, Position};
use crate::sql::Program;
use keys::Keys;
use record::{PushHeader, PushKey};

/// The most bytes of rows that wait for steps.
pub const MOST_BYTES: u64 = 64 << 20;
/// The name of a table's input, behind the table's: no connector may be called so.
pub const CONNECTOR: &str = "ingress";

/// Whether a connector is a table's input of what is pushed.
pub fn is_pushed(connector: &str) -> bool {
    connector.strip_suffix(CONNECTOR).is_some_and(|table| table.ends_with('.'))
}
/// The partition of its descriptors.
const PARTITION: &str = "log";
/// Bits of an offset that are the row.
const ROW_BITS: u32 = 24;

/// Why rows were not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The pipeline is not running yet, or not any more.
    #[error("the pipeline does not take rows now: it is starting or stopping")]
    Closed,
    /// Too much waits.
    #[error("{MOST_BYTES} bytes of pushed rows wait for steps: try again later")]
    Full,
    /// The key was given with another request.
    #[error("the key was given before, with another request: a key stands for one request")]
    KeyReused,
    /// More rows than a push may have.
    #[error("a push has at most 16777215 rows; this one has {0}: part it")]
    TooManyRows(usize),
    /// The rows cannot be encoded, or the log does not take them.
    #[error(transparent)]
    Failed(#[from] PipelineError),
}

/// A push that the log has, if not durably yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its table, by its place in the program.
    pub table: usize,
    /// The offset after it: see [`Pushes::is_complete`].
    pub end: u64,
    /// The log record that must be durable before it is acknowledged; `None`: nothing is to be waited for.
    pub seq: Option<Seq>,
    /// Whether an earlier request had brought it.
    pub repeated: bool,
}

/// The pushed rows of a pipeline; see the module.
#[derive(Debug)]
pub struct Pushes {
    store: Option<Arc<Store>>,
    /// The life that numbers of pushes belong to: the pipeline's, or the process's if nothing is stored.
    pub incarnation: uuid::Uuid,
    hashers: Vec<RowHasher>,
    partition: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    is_open: bool,
    tables: Vec<Table>,
    keys: Keys,
    /// Of all rows that wait.
    bytes: u64,
    wake: Option<Unparker>,
}

/// One table's pushes.
#[derive(Debug, Default)]
struct Table {
    name: String,
    /// The number of the next.
    next: u64,
    /// Not yet handed to the controller.
    waiting: VecDeque<HashedChunk>,
    /// Not yet taken whole.
    untaken: VecDeque<Untaken>,
    /// What steps took that outputs may not have delivered: the offset after it, and the step.
    taken: VecDeque<(u64, u64)>,
    /// All below has been delivered.
    complete: u64,
}

/// A push that no step has taken whole: the offset after it, its record, and its bytes.
#[derive(Debug)]
struct Untaken {
    end: u64,
    seq: Seq,
    bytes: u64,
}

impl State {
    fn is_full(&self, bytes: u64) -> bool {
        self.bytes > 0 && self.bytes.saturating_add(bytes) > MOST_BYTES
    }

    /// Adds the last push of a table to those that wait.
    fn enqueue(&mut self, table: usize, seq: Seq, chunk: HashedChunk) {
        if let Some(of) = self.tables.get_mut(table) {
            self.bytes += chunk.bytes;
            of.untaken.push_back(Untaken { end: chunk.chunk.end, seq, bytes: chunk.bytes });
            of.waiting.push_back(chunk);
        }
    }
}

impl Pushes {
    /// The pushes of a program's tables, as a checkpoint left them. `positions` says how far each table's have been taken, at `step`.
    pub(super) fn open(
        program: &Program,
        store: Option<&Arc<Store>>,
        positions: &dyn Fn(usize) -> Position,
        (step, incarnation, is_copy): (u64, uuid::Uuid, bool),
        config: HttpConfig,
    ) -> Result<Self> {
        let mut tables: Vec<Table> = Vec::with_capacity(program.tables.len());
        let mut hashers = Vec::with_capacity(program.tables.len());
        for (i, definition) in program.tables.iter().enumerate() {
            let offset = positions(i).partitions.first().map_or(0, |p| p.offset);
            let next = offset.div_ceil(1 << ROW_BITS);
            let taken = VecDeque::from([(offset, step)]);
            tables.push(Table { name: definition.name.clone(), next, taken, ..Table::default() });
            hashers.push(RowHasher::new(&definition.schema, definition.is_append_only())?);
        }
        // A savepoint's copy has no log.
        let is_there = |known: &keys::Known| {
            let table = usize::try_from(known.table).unwrap_or(usize::MAX);
            !is_copy || positions(table).partitions.first().is_some_and(|p| offset(known.number + 1) <= p.offset)
        };
        let keys = Keys::open(tables.len(), store.map(Arc::as_ref), config, &is_there)?;
        let state = State { is_open: false, tables, keys, bytes: 0, wake: None };
        Ok(Self { store: store.cloned(), incarnation, hashers, partition: PARTITION.into(), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes rows from now on; `wake` is told of them.
    pub(super) fn begin(&self, wake: Unparker) {
        let mut state = self.lock();
        (state.is_open, state.wake) = (true, Some(wake));
    }

    /// Takes no more rows.
    pub(super) fn close(&self) {
        self.lock().is_open = false;
    }

    /// Appends rows of a table. The client may be told of them once the record that the answer names is durable
    /// ([`Self::when_durable`]); steps may take them before.
    ///
    /// # Errors
    /// See [`PushError`]; then nothing was taken, unless the log has failed: then a restart tells.
    pub fn push(
        &self,
        table: usize,
        rows: RecordBatch,
        weights: Option<Vec<i64>>,
        key: Option<PushKey>,
    ) -> Result<Pushed, PushError> {
        let hasher = self.hashers.get(table).ok_or(PushError::Closed)?;
        let bytes = HashedChunk::size(&rows);
        {
            // Before the work is done for nothing.
            let state = self.lock();
            let is_known = key.as_ref().is_some_and(|key| state.keys.get(key).is_some());
            if !state.is_open {
                return Err(PushError::Closed);
            }
            if !is_known && state.is_full(bytes) {
                return Err(PushError::Full);
            }
        }
        if rows.num_rows() >= 1 << ROW_BITS {
            return Err(PushError::TooManyRows(rows.num_rows()));
        }
        let hashes = hasher.hash(&rows, weights.as_deref()).map_err(PipelineError::from)?;
        // All work is done before the lock is taken, but for the number.
        let encoded = self.store.as_ref().map(|_| rows::encode_rows(&rows, weights.as_deref())).transpose()?;

        let mut state = self.lock();
        if !state.is_open {
            return Err(PushError::Closed);
        }
        let place = u32::try_from(table).unwrap_or(u32::MAX);
        if let Some(known) = key.as_ref().and_then(|key| state.keys.get(key)) {
            if key.is_some_and(|key| key.body != known.body) || known.table != place {
                return Err(PushError::KeyReused);
            }
            // The first request may not have been answered yet: what is in the log now is durable when its record is.
            let seq = self.store.as_ref().map(|store| store.log().next_seq() - 1).filter(|&seq| seq > 0);
            return Ok(Pushed { table, end: offset(known.number + 1), seq, repeated: true });
        }
        if state.is_full(bytes) {
            return Err(PushError::Full);
        }
        let of = state.tables.get_mut(table).ok_or(PushError::Closed)?;
        let number = of.next;
        let mut seq = None;
        if let (Some(store), Some(encoded)) = (&self.store, encoded) {
            let header = PushHeader { table: of.name.clone(), number, rows: rows.num_rows() as u64, key: key.clone() };
            seq = Some(store.log().append(&record::encode(&header, &encoded)?).map_err(PipelineError::from)?);
        }
        of.next += 1;
        let chunk = chunk(&self.partition, number, 0, rows, weights);
        state.enqueue(table, seq.unwrap_or(Seq::MAX), HashedChunk::new(chunk, hashes));
        if let Some(key) = &key {
            state.keys.add(place, number, key);
        }
        if let Some(wake) = &state.wake {
            wake.unpark();
        }
        // Only now. If it fails, the record may come to be durable all the same, and the push is known: that nobody knows is told by the wait.
        if let Some(store) = &self.store {
            let _ = store.log().submit();
        }
        Ok(Pushed { table, end: offset(number + 1), seq, repeated: false })
    }

    /// Ends when a push's record is durable.
    ///
    /// # Errors
    /// The log has failed.
    pub async fn when_durable(&self, pushed: &Pushed) -> Result<()> {
        if let (Some(store), Some(seq)) = (&self.store, pushed.seq) {
            store.log().when_durable(seq)?.await?;
        }
        Ok(())
    }

    /// Whether steps took all pushes of a table up to an offset, and outputs have delivered these steps.
    pub fn is_complete(&self, table: usize, end: u64) -> bool {
        self.lock().tables.get(table).is_some_and(|t| t.complete >= end)
    }

    /// The offset after the last push of a table.
    pub fn end(&self, table: usize) -> u64 {
        self.lock().tables.get(table).map_or(0, |t| offset(t.next))
    }

    /// Takes in a record of the log. One that the checkpoint has taken only leaves its key.
    pub(super) fn recover(
        &self,
        seq: Seq,
        payload: &[u8],
        program: &Program,
        positions: &dyn Fn(usize) -> u64,
    ) -> Result<()> {
        let (header, rows) = record::decode(seq, payload)?;
        let Some(table) = program.tables.iter().position(|t| t.name == header.table) else {
            return Err(PipelineError::State(format!(
                "log record {seq} holds rows that were pushed to {}, which the program does not have: put the table back",
                header.table
            )));
        };
        let mut state = self.lock();
        let state = &mut *state;
        let (Some(of), Some(hasher), Some(definition)) =
            (state.tables.get_mut(table), self.hashers.get(table), program.tables.get(table))
        else {
            return Ok(());
        };
        if let Some(key) = &header.key {
            state.keys.add(u32::try_from(table).unwrap_or(u32::MAX), header.number, key);
        }
        let (begin, end, from) = (offset(header.number), offset(header.number + 1), positions(table));
        if end <= from {
            return Ok(());
        }
        if header.number < of.next && begin >= from {
            return Err(PipelineError::State(format!(
                "log record {seq} is push {} of {}, expected {}: the log does not belong to this checkpoint",
                header.number, header.table, of.next
            )));
        }
        of.next = header.number + 1;
        let (rows, weights) = record::decode_rows(seq, &definition.schema, (&header, rows))?;
        // The first of them may have been taken in part.
        let first = usize::try_from(from.saturating_sub(begin)).unwrap_or(usize::MAX).min(rows.num_rows());
        let weights = weights.map(|w| w.get(first..).unwrap_or_default().to_vec());
        let rows = rows.slice(first, rows.num_rows() - first);
        let hashes = hasher.hash(&rows, weights.as_deref())?;
        let chunk = chunk(&self.partition, header.number, first as u64, rows, weights);
        state.enqueue(table, seq, HashedChunk::new(chunk, hashes));
        Ok(())
    }

    /// Hands over what was pushed to a table, until `buffer` has about `rows` rows.
    pub(super) fn fill(&self, table: usize, buffer: &mut Buffer, rows: u64) {
        let mut state = self.lock();
        let Some(of) = state.tables.get_mut(table) else { return };
        while buffer.rows() < rows {
            let Some(chunk) = of.waiting.pop_front() else { break };
            buffer.push(chunk);
        }
    }

    /// Hands over the pushes of a table that begin before an offset.
    pub(super) fn fill_to(&self, table: usize, buffer: &mut Buffer, end: u64) {
        let mut state = self.lock();
        let Some(of) = state.tables.get_mut(table) else { return };
        while let Some(chunk) = of.waiting.pop_front_if(|waiting| waiting.chunk.start < end) {
            buffer.push(chunk);
        }
    }

    /// Whether pushes of a table have not been handed over.
    pub(super) fn is_waiting(&self, table: usize) -> bool {
        self.lock().tables.get(table).is_some_and(|t| !t.waiting.is_empty())
    }

    /// A step took a table's pushes up to an offset.
    pub(super) fn took(&self, table: usize, end: u64, step: u64) {
        let mut state = self.lock();
        let State { tables, bytes, .. } = &mut *state;
        let Some(of) = tables.get_mut(table) else { return };
        of.taken.push_back((end, step));
        while let Some(untaken) = of.untaken.pop_front_if(|u| u.end <= end) {
            *bytes = bytes.saturating_sub(untaken.bytes);
        }
    }

    /// All outputs have delivered a step.
    pub(super) fn delivered(&self, step: u64) {
        for of in &mut self.lock().tables {
            while let Some((end, _)) = of.taken.pop_front_if(|(_, taken)| *taken <= step) {
                of.complete = of.complete.max(end);
            }
        }
    }

    /// The first record that holds rows which no step has taken.
    pub(super) fn first_untaken(&self) -> Option<Seq> {
        self.lock().tables.iter().filter_map(|t| t.untaken.front()).map(|u| u.seq).min()
    }

    /// The keys of now, for a checkpoint.
    pub(super) fn freeze_keys(&self) -> Result<Option<Snapshot>> {
        match &self.store {
            Some(store) => Ok(self.lock().keys.freeze(store)?),
            None => Ok(None),
        }
    }
}

/// The offset of a push's first row.
fn offset(number: u64) -> u64 {
    number << ROW_BITS
}

/// The chunk of a push's rows from `first` on.
fn chunk(partition: &Arc<str>, number: u64, first: u64, rows: RecordBatch, weights: Option<Vec<i64>>) -> Chunk {
    let (start, end) = (offset(number) + first, offset(number + 1));
    let count = rows.num_rows() as u64;
    let ends = (1..=count).map(|row| if row == count { end } else { start + row }).collect();
    Chunk {
        partition: Arc::clone(partition),
        start,
        end,
        rows,
        weights,
        ends,
        errors: Vec::new(),
        identity: Arc::new(NoIdentity),
    }
}
