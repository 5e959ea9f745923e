//! The program `ambient`.

use std::process::ExitCode;

use ambient::commands::ServerCommand;
use ambient_cli::{EXIT_CODES_HELP, Globals};
use clap::{Parser, Subcommand};

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
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { globals, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return ambient_cli::usage(&error),
    };
    match command {
        AnyCommand::Client(command) => ambient_cli::run(command, globals).await,
        AnyCommand::Server(command) => match command.run(globals.output.into()).await {
            Ok(code) => code,
            Err(error) => {
                eprintln!("ambient: {error}");
                ExitCode::from(error.exit_code())
            }
        },
    }
}
