//! `/sessions/{s}/workspace`: files of a running session, as served by its runner.

use ambient_domain::session::Session;
use ambient_wire::content::Listing;
use axum::{
    Json,
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Authorized, View},
    error::{ApiError, ApiResult},
    extract::{Query, path_parameter},
    responses::Proxied,
};

path_parameter!(
    /// Path of a file in the workspace.
    FilePath, "path"
);

const SHA256: HeaderName = HeaderName::from_static("x-content-sha256");

/// Which directory.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Directory, relative to the workspace; the workspace itself when absent.
    #[serde(default)]
    path: String,
}

/// Entries of a directory in the workspace. 409 if the session is not running, with how to start it.
#[utoipa::path(get, path = "/sessions/{session_id}/workspace", operation_id = "listWorkspace", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), ListParams),
    responses((status = 200, description = "Its entries", body = Listing), Proxied))]
pub(super) async fn list(
    session: Authorized<Session, View>,
    Query(params): Query<ListParams>,
) -> ApiResult<Json<Listing>> {
    session.list_directory(&params.path).await.map(Json)
}

/// Which file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FileParams {
    /// File, relative to the workspace.
    path: String,
}

/// A file in the workspace, or the part that `Range` names.
#[utoipa::path(get, path = "/sessions/{session_id}/workspace_file", operation_id = "getWorkspaceFile", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), FileParams, ("Range" = Option<String>, Header, description = "bytes=a-b")),
    responses((status = 200, description = "Its bytes", body = [u8], content_type = "application/octet-stream"),
        (status = 206, description = "A part of them", body = [u8], content_type = "application/octet-stream"), Proxied))]
pub(super) async fn file_by_query(
    session: Authorized<Session, View>,
    Query(params): Query<FileParams>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    content(&session, &params.path, &headers).await
}

/// A file in the workspace, or the part that `Range` names: like `workspace_file`, with the path in the URL, its slashes encoded or not.
#[utoipa::path(get, path = "/sessions/{session_id}/workspace/{*path}", operation_id = "readWorkspaceFile", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), ("path" = String, Path, description = "Relative to the workspace"),
        ("Range" = Option<String>, Header, description = "bytes=a-b")),
    responses((status = 200, description = "Its bytes", body = [u8], content_type = "application/octet-stream"),
        (status = 206, description = "A part of them", body = [u8], content_type = "application/octet-stream"), Proxied))]
pub(super) async fn file(
    session: Authorized<Session, View>,
    FilePath(path): FilePath,
    headers: HeaderMap,
) -> ApiResult<Response> {
    content(&session, &path, &headers).await
}

async fn content(session: &Authorized<Session, View>, path: &str, headers: &HeaderMap) -> ApiResult<Response> {
    let range = headers.get(header::RANGE).map(|value| value.to_str()).transpose();
    let range = range.map_err(|_| ApiError::invalid("Range", "must be bytes=a-b"))?;
    let content = session.read_file(path, range).await?;
    let status = if content.status == 206 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let told = [
        (header::CONTENT_LENGTH, content.content_length.map(|length| length.to_string())),
        (header::CONTENT_RANGE, content.content_range),
        (SHA256, content.sha256),
    ];
    let mut response = (status, Body::from_stream(content.body)).into_response();
    for (name, value) in told {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    // A browser must never run what an agent wrote as a page of ours.
    let fixed = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::ACCEPT_RANGES, "bytes"),
    ];
    fixed.into_iter().for_each(|(name, value)| {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    });
    Ok(response)
}
