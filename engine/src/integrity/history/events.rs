//! What each kind of event requires to have come before, and what it leaves pending.

use prost_types::Timestamp;
use temporalio_common::protos::temporal::api::{
    enums::v1::WorkflowExecutionStatus as Status, history::v1::history_event::Attributes as A,
};

use super::{Course, Pending, Task, moment};

impl Course {
    /// The effect of one event. Buffered events have id 0.
    pub(in crate::integrity) fn apply(&mut self, id: i64, attributes: &A, time: Option<&Timestamp>) {
        match attributes {
            A::WorkflowExecutionStartedEventAttributes(_) => self.unseen = Some(id),
            A::WorkflowTaskScheduledEventAttributes(_) => {
                self.need(self.task == Task::None, id, "a workflow task is scheduled while there is one");
                self.task = Task::Scheduled(id);
                self.unseen = None;
            }
            A::WorkflowTaskStartedEventAttributes(a) => {
                let fits = self.task == Task::Scheduled(a.scheduled_event_id);
                self.need(fits, id, "the workflow task that is started has not been scheduled");
                self.task = Task::Started(a.scheduled_event_id, id);
                self.task_time(id, time);
            }
            A::WorkflowTaskCompletedEventAttributes(a) => {
                let fits = self.task == Task::Started(a.scheduled_event_id, a.started_event_id);
                self.need(fits, id, "the workflow task that is completed has not been started");
                self.task = Task::None;
                self.completed = (a.started_event_id, id);
                self.task_time(id, time);
            }
            A::WorkflowTaskFailedEventAttributes(a) => {
                let fits = self.task == Task::Started(a.scheduled_event_id, a.started_event_id);
                self.need(fits, id, "the workflow task that failed has not been started");
                self.task = Task::None;
                self.unseen = Some(id);
            }
            A::WorkflowTaskTimedOutEventAttributes(a) => {
                let fits = match a.started_event_id {
                    0 => self.task == Task::Scheduled(a.scheduled_event_id),
                    started => self.task == Task::Started(a.scheduled_event_id, started),
                };
                self.need(fits, id, "the workflow task that timed out has not been scheduled");
                self.task = Task::None;
                self.unseen = Some(id);
            }
            other => self.apply_part(id, other, time),
        }
    }

