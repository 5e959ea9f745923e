//! What workflows and compute report. Never refused, idempotent.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    condition::{ConditionStatus, ConditionType},
    event::Event,
    interrupt::{self, InterruptOutcome, PermissionRequest, WAITING_FOR_ANSWER},
    playbook::ReconciledPlaybook,
    state::{Lifecycle, ReconciledRepo, RepoPosition, RepoProblem, Run, RunOutcome, Session},
};
use crate::{
    entity::{Context, Decision, NothingToDo},
    permission::{Answer, Permissions},
};

/// Reason of a `Ready` that is False because the runner is alive but does not answer.
pub const RUNNER_UNRESPONSIVE: &str = "RunnerUnresponsive";

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnOutcome {
    /// Successfully.
    Finished,
    /// With an error of the agent.
    Error,
    /// By an interrupt, or because the runner was lost.
    Interrupted,
}

/// An observation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// session-start has started.
    Provisioning,
    /// The runner answers.
    RunnerReady {
        /// Parts of the confinement that the kernel lacks; empty = confined.
        missing_confinement: Vec<String>,
    },
    /// The workspace is as wanted and the agent can work.
    MarkRunning,
    /// The runner ended with a record.
    Exited {
        /// Code.
        code: i32,
        /// In words.
        reason: String,
    },
    /// The runner ended without a record.
    RunnerLost {
        /// In words.
        reason: String,
    },
    /// The run cannot succeed.
    Fatal {
        /// Condition reason.
        reason: String,
        /// In words.
        message: String,
    },
    /// A turn ended.
    TurnEnded {
        /// Last message that was part of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_message_id: Option<String>,
        /// How.
        outcome: TurnOutcome,
    },
    /// A turn began.
    TurnStarted,
    /// Nothing of the run is left.
    TornDown {
        /// What was checked.
        evidence: Vec<String>,
        /// Messages of the run whose turn never began.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        not_run: Vec<String>,
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
        /// A run that is coming up is Running with it, as with `MarkRunning`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        marks_running: bool,
    },
    /// Repositories were checked at the end of a turn.
    ReposSeen {
        /// What is wrong, by directory.
        problems: BTreeMap<String, RepoProblem>,
        /// What is checked out, by directory, if known.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        positions: BTreeMap<String, RepoPosition>,
    },
    /// A generation cannot take effect at the moment.
    ReconcileFailed {
        /// Which.
        generation: i64,
        /// `RepoCloneFailed`, `WorkflowReconcileFailed`.
        reason: String,
        /// In words.
        message: String,
    },
    /// A condition was observed.
    Observed {
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
        /// What it waits for.
        blocked_on: String,
        /// Next try.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_retry_at: Option<DateTime<Utc>>,
        /// Workflow id.
        workflow_execution: String,
    },
    /// A step that a workflow was waiting for is done.
    Unblocked {
        /// The step; [`Fact::Blocked::blocked_on`] starts with it.
        step: String,
        /// Workflow id.
        workflow_execution: String,
    },
    /// The execution that should carry this phase is gone.
    WorkflowLost {
        /// Its workflow id.
        workflow_execution: String,
    },
    /// The agent asks, and waits.
    InterruptRaised {
        /// What.
        request: Box<PermissionRequest>,
    },
    /// A request is no longer open.
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
        /// Whether the runner has been launched with others, so that it has to be told.
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
    /// The agent's process is ready, and has or continues this conversation.
    AgentStarted {
        /// Its own id of the conversation.
        agent_session_id: String,
    },
}

/// Longest text of a fact, bytes.
const MAX_TEXT: usize = 8 * 1024;

impl Fact {
    /// The same, in a form that can be stored: text from runners, agents and the system may contain NUL, which PostgreSQL does not accept in
    /// text, and be of any length. A fact refused for one character would be reported forever.
    #[must_use]
    pub fn storable(mut self) -> Self {
        if let Self::ReposSeen { problems, positions } = &mut self {
            // No repository has such a name.
            let is_name = |name: &String| !name.contains('\0') && name.len() <= MAX_TEXT;
            problems.retain(|name, _| is_name(name));
            positions.retain(|name, _| is_name(name));
        }
        self.texts().into_iter().for_each(|text| {
            if text.contains('\0') {
                *text = text.replace('\0', "\u{fffd}");
            }
            text.truncate(text.floor_char_boundary(MAX_TEXT));
        });
        self
    }

