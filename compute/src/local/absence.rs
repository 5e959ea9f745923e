//! Proof that nothing of a run is left, and removal of a session.

use std::fs::TryLockError;

use ambient_runner_protocol::{LaunchSpec, SessionPaths, Started};

use super::{
    error::io_error,
    host::Local,
    layout::{check_session, is_there, open_lock, read_json, remove_tree},
    processes::{Entry, Table, boot_id, lives, open_runner},
    state::{all_attempts, attempts_of, runs_of, started},
};
use crate::{AbsenceProof, ComputeError, SessionRef};

impl Local {
    pub(super) fn has_later_run(&self, paths: &SessionPaths, run: i64) -> Result<bool, ComputeError> {
        Ok(runs_of(paths)?.last().is_some_and(|last| *last > run))
    }

    pub(super) fn prove_absent(&self, session: &SessionRef, run: i64) -> Result<AbsenceProof, ComputeError> {
        check_session(session)?;
        let host = self.options.host.clone();
        let paths = self.paths(session);
        if !is_there(&paths.root)? {
            if self.is_deleted(session)? {
                return Ok(AbsenceProof {
                    host,
                    evidence: vec!["the session is deleted and nothing can be launched".to_owned()],
                });
            }
            // Whoever raises the fence creates its place.
            return Err(no_fence(run, 0));
        }
        // Under the lock: a launch is either seen here or finds the fence.
        let fence = self.lock_fence(session)?;
        if fence.stopped_run < run {
            return Err(no_fence(run, fence.stopped_run));
        }
        let mut evidence =
            vec![format!("nothing of run {} or an earlier one can be launched any more", fence.stopped_run)];
        let mut remains = Vec::new();
        self.look_at_attempts(&paths, run, &mut evidence, &mut remains)?;
        self.look_at_processes(&paths, run, &mut evidence, &mut remains)?;
        if !self.has_later_run(&paths, run)? {
            look_at_lock(&paths, &mut evidence, &mut remains)?;
        }
        self.look_at_group(session, run, &mut evidence, &mut remains);
        if remains.is_empty() {
            Ok(AbsenceProof { host, evidence })
        } else {
            Err(ComputeError::Remains { run, remains })
        }
    }

    fn look_at_attempts(
        &self,
        paths: &SessionPaths,
        run: i64,
        evidence: &mut Vec<String>,
        remains: &mut Vec<String>,
    ) -> Result<(), ComputeError> {
        let attempts = attempts_of(paths, run)?;
        if attempts.is_empty() {
            evidence.push(format!("run {run} was never launched here"));
        }
        for attempt in attempts {
            let Some(intent) = read_json::<LaunchSpec>(&paths.launch(run, attempt))? else { continue };
            if intent.host != self.options.host {
                remains.push(format!(
                    "attempt {attempt} was launched on host '{}', which alone can prove it",
                    intent.host
                ));
                continue;
            }
            match started(paths, &intent)? {
                None => evidence.push(format!("attempt {attempt}: no runner came up")),
                Some(started) if started.boot_id != boot_id()? => {
                    evidence.push(format!("attempt {attempt}: the machine was restarted since"));
                }
                Some(started) if open_runner(&started)?.is_some() => {
                    remains.push(format!("runner of attempt {attempt}: pid {}", started.pid));
                }
                Some(started) => {
                    evidence.push(format!("attempt {attempt}: its runner, pid {}, is gone", started.pid));
                    self.look_at_namespaces(paths, attempt, &started, evidence, remains)?;
                }
            }
        }
        Ok(())
    }

    /// What the kernel knows better than any scan of `/proc`, and what nobody knows if it has no namespaces.
    fn look_at_namespaces(
        &self,
        paths: &SessionPaths,
        attempt: i32,
        started: &Started,
        evidence: &mut Vec<String>,
        remains: &mut Vec<String>,
    ) -> Result<(), ComputeError> {
        match &started.init {
            Some(init) if lives(init) => remains.push(format!(
                "attempt {attempt}: pid {}, the first of its PID namespace, has not ended, so something in there may live (it may \
                 wait for a device)",
                init.pid
            )),
            Some(init) => evidence.push(format!(
                "attempt {attempt}: pid {}, the first of its PID namespace, has ended, and everything in it with it",
                init.pid
            )),
            None if self.users(paths)?.is_some() => {
                evidence.push(format!("attempt {attempt}: it had no PID namespace; its processes are known by their user id"));
            }
            None => evidence.push(format!(
                "attempt {attempt}: it had no PID namespace: a process that dropped its environment and left its session would \
                 not be seen"
            )),
        }
        Ok(())
    }

