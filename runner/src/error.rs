//! Failures of a request, and the one place where they become responses.

use ambient_runner_protocol::RunnerError;
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{reason}")]
    BadInput { field: String, reason: String },
    #[error("the bearer token is missing or wrong")]
    Unauthorized,
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    /// Something on which every git that comes across it would hang.
    #[error("{0}")]
    Trap(String),
    /// What a condition of the request says is not so.
    #[error("{0}")]
    Stale(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("the range is not satisfiable: the file has {0} bytes")]
    Range(u64),
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Git(String),
    #[error("{0}")]
    Internal(String),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn bad(field: &str, reason: impl Into<String>) -> Self {
        Self::BadInput { field: field.to_owned(), reason: reason.into() }
    }

    pub(crate) fn io(what: &str, error: &std::io::Error) -> Self {
        Self::Internal(format!("{what}: {error}"))
    }

    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadInput { .. } => (StatusCode::BAD_REQUEST, "bad_input"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Self::Conflict(_) | Self::Trap(_) => (StatusCode::CONFLICT, "conflict"),
            Self::Stale(_) => (StatusCode::PRECONDITION_FAILED, "stale"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::Range(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "bad_input"),
            Self::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::Git(_) => (StatusCode::INTERNAL_SERVER_ERROR, "git"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    /// As callers are told.
    pub(crate) fn told(&self) -> RunnerError {
        let field = match self {
            Self::BadInput { field, .. } => Some(field.clone()),
            Self::Range(_) => Some("range".to_owned()),
            _ => None,
        };
        RunnerError { code: self.status().1.to_owned(), reason: self.to_string(), field }
    }

    /// What one of our own processes told.
    pub(crate) fn of_told(told: RunnerError) -> Self {
        let RunnerError { code, reason, field } = told;
        match code.as_str() {
            "bad_input" => Self::BadInput { field: field.unwrap_or_else(|| "path".to_owned()), reason },
            "not_found" => Self::NotFound(reason),
            "conflict" => Self::Conflict(reason),
            "stale" => Self::Stale(reason),
            "too_large" => Self::TooLarge(reason),
            _ => Self::Internal(reason),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = self.status();
        if status.is_server_error() {
            tracing::warn!(code, reason = %self, "request failed");
        }
        (status, Json(self.told())).into_response()
    }
}
