//! Responses of the API: read in full within a limit; refusals become errors.

use ambient_wire::error::Error as Envelope;
use reqwest::Response;
use serde::de::DeserializeOwned;

use super::innermost;
use crate::{error::CliError, output::table::cut};

/// Largest response kept in memory, bytes.
const LIMIT: usize = 64 << 20;

/// Body of a success.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    text: String,
}

impl Answer {
    pub(crate) async fn read(response: Response) -> Result<Self, CliError> {
        let text = String::from_utf8(body(response).await?);
        Ok(Self { text: text.map_err(|_| CliError::Protocol("it is not UTF-8".to_owned()))? })
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

/// The error for a failing response; without an envelope (from a proxy, say) its text.
pub(crate) async fn refusal(response: Response) -> CliError {
    let status = response.status();
    let header = response.headers().get("x-operation-id").and_then(|value| value.to_str().ok());
    let operation_id = header.unwrap_or_default().to_owned();
    let bytes = body(response).await.unwrap_or_default();
    refusal_of(status.as_u16(), &bytes, operation_id)
}

/// Like [`refusal`], from a response's parts.
pub(crate) fn refusal_of(status: u16, body: &[u8], operation_id: String) -> CliError {
    let error = serde_json::from_slice(body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(body);
        let text = cut(text.trim(), 200);
        let reason =
            if text.is_empty() { format!("HTTP status {status}") } else { format!("HTTP status {status}: {text}") };
        Envelope {
            kind: "Error".to_owned(),
            id: String::new(),
            href: String::new(),
            code: String::new(),
            reason,
            operation_id,
            details: Vec::new(),
        }
    });
    CliError::Api { status, error: Box::new(error) }
}
