//! The sessions that an editor can load: those of the project that take messages.

use agent_client_protocol::v1::schema as acp;
use ambient_wire::{api::List, session::Session};

use crate::{client::route::Route, commands::Connection, error::CliError};

/// Sessions on a page.
const SIZE: u32 = 100;

/// A page of sessions, the newest first; the cursor is the number of a page.
pub(super) async fn page(
    server: &Connection,
    request: acp::ListSessionsRequest,
) -> Result<acp::ListSessionsResponse, CliError> {
    let page: u32 = match request.cursor {
        None => 1,
        Some(cursor) => cursor.parse().map_err(|_| CliError::Usage(format!("no such cursor: {cursor}")))?,
    };
    let route = Route::new(["sessions"]).query("project_id", Some(server.project()?)).query("interactive", Some(true));
    let list: List<Session> =
        server.client.get(&route.query("size", Some(SIZE)).query("page", Some(page))).await?.decode()?;
    let is_last = list.total <= i64::from(page) * i64::from(SIZE);
    // Sessions have folders of their own, on the server; to the editor they belong to whichever it asks for.
    let folder = request.cwd.unwrap_or_else(|| "/".into());
    let sessions = list.items.into_iter().map(|session| {
        acp::SessionInfo::new(session.id, folder.clone())
            .title(session.name)
            .updated_at(session.updated_at.to_rfc3339())
    });
    let next: Option<String> = (!is_last).then(|| (page + 1).to_string());
    Ok(acp::ListSessionsResponse::new(sessions.collect::<Vec<_>>()).next_cursor(next))
}
