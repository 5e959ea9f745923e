//! Activities: scheduled, cancelled, retried, ended.
//!
//! Started is written together with the end, as on Temporal's servers: earlier attempts leave no events.

use chrono::{DateTime, Utc};
use prost::Message;
use temporalio_common::protos::temporal::api::{
    command::v1::{RequestCancelActivityTaskCommandAttributes, ScheduleActivityTaskCommandAttributes},
    common::v1::Payloads,
    enums::v1::{ActivityTaskFailedCause, RetryState, TimeoutType, WorkflowTaskFailedCause as Cause},
    failure::v1::{Failure, TimeoutFailureInfo, failure::FailureInfo},
    history::v1::{
        ActivityTaskCancelRequestedEventAttributes, ActivityTaskCanceledEventAttributes,
        ActivityTaskCompletedEventAttributes, ActivityTaskFailedEventAttributes, ActivityTaskScheduledEventAttributes,
        ActivityTaskStartedEventAttributes, ActivityTaskTimedOutEventAttributes, HistoryEvent,
        history_event::Attributes as A,
    },
};
use tonic::Status;
use uuid::Uuid;

use super::{ActivityKey, ActivityRetry, Transition, commands::Refused};
use crate::{
    model::Activity,
    proto,
    retry::{self, Retry},
};

/// How an activity finally ended.
#[derive(Clone, Debug)]
pub(crate) enum ActivityEnd {
    Completed { result: Option<Payloads> },
    Failed { failure: Option<Failure>, retry_state: RetryState, cause: ActivityTaskFailedCause },
    TimedOut { failure: Failure, retry_state: RetryState },
    Canceled { details: Option<Payloads> },
}

impl Activity {
    /// Starts the attempt in a worker's name.
    pub(crate) fn start(&mut self, identity: String, now: DateTime<Utc>, process: Uuid) {
        self.state = 1;
        self.started_at = Some(now);
        self.identity = identity;
        self.process = Some(process);
        self.due_at = self.started_due_at();
    }

    pub(crate) fn key(&self) -> ActivityKey {
        ActivityKey { scheduled_event_id: self.scheduled_event_id, attempt: self.attempt, state: self.state }
    }
}

/// The failure of an attempt that timed out. If it was the last one, the failure also says how far it got and how the previous
/// attempt failed; otherwise the next attempt would be given that itself.
fn timeout_failure(activity: &Activity, kind: TimeoutType, last: bool) -> Result<Failure, Status> {
    let heartbeat = match activity.heartbeat_details.as_slice() {
        details if last && !details.is_empty() => Some(proto::stored::<Payloads>(details)?),
        _ => None,
    };
    let name = match kind {
        TimeoutType::StartToClose => "StartToClose",
        TimeoutType::ScheduleToStart => "ScheduleToStart",
        TimeoutType::ScheduleToClose => "ScheduleToClose",
        _ => "Heartbeat",
    };
    let cause = if last { activity.last_failure()?.map(Box::new) } else { None };
    Ok(Failure {
        message: format!("activity {name} timeout"),
        source: "Server".to_owned(),
        cause,
        failure_info: Some(FailureInfo::TimeoutFailureInfo(TimeoutFailureInfo {
            timeout_type: kind as i32,
            last_heartbeat_details: heartbeat,
        })),
        ..Default::default()
    })
}

/// A command's timeouts, with missing ones derived from the others as Temporal's servers do. Milliseconds; 0 means none.
struct Timeouts {
    schedule_to_close: i64,
    schedule_to_start: i64,
    start_to_close: i64,
    heartbeat: i64,
}

