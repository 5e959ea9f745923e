//! What workers and clients request, as `rpc` passes it to a change, and what must be true of each answer.

use std::sync::Arc;

use temporalio_common::protos::temporal::api::{
    command::v1::{Command, CompleteWorkflowExecutionCommandAttributes, command::Attributes as C},
    enums::v1::TaskQueueKind,
    history::v1::{HistoryEvent, WorkflowExecutionSignaledEventAttributes, history_event::Attributes as A},
    taskqueue::v1::{StickyExecutionAttributes, TaskQueue},
    workflowservice::v1::RespondWorkflowTaskCompletedRequest,
};
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    database::Database,
    world::{Held, STICKY},
};
use crate::{
    change::{Decision, Unchanged},
    engine::Engine,
    history::{
        commands::{self, Activities, Ground, Needs, Refused},
        workflow_task::holds,
    },
    model::{Activity, Handover, Run, Target, TaskState},
    proto,
    token::TaskToken,
};

/// Who asks, under a name that is also in what gets written, and whom.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) engine: Engine,
    pub(super) database: Arc<Database>,
    pub(super) run: Uuid,
    pub(super) name: String,
}

/// What a request was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Done,
    /// It has not happened.
    Refused,
    /// It may have happened.
    Unknown,
}

impl From<&Unchanged> for Told {
    fn from(unchanged: &Unchanged) -> Self {
        match unchanged {
            Unchanged::Status(status) if status.code() == Code::Unavailable => Self::Unknown,
            Unchanged::NotOpen | Unchanged::Duplicate | Unchanged::Status(_) => Self::Refused,
        }
    }
}

/// A workflow task that a worker has, and the events it was shown.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) run: Run,
    pub(super) token: TaskToken,
    pub(super) shown: Vec<HistoryEvent>,
}

/// What the worker of a task answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// This many activities; eager ones come with the answer.
    Schedule {
        activities: usize,
        eager: bool,
    },
    Close,
    Fail,
}

fn stale() -> Status {
    Status::not_found("stale")
}

impl Request {
    /// Compares what was told with what is stored at that moment.
    fn told(&self, told: Told) -> Told {
        let stored = self.database.count(&self.name);
        match told {
            Told::Done => assert_eq!(stored, 1, "{} was answered before it was written", self.name),
            Told::Refused => assert_eq!(stored, 0, "{} was refused and is written", self.name),
            Told::Unknown => assert!(stored <= 1, "{} is written twice", self.name),
        }
        told
    }

    pub(super) async fn complete_activity(&self, activity: &Activity) -> Told {
        let activities = Activities::Given(activity.scheduled_event_id);
        let needs = Needs { activities, ground: Ground::Unwritten, ..Needs::default() };
        let target = Target::Run(self.run);
        let change = self.engine.change_with_task(&target, needs, |t, pending| {
            let known = pending.activities.iter().find(|a| a.attempt == activity.attempt && a.is_started());
            t.complete_activity(known.ok_or_else(stale)?, &self.name, None)?;
            Ok(Decision::Write(()))
        });
        let told = change.await.as_ref().map_or_else(Told::from, |()| Told::Done);
        self.told(told)
    }

    pub(super) async fn signal(&self, target: Target) -> Told {
        let signal = WorkflowExecutionSignaledEventAttributes { identity: self.name.clone(), ..Default::default() };
        let change = self.engine.change(&target, Needs::default(), |t, _| {
            t.arrive(A::WorkflowExecutionSignaledEventAttributes(signal.clone()));
            Ok(Decision::Write(()))
        });
        let told = change.await.as_ref().map_or_else(Told::from, |_| Told::Done);
        self.told(told)
    }

    /// The task's time is up, or its poller has gone, as far as this process can tell.
    pub(super) async fn time_out(&self) {
        let target = Target::Run(self.run);
        let change = self.engine.change(&target, Needs::default(), |t, _| {
            if t.run.wft_state != TaskState::Started {
                return Ok(Decision::Keep(()));
            }
            t.time_out_task()?;
            Ok(Decision::Write(()))
        });
        let _ = change.await;
    }

    /// Answers a workflow task; what its worker has been given with the answer.
    pub(super) async fn answer(&self, task: &Task, answer: Answer) -> (Told, Vec<Held>) {
        let request = self.completion(answer);
        let needs = Needs { ground: Ground::Unwritten, ..Needs::of(&request.commands) };
        let target = Target::Run(self.run);
        let change = self.engine.change(&target, needs, |t, pending| {
            if !holds(&t.run, &task.token) {
                return Err(stale());
            }
            let before = t.clone();
            let completed = if matches!(answer, Answer::Fail) {
                Err(Refused::task(Default::default(), "failed"))
            } else {
                commands::complete(t, request.clone(), pending, &self.engine.names())
            };
            match completed {
                Ok(()) => {}
                Err(Refused::Status(status)) => return Err(status),
                Err(Refused::Task { cause, .. }) => {
                    // Only the first attempt's failure is an event.
                    let traceless = before.run.wft_attempt > 1;
                    *t = before;
                    t.fail_task(cause, None, &self.name)?;
                    return Ok(Decision::Write(traceless));
                }
            }
            Ok(Decision::Write(false))
        });
        let changed = change.await;
        let told = changed.as_ref().map_or_else(Told::from, |_| Told::Done);
        let Ok((traceless, transition)) = changed else { return (self.told(told), Vec::new()) };
        if !traceless {
            self.told(told);
            self.saw_what_is_stored(task);
        }
        let own = |a: &&Activity| a.is_started() && !transition.direct_activities.contains(&a.scheduled_event_id);
        let eager = transition.new_activities.iter().filter(own).cloned().map(|a| Held::Activity(Box::new(a)));
        assert!(transition.is_closed() || transition.handover != Handover::Ahead, "a completion goes ahead of nothing");
        let eager: Vec<_> = eager.filter(|_| !transition.is_closed()).collect();
        eager.iter().for_each(|held| self.database.give(held.attempt()));
        (told, eager)
    }

    /// An answer counts only if its worker was shown everything before it in the history.
    fn saw_what_is_stored(&self, task: &Task) {
        self.database.history(|history| {
            for shown in &task.shown {
                let stored = history.iter().find(|event| event.event_id == shown.event_id);
                assert_eq!(stored, Some(shown), "{} was decided on another history", self.name);
            }
        });
    }

    fn completion(&self, answer: Answer) -> RespondWorkflowTaskCompletedRequest {
        let commands = match answer {
            Answer::Fail => Vec::new(),
            Answer::Close => {
                let close = CompleteWorkflowExecutionCommandAttributes::default();
                vec![C::CompleteWorkflowExecutionCommandAttributes(close)]
            }
            Answer::Schedule { activities, eager } => {
                let schedule = |n| {
                    let mut a = crate::testing::activity(&format!("{}-{n}", self.name), 600_000);
                    a.request_eager_execution = eager;
                    C::ScheduleActivityTaskCommandAttributes(a)
                };
                (0..activities).map(schedule).collect()
            }
        };
        let commands = commands.into_iter().map(|c| Command { attributes: Some(c), ..Default::default() });
        let sticky = TaskQueue { name: STICKY.into(), kind: TaskQueueKind::Sticky as i32, normal_name: "q".into() };
        RespondWorkflowTaskCompletedRequest {
            identity: self.name.clone(),
            commands: commands.collect(),
            sticky_attributes: Some(StickyExecutionAttributes {
                worker_task_queue: Some(sticky),
                schedule_to_start_timeout: Some(proto::duration(60_000)),
            }),
            ..Default::default()
        }
    }
}
