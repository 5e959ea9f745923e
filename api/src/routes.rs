//! The routes: one file per resource.

mod agents;
mod errors;
mod events;
mod git;
mod gone;
mod health;
mod live;
mod messages;
mod operations;
mod permissions;
mod projects;
mod replay;
mod repos;
mod repository_refs;
pub(crate) mod responses;
mod runs;
mod sessions;
mod tickets;
mod workflow_executions;
mod workspace;

pub(crate) use self::{projects::VersionParams, workflow_executions::STATUSES};

use ambient_wire::BASE;
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    authority::AppState,
    definitions::Resource,
    error::{ApiError, Number},
    observe::observe,
};

/// Definition Kinds.
pub(crate) const DEFINITIONS: &[Resource] = &[
    // One line each.
    Resource::of::<ambient_domain::agent::AgentSpec>(),
    Resource::of::<ambient_domain::repository_ref::RepositoryRefSpec>(),
];

/// Everything the server serves.
pub fn router(state: AppState) -> Router {
    let (router, _) = documented().split_for_parts();
    router
        .fallback(|| async { ApiError::new(Number::UnknownRoute, Number::UnknownRoute.meaning()) })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(observe))
        .with_state(state)
}

/// The routes with their documentation.
pub(crate) fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(crate::openapi::head()).merge(health::routes()).nest(BASE, resources())
}

fn resources() -> OpenApiRouter<AppState> {
    let router = OpenApiRouter::new()
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::get, projects::patch, projects::delete))
        .routes(routes!(permissions::list, permissions::grant, permissions::revoke))
        .routes(routes!(sessions::list, sessions::create))
        .routes(routes!(sessions::get, sessions::patch, sessions::delete))
        .routes(routes!(runs::start))
        .routes(routes!(runs::stop))
        .routes(routes!(repos::add))
        .routes(routes!(repos::status))
        .routes(routes!(repos::remove))
        .routes(routes!(messages::list, messages::send))
        .routes(routes!(events::list))
        .routes(routes!(events::stream))
        .routes(routes!(live::session))
        .routes(routes!(live::connect))
        .routes(routes!(tickets::issue))
        .routes(routes!(workspace::list))
        .routes(routes!(workspace::file))
        .routes(routes!(workspace::file_by_query))
        .routes(routes!(git::status))
        .routes(routes!(git::diff))
        .routes(routes!(git::commit))
        .routes(routes!(git::push))
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

#[allow(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    axum::response::IntoResponse::into_response(ApiError::internal(&format!("a handler panicked: {text}")))
}
