//! Who opens a live channel.

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};

use super::{
    access::Access,
    authenticate::{still_valid, unauthenticated},
    state::AppState,
    ticket,
};
use crate::error::ApiError;

/// For live channels, where a browser cannot send headers: `?token=` with a ticket is accepted as well.
pub(crate) struct LivePrincipal(pub(crate) Access);

impl FromRequestParts<AppState> for LivePrincipal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            return Access::from_request_parts(parts, state).await.map(Self);
        }
        let query = parts.uri.query().unwrap_or_default();
        let ticket = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "token").map(|(_, value)| value);
        let ticket = ticket.ok_or_else(unauthenticated)?;
        let principal =
            ticket::open(&state.config().ticket_key, &ticket, chrono::Utc::now()).ok_or_else(unauthenticated)?;
        still_valid(&principal, state).await?;
        Ok(Self(Access::new(parts, state, principal)))
    }
}
