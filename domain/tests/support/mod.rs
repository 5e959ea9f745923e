//! Sessions and commands on them, for tests of the machine.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

use ambient_domain::{
    Context, Decision, Defaults, Effect, Entity, Refusal,
    session::{Command, Event, Fact, Message, Session, Spec, StopReason, TurnOutcome},
};
use chrono::{DateTime, TimeZone, Utc};
use serde_json::json;

pub const ID: &str = "session-1";

pub fn at(second: u32) -> DateTime<Utc> {
    Utc.timestamp_opt(1_700_000_000 + i64::from(second), 123_456_000).unwrap()
}

pub fn context(n: u32) -> Context {
    let operation_id = format!("operation-{n}");
    Context { now: at(n), operation_id, principal: "alice".to_owned(), defaults: Defaults::default() }
}

pub fn spec(interactive: bool, stop_on_run_finished: bool) -> Spec {
    serde_json::from_value(json!({
        "display_name": "test", "agent_type": "script", "interactive": interactive, "prompt": "do it",
        "stop_on_run_finished": stop_on_run_finished, "inactivity_timeout": 0, "llm_temperature": 0.7,
        "llm_max_tokens": 4000
    }))
    .unwrap()
}

pub fn create(spec: Spec) -> Command {
    Command::Create {
        session_id: ID.to_owned(),
        project_id: "project-1".to_owned(),
        spec: Box::new(spec),
        start: false,
    }
}

/// A command carried out: the state after it, its events and effects.
pub struct Step {
    pub after: Session,
    pub events: Vec<Event>,
    pub effects: Vec<Effect>,
}

pub fn step(before: Option<&Session>, command: &Command, context: &Context) -> Result<Option<Step>, Refusal> {
    let Decision::Events(events) = Session::decide(before, command, context)? else { return Ok(None) };
    let mut after = events.iter().fold(before.cloned(), |s, e| Some(Session::apply(s, e, context.now))).unwrap();
    after.set_version(before.map_or(0, |s| s.version) + 1, context.now);
    let effects = after.effects(&events, context);
    // A log takes nothing else: what cannot be appended would be decided again for ever.
    for live in after.live(&events) {
        assert!(live.data.is_object(), "{live:?} of {events:?}");
    }
    Ok(Some(Step { after, events, effects }))
}

pub fn new_session(spec: Spec) -> Session {
    step(None, &create(spec), &context(0)).unwrap().unwrap().after
}

pub fn start() -> Command {
    Command::Start { prompt: None }
}

pub fn stop(force: bool) -> Command {
    Command::Stop { reason: StopReason::UserStopped, seen_seq: None, run: None, force }
}

pub fn send(start: bool) -> Command {
    Command::SendMessage { message: Message::of("hello"), start }
}

pub fn torn_down() -> Fact {
    Fact::TornDown { evidence: vec!["no process".to_owned()], not_run: Vec::new() }
}

pub fn runner_lost() -> Fact {
    Fact::RunnerLost { reason: "gone".to_owned() }
}

pub fn fatal() -> Fact {
    Fact::Fatal { reason: "ErrImagePull".to_owned(), message: "no such image".to_owned() }
}

pub fn exited(code: i32) -> Fact {
    Fact::Exited { code, reason: format!("exit {code}") }
}

pub fn turn_ended(session: &Session, outcome: TurnOutcome) -> Fact {
    Fact::TurnEnded { last_message_id: session.run().and_then(|run| run.last_message_id.clone()), outcome }
}

/// A fact about the session's current run and attempt.
pub fn now(session: &Session, fact: Fact) -> Command {
    let (run, attempt) = session.run().map_or((1, 1), |run| (run.number, run.attempt));
    Command::Fact { run, attempt, fact }
}

/// Phase in words, `New` when never started.
pub fn phase(session: &Session) -> String {
    session.phase().map_or_else(|| "New".to_owned(), |phase| phase.to_string())
}
