//! `/projects`.

use ambient_domain::{
    project::{Project, ProjectPatch, ProjectSpec, Settings},
    retention::{Retention, RetentionRules},
};
use ambient_wire::{
    api::List,
    project::{Project as Wire, ProjectCreate, ProjectPatch as WirePatch, ProjectSettings},
    retention::Retention as WireRetention,
};

use crate::{
    authority::{Access, Admin, Authorized, Registered, View},
    error::ApiResult,
    extract::{Json, NoBody, Query, VersionParams, Write},
    given,
    list::{self, ListParams},
    mcp, model_rules, representation,
    respond::Shown,
    responses::{Changing, Creating, Listing, Reading},
    session_spec,
};

const MAX_NAME: usize = ambient_wire::name::MAX;
const MAX_MODEL: usize = 200;
const MAX_AGENT_TYPE: usize = 100;

/// Projects in which the caller has a role.
#[utoipa::path(get, path = "/projects", operation_id = "listProjects", tag = "projects", params(ListParams<Project>),
    responses((status = 200, description = "A page of projects", body = List<Wire>), Listing))]
pub(super) async fn list(
    access: Access,
    Query(params): Query<ListParams<Project>>,
) -> ApiResult<axum::Json<List<Wire>>> {
    let page = access.list::<Project>(&params.query(&access).await?).await?;
    let items = page.items.iter().map(representation::project).collect();
    Ok(axum::Json(list::envelope("ProjectList", page.page, page.total, items)))
}

/// Creates a project; the caller owns it.
#[utoipa::path(post, path = "/projects", operation_id = "createProject", tag = "projects", request_body = ProjectCreate,
    responses((status = 201, description = "Created; project-provision sets up its space", body = Wire), Creating))]
pub(super) async fn create(caller: Registered, write: Write<Json<ProjectCreate>>) -> ApiResult<Shown<Wire>> {
    write.conditions.no_version_yet()?;
    let Json(body) = &write.body;
    check(body, caller.agent_types(), caller.retention())?;
    let secrets = body.environment_variables.clone();
    let reply = caller.create_project(body.name.clone(), spec(body), secrets, write.options()).await?;
    let body = representation::project(&reply.state);
    let href = body.href.clone();
    Ok(Shown::created(body, reply.state.version, href).by(reply.operation_id))
}

/// A project, by id or name.
#[utoipa::path(get, path = "/projects/{project_id}", operation_id = "getProject", tag = "projects",
    params(("project_id" = String, Path, description = "Id or name"), VersionParams),
    responses((status = 200, description = "The project", body = Wire), Reading))]
pub(super) async fn get(
    project: Authorized<Project, View>,
    Query(params): Query<VersionParams>,
) -> ApiResult<Shown<Wire>> {
    let shown = match params.version {
        Some(version) => project.at_version(version).await?,
        None => project.get().clone(),
    };
    Ok(Shown::ok(representation::project(&shown), shown.version))
}

/// Changes a project by a JSON merge patch.
#[utoipa::path(patch, path = "/projects/{project_id}", operation_id = "updateProject", tag = "projects", request_body = WirePatch,
    params(("project_id" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The project afterwards", body = Wire), Changing))]
pub(super) async fn patch(
    project: Authorized<Project, Admin>,
    write: Write<Json<WirePatch>>,
) -> ApiResult<Shown<Wire>> {
    check_patch(&write.body.0, project.agent_types(), project.access().state().retention())?;
    let secrets = write.body.0.environment_variables.clone();
    let reply = project.patch(patch_of(write.body.0.clone()), secrets, write.options()).await?;
    Ok(Shown::ok(representation::project(&reply.state), reply.state.version).by(reply.operation_id))
}

/// Deletes a project with all its sessions. Its name becomes free once project-delete has finished.
#[utoipa::path(delete, path = "/projects/{project_id}", operation_id = "deleteProject", tag = "projects",
    params(("project_id" = String, Path, description = "Id or name")),
    responses((status = 202, description = "Terminating; Location is project-delete", body = Wire), Changing))]
