//! What a request carries, read so that what is wrong with it is told in the standard body.

use std::ops::Deref;
use std::time::Duration;

use axum::body::{Body as Incoming, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::BytesMut;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ApiError;

/// The largest body of a request.
pub const BODY_BYTES: usize = 16 << 20;

/// What is read, and thrown away, of a longer one: a client that is still sending would have its connection reset, and not see the answer.
const DRAINED_BYTES: usize = 8 * BODY_BYTES;
/// How long all of it may take: 16 MiB at a Mbit/s.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it is waited for room among the bodies that are here.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

/// Room for the bodies of all requests of the process, in KiB: 256 MiB.
const ROOM_KIB: usize = 256 << 10;
static ROOM: Semaphore = Semaphore::const_new(ROOM_KIB);

/// All of a body, and the room that it takes for as long as this lives.
#[derive(Debug)]
pub struct Whole {
    bytes: Bytes,
    _room: Option<SemaphorePermit<'static>>,
}

impl Whole {
    /// The bytes themselves, for one who keeps `self` as long as they are used.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body as it came.
pub struct Body(pub Whole);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        whole(request.into_body()).await.map(Self)
    }
}

/// All of a body, once there is room for it.
///
/// # Errors
/// It breaks off, is longer than [`BODY_BYTES`], or takes too long; there is no room.
pub async fn whole(body: Incoming) -> Result<Whole, ApiError> {
    within(body, &ROOM, (ROOM_PATIENCE, PATIENCE)).await
}

async fn within(
    mut body: Incoming,
    room: &'static Semaphore,
    (room_patience, patience): (Duration, Duration),
) -> Result<Whole, ApiError> {
    // Room for what has come, not for what is said: who sends nothing takes none.
    let mut taken = Room { room, taken: None, patience: room_patience };
    let read = tokio::time::timeout(patience, read(&mut body, &mut taken)).await.map_err(|_| {
        let message = format!("the body did not come within {} s", patience.as_secs());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message)
    })?;
    Ok(Whole { bytes: read?, _room: taken.taken })
}

/// The room that a body has taken.
struct Room {
    room: &'static Semaphore,
    taken: Option<SemaphorePermit<'static>>,
    patience: Duration,
}

impl Room {
    /// Takes room for so many bytes in all; where some has come already, for a MiB more at least.
    async fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let (wanted, most) = (bytes.div_ceil(1024), BODY_BYTES >> 10);
        let has = self.taken.as_ref().map_or(0, SemaphorePermit::num_permits);
        if wanted <= has {
            return Ok(());
        }
        let more = if has == 0 { wanted } else { (wanted - has).max(1024).min(most - has) };
        let acquired = self.room.acquire_many(u32::try_from(more).unwrap_or(u32::MAX));
        let acquired = tokio::time::timeout(self.patience, acquired).await;
        let acquired = acquired.ok().and_then(std::result::Result::ok).ok_or_else(|| {
            let message = format!("the bodies of other requests take all of {} MiB: try again later", ROOM_KIB >> 10);
            ApiError::unavailable("TooManyBodies", message)
        })?;
        match &mut self.taken {
            Some(taken) => taken.merge(acquired),
            none => *none = Some(acquired),
        }
        Ok(())
    }
}

async fn read(body: &mut Incoming, room: &mut Room) -> Result<Bytes, ApiError> {
    let (mut kept, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::bad_request(format!("the body cannot be read to its end: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= BODY_BYTES {
            room.grow(length).await?;
            kept.extend_from_slice(&data);
        } else if length <= DRAINED_BYTES {
            kept = BytesMut::new();
        } else {
            break;
        }
    }
    if length > BODY_BYTES {
        let message = format!("the body is longer than {BODY_BYTES} bytes: send its rows in several requests");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "InvalidRequest", message));
    }
    Ok(kept.freeze())
}

/// A JSON body; what is wrong with it is told in the standard body.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        // Clients do not all say that it is JSON.
        let Body(body) = Body::from_request(request, state).await?;
        let value = serde_json::from_slice(&body)
            .map_err(|e| ApiError::bad_request(format!("the body is not the JSON that is expected here: {e}")))?;
        Ok(Self(value))
    }
}

/// Parameters behind the `?`.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|rejected| ApiError::bad_request(rejected.body_text()))
    }
}

/// Parts of the path.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0))
            .map_err(|rejected| ApiError::new(StatusCode::BAD_REQUEST, "InvalidRequest", rejected.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_of_the_largest_length_is_read_and_a_longer_one_is_not_kept() {
        let body = |length| whole(Incoming::from("x".repeat(length)));
        assert_eq!(body(BODY_BYTES).await.unwrap().len(), BODY_BYTES);
        assert!(body(BODY_BYTES + 1).await.is_err());
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_bodies_and_they_are_not_waited_for_without_end() {
        static SMALL: Semaphore = Semaphore::const_new(32 << 10);
        const SOON: Duration = Duration::from_millis(20);
        let body = |length| within(Incoming::from("x".repeat(length)), &SMALL, (SOON, SOON * 500));
        let held = [body(BODY_BYTES).await.unwrap(), body(BODY_BYTES).await.unwrap()];
        assert_eq!(body(1).await.unwrap_err().code, "TooManyBodies");
        drop(held);
        body(BODY_BYTES).await.unwrap();
        let endless = Incoming::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let refused = within(endless, &SMALL, (SOON, SOON)).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(SMALL.available_permits(), 32 << 10);
    }
}
