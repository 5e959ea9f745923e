//! WebSocket live channels: `/live` for any sessions, `/sessions/{s}/ws` for one.

use ambient_domain::session::Session;
use ambient_wire::live::SUBPROTOCOL;
use axum::{
    extract::{
        WebSocketUpgrade,
        ws::{WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Access, LivePrincipal, View},
    error::{ApiError, ApiResult, Number},
    extract::{Query, path_parameter},
    live::connection::Connection,
    responses::{Listing, Reading, Upgrading},
};

path_parameter!(
    /// A session's id.
    SessionId, "session_id"
);

/// Buffers of a connection, bytes: the defaults cost 128 KiB each.
const READ_BUFFER: usize = 2 * 1024;
const WRITE_BUFFER: usize = 4 * 1024;
/// Bytes of a frame besides its text.
const FRAME_OVERHEAD: usize = 4 * 1024;

/// How to connect.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectParams {
    /// A ticket from `POST /live/tickets`, for clients that cannot send the `Authorization` header.
    #[allow(dead_code, reason = "read by the authentication")]
    token: Option<String>,
}

/// A live connection for any sessions: WebSocket, subprotocol `ambient.v1`, JSON frames.
#[utoipa::path(get, path = "/live", operation_id = "connectLive", tag = "live", params(ConnectParams),
    responses((status = 101, description = "Frames follow"), Upgrading, Listing))]
pub(super) async fn connect(
    LivePrincipal(access): LivePrincipal,
    _: Query<ConnectParams>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    serve(upgrade, access, None)
}

/// A live connection for one session: WebSocket, subprotocol `ambient.v1`, JSON frames. Events come after a `subscribe`.
#[utoipa::path(get, path = "/sessions/{session_id}/ws", operation_id = "connectSessionLive", tag = "live",
    params(("session_id" = String, Path, description = "Session"), ConnectParams),
    responses((status = 101, description = "Frames follow"), Upgrading, Reading))]
pub(super) async fn session(
    LivePrincipal(access): LivePrincipal,
    SessionId(id): SessionId,
    _: Query<ConnectParams>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    access.authorize::<Session, View>(&id).await?;
    serve(upgrade, access, Some(id))
}

fn serve(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    access: Access,
    only: Option<String>,
) -> ApiResult<Response> {
    let upgrade =
        upgrade.map_err(|error| ApiError::new(Number::UpgradeRequired, format!("this is a WebSocket: {error}")))?;
    let permit = access.state().live_permit();
    let permit = permit.ok_or_else(|| ApiError::unavailable("too many live connections", 5))?;
    let limit = access.state().config().max_body_bytes + FRAME_OVERHEAD;
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(limit)
        .max_frame_size(limit);
    Ok(upgrade.on_upgrade(move |socket: WebSocket| async move {
        Connection::new(socket, access, only).serve().await;
        drop(permit);
    }))
}