    /// Every text in it. Without `..`: whoever adds a field decides here.
    fn texts(&mut self) -> Vec<&mut String> {
        match self {
            Self::Provisioning | Self::MarkRunning | Self::TurnStarted => Vec::new(),
            Self::RunnerReady { missing_confinement: texts } => texts.iter_mut().collect(),
            Self::TornDown { evidence, not_run } => evidence.iter_mut().chain(not_run).collect(),
            Self::Exited { code: _, reason } | Self::RunnerLost { reason } => vec![reason],
            Self::Fatal { reason, message }
            | Self::ReconcileFailed { generation: _, reason, message }
            | Self::Observed { condition_type: _, status: _, reason, message } => vec![reason, message],
            Self::TurnEnded { last_message_id, outcome: _ } => last_message_id.iter_mut().collect(),
            Self::Reconciled { generation: _, repos, playbook, marks_running: _ } => {
                // What was asked for was checked when it was given.
                let commit = playbook.iter_mut().map(|playbook| &mut playbook.commit);
                repos.iter_mut().flat_map(texts_of_repo).chain(commit).collect()
            }
            Self::ReposSeen { problems, positions } => {
                let positions =
                    positions.values_mut().flat_map(|position| position.branch.iter_mut().chain(&mut position.head));
                problems.values_mut().map(|problem| &mut problem.reason).chain(positions).collect()
            }
            Self::Blocked { reason, blocked_on, next_retry_at: _, workflow_execution } => {
                vec![reason, blocked_on, workflow_execution]
            }
            Self::Unblocked { step, workflow_execution } => vec![step, workflow_execution],
            Self::WorkflowLost { workflow_execution } => vec![workflow_execution],
            Self::AgentStarted { agent_session_id } => vec![agent_session_id],
            Self::InterruptRaised { request } => texts_of_request(request),
            Self::InterruptClosed { interrupt_id, outcome: _, answer: _ } => vec![interrupt_id],
            // People's, and checked when they were given.
            Self::PermissionsInherited { permissions: _, since_launch: _ }
            | Self::PermissionsInForce { changes: _ }
            | Self::SettingsTold { changes: _ } => Vec::new(),
        }
    }

    /// Name in the operation log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Provisioning => "fact_provisioning",
            Self::RunnerReady { .. } => "fact_runner_ready",
            Self::MarkRunning => "fact_mark_running",
            Self::Exited { .. } => "fact_exited",
            Self::RunnerLost { .. } => "fact_runner_lost",
            Self::Fatal { .. } => "fact_fatal",
            Self::TurnStarted => "fact_turn_started",
            Self::TurnEnded { .. } => "fact_turn_ended",
            Self::TornDown { .. } => "fact_torn_down",
            Self::Reconciled { .. } => "fact_reconciled",
            Self::ReposSeen { .. } => "fact_repos_seen",
            Self::ReconcileFailed { .. } => "fact_reconcile_failed",
            Self::Observed { .. } => "fact_observed",
            Self::Blocked { .. } => "fact_blocked",
            Self::Unblocked { .. } => "fact_unblocked",
            Self::WorkflowLost { .. } => "fact_workflow_lost",
            Self::InterruptRaised { .. } => "fact_interrupt_raised",
            Self::InterruptClosed { .. } => "fact_interrupt_closed",
            Self::PermissionsInherited { .. } => "fact_permissions_inherited",
            Self::PermissionsInForce { .. } => "fact_permissions_in_force",
            Self::SettingsTold { .. } => "fact_settings_told",
            Self::AgentStarted { .. } => "fact_agent_started",
        }
    }
}

fn texts_of_repo(repo: &mut ReconciledRepo) -> Vec<&mut String> {
    let ReconciledRepo { name, url, branch, head, cloned_at: _, notices, problem } = repo;
    let problem = problem.iter_mut().map(|problem| &mut problem.reason);
    [name, url].into_iter().chain(branch).chain(head).chain(notices).chain(problem).collect()
}

fn texts_of_request(request: &mut PermissionRequest) -> Vec<&mut String> {
    let PermissionRequest {
        interrupt_id,
        turn_id,
        tool_call_id,
        title,
        kind: _,
        command,
        paths,
        fingerprint,
        answers: _,
    } = request;
    [interrupt_id, turn_id, tool_call_id, title, fingerprint].into_iter().chain(command).chain(paths).collect()
}

