//! Mode, model and options of an agent, as far as it offers them.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use ambient_runner_protocol::AgentSettings;
use ambient_wire::runner_event::RunnerEvent;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::start::Agent;
use crate::log::LogError;

/// Timeout for a change.
const PATIENCE: Duration = Duration::from_secs(30);

/// Applies what is set; what the agent refuses or does not offer is said in the log, and fails nothing.
///
/// # Errors
/// When the log fails.
pub(super) async fn apply(agent: &Arc<Agent>, offers: &Value, settings: &AgentSettings) -> Result<(), LogError> {
    let AgentSettings { mode, model, options } = settings;
    if let Some(mode) = mode {
        let mode_change = json!({ "sessionId": agent.session_id, "modeId": mode });
        let done = match option_of(offers, "mode") {
            Some(id) if offers["modes"].is_null() => set_option(agent, &id, mode).await,
            _ => agent
                .connection
                .call("session/set_mode", &mode_change, PATIENCE)
                .await
                .map(drop)
                .map_err(|e| e.to_string()),
        };
        note(agent, "mode", mode, done).await?;
    }
    if let Some(model) = model {
        let done = if let Some(id) = option_of(offers, "model") {
            set_option(agent, &id, model).await
        } else if offers["models"].is_null() {
            Err("the agent offers no choice of models".to_owned())
        } else {
            let change = json!({ "sessionId": agent.session_id, "modelId": model });
            agent.connection.call("session/set_model", &change, PATIENCE).await.map(drop).map_err(|e| e.to_string())
        };
        note(agent, "model", model, done).await?;
    }
    for (id, value) in options {
        let done = set_option(agent, id, value).await;
        note(agent, id, value, done).await?;
    }
    Ok(())
}

/// Applies what has changed since these were applied, and what is changed while the agent runs.
pub(super) async fn follow(
    agent: Weak<Agent>,
    offers: Value,
    mut wanted: watch::Receiver<AgentSettings>,
    mut applied: AgentSettings,
) {
    while wanted.wait_for(|wanted| *wanted != applied).await.is_ok() {
        let Some(agent) = agent.upgrade() else { return };
        let now = wanted.borrow_and_update().clone();
        let changed = AgentSettings {
            mode: now.mode.clone().filter(|_| now.mode != applied.mode),
            model: now.model.clone().filter(|_| now.model != applied.model),
            options: now
                .options
                .iter()
                .filter(|(id, value)| applied.options.get(*id) != Some(*value))
                .map(owned)
                .collect(),
        };
        if apply(&agent, &offers, &changed).await.is_err() {
            return;
        }
        applied = now;
    }
}

fn owned((id, value): (&String, &String)) -> (String, String) {
    (id.clone(), value.clone())
}

async fn set_option(agent: &Agent, id: &str, value: &str) -> Result<(), String> {
    let change = json!({ "sessionId": agent.session_id, "configId": id, "value": value });
    agent.connection.call("session/set_config_option", &change, PATIENCE).await.map(drop).map_err(|e| e.to_string())
}

/// The option of this category.
fn option_of(offers: &Value, category: &str) -> Option<String> {
    let options = offers["config_options"].as_array()?;
    let option = options.iter().find(|option| option["category"] == category)?;
    option["id"].as_str().map(str::to_owned)
}

async fn note(agent: &Agent, name: &str, value: &str, done: Result<(), String>) -> Result<(), LogError> {
    let event = match done {
        Ok(()) => RunnerEvent::AgentSettings {
            mode: (name == "mode").then(|| value.to_owned()),
            model: (name == "model").then(|| value.to_owned()),
            config_options: (!["mode", "model"].contains(&name)).then(|| json!({ name: value })),
            commands: None,
            title: None,
        },
        Err(reason) => {
            let text = format!("{name} '{value}' is not in effect: {reason}");
            RunnerEvent::AgentNotice { text }
        }
    };
    agent.services.updates.record(event).await
}
