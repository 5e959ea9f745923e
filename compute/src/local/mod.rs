//! Sessions as processes on this machine.
//!
//! Layout: `{data}/projects/{project}/sessions/{session}/` as in [`SessionPaths`], sockets in `{data}/run/{session}/`,
//! markers of deleted sessions in `{data}/deleted/`. If the server is root every session has its own user ids, one for
//! its agent and one for its runner (see `users`); its directory still belongs to root, so that nobody can replace the fence.
//!
//! Invariants: a runner is spawned only under the fence's lock; the intent is on disk before the process; a process is
//! identified by (pid, start time, boot id) and its nonce, never by its pid alone; everything here may be killed and repeated.

mod absence;
mod cgroup;
mod deleted;
mod disk;
mod exhaustion;
mod fence;
mod inventory;
mod launch;
mod layout;
mod owners;
mod processes;
mod space;
mod state;
mod terminate;
mod users;
mod watch;
mod watchdog;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use self::{
    space::free_space,
    users::{SESSION_UIDS, check_uid_base, probe_user_ids},
};
pub use ambient_wire::runner::{Confinement, Limits};
use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{
    AbsenceProof, Compute, ComputeError, Endpoint, Inventory, LaunchRequest, Launched, Observation, OwnLimits,
    Resource, RunnerState, Secret, SecretName, SessionRef,
};

/// Agents that this build's runner can host.
const AGENTS: [&str; 1] = ["script"];

/// How local compute is set up.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Where everything is kept; created if absent.
    pub data_dir: PathBuf,
    /// The `ambient-runner` program.
    pub runner_binary: PathBuf,
    /// Name of this host.
    pub host: String,
    /// Additional paths besides the system's that agents may read (toolchains).
    pub readable_paths: Vec<PathBuf>,
    /// Files of the platform outside `data_dir` that no `file://` origin may be or contain (configuration, tokens).
    pub platform_paths: Vec<PathBuf>,
    /// First of [`SESSION_UIDS`] user ids for sessions; used if the server is root. `None`: sessions run as the server's user.
    pub session_uid_base: Option<u32>,
    /// Limits for a session that names none.
    pub limits: Limits,
    /// The most that a session gets, whatever it asks for.
    pub most: OwnLimits,
    /// Bytes kept for the server and released when the disk is full; 0 = none. At most a twentieth of the file system.
    pub disk_reserve: u64,
    /// With fewer free bytes than this nothing new is started. At most a tenth of the file system.
    pub disk_low_water: u64,
    /// How strictly agents are confined.
    pub confinement: Confinement,
}

impl LocalOptions {
    /// Defaults: user ids from 1,900,000,000, 4,096 processes, 16,384 open files, files up to 64 GiB, no other limits, best effort,
    /// no reserve, 64 MiB of low water.
    #[must_use]
    pub fn new(data_dir: PathBuf, runner_binary: PathBuf, host: String) -> Self {
        Self {
            data_dir,
            runner_binary,
            host,
            readable_paths: Vec::new(),
            platform_paths: Vec::new(),
            session_uid_base: Some(1_900_000_000),
            limits: Limits {
                processes: 4096,
                open_files: 16_384,
                address_space_bytes: 0,
                file_size_bytes: 64 * 1024 * 1024 * 1024,
                ..Limits::default()
            },
            most: OwnLimits::default(),
            disk_reserve: 0,
            disk_low_water: 64 << 20,
            confinement: Confinement::BestEffort,
        }
    }
}

/// Local compute: trait [`Compute`] with processes.
pub struct LocalCompute {
    local: Arc<Local>,
}

/// What all parts share.
struct Local {
    options: LocalOptions,
    /// The binary as sessions' users can execute it.
    runner_binary: PathBuf,
    /// User ids, if the server is root and sessions have their own.
    ids: Option<users::Ids>,
    hub: watch::Hub,
    /// Cgroups, as far as this machine lets us use them.
    groups: cgroup::Trees,
    /// The file system everything is on.
    space: space::Space,
}

impl LocalCompute {
    /// Creates the directories. Nothing is started; [`Compute::observe`] finds the runners that are alive.
    ///
    /// # Errors
    /// [`ComputeError::Invalid`] if sessions' users could not reach the directories, or paths get too long;
    /// [`ComputeError::Io`].
    pub fn new(options: LocalOptions) -> Result<Self, ComputeError> {
        let local = Local::prepare(options)?;
        Ok(Self { local: Arc::new(local) })
    }

    /// Runs a session's blocking work where it blocks nobody; it is completed even if the caller goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Local>) -> Result<T, ComputeError> + Send + 'static,
    ) -> Result<T, ComputeError> {
        let local = self.local.clone();
        run_blocking(move || work(&local)).await
    }
}

