//! Creating runs.

use chrono::{DateTime, Utc};
use prost::Message;
use sqlx::PgConnection;
use temporalio_common::protos::temporal::api::sdk::v1::UserMetadata;
use temporalio_common::protos::temporal::api::{
    enums::v1::WorkflowIdReusePolicy,
    history::v1::{
        History, WorkflowExecutionStartedEventAttributes, WorkflowTaskScheduledEventAttributes,
        history_event::Attributes,
    },
};
use uuid::Uuid;

use super::Store;
use crate::proto;

/// A run about to be created.
#[derive(Clone, Debug)]
pub(crate) struct NewRun {
    pub(crate) run_id: Uuid,
    pub(crate) request_id: String,
    pub(crate) attributes: WorkflowExecutionStartedEventAttributes,
    /// Summary and details for people.
    pub(crate) user_metadata: Option<UserMetadata>,
    /// Signal that comes with the start (signal-with-start).
    pub(crate) signal: Option<Attributes>,
    pub(crate) parent: Option<Parent>,
    pub(crate) root: (String, Uuid),
    pub(crate) first_run_id: Uuid,
    pub(crate) execution_expires_at: Option<DateTime<Utc>>,
}

/// The run that asked for this one as a child.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    pub(crate) workflow_id: String,
    pub(crate) run_id: Uuid,
    pub(crate) initiated_event_id: i64,
}

/// May a closed run of the same workflow id be followed?
#[derive(Clone, Copy, Debug)]
pub(crate) enum StartPolicy {
    Reuse(WorkflowIdReusePolicy),
    /// The run before is being closed by the same transaction.
    Continue,
}

/// The latest run of a workflow id.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Existing {
    pub(crate) run_id: Uuid,
    pub(crate) status: i16,
    pub(crate) request_id: String,
}

/// What came of a start.
#[derive(Clone, Debug)]
pub(crate) enum StartOutcome {
    Started,
    /// Nothing was written; this run is in the way.
    Exists(Existing),
}

impl NewRun {
    fn task_queue(&self) -> &str {
        self.attributes.task_queue.as_ref().map_or("", |q| q.name.as_str())
    }

    fn workflow_type(&self) -> &str {
        self.attributes.workflow_type.as_ref().map_or("", |t| t.name.as_str())
    }

    fn first_events(&self, now: DateTime<Utc>) -> History {
        let task = WorkflowTaskScheduledEventAttributes {
            task_queue: Some(proto::queue(self.task_queue())),
            start_to_close_timeout: self.attributes.workflow_task_timeout,
            attempt: 1,
        };
        let attributes = [Attributes::WorkflowExecutionStartedEventAttributes(self.attributes.clone())]
            .into_iter()
            .chain(self.signal.clone())
            .chain([Attributes::WorkflowTaskScheduledEventAttributes(task)]);
        let mut events: Vec<_> = (1..).zip(attributes).map(|(id, a)| proto::event(id, now, a)).collect();
        if let Some(first) = events.first_mut() {
            first.user_metadata.clone_from(&self.user_metadata);
        }
        History { events }
    }

    /// The earlier of run and execution timeout.
    fn timeout_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let run = proto::millis_or_zero(self.attributes.workflow_run_timeout.as_ref());
        proto::earlier(proto::deadline(now, run), self.execution_expires_at)
    }
}

const INSERT: &str = "
with w as (
    insert into engine.workflows as w (workflow_id, run_id, status, request_id) values ($1, $2, 1, $3)
    on conflict (workflow_id) do update
        set run_id = excluded.run_id, status = 1, request_id = excluded.request_id
        where $4 = 4 or (w.status <> 1 and w.request_id <> excluded.request_id
                         and ($4 = 1 or ($4 = 2 and w.status in (3, 4, 5, 7))))
    returning w.run_id),
