//! Playbooks: folders of git repositories with instructions, commands and agents for a session's agent. In JSON and routes they are workflows.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A playbook that a session goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Playbook {
    /// Repository: `https://…` or `file:///…`, without credentials.
    pub git_url: String,
    /// Branch; the repository's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Folder in the repository; empty: all of it.
    #[serde(default)]
    pub path: String,
}

/// The playbook that is in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReconciledPlaybook {
    /// Repository.
    pub git_url: String,
    /// Branch; null: the repository's default.
    pub branch: Option<String>,
    /// Folder in the repository; empty: all of it.
    pub path: String,
    /// Commit that was checked out.
    pub commit: String,
    /// When it came into effect.
    pub reconciled_at: DateTime<Utc>,
}

/// What a playbook has, as it was read from its commit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct PlaybookMetadata {
    /// `WorkflowMetadata`.
    pub kind: String,
    /// Commit that it was read from; null: the session goes by no playbook, or has none yet.
    pub commit: Option<String>,
    /// Commands: `.claude/commands/*.md`, by id.
    pub commands: Vec<PlaybookCommand>,
    /// Agents: `.claude/agents/*.md`, by id.
    pub agents: Vec<PlaybookAgent>,
    /// `.ambient/ambient.json`.
    pub config: PlaybookConfig,
    /// What was left out, and why, in words.
    pub problems: Vec<String>,
}

/// A command of a playbook: `/id arguments` at the beginning of a message stands for its text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct PlaybookCommand {
    /// Name of its file, without `.md`.
    pub id: String,
    /// Display name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// As it is written in a message: `/id`.
    pub slash_command: String,
}

/// An agent that a playbook describes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct PlaybookAgent {
    /// Name of its file, without `.md`.
    pub id: String,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
}

/// A playbook about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct PlaybookConfig {
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What its agent is told before the first message.
    pub system_prompt: String,
    /// What a person may begin with.
    pub startup_prompt: String,
    /// Folder for results.
    pub artifacts_dir: String,
}
