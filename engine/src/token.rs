//! Task and page tokens.
//!
//! A task token carries what makes it stale: the run, the event that scheduled the task and the attempt. Everything else
//! is looked up. Tokens are opaque to clients, and rejected with `InvalidArgument` if they cannot be read.

use chrono::{DateTime, Utc};
use prost::Message;
use tonic::Status;
use uuid::Uuid;

/// Identifies one attempt of one workflow task, activity task or query.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TaskToken {
    #[prost(bytes = "vec", tag = "1")]
    run_id: Vec<u8>,
    /// Event that scheduled the task (for a query: 0).
    #[prost(int64, tag = "2")]
    pub(crate) scheduled_event_id: i64,
    #[prost(int32, tag = "3")]
    pub(crate) attempt: i32,
    #[prost(enumeration = "TokenKind", tag = "4")]
    kind: i32,
    /// When this attempt of a workflow task was started, microseconds; 0 in tokens of versions that did not say. Id and attempt are
    /// not enough: a task handed out ahead of a change that was never written shares them with the one that took its place.
    #[prost(int64, tag = "5")]
    started: i64,
}

/// What a token is for; a token is never accepted for another kind of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum TokenKind {
    Workflow = 1,
    Activity = 2,
    /// `run_id` holds the query id.
    Query = 3,
}

impl TaskToken {
    pub(crate) fn of(kind: TokenKind, run_id: Uuid, scheduled_event_id: i64, attempt: i32) -> Self {
        Self { run_id: run_id.as_bytes().to_vec(), scheduled_event_id, attempt, kind: kind as i32, started: 0 }
    }

    pub(crate) fn encode(kind: TokenKind, run_id: Uuid, scheduled_event_id: i64, attempt: i32) -> Vec<u8> {
        Self::of(kind, run_id, scheduled_event_id, attempt).encode_to_vec()
    }

    /// For the attempt of a workflow task that was started at this time.
    pub(crate) fn of_workflow_task(run_id: Uuid, event: i64, attempt: i32, started: Option<DateTime<Utc>>) -> Self {
        let started = started.map_or(0, |at| at.timestamp_micros());
        Self { started, ..Self::of(TokenKind::Workflow, run_id, event, attempt) }
    }

    /// Whether the attempt of a workflow task is the one that was started at this time.
    pub(crate) fn is_of(&self, started: Option<DateTime<Utc>>) -> bool {
        self.started == 0 || started.is_some_and(|at| at.timestamp_micros() == self.started)
    }

    /// Reads a client's token of the expected kind.
    pub(crate) fn read(bytes: &[u8], kind: TokenKind) -> Result<Self, Status> {
        let bad = || Status::invalid_argument("task_token cannot be read");
        let token = <Self as Message>::decode(bytes).map_err(|_| bad())?;
        if token.kind != kind as i32 || Uuid::from_slice(&token.run_id).is_err() {
            return Err(bad());
        }
        Ok(token)
    }

    pub(crate) fn run_id(&self) -> Uuid {
        Uuid::from_slice(&self.run_id).unwrap_or_default()
    }
}

/// Where the next page of a history starts.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HistoryToken {
    #[prost(bytes = "vec", tag = "1")]
    run_id: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub(crate) next_event_id: i64,
    /// The reader works on the task in flight and needs its events although they are not stored yet.
    #[prost(bool, tag = "3")]
    pub(crate) worker: bool,
}

impl HistoryToken {
    pub(crate) fn encode(run_id: Uuid, next_event_id: i64, worker: bool) -> Vec<u8> {
        Self { run_id: run_id.as_bytes().to_vec(), next_event_id, worker }.encode_to_vec()
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, Status> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let bad = || Status::invalid_argument("next_page_token cannot be read");
        let token = <Self as Message>::decode(bytes).map_err(|_| bad())?;
        Uuid::from_slice(&token.run_id).map_err(|_| bad())?;
        Ok(Some(token))
    }

    pub(crate) fn run_id(&self) -> Uuid {
        Uuid::from_slice(&self.run_id).unwrap_or_default()
    }
}
