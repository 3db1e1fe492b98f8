//! The REST API. Every error has the standard body, that of a route or method that is not there, too.

mod guard;
mod lifecycle;
mod logs;
mod meta;
mod metrics;
mod pipelines;
mod proxy;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};

use super::Manager;
use crate::server::extract::{BODY_BYTES, Json, Path, Query};

pub(super) fn router(manager: Arc<Manager>) -> Router {
    let api = Router::new()
        .route("/v0/config", get(meta::config))
        .route("/v0/config/session", get(meta::session))
        .route("/v0/config/demos", get(meta::demos))
        .route("/metrics", get(metrics::metrics))
        .route("/v0/metrics", get(metrics::metrics))
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
        .route("/v0/pipelines/{name}/metrics", get(metrics::of_pipeline))
        .route("/v0/pipelines/{name}/circuit", get(proxy::pass))
        .route("/v0/pipelines/{name}/ingress/{table}", post(proxy::pass))
        .route("/v0/pipelines/{name}/egress/{view}", get(proxy::pass).post(proxy::pass))
        .route("/v0/pipelines/{name}/completion_status", get(proxy::pass))
        .route("/v0/pipelines/{name}/query", get(proxy::pass))
        .route("/v0/pipelines/{name}/checkpoint", post(proxy::pass))
        .route("/v0/pipelines/{name}/checkpoint_status", get(proxy::pass))
        .route("/v0/pipelines/{name}/tables/{relation}/connectors/{connector}/stats", get(proxy::input_stats))
        .route("/v0/pipelines/{name}/views/{relation}/connectors/{connector}/stats", get(proxy::output_stats))
        .route("/v0/pipelines/{name}/tables/{relation}/connectors/{connector}/{action}", post(proxy::pass))
        .route("/v0/pipelines/{name}/views/{relation}/connectors/{connector}/{action}", post(proxy::pass))
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
