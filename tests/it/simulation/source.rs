//! Simulated sources, and the input connector that reads them.
//!
//! A source has partitions; in each, at every offset, stands a row, or something that does not parse. What a connector of each
//! level can do:
//!
//! | level | `open(position)` | `replay(descriptor)` |
//! |---|---|---|
//! | exactly_once | seeks | reads again, in chunks of other sizes |
//! | at_least_once | seeks | refuses |
//! | none | goes on behind what any process has ever been handed | refuses |

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;

use super::world::{State, World};
use backstay::connector::{
    Chunk, ConnectorError, Descriptor, Identity, Input, InputReader, Level, Next, Position, Result, RowError,
};

/// Rows that a partition gives in a row before the next partition has its turn, where the order is fixed.
const BLOCK: u64 = 4;

/// What stands in one partition.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) rows: RecordBatch,
    /// By row.
    pub(super) weights: Vec<i64>,
    /// By offset: the row, or `None` if it does not parse.
    pub(super) at: Vec<Option<usize>>,
}

#[derive(Clone, Debug)]
pub(super) struct SourceState {
    pub(super) level: Level,
    pub(super) partitions: Arc<Vec<Partition>>,
    /// Whether partitions are read in a fixed order, so that a fixed cut makes the same steps whatever the schedule.
    pub(super) fixed: bool,
    /// By partition: the offset up to which rows have been handed out to any process.
    pub(super) read: Vec<u64>,
    /// By partition: what had been handed out when this life began.
    pub(super) read_before: Vec<u64>,
    /// Whether what has been handed out cannot be read again, although the level says so: retention has passed.
    pub(super) forgetful: bool,
}

impl SourceState {
    pub(super) fn new(level: Level, partitions: Arc<Vec<Partition>>, fixed: bool) -> Self {
        let read = vec![0; partitions.len()];
        Self { level, partitions, fixed, read_before: read.clone(), read, forgetful: false }
    }
}

impl SourceState {
    /// Changes a column of every row.
    pub(super) fn alter(&mut self) {
        let altered = |partition: &Partition| {
            let columns =
                partition.rows.schema_ref().fields().iter().zip(partition.rows.columns()).map(|(field, column)| {
                    if field.name() != "v" {
                        return Arc::clone(column);
                    }
                    let values = column.as_primitive::<Int64Type>();
                    Arc::new(values.iter().map(|v| Some(v.map_or(77, |v| v + 1))).collect::<Int64Array>()) as ArrayRef
                });
            let rows = RecordBatch::try_new(partition.rows.schema(), columns.collect()).expect("the same columns");
            Partition { rows, weights: partition.weights.clone(), at: partition.at.clone() }
        };
        self.partitions = Arc::new(self.partitions.iter().map(altered).collect());
    }
}

/// The connector.
#[derive(Debug)]
pub(super) struct SimInput {
    world: World,
    name: String,
}

impl SimInput {
    pub(super) fn new(world: World, name: String) -> Self {
        Self { world, name }
    }

    fn error(&self, message: impl Into<String>) -> ConnectorError {
        ConnectorError::new(&self.name, message)
    }
}

fn source<'a>(state: &'a mut State, name: &str) -> &'a mut SourceState {
    state.sources.get_mut(name).expect("the program's sources are in the world")
}

fn place(partition: &str) -> usize {
    partition.trim_start_matches('p').parse().expect("a partition's name")
}

impl Input for SimInput {
    fn level(&self) -> Level {
        source(&mut self.world.state(), &self.name).level
    }

    fn is_finite(&self) -> bool {
        true
    }