    /// Events of activities, timers and updates, and those that require nothing.
    fn apply_part(&mut self, id: i64, attributes: &A, time: Option<&Timestamp>) {
        match attributes {
            A::ActivityTaskScheduledEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
                let twice = self.activities.values().any(|p| p.name == a.activity_id);
                self.need(!twice, id, "an activity of this id is pending");
                let pending = Pending { name: a.activity_id.clone(), ..Pending::default() };
                self.activities.insert(id, pending);
            }
            A::ActivityTaskStartedEventAttributes(a) => match self.activities.get_mut(&a.scheduled_event_id) {
                Some(pending) if pending.started == 0 => pending.started = if id == 0 { -1 } else { id },
                Some(_) => self.note(Some(id), "the activity is started a second time"),
                None => self.note(Some(id), "the activity that is started is not pending"),
            },
            A::ActivityTaskCompletedEventAttributes(a) => {
                self.end_activity(id, a.scheduled_event_id, a.started_event_id);
            }
            A::ActivityTaskFailedEventAttributes(a) => self.end_activity(id, a.scheduled_event_id, a.started_event_id),
            A::ActivityTaskTimedOutEventAttributes(a) => {
                self.end_activity(id, a.scheduled_event_id, a.started_event_id);
            }
            A::ActivityTaskCanceledEventAttributes(a) => {
                self.end_activity(id, a.scheduled_event_id, a.started_event_id);
            }
            A::ActivityTaskCancelRequestedEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
                match self.activities.get_mut(&a.scheduled_event_id) {
                    Some(pending) => pending.cancel_requested = id,
                    None => self.note(Some(id), "the activity that is to be cancelled is not pending"),
                }
            }
            A::TimerStartedEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
                let fresh = self.timers.insert(a.timer_id.clone(), id).is_none();
                self.need(fresh, id, "a timer of this id is pending");
            }
            A::TimerFiredEventAttributes(a) => {
                self.end_timer(id, &a.timer_id, a.started_event_id);
                self.unseen = self.unseen.or(Some(id));
            }
            A::TimerCanceledEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
                self.end_timer(id, &a.timer_id, a.started_event_id);
            }
            A::WorkflowExecutionUpdateAcceptedEventAttributes(a) => {
                let update = a.accepted_request.as_ref().and_then(|r| r.meta.as_ref()).map(|m| m.update_id.clone());
                let update = update.unwrap_or_else(|| a.protocol_instance_id.clone());
                let fresh = self.updates.insert(update, id).is_none();
                self.need(fresh, id, "the update is accepted a second time");
            }
            A::WorkflowExecutionUpdateCompletedEventAttributes(a) => {
                let update = a.meta.as_ref().map(|m| m.update_id.as_str()).unwrap_or_default();
                let fits = self.updates.get(update) == Some(&a.accepted_event_id);
                self.need(fits, id, "the update that is completed has not been accepted");
            }
            A::MarkerRecordedEventAttributes(a) => self.commanded(id, a.workflow_task_completed_event_id),
            A::UpsertWorkflowSearchAttributesEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
            }
            A::WorkflowPropertiesModifiedEventAttributes(a) => self.commanded(id, a.workflow_task_completed_event_id),
            A::WorkflowExecutionSignaledEventAttributes(_)
            | A::WorkflowExecutionCancelRequestedEventAttributes(_)
            | A::WorkflowExecutionUpdateAdmittedEventAttributes(_)
            | A::WorkflowExecutionOptionsUpdatedEventAttributes(_) => self.unseen = self.unseen.or(Some(id)),
            other => self.apply_other_runs(id, other, time),
        }
    }

    /// Events about other runs, and the end.
    fn apply_other_runs(&mut self, id: i64, attributes: &A, time: Option<&Timestamp>) {
        match attributes {
            A::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
                let pending = Pending { name: a.workflow_id.clone(), ..Pending::default() };
                self.children.insert(id, pending);
            }
            A::StartChildWorkflowExecutionFailedEventAttributes(a) => self.end_child(id, a.initiated_event_id, 0),
            A::ChildWorkflowExecutionStartedEventAttributes(a) => {
                self.unseen = self.unseen.or(Some(id));
                match self.children.get_mut(&a.initiated_event_id) {
                    Some(pending) if pending.started == 0 => pending.started = if id == 0 { -1 } else { id },
                    Some(_) => self.note(Some(id), "the child is started a second time"),
                    None => self.note(Some(id), "the child that is started is not pending"),
                }
            }
            A::ChildWorkflowExecutionCompletedEventAttributes(a) => {
                self.end_child(id, a.initiated_event_id, a.started_event_id);
            }
            A::ChildWorkflowExecutionFailedEventAttributes(a) => {
                self.end_child(id, a.initiated_event_id, a.started_event_id);
            }
            A::ChildWorkflowExecutionCanceledEventAttributes(a) => {
                self.end_child(id, a.initiated_event_id, a.started_event_id);
            }
            A::ChildWorkflowExecutionTimedOutEventAttributes(a) => {
                self.end_child(id, a.initiated_event_id, a.started_event_id);
            }
            A::ChildWorkflowExecutionTerminatedEventAttributes(a) => {
                self.end_child(id, a.initiated_event_id, a.started_event_id);
            }
            A::SignalExternalWorkflowExecutionInitiatedEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
                self.signals.insert(id, ());
            }
            A::ExternalWorkflowExecutionSignaledEventAttributes(a) => self.end_signal(id, a.initiated_event_id),
            A::SignalExternalWorkflowExecutionFailedEventAttributes(a) => self.end_signal(id, a.initiated_event_id),
            A::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
                self.cancels.insert(id, ());
            }
            A::ExternalWorkflowExecutionCancelRequestedEventAttributes(a) => self.end_cancel(id, a.initiated_event_id),
            A::RequestCancelExternalWorkflowExecutionFailedEventAttributes(a) => {
                self.end_cancel(id, a.initiated_event_id);
            }
            other => self.apply_end(id, other, time),
        }
    }

    fn apply_end(&mut self, id: i64, attributes: &A, time: Option<&Timestamp>) {
        let status = match attributes {
            A::WorkflowExecutionCompletedEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
                Status::Completed
            }
            A::WorkflowExecutionFailedEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
                Status::Failed
            }
            A::WorkflowExecutionCanceledEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
                Status::Canceled
            }
            A::WorkflowExecutionContinuedAsNewEventAttributes(a) => {
                self.commanded(id, a.workflow_task_completed_event_id);
                Status::ContinuedAsNew
            }
            A::WorkflowExecutionTerminatedEventAttributes(_) => Status::Terminated,
            A::WorkflowExecutionTimedOutEventAttributes(_) => Status::TimedOut,
            other => {
                self.note(Some(id), format!("{:?} is no event of this engine", other.event_type()));
                return;
            }
        };
        self.closed = Some((id, status, moment(time)));
    }

    /// The event follows from a command of the workflow task completed last.
    fn commanded(&mut self, id: i64, completed: i64) {
        let last = self.completed.1;
        if completed != last || last == 0 {
            self.note(
                Some(id),
                format!("the event names {completed} as its completed workflow task, the last one is {last}"),
            );
        }
    }

    fn end_activity(&mut self, id: i64, scheduled: i64, started: i64) {
        self.unseen = self.unseen.or(Some(id));
        match self.activities.remove(&scheduled) {
            None => self.note(Some(id), "the activity that ended is not pending"),
            // In the buffer its Started event has no id yet.
            Some(pending) if started != pending.started && id != 0 => {
                self.note(Some(id), format!("the activity's Started event is {}, not {started}", pending.started));
            }
            Some(_) => {}
        }
    }

    fn end_timer(&mut self, id: i64, timer: &str, started: i64) {
        if self.timers.remove(timer) != Some(started) {
            self.note(Some(id), format!("the timer {timer:?} that ended is not pending"));
        }
    }

    fn end_child(&mut self, id: i64, initiated: i64, started: i64) {
        self.unseen = self.unseen.or(Some(id));
        match self.children.remove(&initiated) {
            None => self.note(Some(id), "the child that ended is not pending"),
            Some(pending) if started != pending.started && id != 0 => {
                self.note(Some(id), format!("the child's Started event is {}, not {started}", pending.started));
            }
            Some(_) => {}
        }
    }

    fn end_signal(&mut self, id: i64, initiated: i64) {
        self.unseen = self.unseen.or(Some(id));
        let fits = self.signals.remove(&initiated).is_some();
        self.need(fits, id, "the signal to another workflow that ended is not pending");
    }

    fn end_cancel(&mut self, id: i64, initiated: i64) {
        self.unseen = self.unseen.or(Some(id));
        let fits = self.cancels.remove(&initiated).is_some();
        self.need(fits, id, "the cancellation of another workflow that ended is not pending");
    }
}