const ALREADY: Decision<Event> = Decision::NothingToDo(NothingToDo::Already);
const SUPERSEDED: Decision<Event> = Decision::NothingToDo(NothingToDo::Superseded);

/// Decides a fact. Total: whatever is reported, the answer is events, "already so", or "you are out of date".
pub(super) fn decide_fact(
    session: &Session,
    run: i64,
    attempt: i32,
    fact: &Fact,
    context: &Context,
) -> Decision<Event> {
    let Some(current) = session.run() else { return SUPERSEDED };
    // A run is torn down as a whole, and requests are known by their ids; everything else is about one attempt (0 = the run).
    let of_the_run = matches!(fact, Fact::TornDown { .. } | Fact::InterruptClosed { .. });
    let attempt_matters = attempt != 0 && !of_the_run;
    if session.deleted_at.is_some() || run != current.number || (attempt_matters && attempt != current.attempt) {
        return SUPERSEDED;
    }
    match &session.lifecycle {
        Lifecycle::New => SUPERSEDED,
        Lifecycle::Pending { run } | Lifecycle::Creating { run } | Lifecycle::Running { run } => {
            while_active(session, run, fact, context)
        }
        Lifecycle::Stopping { .. } => while_stopping(session, fact),
        Lifecycle::Ended { .. } => after_the_end(session, fact),
    }
}

fn while_active(session: &Session, run: &Run, fact: &Fact, context: &Context) -> Decision<Event> {
    let creating = matches!(session.lifecycle, Lifecycle::Creating { .. });
    let running = matches!(session.lifecycle, Lifecycle::Running { .. });
    match fact {
        Fact::Provisioning if !creating && !running => one(Event::ProvisioningBegan),
        Fact::RunnerReady { missing_confinement } if creating && !is_started(session) => {
            one(Event::RunnerBecameReady { missing_confinement: missing_confinement.clone() })
        }
        Fact::MarkRunning if creating => one(Event::BecameRunning),
        Fact::Provisioning | Fact::RunnerReady { .. } | Fact::MarkRunning => ALREADY,
        Fact::Exited { code, reason } => one(Event::StopBegan { outcome: outcome_of_exit(*code, reason) }),
        Fact::RunnerLost { reason } => runner_lost(run, reason),
        Fact::Fatal { reason, message } => one(failed(reason, message, None)),
        Fact::TurnStarted
            if (creating || running) && !matches!(ready_reason(session), "Running" | WAITING_FOR_ANSWER) =>
        {
            one(Event::TurnStarted)
        }
        Fact::TurnStarted => ALREADY,
        Fact::TurnEnded { last_message_id, outcome } => turn_ended(session, run, last_message_id.as_deref(), *outcome),
        // Nothing can be torn down before it is stopping.
        Fact::TornDown { .. } => SUPERSEDED,
        Fact::Reconciled { generation, repos, playbook, marks_running } => {
            let became_running = (creating && *marks_running).then_some(Event::BecameRunning);
            let reconciled = reconciled(session, *generation, repos, playbook.as_ref());
            events_or_already(reconciled.into_iter().chain(became_running).collect())
        }
        Fact::ReposSeen { problems, positions } => repos_seen(session, problems, positions),
        Fact::ReconcileFailed { generation, reason, message } if *generation >= session.observed_generation => {
            observed(session, ConditionType::Reconciled, ConditionStatus::False, reason, message)
        }
        Fact::ReconcileFailed { .. } => ALREADY,
        // Cleared only by what it was about; a session that is coming up is not ready for other reasons.
        Fact::Observed { condition_type: ConditionType::Ready, reason, .. }
            if !running || (reason == RUNNER_UNRESPONSIVE) == (ready_reason(session) == RUNNER_UNRESPONSIVE) =>
        {
            ALREADY
        }
        Fact::Observed { condition_type, status, reason, message } => {
            observed(session, *condition_type, *status, reason, message)
        }
        Fact::Blocked { .. } => blocked(session, fact),
        Fact::Unblocked { step, workflow_execution } => unblocked(session, step, workflow_execution),
        Fact::WorkflowLost { workflow_execution } => {
            one(failed("WorkflowLost", &format!("execution {workflow_execution} is gone"), None))
        }
        Fact::InterruptRaised { request } if creating || running => interrupt::raised(session, request, context),
        // Nobody can ask before there is a runner.
        Fact::InterruptRaised { .. } => SUPERSEDED,
        Fact::InterruptClosed { interrupt_id, outcome, answer } => {
            interrupt::closed(session, interrupt_id, *outcome, *answer)
        }
        Fact::PermissionsInherited { permissions, .. } if *permissions == session.inherited_permissions => ALREADY,
        Fact::PermissionsInherited { permissions, since_launch } => {
            let (permissions, since_launch) = (permissions.clone(), *since_launch);
            one(Event::PermissionsInherited { permissions, since_launch })
        }
        Fact::PermissionsInForce { changes } if *changes > session.permissions_in_force => {
            one(Event::PermissionsInForce { changes: *changes })
        }
        Fact::PermissionsInForce { .. } => ALREADY,
        Fact::SettingsTold { changes } if *changes > session.settings_told => {
            one(Event::SettingsTold { changes: *changes })
        }
        Fact::SettingsTold { .. } => ALREADY,
        Fact::AgentStarted { agent_session_id } if session.agent_session_id.as_ref() == Some(agent_session_id) => {
            ALREADY
        }
        Fact::AgentStarted { agent_session_id } => {
            one(Event::AgentStarted { agent_session_id: agent_session_id.clone() })
        }
    }
}

