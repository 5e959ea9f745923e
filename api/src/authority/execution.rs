//! Workflow executions: seen by who sees the entity they work for, changed by who owns its project.
//!
//! A workflow id is `{workflow}/{entity}/…`: the entity says whose it is.

use std::collections::BTreeSet;

use ambient_domain::{project::Role, session::Session};
use ambient_persistence::{Database, KindVisitor, ListQuery, StoredEntity, is_ksuid, visit_kinds};
use ambient_wire::execution::{HistoryEvent, WorkflowExecution};
use ambient_workflows::executions::ExecutionFilter;
use serde_json::Value;

use super::{
    access::{Access, Authorized, Found, Target},
    right::{Admin, Right},
};
use crate::error::{ApiError, ApiResult};

/// Executions looked at for a list that is not of one entity, and items of one look.
const MAX_SCANNED: i64 = 50_000;
const SCAN_PAGE: i64 = 1_000;
/// Entities of such a list.
const MAX_ENTITIES: i64 = 65_500;

/// Longest id the engine takes, bytes.
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
        // Without a role on the entity it is not asked for: its absence and its presence must look the same to a reader.
        let id = id.to_owned();
        Ok(Some(Found { target: Self { id }, role }))
    }
}

/// Of which Kind and project an id is.
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

    /// Executions that the caller sees, newest first, and how many there are.
    pub(crate) async fn executions(
        &self,
        filter: ExecutionFilter,
        project_id: Option<&str>,
    ) -> ApiResult<(Vec<WorkflowExecution>, i64)> {
        let executions = &self.state.parts().executions;
        if filter.entity_id.is_some() || (project_id.is_none() && self.principal.platform_role().is_some()) {
            return Ok(executions.list(&filter).await?);
        }
        let visible = self.entities_in(project_id).await?;
        let mut matching = Vec::new();
        for page in 1..=(MAX_SCANNED / SCAN_PAGE) {
            let scan = ExecutionFilter { page, size: SCAN_PAGE, ..filter.clone() };
            let (found, total) = executions.list(&scan).await?;
            let full = !found.is_empty() && page * SCAN_PAGE < total;
            let of =
                |execution: &WorkflowExecution| execution.id.split('/').nth(1).is_some_and(|id| visible.contains(id));
            matching.extend(found.into_iter().filter(of));
            if !full {
                break;
            }
        }
        let total = i64::try_from(matching.len()).unwrap_or(i64::MAX);
        let skip = usize::try_from((filter.page - 1).saturating_mul(filter.size)).unwrap_or(usize::MAX);
        let take = usize::try_from(filter.size).unwrap_or(0);
        Ok((matching.into_iter().skip(skip).take(take).collect(), total))
    }

    /// Ids of projects and sessions that the caller sees, deleted sessions included.
    async fn entities_in(&self, project_id: Option<&str>) -> ApiResult<BTreeSet<String>> {
        let only: Vec<(String, String)> =
            project_id.map(|id| ("project_id".to_owned(), id.to_owned())).into_iter().collect();
        let query = ListQuery { size: MAX_ENTITIES, with_deleted: true, filters: only, ..ListQuery::default() };
        let sessions = self.list::<Session>(&query).await?.items.into_iter().map(|session| session.id);
        let own = self.principal.session_id().map(str::to_owned);
        let projects = match project_id {
            Some(id) => vec![id.to_owned()],
            None => self.visible_projects().await?.unwrap_or_default(),
        };
        Ok(sessions.chain(own).chain(projects).collect())
    }
}

impl<R: Right> Authorized<Execution, R> {
    /// It, with its pending activities.
    pub(crate) async fn describe(&self) -> ApiResult<WorkflowExecution> {
        Ok(self.access.state.parts().executions.get(&self.target.id).await?)
    }

    /// Events of its newest run.
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

    /// Ends it without its doing.
    pub(crate) async fn terminate(&self, reason: &str) -> ApiResult<()> {
        Ok(self.access.state.parts().executions.terminate(&self.target.id, reason).await?)
    }
}
