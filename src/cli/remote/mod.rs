//! Commands that ask a service (`backstay serve`) by its REST API, under the words of Feldera's `fda`.
//!
//! With `--json` a command prints what the service answers, as JSON on stdout.

pub(super) mod client;
mod data;
mod lifecycle;
mod pipelines;

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;

use super::Failure;
use client::{Client, Service};
pub(super) use data::query;

/// What all of these commands take.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) service: Service,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the service's pipelines.
    Pipelines {
        #[command(flatten)]
        common: Common,
    },
    /// Create a pipeline.
    Create {
        /// Its name.
        name: String,
        /// The SQL program; `-`: standard input.
        program: PathBuf,
        /// Its configuration (JSON); default: exactly once.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Show or set a pipeline's SQL program.
    Program {
        #[command(subcommand)]
        command: ProgramCommand,
    },
    /// Show a pipeline's configuration.
    Config {
        /// The pipeline.
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Set a key of a stopped pipeline's configuration.
    #[command(after_help = "\
The value is JSON where it can be read as such, else text: `set-config p workers 4`,
`set-config p fault_tolerance '{\"checkpoint_interval_secs\": 10}'`. `null` unsets a key.")]
    SetConfig {
        /// The pipeline.
        name: String,
        /// The key.
        key: String,
        /// The value.
        value: String,
        #[command(flatten)]
        common: Common,
    },
    /// Start a pipeline, and wait until it is there.
    Start {
        /// Let it make no steps yet.
        #[arg(long)]
        paused: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Let a pipeline make no more steps.
    Pause {
        #[command(flatten)]
        change: Change,
    },
    /// Let a paused pipeline go on.
    Resume {
        #[command(flatten)]
        change: Change,
    },
    /// Stop a pipeline, behind a checkpoint.
    Stop {
        /// At once, without a checkpoint; nothing durable is lost.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Remove what a stopped pipeline keeps.
    Clear {
        #[command(flatten)]
        change: Change,
    },
    /// Delete a pipeline that is stopped and cleared.
    Delete {
        /// Clear it first.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Tell what a pipeline does.
    Status {
        /// The pipeline.
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Show a running pipeline's figures.
    Stats {
        /// The pipeline.
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let a running pipeline take a checkpoint, and wait for it.
    Checkpoint {
        #[command(flatten)]
        change: Change,
    },
    /// Show what a pipeline's process has said.
    Logs {
        /// The pipeline.
        name: String,
        /// Go on with what it says from now on.
        #[arg(long, short)]
        watch: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Show a connector's figures, or let it pause or go on.
    Connector {
        /// The pipeline.
        name: String,
        /// The table or view.
        relation: String,
        /// The connector.
        connector: String,
        /// What to do.
        #[arg(value_enum)]
        action: ConnectorAction,
        #[command(flatten)]
        common: Common,
    },
}

/// A change of what a pipeline does.
#[derive(Debug, clap::Args)]
pub(super) struct Change {
    /// The pipeline.
    name: String,
    /// Do not wait until it has come to pass.
    #[arg(long, short)]
    no_wait: bool,
    #[command(flatten)]
    common: Common,
}

/// What can be done with a connector.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum ConnectorAction {
    /// Show its figures.
    Stats,
    /// Let it go on.
    Start,
    /// Let it wait; the pipeline goes on without it.
    Pause,
}

/// What can be done with a program.
#[derive(Debug, Subcommand)]
pub(super) enum ProgramCommand {
    /// Print it.
    Get {
        /// The pipeline.
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Set it; the pipeline must be stopped and cleared.
    Set {
        /// The pipeline.
        name: String,
        /// The SQL program; `-`: standard input.
        program: PathBuf,
        #[command(flatten)]
        common: Common,
    },
}

/// Runs a command.
pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Pipelines { common } => pipelines::list(&common),
        Command::Create { name, program, config, common } => {
            pipelines::create(&name, &program, config.as_deref(), &common)
        }
        Command::Program { command: ProgramCommand::Get { name, common } } => pipelines::program(&name, &common),
        Command::Program { command: ProgramCommand::Set { name, program, common } } => {
            pipelines::set_program(&name, &program, &common)
        }
        Command::Config { name, common } => pipelines::config(&name, &common),
        Command::SetConfig { name, key, value, common } => pipelines::set_config(&name, &key, &value, &common),
        Command::Start { paused, change } => lifecycle::start(&change, paused),
        Command::Pause { change } => lifecycle::turn(&change, "pause", "Paused"),
        Command::Resume { change } => lifecycle::turn(&change, "resume", "Running"),
        Command::Stop { force, change } => lifecycle::turn(&change, &format!("stop?force={force}"), "Stopped"),
        Command::Clear { change } => lifecycle::clear(&change),
        Command::Delete { force, change } => lifecycle::delete(&change, force),
        Command::Status { name, common } => pipelines::status(&name, &common),
        Command::Stats { name, common } => data::stats(&name, &common),
        Command::Checkpoint { change } => lifecycle::checkpoint(&change),
        Command::Logs { name, watch, common } => data::logs(&name, watch, &common),
        Command::Connector { name, relation, connector, action, common } => {
            data::connector((&name, &relation, &connector), action, &common)
        }
    }
}

impl Common {
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.service)
    }

    /// Prints an answer as JSON if that is wanted, or else what `told` makes of it.
    pub(super) fn show(&self, answer: &Value, told: impl FnOnce(&Value) -> String) {
        match self.json {
            true => outln!("{answer:#}"),
            false => outln!("{}", told(answer).trim_end()),
        }
    }
}

/// A key's text, for people.
fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}
