//! Launch: ensure that a runner was started for (session, run, attempt), once.

use std::{
    collections::HashSet,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ambient_runner_protocol::{CONTRACT_VERSION, LaunchSpec, SessionPaths};

use super::{
    cgroup::Controller,
    error::io_error,
    host::Local,
    host::run_blocking,
    layout::{open_append, random_id, read_json, remove_file, write_json},
    options::Limits,
    processes::{self, Table},
    state::{Reaped, all_attempts, reaped_path, started},
    user_ids::Users,
    watch::ended,
};
use crate::{ComputeError, LaunchRequest, Launched, OwnLimits, RunnerState};

/// Agents that this build's runner can host.
pub(super) const AGENTS: [&str; 1] = ["script"];

/// How long the remains of an earlier attempt may take to die.
const REMAINS_PATIENCE: Duration = Duration::from_secs(10);
/// Search path of a runner.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Local {
    pub(super) fn launch(self: &Arc<Self>, request: &LaunchRequest) -> Result<Launched, ComputeError> {
        check(request)?;
        let (session, run, attempt) = (&request.session, request.run, request.attempt);
        self.ensure_workspace(session).map_err(|error| match error {
            ComputeError::Fenced { stopped_run, .. } => ComputeError::Fenced { run, stopped_run },
            other => other,
        })?;
        let paths = self.paths(session);
        let fence = self.lock_fence(session)?;
        if fence.stopped_run >= run {
            return Err(ComputeError::Fenced { run, stopped_run: fence.stopped_run });
        }
        let (earlier, later): (Vec<_>, Vec<_>) =
            all_attempts(&paths)?.into_iter().partition(|other| *other <= (run, attempt));
        if let Some((later_run, later_attempt)) = later.last() {
            return Err(ComputeError::Invalid(format!(
                "attempt {attempt} of run {run} is superseded by attempt {later_attempt} of run {later_run}"
            )));
        }
        let spec = match read_json::<LaunchSpec>(&paths.launch(run, attempt))? {
            Some(spec) => match self.adopt(request, &paths, &spec)? {
                Some(launched) => return Ok(launched),
                None => spec,
            },
            None => {
                if let Some(shortage) = self.space.shortage() {
                    return Err(ComputeError::DiskFull(shortage));
                }
                self.end_remains(&paths, run, &earlier)?;
                let users = self.settle_users(session, run)?;
                self.ensure_run(&paths, run, users)?;
                let spec = self.intent(request, &paths, users)?;
                write_json(&paths.launch(run, attempt), &spec, users.map(|users| users.runner))?;
                spec
            }
        };
        remove_file(&paths.stop_request(run))?;
        remove_file(&reaped_path(&paths, run, attempt))?;
        let group = self.groups.group(&session.session_id, run);
        let users = self.users(&paths)?;
        group.create(&spec.limits, users).map_err(|e| io_error(format!("control group of run {run}"), e))?;
        let child = self.spawn(&spec, &paths, users)?;
        if let Err(error) = group.add_runner(child.id()) {
            // Nothing of the agent is started outside its cgroup.
            tracing::warn!(%error, "a runner cannot be moved into its control group");
        }
        self.reap(child, paths, spec);
        drop(fence);
        self.watch(session, run, attempt);
        Ok(Launched::Started)
    }

    /// The intent exists. `None`: nothing came of it, so the process may be started again under the same nonce.
    fn adopt(
        self: &Arc<Self>,
        request: &LaunchRequest,
        paths: &SessionPaths,
        spec: &LaunchSpec,
    ) -> Result<Option<Launched>, ComputeError> {
        let known = self.assess(&request.session, request.run, request.attempt)?;
        if matches!(known.state, RunnerState::Running { .. }) {
            let runner = started(paths, spec)?.map(|started| started.pid);
            return Ok(Some(self.adopted(request, spec, runner.into_iter().collect())));
        }
        if matches!(known.state, RunnerState::Exited { .. }) || started(paths, spec)?.is_some() {
            return Ok(Some(Launched::AlreadyEnded));
        }
        let coming_up = Table::look().whole()?.with_nonce(&spec.nonce);
        Ok((!coming_up.is_empty()).then(|| self.adopted(request, spec, coming_up)))
    }

    /// Whoever started the runner may have died before moving it into its cgroup; outside of it, it can start no agent.
    fn adopted(self: &Arc<Self>, request: &LaunchRequest, spec: &LaunchSpec, processes: Vec<i32>) -> Launched {
        let group = self.groups.group(&request.session.session_id, request.run);
        // A server that is itself in another cgroup than the one that started it has other groups: the runner knows its own.
        let is_its_own = group.agent_groups() == spec.agent_groups;
        for pid in processes.into_iter().filter(|pid| is_its_own && !group.has_runner(*pid)) {
            // By number, as cgroups know no other name: it lived a moment ago, and numbers come round only after all others.
            if let Err(error) = group.add_runner(pid.cast_unsigned()) {
                tracing::warn!(%error, pid, "a runner cannot be moved into its control group");
            }
        }
        self.watch(&request.session, request.run, request.attempt);
        Launched::AlreadyRunning
    }

    /// A new attempt starts alone: what a lost runner left behind would work in the same files.
    fn end_remains(&self, paths: &SessionPaths, run: i64, earlier: &[(i64, i32)]) -> Result<(), ComputeError> {
        if earlier.is_empty() {
            return Ok(());
        }
        let remains = self.marks(paths, earlier)?.kill(&HashSet::new(), REMAINS_PATIENCE);
        if remains.is_empty() { Ok(()) } else { Err(ComputeError::Remains { run, remains }) }
    }

    fn intent(
        &self,
        request: &LaunchRequest,
        paths: &SessionPaths,
        users: Option<Users>,
    ) -> Result<LaunchSpec, ComputeError> {
        let session = &request.session;
        let nonce = random_id().map_err(|e| io_error("making a nonce", e))?;
        let limits = self.limits(&request.limits);
        Ok(LaunchSpec {
            version: CONTRACT_VERSION,
            session_id: session.session_id.clone(),
            project_id: session.project_id.clone(),
            run: request.run,
            attempt: request.attempt,
            nonce,
            session_dir: paths.root.clone(),
            socket: self.socket(&session.session_id, request.run),
            interactive: request.interactive,
            agent: request.agent.clone(),
            agent_command: request.agent_command.clone(),
            model: request.model.clone(),
            setup_script: request.setup_script.clone(),
            network: request.network.clone().unwrap_or_else(|| self.options.network.clone()),
            permissions: request.permissions.clone(),
            git_identity: request.git_identity.clone(),
            readable_paths: self.options.readable_paths.clone(),
            platform_paths: [&self.options.data_dir].into_iter().chain(&self.options.platform_paths).cloned().collect(),
            unenforced: self.groups.unenforced(&limits, users.is_some()),
            agent_groups: self.groups.group(&session.session_id, request.run).agent_groups(),
            limits,
            confinement: self.options.confinement,
            own_user: users.is_some(),
            agent_user: users.and_then(|users| users.agent_apart()),
            host: self.options.host.clone(),
        })
    }

    /// The session's own limits, else the server's, and never more than its maxima.
    fn limits(&self, own: &OwnLimits) -> Limits {
        let (limits, most) = (own.over(&self.options.limits), &self.options.most);
        // 0 is no limit.
        let at_most = |limit: u64, most: Option<u64>| match most {
            Some(most) if limit == 0 || limit > most => most,
            _ => limit,
        };
        let memory_bytes = at_most(limits.memory_bytes, most.memory_bytes);
        Limits {
            cpu_millis: at_most(limits.cpu_millis, most.cpu_millis),
            memory_bytes,
            processes: at_most(limits.processes, most.processes),
            disk_bytes: at_most(limits.disk_bytes, most.disk_bytes),
            open_files: at_most(limits.open_files, most.open_files),
            data_bytes: if self.groups.has(Controller::Memory) { 0 } else { memory_bytes },
            ..limits
        }
    }

    fn spawn(&self, spec: &LaunchSpec, paths: &SessionPaths, users: Option<Users>) -> Result<Child, ComputeError> {
        let log = open_append(&paths.runner_log(spec.run))?;
        let error_log = log.try_clone().map_err(|e| io_error("opening the runner's log", e))?;
        let mut command = Command::new(&self.runner_binary);
        match users {
            Some(Users { agent, runner }) if spec.agent_user == Some(agent) => {
                command.args(["become", "--runner-user"]).arg(runner.to_string());
                command.arg("--agent-user").arg(agent.to_string()).arg("--");
            }
            Some(Users { runner, .. }) => drop(command.gid(runner).uid(runner)),
            None => {}
        }
        command.arg("serve").arg("--launch").arg(paths.launch(spec.run, spec.attempt));
        command.current_dir(&paths.root).env_clear();
        command.env("PATH", PATH).env("LANG", "C.UTF-8").env("AMBIENT_NONCE", &spec.nonce);
        command.stdin(Stdio::null()).stdout(log).stderr(error_log);
        command.spawn().map_err(|e| io_error(format!("starting {}", self.runner_binary.display()), e))
    }

    /// Waits for our child, so that it leaves no zombie, and records how it ended.
    fn reap(self: &Arc<Self>, mut child: Child, paths: SessionPaths, spec: LaunchSpec) {
        let pid = child.id().cast_signed();
        tokio::spawn(async move {
            if let Some(process) = processes::open_child(pid) {
                ended(process).await;
            }
            let note = move || {
                let status = child.wait().map_err(|e| io_error("waiting for a runner", e))?;
                let reaped = Reaped { nonce: spec.nonce, status: status.to_string(), code: status.code() };
                write_json(&reaped_path(&paths, spec.run, spec.attempt), &reaped, None)
            };
            if let Err(error) = run_blocking(note).await {
                tracing::debug!(%error, "the end of a runner cannot be noted");
            }
        });
    }
}

fn check(request: &LaunchRequest) -> Result<(), ComputeError> {
    if request.agent_command.is_none() && !AGENTS.contains(&request.agent.as_str()) {
        return Err(ComputeError::UnknownAgent { agent: request.agent.clone(), available: AGENTS.join(", ") });
    }
    if request.run < 1 || request.attempt < 1 {
        return Err(ComputeError::Invalid("run and attempt begin with 1".to_owned()));
    }
    Ok(())
}
