//! Input and output connectors: one trait each, one file a transport or format.
//!
//! Inputs are *stateless about progress*: the controller owns positions, a connector opens a [`InputReader`] at one and reads
//! chunks in order; a [`Descriptor`] names what a step took, and [`Input::replay`] reads exactly that again.
//!
//! Invariants:
//! 1. Rows of one partition come in the order of their offsets, and partitions are numbered in the order first read.
//! 2. `replay(descriptor)` gives the rows that were cut under that descriptor, or an error that says why it cannot.
//! 3. A row that does not parse is reported in its chunk with its place; it is never dropped silently and never fails its neighbours.
//! 4. An output sees every step in order, exactly once per run of the process; what a restart sees again is told by
//!    [`Resume`], and exactly-once outputs keep what the sink already has.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

pub mod config;
pub mod confined;
mod error;
pub(crate) mod format;
mod http;
pub mod input;
mod kafka;
mod objects;
pub mod options;
pub mod order;
pub mod output;
mod patience;
mod postgres;
pub mod registry;
mod secrets;
#[cfg(test)]
mod testing;
pub mod variables;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::circuit::Delta;
use crate::sql::Declared;
pub(crate) use format::cell::Kind as JsonKind;
pub(crate) use format::document::{Document, Element};
pub use registry::Connectors;

/// What a connector promises after a crash, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing.
    None,
    /// An input can go on from a checkpointed position; an output may repeat, never drop.
    AtLeastOnce,
    /// An input can re-read by descriptor; an output neither repeats nor drops.
    ExactlyOnce,
}

/// Why a connector stopped: it names the connector, the thing and the fix.
#[derive(Debug, thiserror::Error)]
#[error("connector {connector}: {message}")]
pub struct ConnectorError {
    /// The connector's name, `<relation>.<name>`.
    pub connector: String,
    /// What happened, where, and what to do about it.
    pub message: String,
    /// Whether trying again may help (a full disk) or not (a damaged file).
    pub retry: bool,
}

/// The result of a connector's call.
pub type Result<T, E = ConnectorError> = std::result::Result<T, E>;

/// A part of one partition: the unit of a [`Descriptor`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The partition's name: a file's path, a topic's partition, `"0"` for a generator.
    pub partition: String,
    /// First offset (bytes of decompressed file content, ordinals, …).
    pub start: u64,
    /// Offset after the last row, and after the bad rows that were read with it.
    pub end: u64,
    /// What proves at replay that the source is still the same (a hash over file content, say); the connector's own format.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
}

/// What one step took from one input connector, enough to read it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// In the order in which the rows stand in the batch.
    pub ranges: Vec<Range>,
}

/// How far an input connector has been taken: the sum of its descriptors so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// In the order in which partitions were first read.
    pub partitions: Vec<PartitionPosition>,
}

/// How far one partition has been taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPosition {
    /// Its name.
    pub partition: String,
    /// The next offset to read.
    pub offset: u64,
    /// The last range's identity.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
}

impl Position {
    /// Moves past a step's descriptor.
    pub fn apply(&mut self, descriptor: &Descriptor) {
        for range in &descriptor.ranges {
            match self.partitions.iter_mut().find(|p| p.partition == range.partition) {
                Some(p) => {
                    p.offset = range.end;
                    p.identity.clone_from(&range.identity);
                }
                None => self.partitions.push(PartitionPosition {
                    partition: range.partition.clone(),
                    offset: range.end,
                    identity: range.identity.clone(),
                }),
            }
        }
    }
}

/// A row that did not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Where it starts, in its partition.
    pub offset: u64,
    /// What is wrong with it, with an excerpt.
    pub message: String,
}

/// Parsed rows of one partition, in order.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The partition's name.
    pub partition: Arc<str>,
    /// Offset of the first byte or row that this chunk stands for.
    pub start: u64,
    /// Offset after the last one, bad rows included.
    pub end: u64,
    /// The good rows, in the table's schema.
    pub rows: RecordBatch,
    /// Their weights: +1 insert, −1 delete. `None`: all inserts.
    pub weights: Option<Vec<i64>>,
    /// For each good row, the offset after it: where a cut may be made. Rows that have the same one stay together.
    pub ends: Vec<u64>,
    /// The rows that did not parse.
    pub errors: Vec<RowError>,
    /// What a range that ends inside this chunk or at its end carries as identity.
    pub identity: Arc<dyn Identity>,
}

