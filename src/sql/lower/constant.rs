//! Rows that no table gives: VALUES, a SELECT without FROM, and the empty relation of `WHERE false`.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, new_empty_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::logical_plan::{EmptyRelation, Values};

use super::{Lowering, Refusal, Result, Stream, nullable};
use crate::circuit::plan::NodeKind;

impl Lowering<'_> {
    /// No row, or one without columns.
    pub(super) fn empty(&mut self, empty: &EmptyRelation) -> Result<Stream> {
        let fields = empty.schema.as_arrow();
        if empty.produce_one_row && !fields.fields().is_empty() {
            return Err(Refusal::new("a row of no relation with columns is not supported yet"));
        }
        if empty.produce_one_row {
            return self.constant(&one_column(), vec![one_cell()]);
        }
        let schema = if fields.fields().is_empty() { one_column() } else { fields.clone() };
        let columns = schema.fields().iter().map(|f| new_empty_array(f.data_type())).collect();
        self.constant(&schema, columns)
    }

    pub(super) fn values(&mut self, values: &Values) -> Result<Stream> {
        let one_row = RecordBatch::try_new(Arc::new(one_column()), vec![one_cell()]).map_err(DataFusionError::from)?;
        let mut columns = Vec::with_capacity(values.schema.fields().len());
        for (i, field) in values.schema.fields().iter().enumerate() {
            let mut cells = Vec::with_capacity(values.values.len());
            for e in values.values.iter().filter_map(|row| row.get(i)) {
                let cell = self.physical(e, &DFSchema::empty())?.evaluate(&one_row)?.into_array(1)?;
                cells.push(cast(&cell, field.data_type()).map_err(DataFusionError::from)?);
            }
            let cells: Vec<_> = cells.iter().map(AsRef::as_ref).collect();
            columns.push(concat(&cells).map_err(DataFusionError::from)?);
        }
        self.constant(values.schema.as_arrow(), columns)
    }

    fn constant(&mut self, schema: &Schema, columns: Vec<ArrayRef>) -> Result<Stream> {
        let schema = nullable(schema);
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(DataFusionError::from)?;
        Ok(self.push(NodeKind::Constant(rows), Vec::new(), schema, "constant"))
    }
}

/// The constant column of a relation without columns.
fn one_column() -> Schema {
    Schema::new(vec![Field::new("_", DataType::Boolean, true)])
}

fn one_cell() -> ArrayRef {
    Arc::new(BooleanArray::from(vec![true]))
}
