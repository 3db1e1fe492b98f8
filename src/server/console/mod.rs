//! The console: static pages that talk to the REST API like any other client.
//!
//! Invariants:
//! 1. All data come over the REST API; what is served here is the same for everybody, so that it is served without a key.
//! 2. The pages run no code and load nothing but what is served here: a Content-Security-Policy without inline scripts or styles, and with
//!    trusted types, under which no text can become HTML.
//! 3. What a browser keeps is asked for again each time (`no-cache`, `ETag`), so that a newer version is there at once.

mod assets;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH,
};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use xxhash_rust::xxh3::xxh3_64;

use super::error::ApiError;
use assets::Asset;

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The console's routes: its page at `/`, what that needs below `/console/`.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(index)).route("/console/{*path}", get(asset))
}

async fn index(uri: Uri, headers: HeaderMap) -> Response {
    serve("index.html", &uri, &headers)
}

async fn asset(Path(path): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    serve(&path, &uri, &headers)
}

fn serve(path: &str, uri: &Uri, headers: &HeaderMap) -> Response {
    let Some(Asset { content_type, bytes, .. }) = Asset::find(path) else {
        let message = format!("there is nothing at {}", uri.path());
        return ApiError::new(StatusCode::NOT_FOUND, "UnknownRoute", message).into_response();
    };
    let tag = format!("\"{:016x}\"", xxh3_64(bytes));
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(CONTENT_TYPE, content_type)], bytes).into_response(),
    };
    let answered = response.headers_mut();
    answered.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answered.insert(CONTENT_SECURITY_POLICY, POLICY);
    answered.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    answered.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answered.insert(ETAG, tag);
    }
    response
}
