//! What a session's launch gets of models and of environment variables: looked up when it is launched, so that a key or a limit that was
//! changed applies from the next attempt on.

use std::collections::BTreeMap;

use ambient_compute::Secret;
use ambient_domain::{
    agent::Agent,
    model_rules::{ModelRules, ModelSources},
    permission::Permissions,
    project::{Project, ProjectSpec},
    session::Session,
};
use ambient_live::{Budgets, permissions};
use ambient_runner_protocol::ModelBudget;
use ambient_wire::model::ModelOwner;

use crate::{
    models::{ModelAccess, Said},
    services::{Services, StepError},
};

/// What stands above a session: its agent, if it has one, and its project.
pub(crate) struct Owners {
    agent: Option<Agent>,
    project: ProjectSpec,
}

impl Owners {
    pub(crate) async fn of(s: &Services, session: &Session) -> Result<Self, StepError> {
        let mut agent = match &session.spec.agent_id {
            Some(id) => s.db.load::<Agent>(id).await?.filter(|agent| agent.project_id == session.project_id),
            None => None,
        };
        // A deleted agent's limits still hold, so that a session gets no more by that; its keys are about to be removed.
        if let Some(agent) = agent.as_mut().filter(|agent| agent.deleted_at.is_some()) {
            agent.spec.models.endpoints = ModelSources::default();
        }
        let project = s.db.load::<Project>(&session.project_id).await?;
        Ok(Self { agent, project: project.map(|project| project.spec).unwrap_or_default() })
    }

    /// What agent and project say about permissions.
    pub(crate) fn permissions(&self) -> Permissions {
        permissions::inherited(self.agent.as_ref(), &self.project)
    }

    /// What all say about models, together.
    pub(crate) fn models(&self, s: &Services, session: &Session) -> ModelAccess {
        let said = |owner, rules, variables| Said { owner, rules, variables };
        let project = &self.project;
        let mut all = vec![said(ModelOwner::Project, &project.settings.models, &project.environment_variables)];
        let agent = self.agent.as_ref().map(|agent| &agent.spec);
        all.extend(agent.map(|agent| said(ModelOwner::Agent, &agent.models, &agent.environment_variables)));
        all.push(said(ModelOwner::Session, &session.spec.models, &session.spec.environment_variables));
        s.models.server.access(&all)
    }

    /// How much a run of the session may use, as of now.
    pub(crate) async fn budget(
        &self,
        s: &Services,
        session: &Session,
        run: i64,
        access: &ModelAccess,
    ) -> Result<ModelBudget, StepError> {
        let budgets = Budgets::new(s.db.clone(), s.models.server.limits);
        let of = (session.project_id.as_str(), session.id.as_str(), run);
        Ok(budgets.within(of, access.limits, self.project.settings.model_budget).await?)
    }

    /// The environment's variables, by name the ids of their values: the project's, then the agent's, as of the run's start, then the
    /// session's own; without those that are keys of models.
    pub(crate) fn variables(&self, session: &Session) -> BTreeMap<String, String> {
        let launch = session.run().and_then(|run| run.agent.as_deref());
        let inherited = launch.map(|launch| launch.environment_variables.clone()).unwrap_or_default();
        let of_agent = self.agent.as_ref().map(|agent| &agent.spec.models);
        // Whose a value is, its id says.
        let is_key = |name: &str, id: &str| match id.split('/').next() {
            Some("project") => names_key(&self.project.settings.models, name),
            Some("agent") => of_agent.is_some_and(|rules| names_key(rules, name)),
            _ => false,
        };
        let mut variables: BTreeMap<_, _> = inherited.into_iter().filter(|(name, id)| !is_key(name, id)).collect();
        let own = session.spec.environment_variables.iter().filter(|(name, _)| !names_key(&session.spec.models, name));
        variables.extend(own.map(|(name, id)| (name.clone(), id.clone())));
        variables
    }
}

fn names_key(rules: &ModelRules, variable: &str) -> bool {
    rules.endpoints.iter().any(|(_, source)| source.key_variable.as_deref() == Some(variable))
}

/// The keys of an endpoint, in the runner's form.
pub(crate) async fn keys(s: &Services, access: &ModelAccess) -> Result<Option<Secret>, StepError> {
    let values = s.vault.get_all(access.sealed_keys()).await?;
    let sealed = |id: &str| values.get(id).and_then(|value| String::from_utf8(value.expose().to_vec()).ok());
    access.keys_file(&s.models.keys, sealed).map_err(|endpoint| StepError::Fatal {
        reason: "SecretMissing",
        message: format!("the key of the {} endpoint is gone", endpoint.provider.as_str()),
    })
}
