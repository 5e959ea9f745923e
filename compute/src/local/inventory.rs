//! What exists on this host.

use super::{
    host::Local,
    layout::{check_session, is_there, read_json},
    processes::{Table, lives, open_runner},
    state::{all_attempts, runs_of, started_since_boot},
};
use crate::{ComputeError, Inventory, Resource, RunnerState, SessionRef};

impl Local {
    pub(super) fn inventory(&self) -> Result<Vec<Inventory>, ComputeError> {
        let table = Table::look().whole()?;
        let live = table.nonces();
        let mut all = Vec::new();
        let sessions = self.all_sessions()?;
        self.sweep_groups(&sessions);
        for session in sessions {
            let paths = self.paths(&session);
            let mut live_runs = Vec::new();
            for (run, attempt) in all_attempts(&paths)? {
                let Some(intent) = read_json::<ambient_runner_protocol::LaunchSpec>(&paths.launch(run, attempt))?
                else {
                    continue;
                };
                let started = started_since_boot(&paths, &intent)?;
                let runner = started.as_ref().map(open_runner).transpose()?.flatten().is_some();
                let init = started.and_then(|started| started.init).is_some_and(|init| lives(&init));
                if (runner || init || live.contains(intent.nonce.as_str())) && !live_runs.contains(&run) {
                    live_runs.push(run);
                }
            }
            all.push(Inventory { session, live_runs });
        }
        Ok(all)
    }

    pub(super) fn resources(&self, session: &SessionRef) -> Result<Vec<Resource>, ComputeError> {
        check_session(session)?;
        let paths = self.paths(session);
        if !is_there(&paths.root)? {
            return Ok(Vec::new());
        }
        let mut resources = vec![resource("directory", paths.root.display().to_string(), "present", String::new())];
        for (run, attempt) in all_attempts(&paths)? {
            let (status, detail) = match self.assess(session, run, attempt)?.state {
                RunnerState::Absent => ("starting", String::new()),
                RunnerState::Running { missing_confinement } => ("running", missing_confinement.join("; ")),
                RunnerState::Exited { code, reason } => ("exited", format!("code {code}: {reason}")),
                RunnerState::Lost { reason } => ("lost", reason),
                RunnerState::Exhausted { shortage, message } => {
                    ("exhausted", format!("{}: {message}", shortage.as_str()))
                }
            };
            resources.push(resource("process", format!("runner {run}.{attempt}"), status, detail));
        }
        let table = Table::look();
        let members = table.members(&self.marks(&paths, &all_attempts(&paths)?)?);
        resources.extend(members.iter().map(|entry| resource("process", entry.describe(), "running", String::new())));
        for run in runs_of(&paths)? {
            let socket = self.socket(&session.session_id, run);
            if socket.exists() {
                resources.push(resource("socket", socket.display().to_string(), "present", String::new()));
            }
        }
        Ok(resources)
    }
}

fn resource(kind: &str, name: String, status: &str, detail: String) -> Resource {
    Resource { kind: kind.to_owned(), name, status: status.to_owned(), detail }
}
