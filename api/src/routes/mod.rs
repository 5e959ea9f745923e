//! The routes: one file per resource.

mod agent_types;
mod agents;
mod agui;
mod errors;
mod events;
mod git;
mod gone;
pub(crate) mod health;
mod interrupts;
mod live;
mod messages;
mod models;
mod operations;
mod permissions;
mod playbooks;
mod projects;
mod replay;
mod repos;
mod repository_refs;
mod retention;
mod runs;
mod sessions;
mod tickets;
mod turns;
mod uploads;
mod usage;
mod workflow_executions;
mod workspace;

pub(crate) use self::workflow_executions::STATUSES;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{authority::AppState, definitions::Resource};

/// Definition Kinds.
pub(crate) const DEFINITIONS: &[Resource] = &[
    // One line each.
    Resource::of::<ambient_domain::agent::AgentSpec>(),
    Resource::of::<ambient_domain::repository_ref::RepositoryRefSpec>(),
];

/// Everything below the API's base.
pub(crate) fn resources() -> OpenApiRouter<AppState> {
    let router = OpenApiRouter::new()
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::get, projects::patch, projects::delete))
        .routes(routes!(permissions::list, permissions::grant, permissions::revoke))
        .routes(routes!(retention::get, retention::apply))
        .routes(routes!(models::of_project))
        .routes(routes!(models::of_session))
        .routes(routes!(sessions::list, sessions::create))
        .routes(routes!(sessions::get, sessions::patch, sessions::delete))
        .routes(routes!(runs::start))
        .routes(routes!(runs::stop))
        .routes(routes!(agent_types::list))
        .routes(routes!(repos::add))
        .routes(routes!(repos::status))
        .routes(routes!(repos::remove))
        .routes(routes!(playbooks::set, playbooks::clear))
        .routes(routes!(playbooks::metadata))
        .routes(routes!(messages::list, messages::send))
        .routes(routes!(interrupts::list))
        .routes(routes!(interrupts::answer))
        .routes(routes!(interrupts::inbox))
        .routes(routes!(turns::list))
        .routes(routes!(turns::get))
        .routes(routes!(turns::diff))
        .routes(routes!(turns::file))
        .routes(routes!(usage::of_session))
        .routes(routes!(usage::of_project))
        .routes(routes!(events::list))
        .routes(routes!(events::stream))
        .routes(routes!(agui::run))
        .routes(routes!(agui::events))
        .routes(routes!(agui::messages))
        .routes(routes!(agui::list))
        .routes(routes!(agui::interrupt))
        .routes(routes!(agui::feedback))
        .routes(routes!(agui::capabilities))
        .routes(routes!(live::session))
        .routes(routes!(live::connect))
        .routes(routes!(tickets::issue))
        .routes(routes!(workspace::list))
        .routes(routes!(workspace::file, workspace::write, workspace::remove))
        .routes(routes!(workspace::file_by_query, workspace::write_by_query, workspace::remove_by_query))
        .routes(routes!(workspace::stat))
        .routes(routes!(workspace::relocate))
        .routes(routes!(uploads::list))
        .routes(routes!(uploads::put, uploads::remove))
        .routes(routes!(git::status))
        .routes(routes!(git::diff))
        .routes(routes!(git::log))
        .routes(routes!(git::branches))
        .routes(routes!(git::create_branch))
        .routes(routes!(git::commit))
        .routes(routes!(git::push))
        .routes(routes!(git::pull))
        .routes(routes!(git::synchronize))
        .routes(routes!(git::merge_status))
        .routes(routes!(git::abandon))
        .routes(routes!(runs::resources))
        .routes(routes!(operations::list))
        .routes(routes!(operations::get))
        .routes(routes!(workflow_executions::list))
        .routes(routes!(workflow_executions::get))
        .routes(routes!(workflow_executions::history))
        .routes(routes!(workflow_executions::signal))
        .routes(routes!(workflow_executions::cancel))
        .routes(routes!(workflow_executions::terminate))
        .routes(routes!(replay::verify))
        .routes(routes!(errors::list))
        .routes(routes!(errors::get))
        .routes(routes!(gone::set_status))
        .routes(routes!(gone::create_content_pod))
        .routes(routes!(gone::content_pod_status))
        .routes(routes!(gone::delete_content_pod));
    DEFINITIONS.iter().fold(router, |router, resource| router.merge((resource.routes)()))
}
