//! Follows a run from its start to its end.

use std::{
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ambient_wire::session::{Session, SessionStop};
use tokio::sync::mpsc;

use super::{record::Record, result};
use crate::{
    OutputFormat,
    client::{Client, route::Route},
    commands::{
        Connection,
        session::{
            attach,
            questions::{How, Questions},
        },
    },
    error::CliError,
    exit::Exit,
    follow::{Follower, Step, render::Renderer},
};

/// A run being followed.
pub(super) struct Following<'a> {
    pub(super) connection: &'a Connection,
    pub(super) session: &'a Session,
    pub(super) patience: Duration,
}

impl Following<'_> {
    /// Follows to the end, prints the result, returns the code; `None` if the user left before the end.
    pub(super) async fn run(&self, interrupts: &mut mpsc::Receiver<()>) -> Result<Option<Exit>, CliError> {
        let stopping = Arc::default();
        let followed = self.follow(interrupts, &stopping).await;
        if !matches!(followed, Ok(Some(_))) {
            // Printed first, so that an error comes last.
            self.say_how_to_go_on(stopping.load(Ordering::Relaxed));
        }
        let Some(record) = followed? else {
            return Ok(None);
        };
        for (style, line) in result::lines(self.session, &record) {
            self.connection.console.progress(style, &line);
        }
        if self.connection.format == OutputFormat::Table {
            result::print_patches(&record, &self.connection.console)?;
        }
        Ok(Some(exit_of(&record)))
    }

    /// `None` if the user left; `stopping` tells whether a stop was accepted before that.
    async fn follow(
        &self,
        interrupts: &mut mpsc::Receiver<()>,
        stopping: &Arc<AtomicBool>,
    ) -> Result<Option<Record>, CliError> {
        let client = self.connection.client.with_patience(self.patience);
        let mut follower = Follower::new(&client, &self.session.id, Some(0), self.patience);
        let (console, format) = (self.connection.console.clone(), self.connection.format);
        let mut renderer = Renderer::new(console, format);
        let reads = std::io::stdin().is_terminal();
        let mut questions = Questions::new(&self.session.id, if reads { How::Line } else { How::Command });
        let mut lines = if reads { Some(attach::messages()) } else { None };
        let mut record = Record::default();
        let mut stop_requested = false;
        while !record.is_over() {
            tokio::select! {
                step = follower.next() => match step? {
                    Step::Snapshot(snapshot) => renderer.snapshot(&snapshot)?,
                    Step::Event(event) => {
                        renderer.event(&event)?;
                        questions.take(&event, &self.connection.console);
                        record.take(&event);
                    }
                    Step::Ended(_) => record.deleted = true,
                },
                line = next_line(&mut lines) => self.answer(&questions, &client, line).await,
                Some(()) = interrupts.recv() => {
                    if std::mem::replace(&mut stop_requested, true) {
                        return Ok(None);
                    }
                    self.request_stop(client.clone(), stopping.clone());
                }
            }
        }
        renderer.finish()?;
        Ok(Some(record))
    }

    /// A line answers what the agent asks; the session takes no messages.
    async fn answer(&self, questions: &Questions, client: &Client, line: Option<String>) {
        let Some((request, given)) = line.as_deref().and_then(|line| questions.answer(line)) else { return };
        if let Err(error) = questions.send(client, request, &given).await {
            self.connection.console.error(&error.report());
        }
    }

    /// Requests a stop in the background: the live log says when it is done.
    fn request_stop(&self, client: Client, stopping: Arc<AtomicBool>) {
        client.console().warn("stopping the session … (Ctrl-C again leaves it to itself)");
        let id = self.session.id.clone();
        tokio::spawn(async move {
            let stop = client.post(&Route::new(["sessions", &id, "stop"]), &SessionStop::default()).await;
            match stop {
                Ok(_) => stopping.store(true, Ordering::Relaxed),
                Err(error) => client.console().error(&error.report()),
            }
        });
    }

    fn say_how_to_go_on(&self, stopping: bool) {
        let (id, console) = (&self.session.id, &self.connection.console);
        let follow = format!("  follow: ambient session attach {id}");
        if stopping {
            console.warn(&format!("the stop goes on without this command\n{follow}"));
        } else {
            let stop = format!("  stop:   ambient session stop {id}");
            console.warn(&format!("the session keeps running without this command\n{follow}\n{stop}"));
        }
    }
}

/// The next line that is typed, if any is; after the last it never returns.
async fn next_line(lines: &mut Option<mpsc::Receiver<String>>) -> Option<String> {
    let Some(receiver) = lines else { return std::future::pending().await };
    let line = receiver.recv().await;
    if line.is_none() {
        *lines = None;
    }
    line
}

fn exit_of(record: &Record) -> Exit {
    match record.last().map(|end| (end.phase.as_str(), end.reason.as_str())) {
        Some(("Failed" | "Stopped", "Timeout" | "InactivityTimeout")) => Exit::Timeout,
        Some(("Completed", _)) => Exit::Success,
        Some(("Failed", _)) => Exit::Failure,
        _ => Exit::Interrupted,
    }
}
