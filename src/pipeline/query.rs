//! An ad-hoc query over what a checkpoint or savepoint keeps: our own circuit, fed with the kept rows.
//!
//! Invariants:
//! 1. All relations are as of the end of one step, the checkpoint's, whose clock is the query's too.
//! 2. Nothing of the pipeline is changed and no lock is taken: it may run meanwhile.
//!
//! Known limits: the result and the query's own operators are in memory. In a checkpoint, steps after it are not seen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use backstay_storage::disk::Disk;
use backstay_storage::spine::{Cursor, Discipline, RowBatch, Snapshot, Spine};
use backstay_storage::{Error, StoreReader};

use super::error::{PipelineError, Result};
use super::state::{KeptState, PipelineState, spine_name};
use crate::circuit::row::{RowCodec, normalise};
use crate::circuit::{CircuitError, Delta, Runtime, RuntimeOptions, StepInput};
use crate::sql::{Query, SqlErrors, compile_query};

/// Rows that the circuit is given at a time: bounds what its operators have in hand, not their state.
const STEP_ROWS: usize = 65_536;

/// A pipeline's state at the end of one step, to be asked.
#[derive(Debug)]
pub struct Asked {
    spines: Spines,
    state: PipelineState,
    schemas: BTreeMap<String, SchemaRef>,
    unkept: Vec<String>,
}

/// Where the kept rows are.
#[derive(Debug)]
enum Spines {
    /// In a checkpoint's or savepoint's files.
    Stored(StoreReader),
    /// In a running pipeline, by name.
    Live(BTreeMap<String, Snapshot>),
}

impl Spines {
    fn get(&self, name: &str) -> Option<&Snapshot> {
        match self {
            Self::Stored(reader) => reader.spine(name),
            Self::Live(spines) => spines.get(name),
        }
    }
}