e as (
    insert into engine.executions (run_id, workflow_id, workflow_type, task_queue, status, start_time, first_run_id,
        parent_workflow_id, parent_run_id, root_workflow_id, root_run_id, memo, search_attributes)
    select w.run_id, $1, $5, $6, 1, $7, $8, $9, $10, $12, $13, $14, $15 from w),
r as (
    insert into engine.runs (run_id, workflow_id, workflow_type, task_queue, first_run_id, parent_workflow_id,
        parent_run_id, parent_initiated_id, root_workflow_id, root_run_id, last_event_id, history_bytes,
        timeout_at, execution_expires_at, wft_timeout_ms, wft_state, wft_queue, wft_scheduled_id, wft_scheduled_at,
        wft_ready_at)
    select w.run_id, $1, $5, $6, $8, $9, $10, $11, $12, $13, $16, $17, $18, $19, $20, 1, $6, $16, $7,
        clock_timestamp() from w),
h as (
    insert into engine.history (run_id, first_event_id, last_event_id, data) select w.run_id, 1, $16, $21 from w)
select count(*) from w";

impl Store {
    /// [`insert_run`] on a connection of its own.
    pub(crate) async fn start_run(
        &self,
        run: &NewRun,
        policy: StartPolicy,
        now: DateTime<Utc>,
    ) -> Result<StartOutcome, sqlx::Error> {
        let mut lane = self.lanes.take().await?;
        let outcome = insert_run(&mut lane.connection, run, policy, now).await;
        lane.finish(outcome)
    }
}

/// Creates a run and its first workflow task, unless the latest run of its workflow id stands in the way. One
/// statement; the row of the workflow id decides between concurrent starts.
pub(crate) async fn insert_run(
    connection: &mut PgConnection,
    run: &NewRun,
    policy: StartPolicy,
    now: DateTime<Utc>,
) -> Result<StartOutcome, sqlx::Error> {
    let history = run.first_events(now);
    let last_event_id = i64::try_from(history.events.len()).unwrap_or(i64::MAX);
    let data = history.encode_to_vec();
    let code: i32 = match policy {
        StartPolicy::Continue => 4,
        StartPolicy::Reuse(WorkflowIdReusePolicy::AllowDuplicateFailedOnly) => 2,
        StartPolicy::Reuse(WorkflowIdReusePolicy::RejectDuplicate) => 3,
        StartPolicy::Reuse(_) => 1,
    };
    let parent = run.parent.as_ref();
    let encode = |m: Option<Vec<u8>>| m.unwrap_or_default();
    let started: i64 = sqlx::query_scalar(INSERT)
        .bind(&run.attributes.workflow_id)
        .bind(run.run_id)
        .bind(&run.request_id)
        .bind(code)
        .bind(run.workflow_type())
        .bind(run.task_queue())
        .bind(now)
        .bind(run.first_run_id)
        .bind(parent.map(|p| p.workflow_id.as_str()))
        .bind(parent.map(|p| p.run_id))
        .bind(parent.map_or(0, |p| p.initiated_event_id))
        .bind(&run.root.0)
        .bind(run.root.1)
        .bind(encode(run.attributes.memo.as_ref().map(Message::encode_to_vec)))
        .bind(encode(run.attributes.search_attributes.as_ref().map(Message::encode_to_vec)))
        .bind(last_event_id)
        .bind(i64::try_from(data.len()).unwrap_or(i64::MAX))
        .bind(run.timeout_at(now))
        .bind(run.execution_expires_at)
        .bind(proto::millis_or_zero(run.attributes.workflow_task_timeout.as_ref()))
        .bind(&data)
        .fetch_one(&mut *connection)
        .await?;
    if started == 1 {
        return Ok(StartOutcome::Started);
    }
    let existing = sqlx::query_as("select run_id, status, request_id from engine.workflows where workflow_id = $1")
        .bind(&run.attributes.workflow_id)
        .fetch_one(connection)
        .await?;
    Ok(StartOutcome::Exists(existing))
}
