//! `/agents`: definitions that sessions are created from.

use ambient_domain::agent::{Agent, AgentSpec};
use ambient_wire::agent::{Agent as Wire, AgentCreate, AgentPatch};

use serde_json::{Value, json};

use crate::{authority::Access, definitions::Served, error::ApiResult, given, session_spec};

const MAX_MODEL: usize = 200;
const MAX_AGENT_TYPE: usize = 100;

impl Served for AgentSpec {
    type Entity = Agent;
    type Wire = Wire;

    fn check_create(body: &AgentCreate, access: &Access) -> ApiResult<()> {
        check_texts(Some(&body.display_name), Some(&body.description))?;
        given::optional_url("repo_url", body.repo_url.as_deref())?;
        given::optional_name("llm_model", body.llm_model.as_deref(), MAX_MODEL)?;
        given::optional_name("agent_type", body.agent_type.as_deref(), MAX_AGENT_TYPE)?;
        session_spec::known_agent_type("agent_type", body.agent_type.as_deref(), access.state().agent_types())?;
        session_spec::resources(body.resource_overrides.clone().unwrap_or_default(), access.state().server_defaults())?;
        given::network("network", body.network.as_ref())?;
        given::models("models", &body.models)?;
        given::permissions("permissions", &body.permissions)?;
        given::labels(&body.labels)?;
        given::annotations(&body.annotations)
    }

    fn derived(&self) -> Vec<(&'static str, Value)> {
        vec![("environment_variable_names", json!(self.environment_variables.keys().collect::<Vec<_>>()))]
    }

    fn check_patch(body: &AgentPatch, access: &Access) -> ApiResult<()> {
        let flat = |given: &Option<Option<String>>| given.clone().flatten();
        check_texts(body.display_name.as_deref(), body.description.as_deref())?;
        given::optional_url("repo_url", flat(&body.repo_url).as_deref())?;
        given::optional_name("llm_model", flat(&body.llm_model).as_deref(), MAX_MODEL)?;
        given::optional_name("agent_type", flat(&body.agent_type).as_deref(), MAX_AGENT_TYPE)?;
        session_spec::known_agent_type("agent_type", flat(&body.agent_type).as_deref(), access.state().agent_types())?;
        let limits = body.resource_overrides.clone().flatten();
        session_spec::resource_patch(limits, access.state().server_defaults())?;
        given::network("network", body.network.as_ref().and_then(Option::as_ref))?;
        body.models.iter().flatten().try_for_each(|rules| given::models("models", rules))?;
        body.permissions.iter().flatten().try_for_each(|all| given::permissions("permissions", all))?;
        body.labels.as_ref().map_or(Ok(()), given::labels)?;
        body.annotations.as_ref().map_or(Ok(()), given::annotations)
    }
}

/// A display name may be empty: the name is shown instead.
fn check_texts(display_name: Option<&str>, description: Option<&str>) -> ApiResult<()> {
    given::optional_name("display_name", display_name.filter(|name| !name.is_empty()), ambient_wire::name::MAX)?;
    given::text("description", description.unwrap_or_default())
}