/// What a query gave.
#[derive(Debug)]
pub struct Answer {
    /// The rows, in the order that was asked for; by row encoding where nothing was.
    pub rows: RecordBatch,
    /// Rows with a negative count, which cannot be shown: a table without a primary key had deletes of rows that it did not hold.
    pub negative: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The query itself is wrong.
    #[error(transparent)]
    Sql(#[from] SqlErrors),
    /// The state cannot be read, or the query failed over it.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

impl Asked {
    /// Opens the newest checkpoint in `dir`, or a savepoint. `cache_bytes` is what blocks of its runs in memory may take.
    ///
    /// # Errors
    /// There is none, it is damaged, or it is another version's.
    pub fn open(disk: &Arc<dyn Disk>, dir: &Path, savepoint: Option<&str>, cache_bytes: u64) -> Result<Self> {
        let reader = match savepoint {
            Some(name) => StoreReader::savepoint(disk, dir, name, cache_bytes)?,
            None => StoreReader::newest(disk, dir, cache_bytes)?.ok_or_else(|| {
                PipelineError::Config(format!(
                    "{} has no checkpoint: it is no pipeline's data directory",
                    dir.display()
                ))
            })?,
        };
        let state = PipelineState::decode(reader.blob())?;
        state.check_row_format()?;
        Self::new(Spines::Stored(reader), state)
    }

    /// The state of a running pipeline: all its spines at the end of the step that `state` is of.
    /// Without storage nothing can be asked: spines have no names to be found by.
    pub(crate) fn live(spines: Vec<Snapshot>, state: PipelineState) -> Result<Self> {
        let spines = spines.into_iter().filter(|s| !s.is_ephemeral()).map(|s| (s.name().to_owned(), s)).collect();
        Self::new(Spines::Live(spines), state)
    }

    fn new(spines: Spines, state: PipelineState) -> Result<Self> {
        let mut schemas = BTreeMap::new();
        let mut unkept = Vec::new();
        for (name, relation) in &state.relations {
            match relation.kept {
                Some(_) => schemas.insert(name.clone(), relation.schema()?).map_or((), |_| ()),
                None => unkept.push(name.clone()),
            }
        }
        Ok(Self { spines, state, schemas, unkept })
    }

    /// The state that is asked: the pipeline's name and step, among others.
    pub fn state(&self) -> &PipelineState {
        &self.state
    }

    /// The columns of the relations that can be asked.
    pub fn relations(&self) -> &BTreeMap<String, SchemaRef> {
        &self.schemas
    }

    /// Answers one query.
    ///
    /// # Errors
    /// A wrong query, one that fails on a row, or state that cannot be read.
    pub fn answer(&self, sql: &str) -> Result<Answer, QueryError> {
        let query = compile_query(sql, &self.schemas, &self.unkept)?;
        Ok(self.run(query)?)
    }

    /// The columns that [`Self::answer`] would give.
    ///
    /// # Errors
    /// A wrong query.
    pub fn columns(&self, sql: &str) -> Result<SchemaRef, QueryError> {
        let query = compile_query(sql, &self.schemas, &self.unkept)?;
        Ok(query.schema().cloned().ok_or_else(|| internal("a query without a view"))?)
    }

    fn run(&self, query: Query) -> Result<Answer> {
        evaluate(query, self.state.clock_ms, &mut |table, feed| {
            let relation = self.state.relations.get(table).and_then(|r| r.kept.as_ref());
            let (Some(kept), Some(schema)) = (relation, self.schemas.get(table)) else {
                return Err(internal("a table that is not kept"));
            };
            for worker in 0..self.state.workers {
                let name = spine_name(&kept.spine, worker, self.state.workers);
                let spine = self.spines.get(&name).ok_or_else(|| match self.spines {
                    Spines::Stored(_) => {
                        PipelineError::State(format!("the checkpoint lacks the spine {name} of relation {table}"))
                    }
                    Spines::Live(_) => PipelineError::Config(format!(
                        "relation {table} cannot be asked: the pipeline runs without storage; configure \"storage\": true"
                    )),
                })?;
                Scan::new(spine, kept, schema)?.each(&mut *feed)?;
            }
            Ok(())
        })
    }
}

/// Answers a query over rows in memory, by relation.
///
/// # Errors
/// A wrong query, or one that fails on a row.
pub fn answer_over(sql: &str, relations: &BTreeMap<String, RecordBatch>) -> Result<Answer, QueryError> {
    let schemas = relations.iter().map(|(name, rows)| (name.clone(), rows.schema())).collect();
    let answer = evaluate(compile_query(sql, &schemas, &[])?, 0, &mut |table, feed| {
        let rows = relations.get(table).ok_or_else(|| internal("a table without rows"))?;
        let delta = Delta::new(&rows.schema(), rows.columns().to_vec(), vec![1; rows.num_rows()]);
        feed(delta.map_err(CircuitError::arrow("query"))?)
    });
    Ok(answer?)
}

/// Takes some rows of a table into a query's circuit.
type Feed<'a> = dyn FnMut(Delta) -> Result<()> + 'a;

/// Runs a query's circuit over the rows that `scan` gives of each table that it reads.
fn evaluate(
    Query { plan, order }: Query,
    clock_ms: i64,
    scan: &mut dyn FnMut(&str, &mut Feed<'_>) -> Result<()>,
) -> Result<Answer> {
    let plan = Arc::new(plan);
    let view = plan.views.first().map(|v| v.node).ok_or_else(|| internal("a query without a view"))?;
    let schema = Arc::clone(&plan.nodes.get(view).ok_or_else(|| internal("a view without a node"))?.schema);
    let read: Vec<usize> = plan.nodes.iter().flat_map(|n| n.inputs.iter().copied()).chain([view]).collect();
    let mut open = |_: usize, _: &str, discipline| Ok(Spine::ephemeral(discipline));
    let mut circuit = Runtime::start_inline(Arc::clone(&plan), RuntimeOptions::default(), &mut open, Box::new(|_| 0))?;
    let mut result = Collected::new(&schema)?;
    // One step without rows, for what is there without any.
    let mut step = 1;
    let mut feed = |table: usize, rows: Option<Delta>| -> Result<()> {
        let mut tables = vec![Vec::new(); plan.tables.len()];
        if let Some(chunks) = tables.get_mut(table) {
            chunks.extend(rows);
        }
        circuit.submit(StepInput { step, clock_ms, tables, ..StepInput::default() })?;
        step += 1;
        circuit.complete()?.views.into_iter().try_for_each(|delta| result.add(&delta))
    };
    feed(0, None)?;
    for (index, table) in plan.tables.iter().enumerate().filter(|(_, t)| read.contains(&t.node)) {
        scan(&table.name, &mut |rows| feed(index, Some(rows)))?;
    }
    result.finish(&order)
}

fn internal(what: &str) -> PipelineError {
    PipelineError::State(format!("internal error: {what}"))
}

/// Reads a relation's rows off one spine.
struct Scan<'a> {
    cursor: Cursor,
    by_key: bool,
    codec: RowCodec,
    schema: &'a SchemaRef,
}

impl<'a> Scan<'a> {
    fn new(spine: &Snapshot, kept: &KeptState, schema: &'a SchemaRef) -> Result<Self> {
        let expected = if kept.by_key { Discipline::Latest } else { Discipline::Weighted };
        if spine.discipline() != expected {
            return Err(PipelineError::State(format!("the spine {} does not hold a relation's rows", spine.name())));
        }
        Ok(Self { cursor: spine.cursor()?, by_key: kept.by_key, codec: RowCodec::of_schema(schema)?, schema })
    }

    /// Gives all rows, some at a time.
    fn each(mut self, give: &mut Feed<'_>) -> Result<()> {
        while self.cursor.valid() {
            let (mut bytes, mut ends, mut weights) = (Vec::new(), vec![0], Vec::new());
            while self.cursor.valid() && weights.len() < STEP_ROWS {
                let (row, weight) = match self.by_key {
                    true => (self.cursor.value(), 1),
                    false => (self.cursor.key().get(1..).unwrap_or_default(), self.cursor.weight()),
                };
                bytes.extend_from_slice(row);
                ends.push(bytes.len());
                weights.push(weight);
                self.cursor.next()?;
            }
            let rows = ends.windows(2).filter_map(|w| bytes.get(*w.first()?..*w.last()?));
            let columns = self.codec.decode(rows)?;
            give(Delta::new(self.schema, columns, weights).map_err(CircuitError::arrow("query"))?)?;
        }
        Ok(())
    }
}

/// The result's rows so far.
struct Collected {
    schema: SchemaRef,
    codec: RowCodec,
    rows: Spine,
}

impl Collected {
    fn new(schema: &SchemaRef) -> Result<Self> {
        let (codec, rows) = (RowCodec::of_schema(schema)?, Spine::ephemeral(Discipline::Weighted));
        Ok(Self { schema: Arc::clone(schema), codec, rows })
    }

    fn add(&mut self, delta: &Delta) -> Result<()> {
        let columns: Vec<_> = delta.rows.columns().iter().map(normalise).collect();
        let encoded = self.codec.encode(&columns, delta.len())?;
        let mut batch = RowBatch::new();
        for (i, &weight) in delta.weights.iter().enumerate() {
            batch.push(encoded.get(i), &[], weight);
        }
        batch.consolidate(Discipline::Weighted);
        Ok(self.rows.insert_batch(&batch)?)
    }

    fn finish(self, order: &crate::sql::Order) -> Result<Answer> {
        let mut cursor = self.rows.cursor()?;
        let mut encoded = RowBatch::new();
        let mut negative = 0;
        while cursor.valid() {
            match cursor.weight() {
                ..=-1 => negative += 1,
                // One entry each time: the batch of the result is as long as what is printed.
                weight => (0..weight).for_each(|_| encoded.push(cursor.key(), &[], 1)),
            }
            cursor.next()?;
        }
        let columns = self.codec.decode((0..encoded.len()).map(|i| encoded.key(i)))?;
        let failed = |e: String| PipelineError::Storage(Error::Invalid(format!("the query's result: {e}")));
        let rows = Delta::new(&self.schema, columns, vec![1; encoded.len()]).map_err(|e| failed(e.to_string()))?.rows;
        let rows = order.apply(rows).map_err(|e| failed(e.strip_backtrace()))?;
        Ok(Answer { rows, negative })
    }
}
