//! Fused chains of filters, projections, repetitions and unnested lists: no state, no exchange.
//!
//! DataFusion fails a whole batch when an expression fails on one of its rows. So a batch that fails is halved until the rows
//! at fault stand alone; each gets the treatment that the config asks for, and no other row is lost.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use datafusion_physical_expr::PhysicalExpr;

use super::{Operator, StepContext};
use crate::circuit::delta::{Delta, batch};
use crate::circuit::error::{EvalError, Result};
use crate::circuit::plan::{Node, Stage};

mod unnest;

/// The operator; see the module.
pub struct Linear {
    evaluator: Evaluator,
}

impl Linear {
    /// The operator of a linear node.
    pub fn new(node: &Node, stages: Vec<Stage>) -> Self {
        Self { evaluator: Evaluator { label: node.label.clone(), stages } }
    }
}

impl Operator for Linear {
    fn step(&mut self, context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let mut out = Vec::new();
        for chunk in inputs.into_iter().flatten() {
            self.evaluator.run(context, chunk, &mut out)?;
        }
        Ok(out)
    }
}

/// Runs stages over deltas, row by row where an expression fails.
#[derive(Debug)]
pub(super) struct Evaluator {
    pub(super) label: String,
    pub(super) stages: Vec<Stage>,
}

/// An expression that failed on a batch.
struct Failure {
    expression: String,
    message: String,
}

impl Evaluator {
    /// Appends the rows that come out of the stages, in order, without empty chunks.
    pub(super) fn run(&self, context: &mut StepContext, chunk: Delta, out: &mut Vec<Delta>) -> Result<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        match self.evaluate(chunk.clone()) {
            Ok(delta) if delta.is_empty() => Ok(()),
            Ok(delta) => {
                out.push(delta);
                Ok(())
            }
            Err(failure) if chunk.len() == 1 => self.fail(context, &chunk.rows, failure),
            Err(_) => {
                let half = chunk.len() / 2;
                self.run(context, chunk.slice(0, half), out)?;
                self.run(context, chunk.slice(half, chunk.len() - half), out)
            }
        }
    }

    fn evaluate(&self, mut delta: Delta) -> Result<Delta, Failure> {
        for stage in &self.stages {
            if delta.is_empty() {
                break;
            }
            delta = match stage {
                Stage::Filter(predicate) => {
                    let mask = mask(predicate, &delta.rows)?;
                    delta.filter(&mask).map_err(|e| failure(predicate, e))?
                }
                Stage::Project { exprs, schema } => {
                    let columns: Vec<ArrayRef> = exprs
                        .iter()
                        .zip(schema.fields())
                        .map(|(expr, field)| {
                            let column = column(expr, &delta.rows)?;
                            if !field.is_nullable() && column.null_count() > 0 {
                                let message =
                                    format!("NULL in the column {}, which is declared NOT NULL", field.name());
                                return Err(failure(expr, message));
                            }
                            Ok(column)
                        })
                        .collect::<Result<_, Failure>>()?;
                    let rows = batch(schema, columns, delta.len())
                        .map_err(|e| Failure { expression: "projection".to_owned(), message: e.to_string() })?;
                    Delta { rows, weights: delta.weights }
                }
                Stage::Repeat { schema } => repeat(schema, &delta)
                    .map_err(|e| Failure { expression: "repeat".to_owned(), message: e.to_string() })?,
                Stage::Unnest { lists, keeps_empty, schema } => unnest::unnest(&delta, lists, *keeps_empty, schema)
                    .map_err(|e| Failure { expression: "unnest".to_owned(), message: e.to_string() })?,
            };
        }
        Ok(delta)
    }

    fn fail(&self, context: &mut StepContext, row: &RecordBatch, failure: Failure) -> Result<()> {
        context.fail(EvalError {
            label: self.label.clone(),
            expression: failure.expression,
            message: failure.message,
            row: render(row),
            rows: 1,
        })
    }
}

/// The rows without their last column, as often as it says.
fn repeat(schema: &SchemaRef, delta: &Delta) -> Result<Delta, ArrowError> {
    let Some((times, columns)) = delta.rows.columns().split_last() else {
        return Err(ArrowError::ComputeError("a row without a number".to_owned()));
    };
    let times = times.as_primitive_opt::<Int64Type>();
    let times = times.ok_or_else(|| ArrowError::ComputeError("the number of a row is no BIGINT".to_owned()))?;
    let weights = delta.weights.iter().zip(times).map(|(w, n)| w.wrapping_mul(n.unwrap_or(0))).collect();
    let is_there: BooleanArray = times.iter().map(|n| Some(n.is_some_and(|n| n > 0))).collect();
    Delta::new(schema, columns.to_vec(), weights)?.filter(&is_there)
}

fn failure(expr: &Arc<dyn PhysicalExpr>, message: impl ToString) -> Failure {
    Failure { expression: expr.to_string(), message: message.to_string() }
}

fn column(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef, Failure> {
    expr.evaluate(rows).and_then(|value| value.into_array(rows.num_rows())).map_err(|e| failure(expr, e))
}

fn mask(predicate: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<BooleanArray, Failure> {
    let column = column(predicate, rows)?;
    match column.as_boolean_opt() {
        Some(mask) => Ok(mask.clone()),
        None if column.data_type().is_null() => Ok(BooleanArray::new_null(column.len())),
        None => Err(failure(predicate, format!("a filter must be BOOLEAN, this is {}", column.data_type()))),
    }
}

/// The first row as `column: value, …`.
pub(super) fn render(row: &RecordBatch) -> String {
    let fields = row.schema();
    let values = fields.fields().iter().zip(row.columns()).map(|(field, column)| {
        let value = match column.is_null(0) {
            true => "NULL".to_owned(),
            false => array_value_to_string(column, 0).unwrap_or_else(|e| format!("({e})")),
        };
        format!("{}: {value}", field.name())
    });
    values.collect::<Vec<_>>().join(", ")
}
