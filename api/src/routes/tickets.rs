//! `/live/tickets`.

use ambient_wire::live::LiveTicket;
use axum::http::StatusCode;

use super::responses::Changing;
use crate::{
    authority::Access,
    error::ApiResult,
    extract::{NoBody, Write},
};

/// A ticket that opens live channels where no header can be sent; good for 60 s.
#[utoipa::path(post, path = "/live/tickets", operation_id = "createLiveTicket", tag = "live",
    responses((status = 201, description = "The ticket; it is not shown again", body = LiveTicket), Changing))]
pub(super) async fn issue(access: Access, _: Write<NoBody>) -> ApiResult<(StatusCode, axum::Json<LiveTicket>)> {
    Ok((StatusCode::CREATED, axum::Json(access.live_ticket()?)))
}
