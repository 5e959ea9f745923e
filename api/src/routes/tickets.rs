//! `/live/tickets`.

use ambient_wire::live::LiveTicket;
use axum::http::StatusCode;

use crate::{
    authority::Access,
    error::ApiResult,
    extract::{Act, NoBody},
    responses::Acting,
};

/// A ticket that opens live channels for clients that cannot send headers; valid for 60 s.
#[utoipa::path(post, path = "/live/tickets", operation_id = "createLiveTicket", tag = "live",
    responses((status = 201, description = "The ticket; it is not shown again", body = LiveTicket), Acting))]
pub(super) async fn issue(access: Access, _: Act<NoBody>) -> ApiResult<(StatusCode, axum::Json<LiveTicket>)> {
    Ok((StatusCode::CREATED, axum::Json(access.live_ticket()?)))
}
