//! What earlier attempts of this run have left in the log.

use std::collections::{BTreeMap, HashMap};

use ambient_runner_protocol::Record;
use ambient_wire::runner_event::{RunnerEvent, TurnOutcome, TurnResult};

/// How a message's last turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// None of its turns has ended.
    Open,
    /// Its runner was lost.
    Lost,
    /// Done, one way or another.
    Ended { failed: bool, exit_code: Option<i32> },
}

impl Fate {
    /// What a turn's result makes of its message. One that a person interrupted counts as failed: a batch runner takes no other.
    pub(crate) fn of(result: &TurnResult) -> Self {
        match result.code.as_deref() {
            Some("RunnerLost") => Self::Lost,
            code => {
                let failed = result.outcome == TurnOutcome::Error || code == Some("Interrupted");
                Self::Ended { failed, exit_code: result.exit_code }
            }
        }
    }
}

/// State of the run, built from one pass over the records.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) log_id: Option<String>,
    /// Accepted messages with their place in the live log, in order.
    pub(crate) accepted: Vec<(String, i64)>,
    pub(crate) fates: HashMap<String, Fate>,
    /// Turns started so far.
    pub(crate) turns: u64,
    /// `(turn id, message id)` of a turn that has started but not ended.
    pub(crate) open_turn: Option<(String, String)>,
    /// What the agent's work in the open turn came to, if that was recorded.
    pub(crate) open_turn_result: Option<TurnResult>,
    /// Recorded end of the runner.
    pub(crate) exit: Option<(i32, String)>,
    /// The agent's own id of its latest conversation.
    pub(crate) conversation: Option<String>,
    /// Requests for permission: true for those that are closed.
    pub(crate) requests: BTreeMap<String, bool>,
}

impl History {
    pub(crate) fn see(&mut self, record: &Record) {
        match RunnerEvent::read(&record.event) {
            Some(RunnerEvent::AttemptStarted { log_id, .. }) if self.log_id.is_none() => self.log_id = Some(log_id),
            Some(RunnerEvent::MessageAccepted { message_id, seq }) => {
                self.fates.insert(message_id.clone(), Fate::Open);
                self.accepted.push((message_id, seq));
            }
            Some(RunnerEvent::TurnStarted { turn_id, message_id }) => {
                self.turns += 1;
                self.open_turn = Some((turn_id, message_id));
                self.open_turn_result = None;
            }
            Some(RunnerEvent::TurnResult { result, .. }) => self.open_turn_result = Some(result),
            Some(RunnerEvent::TurnEnded { message_id, result, .. }) => {
                self.fates.insert(message_id, Fate::of(&result));
                self.open_turn = None;
            }
            Some(RunnerEvent::AgentStarted { agent_session_id, .. }) => self.conversation = Some(agent_session_id),
            Some(RunnerEvent::PermissionRequested { request }) => {
                self.requests.insert(request.interrupt_id, false);
            }
            Some(RunnerEvent::PermissionClosed { interrupt_id, .. }) => {
                self.requests.insert(interrupt_id, true);
            }
            Some(RunnerEvent::RunnerExited { code, reason }) => self.exit = Some((code, reason)),
            _ => {}
        }
    }

    /// Requests that nobody will answer any more: their agent is gone.
    pub(crate) fn open_requests(&self) -> impl Iterator<Item = &String> {
        self.requests.iter().filter(|(_, closed)| !**closed).map(|(id, _)| id)
    }
}
