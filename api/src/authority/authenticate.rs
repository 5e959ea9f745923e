//! From credentials to a principal. OIDC joins in [`bearer`].

use ambient_domain::session::Session;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use super::{
    principal::{Principal, PrincipalKind},
    state::AppState,
};
use crate::error::{ApiError, ApiResult, Number};

/// The principal of `Authorization: Bearer`.
pub(super) async fn bearer(headers: &HeaderMap, state: &AppState) -> ApiResult<Principal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Err(unauthenticated()) };
    let (scheme, token) = value.to_str().unwrap_or_default().split_once(' ').ok_or_else(unauthenticated)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(unauthenticated());
    }
    let sha256 = Sha256::digest(token.as_bytes());
    // Every token is compared, so that timing does not reveal which one was close.
    let found =
        state.config().static_tokens.iter().filter(|known| known.is(&sha256)).fold(None, |_, known| Some(known));
    match found {
        Some(known) => Ok(known.principal().clone()),
        None => session_token(token, state).await,
    }
}

/// A session's token: valid only while its row has that run underway.
async fn session_token(token: &str, state: &AppState) -> ApiResult<Principal> {
    let claims = state.parts().tokens.verify(token, chrono::Utc::now().timestamp()).map_err(|_| unauthenticated())?;
    let principal = Principal::session(&claims.session_id, claims.run);
    still_valid(&principal, state).await?;
    Ok(principal)
}

/// Whether the run of a session's principal is underway and its tokens are not revoked; other principals are always valid.
pub(super) async fn still_valid(principal: &Principal, state: &AppState) -> ApiResult<()> {
    let PrincipalKind::Session { id, run } = &principal.kind else { return Ok(()) };
    let database = &state.parts().database;
    let session = database.load::<Session>(id).await?;
    let underway = session.is_some_and(|session| principal.role_on_itself(&session).is_some());
    if underway && database.revoked_run(id).await? < *run { Ok(()) } else { Err(unauthenticated()) }
}

pub(super) fn unauthenticated() -> ApiError {
    ApiError::new(Number::Unauthenticated, Number::Unauthenticated.meaning())
}
