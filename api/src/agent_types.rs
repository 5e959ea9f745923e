//! Programs that can run as agents, and what a run of a session is started with.

use ambient_domain::{
    agent::Agent,
    project::ProjectSpec,
    session::{AgentLaunch, DefinitionVersion, Spec},
};
use ambient_wire::agent_type::AgentType as Wire;

use crate::error::{ApiError, ApiResult, Number};

/// The agent type of sessions that give a command of their own.
pub(crate) const CUSTOM: &str = "custom";
/// The agent type that is built into the runner.
pub(crate) const SCRIPT: &str = "script";

/// A program that can run as an agent, as this server knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentType {
    /// Name.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Whether sessions can run it here.
    pub installed: bool,
    /// Variables that a session has to set for it.
    pub variables: Vec<String>,
    /// What its agents are started with: command, variables, files.
    pub launch: AgentLaunch,
}

impl AgentType {
    /// Those that every server has.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        let built_in = |name: &str, title: &str| Self {
            name: name.to_owned(),
            title: title.to_owned(),
            installed: true,
            variables: Vec::new(),
            launch: AgentLaunch { agent_type: name.to_owned(), ..AgentLaunch::default() },
        };
        vec![
            built_in(SCRIPT, "Runs the shell blocks of its messages"),
            built_in(CUSTOM, "Any program that speaks the Agent Client Protocol, by its agent_command"),
        ]
    }

    pub(crate) fn shown(&self) -> Wire {
        Wire {
            kind: "AgentType".to_owned(),
            name: self.name.clone(),
            title: self.title.clone(),
            installed: self.installed,
            variables: self.variables.clone(),
        }
    }
}

/// What a run is started with: from the session, else from its agent's definition, else from its project, else from the agent type.
///
/// # Errors
/// If the agent type is not installed, or has no command.
pub(crate) fn launch(
    spec: &Spec,
    definition: Option<&Agent>,
    of_project: &ProjectSpec,
    types: &[AgentType],
) -> ApiResult<AgentLaunch> {
    let project = &of_project.settings;
    let of = |name: &str| types.iter().find(|known| known.name == name);
    let known = of(&spec.agent_type).ok_or_else(|| {
        ApiError::new(
            Number::Conflict,
            format!("this server has no agent type '{}' any more", spec.agent_type.escape_debug()),
        )
    })?;
    let own = definition.map(|definition| &definition.spec);
    let given = spec.agent_command.clone().or_else(|| own.and_then(|own| own.agent_command.clone()));
    // A project's command is that of its agent type, and no other's.
    let is_of_project = spec.agent_type == project.agent_type.as_deref().unwrap_or(CUSTOM);
    let given = given.or_else(|| project.agent_command.clone().filter(|_| is_of_project));
    let mut launch = known.launch.clone();
    if given.is_none() {
        if known.name == CUSTOM {
            return Err(ApiError::invalid("agent_command", "is needed with the agent type 'custom'"));
        }
        if !known.installed {
            let reason = format!(
                "the agent type '{0}' is not installed on this server; whoever runs it can do so with 'ambient agent-type install {0}'",
                known.name
            );
            return Err(ApiError::new(Number::Conflict, reason));
        }
    }
    launch.command = given.or(launch.command);
    launch.definition =
        definition.map(|definition| DefinitionVersion { id: definition.id.clone(), version: definition.version });
    launch.environment_variables.clone_from(&of_project.environment_variables);
    launch.environment_variables.extend(own.map(|own| own.environment_variables.clone()).unwrap_or_default());
    let mode = spec.agent_mode.clone().or_else(|| own.and_then(|own| own.agent_mode.clone()));
    launch.mode = mode.or(launch.mode);
    launch.model.clone_from(&spec.llm_model);
    launch.network =
        spec.network.clone().or_else(|| own.and_then(|own| own.network.clone())).or_else(|| project.network.clone());
    let of_agent = || own.and_then(|own| own.setup_script.clone());
    launch.setup_script = spec.setup_script.clone().or_else(of_agent).or_else(|| project.setup_script.clone());
    launch.mcp_servers = match own {
        _ if !spec.mcp_servers.is_empty() => spec.mcp_servers.clone(),
        Some(own) if !own.mcp_servers.is_empty() => own.mcp_servers.clone(),
        _ => project.mcp_servers.clone(),
    };
    Ok(launch)
}
