//! What can be done to projects, and in them.

use std::collections::BTreeMap;

use ambient_actors::{Caller, IdempotencyKey, Reply, Request};
use ambient_domain::{
    Defaults, Entity,
    agent::Agent,
    project::{self, Project, ProjectSpec, SubjectType},
    retention::RetentionRules,
    session::{self, Session, Spec},
};
use ambient_live::Budgets;
use ambient_persistence::{StoredEntity, is_ksuid, new_id};
use ambient_wire::{session::SecretText, usage::BudgetUsage};

use super::{
    access::{Access, Authorized, Found, Target},
    platform::Registered,
    right::{Admin, Edit, Right, View},
    secrets::Sealed,
};
use crate::{
    agent_types,
    error::{ApiError, ApiResult, Number},
    extract::WriteOptions,
    session_spec, usage,
};

impl Target for Project {
    const KIND: &'static str = "Project";
    const PARAM: &'static str = "project_id";

    async fn find(access: &Access, id: &str) -> ApiResult<Option<Found<Self>>> {
        let project = access.state.parts().database.project_by_id_or_name(id).await?;
        Ok(project.filter(|project| !project.is_deleted()).map(|project| {
            let role = access.principal.role_in(&project);
            Found { target: project, role }
        }))
    }
}

impl Access {
    /// Has an entity's actor decide. Only for the methods of `Authorized` values and [`Registered`].
    pub(super) async fn call<E: StoredEntity>(
        &self,
        id: &str,
        mut request: Request<E>,
        options: WriteOptions<'_>,
    ) -> ApiResult<Reply<E>> {
        request.if_match = options.conditions.if_match;
        request.idempotency = options.conditions.idempotency_key.as_ref().map(|key| IdempotencyKey {
            method: options.fingerprint.method.clone(),
            path: options.fingerprint.path.clone(),
            key: key.clone(),
            request_hash: options.fingerprint.hash.clone(),
        });
        Ok(self.state.parts().actors.call(id, request).await?)
    }

    /// The caller, as operations record it.
    pub(super) fn caller(&self) -> Caller {
        Caller {
            principal: self.principal.name.clone(),
            correlation_id: self.ids.correlation_id.clone(),
            causation_id: None,
            trace_parent: Some(self.ids.trace_parent.clone()),
        }
    }
}

/// A session to be created.
#[derive(Debug)]
pub(crate) struct Creation {
    /// Desired state.
    pub(crate) spec: Spec,
    /// Definition of its agent.
    pub(crate) agent: Option<Agent>,
    /// Start at once.
    pub(crate) start: bool,
    /// Values of its variables.
    pub(crate) secrets: BTreeMap<String, SecretText>,
}

impl Registered {
    /// Agent types of this server.
    pub(crate) fn agent_types(&self) -> &[String] {
        self.access().state().agent_types()
    }

    /// What projects go by.
    pub(crate) fn retention(&self) -> &RetentionRules {
        self.access().state().retention()
    }

    /// Creates a project; the caller owns it.
    pub(crate) async fn create_project(
        &self,
        name: String,
        mut spec: ProjectSpec,
        secrets: BTreeMap<String, SecretText>,
        options: WriteOptions<'_>,
    ) -> ApiResult<Reply<Project>> {
        self.access().refuse_while_draining().await?;
        let project_id = new_id();
        let secrets = secrets.into_iter().map(|(name, value)| (name, Some(value))).collect();
        let sealed = Sealed::of(<Project as Entity>::KIND, &project_id, secrets)?;
        self.access().seal(&sealed).await?;
        spec.environment_variables = sealed.ids.into_iter().filter_map(|(name, id)| Some((name, id?))).collect();
        let owner = self.access().principal.name.clone();
        let command = project::Command::Create { project_id: project_id.clone(), name, spec: Box::new(spec), owner };
        self.access().call(&project_id, Request::new(command, self.access().caller()), options).await
    }
}

impl Authorized<Project, Admin> {
    /// Changes its specification.
    pub(crate) async fn patch(
        &self,
        mut patch: project::ProjectPatch,
        secrets: Option<BTreeMap<String, Option<SecretText>>>,
        options: WriteOptions<'_>,
    ) -> ApiResult<Reply<Project>> {
        if let Some(secrets) = secrets {
            let sealed = Sealed::of(<Project as Entity>::KIND, &self.target.id, secrets)?;
            self.access.seal(&sealed).await?;
            patch.environment_variables = Some(sealed.ids);
        }
        self.command(project::Command::Patch(Box::new(patch)), options).await
    }

