//! `/workflow_executions`: background work. Ids contain slashes, percent-encoded in paths.

use ambient_wire::{
    api::List,
    execution::{EndRequest, HistoryEvent, SignalRequest, WorkflowExecution},
};
use ambient_workflows::{ENTITY_WORKFLOWS, ExecutionFilter, PLATFORM_WORKFLOWS};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Access, Admin, Authorized, Execution, View},
    error::{ApiError, ApiResult},
    extract::{Act, OpaqueJson, OrDefault, Query},
    given, list,
    responses::{Acting, Reading},
};

const MAX_SIZE: i64 = 1_000;
/// Longest name of a signal, characters.
const MAX_SIGNAL: usize = 200;
/// Values of the filter `status`. Executions not dispatched yet are in no list.
pub(crate) const STATUSES: [&str; 7] =
    ["Running", "Completed", "Failed", "Canceled", "Terminated", "ContinuedAsNew", "TimedOut"];

/// Which executions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Page number, from 1.
    #[param(minimum = 1)]
    page: Option<i64>,
    /// Items per page; 0 = only the total; 100 when absent.
    #[param(minimum = 0, maximum = 1000)]
    size: Option<i64>,
    /// Workflow type, such as `session-start`.
    workflow: Option<String>,
    /// `Running`, `Completed`, `Failed`, `Canceled`, `Terminated`, `ContinuedAsNew` or `TimedOut`.
    status: Option<String>,
    /// Only those of this session.
    session_id: Option<String>,
    /// Only those of this project (id or name) and its sessions.
    project_id: Option<String>,
}

/// Executions for the sessions and projects the caller may see, newest first.
#[utoipa::path(get, path = "/workflow_executions", operation_id = "listWorkflowExecutions", tag = "workflow_executions", params(ListParams),
    responses((status = 200, description = "A page of executions", body = List<WorkflowExecution>), Reading))]
pub(super) async fn list(
    access: Access,
    Query(params): Query<ListParams>,
) -> ApiResult<axum::Json<List<WorkflowExecution>>> {
    let (page, size) = list::paging(params.page, params.size, MAX_SIZE)?;
    let status = params.status.map(known_status).transpose()?;
    let workflow = params.workflow.map(known_workflow).transpose()?;
    let project_id = access.project_id(params.project_id.as_deref()).await?;
    let entity_id = access.session_id(params.session_id.as_deref()).await?;
    let filter = ExecutionFilter { workflow, status, entity_id, project_ids: None, page, size };
    let (items, total) = access.executions(filter, project_id).await?;
    Ok(axum::Json(list::envelope("WorkflowExecutionList", page, total, items)))
}

/// An execution with its pending activities. `PendingDispatch` while its start is pending.
#[utoipa::path(get, path = "/workflow_executions/{execution_id}", operation_id = "getWorkflowExecution", tag = "workflow_executions",
    params(("execution_id" = String, Path, description = "Workflow id, percent-encoded")),
    responses((status = 200, description = "The execution", body = WorkflowExecution), Reading))]
pub(super) async fn get(execution: Authorized<Execution, View>) -> ApiResult<axum::Json<WorkflowExecution>> {
    Ok(axum::Json(execution.describe().await?))
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParams {
    /// Events after this one.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// Items per page; 1000 when absent.
    #[param(minimum = 1, maximum = 1000)]
    size: Option<i64>,
}

/// History of the newest run. `next` is the `after` of the next page.
#[utoipa::path(get, path = "/workflow_executions/{execution_id}/history", operation_id = "getWorkflowExecutionHistory", tag = "workflow_executions",
    params(("execution_id" = String, Path, description = "Workflow id, percent-encoded"), HistoryParams),
    responses((status = 200, description = "A page of events", body = List<HistoryEvent>), Reading))]
pub(super) async fn history(
    execution: Authorized<Execution, View>,
    Query(params): Query<HistoryParams>,
) -> ApiResult<axum::Json<List<HistoryEvent>>> {
    let (size, after) = (params.size.unwrap_or(MAX_SIZE), params.after.unwrap_or(0));
    if !(1..=MAX_SIZE).contains(&size) || after < 0 {
        let field = if after < 0 { "after" } else { "size" };
        return Err(ApiError::invalid(
            field,
            format!("must be {} or more, size at most {MAX_SIZE}", i32::from(after >= 0)),
        ));
    }
    let total = execution.describe().await?.history_length;
    let items = execution.history(after, size).await?;
    let next = items.last().filter(|last| last.event_id < total).map(|last| last.event_id.to_string());
    Ok(axum::Json(list::cursored("HistoryEventList", total, items, next)))
}

/// Signals an execution.
#[utoipa::path(post, path = "/workflow_executions/{execution_id}/signal", operation_id = "signalWorkflowExecution", tag = "workflow_executions",
    request_body = SignalRequest,
    params(("execution_id" = String, Path, description = "Workflow id, percent-encoded")),
    responses((status = 202, description = "Signalled", body = WorkflowExecution), Acting))]
pub(super) async fn signal(
    execution: Authorized<Execution, Admin>,
    Act(OpaqueJson(request)): Act<OpaqueJson<SignalRequest>>,
) -> ApiResult<(StatusCode, axum::Json<WorkflowExecution>)> {
    let SignalRequest { signal, input } = &request;
    given::name("signal", signal, MAX_SIGNAL)?;
    execution.signal(signal, input).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(execution.describe().await?)))
}

/// Asks an execution to cancel itself.
#[utoipa::path(post, path = "/workflow_executions/{execution_id}/cancel", operation_id = "cancelWorkflowExecution", tag = "workflow_executions",
    request_body = Option<EndRequest>,
    params(("execution_id" = String, Path, description = "Workflow id, percent-encoded")),
    responses((status = 202, description = "Cancellation was requested", body = WorkflowExecution), Acting))]
pub(super) async fn cancel(
    execution: Authorized<Execution, Admin>,
    Act(OrDefault(request)): Act<OrDefault<EndRequest>>,
) -> ApiResult<(StatusCode, axum::Json<WorkflowExecution>)> {
    given::text("reason", &request.reason)?;
    execution.cancel(&request.reason).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(execution.describe().await?)))
}

/// Ends an execution at once, without giving it a chance to react.
#[utoipa::path(post, path = "/workflow_executions/{execution_id}/terminate", operation_id = "terminateWorkflowExecution", tag = "workflow_executions",
    request_body = Option<EndRequest>,
    params(("execution_id" = String, Path, description = "Workflow id, percent-encoded")),
    responses((status = 200, description = "Ended", body = WorkflowExecution), Acting))]
pub(super) async fn terminate(
    execution: Authorized<Execution, Admin>,
    Act(OrDefault(request)): Act<OrDefault<EndRequest>>,
) -> ApiResult<axum::Json<WorkflowExecution>> {
    given::text("reason", &request.reason)?;
    execution.terminate(&request.reason).await?;
    Ok(axum::Json(execution.describe().await?))
}

fn known_workflow(workflow: String) -> ApiResult<String> {
    let known = || ENTITY_WORKFLOWS.into_iter().chain(PLATFORM_WORKFLOWS);
    if known().any(|name| name == workflow) {
        return Ok(workflow);
    }
    let names: Vec<_> = known().collect();
    Err(ApiError::invalid("workflow", format!("must be one of {}", names.join(", "))))
}

fn known_status(status: String) -> ApiResult<String> {
    if STATUSES.contains(&status.as_str()) {
        return Ok(status);
    }
    Err(ApiError::invalid("status", format!("must be one of {}", STATUSES.join(", "))))
}
