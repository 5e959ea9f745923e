//! What does not concern a single entity: lists, and work on the whole platform.

use ambient_domain::{
    project::{Project, Role},
    session::Session,
};
use ambient_persistence::{
    ListQuery, OperationFilter, OperationPage, Order, Page, Scope, StoredEntity, UsageBy, UsageOf, UsageRow,
    VerifyReport, VerifyScope, Waiting, is_ksuid,
};
use ambient_wire::live::LiveTicket;
use axum::{extract::FromRequestParts, http::request::Parts};

use super::{access::Access, principal::PrincipalKind, right::View, state::AppState, ticket};
use crate::error::{ApiError, ApiResult};

/// Most projects that a person's lists cover.
const MAX_PROJECTS: i64 = 10_000;

/// A principal that may own things: anyone but a session.
pub(crate) struct Registered(Access);

impl Registered {
    pub(super) fn access(&self) -> &Access {
        &self.0
    }
}

impl FromRequestParts<AppState> for Registered {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let access = Access::from_request_parts(parts, state).await?;
        if access.principal.session_id().is_some() {
            return Err(ApiError::forbidden("a session's token is valid for that session only"));
        }
        Ok(Self(access))
    }
}

/// A platform administrator.
pub(crate) struct Platform(Access);

impl FromRequestParts<AppState> for Platform {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let access = Access::from_request_parts(parts, state).await?;
        if access.principal.platform_role() != Some(Role::Admin) {
            return Err(ApiError::forbidden("this needs a platform administrator"));
        }
        Ok(Self(access))
    }
}

impl Platform {
    /// Compares rows with their replayed operations.
    pub(crate) async fn verify(&self, scope: &VerifyScope) -> ApiResult<VerifyReport> {
        Ok(self.0.state.parts().database.verify(scope).await?)
    }
}

impl Access {
    /// What the caller's lists cover; none = nothing at all.
    fn scope(&self) -> Option<Scope> {
        match &self.principal.kind {
            PrincipalKind::Platform(_) => Some(Scope::All),
            PrincipalKind::Person => {
                Some(Scope::Member { user: self.principal.name.clone(), groups: self.principal.groups.clone() })
            }
            PrincipalKind::Session { .. } => None,
        }
    }

    /// Entities of a Kind that the caller may see.
    pub(crate) async fn list<E: StoredEntity>(&self, query: &ListQuery) -> ApiResult<Page<E>> {
        let Some(scope) = self.scope() else { return Ok(nothing(query)) };
        Ok(self.state.parts().database.list(&scope, query).await?)
    }

    /// What model calls have used, of something that the caller may see.
    pub(crate) async fn model_usage(&self, of: UsageOf<'_>, by: UsageBy) -> ApiResult<Vec<UsageRow>> {
        Ok(self.state.parts().database.model_usage(of, by).await?)
    }

    /// What waits for the caller: in projects in which it may act. Nothing ever waits for a session's own token.
    pub(crate) async fn inbox(&self, project_id: Option<&str>, (page, size): (i64, i64)) -> ApiResult<Page<Waiting>> {
        let project_id = self.project_id(project_id).await?;
        let may_act = self.principal.platform_role() != Some(Role::View);
        let Some(scope) = self.scope().filter(|_| may_act) else {
            return Ok(Page { items: Vec::new(), page, total: 0 });
        };
        Ok(self.state.parts().database.inbox(&scope, project_id.as_deref(), page, size).await?)
    }

    /// A page of the operations that the caller may see, and how many there are.
    pub(crate) async fn operations(
        &self,
        filter: &OperationFilter,
        order: Order,
        after: Option<&str>,
        size: i64,
    ) -> ApiResult<(OperationPage, i64)> {
        let scope = self.scope().unwrap_or(Scope::Projects(Vec::new()));
        let database = &self.state.parts().database;
        // A malformed cursor is refused even if no items are requested.
        let page = database.list_operations(&scope, filter, order, after, size.max(1)).await?;
        let page = if size == 0 { OperationPage { items: Vec::new(), next: None } } else { page };
        Ok((page, database.count_operations(&scope, filter).await?))
    }

    /// Ids of the projects the caller may see, including deleted ones: their executions have a history. None = all.
    pub(super) async fn visible_projects(&self) -> ApiResult<Option<Vec<String>>> {
        if matches!(self.principal.kind, PrincipalKind::Platform(_)) {
            return Ok(None);
        }
        let query = ListQuery { size: MAX_PROJECTS, with_deleted: true, ..ListQuery::default() };
        let page = self.list::<Project>(&query).await?;
        if page.total > MAX_PROJECTS {
            // Leaving some out would look as if they had no executions.
            let reason = format!("is required: you see more than {MAX_PROJECTS} projects");
            return Err(ApiError::invalid("project_id", reason));
        }
        Ok(Some(page.items.into_iter().map(|project| project.id).collect()))
    }

    /// Id of a project that a filter names by id or name.
    pub(crate) async fn project_id(&self, given: Option<&str>) -> ApiResult<Option<String>> {
        let Some(given) = given else { return Ok(None) };
        let project = self.authorize::<Project, View>(given).await?;
        Ok(Some(project.get().id.clone()))
    }

    /// Id of a session that a filter names; a deleted one has a history too.
    pub(crate) async fn session_id(&self, given: Option<&str>) -> ApiResult<Option<String>> {
        let Some(given) = given else { return Ok(None) };
        let absent = || ApiError::not_found("Session", given);
        if !is_ksuid(given) {
            return Err(absent());
        }
        let session = self.state.parts().database.load::<Session>(given).await?.ok_or_else(absent)?;
        self.role_by_ids(&session.project_id, "session", given).await?.ok_or_else(absent)?;
        Ok(Some(given.to_owned()))
    }

    /// A ticket for live channels as the caller.
    pub(crate) fn live_ticket(&self) -> ApiResult<LiveTicket> {
        ticket::issue(&self.state.config().ticket_key, &self.principal, chrono::Utc::now())
    }
}

fn nothing<T>(query: &ListQuery) -> Page<T> {
    Page { items: Vec::new(), page: query.page, total: 0 }
}
