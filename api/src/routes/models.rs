//! `/projects/{p}/models` and `/sessions/{s}/models`: which models may be asked, and where.

use ambient_domain::{agent::Agent, project::Project, session::Session};
use ambient_wire::model::{ModelEndpoint, ModelList, ModelOwner};
use ambient_workflows::{Endpoint, Key, Said, ServerModels};
use axum::Json as Answer;

use crate::{
    authority::{Authorized, View},
    error::ApiResult,
    model_rules,
    responses::Reading,
};

/// Models that the project's sessions may ask, and where. If the server and the project allow any, those that the server knows.
#[utoipa::path(get, path = "/projects/{project_id}/models", operation_id = "listModels", tag = "projects",
    params(("project_id" = String, Path, description = "Id or name")),
    responses((status = 200, description = "All of them", body = ModelList), Reading))]
pub(super) async fn of_project(project: Authorized<Project, View>) -> ApiResult<Answer<ModelList>> {
    let config = project.access().state().config();
    let spec = &project.get().spec;
    let default = spec.settings.llm_model.as_deref().or(config.default_model.as_deref());
    Ok(Answer(listed(&config.models, &[of(project.get())], default)))
}

/// Models that the session's agent may ask, and where: what server, project, agent and session say together.
#[utoipa::path(get, path = "/sessions/{session_id}/models", operation_id = "listSessionModels", tag = "sessions",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "All of them", body = ModelList), Reading))]
pub(super) async fn of_session(session: Authorized<Session, View>) -> ApiResult<Answer<ModelList>> {
    let (project, agent) = session.owners().await?;
    let spec = &session.get().spec;
    let mut all: Vec<Said<'_>> = project.iter().map(of).collect();
    let agent: Option<&Agent> = agent.as_ref();
    all.extend(agent.map(|agent| Said {
        owner: ModelOwner::Agent,
        rules: &agent.spec.models,
        variables: &agent.spec.environment_variables,
    }));
    all.push(Said { owner: ModelOwner::Session, rules: &spec.models, variables: &spec.environment_variables });
    let config = session.access().state().config();
    Ok(Answer(listed(&config.models, &all, spec.llm_model.as_deref())))
}

fn of(project: &Project) -> Said<'_> {
    let spec = &project.spec;
    Said { owner: ModelOwner::Project, rules: &spec.settings.models, variables: &spec.environment_variables }
}

fn listed(server: &ServerModels, owners: &[Said<'_>], default: Option<&str>) -> ModelList {
    let access = server.access(owners);
    let items = server.known(&access, default);
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    ModelList {
        kind: "ModelList".to_owned(),
        page: 1,
        size: total,
        total,
        items,
        is_restricted: access.allowed.is_some(),
        endpoints: access.endpoints.iter().map(endpoint).collect(),
        session_limits: model_rules::shown_limits(access.limits),
    }
}

fn endpoint(endpoint: &Endpoint) -> ModelEndpoint {
    let Endpoint { provider, base_url, owner, key } = endpoint;
    // Only where it is, not what is there: a path may be nobody's business.
    let rest = base_url.split_once("://").map_or(base_url.as_str(), |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default().to_owned();
    let provider = model_rules::shown_provider(*provider);
    ModelEndpoint { provider, host, named_by: *owner, has_key: *key != Key::None }
}
