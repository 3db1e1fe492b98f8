//! `GET` or `POST /egress/{view}`: a view's changes as they come, step by step, in Feldera's shape: JSON documents on lines of their own, or
//! server-sent events if the client accepts these.
//!
//! Each step that changes the view is one document. A client that was cut off goes on by `after_step`, or by the event's id
//! (`Last-Event-ID`): it misses and repeats nothing, or is answered 410 if what it asks for is not kept any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;

use super::Served;
use super::query::ask;
use super::wire::{Egress, EgressFormat};
use crate::circuit::Delta;
use crate::connector::Context;
use crate::connector::config::FormatConfig;
use crate::connector::format::render::{Carrier, Renderer};
use crate::pipeline::feed::Feed;
use crate::server::error::{ApiError, Result};
use crate::server::extract::{Path, Query};
use crate::sql::View;

/// How often a listener hears something though nothing happens.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);
/// Rows of a snapshot's document.
const SNAPSHOT_ROWS: usize = 10_000;

/// A client on its way.
struct Listener {
    feed: Arc<Feed>,
    news: tokio::sync::watch::Receiver<u64>,
    view: usize,
    name: String,
    renderer: Renderer,
    kind: EgressFormat,
    is_events: bool,
    /// All up to this step was sent.
    after: u64,
    sequence: u64,
    /// The rows that it begins with, as far as they are not prepared, and their step.
    snapshot: Option<(u64, RecordBatch)>,
    /// What is ready to be sent.
    ready: VecDeque<Bytes>,
    has_ended: bool,
}

pub(super) async fn listen(
    State(served): State<Arc<Served>>,
    Path(name): Path<String>,
    Query(asked): Query<Egress>,
    headers: HeaderMap,
) -> Result<Response> {
    let feed = served.control.feed().ok_or_else(super::not_running)?;
    let names = served.program.views.iter().map(|v| v.name.as_str());
    let place = super::place_of(names, &name, "view", "UnknownOutputStream")?;
    let view = served.program.views.get(place).ok_or_else(|| ApiError::internal("the view is gone"))?;
    let is_events =
        headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()).is_some_and(|a| a.contains("text/event-stream"));
    let renderer = renderer(view, asked.format).map_err(|e| ApiError::bad_request(e.message))?;
    let news = feed.watch();
    let after = match last_event(&headers, &feed, &name)? {
        Some(step) => Some(step),
        None => asked.after_step,
    };
    let now = *news.borrow();
    let mut listener = Listener {
        feed,
        news,
        view: place,
        name,
        renderer,
        kind: asked.format,
        is_events,
        after: after.unwrap_or(now),
        sequence: 0,
        ready: VecDeque::new(),
        snapshot: None,
        has_ended: false,
    };
    if let Some(step) = after {
        listener.check(step, now)?;
    } else if asked.send_snapshot {
        listener.snapshot(&served).await?;
    }
    // A first piece, so that the client sees an answer; of a snapshot it is the rows' first part, before whose end there is no step to go on from.
    if listener.snapshot.is_none() {
        listener.sign_of_life();
    }
    let content_type = if is_events { "text/event-stream" } else { "application/x-ndjson" };
    let pieces = stream::unfold(listener, |mut listener| async move {
        let piece = listener.next().await?;
        Some((Ok::<_, std::io::Error>(piece), listener))
    });
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

fn renderer(view: &View, kind: EgressFormat) -> crate::connector::Result<Renderer> {
    let name = if kind == EgressFormat::Csv { "csv" } else { "json" };
    let context = Context::of_format(format!("{}.egress", view.name), &view.schema);
    Renderer::new(Some(&FormatConfig { name: name.to_owned(), config: json!({}) }), &context, &Carrier::File)
}

/// The step of the last event that a client had, `scope:step`.
fn last_event(headers: &HeaderMap, feed: &Feed, view: &str) -> Result<Option<u64>> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let parts = id.to_str().ok().and_then(|id| id.split_once(':'));
    let step = parts.and_then(|(scope, step)| Some((scope, step.parse::<u64>().ok()?)));
    match step {
        Some((scope, step)) if scope == feed.scope.simple().to_string() => Ok(Some(step)),
        Some(_) => Err(gone(
            view,
            "the event is of another life of the pipeline, whose steps have other numbers".to_owned(),
            None,
        )),
        None => Err(ApiError::bad_request("the header Last-Event-ID is not the id of an event of this service")),
    }
}

/// What a client asks for is not there any more.
fn gone(view: &str, message: String, oldest: Option<u64>) -> ApiError {
    ApiError {
        details: json!({ "oldest_step": oldest, "snapshot": format!("egress/{view}?send_snapshot=true") }),
        ..ApiError::new(
            StatusCode::GONE,
            "StepNotKept",
            format!("{message}; begin anew with the view's rows: send_snapshot=true, for a materialized view"),
        )
    }
}

