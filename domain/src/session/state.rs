//! What a session is.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    command::StopReason,
    condition::{Condition, ConditionStatus, ConditionType},
    interrupt::{ClosedInterrupt, Interrupt},
    playbook::ReconciledPlaybook,
    spec::Spec,
};
use crate::{
    agent_launch::{AgentLaunch, AgentSettings},
    permission::Permissions,
};

/// Phase of a session's life cycle. A session that was never started has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted, nothing done yet.
    Pending,
    /// Being provisioned, or restarted.
    Creating,
    /// The agent can work.
    Running,
    /// Being torn down; the outcome is decided.
    Stopping,
    /// Ended on request or by a clock.
    Stopped,
    /// Ended by itself, successfully.
    Completed,
    /// Ended by a failure.
    Failed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A start-to-stop cycle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// From 1.
    pub number: i64,
    /// Launch within the run, from 1.
    pub attempt: i32,
    /// When Start was accepted.
    pub started_at: DateTime<Utc>,
    /// When it first was Running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_at: Option<DateTime<Utc>>,
    /// Id of the last accepted message (the prompt included).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message_id: Option<String>,
    /// What its agent is started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Box<AgentLaunch>>,
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome")]
pub enum RunOutcome {
    /// By a person or a clock.
    Stopped {
        /// Which.
        reason: StopReason,
    },
    /// By itself.
    Completed,
    /// By a failure.
    Failed {
        /// Condition reason: `RunnerExit`, `RunnerLost`, …
        reason: String,
        /// In words.
        message: String,
        /// The runner's exit code, if it had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    },
}

impl RunOutcome {
    /// The phase it leads to.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Self::Stopped { .. } => Phase::Stopped,
            Self::Completed => Phase::Completed,
            Self::Failed { .. } => Phase::Failed,
        }
    }
    /// Condition reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Stopped { reason } => reason.as_str(),
            Self::Completed => "Completed",
            Self::Failed { reason, .. } => reason,
        }
    }
    /// In words.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Failed { message, .. } => message,
            _ => "",
        }
    }
}

/// The state proper: a run exists exactly where it must.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Lifecycle {
    /// Never started.
    New,
    /// Accepted.
    Pending {
        /// Current run.
        run: Run,
    },
    /// Provisioning.
    Creating {
        /// Current run.
        run: Run,
    },
    /// Working.
    Running {
        /// Current run.
        run: Run,
    },
    /// Tearing down.
    Stopping {
        /// Current run.
        run: Run,
        /// The decided outcome.
        outcome: RunOutcome,
        /// Execution of session-stop, from 1; more than 1 only after a lost one.
        stop_attempt: i32,
    },
    /// Over; proven.
    Ended {
        /// Last run.
        run: Run,
        /// Its outcome.
        outcome: RunOutcome,
    },
}

/// Why a session is not running, and what happens next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusDetail {
    /// Condition reason.
    pub reason: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// What it is waiting for, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_on: Option<String>,
    /// When the next attempt is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_at: Option<DateTime<Utc>>,
    /// Workflow id of the execution working on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_execution: Option<String>,
}

/// A repository as it is in the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconciledRepo {
    /// Directory.
    pub name: String,
    /// Origin.
    pub url: String,
    /// Checked-out branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Commit checked out when it was reconciled, or at the end of a turn since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// When it was cloned.
    pub cloned_at: DateTime<Utc>,
    /// Remarks, in words: it is empty, parts of it were not fetched, it cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// What was wrong with it at the end of the last turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<RepoProblem>,
}

/// What is checked out in a repository of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoPosition {
    /// Branch; none when detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Commit; none if there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
}

