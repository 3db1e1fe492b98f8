//! `POST /ingress/{table}`: rows of a client, durable before they are acknowledged; and `GET /completion_status`: what became of them.
//!
//! A request's rows are taken all or none. With an `Idempotency-Key` it may be repeated, also after a crash of ours: it is one push.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::Served;
use super::wire::{Completion, Ingress, Token};
use crate::connector::config::FormatConfig;
use crate::connector::format::{Format, Parsed, document, split};
use crate::connector::{Context, RowError};
use crate::pipeline::PipelineError;
use crate::pipeline::push::record::PushKey;
use crate::pipeline::push::{CONNECTOR, PushError, Pushed, Pushes, keys};
use crate::server::error::{ApiError, Result};
use crate::server::extract::{Body, Path, Query};
use crate::sql::Table;

/// The longest key.
const KEY_BYTES: usize = 255;
/// The most values of one request: short rows may stand for much memory.
const MOST_CELLS: usize = 10_000_000;
/// How long a request waits for room among the rows that wait for steps.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(20);
/// The errors that are told of one request.
const SHOWN_ERRORS: usize = 20;

pub(super) async fn push(
    State(served): State<Arc<Served>>,
    Path(name): Path<String>,
    Query(asked): Query<Ingress>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response> {
    let pushes = pushes(&served)?;
    let place = find(&served, &name)?;
    let table = served.program.tables.get(place).ok_or_else(|| ApiError::internal("the table is gone"))?;
    let key = key(&served, &table.name, &asked, &headers, &body)?;
    let parsing = Arc::clone(&served);
    let parsed = tokio::task::spawn_blocking(move || {
        let table = parsing.program.tables.get(place).ok_or_else(|| ApiError::internal("the table is gone"))?;
        parse(table, &asked, &body)
    });
    let Parsed { rows, weights, .. } =
        parsed.await.map_err(|e| ApiError::internal(format!("the parser's thread failed: {e}")))??;
    let begun = served.clock.elapsed();
    let pushed = loop {
        match pushes.push(place, rows.clone(), weights.clone(), key.clone()) {
            Ok(pushed) => break pushed,
            Err(PushError::Full) if served.clock.elapsed().saturating_sub(begun) < PATIENCE => {
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(refused(&error)),
        }
    };
    let unknown = |e: PipelineError| {
        let message = format!(
            "it is not known whether the rows are durable: {e}. Push them again with the same Idempotency-Key, or look for them once the pipeline runs again"
        );
        failed(&e, message)
    };
    pushes.when_durable(&pushed).await.map_err(unknown)?;
    let token = token(&pushes, &table.name, &pushed);
    let repeated = [("idempotent-replayed", if pushed.repeated { "true" } else { "false" })];
    Ok((repeated, Json(Token { token })).into_response())
}

fn pushes(served: &Served) -> Result<Arc<Pushes>> {
    served.control.pushes().ok_or_else(super::not_running)
}

/// A table that rows can be pushed to, by its place in the program.
fn find(served: &Served, name: &str) -> Result<usize> {
    let names = served.program.tables.iter().map(|t| t.name.as_str());
    let place = super::place_of(names, name, "table", "UnknownInputStream")?;
    match served.program.plan.tables.iter().any(|t| t.late == Some(place)) {
        true => Err(ApiError::bad_request(format!("{name} holds the late rows of another table: push to that one"))),
        false => Ok(place),
    }
}

fn key(served: &Served, table: &str, asked: &Ingress, headers: &HeaderMap, body: &[u8]) -> Result<Option<PushKey>> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY_BYTES);
    let key = key.ok_or_else(|| {
        ApiError::bad_request(format!("the header Idempotency-Key must be 1 to {KEY_BYTES} visible ASCII characters"))
    })?;
    // What the body means is part of the request.
    let request = [xxh3_64(body), xxh3_64(asked.text().as_bytes())];
    let body = request.iter().fold(0u64, |hash, part| hash.rotate_left(17) ^ part);
    let hash = keys::hash(table, key);
    Ok(Some(PushKey { hash, body, at_ms: served.clock.wall_ms() }))
}

