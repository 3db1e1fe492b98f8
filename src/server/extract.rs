//! What a request carries, read so that what is wrong with it is told in the standard body.

use axum::body::{Body as Incoming, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::BytesMut;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The largest body of a request.
pub const BODY_BYTES: usize = 16 << 20;

/// What is read, and thrown away, of a longer one: a client that is still sending would have its connection reset, and not see the answer.
const DRAINED_BYTES: usize = 8 * BODY_BYTES;

/// A body as it came.
pub struct Body(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        whole(request.into_body()).await.map(Self)
    }
}

/// All of a body.
///
/// # Errors
/// It breaks off, or is longer than [`BODY_BYTES`].
pub async fn whole(mut body: Incoming) -> Result<Bytes, ApiError> {
    let (mut kept, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::bad_request(format!("the body cannot be read to its end: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        match length {
            ..=BODY_BYTES => kept.extend_from_slice(&data),
            ..=DRAINED_BYTES => kept = BytesMut::new(),
            _ => break,
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
        let Body(bytes) = Body::from_request(request, state).await?;
        let value = serde_json::from_slice(&bytes)
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
}
