//! Ending a run's processes.

use std::{collections::HashSet, os::fd::OwnedFd, sync::Arc, time::Duration};

use ambient_runner_protocol::LaunchSpec;
use rustix::process::Signal;
use tokio::time::timeout_at;

use super::{
    host::Local,
    host::run_blocking,
    layout::{check_session, give, read_json, write_file},
    processes::{Table, open_runner},
    state::{attempts_of, started},
    watch::ended,
};
use crate::{ComputeError, SessionRef};

/// How long killing is repeated before reporting what is left.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Asks the runner to end, and after `grace` kills every process of the run.
pub(super) async fn terminate(
    local: &Arc<Local>,
    session: &SessionRef,
    run: i64,
    grace: Duration,
) -> Result<(), ComputeError> {
    let deadline = tokio::time::Instant::now() + grace;
    let (asking, asked) = (local.clone(), session.clone());
    for runner in run_blocking(move || asking.ask_to_end(&asked, run)).await? {
        if timeout_at(deadline, ended(runner)).await.is_err() {
            tracing::warn!(run, "a runner did not end within its grace and is killed");
        }
    }
    let (killing, killed) = (local.clone(), session.clone());
    run_blocking(move || killing.kill_run(&killed, run, &HashSet::new())).await
}

impl Local {
    /// Records that the end is intended, and sends SIGTERM; returns the runners that are alive.
    fn ask_to_end(&self, session: &SessionRef, run: i64) -> Result<Vec<OwnedFd>, ComputeError> {
        check_session(session)?;
        let runners = self.runners(session, run)?;
        if runners.is_empty() {
            return Ok(runners);
        }
        let paths = self.paths(session);
        write_file(&paths.stop_request(run), b"", None)?;
        give(&paths.stop_request(run), self.users(&paths)?.map(|users| users.runner))?;
        for runner in &runners {
            let _ = rustix::process::pidfd_send_signal(runner, Signal::TERM);
        }
        Ok(runners)
    }

    fn runners(&self, session: &SessionRef, run: i64) -> Result<Vec<OwnedFd>, ComputeError> {
        let paths = self.paths(session);
        let mut runners = Vec::new();
        for attempt in attempts_of(&paths, run)? {
            let Some(intent) = read_json::<LaunchSpec>(&paths.launch(run, attempt))? else { continue };
            if let Some(started) = started(&paths, &intent)? {
                runners.extend(open_runner(&started)?);
            }
        }
        Ok(runners)
    }

    /// Kills every process of a run but the spared ones.
    fn kill_run(&self, session: &SessionRef, run: i64, spared: &HashSet<i32>) -> Result<(), ComputeError> {
        check_session(session)?;
        let paths = self.paths(session);
        let attempts = attempts_of(&paths, run)?.into_iter().map(|attempt| (run, attempt)).collect::<Vec<_>>();
        let mut marks = self.marks(&paths, &attempts)?;
        if self.has_later_run(&paths, run)? {
            // User ids belong to the session, not to the run.
            marks.uids.clear();
        }
        let remains = marks.kill(spared, KILL_PATIENCE);
        if remains.is_empty() { Ok(()) } else { Err(ComputeError::Remains { run, remains }) }
    }

    pub(super) fn kill_agents(&self, session: &SessionRef, run: i64) -> Result<(), ComputeError> {
        check_session(session)?;
        let paths = self.paths(session);
        let attempts = attempts_of(&paths, run)?.into_iter().map(|attempt| (run, attempt)).collect::<Vec<_>>();
        let marks = self.marks(&paths, &attempts)?;
        let runners = marks.runners()?;
        if runners.is_empty() && !Table::look().members(&marks).is_empty() && marks.leaders.is_empty() {
            // It is coming up and has no agent yet.
            return Ok(());
        }
        self.kill_run(session, run, &runners)
    }
}
