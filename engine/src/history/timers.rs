//! Timers: started, fired, cancelled.

use temporalio_common::protos::temporal::api::{
    command::v1::{CancelTimerCommandAttributes, StartTimerCommandAttributes},
    enums::v1::WorkflowTaskFailedCause as Cause,
    history::v1::{
        HistoryEvent, TimerCanceledEventAttributes, TimerFiredEventAttributes, TimerStartedEventAttributes,
        history_event::Attributes as A,
    },
};

use super::{Transition, commands::Refused};
use crate::proto;

impl Transition {
    pub(crate) fn start_timer(
        &mut self,
        command: StartTimerCommandAttributes,
        event: HistoryEvent,
        completed_id: i64,
    ) -> Result<(), Refused> {
        let refuse = |s: tonic::Status| Refused::task(Cause::BadStartTimerAttributes, s.message());
        proto::name(&command.timer_id, "timer_id").map_err(refuse)?;
        let ms = proto::millis(command.start_to_fire_timeout.as_ref(), "start_to_fire_timeout").map_err(refuse)?;
        if self.new_timers.iter().any(|(id, ..)| *id == command.timer_id) {
            return Err(Refused::task(Cause::StartTimerDuplicateId, "timer_id is already started"));
        }
        let attributes = TimerStartedEventAttributes {
            timer_id: command.timer_id.clone(),
            start_to_fire_timeout: command.start_to_fire_timeout,
            workflow_task_completed_event_id: completed_id,
        };
        let id =
            self.append_event(HistoryEvent { attributes: Some(A::TimerStartedEventAttributes(attributes)), ..event });
        self.new_timers.push((command.timer_id, id, proto::after(self.now, ms)));
        Ok(())
    }

    /// A timer that fired while its cancellation was on the way counts as cancelled.
    pub(crate) fn cancel_timer(
        &mut self,
        command: &CancelTimerCommandAttributes,
        completed_id: i64,
        identity: &str,
        pending: &[(String, i64)],
    ) -> Result<(), Refused> {
        let id = &command.timer_id;
        let started_event_id = if let Some(at) = self.new_timers.iter().position(|(timer, ..)| timer == id) {
            self.new_timers.remove(at).1
        } else if let Some((_, started)) = pending.iter().find(|(timer, _)| timer == id) {
            self.ended_timers.push(id.clone());
            *started
        } else if let Some(started) = self.unbuffer_timer(id)? {
            started
        } else {
            return Err(Refused::task(
                Cause::BadCancelTimerAttributes,
                format!("timer_id: no timer {id:?} is pending"),
            ));
        };
        self.append(A::TimerCanceledEventAttributes(TimerCanceledEventAttributes {
            timer_id: id.clone(),
            started_event_id,
            workflow_task_completed_event_id: completed_id,
            identity: identity.to_owned(),
        }));
        Ok(())
    }

    pub(crate) fn fire_timer(&mut self, timer_id: &str, started_event_id: i64) {
        self.ended_timers.push(timer_id.to_owned());
        self.arrive(A::TimerFiredEventAttributes(TimerFiredEventAttributes {
            timer_id: timer_id.to_owned(),
            started_event_id,
        }));
    }
}
