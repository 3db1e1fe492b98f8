//! `GET /metrics`: the figures of all pipelines that answer, in one text.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use http_body_util::BodyExt;

use super::super::Manager;
use super::super::managed::Managed;
use super::{Named, Path};
use crate::server::error::{ApiError, Result};
use crate::server::runtime::METRICS_TYPE;

/// How long a pipeline is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Figures of all pipelines, for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "service",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(State(manager): State<Arc<Manager>>) -> Response {
    let mut families = BTreeMap::new();
    // All at once: one that hangs holds the others up for no longer than itself.
    let all = manager.all();
    for text in join_all(all.iter().map(|managed| of(managed))).await.into_iter().flatten() {
        gather(&mut families, &text);
    }
    let text: String = families.into_values().map(|(head, samples)| head + &samples).collect();
    ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response()
}

/// The same, where Feldera has it
#[utoipa::path(
    get,
    path = "/v0/metrics",
    tag = "service",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
pub(super) async fn v0_metrics(manager: State<Arc<Manager>>) -> Response {
    metrics(manager).await
}

/// A pipeline's figures, for Prometheus
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}/metrics",
    params(Named),
    tag = "data",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
pub(super) async fn of_pipeline(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
) -> Result<Response> {
    let text = of(&*manager.find(&name)?).await.ok_or_else(|| {
        let message = format!("pipeline \"{name}\" does not answer: it does while it is Running or Paused");
        ApiError::unavailable("PipelineInteractionNotDeployed", message)
    })?;
    Ok(([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

/// A pipeline's figures under the name that it has here; a process knows it by its identity only.
async fn of(managed: &Managed) -> Option<String> {
    let text = async {
        let answer = managed.place.call(Method::GET, &format!("/metrics?pipeline={}", managed.name())).await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        String::from_utf8(body.to_vec()).ok()
    };
    tokio::time::timeout(PATIENCE, text).await.ok().flatten()
}

/// Adds samples to their families, each of which has one head and stands in one place.
fn gather(families: &mut BTreeMap<String, (String, String)>, text: &str) {
    let mut family = String::new();
    let mut head = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap_or_default().to_owned();
            head = format!("{line}\n");
        } else if line.starts_with("# TYPE ") {
            head.push_str(&format!("{line}\n"));
            families.entry(family.clone()).or_default().0.clone_from(&head);
        } else if let Some((_, samples)) = families.get_mut(&family) {
            samples.push_str(&format!("{line}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_stands_in_one_place() {
        let mut families = BTreeMap::new();
        for pipeline in ["a", "b"] {
            let text = format!(
                "# HELP x X.\n# TYPE x counter\nx{{p=\"{pipeline}\"}} 1\n# HELP y Y.\n# TYPE y gauge\ny{{p=\"{pipeline}\"}} 2\n"
            );
            gather(&mut families, &text);
        }
        let text: String = families.into_values().map(|(head, samples)| head + &samples).collect();
        assert_eq!(
            text,
            "# HELP x X.\n# TYPE x counter\nx{p=\"a\"} 1\nx{p=\"b\"} 1\n# HELP y Y.\n# TYPE y gauge\ny{p=\"a\"} 2\ny{p=\"b\"} 2\n"
        );
    }
}
