//! Permission requests of the agent: raised, answered by a person, closed.
//!
//! An answer is recorded first, and handed over afterwards by whoever reads the runner's log. A request belongs to one attempt: when that
//! is lost so is the request, and an answer that was not handed over is kept for the same request of the next attempt.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    command::Message,
    condition::{ConditionStatus, ConditionType},
    event::Event,
    state::{Lifecycle, RunOutcome, Session},
};
use crate::{
    entity::{Context, Decision, NothingToDo, Refusal, RefusalCode},
    permission::{Answer, PermissionRule, ToolKind, room_for_a_rule},
};

/// Reason of a `Ready` that is True while requests wait for an answer.
pub const WAITING_FOR_ANSWER: &str = "WaitingForAnswer";
/// Most requests that wait for people at once; more are rejected without asking anyone, and still more are not recorded: they wait until
/// their turn ends. An agent that asks so much is broken.
pub const MAX_OPEN: usize = 64;
/// Most closed requests of a run that are remembered; the oldest go first.
pub const MAX_CLOSED: usize = 32;
/// Who rejects what is too much.
const TOO_MANY: &str = "system:too-many-requests";

/// What the agent asks. All of it but the ids is what it says; long texts are cut, and then end with `…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionRequest {
    /// `{run}-{attempt}-{number}`: unique in the session.
    pub interrupt_id: String,
    /// The turn.
    pub turn_id: String,
    /// The tool call.
    pub tool_call_id: String,
    /// What people are shown.
    pub title: String,
    /// Sort of the call.
    pub kind: ToolKind,
    /// The command, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Files it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The same for a repeated request.
    pub fingerprint: String,
    /// Answers that can be given.
    pub answers: Vec<Answer>,
}

/// A request that is not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupt {
    /// What is asked.
    #[serde(flatten)]
    pub request: PermissionRequest,
    /// Launch within the run that asks.
    pub attempt: i32,
    /// When it was recorded.
    pub raised_at: DateTime<Utc>,
    /// The answer to the same request of an earlier attempt, which was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<GivenAnswer>,
    /// The answer; it is handed over until the request is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<GivenAnswer>,
}

/// Somebody's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenAnswer {
    /// The answer.
    pub answer: Answer,
    /// Who gave it.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
    /// What the agent is told instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// The message's id in the live log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
}

/// A request that is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedInterrupt {
    /// Its id.
    pub interrupt_id: String,
    /// The beginning of what people were shown.
    pub title: String,
    /// The same for a repeated request.
    pub fingerprint: String,
    /// When it was recorded.
    pub raised_at: DateTime<Utc>,
    /// How it ended.
    pub outcome: InterruptOutcome,
    /// When that was recorded.
    pub closed_at: DateTime<Utc>,
    /// The answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<GivenAnswer>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterruptOutcome {
    /// The agent was given the answer.
    Answered,
    /// The turn or the run was stopped.
    Cancelled,
    /// Nobody answered in time: it was rejected.
    Expired,
    /// Agent or runner were lost before they got an answer.
    Lost,
}

impl InterruptOutcome {
    fn in_words(self) -> &'static str {
        match self {
            Self::Answered => "was answered",
            Self::Cancelled => "was cancelled",
            Self::Expired => "was rejected, because nobody had answered in time",
            Self::Lost => "was lost with the agent or its runner",
        }
    }
}

impl Interrupt {
    /// The rule that the answer `always` adds; none if there is no rule that says exactly this.
    #[must_use]
    pub fn rule(&self) -> Option<PermissionRule> {
        let PermissionRequest { kind, command, paths, .. } = &self.request;
        let is_cut = |text: &String| text.ends_with('…');
        if command.iter().chain(paths).any(is_cut) || !self.request.answers.contains(&Answer::Always) {
            return None;
        }
        PermissionRule::allowing(*kind, command.as_deref(), paths)
    }

    /// Answers that can be given.
    #[must_use]
    pub fn answers(&self) -> Vec<Answer> {
        let can = |answer: &Answer| *answer != Answer::Always || self.rule().is_some();
        self.request.answers.iter().copied().filter(can).collect()
    }
}

const ALREADY: Decision<Event> = Decision::NothingToDo(NothingToDo::Already);

