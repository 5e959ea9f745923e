//! A project: people, settings and sessions under one name.
//!
//! Invariants: an active project has at least one owner (role `admin`); the name is claimed from creation until
//! project-delete has finished.

mod columns;
mod decide;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    agent_launch::AgentCommand,
    column::Column,
    effect::{Effect, LiveEvent, NameClaim, WorkflowInput},
    entity::{Context, Decision, Entity, Guard, Part, Refusal},
    mcp::McpServer,
    model_rules::{ModelBudget, ModelRules},
    network::Network,
    permission::Permissions,
    retention::Retention,
};

pub use columns::member_name;

/// Namespace of projects in the table of claimed names.
pub const NAME_SCOPE: &str = "project";

/// State proper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProjectPhase {
    /// In use.
    Active,
    /// Being deleted: accepts nothing new.
    Terminating,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    View,
    /// Work with sessions.
    Edit,
    /// Everything (owner).
    Admin,
}

/// Who a permission is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectType {
    /// A person.
    User,
    /// A group.
    Group,
}

/// A granted role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// User or group.
    pub subject_type: SubjectType,
    /// Its name.
    pub subject_name: String,
    /// Role.
    pub role: Role,
}

/// Defaults for the project's sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_model: Option<String>,
    /// Seconds without activity before a session is stopped; 0 = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<i64>,
    /// What sessions may do without asking, after what they and their agents say themselves.
    #[serde(default, skip_serializing_if = "Permissions::is_empty")]
    pub permissions: Permissions,
    /// Program that runs as the agent, where neither session nor agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// Command of that agent type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_command: Option<AgentCommand>,
    /// MCP servers that agents are told of, where neither session nor agent has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    /// What agents may reach of the network; the server's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What prepares workspaces; the repositories' own when absent, nothing when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<String>,
    /// For how long what finished sessions have left is kept; the server's where it says nothing.
    #[serde(default, skip_serializing_if = "Retention::is_empty")]
    pub retention: Retention,
    /// Which models may be asked, where, and how much of them one session may use.
    #[serde(default, skip_serializing_if = "ModelRules::is_empty")]
    pub models: ModelRules,
    /// How much of models all sessions together may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_budget: Option<ModelBudget>,
}

/// What people write about a project.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectSpec {
    /// Display name.
    #[serde(default)]
    pub display_name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// Prompt for its sessions; only stored so far.
    #[serde(default)]
    pub prompt: String,
    /// For selection.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For tools.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Environment variables for its sessions: name to the id under which the value is sealed. Values are never in operations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment_variables: BTreeMap<String, String>,
    /// Defaults.
    #[serde(default)]
    pub settings: Settings,
}

/// Changes; absent = unchanged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectPatch {
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Prompt for its sessions; only stored so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, Option<String>>>,
    /// Variables to set (id of the sealed value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_variables: Option<BTreeMap<String, Option<String>>>,
    /// All settings; replaces them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// KSUID.
    pub id: String,
    /// Unique, DNS-1123.
    pub name: String,
    /// Number of operations.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its last operation was decided.
    pub updated_at: DateTime<Utc>,
    /// When project-delete finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<DateTime<Utc>>,
    /// State.
    pub phase: ProjectPhase,
    /// Whether its space has been set up.
    pub provisioned: bool,
    /// Desired state.
    pub spec: ProjectSpec,
    /// Who may do what, sorted.
    pub permissions: Vec<Permission>,
}

/// Commands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// A new project.
    Create {
        /// Id (KSUID).
        project_id: String,
        /// Name.
        name: String,
        /// Desired state.
        spec: Box<ProjectSpec>,
        /// First owner.
        owner: String,
    },
    /// Change.
    Patch(Box<ProjectPatch>),
    /// Grant a role, replacing the subject's previous one.
    Grant(Permission),
    /// Revoke a subject's role.
    Revoke {
        /// User or group.
        subject_type: SubjectType,
        /// Its name.
        subject_name: String,
    },
    /// Delete with all sessions.
    Delete,
    /// Fact: the space has been set up.
    Provisioned,
    /// Fact: sessions and space are gone.
    DeleteFinished,
}

/// Events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It was created.
    Created {
        /// Id.
        project_id: String,
        /// Name.
        name: String,
        /// Desired state.
        spec: Box<ProjectSpec>,
    },
    /// The spec is now this.
    SpecChanged {
        /// All of it.
        spec: Box<ProjectSpec>,
    },
    /// A subject was given this role.
    Granted(Permission),
    /// A subject's role was revoked.
    Revoked {
        /// User or group.
        subject_type: SubjectType,
        /// Its name.
        subject_name: String,
    },
    /// Its space was set up.
    Provisioned,
    /// It accepts nothing new.
    Terminating,
    /// It was deleted; the name is free.
    Deleted,
}

