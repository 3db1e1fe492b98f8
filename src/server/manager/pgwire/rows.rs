//! Rows as PostgreSQL's types: scalars and lists of them as they are, all else (structs, maps, lists of lists) as JSON in text.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::EncoderOptions;
use arrow::json::writer::make_encoder;
use arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch};
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldInfo, QueryResponse};
use pgwire::error::{PgWireError, PgWireResult};

use super::error;
use super::parameters::format_of;

/// The columns of an answer, in the formats that were asked for.
pub(super) fn columns(schema: &Schema, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    let count = schema.fields().len();
    (0..count).try_for_each(|i| format_of(format, i, count).map(drop))?;
    arrow_schema_to_pg_fields(&shown_schema(schema), format, None)
}

/// An answer.
pub(super) fn response(rows: &RecordBatch, format: &Format) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(columns(&rows.schema(), format)?);
    let shown = shown(rows).map_err(|e| error("XX000", format!("the answer's rows: {e}")))?;
    let rows = encode_recordbatch(Arc::clone(&fields), shown).map(|row| row.map_err(range));
    Ok(QueryResponse::new(fields, futures_util::stream::iter(rows)))
}

/// What is left to do about a number that has more digits than the encoder can take.
fn range(e: PgWireError) -> PgWireError {
    match e {
        PgWireError::UserError(info) if info.code == "22003" => {
            error("22003", format!("{}: DECIMALs have 28 digits here; write CAST(… AS VARCHAR)", info.message))
        }
        e => e,
    }
}

fn is_scalar(data_type: &DataType) -> bool {
    use DataType::{
        Binary, Boolean, Date32, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, Null, Time64, Timestamp, Utf8,
    };
    matches!(
        data_type,
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Decimal128(..) | Utf8 | Binary | Date32 | Null
    ) || matches!(data_type, Timestamp(..) | Time64(_) | DataType::Interval(_))
}

/// Whether the encoder knows a type.
fn is_known(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => is_scalar(item.data_type()) && !matches!(item.data_type(), DataType::Interval(_)),
        other => is_scalar(other),
    }
}

fn shown_field(field: &FieldRef) -> FieldRef {
    if is_known(field.data_type()) {
        return Arc::clone(field);
    }
    Arc::new(Field::new(field.name(), DataType::Utf8, true))
}

fn shown_schema(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(shown_field).collect::<Vec<_>>()))
}

fn shown(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = rows.schema();
    let columns = rows.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| match is_known(field.data_type()) {
        true => Ok(Arc::clone(column)),
        false => json(field, column),
    });
    RecordBatch::try_new(shown_schema(&schema), columns.collect::<Result<_, ArrowError>>()?)
}

fn json(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, column, &options)?;
    let (mut texts, mut text) = (StringBuilder::new(), Vec::new());
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Arc::new(texts.finish()))
}