    /// Deletes it with all its sessions.
    pub(crate) async fn delete(&self, options: WriteOptions<'_>) -> ApiResult<Reply<Project>> {
        self.command(project::Command::Delete, options).await
    }

    /// Grants a role.
    pub(crate) async fn grant(
        &self,
        permission: project::Permission,
        options: WriteOptions<'_>,
    ) -> ApiResult<Reply<Project>> {
        self.command(project::Command::Grant(permission), options).await
    }

    /// Revokes a subject's role.
    pub(crate) async fn revoke(
        &self,
        subject_type: SubjectType,
        name: String,
        options: WriteOptions<'_>,
    ) -> ApiResult<Reply<Project>> {
        self.command(project::Command::Revoke { subject_type, subject_name: name }, options).await
    }

    async fn command(&self, command: project::Command, options: WriteOptions<'_>) -> ApiResult<Reply<Project>> {
        self.access.call(&self.target.id, Request::new(command, self.access.caller()), options).await
    }
}

impl Authorized<Project, Edit> {
    /// Creates a session in it.
    pub(crate) async fn create_session(
        &self,
        creation: Creation,
        options: WriteOptions<'_>,
    ) -> ApiResult<Reply<Session>> {
        if creation.start {
            self.access.refuse_while_draining().await?;
        }
        self.check_parent(creation.spec.parent_session_id.as_deref()).await?;
        let (session_id, project_id) = (new_id(), self.target.id.clone());
        let Creation { mut spec, agent, start, secrets } = creation;
        let secrets = secrets.into_iter().map(|(name, value)| (name, Some(value))).collect();
        let sealed = Sealed::of(<Session as Entity>::KIND, &session_id, secrets)?;
        spec.environment_variables = sealed.ids.iter().filter_map(|(n, id)| Some((n.clone(), id.clone()?))).collect();
        spec.validate().map_err(ApiError::from).map_err(super::session::with_api_names)?;
        let launch = match start {
            true => Some(Box::new(agent_types::launch(
                &spec,
                agent.as_ref(),
                &self.target.spec,
                self.access.state.known_agent_types(),
            )?)),
            false => None,
        };
        self.access.seal(&sealed).await?;
        let command =
            session::Command::Create { session_id: session_id.clone(), project_id, spec: Box::new(spec), start };
        let mut request = Request::new(command, self.access.caller());
        request.defaults = self.session_defaults();
        request.defaults.agent = launch;
        let reply = self.access.call(&session_id, request, options).await;
        reply.map_err(super::session::with_api_names)
    }

    /// A parent must be visible to the caller.
    async fn check_parent(&self, id: Option<&str>) -> ApiResult<()> {
        let Some(id) = id else { return Ok(()) };
        if !is_ksuid(id) {
            return Err(ApiError::invalid("parent_session_id", "is not the id of a session"));
        }
        let parent = self.access.authorize::<Session, View>(id).await;
        parent.map(drop).map_err(|error| match error.number() {
            Number::NotFound => error.at("parent_session_id", "no such Session"),
            _ => error,
        })
    }
}

impl<R: Right> Authorized<Project, R> {
    /// An agent of this project.
    pub(crate) async fn agent(&self, id: Option<&str>) -> ApiResult<Option<Agent>> {
        let Some(id) = id else { return Ok(None) };
        if !is_ksuid(id) {
            return Err(ApiError::invalid("agent_id", "is not the id of an agent"));
        }
        let agent = self.access.state.parts().database.load::<Agent>(id).await?;
        match agent.filter(|agent| agent.project_id == self.target.id && !agent.is_deleted()) {
            Some(agent) => Ok(Some(agent)),
            None => Err(ApiError::not_found("Agent", id).at("agent_id", "no such Agent in this Project")),
        }
    }

    /// What its sessions may use of models, have used, and have left; none without a budget.
    pub(crate) async fn model_budget(&self) -> ApiResult<Option<BudgetUsage>> {
        let Some(budget) = self.target.spec.settings.model_budget else { return Ok(None) };
        let models = &self.access.state().config().models;
        let budgets = Budgets::new(self.access.state.parts().database.clone(), models.limits);
        let used = budgets.used(&self.target.id, budget.period).await?;
        Ok(Some(usage::of_budget(budget, used, &models.currency)))
    }

    /// Agent types of this server.
    pub(crate) fn agent_types(&self) -> &[String] {
        self.access.state().agent_types()
    }

    /// What its sessions fall back to.
    pub(super) fn session_defaults(&self) -> Defaults {
        session_spec::defaults(&self.target.spec.settings, self.access.state.server_defaults())
    }
}
