//! A message, from being handed to the agent to the end of its work on it.

use std::{sync::Arc, time::Duration};

use agent_client_protocol::v1::schema as acp;
use ambient_wire::runner_event::{PermissionOutcome, RunnerEvent, Usage, UsageSource};
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    attachments,
    connection::Failed,
    content::{self, MAX_TEXT},
    start::Agent,
};
use crate::{
    log::LogError,
    playbook::{Expanded, NO_MORE},
    process::ticks_since_boot,
    turn::{INTERRUPT_PATIENCE, Turn, TurnEnd},
};

/// After the agent has said that it is done: how long it has to be silent, and how long that is waited for.
const SILENCE: Duration = Duration::from_millis(5);
const SETTLING: Duration = Duration::from_millis(200);
/// How long processes that were started in a stopped turn may take to end.
const CHILDREN: Duration = Duration::from_millis(500);
/// Longer than a tick of the kernel, in which it tells when a process started: a hundredth of a second.
const TICK: Duration = Duration::from_millis(11);
/// How long the connection may take to say more than that the process has ended.
const LAST_ANSWER: Duration = Duration::from_millis(200);

/// What becomes of the agent.
pub(super) enum After {
    /// It waits for the next message.
    Stays,
    /// It has ended, or has to.
    Gone,
}

/// Works on a message.
///
/// # Errors
/// When the log fails.
pub(super) async fn work(agent: &Arc<Agent>, turn: &Turn) -> Result<(TurnEnd, After), LogError> {
    agent.services.updates.begin(&turn.run_id).await?;
    agent.services.turn.send_replace(Some((turn.run_id.clone(), turn.stop.clone())));
    let ended = prompt(agent, turn).await;
    agent.services.turn.send_replace(None);
    *agent.idle_since.lock().await = Instant::now();
    agent.app.permissions.close_all(PermissionOutcome::Cancelled).await?;
    ended
}

async fn prompt(agent: &Arc<Agent>, turn: &Turn) -> Result<(TurnEnd, After), LogError> {
    // What the agent has started before is told from what it starts in this turn by the kernel's ticks: they must not be the same.
    let idle_since = *agent.idle_since.lock().await;
    sleep_until(idle_since + TICK).await;
    let before = ticks_since_boot();
    let retold = agent.retold.lock().await.take();
    let message = message(agent, turn).await?;
    let texts = playbook(agent).await.into_iter().chain(retold).chain([message]);
    let mut blocks: Vec<_> = texts.map(|text| acp::ContentBlock::Text(acp::TextContent::new(text))).collect();
    let (attached, missing) = tokio::select! {
        biased;
        // The agent has not been told anything of this turn.
        () = turn.stopped() => return Ok((TurnEnd::Stopped, After::Stays)),
        read = attachments::blocks(&agent.app.attempt, &agent.takes, &turn.message.attachments) => read,
    };
    for text in missing {
        agent.services.updates.record(RunnerEvent::AgentNotice { text }).await?;
    }
    blocks.extend(attached);
    let request = acp::PromptRequest::new(agent.session_id.clone(), blocks);
    let answer = agent.connection.ask("session/prompt", &request);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answered = &mut answer => {
            // An agent that has died answers with the end of the connection.
            match answered {
                Err(_) if timeout(LAST_ANSWER, agent.process.ended()).await.is_ok() => lost(agent).await,
                answered => done(agent, turn, answered).await,
            }
        }
        _ = agent.process.ended() => match timeout(LAST_ANSWER, &mut answer).await {
            Ok(Ok(answered)) => done(agent, turn, Ok(answered)).await.map(|(end, _)| (end, After::Gone)),
            _ => lost(agent).await,
        },
        () = turn.stopped() => {
            agent.connection.tell("session/cancel", &acp::CancelNotification::new(agent.session_id.clone()));
            agent.app.permissions.close_all(PermissionOutcome::Cancelled).await?;
            let answered = timeout(INTERRUPT_PATIENCE, &mut answer).await;
            // Some leave behind what they have started.
            agent.process.end_since(before, CHILDREN).await;
            agent.services.terminals.end().await;
            agent.services.updates.settle(SILENCE, SETTLING).await?;
            let after = if matches!(answered, Ok(Ok(_))) { After::Stays } else { After::Gone };
            Ok((TurnEnd::Stopped, after))
        }
    }
}

/// What it is told of the session's playbook, if it does not know that yet.
async fn playbook(agent: &Agent) -> Option<String> {
    let current = agent.app.playbooks.current();
    let folder = current.as_ref().map(|playbook| playbook.folder.clone());
    let mut known = agent.playbook.lock().await;
    if *known == folder {
        return None;
    }
    *known = folder;
    Some(current.map_or_else(|| NO_MORE.to_owned(), |playbook| playbook.told()))
}

/// The message, or what a command of the playbook makes of it.
async fn message(agent: &Agent, turn: &Turn) -> Result<String, LogError> {
    let own = agent.services.updates.commands().await;
    match turn.expanded(|id| own.iter().any(|name| name == id)) {
        Some(Expanded { text, notice }) => {
            agent.services.updates.record(RunnerEvent::AgentNotice { text: notice }).await?;
            Ok(text)
        }
        None => Ok(turn.message.text.clone()),
    }
}

async fn lost(agent: &Agent) -> Result<(TurnEnd, After), LogError> {
    let ended = agent.process.ended().await;
    agent.app.permissions.close_all(PermissionOutcome::Lost).await?;
    let end = TurnEnd::failed("AgentLost", ended.reason, ended.exit_code).in_its_words(ended.words);
    Ok((end, After::Gone))
}

async fn done(agent: &Agent, turn: &Turn, answered: Result<Value, Failed>) -> Result<(TurnEnd, After), LogError> {
    agent.services.updates.settle(SILENCE, SETTLING).await?;
    let answer = match answered {
        Ok(answer) => answer,
        Err(failed) => {
            let end =
                TurnEnd::failed("AgentError", "the agent failed".to_owned(), None).in_its_words(failed.to_string());
            let after = if agent.connection.is_closed() { After::Gone } else { After::Stays };
            return Ok((end, after));
        }
    };
    if !answer["usage"].is_null() {
        let raw = content::value(answer["usage"].clone(), MAX_TEXT);
        let (turn_id, source, model) = (turn.run_id.clone(), UsageSource::Agent, String::new());
        let event = RunnerEvent::Usage { turn_id, source, model, usage: usage(&answer["usage"]), raw, call: None };
        agent.services.updates.record(event).await?;
    }
    let reason = content::short(answer["stopReason"].as_str().unwrap_or("end_turn"));
    turn.set_stop_reason(reason.clone());
    let end = match reason.as_str() {
        "max_tokens" => TurnEnd::failed("AgentError", "the model's limit on tokens was reached".to_owned(), None),
        "max_turn_requests" => {
            TurnEnd::failed("AgentError", "the agent's limit on model calls was reached".to_owned(), None)
        }
        "refusal" => TurnEnd::failed("AgentError", "the agent refused".to_owned(), None),
        // Some say so when a person has rejected what they asked for.
        _ => TurnEnd::Finished,
    };
    Ok((end, After::Stays))
}

fn usage(told: &Value) -> Usage {
    let number = |name: &str| told[name].as_u64();
    Usage {
        input_tokens: number("inputTokens"),
        cached_input_tokens: number("cachedReadTokens"),
        output_tokens: number("outputTokens"),
        reasoning_tokens: number("thoughtTokens"),
        cost_micros: None,
        currency: None,
    }
}
