//! The program alongside an agent: keeps its workspace, runs it confined, and serves what it does as a numbered log.
//!
//! `serve` is one attempt of one run of one session; `isolate`, `init`, `enter` and `confine` are re-executions that
//! create namespaces, live in them, and give up rights on the way to the agent's (or git's) process. Invariants: at most one
//! runner uses a workspace (`life.lock`); only fsynced records are served; nothing the agent can write is ever executed or
//! followed by the unconfined part of this program.
//!
//! Which module may use which: a module uses those on the lines above its own, and nothing else (`tests/tests/module_order.rs` reads this list).
//!
//! * `auth`, `beneath`, `capabilities`, `ending`, `error`, `event`, `file_access`, `group`, `history`, `life`, `listener`, `playbook`, `rights`, `seccomp`, `survey`: events, endings, rights, files, playbooks and system calls, each by itself
//! * `lfs`, `log`, `users`, `workspace_path`: Git LFS without git, the event log, two user ids, paths in the workspace
//! * `file_change`: one change of a file
//! * `confine`, `messages`, `network`, `permissions`, `reader`: giving up rights; messages and answers in, the way to the network, records out
//! * `install`: becoming a package manager
//! * `model`: the way to models
//! * `isolate`: namespaces
//! * `process`: the session's processes
//! * `attempt`: what an attempt was started with
//! * `environment`: of its processes
//! * `git`: repositories in the workspace
//! * `app`: what the parts of a runner share
//! * `content`, `turn`: files in the workspace; working on one message
//! * `changes`: files that others write
//! * `agent`: agents of this build
//! * `hand_in`: what a finished turn hands in
//! * `turns`: message after message
//! * `http`: routes
//! * `serve`: an attempt from start to end

mod agent;
mod app;
mod attempt;
mod auth;
mod beneath;
mod capabilities;
mod changes;
mod confine;
mod content;
mod ending;
mod environment;
mod error;
mod event;
mod file_access;
mod file_change;
mod git;
mod group;
mod hand_in;
mod history;
mod http;
mod install;
mod isolate;
mod lfs;
mod life;
mod listener;
mod log;
mod messages;
mod model;
mod network;
mod permissions;
mod playbook;
mod process;
mod reader;
mod rights;
mod seccomp;
mod serve;
mod survey;
mod turn;
mod turns;
mod users;
mod workspace_path;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use ambient_runner_protocol::{EXIT_PREREQUISITE, EXIT_USAGE};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "ambient-runner", version, about = "The program inside a session")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves one attempt of a session's run.
    Serve {
        /// Launch file, written by compute.
        #[arg(long)]
        launch: PathBuf,
    },
    /// Takes two user ids, a runner's and its agent's, and executes this program again as the first.
    #[command(hide = true)]
    Become {
        #[arg(long)]
        runner_user: u32,
        #[arg(long)]
        agent_user: u32,
        /// Arguments for that execution.
        #[arg(last = true, required = true)]
        arguments: Vec<OsString>,
    },
    /// Reads a stored snapshot, for a server.
    #[command(hide = true)]
    ReadStored {
        /// What to read, as JSON.
        #[arg(long)]
        order: String,
    },
    /// Becomes a package manager that may write one folder.
    #[command(hide = true)]
    Install {
        /// What it may do, as JSON.
        #[arg(long)]
        order: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Maps two user ids into our parent's namespace.
    #[command(hide = true)]
    MapUsers {
        #[arg(long)]
        process: i32,
        #[arg(long)]
        runner_user: u32,
        #[arg(long)]
        agent_user: u32,
    },
    /// Gives up rights and becomes a command.
    #[command(hide = true)]
    Confine {
        /// What to give up, as JSON.
        #[arg(long)]
        rights: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Creates namespaces, for as long as standard input is open or for a command.
    #[command(hide = true)]
    Isolate {
        /// The command.
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// The first process of the namespaces.
    #[command(hide = true)]
    Init,
    /// Gives up rights and runs a command in the agent's namespaces.
    #[command(hide = true)]
    Enter {
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return exit_code(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    match cli.command {
        Command::Serve { launch } => exit_code(serve_attempt(&launch)),
        Command::Become { runner_user, agent_user, arguments } => {
            refused(&users::become_runner(runner_user, agent_user, &arguments))
        }
        Command::MapUsers { process, runner_user, agent_user } => {
            users::map(process, runner_user, agent_user).map_or_else(|reason| refused(&reason), |()| ExitCode::SUCCESS)
        }
        Command::Confine { rights, command } => refused(&confine::become_command(&rights, &command)),
        Command::Install { order, command } => refused(&install::become_installer(&order, &command)),
        Command::ReadStored { order } => exit_code(git::stored::read(&order)),
        Command::Isolate { command } => exit_code(isolate::isolate(&command)),
        Command::Init => exit_code(isolate::init::run()),
        Command::Enter { command } => exit_code(isolate::enter(&command)),
    }
}

fn serve_attempt(launch: &std::path::Path) -> i32 {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false).init();
    let spec = match life::read_launch(launch) {
        Ok(spec) => spec,
        Err(reason) => {
            tracing::error!(%reason, "cannot read the launch file");
            return EXIT_USAGE;
        }
    };
    // Before any thread exists: these are properties of a thread, inherited by those it creates.
    if let Err(error) =
        life::close_inherited().and_then(|()| life::detach()).and_then(|()| Ok(capabilities::keep_to_ourselves()?))
    {
        tracing::error!(%error, "cannot detach");
        return EXIT_PREREQUISITE;
    }
    match tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(16).enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(serve::serve(spec));
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            tracing::error!(%error, "cannot start");
            EXIT_PREREQUISITE
        }
    }
}

/// A stage that cannot continue.
fn refused(reason: &str) -> ExitCode {
    eprintln!("ambient-runner: {reason}");
    exit_code(confine::EXIT_CANNOT_EXECUTE)
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
