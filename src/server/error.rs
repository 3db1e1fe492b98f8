//! Errors as they go over the wire: a status and the standard body `{"message", "error_code", "details"}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use backstay_storage::Error as StorageError;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// The result of a route.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// The standard body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// For people: what, where, and what to do about it.
    pub message: String,
    /// For programs: one word, stable.
    pub error_code: &'static str,
    /// More, by `error_code`.
    #[schema(value_type = Object)]
    pub details: Value,
}

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

    /// What the storage does not take. 507 for a full disk: that is nobody's fault, and over once there is room.
    pub fn storage(error: &StorageError, message: impl Into<String>) -> Self {
        match error.is_no_space() {
            true => Self::new(StatusCode::INSUFFICIENT_STORAGE, "NoSpace", message),
            false => Self::internal(message),
        }
    }

    /// 503: not now.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// The standard body.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { message: self.message.clone(), error_code: self.code, details: self.details.clone() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}
