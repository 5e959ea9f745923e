//! Workflow executions: visible to whoever sees the entity they work for, changed by whoever owns its project.
//!
//! A workflow id is `{workflow}/{entity}/…`: the entity says whose it is.

use ambient_domain::{project::Role, session::Session};
use ambient_persistence::{Database, KindVisitor, StoredEntity, is_ksuid, visit_kinds};
use ambient_wire::execution::{HistoryEvent, WorkflowExecution};
use ambient_workflows::executions::ExecutionFilter;
use serde_json::Value;

use super::{
    access::{Access, Authorized, Found, Target},
    right::{Admin, Right},
};
use crate::error::{ApiError, ApiResult};

/// Longest id the engine accepts, bytes.
const MAX_ID: usize = 1_000;

/// A workflow execution, by its id.
#[derive(Debug)]
pub(crate) struct Execution {
    id: String,
}

impl Target for Execution {
    const KIND: &'static str = "WorkflowExecution";
    const PARAM: &'static str = "execution_id";

    async fn find(access: &Access, id: &str) -> ApiResult<Option<Found<Self>>> {
        if id.len() > MAX_ID {
            return Err(ApiError::invalid(Self::PARAM, format!("must have at most {MAX_ID} bytes")));
        }
        let entity = id.split('/').nth(1).filter(|entity| is_ksuid(entity));
        let role = match (access.principal.platform_role(), entity) {
            (Some(role), _) => Some(role),
            (None, Some(entity)) => access.role_on_entity(entity).await?,
            (None, None) => None,
        };
        // Without a role on the entity it is not looked up: its absence and its presence must look the same to a reader.
        let id = id.to_owned();
        Ok(Some(Found { target: Self { id }, role }))
    }
}

/// The Kind and project that an id belongs to.
struct Search<'a> {
    database: &'a Database,
    id: &'a str,
    found: Option<(&'static str, String)>,
}

impl KindVisitor for Search<'_> {
    type Error = ApiError;

    async fn visit<E: StoredEntity>(&mut self) -> ApiResult<()> {
        if self.found.is_none() {
            let entity = self.database.load::<E>(self.id).await?;
            self.found = entity.map(|entity| (E::KIND, entity.project_id().to_owned()));
        }
        Ok(())
    }
}

impl Access {
    async fn role_on_entity(&self, id: &str) -> ApiResult<Option<Role>> {
        let mut search = Search { database: &self.state.parts().database, id, found: None };
        visit_kinds(&mut search).await?;
        match search.found {
            Some((kind, project_id)) => self.role_by_ids(&project_id, kind, id).await,
            None => Ok(None),
        }
    }

    /// Executions that the caller may see, newest first, and how many there are.
    pub(crate) async fn executions(
        &self,
        mut filter: ExecutionFilter,
        project_id: Option<String>,
    ) -> ApiResult<(Vec<WorkflowExecution>, i64)> {
        if let Some(own) = self.principal.session_id() {
            // It sees itself, and nothing else.
            filter.entity_id = Some(own.to_owned());
        }
        filter.project_ids = match (project_id, &filter.entity_id) {
            (None, None) => self.visible_projects().await?,
            (Some(project_id), None) => Some(vec![project_id]),
            // Whether the caller may see this one has already been checked.
            (None, Some(_)) => None,
            // Found by its id, even if it lacks the project.
            (Some(project_id), Some(session_id)) => {
                let session = self.state.parts().database.load::<Session>(session_id).await?;
                let within = session.is_some_and(|session| session.project_id == project_id);
                if within { None } else { Some(Vec::new()) }
            }
        };
        Ok(self.state.parts().executions.list(&filter).await?)
    }
}

impl<R: Right> Authorized<Execution, R> {
    /// It, with its pending activities.
    pub(crate) async fn describe(&self) -> ApiResult<WorkflowExecution> {
        Ok(self.access.state.parts().executions.get(&self.target.id).await?)
    }

    /// Events of its latest run.
    pub(crate) async fn history(&self, after: i64, size: i64) -> ApiResult<Vec<HistoryEvent>> {
        Ok(self.access.state.parts().executions.history(&self.target.id, after, size).await?)
    }
}

impl Authorized<Execution, Admin> {
    /// Signals it.
    pub(crate) async fn signal(&self, signal: &str, input: &Value) -> ApiResult<()> {
        Ok(self.access.state.parts().executions.signal(&self.target.id, signal, input).await?)
    }

    /// Requests cancellation.
    pub(crate) async fn cancel(&self, reason: &str) -> ApiResult<()> {
        Ok(self.access.state.parts().executions.cancel(&self.target.id, reason).await?)
    }

    /// Ends it without giving it a chance to react.
    pub(crate) async fn terminate(&self, reason: &str) -> ApiResult<()> {
        Ok(self.access.state.parts().executions.terminate(&self.target.id, reason).await?)
    }
}
