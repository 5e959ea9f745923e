//! The command line: projects, sessions, runs, operations and executions, over HTTP and WebSocket only.
//!
//! A library, so that the binary can add its own commands (`up`, `server`, …): it flattens [`Command`] and
//! [`Globals`] into its arguments and calls [`run`]. Data goes to standard output and everything else to standard error;
//! every way of ending has an exit code ([`Exit`]).

// Only `output::Console` prints: it escapes what it writes for people.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod client;
mod commands;
pub mod config;
mod error;
mod exit;
mod follow;
mod local_repository;
mod output;
#[cfg(test)]
mod stub;

use std::{
    borrow::Cow,
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Args, Parser};

pub use self::{
    commands::Command,
    error::CliError,
    exit::{EXIT_CODES_HELP, Exit},
    output::OutputFormat,
};

/// Options of every command that talks to a server.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Server to use [default: AMBIENT_URL, else the context's]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// Bearer token; prefer AMBIENT_TOKEN or the context's: others can see this one in the process list
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Context to use instead of the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Project id or name [default: AMBIENT_PROJECT, else the context's]
    #[arg(short = 'P', long, global = true, value_name = "PROJECT")]
    pub project: Option<String>,
    /// Output format: a table for people, json (the API's; live events one per line), or name (ids, one per line)
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t, hide_possible_values = true)]
    pub output: OutputFormat,
    /// No colours; NO_COLOR does the same
    #[arg(long, global = true)]
    pub no_color: bool,
    /// No progress and no hints on standard error; warnings and errors stay
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// Runs a command; it has printed everything by the time it returns.
pub async fn run(command: Command, globals: Globals) -> ExitCode {
    commands::run(command, globals).await.into()
}

/// Lists the agent types of the server, as `ambient agent-type list` does.
pub async fn list_agent_types(globals: Globals) -> ExitCode {
    commands::list_agent_types(globals).await.into()
}

/// Prints clap's message about the arguments and returns the exit code: 64 if they are wrong, 0 for help.
#[must_use]
pub fn usage(error: &clap::Error) -> ExitCode {
    // An argument may be someone else's text, such as a pasted branch name, or contain credentials.
    let plain = error.render().to_string();
    let told = match output::escape::text(&ambient_wire::redact::text(&plain)) {
        Cow::Borrowed(same) if same == plain => error.print(),
        shown if error.use_stderr() => io::stderr().write_all(shown.as_bytes()),
        shown => io::stdout().write_all(shown.as_bytes()),
    };
    // If the stream is closed there is nobody to report to.
    drop(told);
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() }
}

#[derive(Debug, Parser)]
#[command(name = "ambient", version, about = "Runs AI coding agents as durable sessions", after_help = EXIT_CODES_HELP)]
struct Arguments {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// The command line with only these commands, from the program's name on.
pub async fn run_arguments(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Arguments::try_parse_from(arguments) {
        Ok(Arguments { globals, command }) => run(command, globals).await,
        Err(error) => usage(&error),
    }
}
