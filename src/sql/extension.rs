//! Nodes of the logical plan that are ours, over one input each: what DataFusion's own cannot say.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, Result};
use datafusion_expr::logical_plan::Extension;
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

/// What is done to the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Hash)]
pub(super) enum Operation {
    /// Its one row, or a row of NULLs. The columns are the input's, but nullable.
    SingleRow,
    /// Its rows as often as the last column says, not at all if that is not positive; and without that column.
    Repeat,
}

/// An operation on an input.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Operated {
    pub operation: Operation,
    pub input: LogicalPlan,
    schema: DFSchemaRef,
}

impl Operated {
    /// The operation as a plan.
    pub fn plan(operation: Operation, input: LogicalPlan) -> Result<LogicalPlan> {
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(Self::new(operation, input)?) }))
    }

    fn new(operation: Operation, input: LogicalPlan) -> Result<Self> {
        let fields = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
        let fields = match operation {
            Operation::SingleRow => {
                let nullable = |f: Arc<Field>| Arc::new(Field::new(f.name(), f.data_type().clone(), true));
                fields.map(|(qualifier, field)| (qualifier, nullable(field))).collect()
            }
            Operation::Repeat => fields.take(input.schema().fields().len().saturating_sub(1)).collect(),
        };
        let schema = DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?;
        Ok(Self { operation, input, schema: Arc::new(schema) })
    }
}

impl PartialOrd for Operated {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.operation, &self.input).partial_cmp(&(other.operation, &other.input))
    }
}

impl UserDefinedLogicalNodeCore for Operated {
    fn name(&self) -> &str {
        match self.operation {
            Operation::SingleRow => "SingleRow",
            Operation::Repeat => "Repeat",
        }
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[LogicalPlan; 1]>::try_from(inputs) {
            Ok([input]) => Self::new(self.operation, input),
            Err(inputs) => Err(DataFusionError::Internal(format!("{} over {} inputs", self.name(), inputs.len()))),
        }
    }
}
