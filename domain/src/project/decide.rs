//! Decisions on a project.

use super::{
    Command, Event, Permission, Project, ProjectPatch, ProjectPhase, ProjectSpec, Role, Settings, SubjectType,
};
use crate::{
    entity::{Context, Decision, NothingToDo, Refusal, RefusalCode},
    mcp, name,
    network::Network,
    patch::merge,
    session::{launch, validate_command},
};

type Decided = Result<Decision<Event>, Refusal>;

const ALREADY: Decision<Event> = Decision::NothingToDo(NothingToDo::Already);
const SUPERSEDED: Decision<Event> = Decision::NothingToDo(NothingToDo::Superseded);

pub(super) fn decide(state: Option<&Project>, command: &Command, _: &Context) -> Decided {
    let Some(project) = state else {
        return match command {
            Command::Create { project_id, name, spec, owner } => create(project_id, name, spec, owner),
            Command::Provisioned | Command::DeleteFinished => Ok(SUPERSEDED),
            _ => Err(Refusal::new(RefusalCode::NotFound, "Project not found")),
        };
    };
    match command {
        Command::Create { .. } => Err(Refusal::new(RefusalCode::Conflict, "this Project already exists")),
        Command::Provisioned if project.deleted_at.is_some() => Ok(SUPERSEDED),
        Command::Provisioned if project.provisioned => Ok(ALREADY),
        Command::Provisioned => one(Event::Provisioned),
        Command::DeleteFinished if project.deleted_at.is_some() => Ok(ALREADY),
        Command::DeleteFinished if project.phase == ProjectPhase::Active => Ok(SUPERSEDED),
        Command::DeleteFinished => one(Event::Deleted),
        Command::Delete if project.phase == ProjectPhase::Terminating => Ok(ALREADY),
        _ if project.deleted_at.is_some() => Err(Refusal::new(RefusalCode::NotFound, "Project not found")),
        Command::Delete => one(Event::Terminating),
        _ if project.phase == ProjectPhase::Terminating => {
            Err(Refusal::new(RefusalCode::Phase, "the Project is Terminating and takes no changes"))
        }
        Command::Patch(patch) => patched(project, patch),
        Command::Grant(permission) => grant(project, permission),
        Command::Revoke { subject_type, subject_name } => revoke(project, *subject_type, subject_name),
    }
}

fn one(event: Event) -> Decided {
    Ok(Decision::Events(vec![event]))
}

fn create(id: &str, project_name: &str, spec: &ProjectSpec, owner: &str) -> Decided {
    name::project_name(project_name)?;
    validate(spec)?;
    Ok(Decision::Events(vec![
        Event::Created { project_id: id.to_owned(), name: project_name.to_owned(), spec: Box::new(spec.clone()) },
        Event::Granted(Permission {
            subject_type: SubjectType::User,
            subject_name: owner.to_owned(),
            role: Role::Admin,
        }),
    ]))
}

fn validate(spec: &ProjectSpec) -> Result<(), Refusal> {
    if !spec.display_name.is_empty() {
        name::display("display_name", &spec.display_name, 100)?;
    }
    name::text("description", &spec.description)?;
    name::text("prompt", &spec.prompt)?;
    name::map("labels", &spec.labels)?;
    name::map("annotations", &spec.annotations)?;
    name::environment("environment_variables", spec.environment_variables.keys())?;
    if let Some(model) = &spec.settings.llm_model {
        name::display("settings.llm_model", model, 200)?;
    }
    if spec.settings.inactivity_timeout.is_some_and(|t| !(0..=365 * 86_400).contains(&t)) {
        return Err(Refusal::invalid("settings.inactivity_timeout", "must be 0 (off) to 31536000 seconds"));
    }
    spec.settings.permissions.validate("settings.permissions")?;
    spec.settings.retention.validate().map_err(|refusal| refusal.within("settings.retention"))?;
    let Settings { models, model_budget, .. } = &spec.settings;
    models.validate("settings.models", &spec.environment_variables)?;
    model_budget.as_ref().map_or(Ok(()), |budget| budget.validate("settings.model_budget"))?;
    sessions(&spec.settings).map_err(|refusal| refusal.within("settings"))
}

/// What sessions go by, where neither they nor their agents say.
fn sessions(settings: &Settings) -> Result<(), Refusal> {
    let Settings { agent_type, agent_command, mcp_servers, network, setup_script, .. } = settings;
    agent_type.as_ref().map_or(Ok(()), |agent_type| name::display("agent_type", agent_type, 100))?;
    agent_command.as_ref().map_or(Ok(()), validate_command)?;
    mcp::validate(mcp_servers)?;
    network.as_ref().map_or(Ok(()), Network::validate)?;
    launch::setup_script(setup_script.as_deref())
}

fn patched(project: &Project, patch: &ProjectPatch) -> Decided {
    let mut spec = project.spec.clone();
    let ProjectPatch { display_name, description, prompt, labels, annotations, environment_variables, settings } =
        patch.clone();
    spec.display_name = display_name.unwrap_or(spec.display_name);
    spec.description = description.unwrap_or(spec.description);
    spec.prompt = prompt.unwrap_or(spec.prompt);
    merge(&mut spec.labels, labels);
    merge(&mut spec.annotations, annotations);
    merge(&mut spec.environment_variables, environment_variables);
    spec.settings = settings.unwrap_or(spec.settings);
    if spec == project.spec {
        return Ok(ALREADY);
    }
    validate(&spec)?;
    one(Event::SpecChanged { spec: Box::new(spec) })
}

fn grant(project: &Project, permission: &Permission) -> Decided {
    name::display("subject_name", &permission.subject_name, 200)?;
    if project.permissions.contains(permission) {
        return Ok(ALREADY);
    }
    if permission.role != Role::Admin {
        keep_an_owner(project, permission.subject_type, &permission.subject_name)?;
    }
    one(Event::Granted(permission.clone()))
}

fn revoke(project: &Project, subject_type: SubjectType, subject_name: &str) -> Decided {
    if !project.permissions.iter().any(|p| p.subject_type == subject_type && p.subject_name == subject_name) {
        return Err(Refusal::new(RefusalCode::NotFound, format!("'{subject_name}' has no role in this Project")));
    }
    keep_an_owner(project, subject_type, subject_name)?;
    one(Event::Revoked { subject_type, subject_name: subject_name.to_owned() })
}

fn keep_an_owner(project: &Project, subject_type: SubjectType, subject_name: &str) -> Result<(), Refusal> {
    let others =
        |p: &&Permission| p.role == Role::Admin && (p.subject_type != subject_type || p.subject_name != subject_name);
    if project.permissions.iter().any(|p| others(&p)) {
        return Ok(());
    }
    Err(Refusal::new(RefusalCode::Conflict, "the last owner of a Project cannot be removed"))
}
