//! Pipelines as things: created, read, edited, deleted.

use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::managed::Managed;
use super::super::record::{Desired, Record, check_name};
use super::super::shown::Shown;
use super::super::{Manager, config};
use super::{Json, Named, Path, Query};
use crate::server::error::{ApiError, Result};

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Selector {
    #[default]
    All,
    Status,
    StatusWithConnectors,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Selected {
    /// Whether program and configuration are shown.
    #[serde(default)]
    #[param(inline)]
    selector: Selector,
}

/// What a client sends of a pipeline: all of it (POST, PUT), or what is to change (PATCH).
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = PipelineDescription)]
pub(super) struct Sent {
    /// 1 to 100 letters, digits, `_` or `-`.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,100}$")]
    name: Option<String>,
    /// For people.
    description: Option<String>,
    /// For people.
    tags: Option<Vec<String>>,
    /// The SQL text.
    program_code: Option<String>,
    /// Empty: user-defined functions are not supported.
    udf_rust: Option<String>,
    /// Empty.
    udf_toml: Option<String>,
    /// Feldera's compilation settings; kept for its clients.
    #[schema(value_type = Option<Object>)]
    program_config: Option<Map<String, Value>>,
    /// See the documentation of pipelines.
    #[schema(value_type = Option<Object>)]
    runtime_config: Option<Value>,
}

impl Sent {
    fn check(&self) -> Result<()> {
        if let Some(name) = &self.name {
            check_name(name)
                .map_err(|message| ApiError::new(StatusCode::BAD_REQUEST, "NameDoesNotMatchPattern", message))?;
        }
        for (key, code) in [("udf_rust", &self.udf_rust), ("udf_toml", &self.udf_toml)] {
            if code.as_ref().is_some_and(|code| !code.trim().is_empty()) {
                return Err(ApiError::bad_request(format!(
                    "\"{key}\": user-defined functions are not supported; leave it empty"
                )));
            }
        }
        if let Some(sent) = &self.runtime_config {
            config::for_process(sent)
                .map_err(|message| ApiError::new(StatusCode::BAD_REQUEST, "InvalidRuntimeConfig", message))?;
        }
        Ok(())
    }
}

async fn shown(managed: &Managed, all: bool) -> Shown {
    managed.shown(managed.place.is_in_use().await, all)
}

/// All pipelines, by name
#[utoipa::path(
    get,
    path = "/v0/pipelines",
    params(Selected),
    tag = "pipelines",
    responses((status = 200, body = Vec<Shown>)),
)]
pub(super) async fn list(State(manager): State<Arc<Manager>>, Query(selected): Query<Selected>) -> Body<Vec<Shown>> {
    let mut list = Vec::new();
    for managed in manager.all() {
        list.push(shown(&managed, matches!(selected.selector, Selector::All)).await);
    }
    Body(list)
}

/// A pipeline
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}",
    params(Named, Selected),
    tag = "pipelines",
    responses((status = 200, body = Shown)),
)]
pub(super) async fn read(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
    Query(selected): Query<Selected>,
) -> Result<Body<Shown>> {
    let managed = manager.find(&name)?;
    Ok(Body(shown(&managed, matches!(selected.selector, Selector::All)).await))
}

/// Creates a pipeline; `name` and `program_code` must be there
#[utoipa::path(
    post,
    path = "/v0/pipelines",
    tag = "pipelines",
    request_body = Sent,
    responses((status = 201, body = Shown)),
)]
pub(super) async fn create(
    State(manager): State<Arc<Manager>>,
    Json(sent): Json<Sent>,
) -> Result<(StatusCode, Body<Shown>)> {
    let Some(name) = sent.name.clone() else {
        return Err(ApiError::bad_request("\"name\" is missing"));
    };
    new(&manager, name, sent).await
}

async fn new(manager: &Arc<Manager>, name: String, sent: Sent) -> Result<(StatusCode, Body<Shown>)> {
    let mut sent = Sent { name: Some(name.clone()), ..sent };
    sent.runtime_config = Some(config::or_default(sent.runtime_config));
    sent.check()?;
    let Some(program_code) = sent.program_code else {
        return Err(ApiError::bad_request("\"program_code\" is missing"));
    };
    let compiled = manager.compiler.compile(program_code.clone()).await;
    let now = manager.clock.wall_ms();
    let record = Record {
        id: Uuid::new_v4(),
        name,
        description: sent.description.unwrap_or_default(),
        tags: sent.tags.unwrap_or_default(),
        created_ms: now,
        version: 1,
        program_version: 1,
        program_code,
        compiled_ms: now,
        program_config: sent.program_config.unwrap_or_default(),
        runtime_config: sent.runtime_config.unwrap_or_default(),
        desired: Desired::Stopped,
        desired_ms: now,
        error: None,
    };
    let managed = manager.create(record, compiled)?;
    Ok((StatusCode::CREATED, Body(shown(&managed, true).await)))
}

