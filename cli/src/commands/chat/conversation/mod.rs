//! The conversation: what happens in the session, what is typed, which keys are pressed.

mod keyboard;
mod said;

use std::time::{Duration, Instant};

use ambient_wire::{live::Event, runner_event::RunnerEvent, session::Session};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::sleep,
};

use self::keyboard::{CTRL_D, TICK};
use super::{Terminal, turns::Turns};
use crate::{
    client::Client,
    commands::{
        Connection,
        session::{
            attach, is_terminal,
            questions::{How, Questions},
        },
    },
    error::CliError,
    exit::Exit,
    follow::{Follower, Step, render::Renderer},
    output::{Style, escape},
};

const PROMPT: &str = "› ";

/// A conversation.
pub(super) struct Chat<'a> {
    connection: &'a Connection,
    client: Client,
    session: Session,
    follower: Follower,
    renderer: Renderer,
    questions: Questions,
    turns: Turns,
    /// Names of commands that the agent understands.
    commands: Vec<String>,
    terminal: Option<Terminal>,
    /// Lines of standard input, where it is no terminal; none after its end.
    lines: Option<mpsc::Receiver<String>>,
    sending: Option<BoxFuture<'static, Result<String, CliError>>>,
    /// What was begun, each with the message that comes of it.
    begun: FuturesUnordered<BoxFuture<'static, Result<Option<String>, CliError>>>,
    /// Events up to this place happened before.
    history: i64,
    seq: i64,
    /// A line is typed although the agent works; with what it begins.
    typing: Option<String>,
    /// When the newest request was shown.
    asked_at: Option<Instant>,
    /// A line that was ended before it could be shown.
    entered: Option<String>,
    /// The request that is rejected with the next line.
    rejecting: Option<String>,
    /// The agent has worked since a line was typed.
    has_worked: bool,
    /// Ctrl-C was pressed, and nothing has come of it yet.
    is_leaving: bool,
    is_deleted: bool,
    working_since: Option<Instant>,
    exit: Exit,
}

