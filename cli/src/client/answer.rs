//! Responses of the API: read in full within a limit; refusals become errors.

use ambient_wire::error::Error as Envelope;
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::innermost;
use crate::{error::CliError, exit::Exit, output::table::cut};

/// Largest response kept in memory, bytes.
const LIMIT: usize = 64 << 20;

/// Body of a success.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    text: String,
}

impl Answer {
    /// All of the API's successes are JSON, or have no content; what another server says is not passed on as data.
    pub(crate) async fn read(response: Response) -> Result<Self, CliError> {
        let status = response.status();
        let text = String::from_utf8(body(response).await?);
        let text = text.map_err(|_| CliError::Protocol("it is not UTF-8".to_owned()))?;
        if status != StatusCode::NO_CONTENT && serde_json::from_str::<IgnoredAny>(&text).is_err() {
            return Err(foreign(status.as_u16(), text.as_bytes()));
        }
        Ok(Self { text })
    }

    /// As it arrived.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// As one of the API's types.
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, CliError> {
        let misfit = |error| CliError::Protocol(format!("{error}; are client and server the same release?"));
        serde_json::from_str(&self.text).map_err(misfit)
    }
}

/// The whole body, within the limit.
pub(super) async fn body(mut response: Response) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| CliError::Unreachable {
            url: response.url().to_string(),
            cause: innermost(&error),
            sent: true,
        })?;
        match chunk {
            Some(chunk) if bytes.len() + chunk.len() > LIMIT => {
                return Err(CliError::Protocol(format!("it has more than {LIMIT} bytes")));
            }
            Some(chunk) => bytes.extend_from_slice(&chunk),
            None => return Ok(bytes),
        }
    }
}

/// Whether it is a page for people, which the API has none of.
pub(super) fn is_page(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/html"))
}

/// The error for a response that is not Ambient's: its status would say something about another server's objects.
pub(super) fn foreign(status: u16, body: &[u8]) -> CliError {
    CliError::Protocol(format!("{}; is the URL Ambient's?", in_words(status, body)))
}

fn in_words(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = cut(text.trim(), 200);
    if text.is_empty() { format!("HTTP status {status}") } else { format!("HTTP status {status}: {text}") }
}

/// The error for a failing response.
pub(crate) async fn refusal(response: Response) -> CliError {
    let status = response.status();
    let header = response.headers().get("x-operation-id").and_then(|value| value.to_str().ok());
    let operation_id = header.unwrap_or_default().to_owned();
    let bytes = body(response).await.unwrap_or_default();
    refusal_of(status.as_u16(), &bytes, operation_id)
}

/// Like [`refusal`], from a response's parts. Ambient's are recognised by their envelope, or by the id of the request if that is cut off;
/// a proxy may also say, in its own words, that it does not get through.
pub(crate) fn refusal_of(status: u16, body: &[u8], operation_id: String) -> CliError {
    let error = match serde_json::from_slice(body) {
        Ok(envelope) => envelope,
        Err(_) if operation_id.is_empty() && Exit::of_status(status) != Exit::Unavailable => {
            return foreign(status, body);
        }
        Err(_) => Envelope {
            kind: "Error".to_owned(),
            id: String::new(),
            href: String::new(),
            code: String::new(),
            reason: in_words(status, body),
            operation_id,
            details: Vec::new(),
            oldest: None,
            covers_seq: None,
        },
    };
    CliError::Api { status, error: Box::new(error) }
}