impl Chunk {
    /// A part of a partition that has no rows.
    pub(crate) fn nothing(partition: &str, (start, end): (u64, u64), schema: &SchemaRef) -> Self {
        let rows = RecordBatch::new_empty(Arc::clone(schema));
        let (partition, identity) = (Arc::from(partition), Arc::new(NoIdentity));
        Self { partition, start, end, rows, weights: None, ends: Vec::new(), errors: Vec::new(), identity }
    }
}

/// Gives a range its identity wherever the controller cuts (the reader is on another thread by then, so a chunk brings along
/// what is needed: its raw bytes, say).
pub trait Identity: Debug + Send + Sync {
    /// The identity of a range that ends at `end`, which is one of the chunk's `ends` or its `end`.
    fn at(&self, end: u64) -> String;
}

/// The identity of a source that needs no proof (a generator).
#[derive(Clone, Copy, Debug)]
pub struct NoIdentity;

impl Identity for NoIdentity {
    fn at(&self, _end: u64) -> String {
        String::new()
    }
}

/// What a reader has next.
#[derive(Debug)]
pub enum Next {
    /// The next rows.
    Chunk(Chunk),
    /// Nothing now; ask again later.
    Idle,
    /// Nothing ever again: a finite input has been read to its end.
    End,
}

/// Reads an input in order, from a position on. Lives on a thread of its own.
pub trait InputReader: Debug + Send {
    /// The next chunk. Does not wait: it answers [`Next::Idle`] instead.
    fn next(&mut self) -> Result<Next>;
    /// What hinders a part of it while the rest is read on: told for as long as it is there.
    fn warning(&self) -> Option<ConnectorError> {
        None
    }
}

/// A configured input connector.
pub trait Input: Debug + Send + Sync {
    /// What it can promise.
    fn level(&self) -> Level;
    /// Whether it ends by itself (a file that is not followed, a bounded generator).
    fn is_finite(&self) -> bool;
    /// Whether its configuration names a partition that is the same thing for every connector, as a file is.
    fn selects(&self, _partition: &str) -> bool {
        false
    }
    /// Whether one that is at least once reads on from where a position of its own stands, so that only rows that no step had taken are read again. Then
    /// `"replay": "bytes"` makes it exactly once.
    fn resumes(&self) -> bool {
        true
    }
    /// A reader from `position` on; from the beginning if the position is empty. Verifies that the source is still the one
    /// that the position was taken from.
    fn open(&self, position: &Position) -> Result<Box<dyn InputReader>>;
    /// Where it can be read on from, near `position`, if the source has lost or changed what was to be read next, and what is lost by that, in
    /// words. Asked only if somebody has accepted a loss; without an own answer there is none.
    fn after_loss(&self, position: &Position) -> Result<(Position, Vec<String>)> {
        Ok((position.clone(), Vec::new()))
    }
    /// Reads exactly what `descriptor` names again: one chunk or more for each range, in its order.
    fn replay(&self, descriptor: &Descriptor) -> Result<Vec<Chunk>>;
    /// Every checkpoint that is kept has this position or a later one: what is before it will not be asked for again, but by a savepoint.
    fn kept(&self, _position: &Position) {}
}

/// Where a sink stands durably: the part of a checkpoint that belongs to one output connector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkPosition {
    /// The last step that the sink holds whole and durably.
    pub step: u64,
    /// The connector's own words (a byte offset, say).
    #[serde(default)]
    pub detail: BTreeMap<String, serde_json::Value>,
}

