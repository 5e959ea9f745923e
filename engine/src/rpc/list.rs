//! Listing and counting runs.

use serde::{Deserialize, Serialize};
use sqlx::QueryBuilder;
use temporalio_common::protos::temporal::api::{
    common::v1::Payload,
    workflow::v1::WorkflowExecutionInfo,
    workflowservice::v1::{
        CountWorkflowExecutionsRequest, CountWorkflowExecutionsResponse, ListClosedWorkflowExecutionsRequest,
        ListClosedWorkflowExecutionsResponse, ListOpenWorkflowExecutionsRequest, ListOpenWorkflowExecutionsResponse,
        ListWorkflowExecutionsRequest, ListWorkflowExecutionsResponse, ScanWorkflowExecutionsRequest,
        ScanWorkflowExecutionsResponse, count_workflow_executions_response::AggregationGroup,
        list_closed_workflow_executions_request::Filters as ClosedFilters,
        list_open_workflow_executions_request::Filters as OpenFilters,
    },
};
use tonic::Status;
use uuid::Uuid;

use super::{
    describe::{COLUMNS, Execution},
    visibility::{Only, Query, TABLES, status_name},
};
use crate::{caller::Caller, engine::Engine, proto::db};

const DEFAULT_PAGE: i64 = 100;
const MAX_PAGE: i64 = 1000;

/// The last row of the previous page: what the list is ordered by, as text, and the run.
#[derive(Serialize, Deserialize)]
struct Cursor {
    ordered_by: String,
    value: String,
    run_id: Uuid,
}

/// A row with its ordering value.
#[derive(sqlx::FromRow)]
struct Listed {
    #[sqlx(flatten)]
    execution: Execution,
    position: String,
}

pub(super) async fn list(
    engine: &Engine,
    _caller: &Caller,
    request: ListWorkflowExecutionsRequest,
) -> Result<ListWorkflowExecutionsResponse, Status> {
    let query = Query::read(engine, &request.query).await?;
    let (executions, next_page_token) =
        page(engine, &query, ("page_size", request.page_size), &request.next_page_token).await?;
    Ok(ListWorkflowExecutionsResponse { executions, next_page_token })
}

/// The same as [`list`], under its older name.
pub(super) async fn scan(
    engine: &Engine,
    caller: &Caller,
    request: ScanWorkflowExecutionsRequest,
) -> Result<ScanWorkflowExecutionsResponse, Status> {
    let ScanWorkflowExecutionsRequest { namespace, page_size, next_page_token, query } = request;
    let list = ListWorkflowExecutionsRequest { namespace, page_size, next_page_token, query };
    let ListWorkflowExecutionsResponse { executions, next_page_token } = self::list(engine, caller, list).await?;
    Ok(ScanWorkflowExecutionsResponse { executions, next_page_token })
}

/// A filter by execution uses only the workflow id, as on Temporal's servers.
pub(super) async fn open(
    engine: &Engine,
    _caller: &Caller,
    request: ListOpenWorkflowExecutionsRequest,
) -> Result<ListOpenWorkflowExecutionsResponse, Status> {
    let only = request.filters.map(|filter| match filter {
        OpenFilters::ExecutionFilter(filter) => Only::WorkflowId(filter.workflow_id),
        OpenFilters::TypeFilter(filter) => Only::WorkflowType(filter.name),
    });
    let query = Query::open(request.start_time_filter, only)?;
    let (executions, next_page_token) =
        page(engine, &query, ("maximum_page_size", request.maximum_page_size), &request.next_page_token).await?;
    Ok(ListOpenWorkflowExecutionsResponse { executions, next_page_token })
}

/// Like [`open`].
pub(super) async fn closed(
    engine: &Engine,
    _caller: &Caller,
    request: ListClosedWorkflowExecutionsRequest,
) -> Result<ListClosedWorkflowExecutionsResponse, Status> {
    let only = request.filters.map(|filter| match filter {
        ClosedFilters::ExecutionFilter(filter) => Only::WorkflowId(filter.workflow_id),
        ClosedFilters::TypeFilter(filter) => Only::WorkflowType(filter.name),
        ClosedFilters::StatusFilter(filter) => Only::Status(filter.status),
    });
    let query = Query::closed(request.start_time_filter, only)?;
    let (executions, next_page_token) =
        page(engine, &query, ("maximum_page_size", request.maximum_page_size), &request.next_page_token).await?;
    Ok(ListClosedWorkflowExecutionsResponse { executions, next_page_token })
}

