//! One file per family of RPCs. A handler checks the request, names the run and says what changes; everything else is elsewhere.

mod activity_task;
mod cancel_terminate;
mod describe;
mod health;
mod history;
mod list;
mod operator;
mod query;
mod reset;
mod search_attributes;
mod signal;
pub(crate) mod start;
mod system;
mod task_queue;
mod update;
mod visibility;
mod workflow_task;

use prost::Message;
use temporalio_common::protos::temporal::api::{common::v1::WorkflowExecution, workflowservice::v1 as ws};
use tonic::Status;

use crate::{
    caller::Caller,
    change::Unchanged,
    engine::Engine,
    model::Target,
    proto::{self, decode},
};

/// The service that workers and clients use.
pub(crate) const WORKFLOW_SERVICE: &str = "temporal.api.workflowservice.v1.WorkflowService";

/// Longest wait of a long poll; clients give up after 70 s.
const LONG_POLL: std::time::Duration = std::time::Duration::from_secs(55);

/// Answers one call. Anything not listed is `Unimplemented`.
pub(crate) async fn call(engine: &Engine, caller: &Caller, name: &str, bytes: &[u8]) -> Result<Vec<u8>, Status> {
    macro_rules! table {
        ($($rpc:literal => $request:ident, $handler:path;)+) => {
            match name {
                $($rpc => {
                    let request: ws::$request = decode(name, bytes)?;
                    check_namespace(engine, &request.namespace)?;
                    // Boxed one by one: a single future for all calls would be as large as the largest, for every poll.
                    Ok(Box::pin($handler(engine, caller, request)).await?.encode_to_vec())
                })+
                "GetSystemInfo" => Ok(system::get_system_info().encode_to_vec()),
                "GetClusterInfo" => Ok(system::get_cluster_info().encode_to_vec()),
                "ListNamespaces" => Ok(system::list_namespaces(engine).encode_to_vec()),
                "GetSearchAttributes" => Ok(system::get_search_attributes(engine).await?.encode_to_vec()),
                other => Err(Status::unimplemented(format!("{other} is not supported by this engine"))),
            }
        };
    }
    table! {
        "PollWorkflowTaskQueue" => PollWorkflowTaskQueueRequest, workflow_task::poll;
        "RespondWorkflowTaskCompleted" => RespondWorkflowTaskCompletedRequest, workflow_task::respond_completed;
        "RespondWorkflowTaskFailed" => RespondWorkflowTaskFailedRequest, workflow_task::respond_failed;
        "PollActivityTaskQueue" => PollActivityTaskQueueRequest, activity_task::poll;
        "RespondActivityTaskCompleted" => RespondActivityTaskCompletedRequest, activity_task::respond_completed;
        "RespondActivityTaskFailed" => RespondActivityTaskFailedRequest, activity_task::respond_failed;
        "RespondActivityTaskCanceled" => RespondActivityTaskCanceledRequest, activity_task::respond_canceled;
        "RecordActivityTaskHeartbeat" => RecordActivityTaskHeartbeatRequest, activity_task::heartbeat;
        "RespondActivityTaskCompletedById" => RespondActivityTaskCompletedByIdRequest, activity_task::respond_completed_by_id;
        "RespondActivityTaskFailedById" => RespondActivityTaskFailedByIdRequest, activity_task::respond_failed_by_id;
        "RespondActivityTaskCanceledById" => RespondActivityTaskCanceledByIdRequest, activity_task::respond_canceled_by_id;
        "RecordActivityTaskHeartbeatById" => RecordActivityTaskHeartbeatByIdRequest, activity_task::heartbeat_by_id;
        "ResetStickyTaskQueue" => ResetStickyTaskQueueRequest, workflow_task::reset_sticky;
        "StartWorkflowExecution" => StartWorkflowExecutionRequest, start::start;
        "SignalWithStartWorkflowExecution" => SignalWithStartWorkflowExecutionRequest, signal::signal_with_start;
        "SignalWorkflowExecution" => SignalWorkflowExecutionRequest, signal::signal;
        "RequestCancelWorkflowExecution" => RequestCancelWorkflowExecutionRequest, cancel_terminate::request_cancel;
        "TerminateWorkflowExecution" => TerminateWorkflowExecutionRequest, cancel_terminate::terminate;
        "ResetWorkflowExecution" => ResetWorkflowExecutionRequest, reset::reset;
        "UpdateWorkflowExecution" => UpdateWorkflowExecutionRequest, update::update;
        "PollWorkflowExecutionUpdate" => PollWorkflowExecutionUpdateRequest, update::poll;
        "QueryWorkflow" => QueryWorkflowRequest, query::query;
        "RespondQueryTaskCompleted" => RespondQueryTaskCompletedRequest, query::respond;
        "GetWorkflowExecutionHistory" => GetWorkflowExecutionHistoryRequest, history::get;
        "GetWorkflowExecutionHistoryReverse" => GetWorkflowExecutionHistoryReverseRequest, history::get_reverse;
        "DescribeWorkflowExecution" => DescribeWorkflowExecutionRequest, describe::describe;
        "ListWorkflowExecutions" => ListWorkflowExecutionsRequest, list::list;
        "ScanWorkflowExecutions" => ScanWorkflowExecutionsRequest, list::scan;
        "ListOpenWorkflowExecutions" => ListOpenWorkflowExecutionsRequest, list::open;
        "ListClosedWorkflowExecutions" => ListClosedWorkflowExecutionsRequest, list::closed;
        "CountWorkflowExecutions" => CountWorkflowExecutionsRequest, list::count;
        "DescribeTaskQueue" => DescribeTaskQueueRequest, task_queue::describe;
        "ListTaskQueuePartitions" => ListTaskQueuePartitionsRequest, task_queue::partitions;
        "DescribeNamespace" => DescribeNamespaceRequest, system::describe_namespace;
        "ShutdownWorker" => ShutdownWorkerRequest, system::shutdown_worker;
        "RecordWorkerHeartbeat" => RecordWorkerHeartbeatRequest, system::record_worker_heartbeat;
    }
}

