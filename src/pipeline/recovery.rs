//! Going on where a replay is impossible: the source is gone, retention has passed, a file was changed. A person chooses (`backstay recover`),
//! the choice is committed as a checkpoint of the same state, and the next run acts on it.
//!
//! | choice | the logged steps behind the checkpoint | what is lost |
//! |---|---|---|
//! | accept a loss | run again without the rows of one connector | these rows; what that source had next, if it is gone too |
//! | begin anew | count for nothing: inputs are read again from the checkpoint on | nothing that the sources still have, and no pushed rows |
//!
//! Invariants:
//! 1. Either choice begins a new incarnation: the steps become others than those that sinks may hold, so that every output begins anew, and
//!    a sink that holds anything is refused, as in a savepoint's copy.
//! 2. A choice is durable whole or not at all, and changes nothing of the state. Nothing is chosen by default.
//! 3. If the checkpoint with the choice is damaged, the one before it is opened, and the replay is as impossible as it was: refused.
//! 4. Step records that count for nothing are told by their place in the log, since their steps' numbers come again.

use backstay_storage::log::Seq;
use backstay_storage::{Checkpoint, Store};
use serde::{Deserialize, Serialize};

use crate::pipeline::controller::Pipeline;
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::record::{InputBatch, KIND_STEP, StepRecord};
use crate::pipeline::state::PipelineState;

/// What was chosen, as the checkpoints keep it for as long as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Steps of log records before this one count for nothing, nor do the rows that were logged with them.
    #[serde(default)]
    pub void_before: Seq,
    /// Rows that were given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Loss>,
    /// Whether the outputs are still to begin anew.
    #[serde(default)]
    pub is_new: bool,
}

/// The rows that a connector gave in some steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// `<table>.<connector>`.
    pub connector: String,
    /// The first step and the last; none, if the last comes before the first.
    pub from: u64,
    /// See `from`.
    pub to: u64,
    /// How many rows these are.
    pub rows: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Runs the logged steps again without this connector's rows, from a step on, and has it go on with what its source still has.
    AcceptLoss {
        /// `<table>.<connector>`.
        connector: String,
        /// The first step whose rows are given up; `None`: the first that is logged.
        from: Option<u64>,
    },
    /// Goes back to the checkpoint.
    BeginAnew,
}

/// What is there to choose about.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The newest checkpoint.
    pub state: PipelineState,
    /// The steps that are logged behind it.
    pub steps: Vec<StepRecord>,
    log_from: Seq,
}

impl Recovery {
    /// Whether a record of a step counts.
    pub(super) fn counts(&self, seq: Seq) -> bool {
        seq >= self.void_before
    }

    /// Whether a connector's rows of a step were given up.
    pub(super) fn has_lost(&self, connector: &str, step: u64) -> bool {
        self.losses.iter().any(|l| l.connector == connector && (l.from..=l.to).contains(&step))
    }

    /// Whether the log's word about a step's deltas is of a time before rows were given up.
    pub(super) fn has_changed(&self, step: u64) -> bool {
        self.losses.iter().any(|l| l.from <= step && step < l.to)
    }
}

impl Survey {
    /// What a stopped pipeline's store holds.
    ///
    /// # Errors
    /// There is no checkpoint, or something is not a pipeline's.
    pub fn of(store: &Store) -> Result<Self> {
        let Some(recovered) = store.recovered() else {
            return Err(PipelineError::Config("there is no checkpoint here: there is nothing to recover".into()));
        };
        if let Some(damage) = recovered.passed_over.first() {
            return Err(PipelineError::State(format!(
                "{damage}; run the pipeline, which tries to go on from the older checkpoint, before anything is given up"
            )));
        }
        if recovered.savepoint.is_some() {
            let message = "this is a savepoint's copy that has not been run yet: it has no log, run it";
            return Err(PipelineError::Config(message.into()));
        }
        let state = PipelineState::decode(&recovered.blob)?;
        let void_before = state.recovery.as_ref().map_or(0, |r| r.void_before);
        let mut steps = Vec::new();
        if store.log().next_seq() > recovered.log_from {
            for record in store.log().scan(recovered.log_from.max(void_before))? {
                let record = record?;
                if record.payload.first() == Some(&KIND_STEP) {
                    let step = StepRecord::decode(record.seq, &record.payload)?;
                    steps.extend(Some(step).filter(|s| s.step > state.step));
                }
            }
        }
        Ok(Self { state, steps, log_from: recovered.log_from })
    }

    /// What a connector gave in the logged steps from one on.
    pub fn batches(&self, connector: &str, from: u64) -> impl Iterator<Item = &InputBatch> {
        let steps = self.steps.iter().filter(move |s| s.step >= from);
        steps.flat_map(|s| &s.inputs).filter(move |batch| batch.connector == connector)
    }

    /// The connectors that the checkpoint or a logged step names.
    pub fn connectors(&self) -> Vec<&str> {
        let logged = self.steps.iter().flat_map(|s| &s.inputs).map(|batch| batch.connector.as_str());
        let mut all: Vec<&str> = self.state.inputs.keys().map(String::as_str).chain(logged).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Commits a choice, of a new incarnation. Gives what is then known of it.
    ///
    /// # Errors
    /// The choice is about nothing that is there; the store fails.
    pub fn choose(mut self, store: &Store, choice: &Choice, incarnation: uuid::Uuid) -> Result<Recovery> {
        let mut recovery = self.state.recovery.take().unwrap_or_default();
        let last = self.steps.last().map_or(self.state.step, |s| s.step);
        match choice {
            Choice::AcceptLoss { connector, from } => {
                if !self.connectors().contains(&connector.as_str()) {
                    return Err(PipelineError::Config(format!(
                        "no input connector {connector} has been read here; there are: {}",
                        self.connectors().join(", ")
                    )));
                }
                let first = self.state.step + 1;
                let from = from.unwrap_or(first);
                if from < first || from > last + 1 {
                    return Err(PipelineError::Config(format!(
                        "the checkpoint holds step {}, and the log steps up to {last}: no rows of step {from} can be given up",
                        self.state.step
                    )));
                }
                let rows = self.batches(connector, from).map(|batch| batch.rows).sum();
                recovery.losses.push(Loss { connector: connector.clone(), from, to: last, rows });
            }
            Choice::BeginAnew => {
                recovery.void_before = store.log().next_seq();
                recovery.losses.clear();
            }
        }
        recovery.is_new = true;
        self.state.incarnation = incarnation;
        self.state.outputs.clear();
        self.state.recovery = Some(recovery.clone());
        let blob = self.state.encode()?.into();
        store.checkpoint(Checkpoint { blob, log_from: self.log_from, ..Checkpoint::default() })?;
        Ok(recovery)
    }
}

impl Pipeline {
    /// Lets go of what was chosen, as far as a checkpoint of now that needs the log from `log_from` on makes it the past.
    pub(super) fn outlive_recovery(&mut self, log_from: Seq) {
        let Some(recovery) = &mut self.state.recovery else { return };
        let step = self.state.step;
        let inputs = &self.inputs;
        let is_open = |loss: &Loss| inputs.iter().any(|i| i.name == loss.connector && i.is_lossy);
        recovery.losses.retain(|loss| step < loss.to || is_open(loss));
        if recovery.losses.is_empty() && recovery.void_before <= log_from {
            self.state.recovery = None;
        }
    }
}
