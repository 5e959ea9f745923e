//! What the service is, and workers coming and going.

use std::{collections::HashMap, time::Duration};

use temporalio_common::protos::temporal::api::{
    enums::v1::{ArchivalState, NamespaceState},
    namespace::v1::{NamespaceConfig, NamespaceInfo, namespace_info},
    replication::v1::{ClusterReplicationConfig, NamespaceReplicationConfig},
    version::v1::{ReleaseInfo, VersionInfo},
    workflowservice::v1::{
        DescribeNamespaceRequest, DescribeNamespaceResponse, GetClusterInfoResponse, GetSearchAttributesResponse,
        GetSystemInfoResponse, ListNamespacesResponse, RecordWorkerHeartbeatRequest, RecordWorkerHeartbeatResponse,
        ShutdownWorkerRequest, ShutdownWorkerResponse, get_system_info_response::Capabilities,
    },
};
use tonic::Status;
use uuid::Uuid;

use crate::{
    caller::Caller,
    change::Decision,
    engine::Engine,
    history::commands::Needs,
    model::{Target, TaskState},
    proto::{self, db},
    search_attributes,
};

/// Identifies the namespace where an id is required: there is one, so its id is always the same.
const NAMESPACE_ID: Uuid = Uuid::from_u128(0x616d_6269_656e_7400_8000_0000_0000_0001);
/// Name of the cluster and its stores, for people.
const CLUSTER: &str = "ambient";

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
            upsert_memo: true,
            eager_workflow_start: true,
            count_group_by_execution_status: true,
            ..Default::default()
        }),
    }
}

pub(super) async fn describe_namespace(
    engine: &Engine,
    _caller: &Caller,
    _request: DescribeNamespaceRequest,
) -> Result<DescribeNamespaceResponse, Status> {
    Ok(namespace(engine))
}

fn namespace(engine: &Engine) -> DescribeNamespaceResponse {
    let capabilities = namespace_info::Capabilities {
        eager_workflow_start: true,
        sync_update: true,
        async_update: true,
        ..Default::default()
    };
    let info = NamespaceInfo {
        name: engine.inner.options.namespace.clone(),
        id: NAMESPACE_ID.to_string(),
        state: NamespaceState::Registered as i32,
        description: "embedded engine".to_owned(),
        capabilities: Some(capabilities),
        ..Default::default()
    };
    // 0 is "forever", which is not how the field's 0 would be shown.
    let kept = Some(engine.inner.options.retention).filter(|kept| *kept > Duration::ZERO);
    let config = NamespaceConfig {
        workflow_execution_retention_ttl: kept
            .map(|kept| proto::duration(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX))),
        history_archival_state: ArchivalState::Disabled as i32,
        visibility_archival_state: ArchivalState::Disabled as i32,
        ..Default::default()
    };
    let replication = NamespaceReplicationConfig {
        active_cluster_name: CLUSTER.to_owned(),
        clusters: vec![ClusterReplicationConfig { cluster_name: CLUSTER.to_owned(), ..Default::default() }],
        ..Default::default()
    };
    DescribeNamespaceResponse {
        namespace_info: Some(info),
        config: Some(config),
        replication_config: Some(replication),
        ..Default::default()
    }
}

pub(super) fn list_namespaces(engine: &Engine) -> ListNamespacesResponse {
    ListNamespacesResponse { namespaces: vec![namespace(engine)], ..Default::default() }
}

pub(super) fn get_cluster_info() -> GetClusterInfoResponse {
    let store = || "postgresql".to_owned();
    let current = ReleaseInfo { version: SERVER_VERSION.to_owned(), ..Default::default() };
    GetClusterInfoResponse {
        server_version: SERVER_VERSION.to_owned(),
        cluster_id: NAMESPACE_ID.to_string(),
        cluster_name: CLUSTER.to_owned(),
        version_info: Some(VersionInfo { current: Some(current), ..Default::default() }),
        history_shard_count: 1,
        persistence_store: store(),
        visibility_store: store(),
        ..Default::default()
    }
}

/// Names and types, as older clients ask for them.
pub(super) async fn get_search_attributes(engine: &Engine) -> Result<GetSearchAttributesResponse, Status> {
    let custom = engine.custom_attributes().await?;
    let built_in = search_attributes::built_in().map(|(name, kind)| (name.to_owned(), kind));
    let keys: HashMap<String, i32> = built_in.chain(custom).map(|(name, kind)| (name, kind as i32)).collect();
    Ok(GetSearchAttributesResponse { keys })
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
            // The sticky timeout will handle it.
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
