//! What a history says is still open: the state of a run, derived from its events.
//!
//! Pure, and independent of how the rows came about: a reset builds a run from it.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeZone, Utc};
use temporalio_common::protos::temporal::api::{
    common::v1::{Memo, SearchAttributes},
    history::v1::{
        ActivityTaskScheduledEventAttributes, HistoryEvent,
        RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
        SignalExternalWorkflowExecutionInitiatedEventAttributes, StartChildWorkflowExecutionInitiatedEventAttributes,
        WorkflowExecutionStartedEventAttributes, history_event::Attributes as A,
    },
};
use uuid::Uuid;

use super::properties;
use crate::{model::RecordedUpdate, proto};

/// An activity that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct OpenActivity {
    pub(crate) attributes: ActivityTaskScheduledEventAttributes,
    pub(crate) cancel_requested_id: i64,
    /// Started event and worker.
    pub(crate) started: Option<(i64, String)>,
}

/// A child that has neither failed to start nor ended.
#[derive(Clone, Debug)]
pub(crate) struct OpenChild {
    pub(crate) attributes: StartChildWorkflowExecutionInitiatedEventAttributes,
    /// Started event and run.
    pub(crate) started: Option<(i64, Uuid)>,
}

/// A workflow task that is scheduled or started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenTask {
    pub(crate) scheduled_event_id: i64,
    /// 0: not started.
    pub(crate) started_event_id: i64,
}

/// The state after the events seen so far; maps are keyed by the event that scheduled or initiated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) started: WorkflowExecutionStartedEventAttributes,
    pub(crate) activities: BTreeMap<i64, OpenActivity>,
    /// By timer id: Started event, when it fires.
    pub(crate) timers: BTreeMap<String, (i64, DateTime<Utc>)>,
    pub(crate) children: BTreeMap<i64, OpenChild>,
    pub(crate) signals: BTreeMap<i64, SignalExternalWorkflowExecutionInitiatedEventAttributes>,
    pub(crate) cancels: BTreeMap<i64, RequestCancelExternalWorkflowExecutionInitiatedEventAttributes>,
    /// Accepted updates, by id.
    pub(crate) updates: BTreeMap<String, RecordedUpdate>,
    /// Updates whose request is in the history and that are not accepted.
    pub(crate) admitted: Vec<String>,
    pub(crate) memo: Memo,
    pub(crate) search_attributes: SearchAttributes,
    pub(crate) cancel_requested: bool,
    pub(crate) previous_started_id: i64,
    pub(crate) task: Option<OpenTask>,
}

fn time(event: &HistoryEvent) -> DateTime<Utc> {
    let stamp = event.event_time.unwrap_or_default();
    Utc.timestamp_opt(stamp.seconds, u32::try_from(stamp.nanos).unwrap_or(0)).single().unwrap_or_default()
}