/// A person's answer. The same one again changes nothing.
pub(super) fn answer(
    session: &Session,
    id: &str,
    answer: Answer,
    message: Option<&Message>,
    context: &Context,
) -> Result<Decision<Event>, Refusal> {
    let Some(open) = session.interrupts.iter().find(|open| open.request.interrupt_id == id) else {
        return no_longer_open(session, id, answer, message);
    };
    if let Some(given) = &open.answer {
        return already_answered(id, given, answer, message);
    }
    let Some(run) = super::decide::active_run(session) else {
        let phase = session.phase().map_or_else(|| "New".to_owned(), |phase| phase.to_string());
        return Err(Refusal::new(RefusalCode::Phase, format!("the Session is {phase}: its requests take no answers")));
    };
    let can_be = open.answers();
    if !can_be.contains(&answer) {
        let names: Vec<_> = can_be.iter().map(|answer| answer.as_str()).collect();
        return Err(Refusal::invalid("answer", format!("must be one of {} for this request", names.join(", "))));
    }
    if message.is_some() && answer != Answer::Reject {
        return Err(Refusal::invalid("message", "goes with the answer reject only"));
    }
    if message.is_some() && !session.spec.interactive {
        let reason = "message: a batch Session (interactive=false) takes no messages while it runs";
        let field = Some("message".to_owned());
        return Err(Refusal { code: RefusalCode::Phase, field, reason: reason.to_owned() });
    }
    let rule = if answer == Answer::Always { open.rule() } else { None };
    if rule.is_some() {
        room_for_a_rule(&session.spec.permissions.rules)?;
    }
    let given = GivenAnswer {
        answer,
        by: context.principal.clone(),
        at: context.now,
        message: message.cloned(),
        message_id: message.map(|_| context.operation_id.clone()),
    };
    let mut events = vec![Event::InterruptAnswered { interrupt_id: id.to_owned(), given, rule, repeated: false }];
    events.extend(message.map(|message| Event::MessageAccepted {
        run: run.number,
        message_id: context.operation_id.clone(),
        message: message.clone(),
        is_prompt: false,
    }));
    Ok(Decision::Events(events))
}

fn already_answered(
    id: &str,
    given: &GivenAnswer,
    answer: Answer,
    message: Option<&Message>,
) -> Result<Decision<Event>, Refusal> {
    if given.answer == answer && given.message.as_ref() == message {
        return Ok(ALREADY);
    }
    let (was, by) = (given.answer.as_str(), &given.by);
    Err(Refusal::new(RefusalCode::Conflict, format!("request {id} was answered already: {was}, by {by}")))
}

fn no_longer_open(
    session: &Session,
    id: &str,
    answer: Answer,
    message: Option<&Message>,
) -> Result<Decision<Event>, Refusal> {
    let Some(closed) = session.closed_interrupts.iter().find(|closed| closed.interrupt_id == id) else {
        return Err(Refusal::new(RefusalCode::NotFound, format!("no open request '{}'", id.escape_debug())));
    };
    if let (InterruptOutcome::Answered, Some(given)) = (closed.outcome, &closed.answer) {
        return already_answered(id, given, answer, message);
    }
    let reason = format!("request {id} is no longer open: it {}", closed.outcome.in_words());
    Err(Refusal::new(RefusalCode::Conflict, reason))
}

/// Fact: the agent asks.
pub(super) fn raised(session: &Session, request: &PermissionRequest, context: &Context) -> Decision<Event> {
    let id = &request.interrupt_id;
    let known = session.interrupts.iter().any(|open| open.request.interrupt_id == *id)
        || session.closed_interrupts.iter().any(|closed| closed.interrupt_id == *id);
    let waiting = session.waiting_interrupts().count();
    if known || session.interrupts.len() >= 2 * MAX_OPEN {
        return ALREADY;
    }
    // Only of those that were lost since such a request was last settled: an answer that was handed over is used up.
    let same = session.closed_interrupts.iter().rev().filter(|closed| closed.fingerprint == request.fingerprint);
    let earlier =
        same.take_while(|closed| closed.outcome == InterruptOutcome::Lost).find_map(|closed| closed.answer.clone());
    let answered = |given: GivenAnswer, repeated: bool| Event::InterruptAnswered {
        interrupt_id: id.clone(),
        given,
        rule: None,
        repeated,
    };
    let is_given = |open: &Interrupt| open.request.fingerprint == request.fingerprint && open.answer.is_some();
    let again = earlier.clone().filter(|given| {
        session.permissions().repeat_answers == Some(true)
            && request.answers.contains(&given.answer)
            && !session.interrupts.iter().any(is_given)
    });
    let answered = match again {
        Some(given) => Some(answered(given, true)),
        None if waiting >= MAX_OPEN => {
            let by = TOO_MANY.to_owned();
            let given = GivenAnswer { answer: Answer::Reject, by, at: context.now, message: None, message_id: None };
            Some(answered(given, false))
        }
        None => None,
    };
    let raised = Event::InterruptRaised { request: Box::new(request.clone()), earlier };
    Decision::Events(std::iter::once(raised).chain(answered).collect())
}

