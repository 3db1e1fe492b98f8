//! DataFusion's batch answers, and how a view is compared with one: floats by tolerance, all else exactly, as multisets.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use backstay::circuit::row::{RowCodec, normalise};
use backstay::sql::Program;
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

/// Encoded rows and how often each is there.
pub(super) type Rows = HashMap<Vec<u8>, i64>;

/// Our float sums are exact and rounded once; DataFusion's depend on the order.
const TOLERANCE: f64 = 1e-9;

pub(super) struct Oracle {
    context: SessionContext,
    runtime: tokio::runtime::Runtime,
}

impl Oracle {
    pub(super) fn new() -> Self {
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { context: SessionContext::new_with_config(config), runtime }
    }

    /// The rows of each view over these tables, by their number in the program. `references` are other queries for some of them.
    pub(super) fn answers(
        &self,
        program: &Program,
        references: &[(&str, &str)],
        contents: &dyn Fn(usize) -> RecordBatch,
        clock_ms: i64,
    ) -> Result<Vec<RecordBatch>, String> {
        for (i, table) in program.tables.iter().enumerate() {
            self.register(&table.name, contents(i));
        }
        let mut answers = Vec::new();
        for view in &program.views {
            let reference = references.iter().find(|(name, _)| *name == view.name).map(|(_, sql)| *sql);
            let answer = self
                .answer(&super::time::standard(reference.unwrap_or(&view.sql), clock_ms), &view.schema)
                .map_err(|e| format!("the oracle's view {}: {e}", view.name))?;
            self.register(&view.name, answer.clone());
            answers.push(answer);
        }
        Ok(answers)
    }

    fn register(&self, name: &str, batch: RecordBatch) {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
        // One of the same name may be left over from the answer before.
        self.context.deregister_table(TableReference::bare(name)).unwrap();
        self.context.register_table(TableReference::bare(name), Arc::new(table)).unwrap();
    }

    fn answer(&self, sql: &str, schema: &SchemaRef) -> Result<RecordBatch, String> {
        let frame = self.runtime.block_on(self.context.sql(sql)).map_err(|e| e.to_string())?;
        let found: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let batches = self.runtime.block_on(frame.collect()).map_err(|e| e.to_string())?;
        let batch = concat_batches(&batches.first().map_or(found, RecordBatch::schema), &batches).unwrap();
        if batch.num_columns() != schema.fields().len() {
            return Err(format!("{} columns, we have {}", batch.num_columns(), schema.fields().len()));
        }
        // Types differ in the layout of strings and the unit of literal timestamps, and views may rename.
        let fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let columns = batch.columns().iter().zip(&fields).map(|(column, field)| {
            if !alike(column.data_type(), field.data_type()) {
                return Err(format!("{} is {}, ours is {}", field.name(), column.data_type(), field.data_type()));
            }
            cast(column, field.data_type()).map(|c| normalise(&c)).map_err(|e| e.to_string())
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>, String>>()?;
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| e.to_string())
    }
}

fn alike(theirs: &DataType, ours: &DataType) -> bool {
    use DataType::{Binary, BinaryView, Decimal128, LargeUtf8, Timestamp, Utf8, Utf8View};
    theirs == ours
        || theirs.is_null()
        // What its optimizer makes of a CASE may be narrower.
        || theirs.is_integer() && (ours.is_integer() || matches!(ours, Decimal128(_, 0)))
        || theirs.is_floating() && ours.is_floating()
        // Its optimizer rewrites `n / 1` to `n`, whose scale its own plan had raised; the values are compared in ours.
        || matches!((theirs, ours), (Decimal128(..), Decimal128(..)))
        || matches!((theirs, ours), (Utf8View | LargeUtf8, Utf8) | (BinaryView, Binary) | (Timestamp(..), Timestamp(..)))
}

/// Whether a view has exactly the rows of the answer.
pub(super) fn compare(schema: &SchemaRef, got: &Rows, answer: &RecordBatch) -> Result<(), String> {
    let codec = RowCodec::of_schema(schema).unwrap();
    let encoded = codec.encode(answer.columns(), answer.num_rows()).unwrap();
    let mut difference = got.clone();
    for i in 0..encoded.len() {
        *difference.entry(encoded.get(i).to_vec()).or_default() -= 1;
    }
    let mut left: Vec<(Vec<u8>, i64)> = difference.into_iter().filter(|(_, weight)| *weight != 0).collect();
    if left.is_empty() {
        return Ok(());
    }
    left.sort_unstable();
    let columns = codec.decode(left.iter().map(|(row, _)| row.as_slice())).unwrap();
    let mut pending: Vec<(usize, i64)> = Vec::new();
    for (i, (_, weight)) in left.iter().enumerate() {
        let mut weight = *weight;
        // What is too much here may be missing there, a rounding away.
        for (other, missing) in &mut pending {
            if weight.signum() == -missing.signum() && columns.iter().all(|c| is_close(c, i, *other)) {
                let moved = weight.abs().min(missing.abs()) * weight.signum();
                weight -= moved;
                *missing += moved;
            }
        }
        pending.push((i, weight));
    }
    let lines: Vec<String> = pending.iter().filter(|(_, w)| *w != 0).map(|&(i, w)| show(&columns, i, w)).collect();
    match lines.len() {
        0 => Ok(()),
        n => Err(format!("{n} rows differ (+ too many, - missing)\n{}", lines[..n.min(30)].join("\n"))),
    }
}

fn is_close(column: &ArrayRef, a: usize, b: usize) -> bool {
    if column.is_null(a) || column.is_null(b) {
        return column.is_null(a) && column.is_null(b);
    }
    if column.data_type().is_floating() {
        let floats = cast(column, &DataType::Float64).unwrap();
        let (a, b) = (floats.as_primitive::<Float64Type>().value(a), floats.as_primitive::<Float64Type>().value(b));
        return a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0);
    }
    array_value_to_string(column, a).unwrap() == array_value_to_string(column, b).unwrap()
}

fn show(columns: &[ArrayRef], row: usize, weight: i64) -> String {
    let cell = |column: &ArrayRef| match column.is_null(row) {
        true => "NULL".to_owned(),
        false => array_value_to_string(column, row).unwrap(),
    };
    format!("  {weight:+} x ({})", columns.iter().map(cell).collect::<Vec<_>>().join(", "))
}
