//! The command line: projects, sessions, runs, operations and executions, over HTTP and WebSocket only.
//!
//! A library, so that the binary can put these commands beside its own (`up`, `server`, …): it flattens [`Command`] and
//! [`Globals`] into its arguments and calls [`run`]. Data goes to standard output and everything else to standard error;
//! every way to end has an exit code ([`Exit`]).

// Only `output::Console` prints: what it writes for people is harmless.
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

/// Options of every command that speaks to a server.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Server to speak to; else AMBIENT_URL, else the context's
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// Bearer token; better AMBIENT_TOKEN or the context's: others can see this one in the process list
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Context of the configuration to use instead of the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Project id or name; else AMBIENT_PROJECT, else the context's
    #[arg(short, long, global = true, value_name = "PROJECT")]
    pub project: Option<String>,
    /// Data as a table for people, json (the API's; live events one a line), or name (ids, one a line)
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t, hide_possible_values = true)]
    pub output: OutputFormat,
    /// No colours; NO_COLOR does the same
    #[arg(long, global = true)]
    pub no_color: bool,
    /// No progress and no advice on standard error; warnings and errors stay
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// Runs a command; everything there is to say has been said when it returns.
pub async fn run(command: Command, globals: Globals) -> ExitCode {
    commands::run(command, globals).await.into()
}

/// Prints what clap has to say about arguments and gives the code to end with: 64 when they are wrong, 0 for help.
#[must_use]
pub fn usage(error: &clap::Error) -> ExitCode {
    // An argument may be what somebody else wrote, such as the name of a branch that was pasted, or hold credentials.
    let plain = error.render().to_string();
    let told = match output::escape::text(&ambient_wire::redact::text(&plain)) {
        Cow::Borrowed(same) if same == plain => error.print(),
        shown if error.use_stderr() => io::stderr().write_all(shown.as_bytes()),
        shown => io::stdout().write_all(shown.as_bytes()),
    };
    // Nobody is left to be told when the stream is closed.
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

/// A whole command line of these commands alone, from the program's name on.
pub async fn run_arguments(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Arguments::try_parse_from(arguments) {
        Ok(Arguments { globals, command }) => run(command, globals).await,
        Err(error) => usage(&error),
    }
}
