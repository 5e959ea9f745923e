//! What turns came to.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{git::GitPushed, runner_event::RepoChanges, usage::TokenUsage};

/// The work on one message, and what it came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Turn {
    /// `Turn`.
    pub kind: String,
    /// `{run}-{number}`: unique in the session.
    pub id: String,
    /// Session id.
    pub session_id: String,
    /// Run.
    pub run: i64,
    /// Within the run, from 1.
    pub number: i64,
    /// The message.
    pub message_id: String,
    /// How it stands.
    pub status: TurnStatus,
    /// Why it did not finish: `ScriptFailed`, `PushFailed`, `Interrupted`, `Terminated`, `RunnerLost`, `LogFull`, `AgentError`,
    /// `AgentLost`, `BudgetExceeded`, `SetupFailed`.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// Exit code of what failed.
    pub exit_code: Option<i32>,
    /// Why the agent stopped, as it says: `end_turn`, `max_tokens`, `max_turn_requests`, `refusal`, `cancelled`.
    pub stop_reason: Option<String>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it was over, its repositories looked at.
    pub ended_at: Option<DateTime<Utc>>,
    /// Its first event in the live log.
    pub first_seq: i64,
    /// Its last.
    pub last_seq: Option<i64>,
    /// How many tools were called.
    pub tool_calls: i64,
    /// How often the agent asked, whether a person or a rule answered.
    pub permission_requests: i64,
    /// What its model calls have used.
    pub usage: TokenUsage,
    /// What it has done to the repositories, once it is over.
    pub repos: Vec<TurnRepo>,
    /// When its events were removed by retention, and with them its `patch`; `turns/{id}/diff` is not affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_removed_at: Option<DateTime<Utc>>,
}

/// How a turn stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TurnStatus {
    /// The agent works on it, or waits for an answer.
    Working,
    /// The agent has done its work.
    Finished,
    /// It failed.
    Error,
    /// It was stopped.
    Interrupted,
    /// Its runner was lost, and none came back to say how it ended.
    Lost,
}

/// What a turn has done to a repository. It is the agent's to change, so this is as it was found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct TurnRepo {
    /// Its directory in the workspace.
    pub repo: String,
    /// Branch that was checked out at the end; null when detached or unknown.
    pub branch: Option<String>,
    /// Commit that was checked out at the end.
    pub head: Option<String>,
    /// Commit of its snapshot: all files as they were, committed or not.
    pub snapshot: Option<String>,
    /// Where it was cloned at.
    pub base: Option<String>,
    /// Commits and files of this turn; null if they could not be told.
    pub changes: Option<RepoChanges>,
    /// What was pushed, at its end, or by hand until the next turn began.
    pub pushed: Option<GitPushed>,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// The snapshot is in the snapshot store: `turns/{id}/diff` works, whatever becomes of the workspace.
    #[serde(default)]
    pub stored: bool,
    /// Why it is not.
    #[serde(default)]
    pub not_stored: Option<String>,
    /// Unified diff from `base` to the snapshot, at most 128 KiB; only of a single turn, while its events are kept.
    #[serde(default)]
    pub patch: Option<String>,
    /// The patch is not whole.
    #[serde(default)]
    pub patch_truncated: bool,
}

/// `GET turns/{id}/diff`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TurnDiffQuery {
    /// Repository; may be absent if the turn has only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// Only this file or folder, relative to the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What to compare with: the turn before (the clone, for the first) when absent, or the clone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub from: Option<TurnDiffFrom>,
}

/// What a turn is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TurnDiffFrom {
    /// The snapshot of the turn before; for the first one, what was cloned.
    #[default]
    Previous,
    /// What was cloned.
    Base,
}

/// `GET turns/{id}/file`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TurnFileQuery {
    /// Repository; may be absent if the turn has only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The file, relative to the repository.
    pub path: String,
}

/// Header of [`TurnFileQuery`]'s response: the file's mode, as git has it.
pub const FILE_MODE: &str = "x-file-mode";
