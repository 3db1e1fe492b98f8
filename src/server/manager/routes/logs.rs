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
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::super::Manager;
use super::super::child::tail;
use super::Path;
use crate::server::error::Result;

/// What of the past is shown.
const PAST_BYTES: u64 = 256 << 10;
/// What is read at a time.
const PIECE_BYTES: usize = 64 << 10;
/// How often a log is looked at for more.
const POLL: Duration = Duration::from_millis(200);

/// How far a reader of a log has come.
struct Reader {
    path: PathBuf,
    offset: u64,
    past: Option<String>,
}

pub(super) async fn logs(State(manager): State<Arc<Manager>>, Path(name): Path<String>) -> Result<Response> {
    let path = manager.find(&name)?.place.log();
    let offset = tokio::fs::metadata(&path).await.map_or(0, |m| m.len());
    let mut past = tail(&path, PAST_BYTES).await.unwrap_or_default();
    if past.is_empty() {
        // A first piece, so that clients see an answer.
        past.push_str("(nothing was said yet)\n");
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
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(pieces)).into_response())
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