    fn look_at_processes(
        &self,
        paths: &SessionPaths,
        run: i64,
        evidence: &mut Vec<String>,
        remains: &mut Vec<String>,
    ) -> Result<(), ComputeError> {
        let attempts = attempts_of(paths, run)?.into_iter().map(|attempt| (run, attempt)).collect::<Vec<_>>();
        let mut marks = self.marks(paths, &attempts)?;
        if self.has_later_run(paths, run)? {
            marks.uids.clear();
        }
        // Twice, because a process that forks during a scan may be missed once.
        for table in [Table::look(), Table::look()] {
            let left = table.members(&marks);
            remains.extend(
                left.iter()
                    .map(Entry::describe)
                    .chain(table.blind())
                    .filter(|one| !remains.contains(one))
                    .collect::<Vec<_>>(),
            );
        }
        let uids: Vec<String> = marks.uids.iter().map(u32::to_string).collect();
        let uids = if uids.is_empty() { String::new() } else { format!(", nor its user id {}", uids.join(" or ")) };
        let whose = if attempts.len() == 1 { "its attempt" } else { "one of its attempts" };
        evidence.push(format!("no process in /proc has the nonce or the kernel session of {whose}{uids}"));
        Ok(())
    }

    /// The kernel's own answer, if there is a cgroup. It is then removed: the fence forbids everything that could use it.
    fn look_at_group(&self, session: &SessionRef, run: i64, evidence: &mut Vec<String>, remains: &mut Vec<String>) {
        let group = self.groups.group(&session.session_id, run);
        match group.is_empty() {
            Ok(Some(true)) => evidence.push("its control group is empty".to_owned()),
            Ok(Some(false)) => return remains.push("its control group is not empty".to_owned()),
            Ok(None) => {}
            Err(error) => return remains.push(format!("its control group, which cannot be looked at: {error}")),
        }
        if let Err(error) = group.remove() {
            tracing::warn!(%error, "the control group of a run that is over cannot be removed; the sweep tries again");
        }
    }

    /// Removes cgroups of runs that can have no processes any more.
    pub(super) fn sweep_groups(&self, sessions: &[SessionRef]) {
        for (session_id, run) in self.groups.runs() {
            let session = sessions.iter().find(|session| session.session_id == session_id);
            let over = session.is_none_or(|session| {
                self.stopped_run(session, &self.paths(session)).is_ok_and(|stopped| stopped >= run)
            });
            let group = self.groups.group(&session_id, run);
            if over && matches!(group.is_empty(), Ok(None | Some(true))) {
                let _ = group.remove();
            }
        }
    }

    pub(super) fn delete_workspace(&self, session: &SessionRef) -> Result<(), ComputeError> {
        check_session(session)?;
        let paths = self.paths(session);
        if is_there(&paths.root)? {
            let _fence = self.lock_fence(session)?;
            let attempts = all_attempts(&paths)?;
            let mut remains = self.marks(&paths, &attempts)?.remains();
            look_at_lock(&paths, &mut Vec::new(), &mut remains)?;
            if !remains.is_empty() {
                let run = attempts.last().map_or(0, |(run, _)| *run);
                return Err(ComputeError::Remains { run, remains });
            }
            // First, so that a late launch finds it whenever it looks.
            self.mark_deleted(session)?;
            remove_tree(&paths.root)?;
        } else {
            self.mark_deleted(session)?;
        }
        remove_tree(&self.socket_dir(&session.session_id))
    }
}

fn no_fence(run: i64, stands_at: i64) -> ComputeError {
    ComputeError::Invalid(format!(
        "absence of run {run} cannot be proven: its fence is not raised (it stands at {stands_at})"
    ))
}

pub(super) fn look_at_lock(
    paths: &SessionPaths,
    evidence: &mut Vec<String>,
    remains: &mut Vec<String>,
) -> Result<(), ComputeError> {
    let path = paths.life_lock();
    if !is_there(&path)? {
        return Ok(());
    }
    match open_lock(&path)?.try_lock() {
        Ok(()) => evidence.push("its lock is free".to_owned()),
        Err(TryLockError::WouldBlock) => remains.push("its lock (life.lock) is held".to_owned()),
        Err(TryLockError::Error(error)) => return Err(io_error(format!("locking {}", path.display()), error)),
    }
    Ok(())
}