/// What is wrong with a repository in the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoProblem {
    /// Its directory is gone, or something else is in its place.
    pub missing: bool,
    /// In words.
    pub reason: String,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// KSUID.
    pub id: String,
    /// Project.
    pub project_id: String,
    /// Number of operations.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its last operation was decided.
    pub updated_at: DateTime<Utc>,
    /// When it was (softly) deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<DateTime<Utc>>,
    /// Creator.
    pub created_by: String,
    /// Desired state.
    pub spec: Spec,
    /// Version of the spec's declarative part, from 1.
    pub generation: i64,
    /// Generation that was reconciled.
    pub observed_generation: i64,
    /// State.
    pub lifecycle: Lifecycle,
    /// Conditions, one per type, ordered by type.
    pub conditions: Vec<Condition>,
    /// Why it is not running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_detail: Option<StatusDetail>,
    /// Repositories as they currently are.
    pub reconciled_repos: Vec<ReconciledRepo>,
    /// Playbook that its agent goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciled_workflow: Option<ReconciledPlaybook>,
    /// When the last run was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<DateTime<Utc>>,
    /// When the last run reached a terminal phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<DateTime<Utc>>,
    /// Number of restarts over all runs.
    pub restart_count: i64,
    /// Requests of the agent that are not closed, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interrupts: Vec<Interrupt>,
    /// The last requests of the run that are closed, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed_interrupts: Vec<ClosedInterrupt>,
    /// What agent and project said about permissions at the last launch.
    #[serde(default, skip_serializing_if = "Permissions::is_empty")]
    pub inherited_permissions: Permissions,
    /// Number of changes of the session's own permissions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub permission_changes: i64,
    /// Number of changes that the runner goes by.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub permissions_in_force: i64,
    /// Number of changes of the agent's settings: its mode, model and options.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub setting_changes: i64,
    /// Number of changes that the runner has been told of.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub settings_told: i64,
    /// The agent's own id of its conversation, as its newest process has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_session_id: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Session {
    /// Phase; none if never started.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        match &self.lifecycle {
            Lifecycle::New => None,
            Lifecycle::Pending { .. } => Some(Phase::Pending),
            Lifecycle::Creating { .. } => Some(Phase::Creating),
            Lifecycle::Running { .. } => Some(Phase::Running),
            Lifecycle::Stopping { .. } => Some(Phase::Stopping),
            Lifecycle::Ended { outcome, .. } => Some(outcome.phase()),
        }
    }

    /// Current or last run.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        match &self.lifecycle {
            Lifecycle::New => None,
            Lifecycle::Pending { run }
            | Lifecycle::Creating { run }
            | Lifecycle::Running { run }
            | Lifecycle::Stopping { run, .. }
            | Lifecycle::Ended { run, .. } => Some(run),
        }
    }

    /// Number of the current or last run; 0 if never started.
    #[must_use]
    pub fn run_number(&self) -> i64 {
        self.run().map_or(0, |run| run.number)
    }

    /// A run whose tokens are valid: Creating, Running or Stopping, and not deleted.
    #[must_use]
    pub fn run_with_valid_tokens(&self) -> Option<&Run> {
        match &self.lifecycle {
            _ if self.deleted_at.is_some() => None,
            Lifecycle::Creating { run } | Lifecycle::Running { run } | Lifecycle::Stopping { run, .. } => Some(run),
            _ => None,
        }
    }

    /// Workflow id of the execution that must be open (or about to be) in this phase.
    #[must_use]
    pub fn required_workflows(&self) -> Vec<String> {
        use super::workflow_id;
        if self.deleted_at.is_some() {
            return Vec::new();
        }
        match &self.lifecycle {
            Lifecycle::Pending { run } | Lifecycle::Creating { run } => vec![
                workflow_id::supervise(&self.id, run.number),
                workflow_id::start(&self.id, run.number, run.attempt),
            ],
            Lifecycle::Running { run } => vec![workflow_id::supervise(&self.id, run.number)],
            Lifecycle::Stopping { run, stop_attempt, .. } => {
                vec![workflow_id::stop(&self.id, run.number, *stop_attempt)]
            }
            Lifecycle::New | Lifecycle::Ended { .. } => Vec::new(),
        }
    }

    /// Requests that wait for a person.
    pub fn waiting_interrupts(&self) -> impl Iterator<Item = &Interrupt> {
        self.interrupts.iter().filter(|open| open.answer.is_none())
    }

    /// Requests whose answer is to be handed over.
    pub fn answered_interrupts(&self) -> impl Iterator<Item = &Interrupt> {
        self.interrupts.iter().filter(|open| open.answer.is_some())
    }

    /// How many requests people can answer now.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        if self.has_runner() { self.waiting_interrupts().count() } else { 0 }
    }

    /// What the agent may do without asking: what the session, its agent and its project say, in this order.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        Permissions::merged([&self.spec.permissions, &self.inherited_permissions])
    }

    /// Whether its runner has to be told something besides messages: answers, other permissions, other settings of the agent.
    #[must_use]
    pub fn runner_due(&self) -> bool {
        let other_permissions = self.permission_changes > self.permissions_in_force;
        let other_settings = self.setting_changes > self.settings_told;
        self.has_runner() && (other_permissions || other_settings || self.answered_interrupts().next().is_some())
    }

    /// Mode, model and options that the agent of the current run is to have: what the session says now, else what the run was started with.
    #[must_use]
    pub fn agent_settings(&self) -> AgentSettings {
        let launch = self.run().and_then(|run| run.agent.as_deref());
        let mode = self.spec.agent_mode.clone().or_else(|| launch.and_then(|launch| launch.mode.clone()));
        let model = self.spec.llm_model.clone().or_else(|| launch.and_then(|launch| launch.model.clone()));
        AgentSettings { mode, model, options: self.spec.agent_options.clone() }
    }

    /// A runner may be at work for a run that is not ending.
    #[must_use]
    pub fn has_runner(&self) -> bool {
        self.deleted_at.is_none() && matches!(self.lifecycle, Lifecycle::Creating { .. } | Lifecycle::Running { .. })
    }

    /// A condition.
    #[must_use]
    pub fn condition(&self, condition_type: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.condition_type == condition_type)
    }

    pub(super) fn set_condition(
        &mut self,
        condition_type: ConditionType,
        status: ConditionStatus,
        reason: &str,
        message: &str,
        at: DateTime<Utc>,
    ) {
        let observed_generation = self.generation;
        match self.conditions.iter_mut().find(|c| c.condition_type == condition_type) {
            Some(condition) => {
                if condition.status != status {
                    condition.last_transition_time = at;
                }
                condition.status = status;
                reason.clone_into(&mut condition.reason);
                message.clone_into(&mut condition.message);
                condition.observed_generation = observed_generation;
            }
            None => {
                self.conditions.push(Condition {
                    condition_type,
                    status,
                    reason: reason.to_owned(),
                    message: message.to_owned(),
                    last_transition_time: at,
                    observed_generation,
                });
                self.conditions.sort_by_key(|c| c.condition_type);
            }
        }
    }
}
