//! Rows as Rust types: open runs, and what belongs to them.

use chrono::{DateTime, Utc};
use temporalio_common::protos::temporal::api::{
    failure::v1::Failure,
    history::v1::{ActivityTaskScheduledEventAttributes, HistoryEvent},
};
use tonic::Status;
use uuid::Uuid;

use super::Updates;
use crate::{proto, token::TaskToken};

/// State of a run's workflow task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub(crate) enum TaskState {
    None = 0,
    Scheduled = 1,
    Started = 2,
}

impl TryFrom<i16> for TaskState {
    type Error = sqlx::Error;

    fn try_from(value: i16) -> Result<Self, Self::Error> {
        match value {
            0 => Ok(Self::None),
            1 => Ok(Self::Scheduled),
            2 => Ok(Self::Started),
            other => Err(sqlx::Error::Decode(format!("workflow task state {other}").into())),
        }
    }
}

/// The mutable state of an open run.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Run {
    pub(crate) run_id: Uuid,
    pub(crate) workflow_id: String,
    pub(crate) workflow_type: String,
    pub(crate) task_queue: String,
    pub(crate) first_run_id: Uuid,
    pub(crate) parent_workflow_id: Option<String>,
    pub(crate) parent_run_id: Option<Uuid>,
    pub(crate) parent_initiated_id: i64,
    pub(crate) root_workflow_id: String,
    pub(crate) root_run_id: Uuid,
    pub(crate) revision: i64,
    pub(crate) last_event_id: i64,
    pub(crate) history_bytes: i64,
    pub(crate) buffered: Vec<u8>,
    pub(crate) previous_started_id: i64,
    pub(crate) cancel_requested: bool,
    pub(crate) open_children: i32,
    pub(crate) timeout_at: Option<DateTime<Utc>>,
    pub(crate) execution_expires_at: Option<DateTime<Utc>>,
    pub(crate) wft_timeout_ms: i64,
    pub(crate) sticky_queue: Option<String>,
    pub(crate) sticky_process: Option<Uuid>,
    pub(crate) sticky_timeout_ms: i64,
    #[sqlx(try_from = "i16")]
    pub(crate) wft_state: TaskState,
    pub(crate) wft_queue: String,
    pub(crate) wft_scheduled_id: i64,
    pub(crate) wft_attempt: i32,
    pub(crate) wft_base_id: i64,
    pub(crate) wft_scheduled_at: Option<DateTime<Utc>>,
    pub(crate) wft_started_at: Option<DateTime<Utc>>,
    pub(crate) wft_ready_at: Option<DateTime<Utc>>,
    pub(crate) wft_due_at: Option<DateTime<Utc>>,
    pub(crate) wft_process: Option<Uuid>,
    pub(crate) wft_identity: String,
    #[sqlx(try_from = "Vec<u8>")]
    pub(crate) updates: Updates,
}

impl Run {
    /// Events waiting for the workflow task in flight to end.
    pub(crate) fn buffered_events(&self) -> Result<Vec<HistoryEvent>, Status> {
        proto::events(&[&self.buffered])
    }

    /// Whether the task's Scheduled event still has to be written.
    pub(crate) fn task_is_transient(&self) -> bool {
        self.wft_scheduled_id == 0
    }

    /// Id of the task's Scheduled event, assigned or reserved.
    pub(crate) fn task_scheduled_id(&self) -> i64 {
        if self.task_is_transient() { self.last_event_id + 1 } else { self.wft_scheduled_id }
    }

    /// Identifies the attempt of the task in flight.
    pub(crate) fn task_token(&self) -> TaskToken {
        TaskToken::of_workflow_task(self.run_id, self.task_scheduled_id(), self.wft_attempt, self.wft_started_at)
    }

    /// Id reserved for the Started event of the task in flight: nothing is appended before it.
    pub(crate) fn task_started_id(&self) -> i64 {
        self.last_event_id + if self.task_is_transient() { 2 } else { 1 }
    }
}

/// A pending activity.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Activity {
    pub(crate) run_id: Uuid,
    pub(crate) scheduled_event_id: i64,
    pub(crate) activity_id: String,
    pub(crate) activity_type: String,
    pub(crate) task_queue: String,
    pub(crate) workflow_id: String,
    pub(crate) workflow_type: String,
    pub(crate) state: i16,
    pub(crate) attempt: i32,
    pub(crate) attributes: Vec<u8>,
    pub(crate) start_to_close_ms: i64,
    pub(crate) heartbeat_ms: i64,
    pub(crate) scheduled_at: DateTime<Utc>,
    pub(crate) visible_at: DateTime<Utc>,
    pub(crate) start_by: Option<DateTime<Utc>>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) heartbeat_at: Option<DateTime<Utc>>,
    pub(crate) heartbeat_details: Vec<u8>,
    pub(crate) last_failure: Vec<u8>,
    pub(crate) cancel_requested_id: i64,
    pub(crate) identity: String,
    pub(crate) process: Option<Uuid>,
    pub(crate) due_at: Option<DateTime<Utc>>,
}

impl Activity {
    pub(crate) fn is_started(&self) -> bool {
        self.state == 1
    }

    pub(crate) fn scheduled(&self) -> Result<ActivityTaskScheduledEventAttributes, Status> {
        proto::stored(&self.attributes)
    }

    pub(crate) fn last_failure(&self) -> Result<Option<Failure>, Status> {
        if self.last_failure.is_empty() { Ok(None) } else { proto::stored(&self.last_failure).map(Some) }
    }

    /// When to check on a started activity that gives no further sign of life.
    pub(crate) fn started_due_at(&self) -> Option<DateTime<Utc>> {
        let started = self.started_at?;
        let heartbeat = proto::deadline(self.heartbeat_at.unwrap_or(started).max(started), self.heartbeat_ms);
        proto::earlier(proto::earlier(proto::deadline(started, self.start_to_close_ms), heartbeat), self.expires_at)
    }
}

/// A child this run has requested.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Child {
    pub(crate) initiated_event_id: i64,
    pub(crate) started_event_id: i64,
    pub(crate) workflow_id: String,
    pub(crate) workflow_type: String,
    pub(crate) child_run_id: Option<Uuid>,
    pub(crate) close_policy: i16,
}
