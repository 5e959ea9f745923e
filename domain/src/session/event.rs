//! Events of a session.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    command::Message,
    condition::{ConditionStatus, ConditionType},
    feedback::Feedback,
    interrupt::{GivenAnswer, InterruptOutcome, PermissionRequest},
    playbook::ReconciledPlaybook,
    spec::Spec,
    state::{ReconciledRepo, RepoPosition, RepoProblem, RunOutcome},
};
use crate::{
    agent_launch::AgentLaunch,
    permission::{Answer, PermissionRule, Permissions},
};

/// An event. Stored forever: new shapes are new variants or optional fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It was created.
    Created {
        /// Id.
        session_id: String,
        /// Project.
        project_id: String,
        /// Creator.
        created_by: String,
        /// Desired state.
        spec: Box<Spec>,
    },
    /// The spec is now this.
    SpecChanged {
        /// All of it.
        spec: Box<Spec>,
        /// Whether the declarative part (repos, playbook) changed.
        declarative: bool,
    },
    /// A run was accepted.
    Started {
        /// Its number.
        run: i64,
        /// What its agent is started with; absent in runs of earlier releases, which knew `script` only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Box<AgentLaunch>>,
    },
    /// A message was accepted.
    MessageAccepted {
        /// Run it belongs to.
        run: i64,
        /// Unique.
        message_id: String,
        /// Message without its text.
        message: Message,
        /// The run's first message.
        is_prompt: bool,
    },
    /// session-start has started.
    ProvisioningBegan,
    /// The runner answers.
    RunnerBecameReady {
        /// Parts of the confinement that the kernel lacks.
        missing_confinement: Vec<String>,
    },
    /// The agent can work.
    BecameRunning,
    /// The runner was lost and is being launched again.
    Restarted {
        /// The new attempt.
        attempt: i32,
        /// Why.
        reason: String,
    },
    /// A turn began.
    TurnStarted,
    /// A turn ended and the session stays.
    BecameIdle {
        /// `Idle` or `AgentError`.
        reason: String,
    },
    /// The run is ending; its outcome is decided.
    StopBegan {
        /// How it ends.
        outcome: RunOutcome,
    },
    /// The run ends without the turns of these messages; they are not run later either.
    MessagesNotRun {
        /// Their ids.
        message_ids: Vec<String>,
    },
    /// The run is over.
    Ended {
        /// What was checked; empty if forced.
        evidence: Vec<String>,
        /// Whether absence is proven.
        proven: bool,
    },
    /// A generation took effect.
    Reconciled {
        /// Which.
        generation: i64,
        /// Repositories as they currently are.
        repos: Vec<ReconciledRepo>,
        /// The playbook, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        playbook: Option<ReconciledPlaybook>,
    },
    /// Repositories were checked at the end of a turn.
    ReposSeen {
        /// What is wrong, by directory.
        problems: BTreeMap<String, RepoProblem>,
    },
    /// Different commits are checked out in repositories.
    ReposMoved {
        /// What, by directory.
        positions: BTreeMap<String, RepoPosition>,
    },
    /// A condition was observed.
    ConditionChanged {
        /// About.
        condition_type: ConditionType,
        /// Truth value.
        status: ConditionStatus,
        /// One word.
        reason: String,
        /// In words.
        message: String,
    },
    /// A workflow is waiting.
    Blocked {
        /// Condition reason.
        reason: String,
        /// What for.
        blocked_on: String,
        /// Next try.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_retry_at: Option<DateTime<Utc>>,
        /// Workflow id.
        workflow_execution: String,
    },
    /// It is no longer waiting.
    Unblocked,
    /// The execution of this phase was lost; teardown takes over or is restarted.
    WorkflowLost {
        /// Its workflow id.
        workflow_execution: String,
    },
    /// The agent asks, and waits.
    InterruptRaised {
        /// What.
        request: Box<PermissionRequest>,
        /// The lost answer to the same request of an earlier attempt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        earlier: Option<GivenAnswer>,
    },
    /// A request was answered; the answer is to be handed over.
    InterruptAnswered {
        /// The request.
        interrupt_id: String,
        /// The answer.
        given: GivenAnswer,
        /// Rule that is now in front of the session's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<PermissionRule>,
        /// It is an earlier answer that was lost.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        repeated: bool,
    },
    /// A request is no longer open, or a closed one has ended otherwise than was thought.
    InterruptClosed {
        /// The request.
        interrupt_id: String,
        /// How it ended.
        outcome: InterruptOutcome,
        /// The answer that the agent was given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Answer>,
    },
    /// What agent and project say about permissions.
    PermissionsInherited {
        /// All of it.
        permissions: Permissions,
        /// Whether the runner was launched with others.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        since_launch: bool,
    },
    /// The runner goes by permissions as they were after so many changes.
    PermissionsInForce {
        /// Changes.
        changes: i64,
    },
    /// The runner has been told the agent's settings as they were after so many changes.
    SettingsTold {
        /// Changes.
        changes: i64,
    },
    /// The agent has or continues a conversation.
    AgentStarted {
        /// Its own id of it.
        agent_session_id: String,
    },
    /// A person has said what they think of what the agent says or does.
    FeedbackGiven {
        /// What they think.
        feedback: Feedback,
        /// Who.
        by: String,
    },
    /// Deleted.
    Deleted,
}
