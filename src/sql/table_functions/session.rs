//! `SESSION`: a node of the logical plan over one relation, whose columns it has with the session's start and end behind them.
//!
//! Its columns are expressions of the node, so that the optimizer may leave out what nobody reads. Conditions on columns of the partition
//! key go below it, since they take whole partitions; no others do.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion_common::{Column, DFSchema, DFSchemaRef, DataFusionError, Result};
use datafusion_expr::logical_plan::Extension;
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use super::ADDED;
use crate::circuit::plan::Session;

/// Rows with their sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::sql) struct SessionWindow {
    pub input: LogicalPlan,
    pub time: Column,
    pub partition: Vec<Column>,
    pub gap_us: i64,
    pub schema: DFSchemaRef,
}

impl SessionWindow {
    /// The node as a plan.
    pub fn plan(input: LogicalPlan, time: Column, partition: Vec<Column>, gap_us: i64) -> Result<LogicalPlan> {
        let node = Arc::new(Self::new(input, time, partition, gap_us)?);
        Ok(LogicalPlan::Extension(Extension { node }))
    }

    fn new(input: LogicalPlan, time: Column, partition: Vec<Column>, gap_us: i64) -> Result<Self> {
        let fields = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
        let added = ADDED.map(|name| (None, Arc::new(Field::new(name, Session::TIME, true))));
        let fields = fields.chain(added).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Self { input, time, partition, gap_us, schema })
    }

    /// The node's columns as places in its input.
    pub fn circuit(&self) -> Result<Session> {
        let place = |column: &Column| self.input.schema().index_of_column(column);
        let partition = self.partition.iter().map(place).collect::<Result<_>>()?;
        Ok(Session { partition, time: place(&self.time)?, gap_us: self.gap_us })
    }
}

impl PartialOrd for SessionWindow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.time, &self.partition, self.gap_us, &self.input).partial_cmp(&(
            &other.time,
            &other.partition,
            other.gap_us,
            &other.input,
        ))
    }
}

impl UserDefinedLogicalNodeCore for SessionWindow {
    fn name(&self) -> &str {
        "Session"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.partition).cloned().map(Expr::Column).collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let is_key = |name: &str| self.partition.iter().any(|c| c.name == name);
        let names = self.schema.fields().iter().map(|f| f.name());
        names.filter(|name| !is_key(name)).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session: {} by {:?}", self.time, self.partition)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut columns = exprs.into_iter().map(|e| match e {
            Expr::Column(column) => Ok(column),
            other => Err(DataFusionError::Internal(format!("Session over `{other}`, which is no column"))),
        });
        let Some(time) = columns.next() else {
            return Err(DataFusionError::Internal("Session without its time".to_owned()));
        };
        let (time, partition) = (time?, columns.collect::<Result<Vec<_>>>()?);
        match <[LogicalPlan; 1]>::try_from(inputs) {
            Ok([input]) => Self::new(input, time, partition, self.gap_us),
            Err(inputs) => Err(DataFusionError::Internal(format!("Session over {} inputs", inputs.len()))),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let session = self.circuit().ok()?;
        let width = self.input.schema().fields().len();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|&i| i < width).collect();
        needed.extend(session.partition);
        needed.push(session.time);
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
