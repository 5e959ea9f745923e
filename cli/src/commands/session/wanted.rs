//! The session of a conversation (`chat`, `acp`): one that is there, or a new one.

use std::path::Path;

use ambient_wire::session::{Session, SessionStart};
use clap::Args;

use super::{is_terminal, spec::Spec};
use crate::{client::route::Route, commands::Connection, error::CliError, exit::Exit};

/// Which session a conversation is held in.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Wanted {
    /// Session to go on with, by id or name, instead of a new one
    #[arg(long, value_name = "SESSION", conflicts_with_all = ["Spec", "OutputFlags"])]
    pub(crate) session: Option<String>,
    #[command(flatten)]
    spec: Spec,
}

impl Wanted {
    /// The session, and whether it is new. `folder` is where relative `--repo` start.
    pub(crate) async fn open(&self, connection: &Connection, folder: &Path) -> Result<(Session, bool), CliError> {
        match &self.session {
            Some(session) => Ok((resume(connection, session).await?, false)),
            None => Ok((self.create(connection, folder).await?, true)),
        }
    }

    async fn create(&self, connection: &Connection, folder: &Path) -> Result<Session, CliError> {
        let mut create = self.spec.starting_at(folder).create(None, connection).await?;
        create.start = true;
        create.interactive = Some(true);
        connection.client.post(&Route::new(["sessions"]), &create).await?.decode()
    }
}

/// A session that takes messages. It is started if it does not run, unless that would have its prompt worked on once more: then the first
/// message starts it.
pub(crate) async fn resume(connection: &Connection, session: &str) -> Result<Session, CliError> {
    let id = connection.session_id(session).await?;
    let session = connection.session(&id).await?;
    if !session.interactive {
        let reason = format!("session {} is a batch session and takes no messages", session.name);
        return Err(CliError::refused(Exit::Conflict, reason));
    }
    let starts = match session.phase.as_deref() {
        None => true,
        Some(phase) => is_terminal(phase) && session.prompt.is_none(),
    };
    if !starts {
        return Ok(session);
    }
    let started = connection.client.post(&Route::new(["sessions", &id, "start"]), &SessionStart::default()).await?;
    // What happened before the start is history; what comes of it is not.
    Ok(Session { last_seq: session.last_seq, ..started.decode()? })
}