/// Answers a call to another service: what operators use.
pub(crate) async fn other_service(
    engine: &Engine,
    service: &str,
    name: &str,
    request: &[u8],
) -> Result<Vec<u8>, Status> {
    match (service, name) {
        (health::SERVICE, "Check") => health::check(engine, decode(name, request)?).map(|r| r.encode_to_vec()),
        (operator::SERVICE, _) => operator::call(engine, name, request).await,
        _ => Err(Status::unimplemented(format!("{service}/{name} is not supported by this engine"))),
    }
}

fn check_namespace(engine: &Engine, namespace: &str) -> Result<(), Status> {
    if namespace.is_empty() {
        return Err(Status::invalid_argument("namespace is not set"));
    }
    if namespace != engine.inner.options.namespace {
        return Err(Status::not_found(format!("namespace {namespace:?} is not found")));
    }
    Ok(())
}

/// The open run a request names.
fn target(execution: Option<&WorkflowExecution>) -> Result<Target, Status> {
    let execution = execution.ok_or_else(|| Status::invalid_argument("execution is not set"))?;
    proto::name(&execution.workflow_id, "workflow_id")?;
    Ok(Target::new(&execution.workflow_id, proto::run_id(&execution.run_id)?))
}

/// The run a reading request names, open or closed.
async fn resolve(engine: &Engine, execution: Option<&WorkflowExecution>) -> Result<uuid::Uuid, Status> {
    let execution = execution.ok_or_else(|| Status::invalid_argument("execution is not set"))?;
    proto::name(&execution.workflow_id, "workflow_id")?;
    engine.inner.store.resolve(&execution.workflow_id, proto::run_id(&execution.run_id)?).await
}

/// Whether there is such a run, open or closed.
async fn exists(engine: &Engine, target: &Target) -> Result<(), Status> {
    let (workflow_id, run) = match target {
        Target::Current(workflow) => (workflow.as_str(), None),
        Target::Exact(workflow, run) => (workflow.as_str(), Some(*run)),
        Target::Run(run) => ("", Some(*run)),
    };
    engine.inner.store.resolve(workflow_id, run).await.map(drop)
}

/// Why a request did not change its run.
async fn refused(engine: &Engine, target: &Target, unchanged: Unchanged) -> Status {
    match unchanged {
        Unchanged::NotOpen => match exists(engine, target).await {
            Ok(()) => Status::not_found("workflow execution already completed"),
            Err(status) => status,
        },
        other => other.or_not_found(),
    }
}
