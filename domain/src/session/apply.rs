//! Events -> state. Total and deterministic; `at` is the operation's time.

use chrono::{DateTime, Utc};

use super::{
    condition::{ConditionStatus, ConditionType},
    event::Event,
    interrupt,
    playbook::{PLAYBOOK_FAILED, ReconciledPlaybook},
    spec::Spec,
    state::{Lifecycle, Phase, ReconciledRepo, Run, RunOutcome, Session, StatusDetail},
    workflow_id,
};
use crate::{agent_launch::AgentLaunch, permission::Permissions};

use ConditionStatus::{False, True, Unknown};
use ConditionType::{
    Confined, Ready, Reconciled, ReposReconciled, RunnerCreated, RunnerScheduled, RunnerStarted, SecretsReady,
    StopIncomplete, TornDown, WorkflowReconciled, WorkspaceReady,
};

/// Conditions that belong to one run, not to the session.
const OF_THE_RUN: [ConditionType; 7] =
    [SecretsReady, RunnerCreated, RunnerScheduled, RunnerStarted, Confined, TornDown, StopIncomplete];

pub(super) fn created(id: &str, project_id: &str, by: &str, spec: &Spec, at: DateTime<Utc>) -> Session {
    Session {
        id: id.to_owned(),
        project_id: project_id.to_owned(),
        version: 0,
        created_at: at,
        updated_at: at,
        deleted_at: None,
        created_by: by.to_owned(),
        spec: spec.clone(),
        generation: 1,
        observed_generation: 0,
        lifecycle: Lifecycle::New,
        conditions: Vec::new(),
        status_detail: None,
        reconciled_repos: Vec::new(),
        reconciled_workflow: None,
        start_time: None,
        completion_time: None,
        restart_count: 0,
        interrupts: Vec::new(),
        closed_interrupts: Vec::new(),
        inherited_permissions: Permissions::default(),
        permission_changes: 0,
        permissions_in_force: 0,
        setting_changes: 0,
        settings_told: 0,
        agent_session_id: None,
    }
}

pub(super) fn apply(s: &mut Session, event: &Event, at: DateTime<Utc>) {
    change(s, event, at);
    interrupt::show_waiting(s, at);
}

