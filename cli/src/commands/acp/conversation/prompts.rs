//! Prompts of the editor: sent as messages, answered when their turns have ended.

use std::collections::VecDeque;

use agent_client_protocol::v1::{Responder, schema as acp};
use ambient_wire::{
    runner_event::{TurnOutcome, TurnResult},
    session::{MessageAccepted, MessageCreate},
};
use futures::FutureExt;
use serde_json::json;

use super::{
    super::editor::{FAILED, told},
    Conversation, Done, Wish,
};
use crate::{client::route::Route, commands::session::send, error::CliError, follow::Follower};

/// A prompt that was not answered yet.
pub(super) struct Prompt {
    /// Until it is sent.
    pub(super) text: Option<String>,
    /// Once it is sent.
    pub(super) message_id: Option<String>,
    pub(super) responder: Box<Responder<acp::PromptResponse>>,
    pub(super) is_cancelled: bool,
    /// Run that its message belongs to, once it is told.
    pub(super) run: Option<i64>,
}

impl Conversation {
    pub(super) fn wished(&mut self, wish: Wish) {
        match wish {
            Wish::Prompt { text, responder } => {
                let text = Some(text);
                self.prompts.push_back(Prompt { text, message_id: None, responder, is_cancelled: false, run: None });
                self.send_next();
            }
            Wish::Cancel => self.cancel(),
        }
    }

    /// One message after another, so that they are in the editor's order.
    fn send_next(&mut self) {
        if self.sending.is_some() {
            return;
        }
        let Some(text) = self.prompts.iter_mut().find_map(|prompt| prompt.text.take()) else { return };
        let (client, session) = (self.client.clone(), self.session.clone());
        let send = async move {
            let message = MessageCreate { text, start: true, ..MessageCreate::default() };
            let accepted: MessageAccepted = send::post(&client, &session, &message).await?.decode()?;
            Ok(accepted.id)
        };
        self.sending = Some(send.boxed());
    }

    pub(super) fn sent(&mut self, sent: Result<String, CliError>) {
        self.sending = None;
        let place = self.prompts.iter().position(|prompt| prompt.text.is_none() && prompt.message_id.is_none());
        let prompt = place.and_then(|place| self.prompts.get_mut(place));
        match (sent, prompt) {
            (Ok(id), Some(prompt)) => prompt.message_id = Some(id),
            (Err(error), Some(_)) => {
                let failed = self.editor.failed(&error);
                let prompt = place.and_then(|place| self.prompts.remove(place));
                answer(prompt, Err(failed));
            }
            (_, None) => {}
        }
        if self.follower.is_none() {
            self.follower = Some(Follower::new(&self.client, &self.session, Some(self.seq), self.patience));
        }
        self.send_next();
    }

    /// What was sent is interrupted, now or when its turn begins; what was not is never sent.
    fn cancel(&mut self) {
        let (unsent, mut sent): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.prompts).into_iter().partition(|prompt| prompt.text.is_some());
        unsent.into_iter().for_each(|prompt| answer(Some(prompt), Ok(acp::StopReason::Cancelled)));
        sent.iter_mut().for_each(|prompt| prompt.is_cancelled = true);
        self.prompts = sent;
        let is_ours = |message: &String| self.prompts.iter().any(|prompt| prompt.message_id.as_ref() == Some(message));
        // Without a prompt it is about what the editor shows: somebody else's turn.
        if self.turn.as_ref().is_some_and(|turn| self.prompts.is_empty() || is_ours(turn)) {
            self.interrupt();
        }
    }

    pub(super) fn interrupt(&mut self) {
        let (client, session) = (self.client.clone(), self.session.clone());
        let interrupt = async move {
            let route = Route::new(["sessions", &session, "agui", "interrupt"]);
            Done::Interrupted(client.post(&route, &json!({})).await.map(drop))
        };
        self.begun.push(interrupt.boxed());
    }

    /// Prompts that nothing will come of any more.
    pub(super) fn fail(&mut self, why: &str, which: impl Fn(&Prompt) -> bool) {
        let (failed, left) =
            std::mem::take(&mut self.prompts).into_iter().partition::<VecDeque<_>, _>(|prompt| which(prompt));
        self.prompts = left;
        for prompt in failed {
            answer(Some(prompt), Err(told(FAILED, why)));
        }
    }
}

/// Answers a prompt; a cancelled one as the protocol demands, whatever became of it.
pub(super) fn answer(prompt: Option<Prompt>, outcome: agent_client_protocol::Result<acp::StopReason>) {
    let Some(Prompt { responder, is_cancelled, .. }) = prompt else { return };
    let outcome = if is_cancelled { Ok(acp::StopReason::Cancelled) } else { outcome };
    // An editor that is gone ends the command.
    let _ = responder.respond_with_result(outcome.map(acp::PromptResponse::new));
}

/// How a turn ended; one that failed is an error in words.
pub(super) fn stop_reason(result: &TurnResult, words: &str) -> agent_client_protocol::Result<acp::StopReason> {
    let reason = match result.stop_reason.as_deref() {
        Some("max_tokens") => Some(acp::StopReason::MaxTokens),
        Some("max_turn_requests") => Some(acp::StopReason::MaxTurnRequests),
        Some("refusal") => Some(acp::StopReason::Refusal),
        Some("cancelled") => Some(acp::StopReason::Cancelled),
        _ => None,
    };
    match (result.outcome, reason) {
        (_, Some(reason)) => Ok(reason),
        (TurnOutcome::Finished, None) => Ok(acp::StopReason::EndTurn),
        (TurnOutcome::Interrupted, None) => Ok(acp::StopReason::Cancelled),
        (TurnOutcome::Error, None) => {
            let code = result.code.as_deref().unwrap_or("the turn failed");
            Err(told(FAILED, if words.is_empty() { code.to_owned() } else { format!("{code}: {words}") }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_as_the_agent_says_and_one_that_failed_is_an_error_in_words() {
        let ended = |outcome, code: Option<&str>, reason: Option<&str>| {
            let (code, stop_reason) = (code.map(str::to_owned), reason.map(str::to_owned));
            super::stop_reason(&TurnResult { outcome, code, exit_code: None, stop_reason }, "it is gone")
        };
        assert_eq!(ended(TurnOutcome::Finished, None, Some("end_turn")), Ok(acp::StopReason::EndTurn));
        assert_eq!(ended(TurnOutcome::Finished, None, Some("of_tomorrow")), Ok(acp::StopReason::EndTurn));
        assert_eq!(ended(TurnOutcome::Error, Some("AgentError"), Some("refusal")), Ok(acp::StopReason::Refusal));
        assert_eq!(ended(TurnOutcome::Error, Some("AgentError"), Some("max_tokens")), Ok(acp::StopReason::MaxTokens));
        assert_eq!(ended(TurnOutcome::Interrupted, Some("Interrupted"), None), Ok(acp::StopReason::Cancelled));
        let lost = ended(TurnOutcome::Error, Some("AgentLost"), None);
        assert_eq!(lost.unwrap_err().message, "AgentLost: it is gone");
    }
}
