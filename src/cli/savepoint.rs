//! `backstay savepoint`: states of a stopped pipeline that stay, by name, and directories made of them.
//!
//! Listing and copying take no lock, and work beside a running pipeline. Making and deleting one open the store: the pipeline must be
//! stopped. What can be refused is refused before that, so that a slip leaves no trace.
//!
//! Known limits: a savepoint is of the newest checkpoint. What a crash left in the log behind that is not part of it; a copy reads it
//! anew from the inputs.

use std::path::{Path, PathBuf};

use backstay_storage::inspect::{Report, SavepointReport, inspect as look};
use backstay_storage::log::LogOptions;
use backstay_storage::{Error, Store, StoreOptions, check_savepoint_name, copy_savepoint, disk};

use super::Failure;
use super::inspect::{refuse_strangers, size, tell_damage};
use crate::pipeline::PipelineError;
use crate::pipeline::state::PipelineState;
use crate::suggest::hint;

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
        /// The data directory.
        data_dir: PathBuf,
        /// 1 to 64 lower-case letters, digits, `-` or `_`, the first a letter or digit.
        name: String,
    },
    /// Show the savepoints. Never writes; works beside a running pipeline.
    List {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// Delete a savepoint of a stopped pipeline, and the files that nothing else needs.
    Delete {
        /// The data directory.
        data_dir: PathBuf,
        /// The savepoint.
        name: String,
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
        Command::Create { data_dir, name } => create(&data_dir, &name),
        Command::List { data_dir } => list(&data_dir),
        Command::Delete { data_dir, name } => delete(&data_dir, &name),
        Command::Copy { data_dir, name, to_dir } => copy(&data_dir, &name, &to_dir),
    }
}

fn create(dir: &Path, name: &str) -> Result<(), Failure> {
    check_savepoint_name(name).map_err(told)?;
    let report = report(dir)?;
    if is_there(&report, name) {
        return Err(Failure::usage(format!(
            "there is a savepoint {name:?} in {} already; delete it, or take another name",
            dir.display()
        )));
    }
    if report.checkpoints.is_empty() && report.is_sound() {
        return Err(Failure::usage(format!(
            "{} has no checkpoint yet that a savepoint could keep: run the pipeline",
            dir.display()
        )));
    }
    let store = open(dir)?;
    if let Some(damage) = store.recovered().and_then(|recovered| recovered.passed_over.first()) {
        return Err(Failure::new(
            3,
            format!(
                "{damage}; run the pipeline, which goes on from the older one to a sound one, and create the savepoint then"
            ),
        ));
    }
    let saved = store.savepoint(name).map_err(told)?;
    let state = PipelineState::decode(&saved.blob)?;
    println!(
        "savepoint {name:?} keeps checkpoint {}: pipeline {} after step {}, {}",
        saved.number,
        state.name,
        state.step,
        size(saved.bytes)
    );
    match store.log().next_seq().saturating_sub(saved.log_from) {
        0 => {}
        1 => println!("one logged step after it is not part of it: a copy reads its input anew"),
        behind => println!("{behind} logged steps after it are not part of it: a copy reads their input anew"),
    }
    Ok(())
}

fn list(dir: &Path) -> Result<(), Failure> {
    let report = report(dir)?;
    let damage: Vec<_> = report.damaged_savepoints().map(|(_, damage)| damage).collect();
    if report.savepoints.is_empty() && damage.is_empty() {
        println!("no savepoints in {}", dir.display());
        return Ok(());
    }
    let width = report.savepoints.iter().map(|s| s.name.len()).max().unwrap_or(0);
    for savepoint in &report.savepoints {
        let SavepointReport { name, manifest, whole, .. } = savepoint;
        let runs: u64 = manifest.spines.iter().flat_map(|s| &s.runs).map(|r| r.len).sum();
        let bytes = manifest.extras.iter().map(|e| e.len).sum::<u64>() + runs;
        let what = match PipelineState::decode(&manifest.blob) {
            Ok(state) => format!("pipeline {} after step {}", state.name, state.step),
            Err(e) => e.to_string(),
        };
        let whole = if *whole { "" } else { "; NOT WHOLE" };
        println!("{name:width$}  checkpoint {}, {what}, {}{whole}", manifest.number, size(bytes));
    }
    damage.iter().for_each(|damage| tell_damage(damage));
    match damage.len() + report.savepoints.iter().filter(|s| !s.whole).count() {
        0 => Ok(()),
        bad => Err(Failure::new(
            3,
            format!("{bad} savepoints are damaged; `backstay inspect --verify` tells what is wrong"),
        )),
    }
}

fn delete(dir: &Path, name: &str) -> Result<(), Failure> {
    let report = report(dir)?;
    require(&report, name)?;
    let store = open(dir)?;
    store.remove_savepoint(name).map_err(told)?;
    println!("savepoint {name:?} is deleted");
    Ok(())
}

fn copy(dir: &Path, name: &str, to: &Path) -> Result<(), Failure> {
    let report = report(dir)?;
    require(&report, name)?;
    let copied = copy_savepoint(&disk::system(), dir, name, to).map_err(told)?;
    println!("savepoint {name:?} is copied to {}: {} files, {}", to.display(), copied.files, size(copied.bytes));
    let manifest = report.savepoints.iter().find(|s| s.name == name).map(|s| &s.manifest);
    let Some(state) = manifest.map(|m| PipelineState::decode(&m.blob)).transpose()? else { return Ok(()) };
    println!(
        "run the SQL of pipeline {} with --data-dir {}: it goes on behind step {}, as an incarnation of its own",
        state.name,
        to.display(),
        state.step
    );
    for name in state.outputs.keys() {
        println!(
            "  output {name} begins anew there, with step {}; a file that is there already is refused",
            state.step + 1
        );
    }
    Ok(())
}

/// What is in the directory, which is a pipeline's. Nothing is made where none is.
pub(super) fn report(dir: &Path) -> Result<Report, Failure> {
    let report = look(&disk::system(), dir, false).map_err(Failure::usage)?;
    refuse_strangers(&report)?;
    Ok(report)
}

/// Whether a savepoint's file is there, damaged or not.
fn is_there(report: &Report, name: &str) -> bool {
    report.savepoints.iter().any(|s| s.name == name) || report.damaged_savepoints().any(|(damaged, _)| damaged == name)
}

fn require(report: &Report, name: &str) -> Result<(), Failure> {
    if is_there(report, name) {
        return Ok(());
    }
    let known = report.savepoints.iter().map(|s| s.name.as_str());
    Err(Failure::usage(format!("there is no savepoint {name:?} in {}{}", report.dir.display(), hint(name, known))))
}

/// Opens the store of a stopped pipeline for a moment: nothing is appended or inserted.
pub(super) fn open(dir: &Path) -> Result<Store, Failure> {
    let log = LogOptions { segment_bytes: 64 << 10, buffer_bytes: 64 << 10, ..LogOptions::default() };
    let options = StoreOptions { log, memory_bytes: 16 << 20, merge_threads: 0, ..StoreOptions::default() };
    Store::open(disk::system(), dir, options).map_err(told)
}

fn told(error: Error) -> Failure {
    match error {
        Error::Invalid(said) => Failure::usage(said),
        Error::Locked { .. } => Failure::new(4, format!("{error}: is its pipeline running? Stop it first")),
        other => PipelineError::from(other).into(),
    }
}
