//! `/projects/{p}/retention`: for how long what finished sessions have left is kept.

use ambient_domain::project::Project;
use ambient_wire::retention::{ProjectRetention, RetentionQuery, RetentionRequest};
use axum::{Json as Answer, http::StatusCode};

use crate::{
    authority::{Authorized, Edit, View},
    error::{ApiError, ApiResult},
    extract::{Act, NoBody, Query},
    responses::{Acting, Reading},
};

const MAX_SIZE: u32 = 1_000;
const DEFAULT_SIZE: u32 = 100;

/// What is in force for the project, and what it would remove now. With days in the query: what these would remove. Nothing is changed. The
/// policy itself is in the project's settings (`retention`).
#[utoipa::path(get, path = "/projects/{project_id}/retention", operation_id = "getProjectRetention", tag = "projects",
    params(("project_id" = String, Path, description = "Id or name"), RetentionQuery),
    responses((status = 200, description = "What it comes to", body = ProjectRetention), Reading))]
pub(super) async fn get(
    project: Authorized<Project, View>,
    Query(query): Query<RetentionQuery>,
) -> ApiResult<Answer<ProjectRetention>> {
    let size = query.size.unwrap_or(DEFAULT_SIZE);
    if !(1..=MAX_SIZE).contains(&size) {
        return Err(ApiError::invalid("size", format!("must be 1 to {MAX_SIZE}")));
    }
    project.retention(query, i64::from(size)).await.map(Answer)
}

/// Applies the project's retention now, instead of within ten minutes. It is done when the `request` of the project's retention has a `done_at`.
#[utoipa::path(post, path = "/projects/{project_id}/retention", operation_id = "applyProjectRetention", tag = "projects",
    params(("project_id" = String, Path, description = "Id or name")),
    responses((status = 202, description = "It will be", body = RetentionRequest), Acting))]
pub(super) async fn apply(
    project: Authorized<Project, Edit>,
    Act(NoBody): Act<NoBody>,
) -> ApiResult<(StatusCode, Answer<RetentionRequest>)> {
    let request = project.apply_retention().await?;
    Ok((StatusCode::ACCEPTED, Answer(request)))
}