impl Replayed {
    pub(crate) fn of<'a>(events: impl IntoIterator<Item = &'a HistoryEvent>) -> Self {
        let mut state = Self::default();
        events.into_iter().for_each(|event| state.apply(event));
        state
    }

    pub(crate) fn apply(&mut self, event: &HistoryEvent) {
        let id = event.event_id;
        match &event.attributes {
            Some(A::WorkflowExecutionStartedEventAttributes(a)) => {
                self.memo = a.memo.clone().unwrap_or_default();
                self.search_attributes = a.search_attributes.clone().unwrap_or_default();
                self.started = a.clone();
            }
            Some(A::WorkflowExecutionCancelRequestedEventAttributes(_)) => self.cancel_requested = true,
            Some(A::TimerStartedEventAttributes(a)) => {
                let fires = proto::after(time(event), proto::millis_or_zero(a.start_to_fire_timeout.as_ref()));
                self.timers.insert(a.timer_id.clone(), (id, fires));
            }
            Some(A::TimerFiredEventAttributes(a)) => drop(self.timers.remove(&a.timer_id)),
            Some(A::TimerCanceledEventAttributes(a)) => drop(self.timers.remove(&a.timer_id)),
            Some(A::UpsertWorkflowSearchAttributesEventAttributes(a)) => {
                properties::merge_search_attributes(&mut self.search_attributes, a.search_attributes.as_ref());
            }
            Some(A::WorkflowPropertiesModifiedEventAttributes(a)) => {
                properties::merge_memo(&mut self.memo, a.upserted_memo.as_ref());
            }
            Some(attributes) => {
                self.task_event(id, attributes);
                self.activity_event(id, attributes);
                self.child_event(id, attributes);
                self.external_event(id, attributes);
                self.update_event(id, attributes);
            }
            None => {}
        }
    }

    fn task_event(&mut self, id: i64, attributes: &A) {
        match attributes {
            A::WorkflowTaskScheduledEventAttributes(_) => {
                self.task = Some(OpenTask { scheduled_event_id: id, started_event_id: 0 });
            }
            A::WorkflowTaskStartedEventAttributes(a) => {
                self.task = Some(OpenTask { scheduled_event_id: a.scheduled_event_id, started_event_id: id });
            }
            A::WorkflowTaskCompletedEventAttributes(a) => {
                self.task = None;
                self.previous_started_id = a.started_event_id;
            }
            A::WorkflowTaskFailedEventAttributes(_) | A::WorkflowTaskTimedOutEventAttributes(_) => self.task = None,
            _ => {}
        }
    }

    fn activity_event(&mut self, id: i64, attributes: &A) {
        let ended = match attributes {
            A::ActivityTaskScheduledEventAttributes(a) => {
                let attributes = a.clone();
                self.activities.insert(id, OpenActivity { attributes, cancel_requested_id: 0, started: None });
                return;
            }
            A::ActivityTaskStartedEventAttributes(a) => {
                if let Some(open) = self.activities.get_mut(&a.scheduled_event_id) {
                    open.started = Some((id, a.identity.clone()));
                }
                return;
            }
            A::ActivityTaskCancelRequestedEventAttributes(a) => {
                if let Some(open) = self.activities.get_mut(&a.scheduled_event_id) {
                    open.cancel_requested_id = id;
                }
                return;
            }
            A::ActivityTaskCompletedEventAttributes(a) => a.scheduled_event_id,
            A::ActivityTaskFailedEventAttributes(a) => a.scheduled_event_id,
            A::ActivityTaskTimedOutEventAttributes(a) => a.scheduled_event_id,
            A::ActivityTaskCanceledEventAttributes(a) => a.scheduled_event_id,
            _ => return,
        };
        self.activities.remove(&ended);
    }

    fn child_event(&mut self, id: i64, attributes: &A) {
        match attributes {
            A::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
                self.children.insert(id, OpenChild { attributes: a.clone(), started: None });
            }
            A::ChildWorkflowExecutionStartedEventAttributes(a) => {
                let run = a.workflow_execution.as_ref().and_then(|e| Uuid::parse_str(&e.run_id).ok());
                if let Some(child) = self.children.get_mut(&a.initiated_event_id) {
                    child.started = Some((id, run.unwrap_or_default()));
                }
            }
            other => {
                if let Some(initiated) = child_end(other) {
                    self.children.remove(&initiated);
                }
            }
        }
    }

    fn external_event(&mut self, id: i64, attributes: &A) {
        match attributes {
            A::SignalExternalWorkflowExecutionInitiatedEventAttributes(a) => drop(self.signals.insert(id, a.clone())),
            A::ExternalWorkflowExecutionSignaledEventAttributes(a) => drop(self.signals.remove(&a.initiated_event_id)),
            A::SignalExternalWorkflowExecutionFailedEventAttributes(a) => {
                self.signals.remove(&a.initiated_event_id);
            }
            A::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(a) => {
                self.cancels.insert(id, a.clone());
            }
            A::ExternalWorkflowExecutionCancelRequestedEventAttributes(a) => {
                self.cancels.remove(&a.initiated_event_id);
            }
            A::RequestCancelExternalWorkflowExecutionFailedEventAttributes(a) => {
                self.cancels.remove(&a.initiated_event_id);
            }
            _ => {}
        }
    }

    fn update_event(&mut self, id: i64, attributes: &A) {
        match attributes {
            A::WorkflowExecutionUpdateAdmittedEventAttributes(a) => {
                let request = a.request.clone().unwrap_or_default();
                self.admitted.push(request.meta.unwrap_or_default().update_id);
            }
            A::WorkflowExecutionUpdateAcceptedEventAttributes(a) => {
                let update = a.protocol_instance_id.clone();
                self.admitted.retain(|other| *other != update);
                let record = RecordedUpdate { id: update.clone(), accepted_event_id: id, completed_event_id: 0 };
                self.updates.insert(update, record);
            }
            A::WorkflowExecutionUpdateCompletedEventAttributes(a) => {
                let update = a.meta.clone().unwrap_or_default().update_id;
                if let Some(record) = self.updates.get_mut(&update) {
                    record.completed_event_id = id;
                }
            }
            _ => {}
        }
    }
}

/// The Initiated event of the child that this event ends.
pub(crate) fn child_end(attributes: &A) -> Option<i64> {
    Some(match attributes {
        A::StartChildWorkflowExecutionFailedEventAttributes(a) => a.initiated_event_id,
        A::ChildWorkflowExecutionCompletedEventAttributes(a) => a.initiated_event_id,
        A::ChildWorkflowExecutionFailedEventAttributes(a) => a.initiated_event_id,
        A::ChildWorkflowExecutionCanceledEventAttributes(a) => a.initiated_event_id,
        A::ChildWorkflowExecutionTimedOutEventAttributes(a) => a.initiated_event_id,
        A::ChildWorkflowExecutionTerminatedEventAttributes(a) => a.initiated_event_id,
        _ => return None,
    })
}
