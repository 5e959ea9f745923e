//! What is known about an attempt, from its records and from `/proc`.

use std::{
    collections::{BTreeSet, HashSet},
    os::fd::OwnedFd,
    time::Duration,
};

use ambient_runner_protocol::{EXIT_DISK_FULL, ExitCause, Exited, LaunchSpec, SessionPaths, Started};
use serde::{Deserialize, Serialize};

use super::{
    error::io_error,
    host::Local,
    layout::{check_session, names, read_json, read_record},
    processes::{Marks, Table, boot_id, open_runner},
    user_ids::Users,
};
use crate::{ComputeError, Endpoint, RunnerState, SessionRef, Shortage};

/// An intent without a process must be this old before the attempt counts as lost: its launch may be repeated.
const SPAWN_PATIENCE: Duration = Duration::from_secs(10);

/// State of an attempt.
pub(super) struct Known {
    pub(super) state: RunnerState,
    /// The runner's process, if it is alive.
    pub(super) process: Option<OwnedFd>,
    /// True when the attempt is neither up nor over.
    pub(super) coming_up: bool,
}

impl Known {
    fn over(state: RunnerState) -> Self {
        Self { state, process: None, coming_up: false }
    }
}

/// How a runner that was our child ended, in words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reaped {
    pub(super) nonce: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) code: Option<i32>,
}

/// Where [`Reaped`] is written.
pub(super) fn reaped_path(paths: &SessionPaths, run: i64, attempt: i32) -> std::path::PathBuf {
    paths.run_dir(run).join(format!("reaped.{attempt}.json"))
}

impl Local {
    pub(super) fn assess(&self, session: &SessionRef, run: i64, attempt: i32) -> Result<Known, ComputeError> {
        check_session(session)?;
        let paths = self.paths(session);
        let Some(intent) = read_json::<LaunchSpec>(&paths.launch(run, attempt))? else {
            return Ok(Known::over(RunnerState::Absent));
        };
        let started = started(&paths, &intent)?;
        let process = started.as_ref().map(open_runner).transpose()?.flatten();
        if let Some(state) = self.exhausted(session, &intent)? {
            return Ok(Known { state, process, coming_up: false });
        }
        if let (Some(started), Some(process)) = (&started, process) {
            let state = RunnerState::Running { missing_confinement: started.missing_confinement.clone() };
            return Ok(Known { state, process: Some(process), coming_up: false });
        }
        // Read after the process was seen to be dead: it writes the record before it dies.
        let exited = read_record::<Exited>(&paths.exited(run, attempt))?.filter(|exited| exited.nonce == intent.nonce);
        if let Some(Exited { code, reason, cause, .. }) = exited {
            return Ok(Known::over(match cause {
                Some(ExitCause::DiskFull) => RunnerState::Exhausted { shortage: Shortage::DiskFull, message: reason },
                None => RunnerState::Exited { code, reason },
            }));
        }
        let reaped =
            read_record::<Reaped>(&reaped_path(&paths, run, attempt))?.filter(|reaped| reaped.nonce == intent.nonce);
        if reaped.as_ref().is_some_and(|reaped| reaped.code == Some(EXIT_DISK_FULL)) {
            let message = "the runner could not write what it must record: the disk was full".to_owned();
            return Ok(Known::over(RunnerState::Exhausted { shortage: Shortage::DiskFull, message }));
        }
        if let Some(started) = started {
            return Ok(Known::over(RunnerState::Lost { reason: why_lost(&started, reaped)? }));
        }
        if let Some(reaped) = reaped {
            return Ok(Known::over(RunnerState::Lost {
                reason: format!("the runner did not come up: {}", reaped.status),
            }));
        }
        // Its age first: a scan of all processes costs milliseconds, and this is asked often while a runner is coming up.
        let coming_up =
            is_young(&paths, run, attempt)? || Table::look().whole()?.nonces().contains(intent.nonce.as_str());
        if coming_up {
            return Ok(Known { state: RunnerState::Absent, process: None, coming_up });
        }
        Ok(Known::over(RunnerState::Lost { reason: "the runner did not come up".to_owned() }))
    }

