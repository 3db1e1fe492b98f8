//! The REST API. Every error has the standard body, that of a route or method that is not there, too.

mod guard;
mod lifecycle;
mod logs;
mod meta;
mod pipelines;
mod proxy;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware;
use axum::routing::{get, post};
use serde::de::DeserializeOwned;

use super::Manager;
use crate::server::error::ApiError;

/// The largest body of a request that is not passed on: programs are text.
const BODY_BYTES: usize = 16 << 20;

pub(super) fn router(manager: Arc<Manager>) -> Router {
    let api = Router::new()
        .route("/v0/config", get(meta::config))
        .route("/v0/config/session", get(meta::session))
        .route("/v0/config/demos", get(meta::demos))
        .route("/config/authentication", get(meta::authentication))
        .route("/v0/cluster_healthz", get(meta::cluster_health))
        .route("/v0/validate_program", post(meta::validate_program))
        .route("/v0/pipelines", get(pipelines::list).post(pipelines::create))
        .route(
            "/v0/pipelines/{name}",
            get(pipelines::read).put(pipelines::put).patch(pipelines::patch).delete(pipelines::delete),
        )
        .route("/v0/pipelines/{name}/start", post(lifecycle::start))
        .route("/v0/pipelines/{name}/activate", post(lifecycle::resume))
        .route("/v0/pipelines/{name}/pause", post(lifecycle::pause))
        .route("/v0/pipelines/{name}/resume", post(lifecycle::resume))
        .route("/v0/pipelines/{name}/stop", post(lifecycle::stop))
        .route("/v0/pipelines/{name}/clear", post(lifecycle::clear))
        .route("/v0/pipelines/{name}/dismiss_error", post(lifecycle::dismiss_error))
        .route("/v0/pipelines/{name}/logs", get(logs::logs))
        .route("/v0/pipelines/{name}/stats", get(proxy::pass))
        .route("/v0/pipelines/{name}/circuit", get(proxy::pass))
        .route("/v0/pipelines/{name}/query", get(proxy::pass))
        .route("/v0/pipelines/{name}/checkpoint", post(proxy::pass))
        .route("/v0/pipelines/{name}/checkpoint_status", get(proxy::pass))
        .route("/v0/pipelines/{name}/tables/{relation}/connectors/{connector}/stats", get(proxy::input_stats))
        .route("/v0/pipelines/{name}/views/{relation}/connectors/{connector}/stats", get(proxy::output_stats))
        .layer(middleware::from_fn_with_state(Arc::clone(&manager), guard::authorize));
    Router::new()
        .merge(api)
        .route("/healthz", get(meta::healthz))
        .fallback(meta::unknown_route)
        .method_not_allowed_fallback(meta::wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&manager), guard::same_origin))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(manager)
}

/// A JSON body; what is wrong with it is told in the standard body.
struct Json<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        // Clients do not all say that it is JSON.
        let bytes = axum::body::Bytes::from_request(request, state).await.map_err(|rejected| {
            ApiError::new(
                rejected.status(),
                "InvalidRequest",
                format!("the body cannot be read: {}", rejected.body_text()),
            )
        })?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| ApiError::bad_request(format!("the body is not the JSON that is expected here: {e}")))?;
        Ok(Self(value))
    }
}

/// Parameters behind the `?`.
struct Query<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|rejected| ApiError::bad_request(rejected.body_text()))
    }
}

/// Parts of the path.
struct Path<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0))
            .map_err(|rejected| ApiError::new(StatusCode::BAD_REQUEST, "InvalidRequest", rejected.body_text()))
    }
}
