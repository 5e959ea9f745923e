//! How entities are shown on the wire. The only place that knows both the domain's types and the API's.

use ambient_compute::Resource;
use ambient_domain::{
    permission::Permissions,
    project::{Permission, Project, Role, Settings, SubjectType},
    retention::Retention,
    session::{self, AgentCommand, Session},
};
use ambient_live::permissions as as_runners_say;
use ambient_persistence::{Operation, RunRow, StoredEvent, Waiting};
use ambient_wire::{
    BASE, agui, interrupt, live, operation, permission as wire_permission, playbook as wire_playbook,
    project as wire_project, repo as wire_repo, session as wire,
};
use serde::Deserialize;

use crate::{mcp, model_rules};

/// A project.
pub(crate) fn project(project: &Project) -> wire_project::Project {
    wire_project::Project {
        kind: "Project".to_owned(),
        id: project.id.clone(),
        href: format!("{BASE}/projects/{}", project.id),
        created_at: project.created_at,
        updated_at: project.updated_at,
        version: project.version,
        name: project.name.clone(),
        display_name: project.spec.display_name.clone(),
        description: project.spec.description.clone(),
        prompt: project.spec.prompt.clone(),
        status: format!("{:?}", project.phase),
        provisioned: project.provisioned,
        labels: project.spec.labels.clone(),
        annotations: project.spec.annotations.clone(),
        environment_variable_names: project.spec.environment_variables.keys().cloned().collect(),
        settings: settings(&project.spec.settings),
    }
}

fn settings(settings: &Settings) -> wire_project::ProjectSettings {
    let Settings {
        llm_model,
        inactivity_timeout,
        permissions,
        agent_type,
        agent_command,
        mcp_servers,
        network,
        setup_script,
        retention: Retention { event_days, workspace_days, snapshot_days },
        models,
        model_budget,
    } = settings.clone();
    wire_project::ProjectSettings {
        llm_model,
        inactivity_timeout,
        permissions: shown(&permissions),
        agent_type,
        agent_command: agent_command.map(command),
        mcp_servers: mcp::shown(&mcp_servers),
        network: network.as_ref().map(ambient_workflows::network),
        setup_script,
        retention: ambient_wire::retention::Retention { event_days, workspace_days, snapshot_days },
        models: model_rules::shown(&models),
        model_budget: model_budget.map(model_rules::shown_budget),
    }
}

fn command(command: AgentCommand) -> ambient_wire::agent_type::AgentCommand {
    let AgentCommand { program, args, directory } = command;
    ambient_wire::agent_type::AgentCommand { program, args, directory }
}

/// A role in a project.
pub(crate) fn permission(permission: &Permission) -> wire_project::ProjectPermission {
    wire_project::ProjectPermission {
        subject_type: subject_type(permission.subject_type).to_owned(),
        subject_name: permission.subject_name.clone(),
        role: role(permission.role).to_owned(),
    }
}

/// Name of a role.
pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::View => "view",
        Role::Edit => "edit",
        Role::Admin => "admin",
    }
}

/// Name of a kind of subject.
pub(crate) fn subject_type(subject_type: SubjectType) -> &'static str {
    match subject_type {
        SubjectType::User => "user",
        SubjectType::Group => "group",
    }
}