/// Fact: it is no longer open. Also of an attempt that is over, whose last records are read late: then what was taken for lost was not.
pub(super) fn closed(
    session: &Session,
    id: &str,
    outcome: InterruptOutcome,
    answer: Option<Answer>,
) -> Decision<Event> {
    let is_open = session.interrupts.iter().any(|open| open.request.interrupt_id == id);
    let taken_for_lost = session.closed_interrupts.iter().any(|closed| {
        closed.interrupt_id == id && closed.outcome == InterruptOutcome::Lost && outcome != InterruptOutcome::Lost
    });
    if !is_open && !taken_for_lost {
        return ALREADY;
    }
    Decision::Events(vec![Event::InterruptClosed { interrupt_id: id.to_owned(), outcome, answer }])
}

/// Adds what an end of the turn, attempt or run means for open requests, before the event that says so. While a session is Stopping they stay
/// open: the rest of the log says how they ended.
pub(super) fn closed_with_their_attempt(session: Option<&Session>, decision: Decision<Event>) -> Decision<Event> {
    let (Some(session), Decision::Events(events)) = (session, &decision) else { return decision };
    if session.interrupts.is_empty()
        || !events.iter().any(|e| matches!(e, Event::Restarted { .. } | Event::BecameIdle { .. } | Event::Ended { .. }))
    {
        return decision;
    }
    let stopped = |event: &Event| matches!(event, Event::StopBegan { outcome: RunOutcome::Stopped { .. } });
    let stopped = events.iter().any(stopped)
        || matches!(session.lifecycle, Lifecycle::Stopping { outcome: RunOutcome::Stopped { .. }, .. });
    let closed = session.interrupts.iter().map(|open| Event::InterruptClosed {
        interrupt_id: open.request.interrupt_id.clone(),
        outcome: if stopped && open.answer.is_none() { InterruptOutcome::Cancelled } else { InterruptOutcome::Lost },
        answer: None,
    });
    Decision::Events(closed.chain(events.iter().cloned()).collect())
}

pub(super) fn apply_raised(
    s: &mut Session,
    request: &PermissionRequest,
    earlier: Option<&GivenAnswer>,
    at: DateTime<Utc>,
) {
    let attempt = s.run().map_or(0, |run| run.attempt);
    let (request, earlier) = (request.clone(), earlier.cloned());
    s.interrupts.push(Interrupt { request, attempt, raised_at: at, earlier, answer: None });
}

pub(super) fn apply_answered(s: &mut Session, id: &str, given: &GivenAnswer, rule: Option<&PermissionRule>) {
    if let Some(open) = s.interrupts.iter_mut().find(|open| open.request.interrupt_id == id) {
        open.answer = Some(given.clone());
    }
    if let Some(rule) = rule {
        // In front: the request was asked because of a rule, or of none, behind it.
        s.spec.permissions.rules.insert(0, rule.clone());
        s.permission_changes += 1;
    }
}

pub(super) fn apply_closed(s: &mut Session, id: &str, outcome: InterruptOutcome, at: DateTime<Utc>) {
    if let Some(place) = s.interrupts.iter().position(|open| open.request.interrupt_id == id) {
        let Interrupt { request, raised_at, answer, .. } = s.interrupts.remove(place);
        s.closed_interrupts.push(ClosedInterrupt {
            interrupt_id: request.interrupt_id,
            title: request.title.chars().take(100).collect(),
            fingerprint: request.fingerprint,
            raised_at,
            outcome,
            closed_at: at,
            answer,
        });
        let too_many = s.closed_interrupts.len().saturating_sub(MAX_CLOSED);
        s.closed_interrupts.drain(..too_many);
    } else if let Some(closed) = s.closed_interrupts.iter_mut().find(|closed| closed.interrupt_id == id) {
        (closed.outcome, closed.closed_at) = (outcome, at);
    }
}

/// `Ready` says for whom a running session waits.
pub(super) fn show_waiting(s: &mut Session, at: DateTime<Utc>) {
    let ready = s.condition(ConditionType::Ready).filter(|ready| ready.status == ConditionStatus::True);
    let Some(reason) = ready.map(|ready| ready.reason.clone()) else { return };
    let waiting = s.waiting_interrupts().count();
    match waiting {
        0 if reason == WAITING_FOR_ANSWER => {
            s.set_condition(ConditionType::Ready, ConditionStatus::True, "Running", "", at);
        }
        0 => {}
        _ => {
            let title = s.waiting_interrupts().next().map_or("", |open| open.request.title.as_str());
            let message = if waiting == 1 { title.to_owned() } else { format!("{title} (and {} more)", waiting - 1) };
            s.set_condition(ConditionType::Ready, ConditionStatus::True, WAITING_FOR_ANSWER, &message, at);
        }
    }
}
