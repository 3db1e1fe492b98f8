//! Errors as they go over the wire: a status and the standard body `{"message", "error_code", "details"}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The result of a route.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// A refusal or failure that a client is told.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// For programs: one word, stable.
    pub code: &'static str,
    /// For people: what, where, and what to do about it.
    pub message: String,
    /// More, by `code`.
    pub details: Value,
}

impl ApiError {
    /// An error without details.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: json!({}) }
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", message)
    }

    /// 404: there is no pipeline of this name.
    pub fn unknown_pipeline(name: &str) -> Self {
        Self {
            details: json!({ "pipeline_name": name }),
            ..Self::new(StatusCode::NOT_FOUND, "UnknownPipelineName", format!("there is no pipeline \"{name}\""))
        }
    }

    /// 500: a fault of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 503: not now.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// The standard body.
    pub fn body(&self) -> Value {
        json!({ "message": self.message, "error_code": self.code, "details": self.details })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}