impl Listener {
    fn check(&self, step: u64, now: u64) -> Result<()> {
        let from = self.feed.after(self.view, step).map_or(0, |changes| changes.from);
        if step < from {
            let message = format!("the changes after step {step} are not kept any more, only those after step {from}");
            return Err(gone(&self.name, message, Some(from)));
        }
        if step > now {
            let message = format!("step {step} has not been made yet; the last one is {now}");
            return Err(ApiError::bad_request(message));
        }
        Ok(())
    }

    /// Prepares the view's rows after the step under way; changes go on behind it.
    async fn snapshot(&mut self, served: &Arc<Served>) -> Result<()> {
        let (asked, name) = (Arc::clone(served), super::normalized(&self.name));
        let work = tokio::task::spawn_blocking(move || {
            let state = ask(&asked)?;
            let sql = format!("SELECT * FROM {}", crate::sql::quoted_name(&name));
            let answer = state.answer(&sql).map_err(|e| ApiError::bad_request(e.to_string()))?;
            Ok::<_, ApiError>((state.state().step, answer.rows))
        });
        let (step, rows): (u64, RecordBatch) =
            work.await.map_err(|e| ApiError::internal(format!("the snapshot's thread failed: {e}")))??;
        self.snapshot = Some((step, rows));
        self.after = step;
        Ok(())
    }

    /// Prepares the next part of a snapshot: not all at once, of a large view.
    fn part(&mut self, step: u64, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            // Only behind all of its parts there is a step to go on from.
            return self.document(Some(step), &Delta::empty(rows.schema()));
        }
        let count = SNAPSHOT_ROWS.min(rows.num_rows());
        self.document(None, &Delta::inserts(rows.slice(0, count)))?;
        self.snapshot = Some((step, rows.slice(count, rows.num_rows() - count)));
        Ok(())
    }

    /// What comes next; nothing once the pipeline has ended.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            if self.has_ended {
                return None;
            }
            if let Some((step, rows)) = self.snapshot.take() {
                if let Err(error) = self.part(step, &rows) {
                    self.fail(&error);
                }
                continue;
            }
            self.news.mark_unchanged();
            let changes = self.feed.after(self.view, self.after)?;
            if self.after < changes.from {
                let message =
                    format!("this listener was too slow: the changes after step {} are not kept any more", self.after);
                self.fail(&gone(&self.name, message, Some(changes.from)));
                continue;
            }
            for (step, delta) in &changes.deltas {
                if let Err(error) = self.document(Some(*step), delta) {
                    // Nothing comes behind it: a client that went on would miss this one.
                    self.fail(&error);
                    break;
                }
            }
            self.after = self.after.max(changes.last);
            if !self.ready.is_empty() {
                continue;
            }
            match tokio::time::timeout(SIGN_OF_LIFE, self.news.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => self.sign_of_life(),
            }
        }
    }

    /// Prepares a document of rows; with its step, if the client can go on behind it.
    fn document(&mut self, step: Option<u64>, delta: &Delta) -> Result<()> {
        let mut lines = Vec::new();
        self.renderer.render(0, delta, &mut lines).map_err(|e| ApiError::internal(e.message))?;
        let mut out = format!("{{\"sequence_number\":{}", self.sequence);
        if let Some(step) = step {
            out.push_str(&format!(",\"step\":{step}"));
        }
        let text = String::from_utf8_lossy(&lines);
        match self.kind {
            EgressFormat::Json => {
                let rows: Vec<&str> = text.lines().collect();
                out.push_str(&format!(",\"json_data\":[{}]}}", rows.join(",")));
            }
            EgressFormat::Csv => out.push_str(&format!(",\"text_data\":{}}}", json!(text))),
        }
        self.sequence += 1;
        let bytes = match (self.is_events, step) {
            (false, _) => format!("{out}\n"),
            (true, Some(step)) => format!("id: {}:{step}\nevent: delta\ndata: {out}\n\n", self.feed.scope.simple()),
            (true, None) => format!("event: snapshot\ndata: {out}\n\n"),
        };
        self.ready.push_back(Bytes::from(bytes));
        Ok(())
    }

    fn sign_of_life(&mut self) {
        let text = match self.is_events {
            // With the place, so that who hears of no change goes on from here all the same.
            true => format!(": still here\nid: {}:{}\n\n", self.feed.scope.simple(), self.after),
            false => format!("{{\"sequence_number\":{},\"step\":{}}}\n", self.sequence, self.after),
        };
        self.ready.push_back(Bytes::from(text));
    }

    /// Tells what is wrong, and ends.
    fn fail(&mut self, error: &ApiError) {
        let body = json!({ "sequence_number": self.sequence, "error": error.body() });
        let text = if self.is_events { format!("event: error\ndata: {body}\n\n") } else { format!("{body}\n") };
        self.ready.push_back(Bytes::from(text));
        self.has_ended = true;
    }
}
