//! Decisions on people's commands; facts are in `fact.rs` next door (`decide_fact`).

use std::cmp::Ordering;

use super::{
    attachment,
    command::{Command, Message, SessionPatch, StopReason},
    event::Event,
    fact, interrupt,
    output::Repo,
    spec::Spec,
    state::{Lifecycle, Phase, Run, RunOutcome, Session},
};
use crate::{
    entity::{Context, Decision, NothingToDo, Refusal, RefusalCode},
    patch::merge,
};

pub(super) type Decided = Result<Decision<Event>, Refusal>;

const ALREADY: Decision<Event> = Decision::NothingToDo(NothingToDo::Already);

pub(super) fn decide(state: Option<&Session>, command: &Command, context: &Context) -> Decided {
    decide_any(state, command, context).map(|decision| interrupt::closed_with_their_attempt(state, decision))
}

fn decide_any(state: Option<&Session>, command: &Command, context: &Context) -> Decided {
    match (state, command) {
        (None, Command::Create { session_id, project_id, spec, start }) => {
            create(session_id, project_id, spec, *start, context)
        }
        (Some(_), Command::Create { .. }) => Err(Refusal::new(RefusalCode::Conflict, "this Session already exists")),
        (None, Command::Fact { .. }) => Ok(Decision::NothingToDo(NothingToDo::Superseded)),
        (None, _) => Err(Refusal::new(RefusalCode::NotFound, "Session not found")),
        (Some(session), Command::Fact { run, attempt, fact }) => {
            Ok(fact::decide_fact(session, *run, *attempt, fact, context))
        }
        (Some(session), Command::Delete) if session.deleted_at.is_some() => Ok(ALREADY),
        (Some(session), _) if session.deleted_at.is_some() => {
            Err(Refusal::new(RefusalCode::NotFound, "Session not found"))
        }
        (Some(session), command) => decide_live(session, command, context),
    }
}

fn decide_live(session: &Session, command: &Command, context: &Context) -> Decided {
    match command {
        Command::Patch(patch) => change_spec(session, patched(session, patch)?),
        Command::AddRepo(repo) => change_spec(session, with_repo(&session.spec, repo)?),
        Command::RemoveRepo { name } => change_spec(session, without_repo(&session.spec, name)?),
        Command::Start { prompt } => start(session, prompt.as_ref(), context),
        Command::Stop { reason, run, force, .. } => stop(session, *reason, *run, *force),
        Command::Delete => Ok(Decision::Events(vec![Event::Deleted])),
        Command::SendMessage { message, start } => send_message(session, message, *start, context),
        Command::AnswerInterrupt { interrupt_id, answer, message } => {
            interrupt::answer(session, interrupt_id, *answer, message.as_ref(), context)
        }
        Command::GiveFeedback(feedback) => {
            feedback.validate()?;
            let (feedback, by) = (feedback.clone(), context.principal.clone());
            Ok(Decision::Events(vec![Event::FeedbackGiven { feedback, by }]))
        }
        // handled by `decide_any`
        Command::Create { .. } | Command::Fact { .. } => Ok(ALREADY),
    }
}

fn create(session_id: &str, project_id: &str, spec: &Spec, start: bool, context: &Context) -> Decided {
    spec.validate()?;
    let mut events = vec![Event::Created {
        session_id: session_id.to_owned(),
        project_id: project_id.to_owned(),
        created_by: context.principal.clone(),
        spec: Box::new(spec.clone()),
    }];
    if start {
        events.extend(run_begins(session_id, 1, spec, None, context));
    }
    Ok(Decision::Events(events))
}

/// A run with its first message: the given one, else the spec's prompt, else none.
fn run_begins(session_id: &str, run: i64, spec: &Spec, prompt: Option<&Message>, context: &Context) -> Vec<Event> {
    let mut events = vec![Event::Started { run, agent: context.defaults.agent.clone() }];
    if let Some(message) = prompt.cloned().or_else(|| spec.prompt.as_deref().map(Message::of)) {
        let message_id = format!("{session_id}/{run}/prompt");
        events.push(Event::MessageAccepted { run, message_id, message, is_prompt: true });
    }
    events
}

fn start(session: &Session, prompt: Option<&Message>, context: &Context) -> Decided {
    let next = session.run_number() + 1;
    match session.phase() {
        None | Some(Phase::Stopped | Phase::Completed | Phase::Failed) => {
            Ok(Decision::Events(run_begins(&session.id, next, &session.spec, prompt, context)))
        }
        Some(Phase::Stopping) => {
            Err(Refusal::new(RefusalCode::TryLater, "the Session is Stopping; it can be started when that has ended"))
        }
        Some(phase) => Err(Refusal::new(
            RefusalCode::Phase,
            format!("the Session is {phase} already; start is allowed when New, Stopped, Completed or Failed"),
        )),
    }
}

