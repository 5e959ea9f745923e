//! `/sessions/{s}/usage` and `/projects/{p}/usage`: what model calls have used.

use ambient_domain::{project::Project, session::Session};
use ambient_persistence::{UsageBy, UsageOf};
use ambient_wire::usage::{ProjectUsage, SessionUsage};
use axum::Json as Answer;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Authorized, View},
    error::ApiResult,
    extract::{Query, date_time},
    responses::Reading,
    usage,
};

/// What the session's model calls have used: in total, by run and by model.
#[utoipa::path(get, path = "/sessions/{session_id}/usage", operation_id = "getSessionUsage", tag = "sessions",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "Its usage", body = SessionUsage), Reading))]
pub(super) async fn of_session(session: Authorized<Session, View>) -> ApiResult<Answer<SessionUsage>> {
    let of = UsageOf::Session(&session.get().id);
    let runs = session.access().model_usage(of, UsageBy::Run).await?;
    let models = session.access().model_usage(of, UsageBy::Model).await?;
    Ok(Answer(SessionUsage {
        kind: "SessionUsage".to_owned(),
        total: usage::total(&runs),
        runs: usage::by_run(&runs),
        models: usage::by_model(&models),
    }))
}

/// When.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Params {
    /// At or after.
    #[serde(default, deserialize_with = "date_time")]
    since: Option<DateTime<Utc>>,
    /// Before.
    #[serde(default, deserialize_with = "date_time")]
    until: Option<DateTime<Utc>>,
}

/// What the model calls of the project's sessions have used: in total, by day and by model; and what is left of its budget, whatever the
/// times asked for. A turn counts when its last call was made.
#[utoipa::path(get, path = "/projects/{project_id}/usage", operation_id = "getProjectUsage", tag = "projects",
    params(("project_id" = String, Path, description = "Id or name"), Params),
    responses((status = 200, description = "Its usage", body = ProjectUsage), Reading))]
pub(super) async fn of_project(
    project: Authorized<Project, View>,
    Query(params): Query<Params>,
) -> ApiResult<Answer<ProjectUsage>> {
    let of = UsageOf::Project(&project.get().id, params.since, params.until);
    let days = project.access().model_usage(of, UsageBy::Day).await?;
    let models = project.access().model_usage(of, UsageBy::Model).await?;
    Ok(Answer(ProjectUsage {
        kind: "ProjectUsage".to_owned(),
        total: usage::total(&days),
        days: usage::by_day(&days),
        models: usage::by_model(&models),
        budget: project.model_budget().await?,
    }))
}
