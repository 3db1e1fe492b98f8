//! The file of an output's pending deltas, named by a checkpoint.
//!
//! An Arrow IPC stream; the view's columns followed by `#step` (UInt64) and `#weight` (Int64). A step whose delta is empty has no row: the sink's
//! step then moves with the next one, which changes nothing that the sink holds. The storage engine checks the file's bytes.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::circuit::Delta;
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::output::Pending;

/// The file's bytes.
pub fn encode(schema: &SchemaRef, pending: &[Pending]) -> Result<Vec<u8>> {
    let fail = |e: ArrowError| PipelineError::State(format!("pending output cannot be written: {e}"));
    let schema = extended(schema);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(fail)?;
    for Pending { step, delta, .. } in pending.iter().filter(|p| !p.delta.is_empty()) {
        let mut columns = delta.rows.columns().to_vec();
        columns.push(Arc::new(UInt64Array::from_value(*step, delta.len())));
        columns.push(Arc::new(Int64Array::from(delta.weights.clone())));
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns).map_err(fail)?).map_err(fail)?;
    }
    writer.into_inner().map_err(fail)
}

/// The deltas in a file, with their steps.
pub fn decode(schema: &SchemaRef, name: &str, bytes: &[u8]) -> Result<Vec<(u64, Delta)>> {
    let fail = |e: ArrowError| PipelineError::State(format!("pending output file {name} cannot be read: {e}"));
    let mut deltas = Vec::new();
    for batch in StreamReader::try_new(bytes, None).map_err(fail)? {
        let batch = batch.map_err(fail)?;
        if batch.num_columns() != schema.fields().len() + 2 {
            return Err(PipelineError::State(format!(
                "pending output file {name} has {} columns, expected {}",
                batch.num_columns(),
                schema.fields().len() + 2
            )));
        }
        let (columns, added) = batch.columns().split_at(schema.fields().len());
        let [steps, weights] = added else { continue };
        let (Some(steps), Some(weights)) =
            (steps.as_primitive_opt::<UInt64Type>(), weights.as_primitive_opt::<Int64Type>())
        else {
            return Err(PipelineError::State(format!("pending output file {name} has no step and weight columns")));
        };
        let Some(step) = steps.values().first() else { continue };
        let rows = RecordBatch::try_new(Arc::clone(schema), columns.to_vec()).map_err(fail)?;
        deltas.push((*step, Delta { rows, weights: weights.values().to_vec() }));
    }
    Ok(deltas)
}

fn extended(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("#step", DataType::UInt64, false)));
    fields.push(Arc::new(Field::new("#weight", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;

    #[test]
    fn what_is_written_is_read_and_damage_is_an_error() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true)]));
        let delta = |names: Vec<Option<&str>>, weights: Vec<i64>| Delta {
            rows: RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(names))]).unwrap(),
            weights,
        };
        let pending = [
            Pending::new(4, delta(vec![Some("a"), None], vec![1, -2])),
            Pending::new(5, delta(vec![], vec![])),
            Pending::new(6, delta(vec![Some("b")], vec![1])),
        ];
        let bytes = encode(&schema, &pending).unwrap();
        let read = decode(&schema, "x", &bytes).unwrap();
        assert_eq!(read.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(read[0].1.rows, pending[0].delta.rows);
        assert_eq!(read[0].1.weights, [1, -2]);
        assert!(decode(&schema, "x", &bytes[..20]).unwrap_err().to_string().contains("pending output file x"));
    }
}
