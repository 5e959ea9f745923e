//! `ambient session`.

pub(super) mod attach;
mod files;
mod git;
mod lifecycle;
mod logs;
mod repo;
mod send;
pub(super) mod show;
pub(super) mod spec;

use ambient_wire::{api::List, session::Session};
use clap::Subcommand;

use super::{Connection, is_id, operations};
use crate::{client::route::Route, error::CliError, exit::Exit};

/// Commands for sessions. A session is named by its name within the project, or by its id.
#[derive(Debug, Clone, Subcommand)]
pub enum SessionCommand {
    /// Create a session
    #[command(after_help = "Example:\n  ambient session create --name fix --repo . --prompt 'Say hello' --start")]
    Create(Box<lifecycle::Create>),
    /// List sessions
    #[command(visible_alias = "ls", after_help = "Example:\n  ambient session list --phase Running")]
    List(Box<show::ListArguments>),
    /// Show a session with its conditions
    #[command(after_help = "Example:\n  ambient session get fix")]
    Get(show::Get),
    /// List a session's operations, newest first
    #[command(after_help = "Example:\n  ambient session history fix")]
    History {
        /// Id or name
        session: String,
    },
    /// Start a session, or restart it
    #[command(after_help = "Example:\n  ambient session start fix --wait")]
    Start(lifecycle::Start),
    /// Stop a session; its workspace is kept
    #[command(after_help = "Example:\n  ambient session stop fix --wait")]
    Stop(lifecycle::Stop),
    /// Delete a session and its workspace
    #[command(after_help = "Example:\n  ambient session delete fix")]
    Delete {
        /// Id or name
        session: String,
    },
    /// Follow a session from now on and talk to it: each line, or code block, is a message; Ctrl-D detaches
    #[command(after_help = "Example:\n  ambient session attach fix")]
    Attach(attach::Attach),
    /// Show what happened in a session
    #[command(after_help = "Example:\n  ambient session logs fix --follow")]
    Logs(logs::Logs),
    /// Send a message
    #[command(after_help = "Example:\n  ambient session send fix 'Now run the tests'")]
    Send(send::Send),
    /// List a folder in a running session's workspace, or print a file from it
    #[command(after_help = "Example:\n  ambient session files fix src\n  ambient session files fix README.md")]
    Files(files::Files),
    /// Print the changes in a running session's repository
    #[command(after_help = "Example:\n  ambient session diff fix | git apply")]
    Diff(git::Diff),
    /// Push the commits in a running session's repository to a branch of its origin
    #[command(after_help = "Example:\n  ambient session push fix --branch fix/readme")]
    Push(git::Push),
    /// Add, remove and list repositories
    #[command(subcommand)]
    Repo(repo::RepoCommand),
}

pub(super) async fn run(command: SessionCommand, connection: &Connection) -> Result<Exit, CliError> {
    match command {
        SessionCommand::Create(arguments) => lifecycle::create(*arguments, connection).await,
        SessionCommand::List(arguments) => show::list(*arguments, connection).await,
        SessionCommand::Get(arguments) => show::get(arguments, connection).await,
        SessionCommand::History { session } => {
            operations::history("session", &connection.session_id(&session).await?, connection).await
        }
        SessionCommand::Start(arguments) => lifecycle::start(arguments, connection).await,
        SessionCommand::Stop(arguments) => lifecycle::stop(arguments, connection).await,
        SessionCommand::Delete { session } => lifecycle::delete(&session, connection).await,
        SessionCommand::Attach(arguments) => attach::attach(arguments, connection).await,
        SessionCommand::Logs(arguments) => logs::logs(arguments, connection).await,
        SessionCommand::Send(arguments) => send::send(arguments, connection).await,
        SessionCommand::Files(arguments) => files::files(arguments, connection).await,
        SessionCommand::Diff(arguments) => git::print_diff(arguments, connection).await,
        SessionCommand::Push(arguments) => git::push(arguments, connection).await,
        SessionCommand::Repo(command) => repo::run(command, connection).await,
    }
}

impl Connection {
    /// Id of a session given by name within the project, or by id. A name may look like an id, so names are looked up first. A text
    /// that is the name of one session and the id of another is refused: a prefix `id:` says that the id is meant.
    pub(crate) async fn session_id(&self, session: &str) -> Result<String, CliError> {
        if let Some(id) = session.strip_prefix("id:").filter(|id| is_id(id)) {
            return Ok(id.to_owned());
        }
        let route = Route::new(["sessions"]).query("name", Some(session)).query("project_id", self.chosen_project());
        let found: List<Session> = match self.client.get(&route.query("size", Some(10))).await {
            // No such project: an id does not need one.
            Err(CliError::Api { status: 404, .. }) if is_id(session) => return Ok(session.to_owned()),
            found => found?.decode()?,
        };
        if is_id(session) && found.items.iter().all(|named| named.id != session) {
            if found.items.is_empty() {
                return Ok(session.to_owned());
            }
            if self.is_session(session).await? {
                let ids: Vec<_> = found.items.iter().map(|named| named.id.as_str()).collect();
                let reason = format!(
                    "'{session}' is the id of one session and the name of another, {}: write 'id:{session}' for the first",
                    ids.join(", ")
                );
                return Err(CliError::refused(Exit::Conflict, reason));
            }
        }
        match found.items.as_slice() {
            [one] => Ok(one.id.clone()),
            [] => Err(CliError::refused(Exit::NotFound, format!("no session '{session}'; see 'ambient session list'"))),
            several => {
                let ids: Vec<_> = several.iter().map(|session| session.id.as_str()).collect();
                let ids = ids.join(", ");
                let reason = format!("{} sessions are named '{session}'; give the id of one: {ids}", found.total);
                Err(CliError::refused(Exit::Conflict, reason))
            }
        }
    }

    async fn is_session(&self, id: &str) -> Result<bool, CliError> {
        match self.session(id).await {
            Ok(_) => Ok(true),
            Err(CliError::Api { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A session by id.
    pub(crate) async fn session(&self, id: &str) -> Result<Session, CliError> {
        self.client.get(&Route::new(["sessions", id])).await?.decode()
    }
}

/// Whether a run is over in this phase.
pub(super) fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Stopped" | "Completed" | "Failed")
}
