//! Operations: visible to whoever sees the project, or is the session.

use ambient_domain::{Entity, project::Project, session::Session};
use ambient_persistence::Operation;

use super::access::{Access, Found, Target};
use crate::error::ApiResult;

impl Target for Operation {
    const KIND: &'static str = "Operation";
    const PARAM: &'static str = "operation_id";

    async fn find(access: &Access, id: &str) -> ApiResult<Option<Found<Self>>> {
        let Some(operation) = access.state.parts().database.operation(id).await? else { return Ok(None) };
        let role = access.role_by_ids(&operation.project_id, &operation.entity_kind, &operation.entity_id).await?;
        Ok(Some(Found { target: operation, role }))
    }
}

impl Access {
    /// Role on an entity that may be deleted: its history outlives it.
    pub(super) async fn role_by_ids(
        &self,
        project_id: &str,
        kind: &str,
        id: &str,
    ) -> ApiResult<Option<ambient_domain::project::Role>> {
        if let Some(role) = self.principal.platform_role() {
            return Ok(Some(role));
        }
        let database = &self.state.parts().database;
        if self.principal.session_id().is_some() {
            let own = kind == <Session as Entity>::KIND && self.principal.session_id() == Some(id);
            let session = if own { database.load::<Session>(id).await? } else { None };
            return Ok(session.and_then(|session| self.principal.role_on_itself(&session)));
        }
        let project = database.load::<Project>(project_id).await?;
        Ok(project.and_then(|project| self.principal.role_in(&project)))
    }
}
