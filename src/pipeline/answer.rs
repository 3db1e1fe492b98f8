//! A query's rows as text or bytes: for the command line and for the service.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::connector::format::text::{self, Quoting};

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// A header line, then a line a row; NULL is an empty field.
    Csv,
    /// An object a line.
    Json,
    /// An Arrow IPC stream.
    Arrow,
}

/// Why rows were not written.
#[derive(Debug, thiserror::Error)]
pub enum Unwritten {
    /// What they are written to failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// They have a type that the format cannot say.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

/// Writes a query's rows.
pub fn write(rows: &RecordBatch, format: Format, out: &mut impl Write) -> Result<(), Unwritten> {
    match format {
        Format::Table => table(rows, out)?,
        Format::Csv => {
            let rows = flat(rows).map_err(|e| arrow::error::ArrowError::CsvError(e.message))?;
            arrow::csv::WriterBuilder::new().with_header(true).build(out).write(&rows)?;
        }
        Format::Json => {
            let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, arrow::json::writer::LineDelimited>(out);
            writer.write(rows)?;
            writer.finish()?;
        }
        Format::Arrow => {
            let mut writer = arrow::ipc::writer::StreamWriter::try_new(out, &rows.schema())?;
            writer.write(rows)?;
            writer.finish()?;
        }
    }
    Ok(())
}

/// The rows with arrays, rows and maps as JSON text.
fn flat(rows: &RecordBatch) -> crate::connector::Result<RecordBatch> {
    let schema = rows.schema();
    let mut fields = Vec::with_capacity(rows.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(rows.num_columns());
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        if !matches!(field.data_type(), DataType::List(_) | DataType::Struct(_) | DataType::Map(..)) {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
            continue;
        }
        let texts = text::column("query", column, Quoting::Json)?;
        let texts = (0..column.len()).map(|row| column.is_valid(row).then(|| texts.get(row)));
        fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
        columns.push(Arc::new(texts.collect::<StringArray>()));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|e| crate::connector::ConnectorError::new("query", e.to_string()))
}

/// Columns as wide as their widest cell, numbers to the right.
fn table(rows: &RecordBatch, out: &mut impl Write) -> Result<(), Unwritten> {
    let options = FormatOptions::default().with_null("NULL");
    let mut columns = Vec::with_capacity(rows.num_columns());
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
        let mut cells = vec![field.name().clone()];
        for row in 0..column.len() {
            cells.push(formatter.value(row).try_to_string()?);
        }
        let width = cells.iter().map(|c| c.chars().count()).max().unwrap_or(0);
        columns.push((cells, width, field.data_type().is_numeric()));
    }
    for line in 0..=rows.num_rows() {
        let cells: Vec<String> = columns
            .iter()
            .map(|(cells, width, right)| match (cells.get(line), right) {
                (Some(cell), true) => format!("{cell:>width$}"),
                (Some(cell), false) => format!("{cell:<width$}"),
                (None, _) => String::new(),
            })
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
        if line == 0 {
            let rules: Vec<String> = columns.iter().map(|(_, width, _)| "-".repeat(*width)).collect();
            writeln!(out, "{}", rules.join("  "))?;
        }
    }
    Ok(())
}
