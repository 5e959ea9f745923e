//! What is said: messages, answers, and commands of ours.

use ambient_wire::{
    interrupt::Interrupt,
    permission::InterruptAnswer,
    runner_event::PermissionAnswer,
    session::{MessageAccepted, MessageCreate},
};
use futures::FutureExt;
use serde_json::json;

use super::{
    super::{
        slash::{self, Line},
        typist::Typed,
    },
    Chat,
};
use crate::{
    client::route::Route,
    commands::session::{answer, git, send, show},
    error::CliError,
    output::{Style, escape, fields::Fields},
};

impl Chat<'_> {
    pub(super) async fn typed(&mut self, typed: Typed) -> Result<bool, CliError> {
        match typed {
            Typed::Line(line) => self.said(&line).await,
            Typed::End => Ok(self.rejecting.take().is_none()),
            Typed::Interrupted if self.rejecting.take().is_some() || self.is_working() => Ok(false),
            Typed::Interrupted => {
                let leaves = std::mem::replace(&mut self.is_leaving, true);
                if !leaves {
                    self.connection.console.progress(Style::Dim, "Ctrl-C again leaves");
                }
                Ok(leaves)
            }
        }
    }

    pub(super) async fn said(&mut self, text: &str) -> Result<bool, CliError> {
        self.is_leaving = false;
        if let Some(request) = self.rejecting.take() {
            if !text.trim().is_empty() {
                self.answer(request, PermissionAnswer::Reject, Some(text.trim().to_owned()));
            }
            return Ok(false);
        }
        if let Some((request, given)) = self.questions.answer(text) {
            let request = request.to_owned();
            self.answer(request, given.answer, given.message);
            return Ok(false);
        }
        let console = &self.connection.console;
        match slash::line(text, |name| self.commands.iter().any(|command| command == name)) {
            Line::Message(text) => self.send(text.to_owned()),
            Line::Blank => {}
            Line::Help => slash::HELP.lines().for_each(|line| console.note(line)),
            Line::Stop if self.is_working() => self.stop(),
            Line::Stop => console.note("nothing is being worked on"),
            Line::Diff(repo) => {
                if let Err(error) =
                    git::show_diff(&git::diff(&self.session.id, repo.map(str::to_owned)), self.connection).await
                {
                    console.error(&error.report());
                }
            }
            Line::Details => self.renderer.toggle_details()?,
            Line::Session => self.tell_session().await?,
            Line::Quit => return Ok(true),
            Line::Unknown(name) => {
                let name = escape::line(name);
                console.note(&format!("no command /{name}; see /help, or write //{name} to send it to the agent"));
            }
        }
        Ok(false)
    }

    pub(super) fn send(&mut self, text: String) {
        let (client, session) = (self.client.clone(), self.session.id.clone());
        let send = async move {
            let message = MessageCreate { text, start: true, ..MessageCreate::default() };
            let accepted: MessageAccepted = send::post(&client, &session, &message).await?.decode()?;
            Ok(accepted.id)
        };
        self.sending = Some(send.boxed());
    }

    pub(super) fn sent(&mut self, sent: Result<String, CliError>) -> bool {
        self.sending = None;
        match sent {
            Ok(message) => self.turns.sent(message),
            Err(error) => {
                self.turns.not_sent();
                self.connection.console.error(&error.report());
                self.exit = error.exit();
            }
        }
        false
    }

    pub(super) fn done(&mut self, done: Result<Option<String>, CliError>) -> bool {
        match done {
            Ok(message) => message.into_iter().for_each(|message| self.turns.sent(message)),
            Err(CliError::Api { status: 404 | 409, error }) => {
                self.connection.console.note(&format!("  {}", error.reason));
            }
            Err(error) => self.connection.console.error(&error.report()),
        }
        false
    }

    pub(super) fn answer(&mut self, request: String, answer: PermissionAnswer, message: Option<String>) {
        let (client, session) = (self.client.clone(), self.session.id.clone());
        let given = InterruptAnswer { answer, message };
        let answer = async move {
            let answered: Interrupt = answer::post(&client, &session, &request, &given).await?.decode()?;
            Ok(answered.answer.and_then(|given| given.message_id))
        };
        self.begun.push(answer.boxed());
    }

    /// Ends the turn in progress, or the next of ours as it begins.
    pub(super) fn stop(&mut self) {
        if !self.turns.is_running() {
            return self.turns.unwanted();
        }
        let (client, session) = (self.client.clone(), self.session.id.clone());
        let stop = async move {
            let route = Route::new(["sessions", &session, "agui", "interrupt"]);
            client.post(&route, &json!({})).await.map(|_| None)
        };
        self.begun.push(stop.boxed());
    }

    pub(super) async fn tell_session(&mut self) -> Result<(), CliError> {
        self.session = self.connection.session(&self.session.id).await?;
        let session = &self.session;
        let mut fields = Fields::new(10);
        fields.add("Name", &session.name);
        fields.add("Id", &session.id);
        fields.add("Phase", show::phase(session));
        fields.add("Agent", &session.agent_type);
        if let Some(model) = &session.llm_model {
            fields.add("Model", model);
        }
        for repo in &session.repos {
            fields.add("Repo", &repo.url);
        }
        fields.add("Server", self.client.server());
        Ok(self.connection.console.data(&fields.into_text())?)
    }
}
