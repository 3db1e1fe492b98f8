//! `GET /history`: what a pipeline did lately, sample by sample and event by event.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::super::Manager;
use super::{Named, Path, Query};
use crate::server::error::Result;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct After {
    /// In ms since 1970: only what is later.
    #[serde(default)]
    after: i64,
}

/// What a pipeline did lately: a sample a second, and the events of its life
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}/history",
    tag = "data",
    params(Named, After),
    responses((status = 200, body = Object)),
)]
pub(super) async fn history(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
    Query(After { after }): Query<After>,
) -> Result<Json<Value>> {
    Ok(Json(manager.find(&name)?.history.since(after)))
}
