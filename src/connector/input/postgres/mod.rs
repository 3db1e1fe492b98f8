//! `postgres_input`: a table of PostgreSQL's, and all that changes in it, by logical replication (`pgoutput`).
//!
//! Settings: the [server's](crate::connector::postgres::server), `table` (`name` or `schema.name`), `publication`, which must have the table, `slot`
//! (`backstay_<pipeline>_<table>_<connector>`), `snapshot` (`true`: the rows that are there come first). Columns are found by name, and values read as Debezium's
//! in JSON are ([`json`](super::super::format::json)): a table with a primary key takes updates as upserts and deletes by key.
//!
//! Partitions are `snapshot`, whose offsets count rows, and `wal`, whose offsets are places in the server's log (LSN) where transactions end.
//!
//! How it is exactly-once without a snapshot: the server keeps its log from the place that the slot has confirmed, and that is confirmed only which no
//! checkpoint that is kept needs any more ([`Input::kept`]). So a range of the log can be read again, and gives the same transactions in the same order. With a
//! snapshot, which cannot be taken a second time, it is at-least-once: a process that ends before the snapshot is through takes another one.
//!
//! Invariants:
//! 1. A transaction is in one step, whole. Transactions come in the order of their commits.
//! 2. A slot that stands behind a position, or is gone, is refused before anything is read; so is another [cluster's log](cluster), or one that left the
//!    position's history before it.
//! 3. The slot begins at the snapshot exactly; after another try it begins before it, and changes come that the snapshot has: a table with a key then
//!    comes to what the server has, once it caught up.
//!
//! Limits: TRUNCATE stops the pipeline. A transaction is in memory whole. Long values that did not change are not sent without REPLICA IDENTITY FULL: such
//! rows do not parse. Arrays and other types that are no text do not parse. A slot that is not used keeps the server's log for ever: drop it with the pipeline.

mod change;
mod cluster;
mod slot;
mod stream;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use pgwire_replication::ReplicationConfig;
use serde_json::json;

use super::super::config::ConnectorConfig;
use super::super::format::json::Json;
use super::super::format::split::Record;
use super::super::options::Options;
use super::super::{
    Chunk, ConnectorError, Context, Descriptor, Identity, Input, InputReader, Level, Next, NoIdentity, Position, Range,
    Result, RowError,
};
use crate::connector::patience::{insist, now};
use crate::connector::postgres::server::{self, Server};
use crate::sql::quoted_name;
use cluster::Cluster;
use slot::Snapshot;
use stream::{Item, Stream, Transaction};

const SNAPSHOT: &str = "snapshot";
const WAL: &str = "wal";
/// The most change events of a chunk, but for one transaction.
const EVENTS: usize = 8 << 10;
/// After how much of the server's log without a change of the table the position moves nevertheless, for the server to let go of it.
const PASS: u64 = 16 << 20;
/// How long a replay waits for the server to go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// A configured input.
#[derive(Clone, Debug)]
pub(crate) struct PostgresInput {
    shared: Arc<Shared>,
}

/// What readers share.
#[derive(Debug)]
struct Shared {
    connector: String,
    server: Server,
    replication: ReplicationConfig,
    /// As the user wrote it.
    table: String,
    /// Schema and name.
    relation: (String, String),
    publication: String,
    slot: String,
    wants_snapshot: bool,
    is_keyed: bool,
    append_only: bool,
    schema: SchemaRef,
    format: Json,
    /// The place in the log that all checkpoints that are kept have passed.
    kept: AtomicU64,
    replaying: Mutex<Option<Replaying>>,
}

/// The stream that replays, and what it gave that belongs to a later step.
#[derive(Debug)]
struct Replaying {
    stream: Stream,
    ahead: Option<Transaction>,
}

