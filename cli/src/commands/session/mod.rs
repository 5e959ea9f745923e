//! `ambient session`.

pub(super) mod answer;
pub(super) mod attach;
mod change;
mod files;
pub(super) mod git;
mod history;
mod lifecycle;
mod logs;
mod merge;
pub(crate) mod output;
mod playbook;
pub(super) mod questions;
mod repo;
pub(super) mod send;
pub(super) mod show;
pub(super) mod spec;
mod turns;
mod upload;
pub(super) mod wanted;

use ambient_wire::{
    api::List,
    session::{Session, SessionPatch},
};
use clap::Subcommand;

use super::{Connection, definition::PatchOf, is_id, models, operations, usage};
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
    /// Change the given fields of a session; what a run uses can be changed only while none is active
    #[command(after_help = "Example:\n  ambient session patch fix --timeout 600 --label team=web")]
    Patch(PatchOf<SessionPatch>),
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
    /// End the turn in progress; the session goes on with the next message
    #[command(after_help = "Example:\n  ambient session interrupt fix")]
    Interrupt {
        /// Id or name
        session: String,
    },
    /// Delete a session and its workspace
    #[command(after_help = "Example:\n  ambient session delete fix")]
    Delete {
        /// Id or name
        session: String,
    },
    /// Follow a session from now on and talk to it: each line, or code block, is a message, or an answer to what the agent asks; Ctrl-D detaches
    #[command(after_help = "Example:\n  ambient session attach fix")]
    Attach(attach::Attach),
    /// Show what happened in a session
    #[command(after_help = "Example:\n  ambient session logs fix --follow")]
    Logs(logs::Logs),
    /// Answer what the agent asks: once, always or reject
    #[command(
        after_help = "Example:\n  ambient session answer fix once\n  ambient session answer fix 1-1-3 reject --message 'Use make'"
    )]
    Answer(answer::Answer),
    /// Send a message
    #[command(after_help = "Example:\n  ambient session send fix 'Now run the tests'")]
    Send(send::Send),
    /// List a folder in a running session's workspace, or print a file from it
    #[command(
        after_help = "Example:\n  ambient session files fix hello/src         # hello is the repository's folder\n  ambient session files fix hello/README.md"
    )]
    Files(files::Files),
    /// Print a file from a running session's workspace
    #[command(after_help = "Example:\n  ambient session cat fix hello/README.md > README.md")]
    Cat(files::Cat),
    /// Show what is known about a file or folder in a running session's workspace
    #[command(after_help = "Example:\n  ambient session stat fix hello/README.md --sha256")]
    Stat(change::Stat),
    /// Write a file into a running session's workspace, from a local one or standard input (into one that does not run: `session upload`)
    #[command(
        after_help = "Example:\n  ambient session put fix ./notes.md hello/docs/ --parents\n  make data | ambient session put fix - hello/data.csv"
    )]
    Put(change::Put),
    /// Hand in a file for a session's next run, which finds it in its workspace before anything runs
    #[command(after_help = "Example:\n  ambient session upload fix ./spec.pdf docs/\n  ambient session start fix")]
    Upload(upload::Upload),
    /// List the files that wait for a session's next run, or take some back
    #[command(after_help = "Example:\n  ambient session uploads fix --remove docs/spec.pdf")]
    Uploads(upload::Uploads),
    /// Remove files and folders from a running session's workspace
    #[command(after_help = "Example:\n  ambient session rm fix hello/build --recursive")]
    Rm(change::Remove),
    /// Move or rename a file or folder in a running session's workspace
    #[command(after_help = "Example:\n  ambient session mv fix hello/old.md hello/new.md")]
    Mv(change::Move),
    /// Print the changes in a running session's repository
    #[command(
        after_help = "Example:\n  ambient session diff fix | git apply\n  ambient session diff fix src/main.rs --unstaged"
    )]
    Diff(git::Diff),
    /// List the commits in a running session's repository, newest first
    #[command(
        after_help = "Example:\n  ambient session log fix --ref origin/main\n  ambient session log fix src/main.rs"
    )]
    Log(history::Log),
    /// List the branches of a running session's repository, and of its origin
    #[command(after_help = "Example:\n  ambient session branches fix")]
    Branches(history::Branches),
    /// Make a branch in a running session's repository
    #[command(after_help = "Example:\n  ambient session branch fix topic --switch")]
    Branch(history::Branch),
    /// Take over new commits of the origin into a running session's repository
    #[command(after_help = "Example:\n  ambient session pull fix --rebase")]
    Pull(merge::Pull),
    /// Show what a merge with the origin would come to, conflicts included
    #[command(after_help = "Example:\n  ambient session merge-status fix --branch main")]
    MergeStatus(merge::MergeStatus),
    /// Pull from a branch of the origin, then push to it
    #[command(after_help = "Example:\n  ambient session sync fix --branch main --rebase")]
    Sync(merge::Sync),
    /// Take a running session's repository back to the commit that was cloned; what is given up is kept on a reference
    #[command(after_help = "Example:\n  ambient session abandon fix")]
    Abandon(merge::Abandon),
    /// Push the commits in a running session's repository to a branch of its origin
    #[command(after_help = "Example:\n  ambient session push fix --branch fix/readme")]
    Push(git::Push),
    /// List what came of each message: how it ended, what it used and changed; or show one turn, with the diff since the clone
    #[command(after_help = "Example:\n  ambient session turns fix\n  ambient session turns fix 1-2")]
    Turns(turns::Turns),
    /// Show what a session's model calls have used, by run and model
    #[command(after_help = "Example:\n  ambient session usage fix")]
    Usage {
        /// Id or name
        session: String,
    },
    /// Show which models a session's agent may ask, where they are asked, and who says so
    #[command(after_help = "Example:\n  ambient session models fix")]
    Models {
        /// Id or name
        session: String,
    },
    /// Show the playbook that a session's agent goes by, and its commands; or have it go by another, or none
    #[command(
        after_help = "Example:\n  ambient session playbook fix https://git.example.com/team/playbooks.git#main:triage\n  ambient session playbook fix\n  ambient session playbook fix --clear"
    )]
    Playbook(playbook::PlaybookFlags),
    /// Add, remove and list repositories
    #[command(subcommand)]
    Repo(repo::RepoCommand),
}

