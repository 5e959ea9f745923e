//! What an agent tells of its work, on its way into the log: in order, gathered, and never faster than the log takes it.

use std::{sync::Arc, time::Duration};

use agent_client_protocol::v1::schema::{self as acp, SessionUpdate};
use ambient_wire::runner_event::{PlanEntry, RunnerEvent, Usage, UsageSource};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{Mutex, Notify},
    time::{Instant, sleep},
};

use super::{
    content::{self, MAX_TEXT, PIECE},
    tools::{Known, Tools},
};
use crate::log::{EventLog, LogError};

/// Pieces of a message that come within this time of each other are recorded together.
const GATHER: Duration = Duration::from_millis(20);
/// Most commands that are remembered.
const MAX_COMMANDS: usize = 1_000;
/// Most steps of a plan.
const MAX_STEPS: usize = 200;

/// Records updates.
pub(super) struct Updates {
    log: EventLog,
    state: Mutex<State>,
    /// There is something to be flushed soon.
    pending: Notify,
}

struct State {
    turn_id: String,
    tools: Tools,
    /// Who speaks, which of its messages it is, and what of it is not recorded yet.
    speaking: Option<Speaking>,
    messages: u32,
    /// Names of the commands that the agent offers.
    commands: Vec<String>,
    /// Nothing of the conversation is recorded: the agent repeats what the log has already.
    replaying: bool,
    flushed: Instant,
    heard: Instant,
}

struct Speaking {
    is_thought: bool,
    /// The agent's own id of the message, if it has any.
    id: Option<String>,
    message_id: String,
    text: String,
}