impl Timeouts {
    fn of(c: &ScheduleActivityTaskCommandAttributes, run_ms: i64) -> Result<Self, Status> {
        let mut t = Self {
            schedule_to_close: proto::millis(c.schedule_to_close_timeout.as_ref(), "schedule_to_close_timeout")?,
            schedule_to_start: proto::millis(c.schedule_to_start_timeout.as_ref(), "schedule_to_start_timeout")?,
            start_to_close: proto::millis(c.start_to_close_timeout.as_ref(), "start_to_close_timeout")?,
            heartbeat: proto::millis(c.heartbeat_timeout.as_ref(), "heartbeat_timeout")?,
        };
        if t.schedule_to_close == 0 && t.start_to_close == 0 {
            return Err(Status::invalid_argument(
                "a valid start_to_close_timeout or schedule_to_close_timeout is not set on the activity",
            ));
        }
        if t.schedule_to_close == 0 {
            t.schedule_to_close = run_ms;
        }
        let within = |value: i64, limit: i64| match (value, limit) {
            (0, limit) => limit,
            (value, 0) => value,
            (value, limit) => value.min(limit),
        };
        t.schedule_to_start = within(t.schedule_to_start, t.schedule_to_close);
        t.start_to_close = within(t.start_to_close, t.schedule_to_close);
        if t.heartbeat > 0 {
            t.heartbeat = within(t.heartbeat, t.start_to_close);
        }
        Ok(t)
    }
}

impl Transition {
    /// `eager`: the worker being answered takes the first attempt at once. Returns the new row.
    pub(crate) fn schedule_activity(
        &mut self,
        command: ScheduleActivityTaskCommandAttributes,
        event: HistoryEvent,
        completed_id: i64,
        identity: &str,
    ) -> Result<(), Refused> {
        let refuse = |s: Status| Refused::task(Cause::BadScheduleActivityAttributes, s.message());
        let activity_type = command.activity_type.clone().unwrap_or_default().name;
        proto::name(&command.activity_id, "activity_id").map_err(refuse)?;
        proto::name(&activity_type, "activity_type").map_err(refuse)?;
        let task_queue = command.task_queue.clone().filter(|q| !q.name.is_empty());
        let task_queue = task_queue.map_or_else(|| self.run.task_queue.clone(), |q| q.name);
        proto::name(&task_queue, "task_queue").map_err(refuse)?;
        if self.new_activities.iter().any(|a| a.activity_id == command.activity_id) {
            return Err(Refused::task(Cause::ScheduleActivityDuplicateId, "activity_id is already pending"));
        }
        let run_ms = self.run.timeout_at.map_or(0, |at| (at - self.now).num_milliseconds().max(1));
        let timeouts = Timeouts::of(&command, run_ms).map_err(refuse)?;
        let retry_policy = retry::normalized(command.retry_policy.as_ref()).map_err(refuse)?;
        let attributes = ActivityTaskScheduledEventAttributes {
            activity_id: command.activity_id.clone(),
            activity_type: command.activity_type,
            task_queue: Some(proto::queue(&task_queue)),
            header: command.header,
            input: command.input,
            schedule_to_close_timeout: Some(proto::duration(timeouts.schedule_to_close)),
            schedule_to_start_timeout: Some(proto::duration(timeouts.schedule_to_start)),
            start_to_close_timeout: Some(proto::duration(timeouts.start_to_close)),
            heartbeat_timeout: Some(proto::duration(timeouts.heartbeat)),
            workflow_task_completed_event_id: completed_id,
            retry_policy: Some(retry_policy),
            priority: command.priority,
            #[allow(deprecated, reason = "what the SDK sets is kept")]
            use_workflow_build_id: command.use_workflow_build_id,
        };
        let encoded = attributes.encode_to_vec();
        let scheduled_event_id = self.append_event(HistoryEvent {
            attributes: Some(A::ActivityTaskScheduledEventAttributes(attributes)),
            ..event
        });
        let eager = command.request_eager_execution && task_queue == self.run.task_queue;
        let start_by = proto::deadline(self.now, timeouts.schedule_to_start);
        let expires_at = proto::deadline(self.now, timeouts.schedule_to_close);
        let mut row = Activity {
            run_id: self.run.run_id,
            scheduled_event_id,
            activity_id: command.activity_id,
            activity_type,
            task_queue,
            workflow_id: self.run.workflow_id.clone(),
            workflow_type: self.run.workflow_type.clone(),
            state: i16::from(eager),
            attempt: 1,
            attributes: encoded,
            start_to_close_ms: timeouts.start_to_close,
            heartbeat_ms: timeouts.heartbeat,
            scheduled_at: self.now,
            visible_at: self.now,
            start_by,
            expires_at,
            started_at: eager.then_some(self.now),
            ended_at: None,
            heartbeat_at: None,
            heartbeat_details: Vec::new(),
            last_failure: Vec::new(),
            cancel_requested_id: 0,
            identity: if eager { identity.to_owned() } else { String::new() },
            process: eager.then_some(self.circumstances.process),
            due_at: proto::earlier(start_by, expires_at),
        };
        if eager {
            row.due_at = row.started_due_at();
        }
        self.new_activities.push(row);
        Ok(())
    }

