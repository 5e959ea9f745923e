//! What the service is, and workers coming and going.

use temporalio_common::protos::temporal::api::{
    enums::v1::NamespaceState,
    namespace::v1::{NamespaceConfig, NamespaceInfo},
    workflowservice::v1::{
        DescribeNamespaceRequest, DescribeNamespaceResponse, GetSystemInfoResponse, RecordWorkerHeartbeatRequest,
        RecordWorkerHeartbeatResponse, ShutdownWorkerRequest, ShutdownWorkerResponse,
        get_system_info_response::Capabilities,
    },
};
use tonic::Status;
use uuid::Uuid;

use crate::{
    engine::{Decision, Engine},
    history::commands::Needs,
    proto::db,
    service::Caller,
    store::{Target, TaskState},
};

/// The Temporal server version whose behaviour is the model.
const SERVER_VERSION: &str = "1.29.1";

pub(super) fn get_system_info() -> GetSystemInfoResponse {
    GetSystemInfoResponse {
        server_version: SERVER_VERSION.to_owned(),
        capabilities: Some(Capabilities {
            signal_and_query_header: true,
            internal_error_differentiation: true,
            activity_failure_include_heartbeat: true,
            encoded_failure_attributes: true,
            // Without it workers record no flags and the replayer's type checks stay silent.
            sdk_metadata: true,
            ..Default::default()
        }),
    }
}

pub(super) async fn describe_namespace(
    engine: &Engine,
    _caller: &Caller,
    _request: DescribeNamespaceRequest,
) -> Result<DescribeNamespaceResponse, Status> {
    let info = NamespaceInfo {
        name: engine.inner.options.namespace.clone(),
        state: NamespaceState::Registered as i32,
        description: "embedded engine".to_owned(),
        ..Default::default()
    };
    Ok(DescribeNamespaceResponse {
        namespace_info: Some(info),
        config: Some(NamespaceConfig::default()),
        ..Default::default()
    })
}

/// A worker ends: tasks on its sticky queue go to the normal one at once.
pub(super) async fn shutdown_worker(
    engine: &Engine,
    _caller: &Caller,
    request: ShutdownWorkerRequest,
) -> Result<ShutdownWorkerResponse, Status> {
    let queue = request.sticky_task_queue;
    if queue.is_empty() {
        return Ok(ShutdownWorkerResponse::default());
    }
    let ready = engine.inner.matching.retire(&queue);
    engine.take_back(ready);
    let waiting: Vec<Uuid> =
        sqlx::query_scalar("select run_id from engine.runs where wft_state = 1 and wft_queue = $1")
            .bind(&queue)
            .fetch_all(&engine.inner.store.pool)
            .await
            .map_err(db)?;
    for run in waiting {
        let rerouted = engine
            .change(&Target::Run(run), Needs::default(), |t, _| {
                if t.run.wft_state != TaskState::Scheduled || t.run.wft_queue != queue {
                    return Ok(Decision::Keep(()));
                }
                t.reroute_task();
                Ok(Decision::Write(()))
            })
            .await;
        if let Err(unchanged) = rerouted {
            // The sticky timeout will do it.
            tracing::debug!(?unchanged, %run, "task not rerouted");
        }
    }
    Ok(ShutdownWorkerResponse::default())
}

pub(super) async fn record_worker_heartbeat(
    _engine: &Engine,
    _caller: &Caller,
    _request: RecordWorkerHeartbeatRequest,
) -> Result<RecordWorkerHeartbeatResponse, Status> {
    Ok(RecordWorkerHeartbeatResponse::default())
}
