//! What a pipeline is to do: start, pause, resume, stop, clear. Each answers once that is kept; it comes to pass later.

use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::super::Manager;
use super::super::managed::Managed;
use super::super::record::Desired;
use super::{Named, Path, Query};
use crate::server::error::{ApiError, Result};

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Initial {
    #[default]
    Running,
    Paused,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Start {
    /// What it is to do once it is there.
    #[serde(default)]
    #[param(inline)]
    initial: Initial,
    /// `false`: refuse if the pipeline failed when it ran last.
    dismiss_error: Option<bool>,
}

/// Starts a pipeline, or lets one that is there pause or run
#[utoipa::path(
    post,
    path = "/v0/pipelines/{name}/start",
    params(Named, Start),
    tag = "pipelines",
    responses((status = 202, description = "It is kept; `deployment_status` tells when it has come to pass")),
)]
pub(super) async fn start(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
    Query(start): Query<Start>,
) -> Result<StatusCode> {
    let managed = manager.find(&name)?;
    let desired = match start.initial {
        Initial::Running => Desired::Running,
        Initial::Paused => Desired::Paused,
    };
    if !managed.compiled().await.is_known() {
        // For want of something that may be there now.
        manager.compile(&managed).await;
    }
    let record = managed.record();
    if record.desired == Desired::Stopped && managed.status() != "Stopped" {
        let message = "the pipeline is still stopping: wait until it is stopped";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "IllegalPipelineAction", message));
    }
    if let Some(error) = managed.compiled().await.first_error() {
        let message = format!("the program does not compile (its program_error has all of it): {error}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "StartFailedDueToFailedCompilation", message));
    }
    if record.error.is_some() && start.dismiss_error == Some(false) {
        let message = "the pipeline failed when it ran last: dismiss the error first";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "DeploymentErrorNotDismissed", message));
    }
    wish(&manager, &managed, desired, true)
}

/// Lets a pipeline make no more steps
#[utoipa::path(
    post,
    path = "/v0/pipelines/{name}/pause",
    params(Named),
    tag = "pipelines",
    responses((status = 202, description = "It is kept; `deployment_status` tells when it has come to pass")),
)]
pub(super) async fn pause(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
) -> Result<StatusCode> {
    running(&manager, &name, Desired::Paused)
}

/// Lets a paused pipeline go on
#[utoipa::path(
    post,
    path = "/v0/pipelines/{name}/resume",
    params(Named),
    tag = "pipelines",
    responses((status = 202, description = "It is kept; `deployment_status` tells when it has come to pass")),
)]
pub(super) async fn resume(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
) -> Result<StatusCode> {
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

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Stop {
    /// At once, without a checkpoint; nothing durable is lost. Also where the wish cannot be kept: then the answer has a body that says so.
    #[serde(default)]
    force: bool,
}

/// Stops a pipeline, behind a checkpoint
#[utoipa::path(
    post,
    path = "/v0/pipelines/{name}/stop",
    params(Named, Stop),
    tag = "pipelines",
    responses((status = 202, description = "It is kept; `deployment_status` tells when it has come to pass")),
)]
pub(super) async fn stop(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
    Query(stop): Query<Stop>,
) -> Result<Response> {
    let managed = manager.find(&name)?;
    let error = match wish(&manager, &managed, Desired::Stopped, false) {
        Ok(answer) => {
            if stop.force {
                managed.force();
            }
            return Ok(answer.into_response());
        }
        // The disk's, or the catalog's.
        Err(error) if error.status.is_server_error() => error,
        Err(error) => return Err(error),
    };
    if !stop.force {
        let message = format!(
            "{}. The pipeline is not being stopped, since that could not be kept: make room, or end it without a checkpoint (force=true)",
            error.message
        );
        return Err(ApiError { message, ..error });
    }
    let now = manager.clock.wall_ms();
    manager.change_unkept(&managed, |record| {
        if record.desired != Desired::Stopped {
            (record.desired, record.desired_ms) = (Desired::Stopped, now);
        }
    });
    managed.force();
    let message = format!(
        "the pipeline's process is being ended, but that it is to stay so is not kept: {}. It will be, once there is room; a service that is \
         started again before starts the pipeline, too",
        error.message
    );
    tracing::warn!(pipeline = managed.name(), "{message}");
    Ok((StatusCode::ACCEPTED, Body(ApiError { message, ..error }.body())).into_response())
}

/// Forgets why a pipeline failed
#[utoipa::path(
    post,
    path = "/v0/pipelines/{name}/dismiss_error",
    params(Named),
    tag = "pipelines",
    responses((status = 200, description = "It is forgotten")),
)]
pub(super) async fn dismiss_error(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
) -> Result<StatusCode> {
    let managed = manager.find(&name)?;
    manager.change(&managed, |record| record.error = None)?;
    Ok(StatusCode::OK)
}

fn wish(manager: &Manager, managed: &Managed, desired: Desired, dismiss: bool) -> Result<StatusCode> {
    let now = manager.clock.wall_ms();
    manager.try_change(managed, None, |record| {
        if desired != Desired::Stopped && managed.is_clearing() {
            let message = "its storage is being cleared: wait until storage_status is Cleared";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "IllegalPipelineAction", message));
        }
        if record.desired != desired {
            record.desired = desired;
            record.desired_ms = now;
        }
        if dismiss {
            record.error = None;
        }
        Ok(())
    })?;
    // It may have been wished before, and not kept.
    manager.keep(managed)?;
    Ok(StatusCode::ACCEPTED)
}

/// Removes what a stopped pipeline keeps
#[utoipa::path(
    post,
    path = "/v0/pipelines/{name}/clear",
    params(Named),
    tag = "pipelines",
    responses((status = 202, description = "Begun; `storage_status` tells when it is done")),
)]
pub(super) async fn clear(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
) -> Result<StatusCode> {
    let managed = manager.find(&name)?;
    let mut begins = false;
    // Where no start comes between the look and the mark.
    manager.try_change(&managed, None, |_| {
        if !managed.is_stopped() {
            let message = "storage can only be cleared while the pipeline is stopped: stop it first";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "StorageStatusImmutableUnlessStopped", message));
        }
        begins = managed.set_clearing(true);
        Ok(())
    })?;
    if begins {
        tokio::spawn(async move {
            if let Err(error) = managed.place.clear().await {
                tracing::error!(pipeline = managed.name(), "its storage cannot be cleared: {error}");
            }
            managed.set_clearing(false);
        });
    }
    Ok(StatusCode::ACCEPTED)
}
