//! `/projects/{p}/models`.

use ambient_domain::project::Project;
use ambient_wire::{api::List, model::Model};

use crate::{
    authority::{Authorized, View},
    error::ApiResult,
    list,
    responses::Reading,
};

/// Models that the project's sessions may ask. If the server allows any, those that it knows.
#[utoipa::path(get, path = "/projects/{project_id}/models", operation_id = "listModels", tag = "projects",
    params(("project_id" = String, Path, description = "Id or name")),
    responses((status = 200, description = "All of them", body = List<Model>), Reading))]
pub(super) async fn list(project: Authorized<Project, View>) -> ApiResult<axum::Json<List<Model>>> {
    let mut items = project.access().state().config().models.clone();
    if let Some(own) = &project.get().spec.settings.llm_model {
        items.iter_mut().for_each(|model| model.is_default = model.id == *own);
    }
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(axum::Json(list::envelope("ModelList", 1, total, items)))
}