    /// The workflow asks to cancel an activity. A waiting one ends at once; a started one learns of it by heartbeat.
    pub(crate) fn request_cancel_activity(
        &mut self,
        command: &RequestCancelActivityTaskCommandAttributes,
        completed_id: i64,
        pending: &[Activity],
    ) -> Result<(), Refused> {
        let scheduled = command.scheduled_event_id;
        let known = pending.iter().find(|a| a.scheduled_event_id == scheduled);
        let fresh = self.new_activities.iter().any(|a| a.scheduled_event_id == scheduled);
        if known.is_none() && !fresh && !self.has_buffered() {
            return Err(Refused::task(
                Cause::BadRequestCancelActivityAttributes,
                format!("scheduled_event_id: no pending activity was scheduled by event {scheduled}"),
            ));
        }
        if known.is_some_and(|a| a.cancel_requested_id != 0) {
            return Ok(());
        }
        let attributes = ActivityTaskCancelRequestedEventAttributes {
            scheduled_event_id: scheduled,
            workflow_task_completed_event_id: completed_id,
        };
        let requested = self.append(A::ActivityTaskCancelRequestedEventAttributes(attributes));
        let waiting = self.new_activities.iter().position(|a| a.scheduled_event_id == scheduled && !a.is_started());
        if let Some(position) = waiting {
            self.new_activities.remove(position);
            self.append_canceled(scheduled, requested);
        } else if let Some(row) = self.new_activities.iter_mut().find(|a| a.scheduled_event_id == scheduled) {
            row.cancel_requested_id = requested;
        } else if let Some(activity) = known {
            if activity.is_started() {
                self.cancelled_activities.push((scheduled, requested));
            } else {
                self.ended_activities.push(activity.key());
                self.append_canceled(scheduled, requested);
            }
        }
        Ok(())
    }

    /// An activity that no worker had is cancelled right away; buffered, so that it follows the commands' events.
    fn append_canceled(&mut self, scheduled_event_id: i64, requested: i64) {
        self.buffer(A::ActivityTaskCanceledEventAttributes(ActivityTaskCanceledEventAttributes {
            details: Some(proto::json_payloads("ACTIVITY_ID_NOT_STARTED")),
            latest_cancel_requested_event_id: requested,
            scheduled_event_id,
            ..Default::default()
        }));
    }

    /// The activity has a result. Someone who completes it by its id need not wait for a worker to start it.
    pub(crate) fn complete_activity(
        &mut self,
        activity: &Activity,
        identity: &str,
        result: Option<Payloads>,
    ) -> Result<(), Status> {
        let end = ActivityEnd::Completed { result };
        if activity.is_started() {
            return self.end_activity(activity, identity, end);
        }
        let mut started = activity.clone();
        started.start(identity.to_owned(), self.now, self.circumstances.process);
        self.end_activity(&started, identity, end)?;
        // The row is still that of a waiting activity.
        if let Some(key) = self.ended_activities.last_mut() {
            key.state = activity.state;
        }
        Ok(())
    }

