//! What events cause outside: workflows and the live log. And the session as an [`Entity`].

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{
    apply,
    columns::COLUMNS,
    command::Command,
    command::Message,
    condition::ConditionType,
    decide::{self, Decided},
    event::Event,
    interrupt::GivenAnswer,
    state::{Lifecycle, Session},
    workflow_id,
};
use crate::{
    column::Column,
    effect::{Effect, LiveEvent, NameClaim, WorkflowInput},
    entity::{Context, Entity, Guard},
};

impl Entity for Session {
    const KIND: &'static str = "session";
    const TITLE: &'static str = "Session";
    const SCHEMA_VERSION: i32 = 3;
    const COLUMNS: &'static [Column<Self>] = COLUMNS;
    const HAS_LIVE_LOG: bool = true;
    type Command = Command;
    type Event = Event;

    fn command_name(command: &Command) -> &'static str {
        match command {
            Command::Create { .. } => "create",
            Command::Patch(_) => "patch",
            Command::AddRepo(_) => "add_repo",
            Command::RemoveRepo { .. } => "remove_repo",
            Command::Start { .. } => "start",
            Command::Stop { .. } => "stop",
            Command::Delete => "delete",
            Command::SendMessage { .. } => "send_message",
            Command::AnswerInterrupt { .. } => "answer_interrupt",
            Command::GiveFeedback(_) => "give_feedback",
            Command::Fact { fact, .. } => fact.name(),
        }
    }

    fn decide(state: Option<&Self>, command: &Command, context: &Context) -> Decided {
        decide::decide(state, command, context)
    }

    fn apply(state: Option<Self>, event: &Event, at: DateTime<Utc>) -> Self {
        let mut session = match (state, event) {
            (Some(session), _) => session,
            (None, Event::Created { session_id, project_id, created_by, spec }) => {
                apply::created(session_id, project_id, created_by, spec, at)
            }
            // A reader refuses an operation log that does not start with Created (the version would be 1).
            (None, _) => apply::created("", "", "", &super::Spec::empty(), at),
        };
        apply::apply(&mut session, event, at);
        session
    }

    fn set_version(&mut self, version: i64, at: DateTime<Utc>) {
        self.version = version;
        self.updated_at = at;
    }
    fn id(&self) -> &str {
        &self.id
    }
    fn version(&self) -> i64 {
        self.version
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn created_at(&self) -> DateTime<Utc> {
        self.created_at
    }
    fn updated_at(&self) -> DateTime<Utc> {
        self.updated_at
    }
    fn deleted_at(&self) -> Option<DateTime<Utc>> {
        self.deleted_at
    }
    fn deletion() -> Command {
        Command::Delete
    }
    fn live_run(&self) -> Option<i64> {
        self.run().map(|run| run.number)
    }

    fn has_spec_of(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
    fn guards(state: Option<&Self>, command: &Command) -> Vec<Guard> {
        let project_active = |project_id: &str| vec![Guard::ProjectActive { project_id: project_id.to_owned() }];
        match (command, state) {
            (Command::Create { project_id, .. }, _) => project_active(project_id),
            (Command::Start { .. } | Command::SendMessage { start: true, .. }, Some(s)) => {
                project_active(&s.project_id)
            }
            (Command::Stop { seen_seq: Some(seq), .. }, Some(s)) => {
                vec![Guard::LogNotNewer { session_id: s.id.clone(), seq: *seq }]
            }
            _ => Vec::new(),
        }
    }

    fn effects(&self, events: &[Event], context: &Context) -> Vec<Effect> {
        events.iter().flat_map(|event| self.effects_of(event, context)).collect()
    }

    fn live(&self, events: &[Event]) -> Vec<LiveEvent> {
        events.iter().filter_map(|event| self.live_of(event)).collect()
    }

    fn names(&self, _: &[Event]) -> Vec<NameClaim> {
        Vec::new()
    }
}

impl Session {
    fn effects_of(&self, event: &Event, context: &Context) -> Vec<Effect> {
        let Some(run) = self.run() else {
            return match event {
                Event::Deleted => vec![self.start_delete(context)],
                _ => Vec::new(),
            };
        };
        let (id, number, attempt) = (self.id.as_str(), run.number, run.attempt);
        let supervise = workflow_id::supervise(id, number);
        let start_attempt =
            |attempt: i32| self.start("session-start", workflow_id::start(id, number, attempt), number, attempt);
        let wake = |workflow_id: String| Effect::SignalWorkflow { workflow_id, signal: "wake".to_owned() };
        let cancel = |workflow_id: String| Effect::CancelWorkflow { workflow_id };
        match event {
            Event::Started { .. } => {
                // Someone waits for the start; the clocks can wait for it.
                vec![start_attempt(1), self.start("session-supervise", supervise, number, 0)]
            }
            Event::BecameRunning => {
                vec![wake(supervise), self.start("token-refresh", workflow_id::token_refresh(id, number), number, 0)]
            }
            Event::SpecChanged { .. } if decide::active_run(self).is_some() => vec![wake(supervise)],
            Event::Restarted { attempt, .. } => {
                vec![cancel(workflow_id::start(id, number, attempt - 1)), start_attempt(*attempt), wake(supervise)]
            }
            Event::StopBegan { .. } => vec![
                cancel(workflow_id::start(id, number, attempt)),
                wake(supervise),
                wake(workflow_id::token_refresh(id, number)),
                self.start("session-stop", workflow_id::stop(id, number, 1), number, attempt),
            ],
            Event::WorkflowLost { .. } => match &self.lifecycle {
                Lifecycle::Stopping { stop_attempt, .. } => {
                    let id = workflow_id::stop(id, number, *stop_attempt);
                    vec![self.start("session-stop", id, number, attempt)]
                }
                _ => Vec::new(),
            },
            Event::Deleted => vec![
                cancel(workflow_id::start(id, number, attempt)),
                cancel(supervise),
                cancel(workflow_id::token_refresh(id, number)),
                self.start_delete(context),
            ],
            _ => Vec::new(),
        }
    }

    fn start(&self, workflow: &str, workflow_id: String, run: i64, attempt: i32) -> Effect {
        let input = WorkflowInput { project_id: self.project_id.clone(), session_id: self.id.clone(), run, attempt };
        Effect::StartWorkflow { workflow: workflow.to_owned(), workflow_id, input }
    }

    fn start_delete(&self, context: &Context) -> Effect {
        let id = workflow_id::delete(&self.id, &context.operation_id);
        self.start("session-delete", id, self.run_number(), 0)
    }

    fn live_of(&self, event: &Event) -> Option<LiveEvent> {
        // Where there is nothing to say it is an empty object: a log accepts no null.
        let plain = |event_type: &str, data: serde_json::Value| {
            let data = if data.is_null() { json!({}) } else { data };
            Some(LiveEvent { event_type: event_type.to_owned(), data, message_id: None })
        };
        let condition = |condition_type: ConditionType| {
            let condition = self.condition(condition_type)?;
            plain("session.condition", json!(condition))
        };
        match event {
            Event::MessageAccepted { run, message_id, message, is_prompt } => {
                Some(self.message(*run, message_id, message, *is_prompt))
            }
            Event::Started { .. }
            | Event::ProvisioningBegan
            | Event::BecameRunning
            | Event::Restarted { .. }
            | Event::StopBegan { .. }
            | Event::Ended { .. } => plain("session.phase", self.phase_change(event)),
            Event::RunnerBecameReady { .. } => condition(ConditionType::RunnerStarted),
            Event::TurnStarted | Event::BecameIdle { .. } => condition(ConditionType::Ready),
            Event::Reconciled { .. } => condition(ConditionType::Reconciled),
            Event::ReposSeen { .. } => condition(ConditionType::ReposReconciled),
            Event::ConditionChanged { condition_type, .. } => condition(*condition_type),
            Event::Blocked { .. } => plain("session.blocked", json!(self.status_detail)),
            Event::Unblocked => plain("session.unblocked", json!(self.status_detail)),
            Event::MessagesNotRun { message_ids } => {
                plain("session.messages_not_run", json!({ "run": self.run_number(), "message_ids": message_ids }))
            }
            Event::InterruptRaised { .. } | Event::InterruptAnswered { .. } | Event::InterruptClosed { .. } => {
                plain("session.interrupt", interrupt_change(event))
            }
            Event::FeedbackGiven { feedback, by } => {
                let mut data = json!(feedback);
                data["by"] = json!(by);
                plain("user.feedback", data)
            }
            Event::Deleted => plain("session.deleted", json!({})),
            Event::Created { .. }
            | Event::SpecChanged { .. }
            | Event::WorkflowLost { .. }
            | Event::PermissionsInherited { .. }
            | Event::PermissionsInForce { .. }
            | Event::SettingsTold { .. }
            | Event::AgentStarted { .. }
            | Event::ReposMoved { .. } => None,
        }
    }

    fn message(&self, run: i64, id: &str, message: &Message, is_prompt: bool) -> LiveEvent {
        let mut data = json!({
            "message_id": id, "run": run, "role": "user", "is_prompt": is_prompt,
            "bytes": message.bytes, "sha256": message.sha256,
        });
        if !message.attachments.is_empty() {
            data["attachments"] = json!(message.attachments);
        }
        // The spec's own prompt is known here; the append fills in any other body.
        if let Some(prompt) = self.spec.prompt.as_ref().filter(|p| Message::of(p) == *message) {
            data["text"] = json!(prompt);
        }
        LiveEvent { event_type: "user.message".to_owned(), data, message_id: Some(id.to_owned()) }
    }

    fn phase_change(&self, event: &Event) -> serde_json::Value {
        let run = self.run();
        // All events of an operation are reported with the state after it; the phase an event led to is the event's own.
        let phase = match event {
            Event::Started { .. } => "Pending".to_owned(),
            Event::StopBegan { .. } => "Stopping".to_owned(),
            _ => self.phase().map_or_else(|| "New".to_owned(), |phase| phase.to_string()),
        };
        let (reason, message, exit_code) = match (event, &self.lifecycle) {
            (Event::Restarted { reason, .. }, _) => ("Restarting".to_owned(), reason.clone(), None),
            (_, Lifecycle::Stopping { outcome, .. } | Lifecycle::Ended { outcome, .. }) => {
                let code = match outcome {
                    super::RunOutcome::Failed { exit_code, .. } => *exit_code,
                    _ => None,
                };
                (outcome.reason().to_owned(), outcome.message().to_owned(), code)
            }
            _ => (phase.clone(), String::new(), None),
        };
        json!({
            "phase": phase, "reason": reason, "message": message, "exit_code": exit_code,
            "run": run.map(|r| r.number), "attempt": run.map(|r| r.attempt),
        })
    }
}

/// `{change, interrupt_id, …}`.
fn interrupt_change(event: &Event) -> serde_json::Value {
    let given = |given: &GivenAnswer| {
        let GivenAnswer { answer, by, at, message: _, message_id } = given;
        json!({ "answer": answer, "by": by, "at": at, "message_id": message_id })
    };
    match event {
        Event::InterruptRaised { request, earlier } => {
            let mut data = json!(request);
            data["change"] = json!("raised");
            data["earlier_answer"] = json!(earlier.as_ref().map(given));
            data
        }
        Event::InterruptAnswered { interrupt_id, given: answer, rule, repeated } => json!({
            "change": "answered", "interrupt_id": interrupt_id, "given": given(answer), "repeated": repeated, "rule": rule,
        }),
        Event::InterruptClosed { interrupt_id, outcome, answer } => {
            json!({ "change": "closed", "interrupt_id": interrupt_id, "outcome": outcome, "answer": answer })
        }
        _ => json!({}),
    }
}
