//! `ambient agent-type list`: programs that can run as agents on the server.

use ambient_wire::agent_type::AgentType;

use super::Connection;
use crate::{client::route::Route, error::CliError, exit::Exit, output::table::Table};

pub(super) async fn list(connection: &Connection) -> Result<Exit, CliError> {
    let answer = connection.client.get(&Route::new(["agent_types"])).await?;
    connection.list(&answer, "agent types", |known: &AgentType| &known.name, table)
}

fn table(items: &[AgentType]) -> Table {
    let mut table = Table::new(["NAME", "INSTALLED", "TITLE", "VARIABLES"]);
    for AgentType { name, title, installed, variables, .. } in items {
        let installed = if *installed { "yes" } else { "no" };
        table.row([name.clone(), installed.to_owned(), title.clone(), variables.join(", ")]);
    }
    table
}
