//! `/sessions/{s}/workspace`: files of a running session, through its runner.

use ambient_domain::session::Session;
use ambient_live::NewFile;
use ambient_wire::{
    BASE,
    content::{FileMove, FileStatus, Listing, SHA256_HEADER},
};
use axum::{
    Json as Answer,
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Authorized, Edit, View},
    error::{ApiError, ApiResult, Number},
    extract::{Act, Json, NoBody, Query, Upload, path_parameter},
    responses::{Acting, Proxied, Writing},
};

path_parameter!(
    /// Path of a file in the workspace.
    FilePath, "path"
);

const SHA256: HeaderName = HeaderName::from_static(SHA256_HEADER);
/// What must be encoded in a segment of an address.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

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
) -> ApiResult<Answer<Listing>> {
    session.list_directory(&params.path).await.map(Answer)
}

/// What is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatParams {
    /// File or directory, relative to the workspace; the workspace itself when absent.
    #[serde(default)]
    path: String,
    /// Also the SHA-256 of a file's content.
    #[serde(default)]
    sha256: bool,
}

/// What is known about a file or directory in the workspace. A link is described itself.
#[utoipa::path(get, path = "/sessions/{session_id}/workspace_stat", operation_id = "statWorkspaceFile", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), StatParams),
    responses((status = 200, description = "What it is", body = FileStatus), Proxied))]
pub(super) async fn stat(
    session: Authorized<Session, View>,
    Query(params): Query<StatParams>,
) -> ApiResult<Answer<FileStatus>> {
    session.file_status(&params.path, params.sha256).await.map(Answer)
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
        (header::ETAG, content.sha256.as_deref().map(tag)),
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

/// An entity tag of a file's content.
fn tag(sha256: &str) -> String {
    format!("\"{sha256}\"")
}

/// How a file is written.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WriteParams {
    /// Creates the directories it is in.
    #[serde(default)]
    parents: bool,
    /// Whether it may be executed. When absent, a file that is there stays as it is, and a new one may not.
    executable: Option<bool>,
}

/// Writes a file in the workspace, in one step: it is there whole, or everything is as before. At most 100 MiB. The file is the agent's, and one
/// that is replaced keeps its permissions.
#[utoipa::path(put, path = "/sessions/{session_id}/workspace/{*path}", operation_id = "writeWorkspaceFile", tag = "workspace",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Its bytes"),
    params(("session_id" = String, Path, description = "Session"), ("path" = String, Path, description = "Relative to the workspace"),
        WriteParams,
        ("If-Match" = Option<String>, Header, description = "Only if there is a file, with the SHA-256 that the entity tag names, or with any (`*`)"),
        ("If-None-Match" = Option<String>, Header, description = "Only if there is none")),
    responses((status = 200, description = "Replaced", body = FileStatus), (status = 201, description = "Created", body = FileStatus),
        Proxied, Writing))]
pub(super) async fn write(
    session: Authorized<Session, Edit>,
    FilePath(path): FilePath,
    Query(params): Query<WriteParams>,
    headers: HeaderMap,
    upload: Upload,
) -> ApiResult<Response> {
    put(&session, &path, params, &headers, upload).await
}

/// Which file, and how it is written.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WriteFileParams {
    /// File, relative to the workspace.
    path: String,
    /// Creates the directories it is in.
    #[serde(default)]
    parents: bool,
    /// Whether it may be executed. When absent, a file that is there stays as it is, and a new one may not.
    executable: Option<bool>,
}

/// Writes a file in the workspace: like `workspace/{path}`, with the path in the query.
#[utoipa::path(put, path = "/sessions/{session_id}/workspace_file", operation_id = "putWorkspaceFile", tag = "workspace",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Its bytes"),
    params(("session_id" = String, Path, description = "Session"), WriteFileParams,
        ("If-Match" = Option<String>, Header, description = "Only if there is a file, with the SHA-256 that the entity tag names, or with any (`*`)"),
        ("If-None-Match" = Option<String>, Header, description = "Only if there is none")),
    responses((status = 200, description = "Replaced", body = FileStatus), (status = 201, description = "Created", body = FileStatus),
        Proxied, Writing))]
pub(super) async fn write_by_query(
    session: Authorized<Session, Edit>,
    Query(WriteFileParams { path, parents, executable }): Query<WriteFileParams>,
    headers: HeaderMap,
    upload: Upload,
) -> ApiResult<Response> {
    put(&session, &path, WriteParams { parents, executable }, &headers, upload).await
}

