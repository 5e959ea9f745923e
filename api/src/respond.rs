//! Responses about one object.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use ambient_actors::{CommandOutcome, Reply};
use ambient_domain::Entity;
use ambient_wire::BASE;

use crate::error::{ApiError, ApiResult};

/// Characters that a path segment keeps unencoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An object with its version, and where to find more.
#[derive(Debug)]
pub(crate) struct Shown<T> {
    status: StatusCode,
    body: T,
    version: i64,
    location: Option<String>,
    operation_id: Option<String>,
}

impl<T> Shown<T> {
    /// 200.
    pub(crate) fn ok(body: T, version: i64) -> Self {
        Self { status: StatusCode::OK, body, version, location: None, operation_id: None }
    }

    /// 201 with its address.
    pub(crate) fn created(body: T, version: i64, href: String) -> Self {
        Self { status: StatusCode::CREATED, location: Some(href), ..Self::ok(body, version) }
    }

    /// 202 with the execution that does the work, if there is one.
    pub(crate) fn accepted(body: T, version: i64, workflow_id: Option<&str>) -> Self {
        let location = workflow_id.map(execution_href);
        Self { status: StatusCode::ACCEPTED, location, ..Self::ok(body, version) }
    }

    /// Names the operation that was created.
    pub(crate) fn by(mut self, operation_id: Option<String>) -> Self {
        self.operation_id = operation_id;
        self
    }
}

/// Address of a workflow execution: its id is one path segment, slashes encoded.
pub(crate) fn execution_href(workflow_id: &str) -> String {
    format!("{BASE}/workflow_executions/{}", utf8_percent_encode(workflow_id, SEGMENT))
}

impl<T: Serialize> IntoResponse for Shown<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        let mut set = |name, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        set(header::ETAG, format!("\"{}\"", self.version));
        if let Some(location) = self.location {
            set(header::LOCATION, location);
        }
        if let Some(id) = self.operation_id {
            set(crate::OPERATION_ID, id);
        }
        response
    }
}

/// 204 for a deletion. Whoever comes second, even at the same moment, finds nothing, as everyone does from then on.
pub(crate) fn deleted<E: Entity>(reply: &Reply<E>) -> ApiResult<Response> {
    match reply.outcome {
        CommandOutcome::Applied => Ok(no_content(reply.operation_id.clone())),
        CommandOutcome::Already | CommandOutcome::Superseded => Err(ApiError::not_found(E::TITLE, reply.state.id())),
    }
}

/// 204 for an operation.
pub(crate) fn no_content(operation_id: Option<String>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(value) = operation_id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert(crate::OPERATION_ID, value);
    }
    response
}
