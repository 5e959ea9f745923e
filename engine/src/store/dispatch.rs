//! Giving tasks to pollers: `FOR UPDATE SKIP LOCKED`, one statement each.

use sqlx::FromRow;
use tonic::Status;
use uuid::Uuid;

use super::Store;
use crate::{
    model::{Activity, Run},
    proto::db,
    token::TaskToken,
};

/// Appends read with a claimed task; longer histories are read in further pages.
pub(crate) const FIRST_PAGE: i64 = 256;

/// A workflow task just started, with (the start of) the events its worker needs.
#[derive(FromRow)]
pub(crate) struct ClaimedTask {
    #[sqlx(flatten)]
    pub(crate) run: Run,
    pub(crate) batches: Option<Vec<Vec<u8>>>,
}

/// `engine.now()` is inlined: a call would plan its query every time.
/// Events in between turn a later attempt into a first one: it may fare better with them.
const CLAIM_WORKFLOW_TASK: &str = "
with picked as (
    select run_id from engine.runs
    where wft_state = 1 and wft_queue = $1 and wft_ready_at <= (select clock_timestamp())
    order by wft_ready_at limit 1 for update skip locked),
claimed as (
    update engine.runs r set revision = revision + 1, wft_state = 2, wft_process = $2, wft_identity = $3,
        wft_started_at = clock_timestamp() + (select shift from engine.clock), wft_due_at = clock_timestamp() + wft_timeout_ms * interval '1 ms',
        wft_attempt = case when wft_scheduled_id = 0 and last_event_id > wft_base_id then 1 else wft_attempt end
    from picked where r.run_id = picked.run_id returning r.*)
select c.*, (select array_agg(h.data order by h.first_event_id) from (
        select data, first_event_id from engine.history h
        where h.run_id = c.run_id and h.first_event_id >= case when $4 then coalesce(
            (select max(f.first_event_id) from engine.history f
             where f.run_id = c.run_id and f.first_event_id <= c.previous_started_id + 1), 0) else 0 end
        order by first_event_id limit $5) h) as batches
from claimed c";

/// All but the longest waiting are held for a while: of those with little time only that one is started.
const CLAIM_ACTIVITIES: &str = "
with picked as (
    select run_id, scheduled_event_id, visible_at,
        (start_to_close_ms = 0 or start_to_close_ms >= $5) and (heartbeat_ms = 0 or heartbeat_ms >= $5) as may_lie
    from engine.activities
    where state = 0 and task_queue = $1 and visible_at <= (select clock_timestamp() + shift from engine.clock)
    order by visible_at limit $4 for update skip locked),
chosen as (
    select run_id, scheduled_event_id, may_lie or row_number() over (order by visible_at) = 1 as taken from picked)
update engine.activities a set state = 1, process = $2, identity = $3, started_at = clock_timestamp() + (select shift from engine.clock), heartbeat_at = null,
    due_at = least(a.expires_at,
        case when a.start_to_close_ms > 0 then clock_timestamp() + (select shift from engine.clock) + a.start_to_close_ms * interval '1 ms' end,
        case when a.heartbeat_ms > 0 then clock_timestamp() + (select shift from engine.clock) + a.heartbeat_ms * interval '1 ms' end)
from chosen p where p.taken and a.run_id = p.run_id and a.scheduled_event_id = p.scheduled_event_id
returning a.*";

impl Store {
    /// Starts the longest waiting workflow task of a queue. `partial`: the worker has the run in its cache and gets only
    /// what came after the last task it completed.
    pub(crate) async fn claim_workflow_task(
        &self,
        queue: &str,
        process: Uuid,
        identity: &str,
        partial: bool,
    ) -> Result<Option<ClaimedTask>, Status> {
        let mut lane = self.lanes.take().await.map_err(db)?;
        let claimed = sqlx::query_as(CLAIM_WORKFLOW_TASK)
            .bind(queue)
            .bind(process)
            .bind(identity)
            .bind(partial)
            .bind(FIRST_PAGE)
            .fetch_optional(lane.connection())
            .await;
        lane.finish(claimed).map_err(db)
    }

    /// Starts the activities of a queue that have waited longest, at most this many, in that order. `least_ms`: those with less time
    /// are started one by one.
    pub(crate) async fn claim_activities(
        &self,
        queue: &str,
        process: Uuid,
        identity: &str,
        most: usize,
        least_ms: i64,
    ) -> Result<Vec<Activity>, Status> {
        let mut lane = self.lanes.take().await.map_err(db)?;
        let claimed = sqlx::query_as(CLAIM_ACTIVITIES)
            .bind(queue)
            .bind(process)
            .bind(identity)
            .bind(i64::try_from(most).unwrap_or(1))
            .bind(least_ms)
            .fetch_all(lane.connection())
            .await;
        let mut claimed: Vec<Activity> = lane.finish(claimed).map_err(db)?;
        claimed.sort_by_key(|a| a.visible_at);
        Ok(claimed)
    }

    /// Takes back the start of an activity whose worker never received it. Returns its queue.
    pub(crate) async fn unclaim_activity(&self, token: &TaskToken, process: Uuid) -> Result<Option<String>, Status> {
        sqlx::query_scalar(
            "update engine.activities set state = 0, process = null, started_at = null, due_at = least(start_by, expires_at)
             where run_id = $1 and scheduled_event_id = $2 and attempt = $3 and state = 1 and process = $4
             returning task_queue",
        )
        .bind(token.run_id())
        .bind(token.scheduled_event_id)
        .bind(token.attempt)
        .bind(process)
        .fetch_optional(&self.pool)
        .await
        .map_err(db)
    }

    /// Records a heartbeat. Some(true): cancellation has been requested; none: the attempt is over.
    pub(crate) async fn heartbeat(&self, token: &TaskToken, details: &[u8]) -> Result<Option<bool>, Status> {
        sqlx::query_scalar(
            "update engine.activities set heartbeat_at = engine.now(), heartbeat_details = $4
             where run_id = $1 and scheduled_event_id = $2 and attempt = $3 and state = 1
             returning cancel_requested_id <> 0",
        )
        .bind(token.run_id())
        .bind(token.scheduled_event_id)
        .bind(token.attempt)
        .bind(details)
        .fetch_optional(&self.pool)
        .await
        .map_err(db)
    }
}
