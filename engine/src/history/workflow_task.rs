//! The workflow task: scheduled, started, completed, failed, timed out.
//!
//! The first attempt's events are in the history. Later attempts are transient: nothing is written until one completes,
//! so that a workflow that keeps failing does not fill up its history. Events that arrive in between turn the next attempt
//! into a first one (see `store::dispatch`).

use temporalio_common::protos::temporal::api::{
    enums::v1::{SuggestContinueAsNewReason, TimeoutType, WorkflowTaskFailedCause},
    failure::v1::Failure,
    history::v1::{
        HistoryEvent, WorkflowTaskFailedEventAttributes, WorkflowTaskScheduledEventAttributes,
        WorkflowTaskStartedEventAttributes, WorkflowTaskTimedOutEventAttributes, history_event::Attributes as A,
    },
};
use tonic::Status;

use super::{Transition, updates::SUGGEST_CONTINUE_UPDATES};
use crate::{
    model::{Run, TaskState},
    proto,
    token::TaskToken,
};

/// History length from which on workflows are advised to continue as new.
const SUGGEST_CONTINUE_EVENTS: i64 = 4096;
/// History size from which on workflows are advised to continue as new.
const SUGGEST_CONTINUE_BYTES: i64 = 4 * 1024 * 1024;
/// First and longest wait before a failed workflow task is offered again.
const BACKOFF_MS: (i64, i64) = (100, 60_000);

/// Wait before the given attempt (2 and up) of a task whose previous attempt was answered with a failure.
fn backoff_ms(attempt: i32) -> i64 {
    let doublings = u32::try_from(attempt.saturating_sub(2)).unwrap_or(0).min(20);
    BACKOFF_MS.0.saturating_mul(1 << doublings).min(BACKOFF_MS.1)
}

pub(crate) fn scheduled_attributes(run: &Run) -> WorkflowTaskScheduledEventAttributes {
    WorkflowTaskScheduledEventAttributes {
        task_queue: Some(proto::queue(&run.task_queue)),
        start_to_close_timeout: Some(proto::duration(run.wft_timeout_ms)),
        attempt: run.wft_attempt,
    }
}

/// Attributes of the Started event of the task in flight; the same when handed out and when written.
pub(crate) fn started_attributes(run: &Run) -> WorkflowTaskStartedEventAttributes {
    let mut reasons = Vec::new();
    if run.last_event_id >= SUGGEST_CONTINUE_EVENTS {
        reasons.push(SuggestContinueAsNewReason::TooManyHistoryEvents as i32);
    }
    if run.history_bytes >= SUGGEST_CONTINUE_BYTES {
        reasons.push(SuggestContinueAsNewReason::HistorySizeTooLarge as i32);
    }
    if run.updates.total() >= SUGGEST_CONTINUE_UPDATES {
        reasons.push(SuggestContinueAsNewReason::TooManyUpdates as i32);
    }
    WorkflowTaskStartedEventAttributes {
        scheduled_event_id: run.task_scheduled_id(),
        identity: run.wft_identity.clone(),
        suggest_continue_as_new: !reasons.is_empty(),
        suggest_continue_as_new_reasons: reasons,
        history_size_bytes: run.history_bytes,
        ..Default::default()
    }
}

/// Events of the task in flight that are not stored yet, under their reserved ids.
pub(crate) fn events_in_flight(run: &Run) -> Vec<HistoryEvent> {
    let mut events = Vec::new();
    if run.wft_state != TaskState::Started {
        return events;
    }
    if run.task_is_transient() {
        let at = run.wft_scheduled_at.unwrap_or_default();
        let scheduled = A::WorkflowTaskScheduledEventAttributes(scheduled_attributes(run));
        events.push(proto::event(run.task_scheduled_id(), at, scheduled));
    }
    let started = A::WorkflowTaskStartedEventAttributes(started_attributes(run));
    events.push(proto::event(run.task_started_id(), run.wft_started_at.unwrap_or_default(), started));
    events
}

