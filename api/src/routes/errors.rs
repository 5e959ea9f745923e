//! `/errors`: what the numbers in error envelopes mean. Open to everyone.

use ambient_wire::{BASE, api::List};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::{ApiError, ApiResult, CATALOGUE, Number},
    extract::path_parameter,
    list,
    responses::Reading,
};

path_parameter!(
    /// Number of a failure.
    ErrorId, "error_id"
);

/// A kind of failure.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorKind {
    /// `ErrorKind`.
    kind: String,
    /// The number as text.
    id: String,
    /// `/api/ambient/v1/errors/{id}`.
    href: String,
    /// `ambient-<n>`.
    code: String,
    /// HTTP status.
    status: u16,
    /// What it means, for people.
    reason: String,
}

fn shown(number: Number) -> ErrorKind {
    let id = number.id();
    ErrorKind {
        kind: "ErrorKind".to_owned(),
        href: format!("{BASE}/errors/{id}"),
        code: format!("ambient-{id}"),
        id,
        status: number.status().as_u16(),
        reason: number.meaning().to_owned(),
    }
}

/// All kinds of failures.
#[utoipa::path(get, path = "/errors", operation_id = "listErrorKinds", tag = "errors", security(()),
    responses((status = 200, description = "All of them", body = List<ErrorKind>)))]
pub(super) async fn list() -> axum::Json<List<ErrorKind>> {
    let items: Vec<_> = CATALOGUE.iter().copied().map(shown).collect();
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    axum::Json(list::envelope("ErrorKindList", 1, total, items))
}

/// A kind of failure.
#[utoipa::path(get, path = "/errors/{error_id}", operation_id = "getErrorKind", tag = "errors", security(()),
    params(("error_id" = String, Path, description = "Number")),
    responses((status = 200, description = "What it means", body = ErrorKind), Reading))]
pub(super) async fn get(ErrorId(id): ErrorId) -> ApiResult<axum::Json<ErrorKind>> {
    let number = CATALOGUE.iter().copied().find(|number| number.id() == id);
    number.map(shown).map(axum::Json).ok_or_else(|| ApiError::not_found("ErrorKind", &id))
}