pub(super) async fn run(command: SessionCommand, connection: &Connection) -> Result<Exit, CliError> {
    match command {
        SessionCommand::Create(arguments) => lifecycle::create(*arguments, connection).await,
        SessionCommand::List(arguments) => show::list(*arguments, connection).await,
        SessionCommand::Get(arguments) => show::get(arguments, connection).await,
        SessionCommand::Patch(patch) => lifecycle::patch(&patch, connection).await,
        SessionCommand::History { session } => {
            operations::history("session", &connection.session_id(&session).await?, connection).await
        }
        SessionCommand::Start(arguments) => lifecycle::start(arguments, connection).await,
        SessionCommand::Stop(arguments) => lifecycle::stop(arguments, connection).await,
        SessionCommand::Interrupt { session } => lifecycle::interrupt(&session, connection).await,
        SessionCommand::Delete { session } => lifecycle::delete(&session, connection).await,
        SessionCommand::Attach(arguments) => attach::attach(arguments, connection).await,
        SessionCommand::Logs(arguments) => logs::logs(arguments, connection).await,
        SessionCommand::Answer(arguments) => answer::answer(arguments, connection).await,
        SessionCommand::Send(arguments) => send::send(arguments, connection).await,
        SessionCommand::Files(arguments) => files::files(arguments, connection).await,
        SessionCommand::Cat(arguments) => files::cat(arguments, connection).await,
        SessionCommand::Stat(arguments) => change::stat(arguments, connection).await,
        SessionCommand::Put(arguments) => change::put(arguments, connection).await,
        SessionCommand::Upload(arguments) => upload::upload(arguments, connection).await,
        SessionCommand::Uploads(arguments) => upload::uploads(arguments, connection).await,
        SessionCommand::Rm(arguments) => change::remove(arguments, connection).await,
        SessionCommand::Mv(arguments) => change::relocate(arguments, connection).await,
        SessionCommand::Diff(arguments) => git::print_diff(arguments, connection).await,
        SessionCommand::Log(arguments) => history::log(arguments, connection).await,
        SessionCommand::Branches(arguments) => history::branches(arguments, connection).await,
        SessionCommand::Branch(arguments) => history::branch(arguments, connection).await,
        SessionCommand::Pull(arguments) => merge::pull(arguments, connection).await,
        SessionCommand::MergeStatus(arguments) => merge::merge_status(arguments, connection).await,
        SessionCommand::Sync(arguments) => merge::synchronize(arguments, connection).await,
        SessionCommand::Abandon(arguments) => merge::abandon(arguments, connection).await,
        SessionCommand::Push(arguments) => git::push(arguments, connection).await,
        SessionCommand::Turns(arguments) => turns::turns(arguments, connection).await,
        SessionCommand::Usage { session } => usage::of_session(&session, connection).await,
        SessionCommand::Playbook(arguments) => playbook::run(arguments, connection).await,
        SessionCommand::Models { session } => models::of_session(&session, connection).await,
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