fn stop(session: &Session, reason: StopReason, run: Option<i64>, force: bool) -> Decided {
    if run.is_some_and(|run| run != session.run_number()) {
        return Ok(Decision::NothingToDo(NothingToDo::Superseded));
    }
    let forced = || Event::Ended { evidence: Vec::new(), proven: false };
    match &session.lifecycle {
        Lifecycle::New => {
            Err(Refusal::new(RefusalCode::Phase, "the Session was never started; stop is allowed while it is active"))
        }
        Lifecycle::Pending { .. } | Lifecycle::Creating { .. } | Lifecycle::Running { .. } => {
            let mut events = vec![Event::StopBegan { outcome: RunOutcome::Stopped { reason } }];
            if force {
                events.push(forced());
            }
            Ok(Decision::Events(events))
        }
        Lifecycle::Stopping { .. } if force => Ok(Decision::Events(vec![forced()])),
        Lifecycle::Stopping { .. } | Lifecycle::Ended { .. } => Ok(ALREADY),
    }
}

fn send_message(session: &Session, message: &Message, start: bool, context: &Context) -> Decided {
    attachment::validate(&message.attachments)?;
    let accepted = |run: i64| Event::MessageAccepted {
        run,
        message_id: context.operation_id.clone(),
        message: message.clone(),
        is_prompt: false,
    };
    match &session.lifecycle {
        Lifecycle::Running { .. } if !session.spec.interactive => Err(Refusal::new(
            RefusalCode::Phase,
            "the Session is Running in batch mode (interactive=false): it takes no messages",
        )),
        Lifecycle::Pending { run } | Lifecycle::Creating { run } | Lifecycle::Running { run } => {
            Ok(Decision::Events(vec![accepted(run.number)]))
        }
        Lifecycle::Stopping { .. } => Err(Refusal::new(
            RefusalCode::TryLater,
            "the Session is Stopping; when that has ended, start it or send the message with start=true",
        )),
        Lifecycle::New | Lifecycle::Ended { .. } if start => {
            // The run starts with this message; the spec's prompt is not sent again.
            let run = session.run_number() + 1;
            Ok(Decision::Events(vec![Event::Started { run, agent: context.defaults.agent.clone() }, accepted(run)]))
        }
        Lifecycle::New | Lifecycle::Ended { .. } => {
            let phase = session.phase().map_or_else(|| "New".to_owned(), |phase| phase.to_string());
            Err(Refusal::new(
                RefusalCode::Phase,
                format!("the Session is {phase}; start it, or send the message with start=true"),
            ))
        }
    }
}

fn change_spec(session: &Session, spec: Spec) -> Decided {
    let old = &session.spec;
    if spec == *old {
        return Ok(ALREADY);
    }
    spec.validate()?;
    let (repos, playbook) = (spec.repos != old.repos, spec.active_workflow != old.active_workflow);
    let declarative = repos || playbook;
    let phase = session.phase();
    if declarative && phase == Some(Phase::Stopping) {
        let what = if repos { "repos" } else { "its workflow" };
        return Err(Refusal::new(
            RefusalCode::TryLater,
            format!("the Session is Stopping; {what} can be changed after that"),
        ));
    }
    let active = matches!(phase, Some(Phase::Pending | Phase::Creating | Phase::Running | Phase::Stopping));
    if let (true, Some(phase), Some(field)) = (active, phase, fixed_while_active(old, &spec)) {
        return Err(Refusal {
            code: RefusalCode::Phase,
            field: Some(field.to_owned()),
            reason: format!("{field} cannot change while the Session is {phase}; stop it first"),
        });
    }
    Ok(Decision::Events(vec![Event::SpecChanged { spec: Box::new(spec), declarative }]))
}

