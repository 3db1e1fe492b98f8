//! What a running pipeline tells others, and what others may ask of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a pipeline is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Opening store and connectors.
    #[default]
    Opening,
    /// Running steps again that the log has after the checkpoint.
    Replaying,
    /// Running new steps.
    Running,
    /// Every finite input is at its end and there is no other: nothing more will come.
    Finished,
    /// Draining, writing the last checkpoint.
    Stopping,
}

/// A pipeline's figures at the end of a step.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What it is doing.
    pub phase: Phase,
    /// The last step that was run.
    pub step: u64,
    /// Rows taken from inputs, over the pipeline's life.
    pub input_rows: u64,
    /// Rows taken in this process, replayed ones not included.
    pub new_rows: u64,
    /// Rows that did not parse, over the pipeline's life.
    pub parse_errors: u64,
    /// Rows left out because an expression failed, in this process.
    pub evaluation_errors: u64,
    /// The first steps to replay and the last.
    pub replay: Option<(u64, u64)>,
    /// Rows replayed in this process.
    pub replayed_rows: u64,
    /// Rows parsed and not yet cut.
    pub buffered_rows: u64,
    /// The step of the newest checkpoint, and when it was committed on the pipeline's clock.
    pub checkpoint: Option<(u64, Duration)>,
    /// Checkpoints committed in this process.
    pub checkpoints: u64,
    /// The last step that every output has delivered.
    pub delivered_step: u64,
    /// Bytes of deltas that outputs hold and their sinks do not yet hold durably.
    pub pending_bytes: u64,
    /// Bytes of log on disk.
    pub log_bytes: u64,
    /// What hinders a connector now, by its name.
    pub troubles: Vec<String>,
}

/// A line for people that is worth keeping.
pub type Notice = String;

/// The door between a running pipeline and its surroundings. All calls are cheap and from any thread.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    checkpoint: AtomicBool,
    snapshot: Mutex<Snapshot>,
    notices: Mutex<Vec<Notice>>,
}

impl Control {
    /// Asks for a graceful stop: no more cuts, finish the step, checkpoint, end.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether a stop was asked for.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Asks for a checkpoint after the current step.
    pub fn request_checkpoint(&self) {
        self.checkpoint.store(true, Ordering::Release);
    }

    pub(crate) fn take_checkpoint_request(&self) -> bool {
        self.checkpoint.swap(false, Ordering::AcqRel)
    }

    /// The figures of now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.snapshot.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Leaves a line for people.
    pub(crate) fn notice(&self, line: impl Into<Notice>) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(line.into());
    }

    /// The lines left since the last call, oldest first.
    pub fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