impl PostgresInput {
    pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let known = [&["table", "publication", "slot", "snapshot"][..], &server::KEYS].concat();
        let place = "transport.config of postgres_input";
        let options = Options::new(&ctx.name, place, &config.transport.config, &known, &["query"])?;
        if config.format.is_some() {
            return Err(options.error("postgres_input reads columns, and so has no \"format\"; leave it out"));
        }
        let server = Server::new(&options, ctx)?;
        let table = options.require_string("table")?.to_owned();
        let (schema, name) = table.split_once('.').unwrap_or(("public", &table));
        let relation = (schema.to_owned(), name.to_owned());
        let publication = options.require_string("publication")?.to_owned();
        let slot = options.string("slot")?.map_or_else(|| slot_name(ctx), str::to_owned);
        if slot.is_empty()
            || slot.len() > 63
            || !slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            return Err(options.error("\"slot\" must be of at most 63 lower case letters, digits and _"));
        }
        let replication = server.replication(&slot, &publication).map_err(|e| options.error(e))?;
        let shared = Shared {
            connector: ctx.name.clone(),
            server,
            replication,
            table,
            relation,
            publication,
            slot,
            wants_snapshot: options.bool("snapshot")?.unwrap_or(true),
            is_keyed: !ctx.primary_key.is_empty(),
            append_only: ctx.append_only,
            schema: Arc::clone(&ctx.schema),
            format: Json::new(&json!({"update_format": "debezium"}), ctx)?,
            kept: AtomicU64::new(0),
            replaying: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// A slot's name for a connector.
fn slot_name(ctx: &Context) -> String {
    let name = format!("backstay_{}_{}", ctx.pipeline, ctx.name).to_ascii_lowercase();
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    // The period between table and connector is no difference; what else was replaced or is cut off would be.
    if plain.len() <= 63 && name.replacen('.', "_", 1) == plain {
        return plain;
    }
    let rest: String = plain.chars().take(46).collect();
    format!("{rest}_{:016x}", xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
}

impl Input for PostgresInput {
    fn level(&self) -> Level {
        if self.shared.wants_snapshot { Level::AtLeastOnce } else { Level::ExactlyOnce }
    }

    fn is_finite(&self) -> bool {
        false
    }

    /// A snapshot that was cut off is read again from its beginning.
    fn resumes(&self) -> bool {
        !self.shared.wants_snapshot
    }

    fn open(&self, position: &Position) -> Result<Box<dyn InputReader>> {
        // The slot has one reader.
        *self.shared.replaying.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let of = |name: &str| position.partitions.iter().find(|p| p.partition == name);
        let at = of(WAL).map(|p| p.offset);
        let cluster = of(WAL).and_then(|p| Cluster::parse(&p.identity));
        if let Some(at) = at {
            let found = stream::identify(&self.shared, (at, cluster.as_ref()));
            let found = found.and_then(|_| slot::check(&self.shared, at));
            // What may pass is met again when it is read, which can wait.
            found.or_else(|e| if e.retry { Ok(()) } else { Err(e) })?;
        }
        let state = at.map_or(State::New, State::Behind);
        let rows = of(SNAPSHOT).map_or(0, |p| p.offset);
        Ok(Box::new(Reader { shared: Arc::clone(&self.shared), rows, cluster, state }))
    }

    fn replay(&self, descriptor: &Descriptor) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        for range in &descriptor.ranges {
            match range.partition.as_str() {
                WAL if range.start == range.end => {
                    let known = Cluster::parse(&range.identity);
                    chunks.push(self.shared.nothing(range.start, range.end, known.as_ref()));
                }
                WAL => chunks.push(insist(PATIENCE, || self.shared.replay(range))?),
                _ => return Err(self.shared.error("a snapshot cannot be read again")),
            }
        }
        Ok(chunks)
    }

    fn kept(&self, position: &Position) {
        if let Some(wal) = position.partitions.iter().find(|p| p.partition == WAL) {
            self.shared.kept.fetch_max(wal.offset, Ordering::Relaxed);
        }
    }
}

/// Reads the snapshot, then the log.
#[derive(Debug)]
struct Reader {
    shared: Arc<Shared>,
    /// Rows of snapshots so far.
    rows: u64,
    /// Whose log it is, once that is known.
    cluster: Option<Cluster>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing is known of the log yet.
    New,
    /// A snapshot is being read; the log begins there.
    Snapshot(Box<Snapshot>, u64),
    /// The log is read behind a place, once there is a connection.
    Behind(u64),
    Streaming(Box<Stream>),
}

impl InputReader for Reader {
    fn next(&mut self) -> Result<Next> {
        let shared = Arc::clone(&self.shared);
        match std::mem::replace(&mut self.state, State::New) {
            State::New => {
                self.cluster = Some(stream::identify(&shared, (0, None))?);
                let (at, snapshot) = slot::make(&shared, shared.wants_snapshot)?;
                match snapshot {
                    Some(snapshot) => {
                        self.state = State::Snapshot(Box::new(snapshot), at);
                        Ok(Next::Idle)
                    }
                    None => {
                        self.state = State::Behind(at);
                        Ok(Next::Chunk(shared.nothing(at, at, self.cluster.as_ref())))
                    }
                }
            }
            State::Snapshot(mut snapshot, at) => {
                // A snapshot that breaks off is begun anew.
                let events = snapshot.next(&shared)?;
                if events.is_empty() {
                    self.state = State::Behind(at);
                    return Ok(Next::Chunk(shared.nothing(at, at, self.cluster.as_ref())));
                }
                let (start, count) = (self.rows, events.len() as u64);
                let ends: Vec<u64> = (start + 1..=start + count).collect();
                let chunk = shared.chunk(SNAPSHOT, start, events.into_iter().map(Ok).zip(ends).collect(), None)?;
                self.rows += count;
                self.state = State::Snapshot(snapshot, at);
                Ok(Next::Chunk(chunk))
            }
            State::Behind(at) => {
                self.state = State::Behind(at);
                let stream = Stream::begin(&shared, at, (at, self.cluster.as_ref()))?;
                self.cluster = Some(stream.cluster().clone());
                self.state = State::Streaming(Box::new(stream));
                Ok(Next::Idle)
            }
            State::Streaming(mut stream) => {
                // Whatever happens to the connection: it is read on from there.
                self.state = State::Behind(stream.at());
                let start = stream.at();
                let mut events = Vec::new();
                while events.len() < EVENTS {
                    match stream.next(&shared) {
                        Ok(Some(Item::Transaction(transaction))) => {
                            let end = transaction.end;
                            events.extend(transaction.events.into_iter().map(|event| (event, end)));
                        }
                        Ok(Some(Item::Nothing(looked))) if events.is_empty() && looked - start >= PASS => {
                            stream.pass(looked);
                            self.state = State::Streaming(stream);
                            return Ok(Next::Chunk(shared.nothing(start, looked, self.cluster.as_ref())));
                        }
                        Ok(_) => break,
                        Err(e) if events.is_empty() => return Err(e),
                        // What was read before it counts.
                        Err(_) => {
                            self.state = State::Behind(stream.at());
                            return Ok(Next::Chunk(shared.chunk(WAL, start, events, self.cluster.as_ref())?));
                        }
                    }
                }
                let chunk = (!events.is_empty()).then(|| shared.chunk(WAL, start, events, self.cluster.as_ref()));
                let chunk = chunk.transpose()?;
                self.state = State::Streaming(stream);
                Ok(chunk.map_or(Next::Idle, Next::Chunk))
            }
        }
    }
}

/// What a range of a log carries.
fn identity(cluster: Option<&Cluster>) -> Arc<dyn Identity> {
    match cluster {
        Some(cluster) => Arc::new(cluster.clone()),
        None => Arc::new(NoIdentity),
    }
}

impl Shared {
    fn error(&self, message: impl Into<String>) -> ConnectorError {
        ConnectorError::new(&self.connector, message)
    }

    fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// What drives a connection of the replication protocol.
    fn runtime(&self) -> Result<tokio::runtime::Runtime> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.map_err(|e| self.error(format!("cannot begin to wait for the server: {e}")))
    }

    /// The table's name in SQL.
    fn quoted(&self) -> String {
        format!("{}.{}", quoted_name(&self.relation.0), quoted_name(&self.relation.1))
    }

    /// A part of the log that has nothing of the table.
    fn nothing(&self, start: u64, end: u64, cluster: Option<&Cluster>) -> Chunk {
        Chunk { identity: identity(cluster), ..Chunk::nothing(WAL, (start, end), &self.schema) }
    }

    /// The chunk of change events, each with where its transaction ends.
    fn chunk(
        &self,
        partition: &str,
        start: u64,
        events: Vec<(Result<String, String>, u64)>,
        cluster: Option<&Cluster>,
    ) -> Result<Chunk> {
        let mut block = Vec::new();
        let (mut records, mut ends) = (Vec::new(), Vec::new());
        let mut errors: Vec<(usize, RowError)> = Vec::new();
        let mut before = start;
        let mut starts = Vec::new();
        let end = events.last().map_or(start, |(_, end)| *end);
        for (event, end) in events {
            if ends.last().is_some_and(|last| *last != end) {
                before = ends.last().copied().unwrap_or(start);
            }
            match event {
                Ok(text) => {
                    let at = block.len();
                    block.extend_from_slice(text.as_bytes());
                    let text_end = block.len();
                    block.push(b'\n');
                    records.push(Record { start: at, text_end, end: text_end + 1, broken: false, absent: false });
                    starts.push(before);
                }
                Err(message) => {
                    errors.push((records.len(), RowError { offset: before, message }));
                    continue;
                }
            }
            ends.push(end);
        }
        let mut parsed = self.format.parse(&block, 0, &records)?;
        let place = |offset: u64| records.partition_point(|r| (r.end as u64) < offset);
        for row_end in &mut parsed.ends {
            *row_end = ends.get(place(*row_end)).copied().unwrap_or(end);
        }
        for error in parsed.errors {
            let at = records.partition_point(|r| r.start as u64 <= error.offset).saturating_sub(1);
            errors.push((at, RowError { offset: starts.get(at).copied().unwrap_or(start), message: error.message }));
        }
        errors.sort_by_key(|(at, _)| *at);
        parsed.errors = errors.into_iter().map(|(_, error)| error).collect();
        Ok(parsed.into_chunk(Arc::from(partition), (start, end), identity(cluster)))
    }

    /// Reads a range of the log again.
    fn replay(&self, range: &Range) -> Result<Chunk> {
        let known = Cluster::parse(&range.identity);
        let mut kept = self.replaying.lock().unwrap_or_else(PoisonError::into_inner);
        let mut replaying = match kept
            .take()
            .filter(|r| r.stream.at() == range.start || r.ahead.as_ref().is_some_and(|t| t.start == range.start))
            .filter(|r| known.as_ref().is_none_or(|known| known == r.stream.cluster()))
        {
            Some(replaying) => replaying,
            None => {
                let stream = Stream::begin(self, range.start, (range.end, known.as_ref()))?;
                Replaying { stream, ahead: None }
            }
        };
        let mut events = Vec::new();
        let end = now() + PATIENCE;
        loop {
            let item = match replaying.ahead.take() {
                Some(transaction) => Some(Item::Transaction(transaction)),
                None => replaying.stream.next(self)?,
            };
            match item {
                Some(Item::Transaction(transaction)) if transaction.end > range.end => {
                    replaying.ahead = Some(Transaction { start: range.end, ..transaction });
                    break;
                }
                Some(Item::Transaction(transaction)) => {
                    let end = transaction.end;
                    events.extend(transaction.events.into_iter().map(|event| (event, end)));
                    if end == range.end {
                        break;
                    }
                }
                Some(Item::Nothing(looked)) if looked >= range.end => {
                    replaying.stream.pass(range.end);
                    break;
                }
                _ if now() > end => {
                    return Err(self.error(format!(
                        "the log from {:X} to {:X} is to be read again, but for a minute nothing came: is the server up?",
                        range.start, range.end
                    )));
                }
                _ => {}
            }
        }
        *kept = Some(replaying);
        let mut chunk = self.chunk(WAL, range.start, events, known.as_ref())?;
        chunk.end = range.end;
        Ok(chunk)
    }
}
