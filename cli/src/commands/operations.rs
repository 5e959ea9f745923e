//! `ambient operations`: what was accepted, from whom, and what it led to.

use ambient_wire::operation::Operation;
use chrono::SecondsFormat;
use clap::{Args, Subcommand};

use super::Connection;
use crate::{
    client::route::Route,
    error::CliError,
    exit::Exit,
    output::{escape, fields::Fields, table::Table},
};

/// Commands of operations.
#[derive(Debug, Clone, Subcommand)]
pub enum OperationsCommand {
    /// List operations
    #[command(visible_alias = "ls", after_help = "Example:\n  ambient operations list --session fix-the-build")]
    List(Box<Filter>),
    /// Show an operation in full
    #[command(after_help = "Example:\n  ambient operations get 2PzyKuGf4Pp1cYCmLvjkxyDiEBD -o json")]
    Get {
        /// Operation id
        id: String,
    },
}

/// Which operations.
#[derive(Debug, Clone, Args)]
pub struct Filter {
    /// Only those of a session, by id or name
    #[arg(long, value_name = "SESSION", conflicts_with_all = ["entity_kind", "entity_id"])]
    session: Option<String>,
    /// session, project, agent, …
    #[arg(long, value_name = "KIND")]
    entity_kind: Option<String>,
    /// Entity's id
    #[arg(long, value_name = "ID")]
    entity_id: Option<String>,
    /// Who requested it
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Name of the command or fact
    #[arg(long, value_name = "NAME")]
    command: Option<String>,
    /// Correlation id of the request they belong to
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Include all projects, not only the current one
    #[arg(short = 'A', long)]
    all_projects: bool,
    /// Continue after this cursor, as given by the previous list
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Maximum number of operations to list
    #[arg(long, value_name = "NUMBER")]
    size: Option<u32>,
}

pub(super) async fn run(command: OperationsCommand, connection: &Connection) -> Result<Exit, CliError> {
    match command {
        OperationsCommand::List(filter) => {
            let answer = connection.client.get(&route(*filter, connection).await?).await?;
            connection.list(&answer, "operations", |o: &Operation| &o.id, table)
        }
        OperationsCommand::Get { id } => {
            let answer = connection.client.get(&Route::new(["operations", &id])).await?;
            connection.object(&answer, |o: &Operation| &o.id, details)
        }
    }
}

/// An entity's operations, newest first.
pub(super) async fn history(entity_kind: &str, id: &str, connection: &Connection) -> Result<Exit, CliError> {
    let route = Route::new(["operations"]).query("entity_kind", Some(entity_kind)).query("entity_id", Some(id));
    let answer = connection.client.get(&route).await?;
    connection.list(&answer, "operations", |o: &Operation| &o.id, table)
}

async fn route(filter: Filter, connection: &Connection) -> Result<Route, CliError> {
    let (kind, id, project) = match filter.session {
        Some(session) => (Some("session".to_owned()), Some(connection.session_id(&session).await?), None),
        // An entity is in one project, whichever it is.
        None if filter.all_projects || filter.entity_id.is_some() => (filter.entity_kind, filter.entity_id, None),
        None => (filter.entity_kind, None, connection.chosen_project()),
    };
    Ok(Route::new(["operations"])
        .query("entity_kind", kind)
        .query("entity_id", id)
        .query("project_id", project)
        .query("principal", filter.principal)
        .query("command", filter.command)
        .query("correlation_id", filter.correlation_id)
        .query("after", filter.after)
        .query("size", filter.size))
}

fn table(operations: &[Operation]) -> Table {
    let mut table = Table::new(["TIME", "ID", "ENTITY", "VERSION", "COMMAND", "PRINCIPAL"]);
    for o in operations {
        let time = o.occurred_at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let entity = format!("{}/{}", o.entity_kind, o.entity_id);
        table.row([time, o.id.clone(), entity, o.version.to_string(), o.command.clone(), o.principal.clone()]);
    }
    table
}

fn details(o: &Operation) -> String {
    let json = |value: &serde_json::Value| escape::json(&value.to_string()).replace('\n', "\n  ");
    let mut fields = Fields::new(14);
    fields.add("Operation", &o.id);
    fields.add("Command", format!("{} (schema {})", o.command, o.schema_version));
    fields.add("Entity", format!("{} {} version {}", o.entity_kind, o.entity_id, o.version));
    fields.add("Project", &o.project_id);
    fields.add("Principal", &o.principal);
    fields.add("Time", o.occurred_at.to_rfc3339_opts(SecondsFormat::Micros, true));
    fields.add("Correlation", &o.correlation_id);
    fields.add("Caused by", o.causation_id.as_deref().unwrap_or("-"));
    fields.add("Hash", &o.hash);
    let parts = [("Input", &o.input), ("Events", &o.events), ("Context", &o.context)];
    let parts: String = parts.iter().map(|(name, value)| format!("{name}:\n  {}\n", json(value))).collect();
    fields.into_text() + &parts
}