/// One page of a query's results, and the token of the next one; empty if there is none. `size` comes with its field's name.
async fn page(
    engine: &Engine,
    query: &Query,
    (field, size): (&str, i32),
    token: &[u8],
) -> Result<(Vec<WorkflowExecutionInfo>, Vec<u8>), Status> {
    let order = query.order()?;
    let size = match i64::from(size) {
        0 => DEFAULT_PAGE,
        n if n < 0 => return Err(Status::invalid_argument(format!("{field} must not be negative"))),
        n => n.min(MAX_PAGE),
    };
    let mut sql = QueryBuilder::new("select ");
    sql.push(order.expression).push("::text as position, ").push(COLUMNS);
    query.push_where(&mut sql)?;
    let (past, direction) = if order.ascending { (">", "asc") } else { ("<", "desc") };
    if !token.is_empty() {
        let cursor = cursor(token, order.expression)?;
        sql.push(format_args!(" and ({}, e.run_id) {past} (", order.expression)).push_bind(cursor.value);
        sql.push("::").push(order.kind).push(", ").push_bind(cursor.run_id).push(")");
    }
    let by = order.expression;
    sql.push(format_args!(" order by {by} {direction}, e.run_id {direction} limit ")).push_bind(size + 1);
    let mut rows: Vec<Listed> = sql.build_query_as().fetch_all(&engine.inner.store.pool).await.map_err(db)?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let more = rows.len() > size;
    rows.truncate(size);
    let next_page_token = match rows.last().filter(|_| more) {
        Some(Listed { execution, position }) => {
            let cursor = Cursor { ordered_by: by.to_owned(), value: position.clone(), run_id: execution.run_id };
            serde_json::to_vec(&cursor).map_err(|e| Status::internal(e.to_string()))?
        }
        None => Vec::new(),
    };
    let mut executions = Vec::with_capacity(rows.len());
    for row in rows {
        let mut info = row.execution.info()?;
        engine.with_types(info.search_attributes.as_mut()).await?;
        executions.push(info);
    }
    Ok((executions, next_page_token))
}

/// A token issued by this list. Its value goes back into the database as the type it came from.
fn cursor(token: &[u8], ordered_by: &str) -> Result<Cursor, Status> {
    let refused = || Status::invalid_argument("next_page_token cannot be read");
    let cursor: Cursor = serde_json::from_slice(token).map_err(|_| refused())?;
    let legible = match ordered_by {
        "e.workflow_id" | "e.workflow_type" => !cursor.value.contains('\0'),
        by if by.contains("last_event_id") => cursor.value.parse::<i64>().is_ok(),
        _ => cursor.value == "infinity" || is_timestamp(&cursor.value),
    };
    if cursor.ordered_by != ordered_by || !legible {
        return Err(refused());
    }
    Ok(cursor)
}

/// As PostgreSQL writes one.
fn is_timestamp(text: &str) -> bool {
    let formats = ["%Y-%m-%d %H:%M:%S%.f%#z"];
    formats.iter().any(|format| chrono::DateTime::parse_from_str(text, format).is_ok())
}

pub(super) async fn count(
    engine: &Engine,
    _caller: &Caller,
    request: CountWorkflowExecutionsRequest,
) -> Result<CountWorkflowExecutionsResponse, Status> {
    let query = Query::read(engine, &request.query).await?;
    let pool = &engine.inner.store.pool;
    if !query.grouped()? {
        let mut sql = QueryBuilder::new("select count(*)");
        sql.push(TABLES);
        query.push_where(&mut sql)?;
        let count = sql.build_query_scalar().fetch_one(pool).await.map_err(db)?;
        return Ok(CountWorkflowExecutionsResponse { count, ..Default::default() });
    }
    let mut sql = QueryBuilder::new("select e.status, count(*)");
    sql.push(TABLES);
    query.push_where(&mut sql)?;
    sql.push(" group by e.status order by e.status");
    let groups: Vec<(i16, i64)> = sql.build_query_as().fetch_all(pool).await.map_err(db)?;
    let group = |(status, count): &(i16, i64)| AggregationGroup {
        group_values: vec![keyword(status_name(*status))],
        count: *count,
    };
    Ok(CountWorkflowExecutionsResponse {
        count: groups.iter().map(|(_, count)| count).sum(),
        groups: groups.iter().map(group).collect(),
    })
}

/// A search attribute's value, as clients read it.
fn keyword(value: &str) -> Payload {
    let metadata = [("encoding", "json/plain"), ("type", "Keyword")];
    Payload {
        metadata: metadata.into_iter().map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec())).collect(),
        data: format!("\"{value}\"").into_bytes(),
        ..Default::default()
    }
}
