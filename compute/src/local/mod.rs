//! Sessions as processes on this machine.
//!
//! Layout: `{data}/projects/{project}/sessions/{session}/` as in [`SessionPaths`], sockets in `{data}/run/{session}/`,
//! markers of deleted sessions in `{data}/deleted/`. If the server is root every session has its own user ids, one for
//! its agent and one for its runner (see `users`); its directory still belongs to root, so that nobody can replace the fence.
//!
//! Invariants: a runner is spawned only under the fence's lock; the intent is on disk before the process; a process is
//! identified by (pid, start time, boot id) and its nonce, never by its pid alone; everything here may be killed and repeated.
//!
//! Which module may use which: a module uses those on the lines above its own, and nothing else (`tests/tests/module_order.rs` reads this list).
//!
//! * `disk`, `error`, `hub`, `options`, `space`, `user_ids`: the system, settings, what watchers are told, the available ids
//! * `cgroup`: cgroups of a run's processes
//! * `host`, `processes`: what all parts share; what is running
//! * `layout`: directories, files and their owners
//! * `deleted`, `exhaustion`, `fence`, `owners`, `state`, `watchdog`: what is recorded about sessions and runs; what they use
//! * `absence`, `inventory`, `users`, `watch`: proofs, lists, a session's user ids, seeing runners come and go
//! * `launch`, `remains`, `terminate`: a runner's start, what is left of a workspace, a runner's end

mod absence;
mod cgroup;
mod deleted;
mod disk;
mod error;
mod exhaustion;
mod fence;
mod host;
mod hub;
mod inventory;
mod launch;
mod layout;
mod options;
mod owners;
mod processes;
mod remains;
mod space;
mod state;
mod terminate;
mod user_ids;
mod users;
mod watch;
mod watchdog;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use self::{
    options::{Confinement, Limits, LocalOptions, Network},
    space::free_space,
    user_ids::{SESSION_UIDS, check_uid_base, probe_user_ids},
};
use async_trait::async_trait;
use futures::stream::BoxStream;

use self::host::{Local, run_blocking};
use crate::{
    AbsenceProof, Compute, ComputeError, Endpoint, Inventory, LaunchRequest, Launched, Observation, Resource,
    RunnerState, Secret, SecretName, SessionRef,
};

/// Local compute: trait [`Compute`] with processes.
pub struct LocalCompute {
    local: Arc<Local>,
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

    /// Runs a session's blocking work, see [`run_blocking`].
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Local>) -> Result<T, ComputeError> + Send + 'static,
    ) -> Result<T, ComputeError> {
        let local = self.local.clone();
        run_blocking(move || work(&local)).await
    }
}

/// Removes the cgroups of an abandoned data directory, once its runners have ended: they outlive servers, and nothing
/// else knows whose they were. Waits for at most a second for processes that are ending.
pub fn remove_control_groups(data_dir: &Path) {
    if let Ok(data_dir) = std::path::absolute(data_dir) {
        cgroup::Trees::existing(&layout::installation(&data_dir)).clear(Duration::from_secs(1));
    }
}

impl Drop for LocalCompute {
    fn drop(&mut self) {
        self.local.hub.close();
        self.local.groups.leave();
    }
}

#[async_trait]
impl Compute for LocalCompute {
    fn host(&self) -> &str {
        &self.local.options.host
    }

    fn agents(&self) -> &[&str] {
        &launch::AGENTS
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

    async fn remove_workspace(&self, session: &SessionRef, run: i64) -> Result<Option<u64>, ComputeError> {
        let session = session.clone();
        self.blocking(move |local| local.remove_workspace(&session, run)).await
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
