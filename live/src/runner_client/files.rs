//! A file's content, as it arrives and as it is sent.

use std::{fmt, time::Duration};

use ambient_wire::content::SHA256_HEADER;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use reqwest::{Body, RequestBuilder, Response, header};

use super::{Result, RunnerClientError, unreachable};

/// A file's bytes and what is known about them.
pub struct FileContent {
    /// 200, or 206 for a part.
    pub status: u16,
    /// Number of bytes to come.
    pub content_length: Option<u64>,
    /// `bytes a-b/size`, for a part.
    pub content_range: Option<String>,
    /// SHA-256 of the whole file, hex; not for very large ones.
    pub sha256: Option<String>,
    /// The bytes, piece by piece.
    pub body: BoxStream<'static, Result<Bytes>>,
}

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileContent")
            .field("status", &self.status)
            .field("content_length", &self.content_length)
            .finish_non_exhaustive()
    }
}

/// A file to be written.
pub struct NewFile {
    /// Creates the directories it is in.
    pub parents: bool,
    /// Whether it may be executed; as before if absent.
    pub executable: Option<bool>,
    /// `If-Match`: `*`, or the SHA-256 of what is to be replaced, as an entity tag.
    pub if_match: Option<String>,
    /// `If-None-Match`: `*`.
    pub if_none_match: Option<String>,
    /// Its content. A stream that fails leaves everything as it was.
    pub content: BoxStream<'static, std::io::Result<Bytes>>,
}

impl fmt::Debug for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewFile")
            .field("parents", &self.parents)
            .field("executable", &self.executable)
            .finish_non_exhaustive()
    }
}

impl NewFile {
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let executable = self.executable.map(|executable| ("executable", executable.to_string()));
        [("parents", self.parents.to_string())].into_iter().chain(executable).collect()
    }

    pub(super) fn fill(self, request: RequestBuilder) -> RequestBuilder {
        let conditions = [(header::IF_MATCH, self.if_match), (header::IF_NONE_MATCH, self.if_none_match)];
        let conditions = conditions.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let request = conditions.fold(request, |request, (name, value)| request.header(name, value));
        request.body(Body::wrap_stream(self.content))
    }
}

impl FileContent {
    pub(super) fn of(response: Response, step: Duration) -> Result<Self> {
        let text = |name: header::HeaderName| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let content_length = text(header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let content_range = text(header::CONTENT_RANGE);
        let sha256 = text(header::HeaderName::from_static(SHA256_HEADER));
        let status = response.status().as_u16();
        if status == 206 && content_range.is_none() {
            return Err(RunnerClientError::Protocol("a part without its range".to_owned()));
        }
        let body = pieces(response.bytes_stream(), step).boxed();
        Ok(Self { status, content_length, content_range, sha256, body })
    }
}

/// Ends with an error if the next piece does not arrive in time.
fn pieces(
    body: impl Stream<Item = reqwest::Result<Bytes>> + Send + Unpin + 'static,
    step: Duration,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    futures::stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(step, body.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(body))),
            Ok(Some(Err(error))) => Some((Err(unreachable(error)), None)),
            Ok(None) => None,
            Err(_) => Some((Err(RunnerClientError::Timeout(step)), None)),
        }
    })
}