fn change(s: &mut Session, event: &Event, at: DateTime<Utc>) {
    match event {
        Event::Created { .. } => {}
        Event::SpecChanged { spec, declarative } => {
            if s.spec.permissions != spec.permissions {
                s.permission_changes += 1;
            }
            let settings = |spec: &Spec| (spec.agent_mode.clone(), spec.llm_model.clone(), spec.agent_options.clone());
            // Without a runner there is nobody to tell: a launch goes by what is said then.
            if s.has_runner() && settings(&s.spec) != settings(spec) {
                s.setting_changes += 1;
            }
            s.spec = (**spec).clone();
            if *declarative {
                s.generation += 1;
            }
        }
        Event::Started { run, agent } => started(s, *run, agent.clone(), at),
        Event::MessageAccepted { message_id, .. } => {
            if let Some(run) = run_mut(s) {
                run.last_message_id = Some(message_id.clone());
            }
        }
        Event::ProvisioningBegan => {
            move_on(s, |run| Lifecycle::Creating { run });
            s.set_condition(Ready, False, "Creating", "", at);
            detail(s, "Creating", at);
        }
        Event::RunnerBecameReady { missing_confinement } => runner_ready(s, missing_confinement, at),
        Event::BecameRunning => running(s, at),
        Event::Restarted { attempt, reason } => restarted(s, *attempt, reason, at),
        Event::TurnStarted => working(s, "Running", at),
        Event::BecameIdle { reason } => working(s, reason, at),
        Event::StopBegan { outcome } => stop_began(s, outcome, at),
        Event::Ended { evidence, proven } => ended(s, evidence, *proven, at),
        Event::Reconciled { generation, repos, playbook } => {
            s.observed_generation = s.observed_generation.max(*generation);
            s.reconciled_repos.clone_from(repos);
            repos_seen(s, at);
            playbook_seen(s, playbook.as_ref(), at);
            s.set_condition(Reconciled, True, "Reconciled", "", at);
            if let Some(condition) = s.conditions.iter_mut().find(|c| c.condition_type == Reconciled) {
                condition.observed_generation = *generation;
            }
        }
        Event::ReposSeen { problems } => {
            for repo in &mut s.reconciled_repos {
                repo.problem = problems.get(&repo.name).cloned();
            }
            repos_seen(s, at);
        }
        Event::ReposMoved { positions } => {
            for repo in &mut s.reconciled_repos {
                if let Some(position) = positions.get(&repo.name) {
                    (repo.branch, repo.head) = (position.branch.clone(), position.head.clone());
                }
            }
        }
        Event::ConditionChanged { condition_type, status, reason, message } => {
            s.set_condition(*condition_type, *status, reason, message, at);
            if *condition_type == Reconciled && *status == False {
                let which = if reason == PLAYBOOK_FAILED { WorkflowReconciled } else { ReposReconciled };
                s.set_condition(which, False, reason, message, at);
            }
        }
        Event::Blocked { reason, blocked_on, next_retry_at, workflow_execution } => {
            let since = s.status_detail.as_ref().filter(|d| d.reason == *reason).map_or(at, |d| d.since);
            s.status_detail = Some(StatusDetail {
                reason: reason.clone(),
                since,
                blocked_on: Some(blocked_on.clone()),
                next_retry_at: *next_retry_at,
                workflow_execution: Some(workflow_execution.clone()),
            });
        }
        Event::Unblocked => match s.phase() {
            Some(phase @ (Phase::Pending | Phase::Creating | Phase::Stopping)) => detail(s, &phase.to_string(), at),
            _ => s.status_detail = None,
        },
        Event::WorkflowLost { .. } => {
            if let Lifecycle::Stopping { stop_attempt, .. } = &mut s.lifecycle {
                *stop_attempt += 1;
            }
            detail(s, "WorkflowLost", at);
        }
        // Told in the log; the session itself keeps no messages.
        Event::MessagesNotRun { .. } | Event::FeedbackGiven { .. } => {}
        Event::InterruptRaised { request, earlier } => interrupt::apply_raised(s, request, earlier.as_ref(), at),
        Event::InterruptAnswered { interrupt_id, given, rule, repeated: _ } => {
            interrupt::apply_answered(s, interrupt_id, given, rule.as_ref());
        }
        Event::InterruptClosed { interrupt_id, outcome, answer: _ } => {
            interrupt::apply_closed(s, interrupt_id, *outcome, at);
        }
        Event::PermissionsInherited { permissions, since_launch } => {
            s.inherited_permissions = permissions.clone();
            s.permission_changes += i64::from(*since_launch);
        }
        Event::PermissionsInForce { changes } => s.permissions_in_force = *changes,
        Event::SettingsTold { changes } => s.settings_told = *changes,
        Event::AgentStarted { agent_session_id } => s.agent_session_id = Some(agent_session_id.clone()),
        Event::Deleted => s.deleted_at = Some(at),
    }
}

/// A session that goes by none has no condition about it.
fn playbook_seen(s: &mut Session, playbook: Option<&ReconciledPlaybook>, at: DateTime<Utc>) {
    s.reconciled_workflow = playbook.cloned();
    match playbook {
        Some(_) => s.set_condition(WorkflowReconciled, True, "Reconciled", "", at),
        None => s.conditions.retain(|condition| condition.condition_type != WorkflowReconciled),
    }
}

/// The condition, derived from the repositories.
fn repos_seen(s: &mut Session, at: DateTime<Utc>) {
    let told = |of: fn(&ReconciledRepo) -> Vec<String>| {
        let lines =
            s.reconciled_repos.iter().flat_map(|repo| of(repo).into_iter().map(|n| format!("{}: {n}", repo.name)));
        lines.collect::<Vec<_>>().join("; ")
    };
    let problems = told(|repo| repo.problem.iter().map(|problem| problem.reason.clone()).collect());
    if problems.is_empty() {
        let notices = told(|repo| repo.notices.clone());
        return s.set_condition(ReposReconciled, True, "Reconciled", &notices, at);
    }
    let missing = s.reconciled_repos.iter().any(|repo| repo.problem.as_ref().is_some_and(|problem| problem.missing));
    s.set_condition(ReposReconciled, False, if missing { "RepoMissing" } else { "RepoBroken" }, &problems, at);
}

fn run_mut(s: &mut Session) -> Option<&mut Run> {
    match &mut s.lifecycle {
        Lifecycle::New => None,
        Lifecycle::Pending { run }
        | Lifecycle::Creating { run }
        | Lifecycle::Running { run }
        | Lifecycle::Stopping { run, .. }
        | Lifecycle::Ended { run, .. } => Some(run),
    }
}

fn move_on(s: &mut Session, to: impl FnOnce(Run) -> Lifecycle) {
    if let Some(run) = s.run().cloned() {
        s.lifecycle = to(run);
    }
}

