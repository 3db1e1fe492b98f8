//! `GET /query`: a SELECT over the pipeline's state after the step that was running when it came.
//!
//! Plain HTTP (`?sql=…&format=…`), and, as Feldera's `fda` has it, WebSocket: a text message `{"sql", "format"}`, one answer of text or binary
//! messages, then the close.

use std::sync::Arc;

use arrow::array::RecordBatch;
use axum::Json;
use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use crossbeam::channel::Receiver;
use serde_json::{Value, json};

use super::wire::{Query as Asked, QueryFormat as Wanted};
use super::{ASK_PATIENCE, Served};
use crate::pipeline::PipelineError;
use crate::pipeline::answer::{self, Format};
use crate::pipeline::query::{Asked as LiveState, QueryError};
use crate::server::error::{ApiError, Result};

/// The subprotocol of Feldera's clients.
const PROTOCOL: &str = "feldera-ws-v1";
/// Bytes of one WebSocket message of the answer.
const MESSAGE_BYTES: usize = 1 << 20;

/// An answer, ready to be sent.
struct Rendered {
    bytes: Vec<u8>,
    content_type: &'static str,
    is_text: bool,
}

pub(super) async fn query(State(served): State<Arc<Served>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let asked = match Query::<Asked>::from_request_parts(&mut parts, &served).await {
        Ok(Query(asked)) => asked,
        Err(rejected) => return ApiError::bad_request(rejected.body_text()).into_response(),
    };
    // Another protocol may be offered (`curl --http2`), and is not taken up.
    let is_socket = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"websocket");
    if parts.headers.get(header::UPGRADE).is_some_and(is_socket) {
        return match WebSocketUpgrade::from_request_parts(&mut parts, &served).await {
            Ok(upgrade) => upgrade.protocols([PROTOCOL]).on_upgrade(|socket| converse(served, socket)),
            Err(rejected) => ApiError::bad_request(rejected.body_text()).into_response(),
        };
    }
    self::asked(State(served), Json(asked)).await.into_response()
}

/// A query in the body, which may be longer than a path: for the manager.
pub(super) async fn asked(State(served): State<Arc<Served>>, Json(asked): Json<Asked>) -> Result<Response> {
    let answer = run(served, asked).await?;
    Ok(([(header::CONTENT_TYPE, answer.content_type)], Body::from(answer.bytes)).into_response())
}

/// Answers one query over a WebSocket.
async fn converse(served: Arc<Served>, mut socket: WebSocket) {
    let asked = loop {
        match socket.recv().await {
            Some(Ok(Message::Text(text))) => break serde_json::from_str::<Asked>(&text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return,
        }
    };
    let answer = match asked {
        Ok(asked) => run(served, asked).await,
        Err(error) => Err(ApiError::bad_request(format!("expected {{\"sql\": …, \"format\": …}}: {error}"))),
    };
    let (code, reason) = match answer {
        Ok(answer) => {
            for message in messages(answer) {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            (close_code::NORMAL, String::new())
        }
        Err(error) => {
            // The reason of a close is short by the protocol, so the error goes before it.
            let body = json!({ "error": error.message }).to_string();
            if socket.send(Message::Text(body.into())).await.is_err() {
                return;
            }
            (close_code::ERROR, "the query failed".to_owned())
        }
    };
    let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
}

fn messages(answer: Rendered) -> Vec<Message> {
    match (answer.is_text, String::from_utf8(answer.bytes)) {
        (true, Ok(text)) => text_messages(&text),
        (_, Ok(text)) => vec![Message::Binary(text.into_bytes().into())],
        (_, Err(bytes)) => bytes.as_bytes().chunks(MESSAGE_BYTES).map(|c| Message::Binary(c.to_vec().into())).collect(),
    }
}

/// Text in messages that end at line ends, where lines are not too long for that.
fn text_messages(text: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut gathered = String::new();
    for line in text.split_inclusive('\n') {
        if gathered.len() + line.len() > MESSAGE_BYTES && !gathered.is_empty() {
            messages.push(Message::Text(std::mem::take(&mut gathered).into()));
        }
        gathered.push_str(line);
    }
    if !gathered.is_empty() {
        messages.push(Message::Text(gathered.into()));
    }
    messages
}

async fn run(served: Arc<Served>, asked: Asked) -> Result<Rendered> {
    let format = match asked.format {
        Wanted::Text => Format::Table,
        Wanted::Json => Format::Json,
        Wanted::Csv => Format::Csv,
        Wanted::ArrowIpc => Format::Arrow,
        Wanted::Parquet | Wanted::Hash => {
            return Err(ApiError::bad_request("this format is not there yet; there are: text, json, csv, arrow_ipc"));
        }
    };
    // Waiting for the controller and running the circuit both block.
    let work = tokio::task::spawn_blocking(move || answer(&served, &asked, format));
    work.await.map_err(|e| ApiError::internal(format!("the query's thread failed: {e}")))?
}

/// What the controller answers between two steps.
fn wait<T>(answer: &Receiver<T>) -> Result<T> {
    answer.recv_timeout(ASK_PATIENCE).map_err(|_| {
        ApiError::unavailable("PipelineInteractionNotReady", "the pipeline is not ready to be asked yet: try again")
    })
}

/// The state after the step that is under way.
pub(super) fn ask(served: &Served) -> Result<LiveState> {
    wait(&served.control.ask())
}

/// `GET /circuit`: the operators, with what they have done and keep.
pub(super) async fn circuit(State(served): State<Arc<Served>>) -> Result<Json<Value>> {
    let work = tokio::task::spawn_blocking(move || wait(&served.control.look()));
    let now = work.await.map_err(|e| ApiError::internal(format!("the thread that asks failed: {e}")))??;
    Ok(Json(json!({ "step": now.step, "operators": now.operators })))
}

fn answer(served: &Served, asked: &Asked, format: Format) -> Result<Rendered> {
    let state = ask(served)?;
    let rows = match asked.only_columns {
        true => state.columns(&asked.sql).map(RecordBatch::new_empty),
        false => state.answer(&asked.sql).map(|answer| answer.rows),
    };
    let rows = rows.map_err(|error| match error {
        QueryError::Sql(errors) => ApiError::new(StatusCode::BAD_REQUEST, "InvalidQuery", errors.to_string()),
        QueryError::Pipeline(error @ PipelineError::Config(_)) => ApiError::bad_request(error.to_string()),
        QueryError::Pipeline(error) => ApiError::new(StatusCode::BAD_REQUEST, "QueryFailed", error.to_string()),
    })?;
    let mut bytes = Vec::new();
    answer::write(&rows, format, &mut bytes)
        .map_err(|e| ApiError::bad_request(format!("the result cannot be written in this format: {e}")))?;
    let (content_type, is_text) = match format {
        Format::Table => ("text/plain; charset=utf-8", true),
        Format::Json => ("application/x-ndjson", true),
        Format::Csv => ("text/csv; charset=utf-8", true),
        Format::Arrow => ("application/vnd.apache.arrow.stream", false),
    };
    Ok(Rendered { bytes, content_type, is_text })
}
