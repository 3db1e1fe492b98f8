//! What a pipeline's process answers: each route is passed on to it ([`super::proxy`]). Parameters and bodies are declared where the process
//! reads and writes them ([`crate::server::runtime`]).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::super::Manager;
use super::proxy::{endpoint_stats, pass};
use super::{Connector, Named, Path};
use crate::server::error::Result;
use crate::server::runtime::wire;

/// A pipeline's figures
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}/stats",
    params(Named),
    tag = "data",
    responses((status = 200, body = Object)),
)]
pub(super) async fn stats(manager: State<Arc<Manager>>, of: Path<Named>, request: Request) -> Result<Response> {
    pass(manager, of, request).await
}

/// A pipeline's operators: rows, state and time of each
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}/circuit",
    params(Named),
    tag = "data",
    responses((status = 200, body = Object)),
)]
pub(super) async fn circuit(manager: State<Arc<Manager>>, of: Path<Named>, request: Request) -> Result<Response> {
    pass(manager, of, request).await
}

/// Pushes rows to a table: all or none of them, durable once it is answered
#[utoipa::path(
    post,
    path = "/v0/pipelines/{name}/ingress/{table}",
    tag = "data",
    params(
        Named,
        ("table" = String, Path, description = "The table"),
        ("idempotency-key" = Option<String>, Header, description = "Makes a request that is repeated one push"),
        wire::Ingress,
    ),
    request_body(description = "Rows", content((String = "application/json"), (String = "text/csv"))),
    responses((
        status = 200,
        body = wire::Token,
        headers(("idempotent-replayed" = String, description = "`true`: this push was taken before")),
    )),
)]
pub(super) async fn ingress(manager: State<Arc<Manager>>, of: Path<Named>, request: Request) -> Result<Response> {
    pass(manager, of, request).await
}

/// A view's changes as they come: JSON documents on lines of their own, or server-sent events
#[utoipa::path(
    method(get, post),
    path = "/v0/pipelines/{name}/egress/{view}",
    tag = "data",
    params(
        Named,
        ("view" = String, Path, description = "The view"),
        ("last-event-id" = Option<String>, Header, description = "Goes on behind this event"),
        wire::Egress,
    ),
    responses((status = 200, content((String = "application/x-ndjson"), (String = "text/event-stream")))),
)]
pub(super) async fn egress(manager: State<Arc<Manager>>, of: Path<Named>, request: Request) -> Result<Response> {
    pass(manager, of, request).await
}

/// Whether the rows of a push have gone through
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}/completion_status",
    tag = "data",
    params(Named, wire::Token),
    responses((status = 200, body = wire::Completion)),
)]
pub(super) async fn completion(manager: State<Arc<Manager>>, of: Path<Named>, request: Request) -> Result<Response> {
    pass(manager, of, request).await
}

/// Asks a SELECT of the state after the step that is under way; as a WebSocket, too
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}/query",
    tag = "data",
    params(Named, wire::Query),
    responses((
        status = 200,
        content(
            (String = "text/plain"),
            (String = "application/x-ndjson"),
            (String = "text/csv"),
            (String = "application/vnd.apache.arrow.stream"),
        ),
    )),
)]
pub(super) async fn query(manager: State<Arc<Manager>>, of: Path<Named>, request: Request) -> Result<Response> {
    pass(manager, of, request).await
}

/// Asks for a checkpoint
#[utoipa::path(
    post,
    path = "/v0/pipelines/{name}/checkpoint",
    params(Named), tag = "data",
    responses((status = 200, body = wire::Checkpoint)),
)]
pub(super) async fn checkpoint(manager: State<Arc<Manager>>, of: Path<Named>, request: Request) -> Result<Response> {
    pass(manager, of, request).await
}

/// Which checkpoint that was asked for is there
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}/checkpoint_status",
    tag = "data",
    params(Named, wire::OfProcess),
    responses((status = 200, body = wire::CheckpointStatus)),
)]
pub(super) async fn checkpoint_status(
    manager: State<Arc<Manager>>,
    of: Path<Named>,
    request: Request,
) -> Result<Response> {
    pass(manager, of, request).await
}

/// An input connector's figures
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}/tables/{relation}/connectors/{connector}/stats",
    params(Connector), tag = "data",
    responses((status = 200, body = Object)),
)]
pub(super) async fn input_stats(State(manager): State<Arc<Manager>>, Path(of): Path<Connector>) -> Result<Response> {
    endpoint_stats(&manager, &of, true).await
}

/// An output connector's figures
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}/views/{relation}/connectors/{connector}/stats",
    params(Connector), tag = "data",
    responses((status = 200, body = Object)),
)]
pub(super) async fn output_stats(State(manager): State<Arc<Manager>>, Path(of): Path<Connector>) -> Result<Response> {
    endpoint_stats(&manager, &of, false).await
}

/// Starts or pauses an input connector
#[utoipa::path(
    post,
    path = "/v0/pipelines/{name}/tables/{relation}/connectors/{connector}/{action}",
    params(Connector, ("action" = String, Path, description = "`start` or `pause`")),
    tag = "data",
    responses((status = 200, description = "It was told, and does so before its next step")),
)]
pub(super) async fn turn_input(manager: State<Arc<Manager>>, of: Path<Named>, request: Request) -> Result<Response> {
    pass(manager, of, request).await
}

/// Starts or pauses an output connector
#[utoipa::path(
    post,
    path = "/v0/pipelines/{name}/views/{relation}/connectors/{connector}/{action}",
    params(Connector, ("action" = String, Path, description = "`start` or `pause`")),
    tag = "data",
    responses((status = 200, description = "It was told, and does so before its next step")),
)]
pub(super) async fn turn_output(manager: State<Arc<Manager>>, of: Path<Named>, request: Request) -> Result<Response> {
    pass(manager, of, request).await
}
