//! `ambient inbox`: what waits for a person.

use ambient_wire::interrupt::InboxItem;
use chrono::Utc;
use clap::Args;

use super::{Connection, input::Paging};
use crate::{
    client::route::Route,
    error::CliError,
    exit::Exit,
    output::{
        duration,
        table::{Table, cut},
    },
};

/// Flags of `inbox`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  ambient inbox\n  ambient session answer fix once")]
pub struct Inbox {
    /// Only the current project
    #[arg(long)]
    this_project: bool,
    #[command(flatten)]
    paging: Paging,
}

pub(super) async fn list(arguments: Inbox, connection: &Connection) -> Result<Exit, CliError> {
    let project = if arguments.this_project { Some(connection.project()?) } else { None };
    let route = arguments.paging.of(Route::new(["inbox"]).query("project_id", project));
    let answer = connection.client.get(&route).await?;
    connection.list(&answer, "requests wait for you", |item: &InboxItem| &item.interrupt.id, table)
}

fn table(items: &[InboxItem]) -> Table {
    let now = Utc::now();
    let mut table = Table::new(["PROJECT", "SESSION", "NAME", "REQUEST", "AGE", "WHAT"]);
    for InboxItem { project_name, session_id, session_name, interrupt, .. } in items {
        let what = interrupt.command.as_ref().map_or_else(|| interrupt.title.clone(), |command| format!("$ {command}"));
        let age = duration::age(interrupt.raised_at, now);
        let (project, id, name) = (project_name.clone(), session_id.clone(), cut(session_name, 30));
        table.row([project, id, name, interrupt.id.clone(), age, cut(&what, 60)]);
    }
    table
}