    fn open(&self, position: &Position) -> Result<Box<dyn InputReader>> {
        let offsets = self.world.call(&self.name, "open", 0, |state| {
            let source = source(state, &self.name);
            if source.level == Level::None {
                return Ok(source.read.clone());
            }
            let mut offsets = vec![0; source.partitions.len()];
            for known in &position.partitions {
                let p = place(&known.partition);
                if known.identity != identity(p, known.offset) {
                    return Err(self.error(format!("{} is not at {}", known.identity, known.offset)));
                }
                offsets[p] = known.offset;
            }
            Ok(offsets)
        })?;
        Ok(Box::new(SimReader { world: self.world.clone(), name: self.name.clone(), offsets }))
    }

    fn replay(&self, descriptor: &Descriptor) -> Result<Vec<Chunk>> {
        self.world.call(&self.name, "replay", descriptor.ranges.len() as u64, |state| {
            let source = source(state, &self.name).clone();
            if source.level < Level::ExactlyOnce || source.forgetful {
                return Err(self.error("rows that have been read cannot be read again"));
            }
            let mut chunks = Vec::new();
            for range in &descriptor.ranges {
                let p = place(&range.partition);
                if range.identity != identity(p, range.end) {
                    return Err(self.error(format!("{} is not at {}", range.identity, range.end)));
                }
                let mut start = range.start;
                while start < range.end {
                    let end = (start + 1 + state.rng.below(7)).min(range.end);
                    chunks.push(chunk(&source.partitions[p], p, start, end));
                    start = end;
                }
            }
            Ok(chunks)
        })
    }
}

#[derive(Debug)]
struct SimReader {
    world: World,
    name: String,
    offsets: Vec<u64>,
}

impl InputReader for SimReader {
    fn next(&mut self) -> Result<Next> {
        let Self { world, name, offsets } = self;
        world.call(name, "next", offsets.iter().sum(), |state| {
            if state.rng.once_in(24) {
                return Err(ConnectorError { retry: true, ..ConnectorError::new(name, "the network is slow") });
            }
            let (idle, size, dice) = (state.rng.once_in(6), 1 + state.rng.below(9), state.rng.next());
            let source = source(state, name);
            let len = |p: usize| source.partitions[p].at.len() as u64;
            let left: Vec<usize> = (0..offsets.len()).filter(|p| offsets[*p] < len(*p)).collect();
            if left.is_empty() {
                return Ok(Next::End);
            }
            if idle {
                return Ok(Next::Idle);
            }
            let (p, size) = if source.fixed {
                let p = left.into_iter().min_by_key(|p| offsets[*p] / BLOCK).unwrap_or_default();
                (p, size.min(BLOCK - offsets[p] % BLOCK))
            } else {
                (left[(dice % left.len() as u64) as usize], size)
            };
            let end = (offsets[p] + size).min(len(p));
            let chunk = chunk(&source.partitions[p], p, offsets[p], end);
            offsets[p] = end;
            source.read[p] = source.read[p].max(end);
            Ok(Next::Chunk(chunk))
        })
    }
}

/// The rows between two offsets.
fn chunk(partition: &Partition, p: usize, start: u64, end: u64) -> Chunk {
    let offsets = || start..end;
    let at = |offset: u64| partition.at[offset as usize];
    let rows: Vec<usize> = offsets().filter_map(at).collect();
    let first = rows.first().copied().unwrap_or_default();
    let bad = offsets().filter(|o| at(*o).is_none());
    Chunk {
        partition: format!("p{p}").into(),
        start,
        end,
        rows: partition.rows.slice(first, rows.len()),
        weights: Some(rows.iter().map(|row| partition.weights[*row]).collect()),
        ends: offsets().filter(|o| at(*o).is_some()).map(|o| o + 1).collect(),
        errors: bad.map(|offset| RowError { offset, message: "not a row".to_owned() }).collect(),
        identity: Arc::new(Place(p)),
    }
}

/// Names the place where a range ends, so that a position that was mixed up is noticed.
#[derive(Debug)]
struct Place(usize);

impl Identity for Place {
    fn at(&self, end: u64) -> String {
        identity(self.0, end)
    }
}

fn identity(p: usize, end: u64) -> String {
    format!("p{p}@{end}")
}