/// Whether a client's token is for the task in flight.
pub(crate) fn holds(run: &Run, token: &TaskToken) -> bool {
    run.wft_state == TaskState::Started
        && run.task_scheduled_id() == token.scheduled_event_id
        && run.wft_attempt == token.attempt
        && token.is_of(run.wft_started_at)
}

impl Transition {
    /// Makes sure that the workflow gets to see what has been appended.
    pub(crate) fn ensure_task(&mut self) {
        if self.run.wft_state == TaskState::None && !self.is_closed() {
            self.schedule_task(0);
        }
    }

    fn schedule_task(&mut self, wait_ms: i64) {
        self.run.wft_state = TaskState::Scheduled;
        self.run.wft_scheduled_at = Some(self.now);
        self.run.wft_ready_at = Some(proto::after(self.wall, wait_ms));
        self.run.wft_due_at = proto::deadline(self.wall, wait_ms);
        self.run.wft_queue.clone_from(&self.run.task_queue);
        if self.run.wft_attempt > 1 {
            self.run.wft_scheduled_id = 0;
            return;
        }
        self.offer_sticky();
        let attributes = A::WorkflowTaskScheduledEventAttributes(scheduled_attributes(&self.run));
        self.run.wft_scheduled_id = self.append(attributes);
    }

    /// A task made to deliver updates: its events are written when it ends with something to keep.
    pub(super) fn schedule_speculative_task(&mut self) {
        self.run.wft_state = TaskState::Scheduled;
        self.run.wft_scheduled_at = Some(self.now);
        self.run.wft_ready_at = Some(self.wall);
        self.run.wft_due_at = None;
        self.run.wft_queue.clone_from(&self.run.task_queue);
        self.run.wft_scheduled_id = 0;
        self.run.wft_base_id = self.run.last_event_id;
        self.offer_sticky();
    }

    /// The first attempt goes to the worker that has the run in its cache.
    fn offer_sticky(&mut self) {
        if let Some(sticky) = self.run.sticky_queue.clone().filter(|_| self.circumstances.sticky_alive) {
            self.run.wft_queue = sticky;
            self.run.wft_due_at = Some(proto::after(self.wall, self.run.sticky_timeout_ms));
        }
    }

    /// Gives the scheduled task straight to the worker being answered.
    pub(crate) fn start_task(&mut self, identity: &str) {
        self.run.wft_state = TaskState::Started;
        self.run.wft_started_at = Some(self.now);
        self.run.wft_due_at = Some(proto::after(self.wall, self.run.wft_timeout_ms));
        self.run.wft_process = Some(self.circumstances.process);
        identity.clone_into(&mut self.run.wft_identity);
    }

    /// Writes the events of the task in flight. Returns the ids of Scheduled and Started.
    pub(crate) fn write_task_start(&mut self) -> (i64, i64) {
        for event in events_in_flight(&self.run) {
            self.append_event(event);
        }
        if self.run.task_is_transient() {
            self.run.wft_scheduled_id = self.run.last_event_id - 1;
        }
        (self.run.wft_scheduled_id, self.run.last_event_id)
    }

    /// The task is over; the run has none until one is scheduled.
    pub(crate) fn clear_task(&mut self) {
        self.run.wft_state = TaskState::None;
        self.run.wft_scheduled_id = 0;
        self.run.wft_scheduled_at = None;
        self.run.wft_started_at = None;
        self.run.wft_ready_at = None;
        self.run.wft_due_at = None;
        self.run.wft_process = None;
        self.run.wft_identity.clear();
    }

    pub(crate) fn leave_sticky(&mut self) {
        self.run.sticky_queue = None;
        self.run.sticky_process = None;
    }

    /// After an attempt that came to nothing: buffered events, then the next attempt.
    fn next_attempt(&mut self, wait_ms: i64) -> Result<(), Status> {
        // The worker's cached run may be what is wrong: the first attempt without it counts as the first, as on
        // Temporal's servers.
        let was_sticky = self.run.sticky_queue.is_some();
        self.clear_task();
        self.leave_sticky();
        self.redeliver_updates(false);
        if !was_sticky {
            self.run.wft_attempt = self.run.wft_attempt.saturating_add(1);
        }
        self.run.wft_base_id = self.run.last_event_id;
        self.flush_buffered()?;
        self.schedule_task(if was_sticky { 0 } else { wait_ms });
        Ok(())
    }

