//! The API of one running pipeline, on a Unix socket: what `backstay run --api-socket` serves and the manager passes requests on to.
//!
//! Whoever can open the socket's file may do everything here; the file's directory is what guards it.

mod connectors;
mod egress;
mod ingress;
mod liveness;
mod metrics;
mod query;
mod stats;
pub(super) mod wire;

pub use liveness::{Figures, Liveness};
pub(super) use metrics::CONTENT_TYPE as METRICS_TYPE;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::net::UnixListener;

use super::error::{ApiError, Result};
use super::extract::Query;
use crate::pipeline::{Clock, Control};
use crate::sql::Program;

/// What the routes know of their pipeline.
#[derive(Debug)]
pub struct Served {
    /// The pipeline's name.
    pub name: String,
    /// Its program.
    pub program: Arc<Program>,
    /// The door to its controller.
    pub control: Arc<Control>,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    /// A fresh id of this process, by which clients notice a restart.
    pub process: uuid::Uuid,
    /// When this process began, in ms since 1970.
    pub begun_ms: i64,
    /// Whether it has storage.
    pub stored: bool,
}

/// The directory that the process which listens at a socket holds locked: who it is can be seen also while it does not answer, and of two
/// that start one goes.
pub fn lock_of(socket: &Path) -> PathBuf {
    socket.with_extension("lock")
}

/// A socket that listens, ready to be served.
///
/// # Errors
/// The file cannot be made, or another process listens there.
pub async fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "another process listens there")),
        // What a killed process left behind.
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => tokio::fs::remove_file(path).await?,
        Err(_) => {}
    }
    UnixListener::bind(path)
}

/// Answers requests until the process ends.
///
/// # Errors
/// The socket failed.
pub async fn serve(listener: UnixListener, served: Arc<Served>) -> std::io::Result<()> {
    axum::serve(listener, router(served)).await
}

fn router(served: Arc<Served>) -> Router {
    Router::new()
        .route("/status", get(liveness::status))
        .route("/stats", get(stats::stats))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/stop", post(stop))
        .route("/checkpoint", post(checkpoint))
        .route("/checkpoint_status", get(checkpoint_status))
        .route("/query", get(query::query).post(query::asked))
        .route("/metrics", get(metrics::metrics))
        .route("/circuit", get(query::circuit))
        .route("/ingress/{table}", post(ingress::push))
        .route("/egress/{view}", get(egress::listen).post(egress::listen))
        .route("/completion_status", get(ingress::completion))
        .route("/tables/{table}/connectors/{connector}/{action}", post(connectors::input))
        .route("/views/{view}/connectors/{connector}/{action}", post(connectors::output))
        .with_state(served)
}

/// A relation's name as SQL has it: lower case unless it is in double quotes.
pub(in crate::server) fn normalized(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_lowercase(),
    }
}

/// The place among `names` of the relation that a client names; `what` and `code` tell which kind there is none of.
fn place_of<'a>(names: impl Iterator<Item = &'a str>, name: &str, what: &str, code: &'static str) -> Result<usize> {
    let (wanted, names) = (normalized(name), names.collect::<Vec<_>>());
    names.iter().position(|n| *n == wanted).ok_or_else(|| {
        let message = format!("there is no {what} {name}; there are: {}", names.join(", "));
        ApiError::new(StatusCode::NOT_FOUND, code, message)
    })
}

/// What is asked for comes to be when the pipeline runs.
fn not_running() -> ApiError {
    ApiError::unavailable("PipelineInteractionNotReady", "the pipeline is not running yet: try again")
}

async fn pause(State(served): State<Arc<Served>>) -> StatusCode {
    served.control.pause();
    StatusCode::ACCEPTED
}

async fn resume(State(served): State<Arc<Served>>) -> StatusCode {
    served.control.resume();
    StatusCode::ACCEPTED
}

async fn stop(State(served): State<Arc<Served>>) -> StatusCode {
    served.control.request_stop();
    StatusCode::ACCEPTED
}

async fn checkpoint(State(served): State<Arc<Served>>) -> Result<Json<wire::Checkpoint>> {
    if !served.stored {
        return Err(ApiError::bad_request(
            "the pipeline has no storage to write a checkpoint to: set \"storage\": true",
        ));
    }
    let number = served.control.request_checkpoint();
    Ok(Json(wire::Checkpoint { checkpoint_sequence_number: number, incarnation_uuid: served.process }))
}

async fn checkpoint_status(
    State(served): State<Arc<Served>>,
    Query(asked): Query<wire::OfProcess>,
) -> Result<Json<wire::CheckpointStatus>> {
    if asked.incarnation_uuid.is_some_and(|id| id != served.process) {
        return Err(ApiError {
            details: json!({ "incarnation_uuid": served.process }),
            ..ApiError::new(
                StatusCode::BAD_REQUEST,
                "IncarnationUuidMismatch",
                "the pipeline has been restarted since the checkpoint was asked for: ask again",
            )
        });
    }
    let success = served.control.snapshot().checkpoint_request;
    Ok(Json(wire::CheckpointStatus { success: (success > 0).then_some(success), failure: () }))
}

/// How long a query waits for the pipeline to be running and between two steps.
const ASK_PATIENCE: Duration = Duration::from_secs(30);
