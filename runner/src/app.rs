//! What a runner's parts share.

use std::sync::{Arc, Mutex};

use ambient_runner_protocol::{AgentSettings, LaunchSpec, SessionPaths};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    attempt::Attempt,
    auth::Auth,
    ending::{CurrentTurn, Ending},
    git::{playbooks::Playbooks, repos::Repos},
    history::History,
    life,
    log::EventLog,
    messages::Inbox,
    permissions::Permissions,
    reader::Readers,
};

pub(crate) type SharedApp = Arc<App>;

/// The whole runner.
pub(crate) struct App {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) log: EventLog,
    pub(crate) log_id: String,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) readers: Readers,
    pub(crate) repos: Repos,
    pub(crate) playbooks: Playbooks,
    pub(crate) auth: Auth,
    pub(crate) current: Arc<CurrentTurn>,
    pub(crate) ending: Ending,
    pub(crate) permissions: Permissions,
    pub(crate) agent: AgentState,
}

/// What outlives an agent's process.
pub(crate) struct AgentState {
    /// Its own id of the conversation.
    conversation: Mutex<Option<String>>,
    settings: watch::Sender<AgentSettings>,
}

impl AgentState {
    pub(crate) fn new(spec: &LaunchSpec, history: &History) -> Self {
        let command = spec.agent_command.as_ref();
        let earlier = command.and_then(|command| command.conversation.clone()).or_else(|| kept(spec));
        let settings = command.map(|command| command.settings.clone()).unwrap_or_default();
        Self {
            conversation: Mutex::new(history.conversation.clone().or(earlier)),
            settings: watch::Sender::new(settings),
        }
    }
}

/// A conversation, as it is kept for the next run.
#[derive(Serialize, Deserialize)]
struct Kept {
    agent: String,
    id: String,
}

/// The last conversation of an earlier run, if it was with the same agent.
fn kept(spec: &LaunchSpec) -> Option<String> {
    let paths = SessionPaths { root: spec.session_dir.clone() };
    let kept = |run: i64| serde_json::from_slice::<Kept>(&std::fs::read(paths.conversation(run)).ok()?).ok();
    let kept = (1..spec.run).rev().find_map(kept)?;
    (kept.agent == spec.agent).then_some(kept.id)
}

impl App {
    /// The agent's own id of the conversation so far.
    pub(crate) fn conversation(&self) -> Option<String> {
        self.agent.conversation.lock().ok()?.clone()
    }

    /// Also for the next run; without that it is told what was said.
    pub(crate) fn set_conversation(&self, id: &str) {
        if let Ok(mut current) = self.agent.conversation.lock() {
            *current = Some(id.to_owned());
        }
        let kept = Kept { agent: self.attempt.spec.agent.clone(), id: id.to_owned() };
        let path = self.attempt.paths.conversation(self.attempt.spec.run);
        if let Err(error) = life::write_record(&path, &kept) {
            tracing::warn!(%error, "the conversation cannot be kept for the next run");
        }
    }

    /// Settings that the agent should have.
    pub(crate) fn settings(&self) -> watch::Receiver<AgentSettings> {
        self.agent.settings.subscribe()
    }

    /// Changes those that are given.
    pub(crate) fn set_settings(&self, change: AgentSettings) {
        self.agent.settings.send_modify(|settings| {
            settings.mode = change.mode.or(settings.mode.take());
            settings.model = change.model.or(settings.model.take());
            settings.options.extend(change.options);
        });
    }
}