pub(super) async fn delete(project: Authorized<Project, Admin>, write: Write<NoBody>) -> ApiResult<Shown<Wire>> {
    let reply = project.delete(write.options()).await?;
    let workflow =
        reply.operation_id.as_ref().map(|operation| format!("project-delete/{}/{operation}", reply.state.id));
    let shown = Shown::accepted(representation::project(&reply.state), reply.state.version, workflow.as_deref());
    Ok(shown.by(reply.operation_id))
}

fn check(body: &ProjectCreate, agent_types: &[String], rules: &RetentionRules) -> ApiResult<()> {
    check_texts(Some(&body.display_name), Some(&body.description))?;
    check_settings(&body.settings, agent_types, rules)?;
    given::labels(&body.labels)?;
    given::annotations(&body.annotations)
}

fn check_patch(body: &WirePatch, agent_types: &[String], rules: &RetentionRules) -> ApiResult<()> {
    check_texts(body.display_name.as_deref(), body.description.as_deref())?;
    body.settings.as_ref().map_or(Ok(()), |settings| check_settings(settings, agent_types, rules))?;
    body.labels.as_ref().map_or(Ok(()), given::labels)?;
    body.annotations.as_ref().map_or(Ok(()), given::annotations)
}

/// A display name may be empty: the name is shown instead.
fn check_texts(display_name: Option<&str>, description: Option<&str>) -> ApiResult<()> {
    given::optional_name("display_name", display_name.filter(|name| !name.is_empty()), MAX_NAME)?;
    given::text("description", description.unwrap_or_default())
}

fn check_settings(settings: &ProjectSettings, agent_types: &[String], rules: &RetentionRules) -> ApiResult<()> {
    given::optional_name("settings.llm_model", settings.llm_model.as_deref(), MAX_MODEL)?;
    given::permissions("settings.permissions", &settings.permissions)?;
    given::optional_name("settings.agent_type", settings.agent_type.as_deref(), MAX_AGENT_TYPE)?;
    session_spec::known_agent_type("settings.agent_type", settings.agent_type.as_deref(), agent_types)?;
    given::network("settings.network", settings.network.as_ref())?;
    given::models("settings.models", &settings.models)?;
    given::model_budget("settings.model_budget", settings.model_budget.as_ref())?;
    Ok(rules.check(&retention_of(&settings.retention)).map_err(|refusal| refusal.within("settings.retention"))?)
}

/// Without the variables, whose values are sealed once the project has its id.
fn spec(body: &ProjectCreate) -> ProjectSpec {
    let ProjectCreate { display_name, description, prompt, labels, annotations, settings, .. } = body.clone();
    let settings = settings_of(settings);
    ProjectSpec { display_name, description, prompt, labels, annotations, settings, ..ProjectSpec::default() }
}

/// The same.
fn patch_of(body: WirePatch) -> ProjectPatch {
    let WirePatch { display_name, description, prompt, labels, annotations, settings, .. } = body;
    let settings = settings.map(settings_of);
    ProjectPatch { display_name, description, prompt, labels, annotations, settings, ..ProjectPatch::default() }
}

fn settings_of(settings: ProjectSettings) -> Settings {
    let ProjectSettings {
        llm_model,
        inactivity_timeout,
        permissions,
        agent_type,
        agent_command,
        mcp_servers,
        network,
        setup_script,
        retention,
        models,
        model_budget,
    } = settings;
    Settings {
        llm_model,
        inactivity_timeout,
        permissions: session_spec::permissions(permissions),
        agent_type,
        agent_command: agent_command.map(session_spec::agent_command),
        mcp_servers: mcp::given(mcp_servers),
        network: network.map(session_spec::network),
        setup_script,
        retention: retention_of(&retention),
        models: model_rules::given(models),
        model_budget: model_budget.map(model_rules::given_budget),
    }
}

fn retention_of(given: &WireRetention) -> Retention {
    let WireRetention { event_days, workspace_days, snapshot_days } = *given;
    Retention { event_days, workspace_days, snapshot_days }
}
