//! A file's bytes, passed on as they arrive: limited in size, and in time by the listener.

use std::sync::{Arc, OnceLock};

use ambient_wire::content::MAX_FILE;
use axum::{
    body::BodyDataStream,
    extract::{FromRequest, Request},
    http::header,
};
use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};

use super::body::discard;
use crate::error::{ApiError, ApiResult, Number};

/// A file that is being sent.
pub(crate) struct Upload {
    /// Its bytes; an error says only that there are no more.
    content: BoxStream<'static, std::io::Result<Bytes>>,
    fault: Fault,
}

/// Why the bytes stopped, once they have.
#[derive(Clone, Default)]
pub(crate) struct Fault(Arc<OnceLock<ApiError>>);

impl Fault {
    /// What was done with the bytes, unless they were at fault.
    pub(crate) fn or<T>(&self, done: ApiResult<T>) -> ApiResult<T> {
        self.0.get().map_or(done, |fault| Err(fault.clone()))
    }
}

impl Upload {
    /// Drains what is refused anyway, so that its sender reads the refusal.
    pub(crate) async fn discard(mut self) {
        discard(&mut self.content).await;
    }

    /// All bytes, if there are no more than `limit`.
    pub(crate) async fn whole(self, limit: usize) -> ApiResult<Vec<u8>> {
        let Self { mut content, fault } = self;
        let mut whole = Vec::new();
        while let Some(Ok(bytes)) = content.next().await {
            if whole.len() + bytes.len() > limit {
                discard(&mut content).await;
                return Err(too_large_for(limit));
            }
            whole.extend_from_slice(&bytes);
        }
        fault.or(Ok(whole))
    }

    /// The bytes, and what tells whether they were at fault.
    pub(crate) fn into_parts(self) -> (BoxStream<'static, std::io::Result<Bytes>>, Fault) {
        (self.content, self.fault)
    }
}

impl<S: Send + Sync> FromRequest<S> for Upload {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut body = body.into_data_stream();
        if length.is_some_and(|length: u64| length > MAX_FILE) {
            if !parts.headers.contains_key(header::EXPECT) {
                discard(&mut body).await;
            }
            return Err(too_large());
        }
        let fault = Fault::default();
        let content = stream::unfold(Some((body, MAX_FILE, fault.clone())), |state| async move {
            let (mut body, left, fault) = state?;
            match next(&mut body, left).await? {
                Ok(bytes) => {
                    let left = left - bytes.len() as u64;
                    Some((Ok(bytes), Some((body, left, fault))))
                }
                Err(error) => {
                    let told = std::io::Error::other(error.to_string());
                    let _ = fault.0.set(error);
                    Some((Err(told), None))
                }
            }
        });
        Ok(Self { content: content.boxed(), fault })
    }
}

async fn next(body: &mut BodyDataStream, left: u64) -> Option<ApiResult<Bytes>> {
    match body.next().await? {
        Ok(bytes) if bytes.len() as u64 > left => {
            discard(body).await;
            Some(Err(too_large()))
        }
        Ok(bytes) => Some(Ok(bytes)),
        Err(error) => Some(Err(ApiError::new(Number::Malformed, format!("the body broke off: {error}")))),
    }
}

fn too_large() -> ApiError {
    too_large_for(MAX_FILE)
}

fn too_large_for(limit: impl std::fmt::Display) -> ApiError {
    ApiError::new(Number::TooLarge, format!("a file may have at most {limit} bytes"))
        .at("body", format!("must have at most {limit} bytes"))
}
