//! `ambient replay`: verifies stored state against its operations.

use ambient_wire::operation::{VerifyDivergence, VerifyReport, VerifyRequest};
use clap::Subcommand;

use super::Connection;
use crate::{OutputFormat, client::route::Route, error::CliError, exit::Exit, output::table::Table};

/// Commands of replay.
#[derive(Debug, Clone, Subcommand)]
pub enum ReplayCommand {
    /// Replay all operations and compare every row and hash; exits with 1 if any differs
    #[command(after_help = "Example:\n  ambient replay verify")]
    Verify,
}

pub(super) async fn run(command: ReplayCommand, connection: &Connection) -> Result<Exit, CliError> {
    let ReplayCommand::Verify = command;
    let answer = connection.client.post(&Route::new(["replay", "verify"]), &VerifyRequest::default()).await?;
    let found: VerifyReport = answer.decode()?;
    match connection.format {
        OutputFormat::Json => connection.console.json(answer.text())?,
        OutputFormat::Name => connection.console.names(found.divergences.iter().map(|d| d.id.as_str()))?,
        OutputFormat::Table if found.divergences.is_empty() => {}
        OutputFormat::Table => connection.console.data(&table(&found.divergences).render(""))?,
    }
    let checked = format!("{} operations of {} entities replayed", found.operations, found.entities);
    if found.divergences.is_empty() {
        connection.console.note(&format!("{checked}: every row is what its operations say"));
        return Ok(Exit::Success);
    }
    let differ = match found.divergences.len() {
        1 => "1 entity differs".to_owned(),
        several => format!("{several} entities differ"),
    };
    connection.console.warn(&format!("{checked}: {differ} from what was recorded"));
    Ok(Exit::Failure)
}

fn table(divergences: &[VerifyDivergence]) -> Table {
    let mut table = Table::new(["KIND", "ID", "VERSION", "WHAT"]);
    for d in divergences {
        table.row([d.kind.clone(), d.id.clone(), d.version.to_string(), d.what.clone()]);
    }
    table
}