impl Project {
    /// Highest role of a user, by name or group.
    #[must_use]
    pub fn role_of(&self, user: &str, groups: &[String]) -> Option<Role> {
        let is_me = |p: &&Permission| match p.subject_type {
            SubjectType::User => p.subject_name == user,
            SubjectType::Group => groups.contains(&p.subject_name),
        };
        self.permissions.iter().filter(is_me).map(|p| p.role).max()
    }
}

impl Entity for Project {
    const KIND: &'static str = "project";
    const TITLE: &'static str = "Project";
    const SCHEMA_VERSION: i32 = 1;
    const COLUMNS: &'static [Column<Self>] = columns::COLUMNS;
    const RULES_SESSIONS: bool = true;
    const PARTS: &'static [Part] = &[
        Part { kind: "project_settings", commands: &["create", "patch"] },
        Part { kind: "permission", commands: &["create", "grant", "revoke"] },
    ];
    const IN_PROJECT: bool = false;
    type Command = Command;
    type Event = Event;

    fn command_name(command: &Command) -> &'static str {
        match command {
            Command::Create { .. } => "create",
            Command::Patch(_) => "patch",
            Command::Grant(_) => "grant",
            Command::Revoke { .. } => "revoke",
            Command::Delete => "delete",
            Command::Provisioned => "fact_provisioned",
            Command::DeleteFinished => "fact_delete_finished",
        }
    }

    fn decide(state: Option<&Self>, command: &Command, context: &Context) -> Result<Decision<Event>, Refusal> {
        decide::decide(state, command, context)
    }

    fn apply(state: Option<Self>, event: &Event, at: DateTime<Utc>) -> Self {
        let mut project = state.unwrap_or_else(|| Self {
            id: String::new(),
            name: String::new(),
            version: 0,
            created_at: at,
            updated_at: at,
            deleted_at: None,
            phase: ProjectPhase::Active,
            provisioned: false,
            spec: ProjectSpec::default(),
            permissions: Vec::new(),
        });
        match event {
            Event::Created { project_id, name, spec } => {
                project.id.clone_from(project_id);
                project.name.clone_from(name);
                project.spec = (**spec).clone();
            }
            Event::SpecChanged { spec } => project.spec = (**spec).clone(),
            Event::Granted(permission) => {
                project.remove_subject(permission.subject_type, &permission.subject_name);
                project.permissions.push(permission.clone());
                project.permissions.sort();
            }
            Event::Revoked { subject_type, subject_name } => project.remove_subject(*subject_type, subject_name),
            Event::Provisioned => project.provisioned = true,
            Event::Terminating => project.phase = ProjectPhase::Terminating,
            Event::Deleted => project.deleted_at = Some(at),
        }
        project
    }

    fn set_version(&mut self, version: i64, at: DateTime<Utc>) {
        self.version = version;
        self.updated_at = at;
    }
    fn id(&self) -> &str {
        &self.id
    }
    fn version(&self) -> i64 {
        self.version
    }
    fn project_id(&self) -> &str {
        &self.id
    }
    fn created_at(&self) -> DateTime<Utc> {
        self.created_at
    }
    fn updated_at(&self) -> DateTime<Utc> {
        self.updated_at
    }
    fn deleted_at(&self) -> Option<DateTime<Utc>> {
        self.deleted_at
    }
    fn deletion() -> Command {
        Command::Delete
    }
    fn has_spec_of(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
    fn guards(_: Option<&Self>, _: &Command) -> Vec<Guard> {
        Vec::new()
    }

    fn effects(&self, events: &[Event], context: &Context) -> Vec<Effect> {
        let start = |workflow: &str| Effect::StartWorkflow {
            workflow: workflow.to_owned(),
            workflow_id: format!("{workflow}/{}/{}", self.id, context.operation_id),
            input: WorkflowInput { project_id: self.id.clone(), session_id: String::new(), run: 0, attempt: 0 },
        };
        let of = |event: &Event| match event {
            Event::Created { .. } => Some(start("project-provision")),
            Event::Terminating => Some(start("project-delete")),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }

    fn live(&self, _: &[Event]) -> Vec<LiveEvent> {
        Vec::new()
    }

    fn names(&self, events: &[Event]) -> Vec<NameClaim> {
        let of = |event: &Event| match event {
            Event::Created { name, .. } => Some(NameClaim::Claim { scope: NAME_SCOPE.to_owned(), name: name.clone() }),
            Event::Deleted => Some(NameClaim::Release { scope: NAME_SCOPE.to_owned(), name: self.name.clone() }),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }
}

impl Project {
    fn remove_subject(&mut self, subject_type: SubjectType, subject_name: &str) {
        self.permissions.retain(|p| p.subject_type != subject_type || p.subject_name != subject_name);
    }
}
