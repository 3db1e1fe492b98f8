//! `backstay savepoint`: states of a stopped pipeline that stay, by name, and directories made of them.

use std::path::{Path, PathBuf};

use backstay_storage::{Damage, copy_savepoint, disk};
use serde_json::{Value, json};

use super::inspect::{size, tell_damage};
use super::remote::Common;
use super::remote::client::{self, Client};
use super::{Failure, is_pipeline, no_directory};
use crate::pipeline::savepoint::{self, Made, Savepoint, SavepointError};
use crate::pipeline::state::PipelineState;

/// What `savepoint` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Keep the newest checkpoint of a stopped pipeline under a name, until it is deleted.
    Create {
        /// The data directory; or, if there is no such directory, a pipeline of a service.
        #[arg(value_name = "DATA_DIR|PIPELINE")]
        of: PathBuf,
        /// 1 to 64 lower-case letters, digits, `-` or `_`, the first a letter or digit.
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Show the savepoints. Never writes; works beside a running pipeline.
    List {
        /// The data directory; or, if there is no such directory, a pipeline of a service.
        #[arg(value_name = "DATA_DIR|PIPELINE")]
        of: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Delete a savepoint of a stopped pipeline, and the files that nothing else needs.
    Delete {
        /// The data directory; or, if there is no such directory, a pipeline of a service.
        #[arg(value_name = "DATA_DIR|PIPELINE")]
        of: PathBuf,
        /// The savepoint.
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Make a directory in which `backstay run` goes on from a savepoint. Works beside a running pipeline.
    #[command(after_help = "\
The copy is a pipeline of its own. It reads its inputs on from the savepoint's step, and begins its
outputs anew: a file_output's file holds the changes of the steps after the savepoint, and one that
is there already is refused, whoever wrote it. Files below ${DATA_DIR} are apart by themselves.")]
    Copy {
        /// The data directory.
        data_dir: PathBuf,
        /// The savepoint.
        name: String,
        /// The new data directory: empty, or not there yet.
        to_dir: PathBuf,
    },
}

/// Runs the command.
pub(super) fn savepoint(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Create { of, name, common } => at(&of, &common, |place| create(place, &name, &common)),
        Command::List { of, common } => at(&of, &common, |place| list(place, &of, &common)),
        Command::Delete { of, name, common } => at(&of, &common, |place| delete(place, &name, &common)),
        Command::Copy { data_dir, name, to_dir } => copy(&data_dir, &name, &to_dir),
    }
}

/// Where savepoints are.
enum Place<'a> {
    Directory(&'a Path),
    /// With the path of its savepoints.
    Pipeline(Client, String),
}

fn at(of: &Path, common: &Common, work: impl FnOnce(&Place<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let Some(name) = is_pipeline(of) else { return work(&Place::Directory(of)) };
    let place = Place::Pipeline(common.client()?, format!("{}/savepoints", client::of(name)));
    work(&place).map_err(|failure| no_directory(name, failure))
}

fn of_json<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|e| Failure::new(1, format!("the service answers something else: {e}")))
}

fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn create(place: &Place<'_>, name: &str, common: &Common) -> Result<(), Failure> {
    let Made { savepoint, steps_behind } = match place {
        Place::Directory(dir) => savepoint::create(dir, name)?,
        Place::Pipeline(client, path) => of_json(client.json("POST", path, Some(&json!({ "name": name })))?)?,
    };
    common.show(&to_json(&savepoint), |_| {
        let what = format!(
            "savepoint {name:?} keeps checkpoint {}: pipeline {} after step {}, {}",
            savepoint.checkpoint,
            savepoint.pipeline,
            savepoint.step.unwrap_or_default(),
            size(savepoint.bytes)
        );
        match steps_behind {
            0 => what,
            behind => format!(
                "{what}\nlogged steps after it are not part of it ({behind}): a copy reads their input anew, and has not what was pushed to them"
            ),
        }
    });
    Ok(())
}

fn list(place: &Place<'_>, of: &Path, common: &Common) -> Result<(), Failure> {
    let (all, damage): (Vec<Savepoint>, Vec<Damage>) = match place {
        Place::Directory(dir) => {
            let report = savepoint::report(dir)?;
            (savepoint::all(&report), report.damaged_savepoints().map(|(_, damage)| damage.clone()).collect())
        }
        Place::Pipeline(client, path) => (of_json(client.json("GET", path, None)?)?, Vec::new()),
    };
    if common.json {
        outln!("{:#}", to_json(&all));
    } else if all.is_empty() && damage.is_empty() {
        outln!("no savepoints in {}", of.display());
        return Ok(());
    } else {
        show(&all);
    }
    damage.iter().for_each(tell_damage);
    match damage.len() + all.iter().filter(|s| !s.whole).count() {
        0 => Ok(()),
        bad => Err(Failure::new(
            3,
            format!("{bad} savepoints are damaged; `backstay inspect --verify` tells what is wrong"),
        )),
    }
}

fn show(all: &[Savepoint]) {
    let width = all.iter().map(|s| s.name.len()).max().unwrap_or(0);
    for Savepoint { name, pipeline, checkpoint, step, error, bytes, whole } in all {
        let what = match (step, error) {
            (Some(step), _) => format!("pipeline {pipeline} after step {step}"),
            (None, error) => error.clone().unwrap_or_default(),
        };
        let whole = if *whole { "" } else { "; NOT WHOLE" };
        outln!("{name:width$}  checkpoint {checkpoint}, {what}, {}{whole}", size(*bytes));
    }
}

fn delete(place: &Place<'_>, name: &str, common: &Common) -> Result<(), Failure> {
    match place {
        Place::Directory(dir) => savepoint::delete(dir, name)?,
        Place::Pipeline(client, path) => {
            client.text("DELETE", &format!("{path}/{}", client::escaped(name)), None)?;
        }
    }
    common.show(&json!({ "name": name }), |_| format!("savepoint {name:?} is deleted"));
    Ok(())
}

fn copy(dir: &Path, name: &str, to: &Path) -> Result<(), Failure> {
    let report = savepoint::report(dir)?;
    savepoint::require(&report, name)?;
    let copied = copy_savepoint(&disk::system(), dir, name, to).map_err(SavepointError::from)?;
    outln!("savepoint {name:?} is copied to {}: {} files, {}", to.display(), copied.files, size(copied.bytes));
    let manifest = report.savepoints.iter().find(|s| s.name == name).map(|s| &s.manifest);
    let Some(state) = manifest.map(|m| PipelineState::decode(&m.blob)).transpose()? else { return Ok(()) };
    outln!(
        "run the SQL of pipeline {} with --data-dir {}: it goes on behind step {}, as an incarnation of its own",
        state.name,
        to.display(),
        state.step
    );
    for name in state.outputs.keys() {
        outln!(
            "  output {name} begins anew there, with step {}; a file that is there already is refused",
            state.step + 1
        );
    }
    Ok(())
}

impl From<SavepointError> for Failure {
    fn from(error: SavepointError) -> Self {
        let code = match &error {
            SavepointError::Refused(_) | SavepointError::Unknown(_) | SavepointError::Taken(_) => 2,
            SavepointError::Damaged(_) => 3,
            SavepointError::InUse(_) => 4,
            SavepointError::Failed(error) => error.exit_code(),
        };
        Self::new(code, error)
    }
}
