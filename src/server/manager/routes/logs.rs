//! `GET /logs`: the end of what a pipeline's process has said, and what it says from then on.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use utoipa::IntoParams;

use super::super::Manager;
use super::super::child::tail;
use super::{Named, Path, Query};
use crate::server::error::Result;

/// What of the past is shown.
const PAST_BYTES: u64 = 256 << 10;
/// What is read at a time.
const PIECE_BYTES: usize = 64 << 10;
/// How often a log is looked at for more.
const POLL: Duration = Duration::from_millis(200);

/// How much of a log is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Follow {
    /// `false`: end behind what has been said.
    follow: Option<bool>,
}

/// How far a reader of a log has come.
struct Reader {
    path: PathBuf,
    offset: u64,
    past: Option<String>,
}

/// The end of what a pipeline's process has said, and what it says from then on
#[utoipa::path(
    get,
    path = "/v0/pipelines/{name}/logs",
    params(Named, Follow),
    tag = "data",
    responses((status = 200, description = "Lines; unless `follow` is `false`, without end", body = String, content_type = "text/plain")),
)]
pub(super) async fn logs(
    State(manager): State<Arc<Manager>>,
    Path(Named { name }): Path<Named>,
    Query(Follow { follow }): Query<Follow>,
) -> Result<Response> {
    let path = manager.find(&name)?.place.log();
    let offset = tokio::fs::metadata(&path).await.map_or(0, |m| m.len());
    let mut past = tail(&path, PAST_BYTES).await.unwrap_or_default();
    if past.is_empty() {
        // A first piece, so that clients see an answer.
        past.push_str("(nothing was said yet)\n");
    }
    let content_type = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    if follow == Some(false) {
        return Ok((content_type, past).into_response());
    }
    let reader = Reader { path, offset, past: Some(past) };
    let pieces = stream::unfold(reader, |mut reader| async move {
        if let Some(past) = reader.past.take() {
            return Some((Ok::<_, std::io::Error>(Bytes::from(past)), reader));
        }
        loop {
            match reader.more().await {
                Ok(piece) if !piece.is_empty() => return Some((Ok(piece), reader)),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    });
    Ok((content_type, Body::from_stream(pieces)).into_response())
}

impl Reader {
    async fn more(&mut self) -> std::io::Result<Bytes> {
        let mut file = tokio::fs::File::open(&self.path).await?;
        if file.metadata().await?.len() < self.offset {
            // Begun anew.
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset)).await?;
        let mut piece = Vec::new();
        file.take(PIECE_BYTES as u64).read_to_end(&mut piece).await?;
        self.offset += piece.len() as u64;
        Ok(Bytes::from(piece))
    }
}
