//! One handler per verb, for every definition Kind.

use std::borrow::Borrow;

use ambient_domain::{Entity as _, project::Project};
use ambient_wire::{api::List, definition::Definition as Wire};
use axum::response::Response;

use super::{Create, Patch, Served, change, new, project_of, shown};
use crate::{
    authority::{Access, Authorized, Edit, View},
    error::ApiResult,
    extract::{Json, NoBody, Query, VersionParams, Write},
    list::{self, ListParams},
    respond::{Shown, deleted},
};

pub(super) async fn list<S: Served>(
    access: Access,
    Query(params): Query<ListParams<S::Entity>>,
) -> ApiResult<axum::Json<List<S::Wire>>> {
    let page = access.list::<S::Entity>(&params.query(&access).await?).await?;
    let items = page.items.iter().map(|item| shown(item.borrow())).collect::<ApiResult<_>>()?;
    Ok(axum::Json(list::envelope(&format!("{}List", S::TITLE), page.page, page.total, items)))
}

pub(super) async fn create<S: Served>(access: Access, write: Write<Json<Create<S>>>) -> ApiResult<Shown<S::Wire>> {
    write.conditions.no_version_yet()?;
    let body = &write.body.0;
    let project = access.authorize::<Project, Edit>(&project_of::<S>(body)?).await?;
    let reply = project.create_definition::<S>(new(body, &access)?, write.options()).await?;
    let definition = reply.state.borrow();
    let href = format!("{}/{}/{}", ambient_wire::BASE, S::Wire::PATH, definition.id);
    Ok(Shown::created(shown(definition)?, definition.version, href).by(reply.operation_id))
}

pub(super) async fn get<S: Served>(
    definition: Authorized<S::Entity, View>,
    Query(params): Query<VersionParams>,
) -> ApiResult<Shown<S::Wire>> {
    let then = match params.version {
        Some(version) => Some(definition.at_version(version).await?),
        None => None,
    };
    let definition = then.as_ref().unwrap_or(definition.get()).borrow();
    Ok(Shown::ok(shown(definition)?, definition.version))
}

pub(super) async fn patch<S: Served>(
    definition: Authorized<S::Entity, Edit>,
    write: Write<Json<Patch<S>>>,
) -> ApiResult<Shown<S::Wire>> {
    let access = definition.access();
    let change = change::<S>(definition.get().id(), &write.body.0, access)?;
    let reply = access.change_definition(&definition, change, write.options()).await?;
    let definition = reply.state.borrow();
    Ok(Shown::ok(shown(definition)?, definition.version).by(reply.operation_id))
}

pub(super) async fn delete<S: Served>(
    definition: Authorized<S::Entity, Edit>,
    write: Write<NoBody>,
) -> ApiResult<Response> {
    let reply = definition.access().delete_definition::<S>(&definition, write.options()).await?;
    deleted(&reply)
}
