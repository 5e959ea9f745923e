//! One attempt of a run: what it was started with, and its processes.

use std::{collections::BTreeMap, sync::Arc};

use ambient_runner_protocol::{LaunchSpec, SessionPaths};

use crate::{model::ModelProxy, network::NetworkProxy, process::Processes};

/// One attempt of a run.
pub(crate) struct Attempt {
    pub(crate) spec: LaunchSpec,
    pub(crate) paths: SessionPaths,
    /// The session's own variables. Secret: only for the agent and its git.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) processes: Arc<Processes>,
    /// The agent's way to its models, if it has one.
    pub(crate) model: Option<ModelProxy>,
    /// The agent's way to the network, if that is restricted.
    pub(crate) network: Option<NetworkProxy>,
}

impl Attempt {
    /// Opens the agent's ways to models and to the network.
    pub(crate) fn open_ways(&self, turn_id: &str) {
        if let Some(model) = &self.model {
            model.begin_turn(turn_id);
        }
        if let Some(network) = &self.network {
            network.begin_turn();
        }
    }

    /// Closes every connection of the agent to models and to the network, until the next turn begins, and waits until what they came to is in
    /// the log.
    pub(crate) async fn close_ways(&self) {
        if let Some(network) = &self.network {
            network.close().await;
        }
        if let Some(model) = &self.model {
            model.close_calls().await;
        }
    }

    /// AG-UI's name of a turn.
    pub(crate) fn run_id(&self, turn: u64) -> String {
        format!("{}/{}/{turn}", self.spec.session_id, self.spec.run)
    }
}
