//! A session that is open in the editor: what happens in it is told, what the editor says is sent.
//!
//! One task for each. It follows the live log, so that every event is told once, whatever becomes of connections and servers; a prompt is answered
//! when the turn on its message has ended. While a message is being sent nothing is read: its id is known before what comes of it.

mod prompts;
mod questions;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use agent_client_protocol::v1::{Responder, schema as acp};
use ambient_wire::{live::Event, runner_event::RunnerEvent, session::Session};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde_json::Value;
use tokio::{sync::mpsc, time::sleep};

use self::{
    prompts::{Prompt, answer, stop_reason},
    questions::Question,
};
use super::{
    editor::{Editor, FAILED, told},
    updates::{self, Updates},
};
use crate::{
    client::Client,
    commands::session::is_terminal,
    error::CliError,
    follow::{Follower, Step},
};

/// How long a tool's output is gathered before it is told: each time all of it is.
const GATHERED: Duration = Duration::from_millis(200);

/// What the editor wants of a session.
pub(super) enum Wish {
    /// A message, and a turn on it.
    Prompt {
        /// Its text.
        text: String,
        /// Who waits for the end of the turn.
        responder: Box<Responder<acp::PromptResponse>>,
    },
    /// The end of what is being done.
    Cancel,
}

/// What has come of something that was begun.
enum Done {
    /// The editor's answer to a request for permission.
    Answered(String, agent_client_protocol::Result<acp::RequestPermissionResponse>),
    /// It was passed on.
    PassedOn(String, Result<(), CliError>),
    /// The turn was interrupted.
    Interrupted(Result<(), CliError>),
}

/// The conversation.
pub(super) struct Conversation {
    editor: Editor,
    client: Client,
    session: String,
    id: acp::SessionId,
    patience: Duration,
    /// Place of the last event that was told.
    seq: i64,
    /// None after it was given up: the next prompt tries again.
    follower: Option<Follower>,
    updates: Updates,
    prompts: VecDeque<Prompt>,
    sending: Option<BoxFuture<'static, Result<String, CliError>>>,
    /// Message of the turn in progress.
    turn: Option<String>,
    /// What the turn came to, in words.
    words: String,
    questions: BTreeMap<String, Question>,
    begun: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Events up to this place happened before.
    history: i64,
    loaded: Option<Responder<acp::LoadSessionResponse>>,
}

impl Conversation {
    /// Tells all that has happened, and answers `loaded` after that.
    pub(super) fn new(
        editor: Editor,
        client: Client,
        session: &Session,
        patience: Duration,
        loaded: Option<Responder<acp::LoadSessionResponse>>,
    ) -> Self {
        let follower = Follower::new(&client, &session.id, Some(0), patience);
        Self {
            editor,
            client,
            session: session.id.clone(),
            id: acp::SessionId::new(session.id.clone()),
            patience,
            seq: 0,
            follower: Some(follower),
            updates: Updates::default(),
            prompts: VecDeque::new(),
            sending: None,
            turn: None,
            words: String::new(),
            questions: BTreeMap::new(),
            begun: FuturesUnordered::new(),
            history: session.last_seq.unwrap_or_default(),
            loaded,
        }
    }