/// What an output is told when it opens.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The sink's position in the checkpoint that was opened; `None`: this pipeline never delivered to it.
    pub checkpoint: Option<SinkPosition>,
    /// The checkpoint's step, behind which a sink that it does not name begins.
    pub step: u64,
    /// The last durable step record: the sink can hold nothing of later steps (invariant 4). With no log, the checkpoint's step.
    pub last_step: u64,
    /// Whether steps after the checkpoint are replayed identically (a log exists): an exactly-once output then keeps what the
    /// sink already has of them. If not, it goes on behind the checkpoint's position, and may repeat.
    pub replayed: bool,
    /// The pipeline begins a new incarnation, as a savepoint's copy: what the sink holds, the original has written, or somebody else.
    /// It must be refused, whatever the configuration says of overwriting.
    pub copy: bool,
    /// The pipeline's incarnation and the store's epoch, for markers.
    pub incarnation: uuid::Uuid,
    /// The store's epoch.
    pub epoch: u64,
}

/// A configured output connector: one view's deltas to one sink. Lives on a thread of its own.
pub trait Output: Debug + Send {
    /// What it can promise.
    fn level(&self) -> Level;
    /// What it writes to, if no other output may: a file's path, say.
    fn target(&self) -> Option<String> {
        None
    }
    /// Opens the sink and checks where it stands, before anything else is called. If that fails with `retry` (the sink is away) it is called again
    /// until it works; a sink that a checkpoint names may be opened when steps are made already.
    fn open(&mut self, resume: &Resume) -> Result<()>;
    /// Takes one step's consolidated delta (often empty). Steps come in order; those at or before the checkpoint's position are not sent.
    /// After an error with `retry` the same step is sent again.
    fn deliver(&mut self, step: u64, delta: &Delta) -> Result<()>;
    /// Hands what is held back for larger writes to the sink, without waiting for durability: called when there is nothing more to
    /// deliver for now, so that readers of the sink see it.
    fn flush(&mut self) -> Result<()>;
    /// Called once after the last replayed step was delivered: what the sink holds beyond it is refused or cut.
    fn replay_done(&mut self) -> Result<()>;
    /// Makes all that was delivered durable, and says where the sink stands. A new sink is asked before anything was delivered, for the
    /// checkpoint that is to name it: that may not come to be, so nothing of it may stand in the sink.
    fn sync(&mut self) -> Result<SinkPosition>;
    /// Where the sink stands durably, if that is known without asking it: of a sink that keeps a transaction once it is committed, say. Asked after each of
    /// the calls above but `open`, so that what is there already is not pending until the next `sync`.
    fn durable(&self) -> Option<SinkPosition> {
        None
    }
    /// Called now and then while there is nothing to do, for what a sink wants of an idle writer too.
    fn idle(&mut self) -> Result<()> {
        Ok(())
    }
}

/// How a connector is made: what the factory of each transport gets.
#[derive(Clone, Debug)]
pub struct Context {
    /// `<relation>.<connector>`.
    pub name: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The table's or view's columns.
    pub schema: SchemaRef,
    /// For a table: its columns as they were declared, if some of them are skipped; otherwise empty.
    pub declared: Vec<Declared>,
    /// For a table: the columns of its primary key (an input format may then carry deletes by key).
    pub primary_key: Vec<usize>,
    /// For a table: whether its rows are never taken back.
    pub append_only: bool,
    /// Whether a replay has the rows of this input from its source: the pipeline is exactly once, and the log does not keep them.
    pub rereads: bool,
    /// The door to the file system.
    pub disk: Arc<dyn backstay_storage::disk::Disk>,
    /// Relative paths of inputs and outputs start here: the SQL file's folder.
    pub base_dir: std::path::PathBuf,
    /// Variables of connector configs, `${NAME}`: see [`variables`].
    pub variables: BTreeMap<String, String>,
}

impl Context {
    /// What a format needs where there is no transport: nothing of a place.
    pub(crate) fn of_format(name: String, schema: &SchemaRef) -> Self {
        Self {
            name,
            pipeline: String::new(),
            schema: Arc::clone(schema),
            declared: Vec::new(),
            primary_key: Vec::new(),
            append_only: false,
            rereads: false,
            disk: backstay_storage::disk::system(),
            base_dir: std::path::PathBuf::new(),
            variables: BTreeMap::new(),
        }
    }
}

/// How long a reader that answered [`Next::Idle`] is left alone.
pub const IDLE_POLL: Duration = Duration::from_millis(20);
