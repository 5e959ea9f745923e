//! `/projects/{p}/permissions`.

use ambient_domain::project::{Permission, Project, Role, SubjectType};
use ambient_wire::{api::List, project::ProjectPermission};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Admin, Authorized, View},
    error::{ApiError, ApiResult},
    extract::{Json, NoBody, Query, Write},
    given, list, representation,
    respond::{Shown, no_content},
    responses::{Changing, Reading},
};

/// Longest name of a user or group, characters.
const MAX_SUBJECT: usize = 200;

/// Who has which role in the project.
#[utoipa::path(get, path = "/projects/{project_id}/permissions", operation_id = "listProjectPermissions", tag = "projects",
    params(("project_id" = String, Path, description = "Id or name")),
    responses((status = 200, description = "All of them", body = List<ProjectPermission>), Reading))]
pub(super) async fn list(project: Authorized<Project, View>) -> ApiResult<axum::Json<List<ProjectPermission>>> {
    let items: Vec<_> = project.get().permissions.iter().map(representation::permission).collect();
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(axum::Json(list::envelope("ProjectPermissionList", 1, total, items)))
}

/// Grants a role, replacing the subject's previous one.
#[utoipa::path(post, path = "/projects/{project_id}/permissions", operation_id = "grantProjectPermission", tag = "projects", request_body = ProjectPermission,
    params(("project_id" = String, Path, description = "Id or name")),
    responses((status = 200, description = "Granted", body = ProjectPermission), Changing))]
pub(super) async fn grant(
    project: Authorized<Project, Admin>,
    write: Write<Json<ProjectPermission>>,
) -> ApiResult<Shown<ProjectPermission>> {
    let Json(body) = &write.body;
    given::name("subject_name", &body.subject_name, MAX_SUBJECT)?;
    let permission = Permission {
        subject_type: subject_type(&body.subject_type)?,
        subject_name: body.subject_name.clone(),
        role: role(&body.role)?,
    };
    let reply = project.grant(permission, write.options()).await?;
    Ok(Shown::ok(body.clone(), reply.state.version).by(reply.operation_id))
}

/// Whose role to revoke.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RevokeParams {
    /// `user` or `group`.
    subject_type: String,
    /// Its name.
    subject_name: String,
}

/// Revokes a subject's role. The last owner stays.
#[utoipa::path(delete, path = "/projects/{project_id}/permissions", operation_id = "revokeProjectPermission", tag = "projects",
    params(("project_id" = String, Path, description = "Id or name"), RevokeParams),
    responses((status = 204, description = "Revoked"), Changing))]
pub(super) async fn revoke(
    project: Authorized<Project, Admin>,
    Query(params): Query<RevokeParams>,
    write: Write<NoBody>,
) -> ApiResult<Response> {
    let reply = project.revoke(subject_type(&params.subject_type)?, params.subject_name, write.options()).await?;
    Ok(no_content(reply.operation_id))
}

fn subject_type(text: &str) -> ApiResult<SubjectType> {
    match text {
        "user" => Ok(SubjectType::User),
        "group" => Ok(SubjectType::Group),
        _ => Err(ApiError::invalid("subject_type", "must be user or group")),
    }
}

fn role(text: &str) -> ApiResult<Role> {
    match text {
        "view" => Ok(Role::View),
        "edit" => Ok(Role::Edit),
        "admin" => Ok(Role::Admin),
        _ => Err(ApiError::invalid("role", "must be view, edit or admin")),
    }
}
