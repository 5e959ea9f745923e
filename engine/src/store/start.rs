//! Creating runs.

use chrono::{DateTime, Utc};
use prost::Message;
use temporalio_common::protos::temporal::api::sdk::v1::UserMetadata;
use temporalio_common::protos::temporal::api::{
    enums::v1::WorkflowIdReusePolicy,
    history::v1::{
        WorkflowExecutionStartedEventAttributes, WorkflowTaskScheduledEventAttributes, history_event::Attributes,
    },
};
use uuid::Uuid;

use super::{
    Run, Store, TaskState,
    statement::{Statement, column},
};
use crate::{
    history::updates::Updates,
    proto,
    recorded::{self, Recorded},
    search_attributes::indexed,
};

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

    fn first_events(&self, now: DateTime<Utc>) -> Vec<Recorded> {
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
        events.iter().map(Recorded::new).collect()
    }

    /// The run as it is once its first events are stored: with a workflow task that waits for a worker.
    fn first_state(&self, events: &[Recorded], now: DateTime<Utc>, wall: DateTime<Utc>) -> Run {
        let last_event_id = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let parent = self.parent.as_ref();
        Run {
            run_id: self.run_id,
            workflow_id: self.attributes.workflow_id.clone(),
            workflow_type: self.workflow_type().to_owned(),
            task_queue: self.task_queue().to_owned(),
            first_run_id: self.first_run_id,
            parent_workflow_id: parent.map(|p| p.workflow_id.clone()),
            parent_run_id: parent.map(|p| p.run_id),
            parent_initiated_id: parent.map_or(0, |p| p.initiated_event_id),
            root_workflow_id: self.root.0.clone(),
            root_run_id: self.root.1,
            revision: 0,
            last_event_id,
            history_bytes: i64::try_from(recorded::history(events).len()).unwrap_or(i64::MAX),
            buffered: Vec::new(),
            previous_started_id: 0,
            cancel_requested: false,
            open_children: 0,
            timeout_at: self.timeout_at(now),
            execution_expires_at: self.execution_expires_at,
            wft_timeout_ms: proto::millis_or_zero(self.attributes.workflow_task_timeout.as_ref()),
            sticky_queue: None,
            sticky_process: None,
            sticky_timeout_ms: 0,
            wft_state: TaskState::Scheduled,
            wft_queue: self.task_queue().to_owned(),
            wft_scheduled_id: last_event_id,
            wft_attempt: 1,
            wft_base_id: 0,
            wft_scheduled_at: Some(now),
            wft_started_at: None,
            wft_ready_at: Some(wall),
            wft_due_at: None,
            wft_process: None,
            wft_identity: String::new(),
            updates: Updates::default(),
        }
    }

    /// The earlier of run and execution timeout.
    fn timeout_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let run = proto::millis_or_zero(self.attributes.workflow_run_timeout.as_ref());
        proto::earlier(proto::deadline(now, run), self.execution_expires_at)
    }
}

/// A start ready to be written.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) new: NewRun,
    /// The run as it will be.
    pub(crate) run: Run,
    pub(crate) events: Vec<Recorded>,
    pub(crate) policy: StartPolicy,
    pub(crate) now: DateTime<Utc>,
    pub(crate) wall: DateTime<Utc>,
    /// The first task goes straight to a poller of this process.
    pub(crate) direct: bool,
}

impl Start {
    pub(crate) fn new(new: NewRun, policy: StartPolicy, now: DateTime<Utc>, wall: DateTime<Utc>) -> Self {
        let events = new.first_events(now);
        let run = new.first_state(&events, now, wall);
        Self { new, run, events, policy, now, wall, direct: false }
    }

    /// What the run before may have been for this one to follow; starts of different codes are not written together.
    pub(super) fn code(&self) -> i32 {
        match self.policy {
            StartPolicy::Continue => 4,
            StartPolicy::Reuse(WorkflowIdReusePolicy::AllowDuplicateFailedOnly) => 2,
            StartPolicy::Reuse(WorkflowIdReusePolicy::RejectDuplicate) => 3,
            StartPolicy::Reuse(_) => 1,
        }
    }
}

