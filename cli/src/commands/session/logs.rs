//! `ambient session logs`.

use ambient_wire::{api::List, live::Event, session::Session};
use chrono::SecondsFormat;
use clap::Args;

use super::{attach::Reconnect, is_terminal};
use crate::{
    OutputFormat,
    client::route::Route,
    commands::Connection,
    error::CliError,
    exit::Exit,
    follow::{Follower, PATIENCE, Step, render::Renderer},
};

const PAGE: u32 = 1_000;

/// Flags of `session logs`.
#[derive(Debug, Clone, Args)]
pub struct Logs {
    /// Id or name
    session: String,
    /// Keep following until the session's run is over; earlier runs are shown as their messages
    #[arg(long)]
    follow: bool,
    /// Only events after this seq; 0 = everything
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(0..))]
    after_seq: Option<i64>,
    #[command(flatten)]
    reconnect: Reconnect,
}

pub(super) async fn logs(arguments: Logs, connection: &Connection) -> Result<Exit, CliError> {
    if connection.format == OutputFormat::Name {
        return Err(CliError::Usage("-o name: events have no names; use -o table or json".to_owned()));
    }
    let id = connection.session_id(&arguments.session).await?;
    let session = connection.session(&id).await?;
    let renderer = Renderer::new(connection.console.clone(), connection.format);
    if arguments.follow && !is_over(&session) {
        follow(&arguments, connection, &id, session.last_seq.unwrap_or_default(), renderer).await
    } else {
        read(arguments.after_seq, connection, &session, renderer).await
    }
}

/// Whether there is no run to follow.
fn is_over(session: &Session) -> bool {
    session.phase.as_deref().is_none_or(is_terminal)
}

/// Everything, page by page; a log that grows meanwhile is read up to where it ended when the command started.
async fn read(
    after_seq: Option<i64>,
    connection: &Connection,
    session: &Session,
    mut renderer: Renderer,
) -> Result<Exit, CliError> {
    let (id, last) = (session.id.as_str(), session.last_seq);
    let mut cursor = after_seq;
    let removed = session.retention.as_ref().filter(|kept| after_seq.unwrap_or(0) + 1 < kept.retained_from_seq);
    if let Some(kept) = removed {
        let at = kept.events_removed_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true)).unwrap_or_default();
        let seq = kept.retained_from_seq - 1;
        connection.console.warn(&format!(
            "events up to seq {seq} were removed by retention on {at}; these are the messages so far, and then the events that are left"
        ));
        let mut follower = Follower::new(&connection.client, id, None, PATIENCE);
        if let Step::Snapshot(snapshot) = follower.next().await? {
            renderer.snapshot(&snapshot)?;
            if last.is_some_and(|last| snapshot.covers_seq >= last) {
                renderer.finish()?;
                return Ok(Exit::Success);
            }
            cursor = Some(snapshot.covers_seq);
        }
    }
    loop {
        let route = Route::new(["sessions", id, "events"]).query("after_seq", cursor).query("size", Some(PAGE));
        let page: List<Event> = connection.client.get(&route).await?.decode()?;
        for event in &page.items {
            renderer.event(event)?;
        }
        let Some(end) = page.items.last().map(|event| event.seq) else {
            if cursor == after_seq {
                connection.console.note("no events");
            }
            renderer.finish()?;
            return Ok(Exit::Success);
        };
        if page.next.is_none() || last.is_some_and(|last| end >= last) || cursor.is_some_and(|cursor| end <= cursor) {
            renderer.finish()?;
            return Ok(Exit::Success);
        }
        cursor = Some(end);
    }
}

async fn follow(
    arguments: &Logs,
    connection: &Connection,
    id: &str,
    last: i64,
    mut renderer: Renderer,
) -> Result<Exit, CliError> {
    let patience = arguments.reconnect.patience();
    let client = connection.client.with_patience(patience);
    let mut follower = Follower::new(&client, id, arguments.after_seq, patience);
    loop {
        let is_over = match follower.next().await? {
            Step::Snapshot(snapshot) => {
                renderer.snapshot(&snapshot)?;
                // It may stand for the end of the run that was to be followed.
                snapshot.covers_seq > last && is_over(&connection.session(id).await?)
            }
            Step::Event(event) => {
                renderer.event(&event)?;
                // The end of an earlier run is not the end.
                let ended = event.seq > last && event.event_type == "session.phase";
                ended && event.data["phase"].as_str().is_some_and(is_terminal)
            }
            Step::Ended(_) => true,
        };
        if is_over {
            renderer.finish()?;
            return Ok(Exit::Success);
        }
    }
}