    /// Started and the end of an activity.
    pub(crate) fn end_activity(&mut self, activity: &Activity, identity: &str, end: ActivityEnd) -> Result<(), Status> {
        self.ended_activities.push(activity.key());
        let scheduled_event_id = activity.scheduled_event_id;
        let started_event_id = match activity.started_at {
            Some(at) if activity.is_started() => self.write_activity_start(activity, at)?,
            _ => 0,
        };
        let identity = identity.to_owned();
        self.arrive(match end {
            ActivityEnd::Completed { result } => {
                A::ActivityTaskCompletedEventAttributes(ActivityTaskCompletedEventAttributes {
                    result,
                    scheduled_event_id,
                    started_event_id,
                    identity,
                    ..Default::default()
                })
            }
            ActivityEnd::Failed { failure, retry_state, cause } => {
                A::ActivityTaskFailedEventAttributes(ActivityTaskFailedEventAttributes {
                    failure,
                    scheduled_event_id,
                    started_event_id,
                    identity,
                    retry_state: retry_state as i32,
                    cause: cause as i32,
                    ..Default::default()
                })
            }
            ActivityEnd::TimedOut { failure, retry_state } => {
                A::ActivityTaskTimedOutEventAttributes(ActivityTaskTimedOutEventAttributes {
                    failure: Some(failure),
                    scheduled_event_id,
                    started_event_id,
                    retry_state: retry_state as i32,
                })
            }
            ActivityEnd::Canceled { details } => {
                A::ActivityTaskCanceledEventAttributes(ActivityTaskCanceledEventAttributes {
                    details,
                    latest_cancel_requested_event_id: activity.cancel_requested_id,
                    scheduled_event_id,
                    started_event_id,
                    identity,
                    ..Default::default()
                })
            }
        });
        Ok(())
    }

    fn write_activity_start(&mut self, activity: &Activity, at: DateTime<Utc>) -> Result<i64, Status> {
        let attributes = A::ActivityTaskStartedEventAttributes(ActivityTaskStartedEventAttributes {
            scheduled_event_id: activity.scheduled_event_id,
            identity: activity.identity.clone(),
            attempt: activity.attempt,
            last_failure: activity.last_failure()?,
            ..Default::default()
        });
        // The event says when the attempt started, not when that was written.
        let now = self.now;
        self.now = at.min(now);
        let id = self.arrive_quietly(attributes);
        self.now = now;
        Ok(id)
    }

    /// An attempt failed: schedule another one, or end.
    pub(crate) fn fail_activity(
        &mut self,
        activity: &Activity,
        failure: Option<Failure>,
        heartbeat: Option<Vec<u8>>,
        identity: &str,
        cause: ActivityTaskFailedCause,
    ) -> Result<Retry, Status> {
        let verdict = retry::after_failure(activity, failure.as_ref(), self.now)?;
        match verdict {
            Retry::After(ms) => self.retry_activity(activity, ms, failure.as_ref(), heartbeat)?,
            Retry::No(retry_state) => {
                self.end_activity(activity, identity, ActivityEnd::Failed { failure, retry_state, cause })?;
            }
        }
        Ok(verdict)
    }

    /// An attempt timed out, or its process is gone (a heartbeat timeout).
    pub(crate) fn time_out_activity(&mut self, activity: &Activity, kind: TimeoutType) -> Result<Retry, Status> {
        let failure = timeout_failure(activity, kind, false)?;
        let verdict = retry::after_failure(activity, Some(&failure), self.now)?;
        match verdict {
            Retry::After(ms) => self.retry_activity(activity, ms, Some(&failure), None)?,
            Retry::No(retry_state) => {
                let failure = timeout_failure(activity, kind, true)?;
                self.end_activity(activity, "", ActivityEnd::TimedOut { failure, retry_state })?;
            }
        }
        Ok(verdict)
    }

    fn retry_activity(
        &mut self,
        activity: &Activity,
        wait_ms: i64,
        failure: Option<&Failure>,
        heartbeat_details: Option<Vec<u8>>,
    ) -> Result<(), Status> {
        let visible_at = proto::after(self.now, wait_ms);
        let schedule_to_start = proto::millis_or_zero(activity.scheduled()?.schedule_to_start_timeout.as_ref());
        let start_by = proto::deadline(visible_at, schedule_to_start);
        let due_at = proto::earlier(Some(visible_at), proto::earlier(start_by, activity.expires_at));
        self.retried_activities.push(ActivityRetry {
            key: activity.key(),
            visible_at,
            start_by,
            due_at,
            last_failure: failure.map(Message::encode_to_vec).unwrap_or_default(),
            heartbeat_details,
        });
        Ok(())
    }
}
