//! `/sessions/{s}/turns`: what came of each message.

use ambient_domain::session::Session;
use ambient_wire::{
    api::List,
    git::diff_header,
    turn::{FILE_MODE, Turn, TurnDiffQuery, TurnFileQuery},
};
use axum::{
    Json as Answer,
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Authorized, View},
    error::{ApiError, ApiResult},
    extract::{Query, path_parameter},
    list,
    responses::{Reading, Stored},
};

path_parameter!(
    /// Id of a turn.
    TurnId, "turn_id"
);

/// Most items per page: each has its repositories.
const MAX_SIZE: i64 = 100;

/// Which turns.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only those of this run.
    #[param(minimum = 1)]
    run: Option<i64>,
    /// Page number, from 1.
    #[param(minimum = 1)]
    page: Option<i64>,
    /// Items per page; 0 = only the total; 100 when absent.
    #[param(minimum = 0, maximum = 100)]
    size: Option<i64>,
}

/// Turns of the session, the newest first: how each ended, what it has used, and what it has done to the repositories.
#[utoipa::path(get, path = "/sessions/{session_id}/turns", operation_id = "listSessionTurns", tag = "sessions",
    params(("session_id" = String, Path, description = "Session"), ListParams),
    responses((status = 200, description = "A page of turns", body = List<Turn>), Reading))]
pub(super) async fn list(
    session: Authorized<Session, View>,
    Query(params): Query<ListParams>,
) -> ApiResult<Answer<List<Turn>>> {
    let (page, size) = list::paging(params.page, params.size, MAX_SIZE)?;
    if params.run.is_some_and(|run| run < 1) {
        return Err(ApiError::invalid("run", "must be at least 1"));
    }
    let (items, total) = session.turns(params.run, page, size).await?;
    Ok(Answer(list::envelope("TurnList", page, total, items)))
}

/// A turn, with the diffs of its repositories since they were cloned.
#[utoipa::path(get, path = "/sessions/{session_id}/turns/{turn_id}", operation_id = "getSessionTurn", tag = "sessions",
    params(("session_id" = String, Path, description = "Session"), ("turn_id" = String, Path, description = "`{run}-{number}`")),
    responses((status = 200, description = "The turn", body = Turn), Reading))]
pub(super) async fn get(session: Authorized<Session, View>, TurnId(id): TurnId) -> ApiResult<Answer<Turn>> {
    session.turn(&id).await.map(Answer)
}

/// What a turn has changed in a repository, committed or not, or all turns up to it: a unified diff that applies byte for byte with
/// `git apply`. It comes from the snapshot store, so no workspace is needed. At most 24 MiB.
#[utoipa::path(get, path = "/sessions/{session_id}/turns/{turn_id}/diff", operation_id = "getSessionTurnDiff", tag = "sessions",
    params(("session_id" = String, Path, description = "Session"), ("turn_id" = String, Path, description = "`{run}-{number}`"), TurnDiffQuery),
    responses((status = 200, description = "Unified diff", body = String, content_type = "text/x-diff", headers(
        ("x-diff-truncated" = String, description = "`true` if the diff is truncated: it does not apply"),
    )), Stored))]
pub(super) async fn diff(
    session: Authorized<Session, View>,
    TurnId(id): TurnId,
    Query(query): Query<TurnDiffQuery>,
) -> ApiResult<Response> {
    let found = session.turn_diff(&id, query).await?;
    let headers = [(header::CONTENT_TYPE, "text/x-diff"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let told = [(HeaderName::from_static(diff_header::TRUNCATED), found.truncated.to_string())];
    Ok((headers, told, found.content).into_response())
}

/// A file as a turn has left it, from the snapshot store. At most 64 MiB. A symbolic link is given as what it leads to.
#[utoipa::path(get, path = "/sessions/{session_id}/turns/{turn_id}/file", operation_id = "getSessionTurnFile", tag = "sessions",
    params(("session_id" = String, Path, description = "Session"), ("turn_id" = String, Path, description = "`{run}-{number}`"), TurnFileQuery),
    responses((status = 200, description = "Its content", body = String, content_type = "application/octet-stream", headers(
        ("x-file-mode" = String, description = "Its mode as git has it: `100644`, `100755`, or `120000` for a symbolic link"),
    )), Stored))]
pub(super) async fn file(
    session: Authorized<Session, View>,
    TurnId(id): TurnId,
    Query(query): Query<TurnFileQuery>,
) -> ApiResult<Response> {
    let found = session.turn_file(&id, query).await?;
    let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let told = [(HeaderName::from_static(FILE_MODE), found.mode.unwrap_or_default())];
    Ok((headers, told, found.content).into_response())
}