fn parse(table: &Table, asked: &Ingress, body: &[u8]) -> Result<Parsed> {
    let misconfigured = |e: crate::connector::ConnectorError| ApiError::bad_request(e.message);
    let mut config = serde_json::Map::new();
    let mut set = |key: &str, value: Option<Value>| value.map(|value| config.insert(key.to_owned(), value));
    set("update_format", asked.update_format.as_ref().map(|name| json!(name)));
    set("headers", asked.headers.map(|headers| json!(headers)));
    set("delimiter", asked.delimiter.as_ref().map(|delimiter| json!(delimiter)));
    // What makes several rows of one document is for connectors, which keep these together.
    if let Some(other) = asked.update_format.as_deref().filter(|f| !["insert_delete", "raw"].contains(f)) {
        let message =
            format!("there is no \"update_format\": {other:?} for pushed rows; there are: insert_delete, raw");
        return Err(ApiError::bad_request(message));
    }
    check_flavor(table, asked.json_flavor.as_deref())?;
    let config = FormatConfig { name: asked.format.clone(), config: Value::Object(config) };
    let context = Context {
        declared: table.declared.clone(),
        primary_key: table.primary_key.clone(),
        append_only: table.is_append_only(),
        ..Context::of_format(format!("{}.{CONNECTOR}", table.name), &table.schema)
    };
    let format = Format::new(Some(&config), &context).map_err(misconfigured)?;
    let mut records = Vec::new();
    let mut start = 0;
    let mut header: &[u8] = &[];
    if !["json", "csv"].contains(&asked.format.as_str()) {
        let message = format!("there is no format {:?} for pushed rows; there are: json, csv", asked.format);
        return Err(ApiError::bad_request(message));
    }
    if asked.format == "json" {
        let values = document::values(body, asked.array);
        let values = values
            .map_err(|e| ApiError::bad_request(format!("the body is not JSON as expected, at byte {}: {e}", e.at)))?;
        let record = |range: std::ops::Range<usize>| split::Record {
            start: range.start,
            text_end: range.end,
            end: range.end,
            broken: false,
            absent: false,
        };
        records.extend(values.into_iter().map(record));
    } else {
        let too_long = |split::TooLong(at)| {
            ApiError::bad_request(format!("the record at byte {at} is longer than {} bytes", split::MAX_RECORD))
        };
        if format.has_header() {
            let mut first = Vec::new();
            start = split::split(body, 0, format.framing(), true, 1, &mut first).map_err(too_long)?;
            header = first.first().and_then(|r| body.get(r.start..r.text_end)).unwrap_or_default();
        }
        split::split(body, start, format.framing(), true, usize::MAX, &mut records).map_err(too_long)?;
    }
    let columns = table.schema.fields().len();
    if records.len().saturating_mul(columns) > MOST_CELLS {
        let message = format!("{} rows of {columns} columns are too many for one request: part it", records.len());
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "TooManyRows", message));
    }
    let layout = format.layout("the body", header).map_err(misconfigured)?;
    let parsed = format.parse(&layout, body, 0, &records).map_err(misconfigured)?;
    if !parsed.errors.is_empty() {
        return Err(unparsed(&parsed.errors));
    }
    Ok(parsed)
}

/// pandas writes times as numbers, which would be taken for something else.
fn check_flavor(table: &Table, flavor: Option<&str>) -> Result<()> {
    match flavor {
        None | Some("default") => Ok(()),
        Some("pandas") if !table.schema.fields().iter().any(|f| f.data_type().is_temporal()) => Ok(()),
        Some("pandas") => Err(ApiError::bad_request(format!(
            "{} has columns of date or time, which \"json_flavor\": \"pandas\" cannot carry yet: push JSON with ISO times",
            table.name
        ))),
        Some(other) => {
            let message = format!("there is no \"json_flavor\": {other:?}; there are: default, pandas");
            Err(ApiError::bad_request(message))
        }
    }
}

fn unparsed(errors: &[RowError]) -> ApiError {
    let shown: Vec<Value> =
        errors.iter().take(SHOWN_ERRORS).map(|e| json!({ "byte": e.offset, "message": e.message })).collect();
    let first = errors.first().map(|e| format!(": byte {}: {}", e.offset, e.message)).unwrap_or_default();
    let message = format!("{} rows do not parse, and nothing was taken{first}", errors.len());
    ApiError {
        details: json!({ "num_errors": errors.len(), "errors": shown }),
        ..ApiError::new(StatusCode::BAD_REQUEST, "ParseErrors", message)
    }
}

fn refused(error: &PushError) -> ApiError {
    let message = error.to_string();
    match error {
        PushError::Closed => ApiError::unavailable("PipelineInteractionNotReady", message),
        PushError::Full => ApiError::unavailable("TooManyPushedRows", message),
        PushError::KeyReused => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "IdempotencyKeyReused", message),
        PushError::TooManyRows(_) => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "TooManyRows", message),
        PushError::Failed(error) => failed(error, message),
    }
}

/// What the log does not take.
fn failed(error: &PipelineError, message: String) -> ApiError {
    match error {
        PipelineError::Storage(error) => ApiError::storage(error, message),
        _ => ApiError::internal(message),
    }
}

/// By which a client asks whether its rows have gone through: `offset.incarnation.table`.
fn token(pushes: &Pushes, table: &str, pushed: &Pushed) -> String {
    format!("{}.{}.{}", pushed.end, pushes.incarnation.simple(), table)
}

pub(super) async fn completion(
    State(served): State<Arc<Served>>,
    Query(Token { token }): Query<Token>,
) -> Result<Json<Completion>> {
    let pushes = pushes(&served)?;
    let mut parts = token.splitn(3, '.');
    let (end, incarnation, table) = (parts.next(), parts.next(), parts.next());
    let end = end.and_then(|end| end.parse::<u64>().ok());
    let (Some(end), Some(incarnation), Some(table)) = (end, incarnation, table) else {
        return Err(ApiError::bad_request("this is no token of this service"));
    };
    if incarnation != pushes.incarnation.simple().to_string() {
        let message = "the token is of another life of the pipeline: its storage was cleared, or it has none and was started again";
        return Err(ApiError::new(StatusCode::GONE, "CompletionTokenExpired", message));
    }
    let place = served.program.tables.iter().position(|t| t.name == table);
    let place =
        place.ok_or_else(|| ApiError::bad_request(format!("the token is of the table {table}, which is not there")))?;
    let status = if pushes.is_complete(place, end) { "complete" } else { "inprogress" };
    Ok(Json(Completion { status }))
}

#[cfg(test)]
mod tests {
    use backstay_storage::Error;

    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such() {
        let status = |error| failed(&PipelineError::Storage(error), String::new()).status;
        let full = || Error::io("write", "/x", std::io::ErrorKind::StorageFull.into());
        assert_eq!(status(full()), StatusCode::INSUFFICIENT_STORAGE);
        let poisoned = |no_space| Error::Poisoned { cause: full().to_string(), no_space };
        assert_eq!(status(poisoned(true)), StatusCode::INSUFFICIENT_STORAGE);
        assert_eq!(status(poisoned(false)), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
