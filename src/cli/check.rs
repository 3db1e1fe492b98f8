//! `backstay check`: whether a SQL program compiles, and to what circuit.

use std::path::PathBuf;

use super::{Failure, read_text};
use crate::circuit::{Growth, growing_state};
use crate::sql;

/// What `check` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The SQL program.
    sql: PathBuf,
    /// Show the circuit too: a line for each operator, with its id.
    #[arg(long)]
    explain: bool,
}

/// Runs the command.
pub(super) fn check(args: Args) -> Result<(), Failure> {
    let text = read_text(&args.sql, "SQL file")?;
    let program = sql::compile(&text, &args.sql.display().to_string()).map_err(Failure::usage)?;
    if args.explain {
        out!("{}", program.plan);
    }
    outln!(
        "{}: {} tables, {} views, {} operators",
        args.sql.display(),
        program.tables.len(),
        program.views.len(),
        program.plan.nodes.len()
    );
    let growing = growing_state(&program.plan);
    if !growing.is_empty() {
        outln!("state that grows with the input (LATENESS on a column of time can bound it, see docs/sql.md):");
    }
    for Growth { node, label, keeps } in growing {
        outln!("  operator {node}, {label}: keeps {keeps}");
    }
    Ok(())
}
