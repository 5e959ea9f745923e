//! Describing task queues: who polls, what waits.

use std::collections::HashMap;

use temporalio_common::protos::temporal::api::{
    enums::v1::{BuildIdTaskReachability, DescribeTaskQueueMode, TaskQueueKind, TaskQueueType},
    taskqueue::v1::{
        PollerInfo, TaskIdBlock, TaskQueuePartitionMetadata, TaskQueueStats, TaskQueueStatus, TaskQueueTypeInfo,
        TaskQueueVersionInfo,
    },
    workflowservice::v1::{
        DescribeTaskQueueRequest, DescribeTaskQueueResponse, ListTaskQueuePartitionsRequest,
        ListTaskQueuePartitionsResponse,
    },
};
use tonic::Status;

use crate::{
    caller::Caller,
    engine::Engine,
    matching::Kind,
    proto::{self, db},
};

/// What a poller without a limit is reported to take, as on Temporal's servers.
const UNLIMITED_PER_SECOND: f64 = 100_000.0;

#[allow(deprecated, reason = "the command line still asks in the older ways")]
pub(super) async fn describe(
    engine: &Engine,
    _caller: &Caller,
    request: DescribeTaskQueueRequest,
) -> Result<DescribeTaskQueueResponse, Status> {
    let queue = request.task_queue.clone().unwrap_or_default();
    proto::name(&queue.name, "task_queue")?;
    if request.api_mode() == DescribeTaskQueueMode::Enhanced {
        return enhanced(engine, &queue.name, &request).await;
    }
    let kind = match request.task_queue_type() {
        TaskQueueType::Unspecified | TaskQueueType::Workflow => Kind::Workflow,
        TaskQueueType::Activity => Kind::Activity,
        other => return Err(Status::unimplemented(format!("task queues of type {other:?} are not supported"))),
    };
    let stats = stats(engine, kind, &queue.name).await?;
    let status = TaskQueueStatus {
        backlog_count_hint: stats.approximate_backlog_count,
        rate_per_second: UNLIMITED_PER_SECOND,
        task_id_block: Some(TaskIdBlock::default()),
        ..Default::default()
    };
    Ok(DescribeTaskQueueResponse {
        pollers: pollers(engine, kind, &queue.name).await?,
        stats: request.report_stats.then_some(stats),
        // One priority: the others are not distinguished.
        stats_by_priority_key: if request.report_stats { HashMap::from([(3, stats)]) } else { HashMap::new() },
        task_queue_status: request.include_task_queue_status.then_some(status),
        ..Default::default()
    })
}

/// By build id and task type. There is one build id here: none.
#[allow(deprecated, reason = "the command line still asks in the older ways")]
async fn enhanced(
    engine: &Engine,
    queue: &str,
    request: &DescribeTaskQueueRequest,
) -> Result<DescribeTaskQueueResponse, Status> {
    if let Some(build_id) = request.versions.as_ref().and_then(|v| v.build_ids.first()) {
        return Err(Status::unimplemented(format!(
            "versions: build id {build_id:?}: worker versioning is not supported"
        )));
    }
    let wanted: Vec<i32> = if request.task_queue_types.is_empty() {
        vec![TaskQueueType::Workflow as i32, TaskQueueType::Activity as i32]
    } else {
        request.task_queue_types.clone()
    };
    let mut info = TaskQueueVersionInfo::default();
    for (kind, number) in [(Kind::Workflow, TaskQueueType::Workflow), (Kind::Activity, TaskQueueType::Activity)] {
        if wanted.contains(&(number as i32)) {
            let of_kind = TaskQueueTypeInfo {
                pollers: if request.report_pollers { pollers(engine, kind, queue).await? } else { Vec::new() },
                stats: if request.report_stats { Some(stats(engine, kind, queue).await?) } else { None },
            };
            info.types_info.insert(number as i32, of_kind);
        }
    }
    if request.report_task_reachability {
        info.task_reachability = BuildIdTaskReachability::Reachable as i32;
    }
    Ok(DescribeTaskQueueResponse { versions_info: HashMap::from([(String::new(), info)]), ..Default::default() })
}

async fn pollers(engine: &Engine, kind: Kind, queue: &str) -> Result<Vec<PollerInfo>, Status> {
    let seen = engine.pollers(kind, queue).await?;
    let info = seen.into_iter().map(|poller| PollerInfo {
        last_access_time: Some(proto::timestamp(poller.last_access_at)),
        identity: poller.identity,
        rate_per_second: UNLIMITED_PER_SECOND,
        ..Default::default()
    });
    Ok(info.collect())
}

/// Tasks waiting now. Rates are not measured: 0.
async fn stats(engine: &Engine, kind: Kind, queue: &str) -> Result<TaskQueueStats, Status> {
    let sql = match kind {
        Kind::Workflow => {
            "select count(*), (extract(epoch from clock_timestamp() - min(wft_ready_at)) * 1000)::bigint
             from engine.runs where wft_state = 1 and wft_queue = $1 and wft_ready_at <= clock_timestamp()"
        }
        Kind::Activity => {
            "select count(*), (extract(epoch from engine.now() - min(visible_at)) * 1000)::bigint
             from engine.activities where state = 0 and task_queue = $1 and visible_at <= engine.now()"
        }
    };
    let (count, oldest_ms): (i64, Option<i64>) =
        sqlx::query_as(sql).bind(queue).fetch_one(&engine.inner.store.pool).await.map_err(db)?;
    Ok(TaskQueueStats {
        approximate_backlog_count: count,
        approximate_backlog_age: Some(proto::duration(oldest_ms.unwrap_or(0).max(0))),
        ..Default::default()
    })
}

/// A queue has one partition: its rows.
pub(super) async fn partitions(
    _engine: &Engine,
    _caller: &Caller,
    request: ListTaskQueuePartitionsRequest,
) -> Result<ListTaskQueuePartitionsResponse, Status> {
    let queue = request.task_queue.unwrap_or_default();
    proto::name(&queue.name, "task_queue")?;
    if queue.kind() == TaskQueueKind::Sticky {
        return Err(Status::invalid_argument("a sticky task queue has no partitions"));
    }
    let one = || vec![TaskQueuePartitionMetadata { key: queue.name.clone(), owner_host_name: String::new() }];
    Ok(ListTaskQueuePartitionsResponse { activity_task_queue_partitions: one(), workflow_task_queue_partitions: one() })
}
