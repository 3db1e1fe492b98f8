//! Who may ask.
//!
//! - With a key, every request of the API bears it: `Authorization: Bearer <key>`. Compared in constant time.
//! - Without one, the service listens at loopback only (the command line sees to it), and every local user may do everything. Web
//!   pages of other sites must not: a request whose `Origin` is not the service itself is refused, and so is one
//!   whose `Host` is a name that is not local (a page may have its own name resolve to 127.0.0.1).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::super::Manager;
use crate::server::error::ApiError;

pub(super) async fn authorize(State(manager): State<Arc<Manager>>, request: Request, next: Next) -> Response {
    if let Some(key) = &manager.api_key {
        let given = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let given = given.and_then(|v| v.strip_prefix("Bearer ").or_else(|| v.strip_prefix("bearer ")));
        if !given.is_some_and(|given| is_same(given.trim().as_bytes(), key.as_bytes())) {
            let message = "a key is needed here: send \"Authorization: Bearer <key>\"";
            return ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", message).into_response();
        }
    }
    next.run(request).await
}

/// Whether two keys are the same, in a time that tells nothing but their lengths.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

pub(super) async fn same_origin(State(manager): State<Arc<Manager>>, request: Request, next: Next) -> Response {
    if !is_welcome(request.headers(), manager.api_key.is_some()) {
        let message = "requests of other sites' pages are refused; without an API key the service is asked by a local address only";
        return ApiError::new(StatusCode::FORBIDDEN, "ForeignOrigin", message).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("x-frame-options", HeaderValue::from_static("DENY"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    response
}

fn is_welcome(headers: &HeaderMap, has_key: bool) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let host = text(HOST).unwrap_or_default();
    let is_foreign = text(ORIGIN).is_some_and(|origin| origin.split_once("://").map(|(_, at)| at) != Some(host));
    !is_foreign && (has_key || is_local(host))
}

/// Whether a host is this machine by name or address.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_hosts() {
        for local in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "127.0.0.1"] {
            assert!(is_local(local), "{local}");
        }
        for foreign in ["evil.example:8080", "localhost.evil.example", "10.0.0.1:8080", "", "127.0.0.1.evil.example"] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }

    #[test]
    fn pages_of_other_sites() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect::<HeaderMap>()
        };
        assert!(is_welcome(&headers(&[("host", "localhost:8080")]), false));
        assert!(is_welcome(&headers(&[("host", "localhost:8080"), ("origin", "http://localhost:8080")]), false));
        assert!(!is_welcome(&headers(&[("host", "localhost:8080"), ("origin", "http://evil.example")]), false));
        assert!(!is_welcome(&headers(&[("host", "localhost:8080"), ("origin", "null")]), true));
        assert!(!is_welcome(&headers(&[("host", "box.lan:8080")]), false));
        assert!(is_welcome(&headers(&[("host", "box.lan:8080")]), true));
    }

    #[test]
    fn keys() {
        assert!(is_same(b"abc", b"abc"));
        assert!(!is_same(b"abc", b"abd") && !is_same(b"abc", b"ab"));
    }
}
