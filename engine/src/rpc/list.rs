//! Listing and counting runs.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::QueryBuilder;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    CountWorkflowExecutionsRequest, CountWorkflowExecutionsResponse, ListWorkflowExecutionsRequest,
    ListWorkflowExecutionsResponse,
};
use tonic::Status;
use uuid::Uuid;

use super::{
    describe::{COLUMNS, Execution},
    visibility_query::VisibilityQuery,
};
use crate::{engine::Engine, proto::db, service::Caller};

const DEFAULT_PAGE: i64 = 100;
const MAX_PAGE: i64 = 1000;

/// The last row of the page before.
#[derive(Serialize, Deserialize)]
struct Cursor {
    start_time: DateTime<Utc>,
    run_id: Uuid,
}

pub(super) async fn list(
    engine: &Engine,
    _caller: &Caller,
    request: ListWorkflowExecutionsRequest,
) -> Result<ListWorkflowExecutionsResponse, Status> {
    let query = VisibilityQuery::parse(&request.query)?;
    let size = match i64::from(request.page_size) {
        0 => DEFAULT_PAGE,
        n if n < 0 => return Err(Status::invalid_argument("page_size must not be negative")),
        n => n.min(MAX_PAGE),
    };
    let mut sql = QueryBuilder::new("select ");
    sql.push(COLUMNS);
    query.push_where(&mut sql);
    let (past, direction) = if query.ascending { (">", "asc") } else { ("<", "desc") };
    if !request.next_page_token.is_empty() {
        let cursor: Cursor = serde_json::from_slice(&request.next_page_token)
            .map_err(|_| Status::invalid_argument("next_page_token cannot be read"))?;
        sql.push(" and (e.start_time, e.run_id) ").push(past).push(" (").push_bind(cursor.start_time);
        sql.push(", ").push_bind(cursor.run_id).push(")");
    }
    sql.push(format_args!(" order by e.start_time {direction}, e.run_id {direction} limit ")).push_bind(size + 1);
    let mut rows: Vec<Execution> = sql.build_query_as().fetch_all(&engine.inner.store.pool).await.map_err(db)?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let more = rows.len() > size;
    rows.truncate(size);
    let next = rows.last().filter(|_| more).map(|r| Cursor { start_time: r.start_time, run_id: r.run_id });
    let next_page_token = match next {
        Some(cursor) => serde_json::to_vec(&cursor).map_err(|e| Status::internal(e.to_string()))?,
        None => Vec::new(),
    };
    let executions = rows.into_iter().map(Execution::info).collect::<Result<_, _>>()?;
    Ok(ListWorkflowExecutionsResponse { executions, next_page_token })
}

pub(super) async fn count(
    engine: &Engine,
    _caller: &Caller,
    request: CountWorkflowExecutionsRequest,
) -> Result<CountWorkflowExecutionsResponse, Status> {
    let query = VisibilityQuery::parse(&request.query)?;
    let mut sql = QueryBuilder::new("select count(*) from engine.executions e");
    query.push_where(&mut sql);
    let count = sql.build_query_scalar().fetch_one(&engine.inner.store.pool).await.map_err(db)?;
    Ok(CountWorkflowExecutionsResponse { count, ..Default::default() })
}