    /// The worker (or the check of its commands) says that the task failed.
    pub(crate) fn fail_task(
        &mut self,
        cause: WorkflowTaskFailedCause,
        failure: Option<Failure>,
        identity: &str,
    ) -> Result<(), Status> {
        let had_news = self.has_buffered();
        if self.run.wft_attempt == 1 {
            self.write_task_failed(cause, failure, identity);
        }
        let wait = if had_news { 0 } else { backoff_ms(self.run.wft_attempt.saturating_add(1)) };
        self.next_attempt(wait)
    }

    fn write_task_failed(&mut self, cause: WorkflowTaskFailedCause, failure: Option<Failure>, identity: &str) {
        let (scheduled_event_id, started_event_id) = self.write_task_start();
        self.append(A::WorkflowTaskFailedEventAttributes(WorkflowTaskFailedEventAttributes {
            scheduled_event_id,
            started_event_id,
            cause: cause as i32,
            failure,
            identity: identity.to_owned(),
            ..Default::default()
        }));
    }

    /// The worker did not answer in time, or its process is gone.
    pub(crate) fn time_out_task(&mut self) -> Result<(), Status> {
        if self.run.wft_attempt == 1 {
            let (scheduled_event_id, started_event_id) = self.write_task_start();
            self.append_task_timed_out(scheduled_event_id, started_event_id, TimeoutType::StartToClose);
        }
        self.next_attempt(0)
    }

    /// Nobody took the task from the sticky queue: offer it on the normal one.
    pub(crate) fn time_out_sticky(&mut self) {
        if self.run.task_is_transient() {
            let at = self.run.wft_scheduled_at.unwrap_or(self.now);
            let scheduled = A::WorkflowTaskScheduledEventAttributes(scheduled_attributes(&self.run));
            self.run.wft_scheduled_id = self.append_event(proto::event(0, at, scheduled));
        }
        let scheduled = self.run.wft_scheduled_id;
        self.append_task_timed_out(scheduled, 0, TimeoutType::ScheduleToStart);
        self.clear_task();
        self.leave_sticky();
        self.schedule_task(0);
    }

    fn append_task_timed_out(&mut self, scheduled_event_id: i64, started_event_id: i64, timeout_type: TimeoutType) {
        self.append(A::WorkflowTaskTimedOutEventAttributes(WorkflowTaskTimedOutEventAttributes {
            scheduled_event_id,
            started_event_id,
            timeout_type: timeout_type as i32,
        }));
    }

    /// The run is closed from outside: the task in flight ends with it, and what was buffered is kept.
    pub(crate) fn abort_task(&mut self) -> Result<(), Status> {
        if self.run.wft_state == TaskState::Started {
            if self.run.wft_attempt == 1 {
                self.write_task_failed(WorkflowTaskFailedCause::ForceCloseCommand, None, "");
            }
            self.flush_buffered()?;
        }
        self.clear_task();
        Ok(())
    }
}

impl Transition {
    /// The sticky queue's process is gone: offer the task on the normal queue. No event records this.
    pub(crate) fn reroute_task(&mut self) {
        self.leave_sticky();
        self.run.wft_queue.clone_from(&self.run.task_queue);
        self.run.wft_due_at = None;
    }
}

impl Transition {
    /// The task was claimed but never reached a worker: it waits again, for whoever polls the normal queue.
    pub(crate) fn untake_task(&mut self) -> Result<(), Status> {
        if self.has_buffered() {
            // An attempt with events after it cannot be undone without a trace.
            return self.time_out_task();
        }
        self.run.wft_state = TaskState::Scheduled;
        self.run.wft_queue.clone_from(&self.run.task_queue);
        self.run.wft_started_at = None;
        self.run.wft_due_at = None;
        self.run.wft_process = None;
        self.run.wft_identity.clear();
        self.leave_sticky();
        self.redeliver_updates(false);
        Ok(())
    }
}