fn while_stopping(session: &Session, fact: &Fact) -> Decision<Event> {
    match fact {
        Fact::TornDown { evidence, not_run } => {
            let not_run = (!not_run.is_empty()).then(|| Event::MessagesNotRun { message_ids: not_run.clone() });
            let ended = Event::Ended { evidence: evidence.clone(), proven: true };
            Decision::Events(not_run.into_iter().chain([ended]).collect())
        }
        // Reported with the end of the turn, which may have been inferred before from the end of its runner.
        Fact::ReposSeen { problems, positions } => repos_seen(session, problems, positions),
        Fact::InterruptClosed { interrupt_id, outcome, answer } => {
            interrupt::closed(session, interrupt_id, *outcome, *answer)
        }
        Fact::Blocked { .. } => blocked(session, fact),
        Fact::Unblocked { step, workflow_execution } => unblocked(session, step, workflow_execution),
        Fact::Observed { condition_type: ConditionType::StopIncomplete, status, reason, message } => {
            observed(session, ConditionType::StopIncomplete, *status, reason, message)
        }
        Fact::WorkflowLost { workflow_execution } if session.required_workflows().contains(workflow_execution) => {
            one(Event::WorkflowLost { workflow_execution: workflow_execution.clone() })
        }
        // Absorbed: the outcome is decided. Its reporter belongs to the run's past.
        _ => SUPERSEDED,
    }
}

fn after_the_end(session: &Session, fact: &Fact) -> Decision<Event> {
    match fact {
        // The proof that a forced stop did not wait for.
        Fact::TornDown { evidence, not_run: _ } => {
            observed(session, ConditionType::TornDown, ConditionStatus::True, "Proven", &evidence.join("; "))
        }
        Fact::ReposSeen { problems, positions } => repos_seen(session, problems, positions),
        _ => SUPERSEDED,
    }
}

fn events_or_already(events: Vec<Event>) -> Decision<Event> {
    if events.is_empty() { ALREADY } else { Decision::Events(events) }
}

fn one(event: Event) -> Decision<Event> {
    Decision::Events(vec![event])
}

fn failed(reason: &str, message: &str, exit_code: Option<i32>) -> Event {
    let outcome = RunOutcome::Failed { reason: reason.to_owned(), message: message.to_owned(), exit_code };
    Event::StopBegan { outcome }
}

fn outcome_of_exit(code: i32, reason: &str) -> RunOutcome {
    let failure =
        |name: &str| RunOutcome::Failed { reason: name.to_owned(), message: reason.to_owned(), exit_code: Some(code) };
    match code {
        0 => RunOutcome::Completed,
        2 => failure("PrerequisiteFailed"),
        _ => failure("RunnerExit"),
    }
}

fn runner_lost(run: &Run, reason: &str) -> Decision<Event> {
    if run.attempt < super::MAX_ATTEMPTS {
        one(Event::Restarted { attempt: run.attempt + 1, reason: reason.to_owned() })
    } else {
        one(failed("RunnerLost", &format!("{reason} (attempt {} of {})", run.attempt, super::MAX_ATTEMPTS), None))
    }
}

