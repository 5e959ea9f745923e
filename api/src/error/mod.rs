//! Failures of the API, and the one place where they become responses.
//!
//! A handler, an extractor or axum itself reports a failure with a status; [`render`], which wraps every route, gives it
//! the error envelope. So every failure has the same body, and the operation id in it is the one in the header.

mod catalogue;
mod sources;

use ambient_wire::{
    BASE,
    error::{Error, ErrorDetail},
};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

pub use self::catalogue::{CATALOGUE, Number};

/// Result of every handler.
pub type ApiResult<T> = Result<T, ApiError>;

/// A failure reported to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ApiError {
    number: Number,
    reason: String,
    details: Vec<ErrorDetail>,
    /// Seconds.
    retry_after: Option<u32>,
    /// Operation that may have been carried out, if the outcome is unknown.
    operation_id: Option<String>,
    /// The oldest event that is kept, and what the snapshot covers to start from.
    kept: Option<(i64, Option<i64>)>,
}

impl ApiError {
    /// A failure with a reason for people.
    #[must_use]
    pub fn new(number: Number, reason: impl Into<String>) -> Self {
        Self { number, reason: reason.into(), details: Vec::new(), retry_after: None, operation_id: None, kept: None }
    }

    /// 400: a field is wrong.
    #[must_use]
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        let (field, problem) = (field.into(), problem.into());
        Self::new(Number::Validation, format!("{field}: {problem}")).at(field, problem)
    }

    /// 404: nothing there, or nothing the caller may see.
    #[must_use]
    pub fn not_found(kind: &str, id: &str) -> Self {
        Self::new(Number::NotFound, format!("{kind} with id='{}' not found", id.escape_debug()))
    }

    /// 403: perhaps visible, but not to be changed.
    #[must_use]
    pub fn forbidden(reason: impl Into<String>) -> Self {
        Self::new(Number::Forbidden, reason)
    }

    /// 410: events of a live log are no longer kept.
    #[must_use]
    pub fn too_old(oldest: i64, covers_seq: Option<i64>) -> Self {
        let start = covers_seq.map(|covers| {
            format!("; start from the snapshot up to {covers}, with which a stream without after_seq begins (the messages are also at agui/history)")
        });
        let told = format!("events up to {} are no longer kept{}", oldest - 1, start.unwrap_or_default());
        Self { kept: Some((oldest, covers_seq)), ..Self::new(Number::Gone, told.clone()).at("after_seq", told) }
    }

    /// 503: the same request may succeed after `retry_after` seconds.
    #[must_use]
    pub fn unavailable(reason: impl Into<String>, retry_after: u32) -> Self {
        Self::new(Number::Unavailable, reason).retry(retry_after)
    }

    /// 500: the details go to the log, with the request's span, and not to the caller.
    #[must_use]
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "internal error");
        Self::new(Number::General, "internal error; the server's log has the reason under this operation id")
    }

    /// Names a field at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>, problem: impl Into<String>) -> Self {
        self.details.push(ErrorDetail { field: field.into(), problem: problem.into() });
        self
    }

    /// Renames a field at fault.
    #[must_use]
    pub(crate) fn rename(mut self, from: &str, to: &str) -> Self {
        for detail in self.details.iter_mut().filter(|detail| detail.field == from) {
            to.clone_into(&mut detail.field);
            if let Some(rest) = self.reason.strip_prefix(from) {
                self.reason = format!("{to}{rest}");
            }
        }
        self
    }

    /// Prefixes the fields at fault with the list item that they are in, as in the body: `url` becomes `list[3].url`.
    #[must_use]
    pub(crate) fn of_item(mut self, list: &str) -> Self {
        let named = self.details.iter().map(|detail| detail.field.clone());
        let in_list: Vec<String> = named.filter(|field| field.starts_with(&format!("{list}["))).collect();
        for field in in_list {
            if let Some((_, short)) = field.split_once("].") {
                self = self.rename(&field, short);
            }
        }
        self
    }

    /// Says when a retry makes sense, in seconds.
    #[must_use]
    pub fn retry(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Names the operation whose outcome is unknown.
    #[must_use]
    pub fn of_operation(mut self, id: impl Into<String>) -> Self {
        self.operation_id = Some(id.into());
        self
    }

    /// Number and status.
    #[must_use]
    pub fn number(&self) -> Number {
        self.number
    }

    /// When a retry makes sense, in seconds.
    pub(crate) fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// The body, for a response that is written by hand.
    pub(crate) fn into_json(self, operation_id: String) -> String {
        // Strings and lists of strings: it can always be serialised.
        serde_json::to_string(&self.envelope(operation_id)).unwrap_or_default()
    }

    fn envelope(self, operation_id: String) -> Error {
        let id = self.number.id();
        // Redacted whatever the failure is about, and whoever its words are from.
        let told = |text: String| ambient_wire::redact::text(&text).into_owned();
        let details = self.details.into_iter();
        let details =
            details.map(|ErrorDetail { field, problem }| ErrorDetail { field: told(field), problem: told(problem) });
        Error {
            kind: "Error".to_owned(),
            href: format!("{BASE}/errors/{id}"),
            code: format!("ambient-{id}"),
            id,
            reason: told(self.reason),
            operation_id,
            details: details.collect(),
            oldest: self.kept.map(|(oldest, _)| oldest),
            covers_seq: self.kept.and_then(|(_, covers_seq)| covers_seq),
        }
    }
}

/// A bare status with the failure attached: [`render`] makes the body.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.number.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every failure its envelope and every response its `X-Operation-ID`.
pub(crate) fn render(mut response: Response, request_id: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return with_operation_id(response, request_id);
    }
    let error = response.extensions_mut().remove::<ApiError>().or_else(|| bare(&response));
    let Some(error) = error else { return with_operation_id(response, request_id) };
    let operation_id = error.operation_id.clone().unwrap_or_else(|| request_id.to_owned());
    let retry_after = error.retry_after;
    let mut rendered = (status, Json(error.envelope(operation_id.clone()))).into_response();
    for name in [header::ALLOW, header::CONTENT_RANGE, header::WWW_AUTHENTICATE] {
        if let Some(value) = response.headers_mut().remove(&name) {
            rendered.headers_mut().insert(name, value);
        }
    }
    if status == StatusCode::UPGRADE_REQUIRED {
        rendered.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        rendered.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if status == StatusCode::UNAUTHORIZED {
        rendered.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = retry_after {
        rendered.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    with_operation_id(rendered, &operation_id)
}

/// A failure that axum reported itself: it has a status but no [`ApiError`]. One that already has our JSON is kept.
fn bare(response: &Response) -> Option<ApiError> {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|value| value.starts_with("application/json")) {
        return None;
    }
    let number = Number::of_status(response.status());
    Some(ApiError::new(number, number.meaning()))
}

fn with_operation_id(mut response: Response, id: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().entry(crate::OPERATION_ID).or_insert(value);
    }
    response
}
