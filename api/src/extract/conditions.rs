//! Headers that make a request conditional or idempotent.

use axum::http::{HeaderMap, HeaderName, header};

use crate::error::{ApiError, ApiResult};

/// `Idempotency-Key`.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// `If-Match` and `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Conditions {
    /// The version the caller has seen.
    pub(crate) if_match: Option<i64>,
    /// The request's key.
    pub(crate) idempotency_key: Option<String>,
}

impl Conditions {
    /// Reads both headers.
    pub(crate) fn read(headers: &HeaderMap) -> ApiResult<Self> {
        Ok(Self { if_match: if_match(headers)?, idempotency_key: idempotency_key(headers)? })
    }

    /// For something without a version: accepting one would promise what cannot be kept.
    pub(crate) fn no_version(&self) -> ApiResult<()> {
        self.without_version("does not apply to this route: what it acts on has no version")
    }

    /// For something that is created.
    pub(crate) fn no_version_yet(&self) -> ApiResult<()> {
        self.without_version("must be left out when something is created: it has no version yet")
    }

    fn without_version(&self, problem: &str) -> ApiResult<()> {
        self.if_match.map_or(Ok(()), |_| Err(ApiError::invalid("If-Match", problem)))
    }
}

/// `"7"`, `7` or `*` (any version: no condition). Weak tags and lists are refused.
fn if_match(headers: &HeaderMap) -> ApiResult<Option<i64>> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    match digits(bare) {
        Some(version) if headers.get_all(header::IF_MATCH).iter().count() == 1 => Ok(Some(version)),
        _ => Err(ApiError::invalid("If-Match", "must be a single version such as \"7\", or *")),
    }
}

/// A number of digits only, no more than always fit.
fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text).filter(|text| text.len() <= 18)?.parse().ok()
}

fn idempotency_key(headers: &HeaderMap) -> ApiResult<Option<String>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let well_formed = (1..=255).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(text) if well_formed && headers.get_all(IDEMPOTENCY_KEY).iter().count() == 1 => Ok(Some(text.to_owned())),
        _ => Err(ApiError::invalid("Idempotency-Key", "must be a single key of 1 to 255 visible ASCII characters")),
    }
}

/// Whether the caller wants Server-Sent Events.
pub(crate) fn accepts_event_stream(headers: &HeaderMap) -> bool {
    let types = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    types
        .flat_map(|value| value.split(','))
        .any(|range| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream"))
}

/// `Last-Event-ID` from a reconnecting reader.
pub(crate) fn last_event_id(headers: &HeaderMap) -> ApiResult<Option<i64>> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    match digits(value.to_str().unwrap_or_default().trim()) {
        Some(seq) => Ok(Some(seq)),
        None => Err(ApiError::invalid("Last-Event-ID", "must be a seq: an integer from 0")),
    }
}
