//! `/sessions/{s}/interrupts` and `/inbox`: what agents ask of people.

use ambient_domain::session::Session;
use ambient_wire::{
    api::List,
    interrupt::{InboxItem, Interrupt},
    permission::InterruptAnswer,
};
use axum::Json as Answer;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Access, Authorized, Edit, View},
    error::{ApiError, ApiResult},
    extract::{Json, Query, Write, path_parameter},
    list, representation,
    respond::Shown,
    responses::{Changing, Reading},
};

path_parameter!(
    /// Id of a request.
    InterruptId, "interrupt_id"
);

/// Which part of the inbox.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct InboxParams {
    /// Page number, from 1.
    #[param(minimum = 1)]
    page: Option<i64>,
    /// Items per page; 0 = only the total; 100 when absent.
    #[param(minimum = 0, maximum = 1000)]
    size: Option<i64>,
    /// Project, by id or name.
    project_id: Option<String>,
}

/// Most items per page.
const MAX_SIZE: i64 = 1_000;

/// Permission requests of the session's current run: those that wait for a person or are being answered, the oldest first, then the last
/// that are closed, the newest first.
#[utoipa::path(get, path = "/sessions/{session_id}/interrupts", operation_id = "listSessionInterrupts", tag = "sessions",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "All of them", body = List<Interrupt>), Reading))]
pub(super) async fn list(session: Authorized<Session, View>) -> ApiResult<Answer<List<Interrupt>>> {
    let items = representation::interrupts(session.get());
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(Answer(list::envelope("InterruptList", 1, total, items)))
}

/// Answers a permission request. The answer is recorded first, with who gave it, and then handed to the agent, at most once. The same answer again
/// changes nothing; another one is refused, and so is any answer to a request that is closed. `always` also adds a rule to the session's
/// permissions. A message, with `reject`, is sent to the agent as the next message of the session.
#[utoipa::path(post, path = "/sessions/{session_id}/interrupts/{interrupt_id}", operation_id = "answerSessionInterrupt", tag = "sessions",
    request_body = InterruptAnswer,
    params(("session_id" = String, Path, description = "Session"), ("interrupt_id" = String, Path, description = "The request")),
    responses((status = 200, description = "The request with its answer", body = Interrupt), Changing))]
pub(super) async fn answer(
    session: Authorized<Session, Edit>,
    InterruptId(id): InterruptId,
    write: Write<Json<InterruptAnswer>>,
) -> ApiResult<Shown<Interrupt>> {
    let reply = session.answer(&id, write.body.0.clone(), write.options()).await?;
    let answered = representation::interrupts(&reply.state).into_iter().find(|interrupt| interrupt.id == id);
    let answered = answered.ok_or_else(|| ApiError::not_found("Interrupt", &id))?;
    Ok(Shown::ok(answered, reply.state.version).by(reply.operation_id))
}

/// What waits for the caller in all projects in which it may act, the oldest first.
#[utoipa::path(get, path = "/inbox", operation_id = "listInbox", tag = "sessions", params(InboxParams),
    responses((status = 200, description = "A page of the inbox", body = List<InboxItem>), Reading))]
pub(super) async fn inbox(access: Access, Query(params): Query<InboxParams>) -> ApiResult<Answer<List<InboxItem>>> {
    let paging = list::paging(params.page, params.size, MAX_SIZE)?;
    let page = access.inbox(params.project_id.as_deref(), paging).await?;
    let items = page.items.iter().map(representation::inbox_item).collect();
    Ok(Answer(list::envelope("InboxItemList", page.page, page.total, items)))
}