impl Drop for LocalCompute {
    fn drop(&mut self) {
        self.local.hub.close();
        self.local.groups.leave();
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ComputeError> + Send + 'static,
) -> Result<T, ComputeError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|e| io_error("blocking work", std::io::Error::other(e)))?
}

fn io_error(what: impl Into<String>, source: std::io::Error) -> ComputeError {
    ComputeError::Io { what: what.into(), source }
}

#[async_trait]
impl Compute for LocalCompute {
    fn host(&self) -> &str {
        &self.local.options.host
    }

    fn agents(&self) -> &[&str] {
        &AGENTS
    }

    fn event_log(&self, session: &SessionRef, run: i64) -> Option<PathBuf> {
        Some(self.local.paths(session).event_log(run))
    }

    async fn ensure_project(&self, project_id: &str) -> Result<(), ComputeError> {
        let project_id = project_id.to_owned();
        self.blocking(move |local| local.ensure_project(&project_id)).await
    }

    async fn delete_project(&self, project_id: &str) -> Result<(), ComputeError> {
        let project_id = project_id.to_owned();
        self.blocking(move |local| local.delete_project(&project_id)).await
    }

    async fn ensure_workspace(&self, session: &SessionRef) -> Result<(), ComputeError> {
        let session = session.clone();
        self.blocking(move |local| local.ensure_workspace(&session).map(drop)).await
    }

    async fn delete_workspace(&self, session: &SessionRef) -> Result<(), ComputeError> {
        let session = session.clone();
        self.blocking(move |local| local.delete_workspace(&session)).await
    }

    async fn write_secret(
        &self,
        s: &SessionRef,
        run: i64,
        name: SecretName,
        value: &Secret,
    ) -> Result<(), ComputeError> {
        let (session, value) = (s.clone(), value.clone());
        self.blocking(move |local| local.write_secret(&session, run, name, &value)).await
    }

    async fn delete_secrets(&self, session: &SessionRef, run: i64) -> Result<(), ComputeError> {
        let session = session.clone();
        self.blocking(move |local| local.delete_secrets(&session, run)).await
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, ComputeError> {
        let request = request.clone();
        self.blocking(move |local| local.launch(&request)).await
    }

    async fn state(&self, session: &SessionRef, run: i64, attempt: i32) -> Result<RunnerState, ComputeError> {
        let session = session.clone();
        self.blocking(move |local| Ok(local.assess(&session, run, attempt)?.state)).await
    }

    fn observe(&self) -> BoxStream<'static, Observation> {
        watch::observe(&self.local)
    }

    async fn endpoint(&self, session: &SessionRef, run: i64) -> Result<Endpoint, ComputeError> {
        let session = session.clone();
        self.blocking(move |local| local.endpoint(&session, run)).await
    }

    async fn raise_fence(&self, session: &SessionRef, run: i64) -> Result<(), ComputeError> {
        let session = session.clone();
        self.blocking(move |local| local.raise_fence(&session, run)).await
    }

    async fn kill_agents(&self, session: &SessionRef, run: i64) -> Result<(), ComputeError> {
        let session = session.clone();
        self.blocking(move |local| local.kill_agents(&session, run)).await
    }

    async fn terminate(&self, session: &SessionRef, run: i64, grace: Duration) -> Result<(), ComputeError> {
        terminate::terminate(&self.local, session, run, grace).await
    }

    async fn prove_absent(&self, session: &SessionRef, run: i64) -> Result<AbsenceProof, ComputeError> {
        let session = session.clone();
        self.blocking(move |local| local.prove_absent(&session, run)).await
    }

    async fn resources(&self, session: &SessionRef) -> Result<Vec<Resource>, ComputeError> {
        let session = session.clone();
        self.blocking(move |local| local.resources(&session)).await
    }

    async fn old_deletions(&self) -> Result<Vec<String>, ComputeError> {
        self.blocking(|local| local.old_deletions()).await
    }

    async fn forget_deletion(&self, session_id: &str) -> Result<(), ComputeError> {
        let session_id = session_id.to_owned();
        self.blocking(move |local| local.forget_deletion(&session_id)).await
    }

    async fn readiness(&self) -> Result<(), String> {
        let short = self.blocking(|local| Ok(local.space.shortage())).await.map_err(|error| error.to_string())?;
        short.map_or(Ok(()), Err)
    }

    async fn inventory(&self) -> Result<Vec<Inventory>, ComputeError> {
        self.blocking(|local| local.inventory()).await
    }
}
