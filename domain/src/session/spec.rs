//! What people want of a session.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    agent_command,
    output::{self, Repo},
    playbook::Playbook,
    resources::ResourceOverrides,
};
use crate::{
    agent_launch::AgentCommand,
    entity::{Refusal, RefusalCode},
    mcp::{self, McpServer},
    model_rules::ModelRules,
    name,
    network::Network,
    permission::Permissions,
};

/// Most options of an agent.
const MAX_OPTIONS: usize = 50;

/// Desired state. `display_name`, `labels`, `annotations`, `permissions` and the agent's settings change at any time; see `decide` for the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Display name, 1-100 characters.
    pub display_name: String,
    /// First message of every run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Repositories.
    #[serde(default)]
    pub repos: Vec<Repo>,
    /// Place in `repos`, from 0, of the one that the agent works in; when absent, the only one, or else the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_repo_index: Option<u32>,
    /// Playbook that its agent goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_workflow: Option<Playbook>,
    /// Agent that the session belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// Program that runs as the agent, such as `script`. Named `agent` before schema version 2.
    #[serde(alias = "agent")]
    pub agent_type: String,
    /// Command in place of the agent type's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_command: Option<AgentCommand>,
    /// Mode of the agent, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_mode: Option<String>,
    /// Options of the agent, by its ids of them and of their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agent_options: BTreeMap<String, String>,
    /// MCP servers that the agent is told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    /// Chat (true) or batch.
    pub interactive: bool,
    /// Complete at the end of a turn even if interactive.
    #[serde(default)]
    pub stop_on_run_finished: bool,
    /// Maximum duration of a run, seconds; none = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Seconds without activity before it is stopped; 0 = never.
    pub inactivity_timeout: i64,
    /// Model; the agent's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_model: Option<String>,
    /// Sampling temperature, 0-2.
    pub llm_temperature: f64,
    /// Limit on output tokens.
    pub llm_max_tokens: i64,
    /// Limits that replace the server's.
    #[serde(default, skip_serializing_if = "ResourceOverrides::is_empty")]
    pub resource_overrides: ResourceOverrides,
    /// What the agent may reach of the network; its agent's or the server's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What prepares the workspace before a run's first turn; its agent's or the repositories' own when absent, nothing when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<String>,
    /// Environment variables for the agent: name to the id under which the value is sealed. Values are never in operations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment_variables: BTreeMap<String, String>,
    /// Which models it may ask, where, and how much of them it may use.
    #[serde(default, skip_serializing_if = "ModelRules::is_empty")]
    pub models: ModelRules,
    /// What the agent may do without asking.
    #[serde(default, skip_serializing_if = "Permissions::is_empty")]
    pub permissions: Permissions,
    /// Session that this one was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_session_id: Option<String>,
    /// For selection.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For tools.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Spec {
    pub(super) fn empty() -> Self {
        Self {
            display_name: String::new(),
            prompt: None,
            repos: Vec::new(),
            main_repo_index: None,
            active_workflow: None,
            agent_id: None,
            agent_type: String::new(),
            agent_command: None,
            agent_mode: None,
            agent_options: BTreeMap::new(),
            mcp_servers: Vec::new(),
            interactive: true,
            stop_on_run_finished: false,
            timeout: None,
            inactivity_timeout: 0,
            llm_model: None,
            llm_temperature: 0.7,
            llm_max_tokens: 4000,
            resource_overrides: ResourceOverrides::default(),
            network: None,
            setup_script: None,
            environment_variables: BTreeMap::new(),
            models: ModelRules::default(),
            permissions: Permissions::default(),
            parent_session_id: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// The repository that the agent works in, if one is named.
    #[must_use]
    pub fn main_repo(&self) -> Option<&Repo> {
        self.repos.get(usize::try_from(self.main_repo_index?).ok()?)
    }

    /// Ends after one turn.
    #[must_use]
    pub fn completes_with_turn(&self) -> bool {
        !self.interactive || self.stop_on_run_finished
    }

    /// Checks every field.
    ///
    /// # Errors
    /// A refusal that names the field.
    pub fn validate(&self) -> Result<(), Refusal> {
        name::display("display_name", &self.display_name, 100)?;
        if let Some(prompt) = &self.prompt {
            name::text("prompt", prompt)?;
        }
        if !self.interactive && self.prompt.as_deref().unwrap_or_default().trim().is_empty() {
            return Err(Refusal::invalid("prompt", "a batch session (interactive=false) needs a prompt"));
        }
        output::validate(&self.repos)?;
        main_repo(self.main_repo_index, self.repos.len())?;
        self.active_workflow.as_ref().map_or(Ok(()), |playbook| playbook.validate("active_workflow."))?;
        name::display("agent_type", &self.agent_type, 100)?;
        self.agent_command.as_ref().map_or(Ok(()), agent_command::validate_command)?;
        launch::mode(self.agent_mode.as_deref())?;
        options(&self.agent_options)?;
        mcp::validate(&self.mcp_servers)?;
        launch::timeout(self.timeout)?;
        launch::inactivity_timeout(Some(self.inactivity_timeout))?;
        launch::model(self.llm_model.as_deref())?;
        launch::temperature(Some(self.llm_temperature))?;
        launch::max_tokens(Some(self.llm_max_tokens))?;
        self.resource_overrides.validate()?;
        self.network.as_ref().map_or(Ok(()), Network::validate)?;
        launch::setup_script(self.setup_script.as_deref())?;
        self.models.validate("models", &self.environment_variables)?;
        self.permissions.validate("permissions")?;
        name::environment("environment_variables", self.environment_variables.keys())?;
        name::map("labels", &self.labels)?;
        name::map("annotations", &self.annotations)
    }
}

/// Checks launch settings wherever they are given: in a session, or in an agent's definition.
pub(crate) mod launch {
    use crate::{entity::Refusal, name};

    pub(crate) fn timeout(seconds: Option<i64>) -> Result<(), Refusal> {
        if seconds.is_some_and(|t| !(1..=30 * 86_400).contains(&t)) {
            return Err(Refusal::invalid("timeout", "must be 1 to 2592000 seconds"));
        }
        Ok(())
    }

    pub(crate) fn inactivity_timeout(seconds: Option<i64>) -> Result<(), Refusal> {
        if seconds.is_some_and(|t| !(0..=365 * 86_400).contains(&t)) {
            return Err(Refusal::invalid("inactivity_timeout", "must be 0 (off) to 31536000 seconds"));
        }
        Ok(())
    }

    pub(crate) fn setup_script(script: Option<&str>) -> Result<(), Refusal> {
        const MAX: usize = 64 * 1024;
        let Some(script) = script else { return Ok(()) };
        if script.len() > MAX {
            return Err(Refusal::invalid("setup_script", format!("must have at most {MAX} bytes")));
        }
        name::text("setup_script", script)
    }

    pub(crate) fn mode(mode: Option<&str>) -> Result<(), Refusal> {
        mode.map_or(Ok(()), |mode| name::display("agent_mode", mode, 200))
    }

    pub(crate) fn model(model: Option<&str>) -> Result<(), Refusal> {
        model.map_or(Ok(()), |model| name::display("llm_model", model, 200))
    }

    pub(crate) fn temperature(temperature: Option<f64>) -> Result<(), Refusal> {
        if temperature.is_some_and(|t| !(0.0..=2.0).contains(&t)) {
            return Err(Refusal::invalid("llm_temperature", "must be 0 to 2"));
        }
        Ok(())
    }

    pub(crate) fn max_tokens(tokens: Option<i64>) -> Result<(), Refusal> {
        if tokens.is_some_and(|n| !(1..=10_000_000).contains(&n)) {
            return Err(Refusal::invalid("llm_max_tokens", "must be 1 to 10000000"));
        }
        Ok(())
    }
}

fn options(options: &BTreeMap<String, String>) -> Result<(), Refusal> {
    name::at_most(MAX_OPTIONS, "agent_options", options.len())?;
    for (id, value) in options {
        name::display("agent_options", id, 200)?;
        name::display(&format!("agent_options.{id}"), value, 200)?;
    }
    Ok(())
}

fn main_repo(index: Option<u32>, count: usize) -> Result<(), Refusal> {
    match index.map(usize::try_from) {
        Some(Ok(index)) if index >= count => {
            let there_are = if count == 0 { "there are none".to_owned() } else { format!("the last is {}", count - 1) };
            let reason = format!("there is no repository {index}; {there_are}");
            Err(Refusal { code: RefusalCode::Conflict, field: Some("main_repo_index".to_owned()), reason })
        }
        _ => Ok(()),
    }
}