/// A session. `last_seq` is known only if it was requested.
pub(crate) fn session(session: &Session, last_seq: Option<i64>) -> wire::Session {
    let spec = &session.spec;
    wire::Session {
        kind: "Session".to_owned(),
        id: session.id.clone(),
        href: format!("{BASE}/sessions/{}", session.id),
        created_at: session.created_at,
        updated_at: session.updated_at,
        version: session.version,
        project_id: session.project_id.clone(),
        name: spec.display_name.clone(),
        prompt: spec.prompt.clone(),
        repos: spec.repos.iter().map(repo).collect(),
        main_repo_index: spec.main_repo_index,
        active_workflow: spec.active_workflow.clone().map(playbook),
        agent_id: spec.agent_id.clone(),
        agent_type: spec.agent_type.clone(),
        agent_command: spec.agent_command.clone().map(command),
        agent_mode: spec.agent_mode.clone(),
        agent_options: spec.agent_options.clone(),
        mcp_servers: mcp::shown(&spec.mcp_servers),
        interactive: spec.interactive,
        stop_on_run_finished: spec.stop_on_run_finished,
        timeout: spec.timeout,
        inactivity_timeout: spec.inactivity_timeout,
        llm_model: spec.llm_model.clone(),
        llm_temperature: spec.llm_temperature,
        llm_max_tokens: spec.llm_max_tokens,
        resource_overrides: resources(&spec.resource_overrides),
        network: spec.network.as_ref().map(ambient_workflows::network),
        setup_script: spec.setup_script.clone(),
        environment_variable_names: spec.environment_variables.keys().cloned().collect(),
        models: model_rules::shown(&spec.models),
        permissions: shown(&spec.permissions),
        parent_session_id: spec.parent_session_id.clone(),
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
        created_by_user_id: session.created_by.clone(),
        phase: session.phase().map(|phase| phase.to_string()),
        run: session.run_number(),
        attempt: session.run().map_or(0, |run| run.attempt),
        sdk_restart_count: session.restart_count,
        sdk_session_id: session.agent_session_id.clone(),
        generation: session.generation,
        observed_generation: session.observed_generation,
        start_time: session.start_time,
        completion_time: session.completion_time,
        outcome: outcome(&session.lifecycle),
        conditions: session.conditions.iter().map(condition).collect(),
        status_detail: session.status_detail.as_ref().map(status_detail),
        reconciled_repos: session.reconciled_repos.iter().map(reconciled_repo).collect(),
        reconciled_workflow: session.reconciled_workflow.as_ref().map(reconciled_playbook),
        repo_statuses: None,
        results: None,
        error: None,
        last_seq,
        retention: None,
    }
}

/// Permissions as their owner wrote them.
fn shown(permissions: &Permissions) -> wire_permission::Permissions {
    let Permissions { rules, otherwise, timeout, repeat_answers } = permissions;
    wire_permission::Permissions {
        rules: rules.iter().map(as_runners_say::rule).collect(),
        otherwise: otherwise.map(as_runners_say::effect),
        timeout: *timeout,
        repeat_answers: *repeat_answers,
    }
}

/// A session's requests: open ones, the oldest first, then closed ones, the newest first.
pub(crate) fn interrupts(session: &Session) -> Vec<interrupt::Interrupt> {
    let open = session.interrupts.iter().map(|open| open_interrupt(&session.id, open));
    open.chain(session.closed_interrupts.iter().rev().map(|closed| closed_interrupt(&session.id, closed))).collect()
}

fn open_interrupt(session_id: &str, open: &session::Interrupt) -> interrupt::Interrupt {
    let session::PermissionRequest { interrupt_id, turn_id, tool_call_id, title, kind, command, paths, .. } =
        open.request.clone();
    interrupt::Interrupt {
        kind: "Interrupt".to_owned(),
        id: interrupt_id,
        session_id: session_id.to_owned(),
        status: match open.answer {
            Some(_) => interrupt::InterruptStatus::Answered,
            None => interrupt::InterruptStatus::Waiting,
        },
        outcome: None,
        title,
        tool: Some(as_runners_say::tool_kind(kind)),
        command,
        paths,
        tool_call_id: Some(tool_call_id),
        turn_id: Some(turn_id),
        answers: open.answers().into_iter().map(as_runners_say::answer).collect(),
        rule: open.rule().as_ref().map(as_runners_say::rule),
        raised_at: open.raised_at,
        closed_at: None,
        answer: open.answer.as_ref().map(given_answer),
        earlier_answer: open.earlier.as_ref().map(given_answer),
    }
}

fn closed_interrupt(session_id: &str, closed: &session::ClosedInterrupt) -> interrupt::Interrupt {
    interrupt::Interrupt {
        kind: "Interrupt".to_owned(),
        id: closed.interrupt_id.clone(),
        session_id: session_id.to_owned(),
        status: interrupt::InterruptStatus::Closed,
        outcome: Some(as_runners_say::outcome(closed.outcome)),
        title: closed.title.clone(),
        tool: None,
        command: None,
        paths: Vec::new(),
        tool_call_id: None,
        turn_id: None,
        answers: Vec::new(),
        rule: None,
        raised_at: closed.raised_at,
        closed_at: Some(closed.closed_at),
        answer: closed.answer.as_ref().map(given_answer),
        earlier_answer: None,
    }
}

fn given_answer(given: &session::GivenAnswer) -> interrupt::GivenAnswer {
    let session::GivenAnswer { answer, by, at, message: _, message_id } = given.clone();
    interrupt::GivenAnswer { answer: as_runners_say::answer(answer), by, at, message_id }
}

