//! A step's changes as one Parquet file: the view's columns, behind them `op`, `insert` or `delete`; a row of weight w stands there |w| times.
//! With `include_step` the step's number comes first, in the column `step`.
//!
//! Settings: `include_step`; `compression`: `snappy` (the default), `zstd` or `none`.
//!
//! Invariant: the rows are a function of the delta and the step, the bytes too as long as the encoder is the same one: whether a file says the same is
//! for [`same`] to tell.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use super::cell::check_output_types;
use crate::circuit::Delta;
use crate::connector::options::Options;
use crate::connector::{ConnectorError, Context, Result};

/// Writes deltas.
#[derive(Debug)]
pub(crate) struct Encoder {
    connector: String,
    schema: SchemaRef,
    include_step: bool,
    properties: WriterProperties,
}

impl Encoder {
    pub(crate) fn new(config: &Value, ctx: &Context) -> Result<Self> {
        let known = ["include_step", "compression"];
        let options = Options::new(&ctx.name, "format.config of parquet", config, &known, &["buffer_size_records"])?;
        check_output_types(&ctx.name, &ctx.schema)?;
        let compression = match options.string("compression")?.unwrap_or("snappy") {
            "snappy" => Compression::SNAPPY,
            "zstd" => Compression::ZSTD(Default::default()),
            "none" => Compression::UNCOMPRESSED,
            other => return Err(options.unknown("compression", other, &["snappy", "zstd", "none"])),
        };
        let include_step = options.bool("include_step")?.unwrap_or(false);
        let mut fields: Vec<Arc<Field>> = ctx.schema.fields().iter().map(Arc::clone).collect();
        if include_step {
            fields.insert(0, Arc::new(Field::new("step", DataType::UInt64, false)));
        }
        fields.push(Arc::new(Field::new("op", DataType::Utf8, false)));
        for (i, field) in fields.iter().enumerate() {
            if fields.iter().take(i).any(|f| f.name().eq_ignore_ascii_case(field.name())) {
                let message =
                    format!("two columns of the file would be called {}: name the view's otherwise", field.name());
                return Err(options.error(message));
            }
        }
        let properties = WriterProperties::builder().set_compression(compression).set_created_by("Backstay".to_owned());
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { connector: ctx.name.clone(), schema, include_step, properties: properties.build() })
    }

    /// A step's file.
    pub(crate) fn encode(&self, step: u64, delta: &Delta) -> Result<Vec<u8>> {
        let fail = |e: &dyn std::fmt::Display| {
            ConnectorError::new(&self.connector, format!("step {step} cannot be written as Parquet: {e}"))
        };
        let mut rows: Vec<u32> = Vec::with_capacity(delta.len());
        let mut ops: Vec<&str> = Vec::with_capacity(delta.len());
        for (row, weight) in (0_u32..).zip(&delta.weights) {
            for _ in 0..weight.unsigned_abs() {
                rows.push(row);
                ops.push(if *weight > 0 { "insert" } else { "delete" });
            }
        }
        let count = rows.len();
        let rows = UInt32Array::from(rows);
        let columns = delta.rows.columns().iter().map(|column| take(column, &rows, None));
        let mut columns = columns.collect::<Result<Vec<ArrayRef>, _>>().map_err(|e| fail(&e))?;
        if self.include_step {
            columns.insert(0, Arc::new(UInt64Array::from(vec![step; count])));
        }
        columns.push(Arc::new(StringArray::from(ops)));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| fail(&e))?;
        let write = || {
            let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&self.schema), Some(self.properties.clone()))?;
            writer.write(&batch)?;
            writer.into_inner()
        };
        write().map_err(|e: ParquetError| fail(&e))
    }
}

/// Whether two files hold the same rows, in the same order: another release may write the same ones with other bytes.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let rows = |bytes: &[u8]| -> Option<RecordBatch> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).ok()?.build().ok()?;
        let schema = arrow::array::RecordBatchReader::schema(&reader);
        let batches = reader.collect::<Result<Vec<_>, _>>().ok()?;
        concat_batches(&schema, &batches).ok()
    };
    match (rows(a), rows(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, TimestampMicrosecondArray};
    use backstay_storage::disk::SimDisk;
    use serde_json::json;

    use super::*;
    use crate::connector::testing::{context, schema, text};

    fn delta() -> Delta {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1, 2])),
            Arc::new(StringArray::from(vec![Some("a"), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None])),
            Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN)])),
        ];
        Delta { rows: RecordBatch::try_new(schema(), columns).unwrap(), weights: vec![-1, 2] }
    }

    fn encoder(config: &Value) -> Result<Encoder> {
        Encoder::new(config, &context(Arc::new(SimDisk::new(1)), schema()))
    }

    #[test]
    fn a_step_is_a_file() {
        let bytes = encoder(&json!({"include_step": true})).unwrap().encode(7, &delta()).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes.clone())).unwrap().build().unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        let rows: Vec<String> = (0..3).map(|i| text(&batches[0].slice(i, 1))).collect();
        let taken = "7,1,a,1970-01-01T00:00:01.500,0.5,delete";
        assert_eq!(rows, [taken, "7,2,NULL,NULL,NaN,insert", "7,2,NULL,NULL,NaN,insert"]);
        assert_eq!(encoder(&json!({"include_step": true})).unwrap().encode(7, &delta()).unwrap(), bytes);

        // Other bytes may say the same, or not.
        let zstd = encoder(&json!({"include_step": true, "compression": "zstd"})).unwrap();
        assert!(zstd.encode(7, &delta()).unwrap() != bytes && same(&zstd.encode(7, &delta()).unwrap(), &bytes));
        assert!(!same(&zstd.encode(8, &delta()).unwrap(), &bytes) && !same(&bytes, b"else"));
    }

    #[test]
    fn settings_are_checked() {
        let e = encoder(&json!({"compression": "zst"})).unwrap_err().to_string();
        assert!(e.contains("did you mean \"zstd\"?"), "{e}");
        let fields = vec![Field::new("Op", DataType::Int64, false)];
        let ctx = context(Arc::new(SimDisk::new(1)), Arc::new(Schema::new(fields)));
        let e = Encoder::new(&json!({}), &ctx).unwrap_err().to_string();
        assert!(e.contains("two columns of the file would be called op"), "{e}");
    }
}