impl Updates {
    pub(super) fn new(log: EventLog, turn_id: &str) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            turn_id: turn_id.to_owned(),
            tools: Tools::default(),
            speaking: None,
            messages: 0,
            commands: Vec::new(),
            replaying: false,
            flushed: now,
            heard: now,
        };
        Arc::new(Self { log, state: Mutex::new(state), pending: Notify::new() })
    }

    /// What follows belongs to this turn.
    ///
    /// # Errors
    /// When the log fails.
    pub(super) async fn begin(&self, turn_id: &str) -> Result<(), LogError> {
        let mut state = self.state.lock().await;
        self.end_message(&mut state).await?;
        turn_id.clone_into(&mut state.turn_id);
        state.messages = 0;
        state.replaying = false;
        Ok(())
    }

    /// Names of the commands that the agent offers.
    pub(super) async fn commands(&self) -> Vec<String> {
        self.state.lock().await.commands.clone()
    }

    /// From now on the agent repeats what was said.
    pub(super) async fn set_replaying(&self, replaying: bool) {
        self.state.lock().await.replaying = replaying;
    }

    /// Flushes what is gathered, whenever it is due, forever.
    pub(super) async fn flush_whenever_due(&self) -> LogError {
        loop {
            self.pending.notified().await;
            sleep(GATHER).await;
            let mut state = self.state.lock().await;
            if let Err(error) = self.flush(&mut state).await {
                return error;
            }
        }
    }

    /// Waits until nothing was heard for a moment: some agents go on telling after they have said that they are done.
    ///
    /// # Errors
    /// When the log fails.
    pub(super) async fn settle(&self, silence: Duration, most: Duration) -> Result<(), LogError> {
        let until = Instant::now() + most;
        loop {
            let mut state = self.state.lock().await;
            let quiet = state.heard.elapsed();
            if quiet >= silence || Instant::now() >= until {
                return self.end_message(&mut state).await;
            }
            drop(state);
            sleep(silence - quiet).await;
        }
    }

    /// Records an event of the agent's.
    ///
    /// # Errors
    /// When the log fails.
    pub(super) async fn record(&self, event: RunnerEvent) -> Result<(), LogError> {
        let mut state = self.state.lock().await;
        self.end_message(&mut state).await?;
        self.log.push(vec![event]).await
    }

    /// Records what a request tells of a call; returns what is known of it.
    ///
    /// # Errors
    /// When the log fails.
    pub(super) async fn call(&self, id: &str, fields: acp::ToolCallUpdateFields) -> Result<(String, Known), LogError> {
        let mut state = self.state.lock().await;
        self.end_message(&mut state).await?;
        let event = state.tools.update(id, fields);
        self.log.push(vec![event]).await?;
        let id = content::short(id);
        let known = state.tools.get(&id).cloned().unwrap_or_default();
        Ok((id, known))
    }

    /// Records a notification; what cannot be read as one says nothing.
    ///
    /// # Errors
    /// When the log fails.
    pub(super) async fn see(&self, params: Value) -> Result<(), LogError> {
        let raw = params.get("update").cloned().unwrap_or_default();
        let update = match acp::SessionNotification::deserialize(params) {
            Ok(notification) => notification.update,
            Err(error) => {
                tracing::debug!(%error, "an update that is not understood");
                return Ok(());
            }
        };
        let mut state = self.state.lock().await;
        state.heard = Instant::now();
        match update {
            SessionUpdate::AgentMessageChunk(chunk) => self.chunk(&mut state, false, chunk).await,
            SessionUpdate::AgentThoughtChunk(chunk) => self.chunk(&mut state, true, chunk).await,
            // The log has it already.
            SessionUpdate::UserMessageChunk(_) => Ok(()),
            update => self.other(&mut state, update, raw).await,
        }
    }

    async fn other(&self, state: &mut State, update: SessionUpdate, raw: Value) -> Result<(), LogError> {
        let settings = |mode, commands, title| RunnerEvent::AgentSettings {
            mode,
            model: None,
            config_options: None,
            commands,
            title,
        };
        let event = match update {
            SessionUpdate::ToolCall(call) => state.tools.call(call),
            SessionUpdate::ToolCallUpdate(update) => state.tools.update(&update.tool_call_id.0, update.fields),
            SessionUpdate::Plan(plan) => {
                RunnerEvent::AgentPlan { entries: plan.entries.iter().take(MAX_STEPS).map(step).collect() }
            }
            SessionUpdate::CurrentModeUpdate(update) => {
                settings(Some(content::short(&update.current_mode_id.0)), None, None)
            }
            SessionUpdate::AvailableCommandsUpdate(update) => {
                let names =
                    update.available_commands.iter().take(MAX_COMMANDS).map(|command| content::short(&command.name));
                state.commands = names.collect();
                settings(None, Some(content::value(raw["availableCommands"].clone(), MAX_TEXT)), None)
            }
            SessionUpdate::SessionInfoUpdate(_) => match raw["title"].as_str() {
                Some(title) => settings(None, None, Some(content::short(title))),
                None => return Ok(()),
            },
            SessionUpdate::ConfigOptionUpdate(_) => RunnerEvent::AgentSettings {
                mode: None,
                model: None,
                config_options: Some(content::value(raw["configOptions"].clone(), MAX_TEXT)),
                commands: None,
                title: None,
            },
            SessionUpdate::UsageUpdate(update) => RunnerEvent::Usage {
                turn_id: state.turn_id.clone(),
                source: UsageSource::Agent,
                model: String::new(),
                usage: cost(update.cost.as_ref()),
                raw: content::value(raw, MAX_TEXT),
                call: None,
            },
            _ => return Ok(()),
        };
        let is_told_already = matches!(
            event,
            RunnerEvent::ToolStarted { .. }
                | RunnerEvent::ToolUpdated { .. }
                | RunnerEvent::AgentPlan { .. }
                | RunnerEvent::Usage { .. }
        );
        if state.replaying && is_told_already {
            return Ok(());
        }
        self.end_message(state).await?;
        self.log.push(vec![event]).await
    }

    async fn chunk(&self, state: &mut State, is_thought: bool, chunk: acp::ContentChunk) -> Result<(), LogError> {
        if state.replaying {
            return Ok(());
        }
        let id = chunk.message_id.map(|id| id.0.to_string());
        let continues = |speaking: &Speaking| speaking.is_thought == is_thought && speaking.id == id;
        if !state.speaking.as_ref().is_some_and(continues) {
            self.end_message(state).await?;
            state.messages += 1;
            let word = if is_thought { "thought" } else { "text" };
            let message_id = format!("{}/{word}/{}", state.turn_id, state.messages);
            state.speaking = Some(Speaking { is_thought, id, message_id, text: String::new() });
        }
        let Some(speaking) = &mut state.speaking else { return Ok(()) };
        match chunk.content {
            acp::ContentBlock::Text(text) => speaking.text.push_str(&text.text),
            other => {
                let message_id = speaking.message_id.clone();
                self.flush(state).await?;
                return self
                    .log
                    .push(vec![RunnerEvent::AgentContent { message_id, content: content::block(&other) }])
                    .await;
            }
        }
        // The first piece is shown at once; what follows soon after is gathered.
        if speaking.text.len() >= PIECE || state.flushed.elapsed() >= GATHER {
            self.flush(state).await
        } else {
            self.pending.notify_one();
            Ok(())
        }
    }

    /// Whatever the agent says next is another message.
    async fn end_message(&self, state: &mut State) -> Result<(), LogError> {
        self.flush(state).await?;
        state.speaking = None;
        Ok(())
    }

    async fn flush(&self, state: &mut State) -> Result<(), LogError> {
        let Some(speaking) = state.speaking.as_mut().filter(|speaking| !speaking.text.is_empty()) else {
            return Ok(());
        };
        let text = content::text(std::mem::take(&mut speaking.text), usize::MAX).0;
        let mut events = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE));
            let (message_id, text) = (speaking.message_id.clone(), piece.to_owned());
            events.push(match speaking.is_thought {
                true => RunnerEvent::AgentThought { message_id, text },
                false => RunnerEvent::AgentText { message_id, text },
            });
            rest = after;
        }
        state.flushed = Instant::now();
        self.log.push(events).await
    }
}

fn step(entry: &acp::PlanEntry) -> PlanEntry {
    let word = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    PlanEntry {
        content: content::short(&entry.content),
        priority: word(serde_json::to_value(&entry.priority).ok()),
        status: word(serde_json::to_value(&entry.status).ok()),
    }
}

/// Money, as the agent says.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn cost(cost: Option<&acp::Cost>) -> Usage {
    let Some(cost) = cost.filter(|cost| cost.amount.is_finite() && cost.amount >= 0.0) else { return Usage::default() };
    Usage {
        cost_micros: Some((cost.amount * 1e6).round() as u64),
        currency: Some(content::short(&cost.currency)),
        ..Usage::default()
    }
}
