//! Savepoints of a pipeline: states that stay, by name.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::super::Manager;
use super::super::managed::Managed;
use super::{Json, Named, Path};
use crate::pipeline::savepoint::{self, Made, Savepoint, SavepointError};
use crate::server::error::{ApiError, Result};

/// A savepoint that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewSavepoint)]
pub(super) struct New {
    /// 1 to 64 lower-case letters, digits, `-` or `_`, the first a letter or digit.
    #[schema(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$")]
    name: String,
}

/// The savepoint that a path is about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Which {
    /// The pipeline's name.
    name: String,
    /// The savepoint's name.
    savepoint: String,
}

/// A pipeline's savepoints, whether it runs or not
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}/savepoints",
    params(Named),
    tag = "pipelines",
    responses((status = 200, body = Vec<Savepoint>)),
)]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
) -> Result<Body<Vec<Savepoint>>> {
    let managed = manager.find(&name)?;
    if !managed.place.is_in_use().await {
        return Ok(Body(Vec::new()));
    }
    let all = at_rest(&managed, |dir| Ok(savepoint::all(&savepoint::report(dir)?))).await?;
    Ok(Body(all))
}

/// Keeps a stopped pipeline's newest checkpoint by name
#[utoipa::path(
    post,
    path = "/v0/pipelines/{name}/savepoints",
    params(Named),
    tag = "pipelines",
    request_body = New,
    responses((status = 201, body = Made)),
)]
pub(super) async fn create(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
    Json(new): Json<New>,
) -> Result<(StatusCode, Body<Made>)> {
    let managed = stopped(&manager, &name)?;
    if !managed.place.is_in_use().await {
        let message = "the pipeline keeps no state: it has not run yet, was cleared, or has \"storage\": false";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "IllegalPipelineAction", message));
    }
    let made = at_rest(&managed, move |dir| savepoint::create(dir, &new.name)).await?;
    Ok((StatusCode::CREATED, Body(made)))
}

/// Deletes a savepoint of a stopped pipeline
#[utoipa::path(
    delete,
    path = "/v0/pipelines/{name}/savepoints/{savepoint}",
    params(Which),
    tag = "pipelines",
    responses((status = 200, description = "It is gone")),
)]
pub(super) async fn delete(State(manager): State<Arc<Manager>>, Path(which): Path<Which>) -> Result<StatusCode> {
    let managed = stopped(&manager, &which.name)?;
    if !managed.place.is_in_use().await {
        let message = format!("there is no savepoint \"{}\": the pipeline keeps no state", which.savepoint);
        return Err(ApiError::new(StatusCode::NOT_FOUND, "UnknownSavepoint", message));
    }
    at_rest(&managed, move |dir| savepoint::delete(dir, &which.savepoint)).await?;
    Ok(StatusCode::OK)
}

fn stopped(manager: &Manager, name: &str) -> Result<Arc<Managed>> {
    let managed = manager.find(name)?;
    match managed.is_stopped() && !managed.is_clearing() {
        true => Ok(managed),
        false => {
            let message =
                "savepoints are made and deleted while the pipeline is stopped, and not being cleared: stop it first";
            Err(ApiError::new(StatusCode::BAD_REQUEST, "IllegalPipelineAction", message))
        }
    }
}

/// Works on a pipeline's directory, where that may block.
async fn at_rest<T: Send + 'static>(
    managed: &Managed,
    work: impl FnOnce(&FilePath) -> savepoint::Result<T> + Send + 'static,
) -> Result<T> {
    let dir = managed.place.data();
    let done = tokio::task::spawn_blocking(move || work(&dir)).await;
    done.map_err(|e| ApiError::internal(format!("the savepoint's thread failed: {e}")))?.map_err(|error| {
        let message = error.to_string();
        match error {
            SavepointError::Refused(_) => ApiError::bad_request(message),
            SavepointError::Unknown(_) => ApiError::new(StatusCode::NOT_FOUND, "UnknownSavepoint", message),
            SavepointError::Taken(_) => ApiError::new(StatusCode::CONFLICT, "DuplicateName", message),
            SavepointError::InUse(_) => ApiError::new(StatusCode::CONFLICT, "IllegalPipelineAction", message),
            SavepointError::Damaged(_) => ApiError::new(StatusCode::CONFLICT, "DamagedCheckpoint", message),
            SavepointError::Failed(_) => ApiError::internal(message),
        }
    })
}
