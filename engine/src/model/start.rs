//! Runs about to be created.

use chrono::{DateTime, Utc};
use temporalio_common::protos::temporal::api::{
    enums::v1::WorkflowIdReusePolicy,
    history::v1::{
        WorkflowExecutionStartedEventAttributes, WorkflowTaskScheduledEventAttributes, history_event::Attributes,
    },
    sdk::v1::UserMetadata,
};
use uuid::Uuid;

use super::{Handover, Run, TaskState, Updates};
use crate::{
    proto,
    recorded::{self, Recorded},
};

/// Time a worker has for a workflow task by default, in milliseconds.
pub(crate) const DEFAULT_TASK_TIMEOUT_MS: i64 = 10_000;

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

/// May a closed run of the same workflow id be followed by another?
#[derive(Clone, Copy, Debug)]
pub(crate) enum StartPolicy {
    Reuse(WorkflowIdReusePolicy),
    /// The previous run is being closed by the same transaction.
    Continue,
}

/// The latest run of a workflow id.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Existing {
    pub(crate) run_id: Uuid,
    pub(crate) status: i16,
    pub(crate) request_id: String,
}

/// The outcome of a start.
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

    /// The run as it is once its first events are stored: with a workflow task waiting for a worker.
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

    /// The earlier of the run and execution timeouts.
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
    /// Of the first task.
    pub(crate) handover: Handover,
}

impl Start {
    pub(crate) fn new(new: NewRun, policy: StartPolicy, now: DateTime<Utc>, wall: DateTime<Utc>) -> Self {
        let events = new.first_events(now);
        let run = new.first_state(&events, now, wall);
        Self { new, run, events, policy, now, wall, handover: Handover::None }
    }

    /// What the previous run may have been for this one to follow; starts with different codes are not written together.
    pub(crate) fn code(&self) -> i32 {
        match self.policy {
            StartPolicy::Continue => 4,
            StartPolicy::Reuse(WorkflowIdReusePolicy::AllowDuplicateFailedOnly) => 2,
            StartPolicy::Reuse(WorkflowIdReusePolicy::RejectDuplicate) => 3,
            StartPolicy::Reuse(_) => 1,
        }
    }
}