/// A request in the inbox.
pub(crate) fn inbox_item(waiting: &Waiting) -> interrupt::InboxItem {
    interrupt::InboxItem {
        kind: "InboxItem".to_owned(),
        project_id: waiting.project_id.clone(),
        project_name: waiting.project_name.clone(),
        session_id: waiting.session_id.clone(),
        session_name: waiting.session_name.clone(),
        interrupt: open_interrupt(&waiting.session_id, &waiting.interrupt),
    }
}

fn resources(limits: &session::ResourceOverrides) -> wire::ResourceOverrides {
    let session::ResourceOverrides { cpu, memory, processes, disk, open_files } = *limits;
    wire::ResourceOverrides {
        cpu: cpu.map(String::from),
        memory: memory.map(String::from),
        processes,
        disk: disk.map(String::from),
        open_files,
    }
}

fn repo(repo: &session::Repo) -> wire_repo::Repo {
    wire_repo::Repo {
        name: Some(repo.name.clone()),
        url: repo.url.clone(),
        branch: repo.branch.clone(),
        output: output(&repo.output),
        auto_push: repo.auto_push,
        submodules: submodules(repo.submodules),
    }
}

fn output(output: &session::RepoOutput) -> wire_repo::RepoOutput {
    let session::RepoOutput { push_to, target_repo, target_branch } = output.clone();
    let push_to = match push_to {
        session::PushTo::Same => wire_repo::PushTo::Same,
        session::PushTo::Fork => wire_repo::PushTo::Fork,
        session::PushTo::None => wire_repo::PushTo::None,
    };
    wire_repo::RepoOutput { push_to, target_repo, target_branch }
}

/// What the current or last run has come to so far, added to a session.
pub(crate) fn with_results(mut shown: wire::Session, run: RunRow) -> wire::Session {
    let RunRow { repo_statuses, results, error } = run;
    // Ordered by name. A status that cannot be read is one of a later release.
    let statuses = repo_statuses.as_object().into_iter().flat_map(serde_json::Map::values);
    shown.repo_statuses = Some(statuses.filter_map(|status| Deserialize::deserialize(status).ok()).collect());
    shown.results = results;
    let failed = shown.outcome.as_ref().filter(|outcome| outcome.phase == "Failed");
    shown.error = error.or_else(|| failed.map(|outcome| format!("{}: {}", outcome.reason, outcome.message)));
    shown
}

fn submodules(which: session::Submodules) -> ambient_wire::git::Submodules {
    use ambient_wire::git::Submodules;
    match which {
        session::Submodules::None => Submodules::None,
        session::Submodules::Shallow => Submodules::Shallow,
        session::Submodules::Recursive => Submodules::Recursive,
    }
}

fn outcome(lifecycle: &session::Lifecycle) -> Option<wire::SessionOutcome> {
    use session::{Lifecycle, RunOutcome};
    let (Lifecycle::Stopping { outcome, .. } | Lifecycle::Ended { outcome, .. }) = lifecycle else { return None };
    Some(wire::SessionOutcome {
        phase: outcome.phase().to_string(),
        reason: outcome.reason().to_owned(),
        message: outcome.message().to_owned(),
        exit_code: match outcome {
            RunOutcome::Failed { exit_code, .. } => *exit_code,
            RunOutcome::Completed | RunOutcome::Stopped { .. } => None,
        },
    })
}

fn condition(condition: &session::Condition) -> wire::Condition {
    wire::Condition {
        condition_type: format!("{:?}", condition.condition_type),
        status: format!("{:?}", condition.status),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        last_transition_time: condition.last_transition_time,
        observed_generation: condition.observed_generation,
    }
}

fn status_detail(detail: &session::StatusDetail) -> wire::StatusDetail {
    let session::StatusDetail { reason, since, blocked_on, next_retry_at, workflow_execution } = detail.clone();
    wire::StatusDetail { reason, since, blocked_on, next_retry_at, workflow_execution }
}

fn playbook(playbook: session::Playbook) -> wire_playbook::Playbook {
    let session::Playbook { git_url, branch, path } = playbook;
    wire_playbook::Playbook { git_url, branch, path }
}

fn reconciled_playbook(reconciled: &session::ReconciledPlaybook) -> wire_playbook::ReconciledPlaybook {
    let session::ReconciledPlaybook { playbook, commit, reconciled_at } = reconciled.clone();
    let session::Playbook { git_url, branch, path } = playbook;
    wire_playbook::ReconciledPlaybook { git_url, branch, path, commit, reconciled_at }
}

