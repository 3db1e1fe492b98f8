//! A question to a pipeline's process, and its answer as rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use pgwire::error::PgWireError;
use serde_json::{Value, json};

use super::super::managed::Managed;
use super::error;

/// Why there are no rows.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// The SQLSTATE.
    pub state: &'static str,
    /// What and why.
    pub message: String,
}

impl Unanswered {
    fn unreachable(managed: &Managed, why: &str) -> Self {
        let (name, status) = (managed.name(), managed.status());
        let message = format!(
            "pipeline \"{name}\" cannot be asked: it is {status} ({why}); it answers while it is Running or Paused"
        );
        Self { state: "57P03", message }
    }

    fn garbled(what: impl std::fmt::Display) -> Self {
        Self { state: "XX000", message: format!("the pipeline's answer: {what}") }
    }
}

impl From<Unanswered> for PgWireError {
    fn from(unanswered: Unanswered) -> Self {
        error(unanswered.state, unanswered.message)
    }
}

/// Asks for the rows of a query, or only for its columns: then there are no rows.
pub(super) async fn ask(managed: &Managed, sql: &str, only_columns: bool) -> Result<RecordBatch, Unanswered> {
    let asked = json!({ "sql": sql, "format": "arrow_ipc", "only_columns": only_columns }).to_string();
    let request = Request::post("/query").header("host", "pipeline").header("content-type", "application/json");
    let request = request.body(Full::<Bytes>::from(asked)).map_err(Unanswered::garbled)?;
    let answer = managed.place.send(request).await.map_err(|e| Unanswered::unreachable(managed, &e.to_string()))?;
    let is_ok = answer.status().is_success();
    let body = answer.into_body().collect().await.map_err(|e| Unanswered::unreachable(managed, &e.to_string()))?;
    let body = body.to_bytes();
    if is_ok {
        return decode(&body).map_err(Unanswered::garbled);
    }
    let refusal: Value = serde_json::from_slice(&body).map_err(Unanswered::garbled)?;
    let text = |key: &str| refusal.get(key).and_then(Value::as_str).unwrap_or_default();
    let state = match text("error_code") {
        "InvalidQuery" => "42000",
        "PipelineInteractionNotReady" => "57P03",
        "QueryFailed" => "22000",
        _ => "XX000",
    };
    Err(Unanswered { state, message: text("message").to_owned() })
}

/// Comes from a process of ours over a socket of ours.
pub(super) fn decode(stream: &[u8]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let reader = StreamReader::try_new(stream, None)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    concat_batches(&Arc::clone(&schema), &batches)
}
