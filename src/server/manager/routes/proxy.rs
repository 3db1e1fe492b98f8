//! Requests that a pipeline's process answers: passed on once their bodies are here, and back piece by piece; WebSockets too.
//!
//! A body is passed on whole: a process that answers before it has read all of one would break the connection to it, and its answer be lost.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::super::Manager;
use super::super::managed::Managed;
use super::{Connector, Named, Path};
use crate::server::error::{ApiError, Result};
use crate::server::extract;
use crate::server::runtime::normalized;

/// Headers that belong to one connection, and secrets that the process does not need.
const NOT_PASSED: [HeaderName; 7] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::TE,
    header::TRAILER,
];

/// `…/pipelines/{name}/rest?query` is the process's `/rest?query`.
pub(super) async fn pass(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
    request: Request,
) -> Result<Response> {
    let managed = manager.find(&name)?;
    let path = request.uri().path_and_query().map_or("", |p| p.as_str());
    let rest = path.splitn(5, '/').nth(4).unwrap_or_default();
    let uri = format!("/{rest}").parse::<Uri>().map_err(|e| ApiError::bad_request(format!("the path: {e}")))?;
    send(&managed, uri, request).await
}

async fn send(managed: &Managed, uri: Uri, mut request: Request) -> Result<Response> {
    let is_upgrade = request.headers().contains_key(header::UPGRADE);
    let ours = is_upgrade.then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let body = extract::whole(body).await?;
    let mut passed = Request::new(Full::new(body.bytes()));
    *passed.method_mut() = parts.method;
    *passed.uri_mut() = uri;
    *passed.headers_mut() = passable(parts.headers);
    passed.headers_mut().insert(header::HOST, HeaderValue::from_static("pipeline"));
    if is_upgrade {
        passed.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let mut answer = managed.place.send(passed).await.map_err(|e| not_there(managed, &e))?;
    if let (Some(ours), StatusCode::SWITCHING_PROTOCOLS) = (ours, answer.status()) {
        let theirs = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            if let (Ok(ours), Ok(theirs)) = (ours.await, theirs.await) {
                // Either side's end is the other's, too.
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
            }
        });
    }
    let (mut parts, body) = answer.into_parts();
    let is_upgraded = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    parts.headers = passable(parts.headers);
    if is_upgraded {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    Ok(Response::from_parts(parts, Body::new(body)))
}

fn passable(mut headers: HeaderMap) -> HeaderMap {
    for name in NOT_PASSED {
        headers.remove(name);
    }
    headers
}

fn not_there(managed: &Managed, error: &std::io::Error) -> ApiError {
    let (name, status) = (managed.name(), managed.status());
    ApiError::unavailable(
        "PipelineInteractionNotDeployed",
        format!(
            "pipeline \"{name}\" cannot be asked: it is {status} ({error}); it answers while it is Running or Paused"
        ),
    )
}

/// One connector's part of the figures.
pub(super) async fn endpoint_stats(manager: &Manager, of: &Connector, is_input: bool) -> Result<Response> {
    let Connector { name, relation, connector } = of;
    let relation = &normalized(relation);
    let managed = manager.find(name)?;
    if !managed.compiled().await.has_connector(is_input, relation, connector) {
        let what = if is_input { "table" } else { "view" };
        let message = format!("{what} \"{relation}\" of pipeline \"{name}\" has no connector \"{connector}\"");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "UnknownConnector", message));
    }
    let answer = managed.place.call(Method::GET, "/stats").await.map_err(|e| not_there(&managed, &e))?;
    let body =
        answer.into_body().collect().await.map_err(|e| ApiError::internal(format!("the pipeline's figures: {e}")))?;
    let stats: Value = serde_json::from_slice(&body.to_bytes())
        .map_err(|e| ApiError::internal(format!("the pipeline's figures are not JSON: {e}")))?;
    let endpoint = format!("{relation}.{connector}");
    let all = stats.get(if is_input { "inputs" } else { "outputs" }).and_then(Value::as_array);
    let found = all.into_iter().flatten().find(|e| e.get("endpoint_name").is_some_and(|n| *n == endpoint));
    match found {
        Some(found) => Ok(JsonBody(found.clone()).into_response()),
        None => Err(ApiError::unavailable("PipelineInteractionNotReady", "the pipeline has no figures yet: try again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_key_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer key"));
        headers.insert(header::COOKIE, HeaderValue::from_static("a=b"));
        headers.insert("idempotency-key", HeaderValue::from_static("7"));
        let passed = passable(headers);
        assert_eq!(passed.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["idempotency-key"]);
    }
}