    pub(super) fn endpoint(&self, session: &SessionRef, run: i64) -> Result<Endpoint, ComputeError> {
        let attempt = attempts_of(&self.paths(session), run)?.last().copied().ok_or(ComputeError::NoRunner { run })?;
        let known = self.assess(session, run, attempt)?;
        if known.process.is_none() && !known.coming_up {
            return Err(ComputeError::NoRunner { run });
        }
        Ok(Endpoint { socket: self.socket(&session.session_id, run) })
    }

    /// Marks of everything that these attempts may have left behind.
    pub(super) fn marks(&self, paths: &SessionPaths, attempts: &[(i64, i32)]) -> Result<Marks, ComputeError> {
        let uids = self.users(paths)?.iter().flat_map(Users::all).collect();
        let mut marks = Marks { uids, ..Marks::default() };
        let mut nonces = HashSet::new();
        for (run, attempt) in attempts {
            let Some(intent) = read_json::<LaunchSpec>(&paths.launch(*run, *attempt))? else { continue };
            let started = started_since_boot(paths, &intent)?;
            marks.inits.extend(started.iter().filter_map(|started| started.init.clone()));
            marks.leaders.extend(started);
            nonces.insert(intent.nonce);
        }
        marks.nonces = nonces;
        let session = paths.root.file_name().unwrap_or_default().to_string_lossy();
        let runs = attempts.iter().map(|(run, _)| *run).collect::<BTreeSet<_>>();
        marks.groups = runs.into_iter().map(|run| self.groups.group(&session, run)).collect();
        Ok(marks)
    }
}

/// The runner's own record; one that does not match the intent counts as none.
pub(super) fn started(paths: &SessionPaths, intent: &LaunchSpec) -> Result<Option<Started>, ComputeError> {
    let started = read_record::<Started>(&paths.started(intent.run, intent.attempt))?;
    Ok(started.filter(|started| started.nonce == intent.nonce))
}

/// The same, of this boot of the machine.
pub(super) fn started_since_boot(paths: &SessionPaths, intent: &LaunchSpec) -> Result<Option<Started>, ComputeError> {
    let boot_id = boot_id()?;
    Ok(started(paths, intent)?.filter(|started| started.boot_id == boot_id))
}

fn why_lost(started: &Started, reaped: Option<Reaped>) -> Result<String, ComputeError> {
    Ok(match reaped {
        _ if started.boot_id != boot_id()? => "the machine was restarted".to_owned(),
        Some(reaped) => format!("the runner ended without a record: {}", reaped.status),
        None => "the runner ended without a record".to_owned(),
    })
}

fn is_young(paths: &SessionPaths, run: i64, attempt: i32) -> Result<bool, ComputeError> {
    let launch = paths.launch(run, attempt);
    let modified = launch.metadata().and_then(|about| about.modified());
    let modified = modified.map_err(|e| io_error(format!("age of {}", launch.display()), e))?;
    Ok(modified.elapsed().map_or(true, |age| age < SPAWN_PATIENCE))
}

/// Attempts of a run that have an intent, in order.
pub(super) fn attempts_of(paths: &SessionPaths, run: i64) -> Result<Vec<i32>, ComputeError> {
    let number = |name: &String| name.strip_prefix("launch.")?.strip_suffix(".json")?.parse().ok();
    let mut attempts = names(&paths.run_dir(run))?.iter().filter_map(number).collect::<Vec<i32>>();
    attempts.sort_unstable();
    Ok(attempts)
}

/// Runs that have a directory, in order.
pub(super) fn runs_of(paths: &SessionPaths) -> Result<Vec<i64>, ComputeError> {
    let mut runs = names(&paths.root.join("runs"))?.iter().filter_map(|name| name.parse().ok()).collect::<Vec<i64>>();
    runs.sort_unstable();
    Ok(runs)
}

/// Every attempt that has an intent, in order.
pub(super) fn all_attempts(paths: &SessionPaths) -> Result<Vec<(i64, i32)>, ComputeError> {
    let mut all = Vec::new();
    for run in runs_of(paths)? {
        all.extend(attempts_of(paths, run)?.into_iter().map(|attempt| (run, attempt)));
    }
    Ok(all)
}

/// The last attempt that has an intent.
pub(super) fn latest(paths: &SessionPaths) -> Result<Option<(i64, i32)>, ComputeError> {
    for run in runs_of(paths)?.into_iter().rev() {
        if let Some(attempt) = attempts_of(paths, run)?.last() {
            return Ok(Some((run, *attempt)));
        }
    }
    Ok(None)
}
