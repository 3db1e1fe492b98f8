//! What the service says of itself, and of programs that are no pipeline's.

use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::{Manager, PLATFORM_VERSION, timestamp};
use super::Json;
use crate::server::error::{ApiError, Result};

/// What clients ask first
// The edition is the one of Feldera's whose features these are; clients refuse them in the other.
#[utoipa::path(get, path = "/v0/config", tag = "service", responses((status = 200, body = Object)))]
pub(super) async fn config() -> Body<Value> {
    Body(json!({
        "telemetry": "",
        "edition": "Enterprise",
        "version": PLATFORM_VERSION,
        "revision": env!("CARGO_PKG_VERSION"),
        "runtime_revision": env!("CARGO_PKG_VERSION"),
        "build_source": "backstay",
        "changelog_url": "",
        "conceptualhq": "",
        "posthog": "",
        "product_fruits": "",
        "license_validity": null,
        "update_info": null,
        "unstable_features": null,
        "build_info": {
            "build_cpu": std::env::consts::ARCH,
            "build_os": std::env::consts::OS,
            "build_timestamp": "",
            "cargo_debug": if cfg!(debug_assertions) { "true" } else { "false" },
            "cargo_dependencies": "",
            "cargo_features": "",
            "cargo_opt_level": "",
            "cargo_target_triple": "",
            "rustc_version": "",
        },
    }))
}

/// Who asks: everybody is the owner
#[utoipa::path(get, path = "/v0/config/session", tag = "service", responses((status = 200, body = Object)))]
pub(super) async fn session() -> Body<Value> {
    Body(json!({ "tenant_id": uuid::Uuid::nil(), "tenant_name": "default", "user_id": null, "role": "owner" }))
}

/// Feldera's demos: none
#[utoipa::path(get, path = "/v0/config/demos", tag = "service", responses((status = 200, body = Vec<Object>)))]
pub(super) async fn demos() -> Body<Value> {
    Body(json!([]))
}

/// How Feldera's console logs in: not at all
#[utoipa::path(
    get,
    path = "/config/authentication",
    tag = "service",
    responses((status = 200, body = String, content_type = "application/json")),
)]
pub(super) async fn authentication() -> Body<Value> {
    Body(json!("NoAuth"))
}

/// Whether changes can be kept and pipelines started
#[utoipa::path(get, path = "/readyz", tag = "service", security(()), responses((status = 200, body = Object)))]
pub(super) async fn readyz(State(manager): State<Arc<Manager>>) -> Result<Body<Value>> {
    let not_ready = |why: String| {
        ApiError::unavailable("NotReady", format!("changes cannot be kept, nor pipelines started: {why}"))
    };
    manager.readiness().await.map_err(not_ready)?;
    Ok(Body(json!({ "status": "ready" })))
}

/// Whether the service is there
#[utoipa::path(get, path = "/healthz", tag = "service", security(()), responses((status = 200, body = Object)))]
pub(super) async fn healthz() -> Body<Value> {
    Body(json!({ "status": "healthy" }))
}

/// Whether the service is well, as Feldera tells it
#[utoipa::path(get, path = "/v0/cluster_healthz", tag = "service", responses((status = 200, body = Object)))]
pub(super) async fn cluster_health(State(manager): State<Arc<Manager>>) -> Body<Value> {
    let now = timestamp(manager.clock.wall_ms());
    let service = json!({ "healthy": true, "message": "", "unchanged_since": now, "checked_at": now });
    Body(json!({ "all_healthy": true, "api": service, "compiler": service, "runner": service }))
}

/// A program that is no pipeline's.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ProgramText)]
pub(super) struct Validated {
    /// The SQL text.
    program_code: String,
}

/// Compiles a program without keeping it
#[utoipa::path(
    post,
    path = "/v0/validate_program",
    tag = "service",
    request_body = Validated,
    responses((status = 200, description = "`Success`, `SqlError` or `SystemError`", body = Object)),
)]
pub(super) async fn validate_program(State(manager): State<Arc<Manager>>, Json(asked): Json<Validated>) -> Body<Value> {
    Body(manager.compiler.compile(asked.program_code).await.validated())
}

pub(super) async fn unknown_route(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "UnknownRoute", format!("there is nothing at {}", uri.path()))
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not know the method {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "WrongMethod", message)
}