/// Why it is not running, and which execution works on it.
fn detail(s: &mut Session, reason: &str, at: DateTime<Utc>) {
    let workflow_execution = match &s.lifecycle {
        Lifecycle::Pending { run } | Lifecycle::Creating { run } => {
            Some(workflow_id::start(&s.id, run.number, run.attempt))
        }
        Lifecycle::Stopping { run, stop_attempt, .. } => Some(workflow_id::stop(&s.id, run.number, *stop_attempt)),
        _ => None,
    };
    s.status_detail = Some(StatusDetail {
        reason: reason.to_owned(),
        since: at,
        blocked_on: None,
        next_retry_at: None,
        workflow_execution,
    });
}

fn started(s: &mut Session, number: i64, agent: Option<Box<AgentLaunch>>, at: DateTime<Utc>) {
    let run = Run { number, attempt: 1, started_at: at, running_at: None, last_message_id: None, agent };
    s.lifecycle = Lifecycle::Pending { run };
    s.start_time = Some(at);
    s.completion_time = None;
    // The workspace outlives runs, but each run must show anew what is in effect.
    s.observed_generation = 0;
    s.interrupts.clear();
    s.closed_interrupts.clear();
    // Its launch goes by the permissions and settings as they are then.
    s.permissions_in_force = s.permission_changes;
    s.settings_told = s.setting_changes;
    s.conditions.retain(|c| !OF_THE_RUN.contains(&c.condition_type));
    s.set_condition(Ready, False, "Pending", "", at);
    detail(s, "Pending", at);
}

fn runner_ready(s: &mut Session, missing: &[String], at: DateTime<Utc>) {
    s.set_condition(RunnerStarted, True, "RunnerReady", "", at);
    if missing.is_empty() {
        s.set_condition(Confined, True, "Confined", "", at);
    } else {
        s.set_condition(Confined, False, "KernelLacks", &missing.join("; "), at);
    }
}

fn running(s: &mut Session, at: DateTime<Utc>) {
    move_on(s, |run| Lifecycle::Running { run: Run { running_at: run.running_at.or(Some(at)), ..run } });
    s.set_condition(WorkspaceReady, True, "Ready", "", at);
    let reason = reason_when_running(s).to_owned();
    s.set_condition(Ready, True, &reason, "", at);
    s.status_detail = None;
}

/// What the agent is doing. A runner that came back may report it before the session is Running again.
fn working(s: &mut Session, reason: &str, at: DateTime<Utc>) {
    let status = if matches!(s.lifecycle, Lifecycle::Running { .. }) { True } else { False };
    s.set_condition(Ready, status, reason, "", at);
}

/// What the runner has reported in this attempt. Otherwise a first attempt has its prompt ahead of it, and a later one of a chat waits for
/// its user until a turn starts.
fn reason_when_running(s: &Session) -> &str {
    let told = s.condition(Ready).map(|condition| condition.reason.as_str());
    let waits = s.run().is_some_and(|run| run.last_message_id.is_none() || (s.spec.interactive && run.attempt > 1));
    match told {
        Some(told @ ("Idle" | "AgentError" | "Running")) => told,
        _ if waits => "Idle",
        _ => "Running",
    }
}

fn restarted(s: &mut Session, attempt: i32, reason: &str, at: DateTime<Utc>) {
    move_on(s, |run| Lifecycle::Creating { run: Run { attempt, ..run } });
    s.restart_count += 1;
    s.set_condition(RunnerStarted, False, "RunnerLost", reason, at);
    s.set_condition(Ready, False, "Restarting", reason, at);
    detail(s, "Restarting", at);
}

fn stop_began(s: &mut Session, outcome: &RunOutcome, at: DateTime<Utc>) {
    move_on(s, |run| Lifecycle::Stopping { run, outcome: outcome.clone(), stop_attempt: 1 });
    s.set_condition(Ready, False, "Stopping", outcome.reason(), at);
    s.set_condition(TornDown, False, "Stopping", "", at);
    detail(s, "Stopping", at);
}

fn ended(s: &mut Session, evidence: &[String], proven: bool, at: DateTime<Utc>) {
    let Lifecycle::Stopping { run, outcome, .. } = s.lifecycle.clone() else { return };
    s.set_condition(Ready, False, outcome.reason(), outcome.message(), at);
    if proven {
        s.set_condition(TornDown, True, "Proven", &evidence.join("; "), at);
        s.conditions.retain(|c| c.condition_type != StopIncomplete);
    } else {
        s.set_condition(TornDown, Unknown, "Forced", "stopped by force, before the proof", at);
    }
    if s.condition(RunnerStarted).is_some() {
        s.set_condition(RunnerStarted, False, outcome.reason(), "", at);
    }
    s.completion_time = Some(at);
    let reason = outcome.reason().to_owned();
    s.lifecycle = Lifecycle::Ended { run, outcome };
    detail(s, &reason, at);
}