    /// Until the editor opens it anew, or it is deleted.
    pub(super) async fn run(mut self, mut wishes: mpsc::Receiver<Wish>) {
        self.history_is_told();
        loop {
            let (is_sending, is_behind) = (self.sending.is_some(), self.updates.is_behind());
            tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(wish) => self.wished(wish),
                    None => return,
                },
                sent = next(&mut self.sending) => self.sent(sent),
                Some(done) = self.begun.next() => self.done(done),
                step = follow(&mut self.follower), if !is_sending => match step {
                    Ok(Step::Event(event)) => self.happened(event).await,
                    Ok(Step::Snapshot(snapshot)) => {
                        self.seq = snapshot.covers_seq;
                        let updates = self.updates.of_snapshot(&snapshot.data);
                        self.tell(updates).await;
                        self.history_is_told();
                    }
                    Ok(Step::Ended(reason)) => return self.ended(&reason),
                    Err(error) => self.given_up(&error),
                },
                () = sleep(GATHERED), if is_behind => {
                    let updates = self.updates.catch_up();
                    self.tell(updates).await;
                }
            }
        }
    }

    async fn tell(&mut self, updates: Vec<acp::SessionUpdate>) {
        for update in updates {
            self.editor.update(&self.id, update).await;
        }
    }

    async fn happened(&mut self, event: Event) {
        self.seq = event.seq;
        let data = &event.data;
        match event.event_type.as_str() {
            "user.message" => {
                let (message, text) = (text(data, "message_id"), text(data, "text"));
                match self.prompts.iter_mut().find(|prompt| prompt.message_id.as_deref() == Some(message)) {
                    // The editor shows it already.
                    Some(prompt) => prompt.run = data["run"].as_i64(),
                    None => {
                        let said = updates::said(message.to_owned(), text.to_owned());
                        self.tell(vec![said]).await;
                    }
                }
            }
            "session.interrupt" => self.asked(data),
            "session.messages_not_run" => {
                let not_run: Vec<&str> =
                    data["message_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                self.fail("the session ended before the agent came to it", |prompt| {
                    prompt.message_id.as_deref().is_some_and(|id| not_run.contains(&id))
                });
            }
            "session.phase" if data["phase"].as_str().is_some_and(is_terminal) => {
                let run = data["run"].as_i64();
                let why = format!("the session is {}: {}", text(data, "phase"), text(data, "message"));
                self.turn = None;
                self.fail(why.trim_end_matches([':', ' ']), |prompt| prompt.run.is_some() && prompt.run <= run);
            }
            _ => {
                if let Some(recorded) = RunnerEvent::read(data) {
                    self.recorded(recorded).await;
                }
            }
        }
        self.history_is_told();
    }

    async fn recorded(&mut self, event: RunnerEvent) {
        let mut ended = None;
        match &event {
            RunnerEvent::TurnStarted { message_id, .. } => {
                self.words.clear();
                self.turn = Some(message_id.clone());
                let ours = self.prompts.iter().find(|prompt| prompt.message_id.as_ref() == Some(message_id));
                if ours.is_some_and(|prompt| prompt.is_cancelled) {
                    self.interrupt();
                }
            }
            RunnerEvent::TurnResult { message, .. } => self.words.clone_from(message),
            RunnerEvent::TurnEnded { message_id, result, .. } => {
                self.turn = None;
                ended = Some((message_id.clone(), result.clone()));
            }
            RunnerEvent::AgentNotice { text } if self.is_live() => self.editor.note(text),
            _ => {}
        }
        let updates = self.updates.of(event);
        self.tell(updates).await;
        if let Some((message_id, result)) = ended {
            let place = self.prompts.iter().position(|prompt| prompt.message_id.as_ref() == Some(&message_id));
            let prompt = place.and_then(|place| self.prompts.remove(place));
            answer(prompt, stop_reason(&result, &self.words));
        }
    }

    /// Whether what happens is new.
    fn is_live(&self) -> bool {
        self.seq > self.history
    }

    /// Once what happened before is told, the editor may speak, and is asked what still waits.
    fn history_is_told(&mut self) {
        if self.seq < self.history {
            return;
        }
        if let Some(responder) = self.loaded.take() {
            let _ = responder.respond(acp::LoadSessionResponse::new());
        }
        let waiting: Vec<String> =
            self.questions.iter().filter(|(_, q)| q.asked.is_none()).map(|(id, _)| id.clone()).collect();
        waiting.into_iter().for_each(|id| self.ask(id));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Answered(id, answered) => self.answered(id, answered),
            Done::PassedOn(_, Ok(())) | Done::Interrupted(Ok(())) => {}
            Done::PassedOn(id, Err(CliError::Api { status: 404 | 409, .. })) => {
                self.editor.note(&format!("request {id} was answered elsewhere, or is no longer open"));
            }
            Done::PassedOn(_, Err(error)) | Done::Interrupted(Err(error)) => {
                self.editor.console.error(&error.report());
            }
        }
    }

    /// The session cannot be followed: what was sent goes on without the editor.
    fn given_up(&mut self, error: &CliError) {
        self.follower = None;
        let failed = self.editor.failed(error);
        if let Some(responder) = self.loaded.take() {
            let _ = responder.respond_with_error(failed.clone());
        }
        self.fail(&failed.message, |prompt| prompt.message_id.is_some());
    }

    fn ended(mut self, reason: &str) {
        self.editor.note(&format!("session {} has ended: {reason}", self.session));
        if let Some(responder) = self.loaded.take() {
            let _ = responder.respond_with_error(told(FAILED, format!("the session is {reason}")));
        }
        self.fail(&format!("the session is {reason}"), |_| true);
    }
}

fn text<'a>(data: &'a Value, field: &str) -> &'a str {
    data[field].as_str().unwrap_or_default()
}

/// The outcome of what is being done; for ever none if nothing is.
async fn next<T>(doing: &mut Option<BoxFuture<'static, T>>) -> T {
    match doing {
        Some(doing) => doing.await,
        None => std::future::pending().await,
    }
}

async fn follow(follower: &mut Option<Follower>) -> Result<Step, CliError> {
    match follower {
        Some(follower) => follower.next().await,
        None => std::future::pending().await,
    }
}
