//! `/agent_types`.

use ambient_wire::{agent_type::AgentType, api::List};

use crate::{authority::Access, error::ApiResult, list, responses::Reading};

/// Programs that can run as agents on this server.
#[utoipa::path(get, path = "/agent_types", operation_id = "listAgentTypes", tag = "agent_types",
    responses((status = 200, description = "All of them", body = List<AgentType>), Reading))]
pub(super) async fn list(access: Access) -> ApiResult<axum::Json<List<AgentType>>> {
    let items: Vec<AgentType> = access.state().known_agent_types().iter().map(crate::AgentType::shown).collect();
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(axum::Json(list::envelope("AgentTypeList", 1, total, items)))
}
