//! `backstay query`: a SELECT over what a pipeline's newest checkpoint, or a savepoint, keeps; or over the state of a service's pipeline.

use std::io::Write;
use std::path::PathBuf;

use backstay_storage::{Error, disk};

use super::remote::{self, Common};
use super::{Failure, is_pipeline, no_directory};
use crate::pipeline::PipelineError;
use crate::pipeline::answer::{Format, Unwritten, write};
use crate::pipeline::query::{Asked, QueryError};

/// What blocks of the state's runs may take in memory.
const CACHE_BYTES: u64 = 64 << 20;

/// What `query` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Tables with a PRIMARY KEY or WITH ('materialized' = 'true') and MATERIALIZED views can be asked. The
answer is as of the step of the newest checkpoint, or of the savepoint; the pipeline may be running or
stopped. Without a query, what can be asked is listed. A service's pipeline is asked after the step
that is under way.")]
pub struct Args {
    /// The data directory; or, if there is no such directory, a pipeline of a service.
    #[arg(value_name = "DATA_DIR|PIPELINE")]
    of: PathBuf,
    /// The query: one SELECT.
    sql: Option<String>,
    /// Ask this savepoint.
    #[arg(long, value_name = "NAME")]
    savepoint: Option<String>,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    common: Common,
}

/// Runs the command.
pub(super) fn query(args: Args) -> Result<(), Failure> {
    let format = if args.common.json { Format::Json } else { args.format };
    if let Some(name) = is_pipeline(&args.of) {
        if args.savepoint.is_some() {
            return Err(Failure::usage(format!("--savepoint asks a data directory, and {name} is none")));
        }
        let asked = remote::query(&args.common.client()?, name, args.sql.as_deref(), format);
        return asked.map_err(|failure| no_directory(name, failure));
    }
    let asked =
        Asked::open(&disk::system(), &args.of, args.savepoint.as_deref(), CACHE_BYTES).map_err(|e| match e {
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
    match write(&answer.rows, format, &mut out).and_then(|()| Ok(out.flush()?)) {
        // `query … | head` is no failure.
        Err(Unwritten::Io(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
        result => result.map_err(|e| Failure::new(1, format!("the result cannot be written: {e}")))?,
    }
    let state = asked.state();
    let rows = answer.rows.num_rows();
    let _ = writeln!(std::io::stderr(), "{rows} row(s); pipeline {} after step {}", state.name, state.step);
    if answer.negative > 0 {
        let _ = writeln!(
            std::io::stderr(),
            "warning: {} row(s) have a negative count and are not shown: their table was told to delete rows that it did not hold",
            answer.negative
        );
    }
    Ok(())
}

fn list(asked: &Asked) {
    for (name, schema) in asked.relations() {
        let columns: Vec<String> = schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        outln!("{name} ({})", columns.join(", "));
    }
    if asked.relations().is_empty() {
        outln!("nothing is kept: no table has a PRIMARY KEY, and no table or view is materialized");
    }
}