/// Creates a pipeline, or replaces all of it but its state; `program_code` must be there
#[utoipa::path(
    put,
    path = "/v0/pipelines/{name}",
    params(Named),
    tag = "pipelines",
    request_body = Sent,
    responses((status = 200, body = Shown), (status = 201, body = Shown)),
)]
pub(super) async fn put(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
    Json(sent): Json<Sent>,
) -> Result<(StatusCode, Body<Shown>)> {
    let Ok(managed) = manager.find(&name) else { return new(&manager, sent.name.clone().unwrap_or(name), sent).await };
    if sent.program_code.is_none() {
        return Err(ApiError::bad_request("\"program_code\" is missing"));
    }
    let whole = Sent {
        description: Some(sent.description.unwrap_or_default()),
        tags: Some(sent.tags.unwrap_or_default()),
        program_config: Some(sent.program_config.unwrap_or_default()),
        runtime_config: Some(config::or_default(sent.runtime_config)),
        ..sent
    };
    edit(&manager, &managed, whole).await?;
    Ok((StatusCode::OK, Body(shown(&managed, true).await)))
}

/// Changes what is given of a pipeline
#[utoipa::path(
    patch,
    path = "/v0/pipelines/{name}",
    params(Named),
    tag = "pipelines",
    request_body = Sent,
    responses((status = 200, body = Shown)),
)]
pub(super) async fn patch(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
    Json(sent): Json<Sent>,
) -> Result<Body<Shown>> {
    let managed = manager.find(&name)?;
    edit(&manager, &managed, sent).await?;
    Ok(Body(shown(&managed, true).await))
}

async fn edit(manager: &Manager, managed: &Managed, sent: Sent) -> Result<()> {
    sent.check()?;
    let compiled = match &sent.program_code {
        Some(text) => Some(manager.compiler.compile(text.clone()).await),
        None => None,
    };
    let in_use = managed.place.is_in_use().await;
    let now = manager.clock.wall_ms();
    manager.try_change(managed, compiled, |record| {
        let old = record.clone();
        set(&mut record.name, sent.name);
        set(&mut record.description, sent.description);
        set(&mut record.tags, sent.tags);
        set(&mut record.program_code, sent.program_code);
        set(&mut record.program_config, sent.program_config);
        set(&mut record.runtime_config, sent.runtime_config);
        if *record == old {
            return Ok(());
        }
        record.version += 1;
        let is_other_program = record.program_code != old.program_code;
        let reaches_process = is_other_program || record.runtime_config != old.runtime_config || record.name != old.name;
        if reaches_process && !managed.is_stopped() {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "UpdateRestrictedToStopped",
                "name, program and runtime_config can only be changed while the pipeline is stopped: stop it first",
            ));
        }
        if is_other_program {
            if in_use {
                return Err(ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "EditRestrictedToClearedStorage",
                    "the program cannot be changed over the state that the pipeline keeps (this is not supported yet): clear its \
                     storage first, or create another pipeline",
                ));
            }
            record.program_version += 1;
            record.compiled_ms = now;
        }
        Ok(())
    })?;
    Ok(())
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Deletes a pipeline that is stopped and cleared
#[utoipa::path(
    delete,
    path = "/v0/pipelines/{name}",
    params(Named),
    tag = "pipelines",
    responses((status = 200, description = "It is gone")),
)]
pub(super) async fn delete(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
) -> Result<StatusCode> {
    let managed = manager.find(&name)?;
    let check = || match managed.is_stopped() {
        true => Ok(()),
        false => {
            let message = "the pipeline can only be deleted while it is stopped: stop it first";
            Err(ApiError::new(StatusCode::BAD_REQUEST, "DeleteRestrictedToFullyStopped", message))
        }
    };
    check()?;
    if managed.place.is_in_use().await {
        let message = "the pipeline still keeps state: clear its storage first";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "DeleteRestrictedToClearedStorage", message));
    }
    manager.forget(&managed, check)?;
    managed.place.remove().await.map_err(|e| {
        ApiError::internal(format!("the pipeline is deleted, but its directory cannot be removed: {e}"))
    })?;
    Ok(StatusCode::OK)
}
