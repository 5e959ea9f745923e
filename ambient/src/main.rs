//! The program `ambient`.

use std::process::ExitCode;

use ambient::commands::{CommandError, ReplayCommand, ServerCommand};
use ambient_cli::{EXIT_CODES_HELP, Globals};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Workflow messages are many small and some large blocks that move between threads, which the system's allocator handles slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A runtime for AI coding agents: durable sessions on your machine
#[derive(Parser)]
#[command(name = "ambient", version, propagate_version = true, after_help = EXIT_CODES_HELP)]
struct Arguments {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: AnyCommand,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "made once; clap cannot flatten a box of subcommands")]
enum AnyCommand {
    #[command(flatten)]
    Server(ServerCommand),
    #[command(flatten)]
    Client(ambient_cli::Command),
    #[command(skip)]
    Replay(Box<ReplayCommand>),
}

#[tokio::main]
async fn main() -> ExitCode {
    match parse() {
        Ok((AnyCommand::Client(command), globals)) => ambient_cli::run(command, globals).await,
        Ok((AnyCommand::Server(ServerCommand::AgentType(command)), globals)) if command.asks_the_server() => {
            ambient_cli::list_agent_types(globals).await
        }
        Ok((AnyCommand::Server(command), globals)) => ended(Box::pin(command.run(globals.output.into())).await),
        Ok((AnyCommand::Replay(command), globals)) => ended(Box::pin(command.run(globals.output.into())).await),
        Err(error) => ambient_cli::usage(&error),
    }
}

/// `replay check` and `replay export` appear next to the client's `replay verify`, but are not the client's.
fn parse() -> Result<(AnyCommand, Globals), clap::Error> {
    let mut command = ReplayCommand::beside_verify(Arguments::command());
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    if let Some(command) = ReplayCommand::given(&matches) {
        return Ok((AnyCommand::Replay(Box::new(command?)), Globals::from_arg_matches(&matches)?));
    }
    let arguments = Arguments::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
    Ok((arguments.command, arguments.globals))
}

fn ended(outcome: Result<ExitCode, CommandError>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("ambient: {}", ambient_wire::redact::text(&error.to_string()));
        ExitCode::from(error.exit_code())
    })
}
