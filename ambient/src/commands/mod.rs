//! The commands that run and manage a server. Those that talk to one over HTTP are in `ambient-cli`.

mod agent_type;
mod config;
mod database;
mod detach;
mod doctor;
mod down;
mod engine;
mod error;
mod export;
mod migrate;
mod openapi;
mod replay;
mod replay_check;
mod say;
mod server;
mod status;
mod up;

use std::process::ExitCode;

use ambient_cli::OutputFormat;
use clap::{Arg, Args, Subcommand};

pub use self::{
    agent_type::AgentTypeCommand,
    engine::EngineCommand,
    error::{CommandError, USAGE},
    export::ExportFlags,
    openapi::OpenapiFlags,
    replay::ReplayCommand,
    replay_check::{CheckFlags, DIVERGED},
};
use crate::config::{ConfigFlags, ServerConfig};

/// Commands of a server.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Start everything on this machine: PostgreSQL (unless one is configured) and the server
    Up(UpFlags),
    /// Start the server on the PostgreSQL given by AMBIENT_DATABASE_URL
    Server(ConfigFlags),
    /// Migrate the database's schema to this version
    #[command(mut_args(only(&["config", "data_dir", "log_format", "log_level"])))]
    Migrate(ConfigFlags),
    /// Stop what `up` started; all data is kept
    #[command(mut_args(only(&["config", "data_dir"])))]
    Down(ConfigFlags),
    /// Show what is running
    #[command(mut_args(only(&["config", "data_dir"])))]
    Status(ConfigFlags),
    /// Check that this machine has what a server needs
    #[command(mut_args(only(&["config", "data_dir", "listen", "runner_binary", "session_uid_base", "disk_reserve", "disk_low_water"])))]
    Doctor(ConfigFlags),
    /// Print the server's configuration and where each setting comes from, without passwords
    #[command(mut_args(first(&["config", "data_dir"])))]
    Config(ConfigFlags),
    /// The workflow engine by itself: serve it, verify what it has stored
    #[command(subcommand)]
    Engine(EngineCommand),
    /// List, install and check the programs that can run as agents
    #[command(subcommand, visible_alias = "agent-types")]
    AgentType(AgentTypeCommand),
    /// Print the OpenAPI document of the HTTP API
    Openapi(OpenapiFlags),
}

/// Help with only the settings that a command uses. It reads all of them, since they are in one file, and takes their flags.
fn only(used: &'static [&'static str]) -> impl Fn(Arg) -> Arg {
    move |arg| if used.contains(&arg.get_id().as_str()) { arg } else { arg.hide(true) }
}

/// Help with these settings, and the rest of them in the long help.
fn first(settings: &'static [&'static str]) -> impl Fn(Arg) -> Arg {
    move |arg| if settings.contains(&arg.get_id().as_str()) { arg } else { arg.hide_short_help(true) }
}

/// Flags of `up`.
#[derive(Debug, Args)]
pub struct UpFlags {
    #[command(flatten)]
    config: ConfigFlags,
    /// Return when it is ready; it keeps running in the background, its log is up.log in the data folder
    #[arg(long)]
    detach: bool,
}

/// Output format of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Display name.
    Table,
    /// For programs.
    Json,
}

impl From<OutputFormat> for Output {
    fn from(format: OutputFormat) -> Self {
        if format == OutputFormat::Json { Self::Json } else { Self::Table }
    }
}

impl ServerCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// [`CommandError`], for [`CommandError::exit_code`].
    pub async fn run(self, output: Output) -> Result<ExitCode, CommandError> {
        match self {
            Self::Up(flags) if flags.detach => detach::run(&ServerConfig::load(&flags.config)?).await,
            Self::Up(flags) => up::run(ServerConfig::load(&flags.config)?).await,
            Self::Server(flags) => server::run(ServerConfig::load(&flags)?).await,
            Self::Migrate(flags) => migrate::run(&ServerConfig::load(&flags)?).await,
            Self::Down(flags) => down::run(&ServerConfig::load(&flags)?).await,
            Self::Status(flags) => status::run(&ServerConfig::load(&flags)?, output),
            Self::Doctor(flags) => doctor::run(&ServerConfig::load(&flags)?, output).await,
            Self::Config(flags) => Ok(config::run(&ServerConfig::load(&flags)?, output)),
            Self::Engine(command) => command.run(output).await,
            Self::AgentType(command) => command.run(output).await,
            Self::Openapi(flags) => Ok(openapi::run(&flags)),
        }
    }
}
