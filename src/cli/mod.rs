//! The command line: one file a command; those that ask a service are in `remote`.
//!
//! Exit codes: 0 done; 1 the pipeline failed; 2 wrong usage, configuration or SQL; 3 damage, or a replay that differs; 4 the directory is
//! in use; 5 no space left; 130 a second signal.

#[macro_use]
mod out;

mod api_key;
mod check;
mod compiler;
mod demo;
mod explain;
mod inspect;
mod progress;
mod query;
mod recover;
mod remote;
mod run;
mod savepoint;
mod serve;

use std::fmt::Display;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::server::manager::record::check_name;

/// SQL views kept up to date over streams and files, exactly once across kill -9 and power loss.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 the pipeline failed; 2 wrong usage, configuration or SQL; 3 damage, or a replay
that differs; 4 the directory is in use; 5 no space left; 130 a second signal.

Commands that ask a service take its address and key from BACKSTAY_URL and BACKSTAY_API_KEY, too.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline: tables, views and connectors of a SQL file.
    Run(run::Args),
    /// Serve many pipelines by a REST API that Feldera's clients know.
    Serve(serve::Args),
    /// Make a key of the service's API, and keep its hash.
    ApiKey(api_key::Args),
    /// Show that nothing is lost or doubled: run a pipeline, kill -9 it five times, compare.
    Demo(demo::Args),
    /// Show what a pipeline's data directory holds. Never writes.
    Inspect(inspect::Args),
    /// Ask a pipeline's state: any SELECT over its materialized tables and views.
    Query(query::Args),
    /// Show a pipeline's operators: rows, state and time of each.
    Explain(explain::Args),
    /// Tell what is wrong with a SQL program, or which circuit it is compiled to. Runs nothing.
    Check(check::Args),
    /// Show ways on for a pipeline whose logged steps cannot be run again, and take one.
    Recover(recover::Args),
    /// Keep a stopped pipeline's state by name, and make directories of it in which a pipeline goes on.
    Savepoint(savepoint::Args),
    #[command(flatten)]
    Remote(remote::Command),
    /// Compile what a service was given, for it.
    #[command(hide = true)]
    Compiler(compiler::Args),
    /// Print a script by which a shell completes these commands.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What a command failed with: a message for people and an exit code.
#[derive(Debug)]
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn new(code: u8, message: impl Display) -> Self {
        Self { message: message.to_string(), code }
    }

    /// Wrong usage, configuration or SQL.
    fn usage(message: impl Display) -> Self {
        Self::new(2, message)
    }
}

impl From<crate::pipeline::PipelineError> for Failure {
    fn from(error: crate::pipeline::PipelineError) -> Self {
        Self::new(error.exit_code(), &error)
    }
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Serve(args) => serve::run(args),
        Command::ApiKey(args) => api_key::run(&args),
        Command::Demo(args) => demo::demo(args),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Query(args) => query::query(args),
        Command::Explain(args) => explain::explain(&args),
        Command::Check(args) => check::check(args),
        Command::Recover(args) => recover::recover(&args),
        Command::Savepoint(args) => savepoint::savepoint(args),
        Command::Remote(command) => remote::run(command),
        Command::Compiler(args) => compiler::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "backstay", &mut script);
            out!("{}", String::from_utf8_lossy(&script));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            crate::logging::fail(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Whether the argument of a command that takes a data directory or a service's pipeline is the second: no directory, and a name that a
/// pipeline may have. A directory goes first.
fn is_pipeline(of: &std::path::Path) -> Option<&str> {
    let is_dir = backstay_storage::disk::system().metadata(of).ok().flatten().is_some_and(|m| m.is_dir);
    of.to_str().filter(|name| !is_dir && check_name(name).is_ok())
}

/// What went wrong with a pipeline of a service that might have been meant as a directory.
fn no_directory(name: &str, failure: Failure) -> Failure {
    let message =
        format!("{}\n({name} is no directory, and so was taken for a pipeline of a service)", failure.message);
    Failure { message, ..failure }
}

/// Reads a small text file that the user named (SQL, configuration).
#[expect(clippy::disallowed_methods, reason = "a file that the user names on the command line is not durable state")]
fn read_text(path: &std::path::Path, what: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("cannot read {what} {}: {e}", path.display())))
}
