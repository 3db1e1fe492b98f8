//! `backstay query`: a SELECT over what a pipeline's newest checkpoint, or a savepoint, keeps.

use std::io::Write;
use std::path::PathBuf;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use backstay_storage::{Error, disk};

use super::Failure;
use crate::pipeline::PipelineError;
use crate::pipeline::query::{Asked, QueryError};

/// What blocks of the state's runs may take in memory.
const CACHE_BYTES: u64 = 64 << 20;

/// What `query` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Tables with a PRIMARY KEY or WITH ('materialized' = 'true') and MATERIALIZED views can be asked. The
answer is as of the step of the newest checkpoint, or of the savepoint; the pipeline may be running or
stopped. Without a query, what can be asked is listed.")]
pub struct Args {
    /// The data directory.
    data_dir: PathBuf,
    /// The query: one SELECT.
    sql: Option<String>,
    /// Ask this savepoint.
    #[arg(long, value_name = "NAME")]
    savepoint: Option<String>,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// A header line, then a line a row; NULL is an empty field.
    Csv,
    /// An object a line.
    Json,
    /// An Arrow IPC stream.
    Arrow,
}

/// Runs the command.
pub(super) fn query(args: Args) -> Result<(), Failure> {
    let asked =
        Asked::open(&disk::system(), &args.data_dir, args.savepoint.as_deref(), CACHE_BYTES).map_err(|e| match e {
            PipelineError::Storage(Error::Invalid(said)) => Failure::usage(said),
            other => other.into(),
        })?;
    let Some(sql) = &args.sql else {
        list(&asked);
        return Ok(());
    };
    let answer = asked.answer(sql).map_err(|e| match e {
        QueryError::Sql(errors) => Failure::usage(errors),
        QueryError::Pipeline(error) => error.into(),
    })?;
    let mut out = std::io::stdout().lock();
    match write(&answer.rows, args.format, &mut out).and_then(|()| Ok(out.flush()?)) {
        // `query … | head` is no failure.
        Err(Unwritten::Io(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
        result => result.map_err(|e| Failure::new(1, format!("the result cannot be written: {e}")))?,
    }
    let state = asked.state();
    eprintln!("{} row(s); pipeline {} after step {}", answer.rows.num_rows(), state.name, state.step);
    if answer.negative > 0 {
        eprintln!(
            "warning: {} row(s) have a negative count and are not shown: their table was told to delete rows that it did not hold",
            answer.negative
        );
    }
    Ok(())
}

fn list(asked: &Asked) {
    for (name, schema) in asked.relations() {
        let columns: Vec<String> = schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        println!("{name} ({})", columns.join(", "));
    }
    if asked.relations().is_empty() {
        println!("nothing is kept: no table has a PRIMARY KEY, and no table or view is materialized");
    }
}

#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

fn write(rows: &RecordBatch, format: Format, out: &mut impl Write) -> Result<(), Unwritten> {
    match format {
        Format::Table => table(rows, out)?,
        Format::Csv => arrow::csv::WriterBuilder::new().with_header(true).build(out).write(rows)?,
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
