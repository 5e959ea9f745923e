//! `ambient acp`: Ambient as an agent of the Agent Client Protocol (version 1), so that an editor works in a durable session.
//!
//! The editor speaks over standard input and output, and only the protocol is on standard output. Each of its sessions is a session of ours,
//! by its id, which stays when the editor goes.

mod connection;
mod conversation;
mod editor;
mod lines;
mod list;
mod prompt;
mod tools;
mod updates;

use std::sync::Arc;

use clap::Args;

use super::{
    Connection,
    session::{attach::Reconnect, wanted::Wanted},
};
use crate::{error::CliError, exit::Exit, output::Console};

/// Flags of `acp`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  ambient acp --repo . --agent-type codex\n\nFor editors that speak the Agent Client Protocol, such as Zed, JetBrains IDEs and Neovim: they start it, and speak with it over \
                  its standard input and output.\n\nIn Zed's settings:\n  \"agent_servers\": { \"Ambient\": { \"command\": \"ambient\", \
                  \"args\": [\"acp\", \"--repo\", \".\", \"--agent-type\", \"codex\"] } }\n\nThe sessions stay when the editor ends."
)]
pub struct Acp {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    reconnect: Reconnect,
}

/// Serves the editor until it ends. A connection that cannot be made is told to the editor too: nobody may see standard error.
pub(super) async fn run(
    arguments: Acp,
    connection: Result<Connection, CliError>,
    console: &Arc<Console>,
) -> Result<Exit, CliError> {
    if let Err(error) = &connection {
        console.error(&error.report());
    }
    let bridge = connection::Bridge::new(arguments.wanted, connection, arguments.reconnect.patience(), console.clone());
    connection::serve(Arc::new(bridge)).await?;
    Ok(Exit::Success)
}
