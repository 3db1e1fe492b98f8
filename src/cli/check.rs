//! `backstay check`: whether a SQL program compiles, and to what circuit, and whether its connectors' settings are right. Opens nothing.

use std::path::{Path, PathBuf};

use super::out::counted;
use super::run::{of_program, variables};
use super::{Failure, read_text};
use crate::circuit::{Growth, growing_state};
use crate::pipeline::check_connectors;
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
    // Some directory of data: a run has one.
    let variables = variables(Some(Path::new("data")), true)?;
    let unknown = check_connectors(&program, "check", &of_program(&args.sql, variables))?;
    if args.explain {
        out!("{}", program.plan);
    }
    outln!(
        "{}: {}, {}, {}",
        args.sql.display(),
        counted(program.tables.len() as u64, "table"),
        counted(program.views.len() as u64, "view"),
        counted(program.plan.nodes.len() as u64, "operator")
    );
    for why in unknown {
        outln!("not checked: {why}");
    }
    for table in program.tables.iter().filter(|table| !table.declared.is_empty()) {
        let skipped: Vec<&str> = table
            .declared
            .iter()
            .filter(|column| column.is_skipped)
            .map(|column| column.field.name().as_str())
            .collect();
        outln!("{} skips the columns that nothing reads: {}", table.name, skipped.join(", "));
    }
    let growing = growing_state(&program.plan);
    if !growing.is_empty() {
        outln!("state that grows with the input (LATENESS on a column of time can bound it, see docs/sql.md):");
    }
    for Growth { node, label, keeps } in growing {
        outln!("  operator {node}, {label}: keeps {keeps}");
    }
    Ok(())
}
