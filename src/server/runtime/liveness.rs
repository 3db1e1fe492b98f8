//! `GET /status`: what the manager asks a pipeline for, ten times a second: that it is there, what it is doing, and the figures of which
//! the manager keeps a history.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::Served;
use crate::pipeline::histogram::Histogram;
use crate::pipeline::status::Phase;

/// A pipeline's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// The process.
    pub pid: u32,
    /// As [`Served::process`].
    pub process: uuid::Uuid,
    /// What it is doing, as a deployment status: `Initializing`, `Replaying`, `Paused`, `Running`, `Stopping`.
    pub status: String,
    /// The last step.
    pub step: u64,
    /// More figures. A process of an earlier version, which a new manager may find, has none.
    #[serde(default)]
    pub figures: Figures,
}

/// Figures of a pipeline of which a history is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Rows taken by steps, over the pipeline's life.
    pub records: u64,
    /// Rows taken by steps of this process, replayed ones not included.
    pub new_records: u64,
    /// Rows that wait for a step.
    pub buffered_records: u64,
    /// The last step that every output has delivered.
    pub delivered_step: u64,
    /// Bytes that outputs' sinks do not hold durably yet.
    pub pending_output_bytes: u64,
    /// Bytes of log on disk.
    pub log_bytes: u64,
    /// Bytes of operators' state, once it was looked at.
    pub state_bytes: Option<u64>,
    /// Checkpoints of this process.
    pub checkpoints: u64,
    /// The step of the newest of them.
    pub checkpoint_step: u64,
    /// The first step that this process replays, or replayed, and the last.
    pub replay: Option<(u64, u64)>,
    /// Rows that it replayed.
    pub replayed_records: u64,
    /// How long steps of this process took.
    pub step_time: Histogram,
    /// How long they waited for their records to be durable.
    pub commit_time: Histogram,
    /// How long its checkpoints took.
    pub checkpoint_time: Histogram,
}

/// The deployment status that a phase is shown as.
pub fn status_of(phase: Phase, paused: bool) -> &'static str {
    match phase {
        Phase::Opening => "Initializing",
        Phase::Replaying => "Replaying",
        Phase::Running | Phase::Finished if paused => "Paused",
        Phase::Running | Phase::Finished => "Running",
        Phase::Stopping => "Stopping",
    }
}

pub(super) async fn status(State(served): State<Arc<Served>>) -> Json<Liveness> {
    let now = served.control.snapshot();
    let status = status_of(now.phase, served.control.paused()).to_owned();
    let figures = Figures {
        records: now.input_rows,
        new_records: now.new_rows,
        buffered_records: now.buffered_rows,
        delivered_step: now.delivered_step,
        pending_output_bytes: now.pending_bytes,
        log_bytes: now.log_bytes,
        state_bytes: now.measured.as_ref().map(|m| m.state_bytes),
        checkpoints: now.checkpoints,
        checkpoint_step: now.checkpoint.map_or(0, |(step, _)| step),
        replay: now.replay,
        replayed_records: now.replayed_rows,
        step_time: now.step_time,
        commit_time: now.commit_time,
        checkpoint_time: now.checkpoint_time,
    };
    Json(Liveness { pid: std::process::id(), process: served.process, status, step: now.step, figures })
}
