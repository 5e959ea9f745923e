//! Follows a run from its start to its end.

use std::time::Duration;

use ambient_wire::session::{Session, SessionStop};
use tokio::sync::mpsc;

use super::{record::Record, result};
use crate::{
    OutputFormat,
    client::{Client, route::Route},
    commands::Connection,
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
        let followed = self.follow(interrupts).await;
        if !matches!(followed, Ok(Some(_))) {
            // Printed first, so that an error comes last.
            self.say_how_to_go_on();
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

    /// `None` if the user left.
    async fn follow(&self, interrupts: &mut mpsc::Receiver<()>) -> Result<Option<Record>, CliError> {
        let client = self.connection.client.with_patience(self.patience);
        let mut follower = Follower::new(&client, &self.session.id, Some(0), self.patience);
        let mut renderer = Renderer::new(self.connection.console.clone(), self.connection.format);
        let mut record = Record::default();
        let mut stop_requested = false;
        while !record.is_over() {
            tokio::select! {
                step = follower.next() => match step? {
                    Step::Snapshot(snapshot) => renderer.snapshot(&snapshot)?,
                    Step::Event(event) => {
                        renderer.event(&event)?;
                        record.take(&event);
                    }
                    Step::Ended(_) => record.deleted = true,
                },
                Some(()) = interrupts.recv() => {
                    if std::mem::replace(&mut stop_requested, true) {
                        return Ok(None);
                    }
                    self.request_stop(client.clone());
                }
            }
        }
        renderer.finish()?;
        Ok(Some(record))
    }

    /// Requests a stop in the background: the live log says when it is done.
    fn request_stop(&self, client: Client) {
        client.console().warn("stopping the session … (Ctrl-C again leaves it running)");
        let id = self.session.id.clone();
        tokio::spawn(async move {
            let stop = client.post(&Route::new(["sessions", &id, "stop"]), &SessionStop::default()).await;
            if let Err(error) = stop {
                client.console().error(&error.report());
            }
        });
    }

    fn say_how_to_go_on(&self) {
        let id = &self.session.id;
        self.connection.console.warn(&format!(
            "the session keeps running without this command\n  follow: ambient session attach {id}\n  stop:   ambient session stop {id}"
        ));
    }
}

fn exit_of(record: &Record) -> Exit {
    match record.last().map(|end| (end.phase.as_str(), end.reason.as_str())) {
        Some(("Failed" | "Stopped", "Timeout" | "InactivityTimeout")) => Exit::Timeout,
        Some(("Completed", _)) => Exit::Success,
        Some(("Failed", _)) => Exit::Failure,
        _ => Exit::Interrupted,
    }
}