impl<'a> Chat<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        session: Session,
        is_new: bool,
        details: bool,
        patience: Duration,
        terminal: Option<Terminal>,
    ) -> Self {
        let client = connection.client.with_patience(patience);
        let how = if terminal.is_some() { How::Key } else { How::Line };
        let lines = terminal.is_none().then(attach::messages);
        Self {
            follower: Follower::new(&client, &session.id, is_new.then_some(0), patience),
            renderer: Renderer::of_conversation(connection.console.clone(), details),
            questions: Questions::new(&session.id, how),
            turns: Turns::default(),
            commands: Vec::new(),
            history: if is_new { 0 } else { session.last_seq.unwrap_or_default() },
            seq: 0,
            client,
            connection,
            session,
            terminal,
            lines,
            sending: None,
            begun: FuturesUnordered::new(),
            typing: None,
            asked_at: None,
            entered: None,
            rejecting: None,
            has_worked: false,
            is_leaving: false,
            is_deleted: false,
            working_since: None,
            exit: Exit::Success,
        }
    }

    /// Until the user leaves, or the session is deleted.
    pub(super) async fn run(mut self) -> Result<Exit, CliError> {
        self.greet();
        let conversed = self.converse().await;
        if let Some(Terminal { screen, keys, .. }) = &mut self.terminal {
            keys.restore();
            screen.leave();
        }
        self.renderer.pause()?;
        // An error comes last.
        self.say_goodbye();
        conversed.map(|()| self.exit)
    }

    async fn converse(&mut self) -> Result<(), CliError> {
        // Before a line is read: whoever reads it puts back what was there before.
        let mut interrupts = ending(SignalKind::interrupt())?;
        let mut ends = (ending(SignalKind::terminate())?, ending(SignalKind::hangup())?);
        loop {
            self.hand_over_the_keyboard()?;
            if let Some(line) = self.entered.take() {
                self.connection.console.progress(Style::Cyan, &format!("{PROMPT}{line}"));
                if self.said(&line).await? {
                    return Ok(());
                }
                continue;
            }
            let (is_sending, takes_lines, shows_status) =
                (self.sending.is_some(), self.takes_lines(), self.shows_status());
            if self.lines.is_none() && self.terminal.is_none() && !self.is_working() && self.begun.is_empty() {
                return Ok(());
            }
            let (typist, keys) = match &mut self.terminal {
                Some(Terminal { typist, keys, .. }) => (Some(typist), Some(keys)),
                None => (None, None),
            };
            let leaves = tokio::select! {
                step = self.follower.next(), if !is_sending => self.happened(step?)?,
                sent = doing(&mut self.sending) => self.sent(sent),
                Some(done) = self.begun.next() => self.done(done),
                typed = maybe(typist.map(super::Typist::next)) => self.typed(typed).await?,
                key = maybe(keys.map(super::Keys::next)) => self.pressed(&key.unwrap_or_else(|| CTRL_D.to_string()))?,
                line = maybe(self.lines.as_mut().map(mpsc::Receiver::recv)), if takes_lines => self.read(line).await?,
                Some(()) = interrupts.recv() => self.interrupted()?,
                _ = ends.0.recv() => true,
                _ = ends.1.recv() => true,
                () = sleep(TICK), if shows_status => self.show_status(),
            };
            if leaves {
                return Ok(());
            }
        }
    }

    fn is_working(&self) -> bool {
        self.sending.is_some() || self.turns.are_open()
    }

    fn is_told(&self) -> bool {
        self.seq >= self.history
    }

    /// Lines of standard input are taken one after the other, each after the turn on the one before; a request is answered by one.
    fn takes_lines(&self) -> bool {
        self.lines.is_some()
            && self.is_told()
            && (!self.is_working() || self.questions.oldest().is_some())
            && self.begun.is_empty()
    }

    fn greet(&self) {
        let (console, session) = (&self.connection.console, &self.session);
        let name = escape::line(&session.name);
        console
            .progress(Style::Bold, &format!("session {name} ({}), {}", session.id, escape::line(&session.agent_type)));
        if self.terminal.is_some() {
            console.progress(Style::Dim, "/help shows what can be typed; Ctrl-C ends a turn, Ctrl-D leaves");
        }
    }

    fn say_goodbye(&self) {
        if self.is_deleted {
            return;
        }
        let goes_on = if self.turns.is_running() { "the agent works on" } else { "the session stays" };
        let id = &self.session.id;
        self.connection.console.note(&format!("{goes_on}; come back with: ambient chat --session {id}"));
    }

    fn happened(&mut self, step: Step) -> Result<bool, CliError> {
        match step {
            Step::Snapshot(snapshot) => {
                self.seq = snapshot.covers_seq;
                self.renderer.snapshot(&snapshot)?;
            }
            Step::Event(event) => return self.took_place(&event),
            Step::Ended(_) => {
                self.is_deleted = true;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn took_place(&mut self, event: &Event) -> Result<bool, CliError> {
        let was_told = self.is_told();
        self.seq = event.seq;
        // What was typed here is there already.
        if !(self.terminal.is_some() && self.turns.is_ours(event)) {
            self.renderer.event(event)?;
        }
        if event.event_type == "session.phase" {
            self.session.phase = event.data["phase"].as_str().map(str::to_owned);
            if self.session.phase.as_deref().is_some_and(is_terminal) && was_told {
                self.connection.console.note("  a message starts it again");
            }
        }
        if let Some(RunnerEvent::AgentSettings { commands: Some(commands), .. }) = RunnerEvent::read(&event.data) {
            let names = commands.as_array().into_iter().flatten().filter_map(|command| command["name"].as_str());
            self.commands = names.map(str::to_owned).collect();
        }
        if self.turns.take(event) {
            self.stop();
        }
        self.is_leaving &= self.turns.is_running();
        // What was answered since is not asked.
        let raised = self.questions.note(event).filter(|_| was_told);
        let open = if was_told { raised } else { self.questions.oldest().filter(|_| self.is_told()) };
        if let Some(open) = open {
            self.asked_at = Some(Instant::now());
            self.questions.say_how(&self.connection.console, open);
        }
        Ok(false)
    }

    /// A line of standard input.
    async fn read(&mut self, line: Option<String>) -> Result<bool, CliError> {
        let Some(line) = line else {
            self.lines = None;
            return Ok(false);
        };
        self.said(&line).await
    }
}

fn ending(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|source| CliError::Io { what: "cannot wait for signals".to_owned(), source })
}

/// The outcome of what is being done; for ever none if nothing is.
async fn doing<T>(doing: &mut Option<BoxFuture<'static, T>>) -> T {
    maybe(doing.as_mut()).await
}

async fn maybe<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