/// Creates runs and their first workflow tasks, except where the latest run of a workflow id stands in the way: the row
/// of the workflow id decides between concurrent starts. All have one policy and different workflow ids.
pub(super) fn write(s: &mut Statement, starts: &[&Start]) {
    let Some(code) = starts.first().map(|start| start.code()) else {
        s.section("started", "select null::uuid as run_id where false").end("");
        return;
    };
    s.section("started", "insert into engine.workflows as w (workflow_id, run_id, status, request_id) ");
    s.text("select k.workflow_id, k.run_id, 1, k.request_id from ").rows();
    column!(s, starts, t => t.run.workflow_id.clone(), "text");
    column!(s, starts, t => t.run.run_id, "uuid");
    column!(s, starts, t => t.new.request_id.clone(), "text");
    s.rows_end("workflow_id, run_id, request_id");
    s.text(" on conflict (workflow_id) do update set run_id = excluded.run_id, status = 1, ");
    s.text("request_id = excluded.request_id where ").value(code).text("::int = 4 or (w.status <> 1 ");
    s.text("and w.request_id <> excluded.request_id and (").value(code).text("::int = 1 or (").value(code);
    s.text("::int = 2 and w.status in (3, 4, 5, 7))))").end(" returning w.run_id");
    rows(s, starts);
    s.section("started_executions", "insert into engine.executions (run_id, workflow_id, workflow_type, task_queue, ");
    s.text("status, start_time, first_run_id, parent_workflow_id, parent_run_id, root_workflow_id, root_run_id, ");
    s.text(
        "memo, search_attributes, attributes) select run_id, workflow_id, workflow_type, task_queue, 1, start_time, ",
    );
    s.text("first_run_id, parent_workflow_id, parent_run_id, root_workflow_id, root_run_id, memo, search_attributes, ");
    s.text("attributes ");
    s.end("from fresh");
    s.section(
        "started_runs",
        "insert into engine.runs (run_id, workflow_id, workflow_type, task_queue, first_run_id, ",
    );
    s.text("parent_workflow_id, parent_run_id, parent_initiated_id, root_workflow_id, root_run_id, last_event_id, ");
    s.text("history_bytes, timeout_at, execution_expires_at, wft_timeout_ms, wft_state, wft_queue, wft_scheduled_id, ");
    s.text("wft_scheduled_at, wft_ready_at, wft_started_at, wft_due_at, wft_process, wft_identity) ");
    s.text("select run_id, workflow_id, workflow_type, task_queue, first_run_id, parent_workflow_id, parent_run_id, ");
    s.text(
        "parent_initiated_id, root_workflow_id, root_run_id, last_event_id, history_bytes, timeout_at, expires_at, ",
    );
    s.text("wft_timeout_ms, wft_state, task_queue, last_event_id, start_time, wft_ready_at, wft_started_at, ");
    s.end("wft_due_at, wft_process, wft_identity from fresh");
    s.section("started_histories", "insert into engine.history (run_id, first_event_id, last_event_id, data) ");
    s.end("select run_id, 1, last_event_id, data from fresh");
}

/// The rows that are written, as `fresh`.
fn rows(s: &mut Statement, starts: &[&Start]) {
    let encode = |m: Option<Vec<u8>>| m.unwrap_or_default();
    s.section("fresh", "select * from ").rows();
    column!(s, starts, t => t.run.run_id, "uuid");
    column!(s, starts, t => t.run.workflow_id.clone(), "text");
    column!(s, starts, t => t.run.workflow_type.clone(), "text");
    column!(s, starts, t => t.run.task_queue.clone(), "text");
    column!(s, starts, t => t.now, "timestamptz");
    column!(s, starts, t => t.run.first_run_id, "uuid");
    column!(s, starts, t => t.run.parent_workflow_id.clone(), "text");
    column!(s, starts, t => t.run.parent_run_id, "uuid");
    column!(s, starts, t => t.run.parent_initiated_id, "bigint");
    column!(s, starts, t => t.run.root_workflow_id.clone(), "text");
    column!(s, starts, t => t.run.root_run_id, "uuid");
    column!(s, starts, t => encode(t.new.attributes.memo.as_ref().map(Message::encode_to_vec)), "bytea");
    column!(s, starts, t => encode(t.new.attributes.search_attributes.as_ref().map(Message::encode_to_vec)), "bytea");
    column!(s, starts, t => t.new.attributes.search_attributes.as_ref().and_then(indexed), "jsonb");
    column!(s, starts, t => t.run.last_event_id, "bigint");
    column!(s, starts, t => t.run.history_bytes, "bigint");
    column!(s, starts, t => t.run.timeout_at, "timestamptz");
    column!(s, starts, t => t.run.execution_expires_at, "timestamptz");
    column!(s, starts, t => t.run.wft_timeout_ms, "bigint");
    column!(s, starts, t => t.run.wft_state as i16, "smallint");
    column!(s, starts, t => t.run.wft_ready_at, "timestamptz");
    column!(s, starts, t => t.run.wft_started_at, "timestamptz");
    column!(s, starts, t => t.run.wft_due_at, "timestamptz");
    column!(s, starts, t => t.run.wft_process, "uuid");
    column!(s, starts, t => t.run.wft_identity.clone(), "text");
    column!(s, starts, t => recorded::history(&t.events), "bytea");
    s.rows_end(
        "run_id, workflow_id, workflow_type, task_queue, start_time, first_run_id, parent_workflow_id, parent_run_id, \
         parent_initiated_id, root_workflow_id, root_run_id, memo, search_attributes, attributes, last_event_id, \
         history_bytes, \
         timeout_at, expires_at, wft_timeout_ms, wft_state, wft_ready_at, wft_started_at, wft_due_at, wft_process, \
         wft_identity, data",
    );
    s.end(" where (k.run_id in (select run_id from started)) is true");
}

impl Store {
    /// Writes a start, unless the latest run of its workflow id stands in the way.
    pub(crate) async fn start_run(&self, start: Box<Start>) -> Result<(Box<Start>, StartOutcome), sqlx::Error> {
        let workflow_id = start.run.workflow_id.clone();
        let (start, written) = self.writer.start(start).await?;
        if written {
            return Ok((start, StartOutcome::Started));
        }
        let mut lane = self.lanes.take().await?;
        let existing = sqlx::query_as("select run_id, status, request_id from engine.workflows where workflow_id = $1")
            .bind(workflow_id)
            .fetch_one(lane.connection())
            .await;
        Ok((start, StartOutcome::Exists(lane.finish(existing)?)))
    }
}