async fn put(
    session: &Authorized<Session, Edit>,
    path: &str,
    params: WriteParams,
    headers: &HeaderMap,
    upload: Upload,
) -> ApiResult<Response> {
    let whole = match headers.contains_key(header::CONTENT_RANGE) {
        true => Err(ApiError::invalid("Content-Range", "a file is written whole")),
        false => conditions(headers),
    };
    let conditions = match (whole, session.check_running().await) {
        (Ok(conditions), Ok(())) => conditions,
        (Err(refusal), _) | (_, Err(refusal)) => {
            upload.discard().await;
            return Err(refusal);
        }
    };
    let (if_match, if_none_match) = conditions;
    let (content, fault) = upload.into_parts();
    let WriteParams { parents, executable } = params;
    let file = NewFile { parents, executable, if_match, if_none_match, content };
    let (created, status) = fault.or(session.write_file(path, file).await)?;
    let tag = [(header::ETAG, status.sha256.as_deref().map(tag).unwrap_or_default())];
    if !created {
        return Ok((tag, Answer(status)).into_response());
    }
    let segments: Vec<_> = status.path.split('/').map(|part| utf8_percent_encode(part, SEGMENT).to_string()).collect();
    let place = format!("{BASE}/sessions/{}/workspace/{}", session.get().id, segments.join("/"));
    Ok((StatusCode::CREATED, tag, [(header::LOCATION, place)], Answer(status)).into_response())
}

/// `If-Match` and `If-None-Match`, of which one may be given.
fn conditions(headers: &HeaderMap) -> ApiResult<(Option<String>, Option<String>)> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim().to_owned());
    let (if_match, if_none_match) = (text(header::IF_MATCH), text(header::IF_NONE_MATCH));
    let is_sum = |text: &str| text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let is_tag = |text: &str| text == "*" || is_sum(text.trim_matches('"'));
    // A condition that no file can meet is not met.
    if if_match.as_deref().is_some_and(|tag| !is_tag(tag)) {
        return Err(ApiError::new(
            Number::Stale,
            "If-Match: must be the SHA-256 of the file's content in quotes, or *",
        ));
    }
    match (&if_match, if_none_match.as_deref()) {
        (_, None) | (None, Some("*")) => Ok((if_match, if_none_match)),
        (Some(_), Some(_)) => Err(ApiError::new(Number::Stale, "If-None-Match: excludes If-Match")),
        (None, Some(_)) => Err(ApiError::new(Number::Stale, "If-None-Match: must be *")),
    }
}

/// How something is removed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveParams {
    /// Must be true to remove a directory, with everything in it.
    #[serde(default)]
    recursive: bool,
}

/// Removes a file or directory in the workspace. A link is removed itself.
#[utoipa::path(delete, path = "/sessions/{session_id}/workspace/{*path}", operation_id = "removeWorkspaceFile", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), ("path" = String, Path, description = "Relative to the workspace"),
        RemoveParams),
    responses((status = 204, description = "Removed"), Proxied, Acting))]
pub(super) async fn remove(
    session: Authorized<Session, Edit>,
    FilePath(path): FilePath,
    Query(params): Query<RemoveParams>,
    _: Act<NoBody>,
) -> ApiResult<StatusCode> {
    session.remove_file(&path, params.recursive).await.map(|()| StatusCode::NO_CONTENT)
}

/// What is removed, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveFileParams {
    /// File or directory, relative to the workspace.
    path: String,
    /// Must be true to remove a directory, with everything in it.
    #[serde(default)]
    recursive: bool,
}

/// Removes a file or directory in the workspace: like `workspace/{path}`, with the path in the query.
#[utoipa::path(delete, path = "/sessions/{session_id}/workspace_file", operation_id = "deleteWorkspaceFile", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), RemoveFileParams),
    responses((status = 204, description = "Removed"), Proxied, Acting))]
pub(super) async fn remove_by_query(
    session: Authorized<Session, Edit>,
    Query(params): Query<RemoveFileParams>,
    _: Act<NoBody>,
) -> ApiResult<StatusCode> {
    session.remove_file(&params.path, params.recursive).await.map(|()| StatusCode::NO_CONTENT)
}

/// Moves a file or directory within the workspace, or renames it. A link is moved itself.
#[utoipa::path(post, path = "/sessions/{session_id}/workspace_move", operation_id = "moveWorkspaceFile", tag = "workspace", request_body = FileMove,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "What has the new path", body = FileStatus), Proxied, Acting))]
pub(super) async fn relocate(
    session: Authorized<Session, Edit>,
    Act(Json(request)): Act<Json<FileMove>>,
) -> ApiResult<Answer<FileStatus>> {
    session.move_file(&request).await.map(Answer)
}
