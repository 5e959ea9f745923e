//! A decided change of one run: made by `history`, written by `store`.

use chrono::{DateTime, Utc};
use temporalio_common::protos::temporal::api::{
    common::v1::{Memo, SearchAttributes},
    enums::v1::WorkflowExecutionStatus,
    failure::v1::Failure,
};
use uuid::Uuid;

use super::{Activity, Effect, Loaded, NewRun, RecordedUpdate, Run};
use crate::recorded::Recorded;

/// Circumstances of a decision that are not part of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    /// The deciding process.
    pub(crate) process: Uuid,
    /// Whether the run's sticky queue is still served.
    pub(crate) sticky_alive: bool,
}

/// A change of one run, decided but not yet written.
#[derive(Clone, Debug)]
pub(crate) struct Transition {
    /// The run as it will be.
    pub(crate) run: Run,
    pub(crate) expected_revision: i64,
    pub(crate) expected_last_event_id: i64,
    pub(crate) now: DateTime<Utc>,
    pub(crate) wall: DateTime<Utc>,
    pub(crate) circumstances: Circumstances,
    pub(crate) events: Vec<Recorded>,
    pub(crate) new_activities: Vec<Activity>,
    pub(crate) ended_activities: Vec<ActivityKey>,
    pub(crate) retried_activities: Vec<ActivityRetry>,
    /// (scheduled event, cancel-requested event)
    pub(crate) cancelled_activities: Vec<(i64, i64)>,
    /// (timer id, started event, fires at)
    pub(crate) new_timers: Vec<(String, i64, DateTime<Utc>)>,
    pub(crate) ended_timers: Vec<String>,
    pub(crate) new_children: Vec<NewChild>,
    /// (initiated event, started event, run)
    pub(crate) started_children: Vec<(i64, i64, Uuid)>,
    pub(crate) ended_children: Vec<i64>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) recorded_updates: Vec<RecordedUpdate>,
    /// (admission, why)
    pub(crate) rejected_updates: Vec<(Uuid, Failure)>,
    /// The speculative task that was completed has left no events.
    pub(crate) discarded_task: bool,
    /// The effect this transition settles: it must still be owed.
    pub(crate) settles: Option<Uuid>,
    /// Refused if this run has already taken in the request.
    pub(crate) request_id: Option<String>,
    pub(crate) memo: Option<Memo>,
    pub(crate) search_attributes: Option<SearchAttributes>,
    pub(crate) closed: Option<WorkflowExecutionStatus>,
    pub(crate) continued: Option<Box<NewRun>>,
    pub(crate) handover: Handover,
    /// The same for activities: the events that scheduled them.
    pub(crate) direct_activities: Vec<i64>,
}

/// How the workflow task started by a change reaches a poller in this process (see `handoff`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// It does not: no task is started, or the worker being answered has it.
    None,
    /// It is held for the next poller once the change is written.
    AfterCommit,
    /// It went to a poller ahead of the change, which waits for its end (see `deferred`).
    Ahead,
}

/// The attempt of an activity that a transition is about; the row must still be in this state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActivityKey {
    pub(crate) scheduled_event_id: i64,
    pub(crate) attempt: i32,
    pub(crate) state: i16,
}

/// The next attempt of an activity.
#[derive(Clone, Debug)]
pub(crate) struct ActivityRetry {
    pub(crate) key: ActivityKey,
    pub(crate) visible_at: DateTime<Utc>,
    pub(crate) start_by: Option<DateTime<Utc>>,
    pub(crate) due_at: Option<DateTime<Utc>>,
    pub(crate) last_failure: Vec<u8>,
    pub(crate) heartbeat_details: Option<Vec<u8>>,
}

/// A requested child, not yet started.
#[derive(Clone, Debug)]
pub(crate) struct NewChild {
    pub(crate) initiated_event_id: i64,
    pub(crate) workflow_id: String,
    pub(crate) workflow_type: String,
    pub(crate) close_policy: i16,
    /// Started event and run, for one that a reset finds running.
    pub(crate) started: Option<(i64, Uuid)>,
}

impl Transition {
    pub(crate) fn new(loaded: Loaded, circumstances: Circumstances) -> Self {
        let Loaded { run, now, wall } = loaded;
        Self {
            expected_revision: run.revision,
            expected_last_event_id: run.last_event_id,
            run,
            now,
            wall,
            circumstances,
            events: Vec::new(),
            new_activities: Vec::new(),
            ended_activities: Vec::new(),
            retried_activities: Vec::new(),
            cancelled_activities: Vec::new(),
            new_timers: Vec::new(),
            ended_timers: Vec::new(),
            new_children: Vec::new(),
            started_children: Vec::new(),
            ended_children: Vec::new(),
            effects: Vec::new(),
            recorded_updates: Vec::new(),
            rejected_updates: Vec::new(),
            discarded_task: false,
            settles: None,
            request_id: None,
            memo: None,
            search_attributes: None,
            closed: None,
            continued: None,
            handover: Handover::None,
            direct_activities: Vec::new(),
        }
    }

    /// Another decision follows this one before it is written.
    pub(crate) fn go_on(&mut self, now: DateTime<Utc>, wall: DateTime<Utc>, circumstances: Circumstances) {
        self.now = self.now.max(now);
        self.wall = self.wall.max(wall);
        self.circumstances = circumstances;
        self.handover = Handover::None;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }
}
