//! `/replay`.

use ambient_persistence::VerifyScope;
use ambient_wire::operation::{VerifyDivergence, VerifyReport, VerifyRequest};

use crate::{
    authority::Platform,
    error::ApiResult,
    extract::{Act, OrDefault},
    kinds,
    responses::Acting,
};

/// Replays operations and compares every row and hash with them. Changes nothing; requires a platform administrator.
#[utoipa::path(post, path = "/replay/verify", operation_id = "verifyReplay", tag = "operations", request_body = Option<VerifyRequest>,
    responses((status = 200, description = "What was found", body = VerifyReport), Acting))]
pub(super) async fn verify(
    platform: Platform,
    Act(OrDefault(request)): Act<OrDefault<VerifyRequest>>,
) -> ApiResult<axum::Json<VerifyReport>> {
    let VerifyRequest { entity_kind, entity_id } = request;
    kinds::known_stream(entity_kind.as_deref())?;
    let found = platform.verify(&VerifyScope { kind: entity_kind, entity_id }).await?;
    let divergence = |found: ambient_persistence::Divergence| VerifyDivergence {
        kind: found.kind.to_owned(),
        id: found.id,
        version: found.version,
        what: found.what.to_string(),
    };
    Ok(axum::Json(VerifyReport {
        kind: "VerifyReport".to_owned(),
        entities: found.entities.values().sum(),
        operations: found.operations,
        divergences: found.divergences.into_iter().map(divergence).collect(),
    }))
}
