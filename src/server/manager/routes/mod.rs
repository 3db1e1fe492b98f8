//! The REST API. Every error has the standard body, that of a route or method that is not there, too.
//!
//! Each handler declares its path, method, parameters and bodies by `#[utoipa::path]`; routes and the document at `/openapi.json` are both made
//! from that.

mod guard;
mod history;
mod lifecycle;
mod live;
mod logs;
mod meta;
mod metrics;
mod openapi;
mod pipelines;
mod proxy;
mod savepoints;

use std::sync::Arc;

use axum::routing::get;
use axum::{Json as Body, Router, middleware};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Manager;
use crate::server::console;
use crate::server::extract::{Json, Path, Query};

/// The pipeline that a path is about, whatever else it names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct Named {
    /// The pipeline's name.
    name: String,
}

/// The connector that a path is about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct Connector {
    /// The pipeline's name.
    name: String,
    /// The table or view.
    relation: String,
    /// The connector's name.
    connector: String,
}

pub(super) fn router(manager: Arc<Manager>) -> Router {
    let api = OpenApiRouter::with_openapi(openapi::Api::openapi())
        .routes(routes!(meta::config))
        .routes(routes!(meta::session))
        .routes(routes!(meta::demos))
        .routes(routes!(meta::authentication))
        .routes(routes!(meta::cluster_health))
        .routes(routes!(meta::validate_program))
        .routes(routes!(metrics::metrics))
        .routes(routes!(metrics::v0_metrics))
        .routes(routes!(pipelines::list, pipelines::create))
        .routes(routes!(pipelines::read, pipelines::put, pipelines::patch, pipelines::delete))
        .routes(routes!(lifecycle::start))
        .routes(routes!(lifecycle::pause))
        .routes(routes!(lifecycle::resume))
        .routes(routes!(lifecycle::stop))
        .routes(routes!(lifecycle::clear))
        .routes(routes!(lifecycle::dismiss_error))
        .routes(routes!(savepoints::list, savepoints::create))
        .routes(routes!(savepoints::delete))
        .routes(routes!(logs::logs))
        .routes(routes!(history::history))
        .routes(routes!(metrics::of_pipeline))
        .routes(routes!(live::stats))
        .routes(routes!(live::circuit))
        .routes(routes!(live::ingress))
        .routes(routes!(live::egress))
        .routes(routes!(live::completion))
        .routes(routes!(live::query))
        .routes(routes!(live::checkpoint))
        .routes(routes!(live::checkpoint_status))
        .routes(routes!(live::input_stats))
        .routes(routes!(live::output_stats))
        .routes(routes!(live::turn_input))
        .routes(routes!(live::turn_output))
        .layer(middleware::from_fn_with_state(Arc::clone(&manager), guard::authorize));
    // Who asks for these needs no key.
    let open = OpenApiRouter::new().routes(routes!(meta::healthz)).routes(routes!(meta::readyz));
    let (router, document) = api.merge(open).split_for_parts();
    let document = Body(openapi::complete(document));
    router
        .merge(console::router())
        .route("/openapi.json", get(|| async move { document }))
        .fallback(meta::unknown_route)
        .method_not_allowed_fallback(meta::wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&manager), guard::same_origin))
        .layer(middleware::from_fn_with_state(Arc::clone(&manager), guard::limit))
        .with_state(manager)
}