/// The first changed field that an active run has already used.
fn fixed_while_active(old: &Spec, new: &Spec) -> Option<&'static str> {
    if new.prompt != old.prompt {
        Some("prompt")
    } else if new.main_repo().map(|repo| &repo.name) != old.main_repo().map(|repo| &repo.name) {
        Some("main_repo_index")
    } else if new.timeout != old.timeout {
        Some("timeout")
    } else if new.agent_command != old.agent_command {
        Some("agent_command")
    } else if new.mcp_servers != old.mcp_servers {
        Some("mcp_servers")
    } else if new.llm_temperature.to_bits() != old.llm_temperature.to_bits() {
        Some("llm_temperature")
    } else if new.llm_max_tokens != old.llm_max_tokens {
        Some("llm_max_tokens")
    } else if new.resource_overrides != old.resource_overrides {
        Some("resource_overrides")
    } else if new.network != old.network {
        Some("network")
    } else if new.setup_script != old.setup_script {
        Some("setup_script")
    } else if new.environment_variables != old.environment_variables {
        Some("environment_variables")
    } else if (&new.models.allowed, &new.models.endpoints) != (&old.models.allowed, &old.models.endpoints) {
        Some("models")
    } else {
        None
    }
}

fn patched(session: &Session, patch: &SessionPatch) -> Result<Spec, Refusal> {
    let mut spec = session.spec.clone();
    let SessionPatch {
        display_name,
        labels,
        annotations,
        repos,
        main_repo_index,
        active_workflow,
        prompt,
        agent_command,
        agent_mode,
        agent_options,
        mcp_servers,
        timeout,
        inactivity_timeout,
        llm_model,
        llm_temperature,
        llm_max_tokens,
        resource_overrides,
        network,
        setup_script,
        environment_variables,
        models,
        permissions,
    } = patch.clone();
    spec.display_name = display_name.unwrap_or(spec.display_name);
    merge(&mut spec.labels, labels);
    merge(&mut spec.annotations, annotations);
    spec.repos = repos.unwrap_or(spec.repos);
    spec.main_repo_index = main_repo_index.unwrap_or(spec.main_repo_index);
    spec.active_workflow = active_workflow.unwrap_or(spec.active_workflow);
    spec.prompt = prompt.unwrap_or(spec.prompt);
    spec.agent_command = agent_command.unwrap_or(spec.agent_command);
    spec.agent_mode = agent_mode.unwrap_or(spec.agent_mode);
    merge(&mut spec.agent_options, agent_options);
    spec.mcp_servers = mcp_servers.unwrap_or(spec.mcp_servers);
    spec.timeout = timeout.unwrap_or(spec.timeout);
    spec.inactivity_timeout = inactivity_timeout.unwrap_or(spec.inactivity_timeout);
    spec.llm_model = llm_model.unwrap_or(spec.llm_model);
    spec.llm_temperature = llm_temperature.unwrap_or(spec.llm_temperature);
    spec.llm_max_tokens = llm_max_tokens.unwrap_or(spec.llm_max_tokens);
    spec.resource_overrides = spec.resource_overrides.patched(&resource_overrides.unwrap_or_default());
    spec.network = network.unwrap_or(spec.network);
    spec.setup_script = setup_script.unwrap_or(spec.setup_script);
    merge(&mut spec.environment_variables, environment_variables);
    spec.models = models.unwrap_or(spec.models);
    spec.permissions = permissions.unwrap_or(spec.permissions);
    Ok(spec)
}

fn with_repo(spec: &Spec, repo: &Repo) -> Result<Spec, Refusal> {
    if let Some(same_name) = spec.repos.iter().find(|r| r.name == repo.name) {
        if same_name == repo {
            return Ok(spec.clone());
        }
        return Err(Refusal {
            code: RefusalCode::Conflict,
            field: Some("name".to_owned()),
            reason: format!(
                "repository '{}' exists with different settings (url, branch, output, auto_push or submodules); remove it first",
                repo.name
            ),
        });
    }
    let mut spec = spec.clone();
    spec.repos.push(repo.clone());
    Ok(spec)
}

fn without_repo(spec: &Spec, name: &str) -> Result<Spec, Refusal> {
    let mut spec = spec.clone();
    let Some(place) = spec.repos.iter().position(|repo| repo.name == name) else {
        return Err(Refusal::new(RefusalCode::NotFound, format!("repository '{name}' not found")));
    };
    spec.repos.remove(place);
    // It is the same repository afterwards, or none.
    spec.main_repo_index = spec.main_repo_index.and_then(|main| match usize::try_from(main).ok()?.cmp(&place) {
        Ordering::Less => Some(main),
        Ordering::Equal => None,
        Ordering::Greater => main.checked_sub(1),
    });
    Ok(spec)
}

/// The run of a lifecycle that is underway and not ending yet.
pub(super) fn active_run(session: &Session) -> Option<&Run> {
    match &session.lifecycle {
        Lifecycle::Pending { run } | Lifecycle::Creating { run } | Lifecycle::Running { run } => Some(run),
        _ => None,
    }
}
