//! One attempt of a run: what it was started with, and its processes.

use std::{collections::BTreeMap, sync::Arc};

use ambient_runner_protocol::{LaunchSpec, SessionPaths};

use crate::process::Processes;

/// One attempt of a run.
pub(crate) struct Attempt {
    pub(crate) spec: LaunchSpec,
    pub(crate) paths: SessionPaths,
    /// The session's own variables. Secret: only for the agent and its git.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) processes: Arc<Processes>,
}

impl Attempt {
    /// AG-UI's name of a turn.
    pub(crate) fn run_id(&self, turn: u64) -> String {
        format!("{}/{}/{turn}", self.spec.session_id, self.spec.run)
    }
}