fn turn_ended(session: &Session, run: &Run, last: Option<&str>, outcome: TurnOutcome) -> Decision<Event> {
    let latest = run.last_message_id.as_deref() == last;
    match outcome {
        // A later message is waiting: the next turn runs.
        _ if !latest => ALREADY,
        TurnOutcome::Finished if session.spec.completes_with_turn() => {
            one(Event::StopBegan { outcome: RunOutcome::Completed })
        }
        TurnOutcome::Error if session.spec.interactive && session.spec.stop_on_run_finished => {
            one(failed("AgentError", "the agent ended its turn with an error", None))
        }
        // A batch runner exits with the agent's code, or runs the interrupted prompt again.
        TurnOutcome::Error | TurnOutcome::Interrupted if !session.spec.interactive => ALREADY,
        outcome => {
            let reason = if outcome == TurnOutcome::Error { "AgentError" } else { "Idle" };
            if ready_reason(session) == reason { ALREADY } else { one(Event::BecameIdle { reason: reason.to_owned() }) }
        }
    }
}

fn reconciled(
    session: &Session,
    generation: i64,
    repos: &[ReconciledRepo],
    playbook: Option<&ReconciledPlaybook>,
) -> Option<Event> {
    let in_force = session
        .condition(ConditionType::Reconciled)
        .is_some_and(|c| c.status == ConditionStatus::True && c.observed_generation == generation);
    // A new run shows anew what is in effect (`observed_generation` is 0 then), even if nothing else changed.
    let observed = session.observed_generation;
    let same = session.reconciled_repos == repos && session.reconciled_workflow.as_ref() == playbook;
    if generation < observed || (generation == observed && in_force && same) {
        return None;
    }
    Some(Event::Reconciled { generation, repos: repos.to_vec(), playbook: playbook.cloned() })
}

/// Nothing is reported about repositories that are no longer wanted, or not there yet.
fn repos_seen(
    session: &Session,
    problems: &BTreeMap<String, RepoProblem>,
    positions: &BTreeMap<String, RepoPosition>,
) -> Decision<Event> {
    let repos = || session.reconciled_repos.iter();
    let is_there = |repo: &ReconciledRepo| {
        positions.get(&repo.name).is_none_or(|at| at.branch == repo.branch && at.head == repo.head)
    };
    let mut events = Vec::new();
    if !repos().all(|repo| repo.problem.as_ref() == problems.get(&repo.name)) {
        events.push(Event::ReposSeen { problems: problems.clone() });
    }
    if !repos().all(is_there) {
        events.push(Event::ReposMoved { positions: positions.clone() });
    }
    events_or_already(events)
}

fn observed(
    session: &Session,
    condition_type: ConditionType,
    status: ConditionStatus,
    reason: &str,
    message: &str,
) -> Decision<Event> {
    let same = session
        .condition(condition_type)
        .is_some_and(|c| c.status == status && c.reason == reason && c.message == message);
    if same {
        return ALREADY;
    }
    one(Event::ConditionChanged { condition_type, status, reason: reason.to_owned(), message: message.to_owned() })
}

fn blocked(session: &Session, fact: &Fact) -> Decision<Event> {
    let Fact::Blocked { reason, blocked_on, next_retry_at, workflow_execution } = fact else { return ALREADY };
    let same = session
        .status_detail
        .as_ref()
        .is_some_and(|d| d.reason == *reason && d.blocked_on.as_ref() == Some(blocked_on));
    if same {
        return ALREADY;
    }
    one(Event::Blocked {
        reason: reason.clone(),
        blocked_on: blocked_on.clone(),
        next_retry_at: *next_retry_at,
        workflow_execution: workflow_execution.clone(),
    })
}

/// Only the step that is shown as the obstacle clears it.
fn unblocked(session: &Session, step: &str, workflow_execution: &str) -> Decision<Event> {
    let is_shown = session.status_detail.as_ref().is_some_and(|detail| {
        let rest = detail.blocked_on.as_deref().and_then(|blocked_on| blocked_on.strip_prefix(step));
        rest.is_some_and(|rest| rest.starts_with(':'))
            && detail.workflow_execution.as_deref() == Some(workflow_execution)
    });
    if is_shown { one(Event::Unblocked) } else { ALREADY }
}

fn is_started(session: &Session) -> bool {
    session.condition(ConditionType::RunnerStarted).is_some_and(|c| c.status == ConditionStatus::True)
}

fn ready_reason(session: &Session) -> &str {
    session.condition(ConditionType::Ready).map_or("", |c| c.reason.as_str())
}