fn reconciled_repo(repo: &session::ReconciledRepo) -> wire::ReconciledRepo {
    let notices = notices(repo);
    let session::ReconciledRepo { name, url, branch, head, cloned_at, .. } = repo.clone();
    wire::ReconciledRepo { name, url, branch, head, cloned_at, notices }
}

/// Remarks on a repository, the most serious first.
fn notices(repo: &session::ReconciledRepo) -> Vec<String> {
    let problem = repo.problem.iter().map(|problem| &problem.reason);
    problem.chain(&repo.notices).cloned().collect()
}

/// The states of a session's repository.
pub(crate) const REPO_STATUSES: [&str; 5] = [WANTED, RECONCILED, MISSING, BROKEN, REMOVING];
const WANTED: &str = "Wanted";
const RECONCILED: &str = "Reconciled";
const MISSING: &str = "Missing";
const BROKEN: &str = "Broken";
const REMOVING: &str = "Removing";

/// A wanted repository's state, in one word.
fn standing_of(repo: &session::ReconciledRepo) -> &'static str {
    match &repo.problem {
        None => RECONCILED,
        Some(problem) if problem.missing => MISSING,
        Some(_) => BROKEN,
    }
}

/// A session's repositories: what is wanted, and their state; without a workspace there are none yet.
pub(crate) fn session_repos(session: &Session, has_workspace: bool) -> Vec<wire::SessionRepo> {
    let reconciled = if has_workspace { session.reconciled_repos.as_slice() } else { &[] };
    let standing = |name: &str| reconciled.iter().find(|repo| repo.name == name);
    let wanted = session.spec.repos.iter().map(|repo| {
        let there = standing(&repo.name).filter(|there| there.url == repo.url);
        wire::SessionRepo {
            name: repo.name.clone(),
            url: repo.url.clone(),
            branch: there.and_then(|there| there.branch.clone()).or_else(|| repo.branch.clone()),
            status: there.map_or(WANTED, standing_of).to_owned(),
            head: there.and_then(|there| there.head.clone()),
            cloned_at: there.map(|there| there.cloned_at),
            notices: there.map(notices).unwrap_or_default(),
        }
    });
    let unwanted = reconciled.iter().filter(|there| !session.spec.repos.iter().any(|r| r.name == there.name));
    let removing = unwanted.map(|there| wire::SessionRepo {
        name: there.name.clone(),
        url: there.url.clone(),
        branch: there.branch.clone(),
        status: REMOVING.to_owned(),
        head: there.head.clone(),
        cloned_at: Some(there.cloned_at),
        notices: notices(there),
    });
    wanted.chain(removing).collect()
}

/// An event of a live log.
pub(crate) fn event(event: StoredEvent) -> live::Event {
    live::Event { seq: event.seq, event_type: event.event_type, data: event.data, at: event.at }
}

/// What a session's agent can do, in AG-UI's words.
pub(crate) fn agui_capabilities(session: &Session) -> agui::AgentCapabilities {
    agui::AgentCapabilities {
        identity: agui::IdentityCapabilities {
            name: session.spec.display_name.clone(),
            agent_type: session.spec.agent_type.clone(),
            provider: "ambient".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        transport: agui::TransportCapabilities { streaming: true, resumable: true },
        tools: agui::ToolsCapabilities { supported: true, client_provided: false },
        state: agui::StateCapabilities { snapshots: false, deltas: false, memory: true },
        reasoning: agui::ReasoningCapabilities { supported: true, streaming: true },
        execution: agui::ExecutionCapabilities { code_execution: true, sandboxed: true },
        human_in_the_loop: agui::HumanInTheLoopCapabilities {
            supported: true,
            approvals: true,
            interrupts: true,
            approve_with_edits: false,
        },
    }
}

/// A compute resource.
pub(crate) fn resource(resource: Resource) -> wire::SessionResource {
    let Resource { kind, name, status, detail } = resource;
    wire::SessionResource { kind, name, status, detail }
}

/// An operation.
pub(crate) fn operation(operation: Operation) -> operation::Operation {
    operation::Operation {
        kind: "Operation".to_owned(),
        href: format!("{BASE}/operations/{}", operation.id),
        id: operation.id,
        entity_kind: operation.entity_kind,
        entity_id: operation.entity_id,
        version: operation.version,
        project_id: operation.project_id,
        command: operation.command,
        schema_version: operation.schema_version,
        input: operation.input,
        events: operation.events,
        context: operation.context,
        principal: operation.principal,
        correlation_id: operation.correlation_id,
        causation_id: operation.causation_id,
        occurred_at: operation.occurred_at,
        hash: operation.hash,
    }
}
