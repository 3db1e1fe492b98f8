//! Savepoints of a stopped pipeline: made, listed, deleted, for the command line and for the service.
//!
//! Listing takes no lock, and works beside a running pipeline. Making and deleting open the store: the pipeline must be stopped. What can be refused is
//! refused before that, so that a slip leaves no trace.
//!
//! Known limits: a savepoint is of the newest checkpoint. What a crash left in the log behind that is not part of it.

use std::path::Path;

use backstay_storage::inspect::{Report, inspect};
use backstay_storage::log::LogOptions;
use backstay_storage::{Error, Store, StoreOptions, check_savepoint_name, disk};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PipelineError;
use super::state::PipelineState;
use crate::suggest::hint;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum SavepointError {
    /// What was asked for cannot be.
    #[error("{0}")]
    Refused(String),
    /// There is none of this name.
    #[error("{0}")]
    Unknown(String),
    /// There is one of this name already.
    #[error("{0}")]
    Taken(String),
    /// The pipeline is running.
    #[error("{0}: is its pipeline running? Stop it first")]
    InUse(Error),
    /// The newest checkpoint is damaged.
    #[error("{0}; run the pipeline, which goes on from the older one to a sound one, and create the savepoint then")]
    Damaged(String),
    /// The store failed.
    #[error(transparent)]
    Failed(#[from] PipelineError),
}

/// The result of these calls.
pub type Result<T, E = SavepointError> = std::result::Result<T, E>;

impl From<Error> for SavepointError {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(said) => Self::Refused(said),
            Error::Locked { .. } => Self::InUse(error),
            other => Self::Failed(other.into()),
        }
    }
}

/// A savepoint.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Savepoint {
    /// Its name.
    pub name: String,
    /// The name that the pipeline has in its directory: with the service, its id.
    pub pipeline: String,
    /// The number of the checkpoint that it keeps.
    pub checkpoint: u64,
    /// The step after which that was taken; null if its state cannot be read.
    pub step: Option<u64>,
    /// What is wrong with its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The bytes of its files, some of which the pipeline may use, too.
    pub bytes: u64,
    /// Whether all of its files are there.
    pub whole: bool,
}

/// A savepoint that was made.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = MadeSavepoint)]
pub struct Made {
    /// What it keeps.
    #[serde(flatten)]
    pub savepoint: Savepoint,
    /// Logged steps behind it, which are not part of it.
    pub steps_behind: u64,
}

/// Keeps the newest checkpoint under a name.
///
/// # Errors
/// A name that cannot be or is taken, no checkpoint or a damaged one, a pipeline that runs.
pub fn create(dir: &Path, name: &str) -> Result<Made> {
    check_savepoint_name(name)?;
    let report = report(dir)?;
    if is_there(&report, name) {
        return Err(SavepointError::Taken(format!(
            "there is a savepoint {name:?} in {} already; delete it, or take another name",
            dir.display()
        )));
    }
    if report.checkpoints.is_empty() && report.is_sound() {
        return Err(SavepointError::Refused(format!(
            "{} has no checkpoint yet that a savepoint could keep: run the pipeline",
            dir.display()
        )));
    }
    let store = open(dir)?;
    if let Some(damage) = store.recovered().and_then(|recovered| recovered.passed_over.first()) {
        return Err(SavepointError::Damaged(damage.clone()));
    }
    let saved = store.savepoint(name)?;
    let state = PipelineState::decode(&saved.blob)?;
    Ok(Made {
        steps_behind: store.log().next_seq().saturating_sub(saved.log_from),
        savepoint: Savepoint {
            name: name.to_owned(),
            pipeline: state.name,
            checkpoint: saved.number,
            step: Some(state.step),
            error: None,
            bytes: saved.bytes,
            whole: true,
        },
    })
}

/// Deletes a savepoint, and the files that nothing else needs.
///
/// # Errors
/// None of this name, a pipeline that runs.
pub fn delete(dir: &Path, name: &str) -> Result<()> {
    require(&report(dir)?, name)?;
    Ok(open(dir)?.remove_savepoint(name)?)
}

/// The savepoints of a report, but for those whose own file is damaged: these are [`Report::damaged_savepoints`].
pub fn all(report: &Report) -> Vec<Savepoint> {
    let all = report.savepoints.iter().map(|found| {
        let runs: u64 = found.manifest.spines.iter().flat_map(|s| &s.runs).map(|r| r.len).sum();
        let state = PipelineState::decode(&found.manifest.blob);
        Savepoint {
            name: found.name.clone(),
            pipeline: state.as_ref().map(|state| state.name.clone()).unwrap_or_default(),
            checkpoint: found.manifest.number,
            step: state.as_ref().ok().map(|state| state.step),
            error: state.err().map(|e| e.to_string()),
            bytes: found.manifest.extras.iter().map(|e| e.len).sum::<u64>() + runs,
            whole: found.whole,
        }
    });
    all.collect()
}

/// What is in the directory, which is a pipeline's. Nothing is made where none is.
///
/// # Errors
/// It is none, or cannot be read.
pub fn report(dir: &Path) -> Result<Report> {
    let report = inspect(&disk::system(), dir, false).map_err(|e| SavepointError::Refused(e.to_string()))?;
    refuse_strangers(&report)?;
    Ok(report)
}

/// Refuses a directory that nothing of a pipeline is in.
///
/// # Errors
/// That.
pub fn refuse_strangers(report: &Report) -> Result<()> {
    if report.store_id.is_none() && report.log.segments.is_empty() && report.is_sound() {
        return Err(SavepointError::Refused(format!(
            "{} is not a pipeline's data directory: it has no checkpoints and no log",
            report.dir.display()
        )));
    }
    Ok(())
}

/// Whether a savepoint's file is there, damaged or not.
fn is_there(report: &Report, name: &str) -> bool {
    report.savepoints.iter().any(|s| s.name == name) || report.damaged_savepoints().any(|(damaged, _)| damaged == name)
}

/// Refuses the name of a savepoint that is not there.
///
/// # Errors
/// That.
pub fn require(report: &Report, name: &str) -> Result<()> {
    if is_there(report, name) {
        return Ok(());
    }
    let known = report.savepoints.iter().map(|s| s.name.as_str());
    let message = format!("there is no savepoint {name:?} in {}{}", report.dir.display(), hint(name, known));
    Err(SavepointError::Unknown(message))
}

/// Opens the store of a stopped pipeline for a moment: nothing is appended or inserted.
pub fn open(dir: &Path) -> Result<Store> {
    let log = LogOptions { segment_bytes: 64 << 10, buffer_bytes: 64 << 10, ..LogOptions::default() };
    let options = StoreOptions { log, memory_bytes: 16 << 20, merge_threads: 0, ..StoreOptions::default() };
    Ok(Store::open(disk::system(), dir, options)?)
}
