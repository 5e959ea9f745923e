//! Request bodies, limited in size and time.

use std::time::Duration;

use axum::{
    extract::{FromRef, FromRequest, OriginalUri, Request},
    http::{HeaderValue, Method, header},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{conditions::Conditions, json};
use crate::error::{ApiError, ApiResult, Number};

/// A body that does not arrive within this time is abandoned.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of an oversized body is drained, bytes, and for how long.
const MAX_DISCARDED: usize = 16 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Largest body, from the router's state.
pub(crate) struct MaxBodyBytes(pub(crate) usize);

/// How a body is read.
pub(crate) trait ReadBody: Sized {
    /// How many times as large as others it may be.
    const TIMES: usize = 1;

    /// From all of its bytes.
    fn read(bytes: &[u8], content_type: Option<&[u8]>) -> ApiResult<Self>;
}

/// JSON, required.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// JSON whose texts may contain NUL, for data that is passed on as it is: Postgres stores it as bytes, if at all.
#[derive(Debug)]
pub(crate) struct OpaqueJson<T>(pub(crate) T);

/// JSON with a whole conversation in it, of which little is used.
#[derive(Debug)]
pub(crate) struct ConversationJson<T>(pub(crate) T);

/// JSON, or nothing for the default.
#[derive(Debug)]
pub(crate) struct OrDefault<T>(pub(crate) T);

/// Nothing, or `{}`.
#[derive(Debug)]
pub(crate) struct NoBody;

impl<T: DeserializeOwned> ReadBody for Json<T> {
    fn read(bytes: &[u8], content_type: Option<&[u8]>) -> ApiResult<Self> {
        json::check_content_type(content_type)?;
        json::from_bytes(bytes).map(Self)
    }
}

impl<T: DeserializeOwned> ReadBody for OpaqueJson<T> {
    fn read(bytes: &[u8], content_type: Option<&[u8]>) -> ApiResult<Self> {
        json::check_content_type(content_type)?;
        json::from_bytes_with_nul(bytes).map(Self)
    }
}

impl<T: DeserializeOwned> ReadBody for ConversationJson<T> {
    const TIMES: usize = 16;

    fn read(bytes: &[u8], content_type: Option<&[u8]>) -> ApiResult<Self> {
        OpaqueJson::read(bytes, content_type).map(|OpaqueJson(value)| Self(value))
    }
}

impl<T: DeserializeOwned + Default> ReadBody for OrDefault<T> {
    fn read(bytes: &[u8], content_type: Option<&[u8]>) -> ApiResult<Self> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(T::default()));
        }
        Json::read(bytes, content_type).map(|Json(value)| Self(value))
    }
}

/// A body without fields.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Empty {}

impl ReadBody for NoBody {
    fn read(bytes: &[u8], content_type: Option<&[u8]>) -> ApiResult<Self> {
        OrDefault::<Empty>::read(bytes, content_type).map(|_| Self)
    }
}

/// A request that changes something: its body, its conditions, and what identifies it when it is repeated.
#[derive(Debug)]
pub(crate) struct Write<B> {
    /// Body.
    pub(crate) body: B,
    /// Headers.
    pub(crate) conditions: Conditions,
    /// Identifies a repeat.
    pub(crate) fingerprint: Fingerprint,
}

/// What makes a request conditional and idempotent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteOptions<'a> {
    pub(crate) conditions: &'a Conditions,
    pub(crate) fingerprint: &'a Fingerprint,
}

impl<B> Write<B> {
    /// Conditions and fingerprint, for the command.
    pub(crate) fn options(&self) -> WriteOptions<'_> {
        WriteOptions { conditions: &self.conditions, fingerprint: &self.fingerprint }
    }
}

/// A request that acts on something without a version or stored responses: a runner, an execution, a ticket. It may have a key, since
/// clients send one with every POST, but accepting a version would promise what cannot be kept.
#[derive(Debug)]
pub(crate) struct Act<B>(pub(crate) B);

impl<S: Send + Sync, B: ReadBody> FromRequest<S> for Act<B>
where
    MaxBodyBytes: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Conditions::read(request.headers())?.no_version()?;
        Ok(Self(Write::from_request(request, state).await?.body))
    }
}

/// Method, path and hash of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// HTTP method.
    pub(crate) method: String,
    /// Concrete path.
    pub(crate) path: String,
    /// SHA-256 over method, path, query and body.
    pub(crate) hash: Vec<u8>,
}

impl Fingerprint {
    /// The fingerprint of a request.
    pub(crate) fn of(method: &Method, path: &str, query: Option<&str>, body: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        for part in [method.as_str(), path, query.unwrap_or_default()] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(body);
        Self { method: method.to_string(), path: path.to_owned(), hash: hasher.finalize().to_vec() }
    }

    /// As an idempotency key.
    pub(crate) fn key(&self) -> String {
        self.hash.iter().fold(String::new(), |key, byte| key + &format!("{byte:02x}"))
    }
}

impl<S: Send + Sync, B: ReadBody> FromRequest<S> for Write<B>
where
    MaxBodyBytes: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let conditions = Conditions::read(&parts.headers)?;
        let MaxBodyBytes(limit) = MaxBodyBytes::from_ref(state);
        let limit = limit.saturating_mul(B::TIMES);
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let waits = parts.headers.contains_key(header::EXPECT);
        let bytes = read_bounded(body, Announced { length, waits }, limit).await?;
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
        let fingerprint = Fingerprint::of(&parts.method, uri.path(), uri.query(), &bytes);
        let content_type = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        Ok(Self { body: B::read(&bytes, content_type)?, conditions, fingerprint })
    }
}

/// What the headers say about a body.
struct Announced {
    /// Its length in bytes.
    length: Option<u64>,
    /// It is sent only when we ask for it (`Expect: 100-continue`).
    waits: bool,
}

async fn read_bounded(body: axum::body::Body, announced: Announced, limit: usize) -> ApiResult<Bytes> {
    let mut stream = body.into_data_stream();
    if announced.length.is_some_and(|length| length > limit as u64) {
        if !announced.waits {
            discard(&mut stream).await;
        }
        return Err(too_large(limit));
    }
    let read = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk =
                chunk.map_err(|error| ApiError::new(Number::Malformed, format!("the body broke off: {error}")))?;
            if bytes.len() + chunk.len() > limit {
                discard(&mut stream).await;
                return Err(too_large(limit));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Bytes::from(bytes))
    };
    let late = |_| ApiError::new(Number::Malformed, format!("the body did not arrive in {} s", BODY_TIMEOUT.as_secs()));
    tokio::time::timeout(BODY_TIMEOUT, read).await.map_err(late)?
}

/// Drains the rest of a request that is refused anyway: a client still sending when the connection closes gets a reset instead
/// of the response. One that keeps sending for longer is cut off.
pub(super) async fn discard<E>(stream: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin)) {
    let mut left = MAX_DISCARDED;
    let reading = async {
        while let Some(Ok(chunk)) = stream.next().await
            && left > chunk.len()
        {
            left -= chunk.len();
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, reading).await;
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(Number::TooLarge, format!("the body is larger than {limit} bytes"))
        .at("body", format!("must have at most {limit} bytes"))
}
