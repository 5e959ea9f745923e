//! `/sessions/{s}/uploads` and `/upload_file`: files for a session that does not run yet. They are in its workspace before its agent begins.

use ambient_domain::session::Session;
use ambient_wire::{
    api::List,
    upload::{MAX_UPLOAD, UploadedFile},
};
use axum::{
    Json as Answer,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Authorized, Edit, View},
    error::{ApiError, ApiResult, Number},
    extract::{Act, NoBody, Query, Upload},
    given, list,
    responses::{Acting, Reading},
};

/// Files that wait for the session's next run, by path.
#[utoipa::path(get, path = "/sessions/{session_id}/uploads", operation_id = "listSessionUploads", tag = "workspace",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "All of them", body = List<UploadedFile>), Reading))]
pub(super) async fn list(session: Authorized<Session, View>) -> ApiResult<Answer<List<UploadedFile>>> {
    let items = session.uploads().await?;
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(Answer(list::envelope("UploadedFileList", 1, total, items)))
}

/// Which file, and how it is written.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadParams {
    /// Where it goes, relative to the workspace. Directories are made.
    path: String,
    /// Whether it may be executed.
    #[serde(default)]
    executable: bool,
}

/// Hands in a file for the session's next run, which has it after its repositories are cloned and before anything of it runs; one of the same
/// path is replaced. At most 10 MiB, 200 files, and 64 MiB together. 409 while a run is underway.
#[utoipa::path(put, path = "/sessions/{session_id}/upload_file", operation_id = "uploadSessionFile", tag = "workspace",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Its bytes"),
    params(("session_id" = String, Path, description = "Session"), UploadParams),
    responses((status = 200, description = "Replaced", body = UploadedFile), (status = 201, description = "It waits", body = UploadedFile), Acting))]
pub(super) async fn put(
    session: Authorized<Session, Edit>,
    Query(UploadParams { path, executable }): Query<UploadParams>,
    upload: Upload,
) -> ApiResult<Response> {
    let path = match session.check_not_running().and_then(|()| given::workspace_path("path", &path)) {
        Ok(path) => path,
        Err(refusal) => {
            upload.discard().await;
            return Err(refusal);
        }
    };
    let content = upload.whole(MAX_UPLOAD).await?;
    let (created, file) = session.upload(&path, executable, &content).await?;
    if !created {
        return Ok(Answer(file).into_response());
    }
    let place = format!("{}/sessions/{}/uploads", ambient_wire::BASE, session.get().id);
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], Answer(file)).into_response())
}

/// Which file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveUploadParams {
    /// Where it would go, relative to the workspace.
    path: String,
}

/// Takes back a file that waits for the session's next run.
#[utoipa::path(delete, path = "/sessions/{session_id}/upload_file", operation_id = "removeSessionUpload", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), RemoveUploadParams),
    responses((status = 204, description = "Removed"), Acting))]
pub(super) async fn remove(
    session: Authorized<Session, Edit>,
    Query(RemoveUploadParams { path }): Query<RemoveUploadParams>,
    _: Act<NoBody>,
) -> ApiResult<StatusCode> {
    let path = given::workspace_path("path", &path)?;
    if session.remove_upload(&path).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::new(Number::NotFound, format!("no file '{path}' waits")))
}
