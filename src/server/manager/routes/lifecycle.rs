//! What a pipeline is to do: start, pause, resume, stop, clear. Each answers once that is kept; it comes to pass later.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use super::super::Manager;
use super::super::managed::Managed;
use super::super::record::Desired;
use super::{Path, Query};
use crate::server::error::{ApiError, Result};

#[derive(Debug, Deserialize)]
pub(super) struct Start {
    initial: Option<String>,
    dismiss_error: Option<bool>,
}

pub(super) async fn start(
    State(manager): State<Arc<Manager>>,
    Path(name): Path<String>,
    Query(start): Query<Start>,
) -> Result<StatusCode> {
    let managed = manager.find(&name)?;
    let desired = match start.initial.as_deref() {
        None | Some("running") => Desired::Running,
        Some("paused") => Desired::Paused,
        Some(other) => {
            return Err(ApiError::bad_request(format!("\"initial\" is \"running\" or \"paused\" here, got {other:?}")));
        }
    };
    let record = managed.record();
    if record.desired == Desired::Stopped && managed.status() != "Stopped" {
        let message = "the pipeline is still stopping: wait until it is stopped";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "IllegalPipelineAction", message));
    }
    if !managed.compiled().is_runnable() {
        let message = "the program does not compile: see its program_error";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "StartFailedDueToFailedCompilation", message));
    }
    if record.error.is_some() && start.dismiss_error == Some(false) {
        let message = "the pipeline failed when it ran last: dismiss the error first";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "DeploymentErrorNotDismissed", message));
    }
    wish(&manager, &managed, desired, true)
}

pub(super) async fn pause(State(manager): State<Arc<Manager>>, Path(name): Path<String>) -> Result<StatusCode> {
    running(&manager, &name, Desired::Paused)
}

pub(super) async fn resume(State(manager): State<Arc<Manager>>, Path(name): Path<String>) -> Result<StatusCode> {
    running(&manager, &name, Desired::Running)
}

fn running(manager: &Manager, name: &str, desired: Desired) -> Result<StatusCode> {
    let managed = manager.find(name)?;
    if managed.record().desired == Desired::Stopped {
        let message = "the pipeline is stopped, or stopping: start it first";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "IllegalPipelineAction", message));
    }
    wish(manager, &managed, desired, false)
}

#[derive(Debug, Deserialize)]
pub(super) struct Stop {
    #[serde(default)]
    force: bool,
}

pub(super) async fn stop(
    State(manager): State<Arc<Manager>>,
    Path(name): Path<String>,
    Query(stop): Query<Stop>,
) -> Result<StatusCode> {
    let managed = manager.find(&name)?;
    let answer = wish(&manager, &managed, Desired::Stopped, false)?;
    if stop.force {
        managed.force();
    }
    Ok(answer)
}

pub(super) async fn dismiss_error(State(manager): State<Arc<Manager>>, Path(name): Path<String>) -> Result<StatusCode> {
    let managed = manager.find(&name)?;
    manager.change(&managed, |record| record.error = None)?;
    Ok(StatusCode::OK)
}

fn wish(manager: &Manager, managed: &Managed, desired: Desired, dismiss: bool) -> Result<StatusCode> {
    let now = manager.clock.wall_ms();
    manager.change(managed, |record| {
        if record.desired != desired {
            record.desired = desired;
            record.desired_ms = now;
        }
        if dismiss {
            record.error = None;
        }
    })?;
    Ok(StatusCode::ACCEPTED)
}

/// Removes what the pipeline keeps. Answered at once; `storage_status` tells when it is done.
pub(super) async fn clear(State(manager): State<Arc<Manager>>, Path(name): Path<String>) -> Result<StatusCode> {
    let managed = manager.find(&name)?;
    if !managed.is_stopped() {
        let message = "storage can only be cleared while the pipeline is stopped: stop it first";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "StorageStatusImmutableUnlessStopped", message));
    }
    if managed.set_clearing(true) {
        tokio::spawn(async move {
            if let Err(error) = managed.place.clear().await {
                eprintln!("pipeline {}: its storage cannot be cleared: {error}", managed.name());
            }
            managed.set_clearing(false);
        });
    }
    Ok(StatusCode::ACCEPTED)
}
