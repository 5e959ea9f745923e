//! `/operations`: accepted commands and facts, newest first.

use ambient_persistence::{Operation, OperationFilter, Order};
use ambient_wire::{api::List, operation::Operation as Wire};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Access, Authorized, View},
    error::{ApiError, ApiResult},
    extract::{Query, date_time},
    kinds, list, representation,
    responses::Reading,
};

const MAX_SIZE: i64 = 1_000;

/// Which operations.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Opaque cursor: the previous page's `next`.
    after: Option<String>,
    /// Items per page; 0 = only the total; 100 when absent.
    #[param(minimum = 0, maximum = 1000)]
    size: Option<i64>,
    /// `desc` (newest first, the default) or `asc`.
    order: Option<String>,
    /// `session`, `project`, `agent`, …; or a kind kept in another one's stream, such as `permission` in its project's.
    entity_kind: Option<String>,
    /// Entity's id.
    entity_id: Option<String>,
    /// Project, by id or name.
    project_id: Option<String>,
    /// Principal that requested it.
    principal: Option<String>,
    /// Command.
    command: Option<String>,
    /// Correlation id of the request.
    correlation_id: Option<String>,
    /// At or after.
    #[serde(default, deserialize_with = "date_time")]
    since: Option<DateTime<Utc>>,
    /// Before.
    #[serde(default, deserialize_with = "date_time")]
    until: Option<DateTime<Utc>>,
}

/// Operations of the projects in which the caller has a role. This list is paged by cursor: `next` is the `after` of the next page, and
/// `page` is always 1.
#[utoipa::path(get, path = "/operations", operation_id = "listOperations", tag = "operations", params(ListParams),
    responses((status = 200, description = "A page of operations", body = List<Wire>), Reading))]
pub(super) async fn list(access: Access, Query(params): Query<ListParams>) -> ApiResult<axum::Json<List<Wire>>> {
    let (_, size) = list::paging(None, params.size, MAX_SIZE)?;
    let order = order(params.order.as_deref())?;
    let after = params.after.clone();
    let project_id = access.project_id(params.project_id.as_deref()).await?;
    let (page, total) = access.operations(&params.filter(project_id)?, order, after.as_deref(), size).await?;
    let items: Vec<_> = page.items.into_iter().map(representation::operation).collect();
    Ok(axum::Json(list::cursored("OperationList", total, items, page.next)))
}

/// An operation.
#[utoipa::path(get, path = "/operations/{operation_id}", operation_id = "getOperation", tag = "operations",
    params(("operation_id" = String, Path, description = "Operation")),
    responses((status = 200, description = "The operation", body = Wire), Reading))]
pub(super) async fn get(operation: Authorized<Operation, View>) -> axum::Json<Wire> {
    axum::Json(representation::operation(operation.get().clone()))
}

impl ListParams {
    fn filter(self, project_id: Option<String>) -> ApiResult<OperationFilter> {
        let mut filter = OperationFilter {
            entity_id: self.entity_id,
            project_id,
            principal: self.principal,
            command: self.command,
            correlation_id: self.correlation_id,
            since: self.since,
            until: self.until,
            ..OperationFilter::default()
        };
        kinds::narrow(&mut filter, self.entity_kind.as_deref())?;
        Ok(filter)
    }
}

fn order(text: Option<&str>) -> ApiResult<Order> {
    match text {
        None | Some("desc") => Ok(Order::Descending),
        Some("asc") => Ok(Order::Ascending),
        Some(_) => Err(ApiError::invalid("order", "must be asc or desc")),
    }
}
