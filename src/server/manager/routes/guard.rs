//! Who may ask.
//!
//! - No address makes more requests than the configured rate ([`limits`](super::super::limits)); 429 tells when to come again.
//! - With keys, every request of the API bears one: `Authorization: Bearer <key>`. An address that tries too many wrong ones is answered 429, whatever it
//!   sends, until some time has passed.
//! - Without one, the service listens at loopback only (the command line sees to it), and every local user may do everything. Web
//!   pages of other sites must not: a request whose `Origin` is not the service itself is refused, and so is one
//!   whose `Host` is a name that is not local (a page may have its own name resolve to 127.0.0.1).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    AUTHORIZATION, HOST, HeaderName, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::super::{Manager, Refused};
use crate::server::error::ApiError;

/// Lets a request pass if its address has not made too many.
pub(super) async fn limit(State(manager): State<Arc<Manager>>, request: Request, next: Next) -> Response {
    match manager.requests.take(address(&request)) {
        true => next.run(request).await,
        false => too_many("RequestRateExceeded", "this address makes too many requests", 1),
    }
}

/// Lets a request pass if it bears a key, or none is needed.
pub(super) async fn authorize(State(manager): State<Arc<Manager>>, request: Request, next: Next) -> Response {
    // A page's first request has none; that is no attempt. One that is given in another way is.
    let given = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    let is_bearer = |scheme: &str| scheme.eq_ignore_ascii_case("bearer");
    let key = given.map(|v| v.split_once(' ').filter(|(scheme, _)| is_bearer(scheme)).map_or("", |(_, key)| key));
    match manager.admit(address(&request), key.map(|key| key.trim().as_bytes())) {
        Ok(()) => return next.run(request).await,
        Err(Refused::TooMany) => {
            return too_many("TooManyWrongKeys", "too many wrong keys have come from this address", 60);
        }
        Err(Refused::Wrong) => {}
    }
    let message = "a key is needed here: send \"Authorization: Bearer <key>\"";
    let error = ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", message);
    ([(WWW_AUTHENTICATE, "Bearer")], error).into_response()
}

/// Where a request comes from.
fn address(request: &Request) -> IpAddr {
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>();
    from.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(from)| from.ip())
}

fn too_many(code: &'static str, message: &str, seconds: u32) -> Response {
    let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, format!("{message}: wait and try again"));
    ([(RETRY_AFTER, seconds.to_string())], error).into_response()
}

pub(super) async fn same_origin(State(manager): State<Arc<Manager>>, request: Request, next: Next) -> Response {
    let is_welcome = {
        let text = |name: HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok());
        // HTTP/2 has the host in the target.
        let host = text(HOST).or_else(|| request.uri().authority().map(|a| a.as_str())).unwrap_or_default();
        is_welcome(host, text(ORIGIN), manager.needs_key())
    };
    if !is_welcome {
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

fn is_welcome(host: &str, origin: Option<&str>, has_key: bool) -> bool {
    let is_foreign = origin.is_some_and(|origin| origin.split_once("://").map(|(_, at)| at) != Some(host));
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
        assert!(is_welcome("localhost:8080", None, false));
        assert!(is_welcome("localhost:8080", Some("http://localhost:8080"), false));
        assert!(!is_welcome("localhost:8080", Some("http://evil.example"), false));
        assert!(!is_welcome("localhost:8080", Some("null"), true));
        assert!(!is_welcome("box.lan:8080", None, false));
        assert!(is_welcome("box.lan:8080", None, true));
    }
}
