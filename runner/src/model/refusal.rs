//! What an agent is told when a call is not made, in the words of its dialect.

use ambient_runner_protocol::ModelDialect;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

use super::{name, server::Body};

/// Understood by the clients of OpenAI and Anthropic, which would otherwise try again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why a call is not made, or failed before there was an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the token of this session's model proxy is missing or wrong")]
    Unauthorized,
    #[error("the model proxy has no {0}")]
    NoRoute(String),
    #[error("this session's model endpoint does not speak the dialect {}", name(*.0))]
    NoDialect(ModelDialect),
    #[error("{field}: {reason}")]
    BadRequest { field: &'static str, reason: String },
    #[error("the request is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the request did not arrive within {0} s")]
    Slow(u64),
    #[error("model: this session may not ask '{model}'; it may ask {allowed}")]
    ModelNotAllowed { model: String, allowed: String },
    #[error("model: '{0}' has no price, so that it cannot be asked within a budget of money")]
    NoPrice(String),
    #[error("{0}")]
    Budget(String),
    #[error("the turn was stopped")]
    Stopped,
    #[error("the model proxy is handling too many large requests")]
    Busy,
    #[error(
        "the model endpoint of this session leads to an address that is not public; whoever runs the server can allow it (private_model_hosts)"
    )]
    NotPublic,
    #[error("the model endpoint {0}")]
    Upstream(String),
    #[error("the model endpoint did not answer within {0} s")]
    UpstreamSlow(u64),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NoRoute(_) | Self::NoDialect(_) => StatusCode::NOT_FOUND,
            Self::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::ModelNotAllowed { .. } | Self::NoPrice(_) | Self::NotPublic | Self::Stopped => StatusCode::FORBIDDEN,
            Self::Budget(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::UpstreamSlow(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whether the same call may succeed in a while.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Busy | Self::Slow(_) | Self::Upstream(_) | Self::UpstreamSlow(_))
    }

    /// The response, in the words of the dialect; without one, in OpenAI's.
    pub(super) fn response(&self, dialect: Option<ModelDialect>) -> Response<Body> {
        let body = self.body(dialect).to_string();
        let mut response = Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(if self.is_passing() { "true" } else { "false" }));
        // Of a request that was not read to its end the rest is not read either; and who has no token holds no connection.
        if matches!(self, Self::Unauthorized | Self::TooLarge(_) | Self::Slow(_) | Self::Busy) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn body(&self, dialect: Option<ModelDialect>) -> Value {
        let (status, message) = (self.status().as_u16(), self.to_string());
        match dialect {
            None | Some(ModelDialect::OpenaiChat | ModelDialect::OpenaiResponses) => {
                let code = self.openai();
                json!({ "error": { "message": message, "type": code, "param": null, "code": code } })
            }
            Some(ModelDialect::Anthropic) => {
                json!({ "type": "error", "error": { "type": anthropic(status), "message": message } })
            }
            Some(ModelDialect::Gemini) => {
                json!({ "error": { "code": status, "message": message, "status": gemini(status) } })
            }
        }
    }

    fn openai(&self) -> &'static str {
        match self {
            Self::Unauthorized => "invalid_api_key",
            Self::ModelNotAllowed { .. } | Self::NoPrice(_) => "model_not_allowed",
            // Clients know it as one that trying again does not help.
            Self::Budget(_) => "insufficient_quota",
            Self::Stopped => "turn_stopped",
            _ if self.is_passing() => "server_error",
            _ => "invalid_request_error",
        }
    }
}

fn anthropic(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400 | 408 => "invalid_request_error",
        503 => "overloaded_error",
        _ => "api_error",
    }
}

fn gemini(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        400 | 408 | 413 => "INVALID_ARGUMENT",
        504 => "DEADLINE_EXCEEDED",
        _ => "UNAVAILABLE",
    }
}
