//! `ambient project retention`: for how long what finished sessions have left is kept.

use ambient_wire::{
    project::Project,
    retention::{ProjectRetention, Retention, RetentionRequest, SessionRetentionDue},
};
use clap::Args;
use serde_json::json;

use super::Connection;
use crate::{
    OutputFormat,
    client::route::Route,
    error::CliError,
    exit::Exit,
    output::{fields::Fields, figures::grouped, table::Table},
};

/// Flags of `project retention`.
#[derive(Debug, Clone, Args)]
pub struct RetentionArguments {
    /// Id or name
    project: String,
    /// Days to keep events of finished sessions' logs; 0 = for ever
    #[arg(long, value_name = "DAYS")]
    event_days: Option<u32>,
    /// Days to keep workspaces of finished sessions; 0 = until the session is deleted
    #[arg(long, value_name = "DAYS")]
    workspace_days: Option<u32>,
    /// Days to keep stored snapshots of finished sessions' turns; 0 = until the session is deleted
    #[arg(long, value_name = "DAYS")]
    snapshot_days: Option<u32>,
    /// Change nothing: show what the given days would remove now
    #[arg(long)]
    dry_run: bool,
    /// Remove now what is no longer kept, instead of within ten minutes
    #[arg(long, conflicts_with = "dry_run")]
    now: bool,
    /// Sessions to list
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    size: Option<u32>,
}

impl RetentionArguments {
    fn days(&self) -> Retention {
        let Self { event_days, workspace_days, snapshot_days, .. } = *self;
        Retention { event_days, workspace_days, snapshot_days }
    }
}

pub(super) async fn run(arguments: RetentionArguments, connection: &Connection) -> Result<Exit, CliError> {
    if connection.format == OutputFormat::Name {
        return Err(CliError::Usage("-o name: retention has no ids".to_owned()));
    }
    let days = arguments.days();
    if !arguments.dry_run && !days.is_empty() {
        set(&arguments.project, days, connection).await?;
    }
    let route = Route::new(["projects", &arguments.project, "retention"]);
    if arguments.now {
        let asked = connection.client.post_nothing(&route).await?;
        let asked: RetentionRequest = asked.decode()?;
        let by = asked.requested_by;
        connection.console.note(&format!("what is no longer kept is being removed, asked for by {by}"));
    }
    let asked = if arguments.dry_run { days } else { Retention::default() };
    let route = route
        .query("event_days", asked.event_days)
        .query("workspace_days", asked.workspace_days)
        .query("snapshot_days", asked.snapshot_days)
        .query("size", arguments.size);
    let answer = connection.client.get(&route).await?;
    match connection.format {
        OutputFormat::Json => connection.console.json(answer.text())?,
        _ => connection.console.data(&words(&answer.decode()?))?,
    }
    Ok(Exit::Success)
}

/// Changes the given days and nothing else of the project's settings.
async fn set(project: &str, days: Retention, connection: &Connection) -> Result<(), CliError> {
    let route = Route::new(["projects", project]);
    let found: Project = connection.client.get(&route).await?.decode()?;
    let mut settings = found.settings;
    let Retention { event_days, workspace_days, snapshot_days } = days;
    settings.retention = Retention {
        event_days: event_days.or(settings.retention.event_days),
        workspace_days: workspace_days.or(settings.retention.workspace_days),
        snapshot_days: snapshot_days.or(settings.retention.snapshot_days),
    };
    // Settings are written as a whole: not over somebody else's.
    connection.client.patch_version(&route, &json!({ "settings": settings }), found.version).await?;
    Ok(())
}

fn words(retention: &ProjectRetention) -> String {
    let ProjectRetention { policy, in_force, min_days, max_days, due, sessions, request, .. } = retention;
    let mut fields = Fields::new(12);
    let kept = |days: u32, given: Option<u32>| {
        let days = if days == 0 { "for ever".to_owned() } else { format!("{days} days") };
        match given {
            None => format!("{days} (the server's default)"),
            Some(given) if days == format!("{given} days") || given == 0 && days == "for ever" => days,
            Some(given) => format!("{days} (the project says {given}; the server's bounds win)"),
        }
    };
    fields.add("Events", kept(in_force.event_days, policy.event_days));
    fields.add("Workspaces", kept(in_force.workspace_days, policy.workspace_days));
    fields.add("Snapshots", kept(in_force.snapshot_days, policy.snapshot_days));
    let most = if *max_days == 0 { "no bound".to_owned() } else { format!("{max_days} days") };
    fields.add("Bounds", format!("at least {min_days} days, at most: {most}"));
    if let Some(request) = request {
        let when = |at: &chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let done =
            request.done_at.as_ref().map_or_else(|| "not done yet".to_owned(), |at| format!("done {}", when(at)));
        fields.add("Asked for", format!("{} by {}, {done}", when(&request.requested_at), request.requested_by));
    }
    let count = |number: i64| grouped(number.unsigned_abs());
    fields.add(
        "Due now",
        format!(
            "{} sessions: {} events (about {} bytes), {} workspaces, {} bytes of snapshots",
            count(due.sessions),
            count(due.events),
            count(due.estimated_event_bytes),
            count(due.workspaces),
            count(due.snapshot_bytes)
        ),
    );
    let mut text = fields.into_text();
    if !sessions.is_empty() {
        text += &format!("\n{}", table(sessions).render(""));
    }
    let more = due.sessions - i64::try_from(sessions.len()).unwrap_or(0);
    if more > 0 {
        text += &format!("and {} more\n", count(more));
    }
    text
}

fn table(sessions: &[SessionRetentionDue]) -> Table {
    let mut table = Table::new(["SESSION", "NAME", "EVENTS", "BYTES (ABOUT)", "WORKSPACE", "SNAPSHOTS (BYTES)"]);
    for s in sessions {
        let number = |number: i64| if number == 0 { String::new() } else { grouped(number.unsigned_abs()) };
        let workspace = match (&s.host, s.workspace) {
            (_, false) => String::new(),
            (Some(host), true) => format!("on {host}"),
            (None, true) => "yes".to_owned(),
        };
        let name = crate::output::table::cut(&s.name, 40);
        let [events, bytes, snapshots] = [s.events, s.estimated_event_bytes, s.snapshot_bytes].map(number);
        table.row([s.id.clone(), name, events, bytes, workspace, snapshots]);
    }
    table
}
