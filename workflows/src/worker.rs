//! The worker's thread. `Worker::run()` is not `Send`, so it has its own runtime; a worker that ends by itself is
//! recreated, because everything that waits for it would otherwise wait forever.
//!
//! That runtime ends with the worker, and with it whatever was opened in it: a pool connection, a timer, a child process.
//! So what activities open belongs to the process's runtime ([`InProcess`]), just as what the embedded engine opens belongs to its own.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ambient_persistence::retry::Backoff;
use temporalio_client::Client;
use temporalio_common::worker::WorkerDeploymentOptions;
use temporalio_sdk::{
    Runtime, Worker, WorkerOptions,
    error::WorkflowRegistrationError,
    interceptors::{ActivityInboundInterceptor, ExecuteActivityInput, ExecuteActivityOutput, Next},
};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::context::TokioContext;

use crate::{
    activities::{Activities, EarlierActivities},
    engine_client::EngineClient,
    services::Services,
    step::host_queue,
};

/// Task queue of workflows and of activities that any worker may run, unless configured otherwise.
pub const TASK_QUEUE: &str = "ambient";

/// How the worker identifies itself to the engine.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Task queue of workflows and of activities that any worker may run; a host's compute activities have one alongside.
    pub task_queue: String,
    /// Build id, and whether the engine routes executions by it; the binary's checksum without routing when `None`.
    pub deployment: Option<WorkerDeploymentOptions>,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self { task_queue: TASK_QUEUE.to_owned(), deployment: None }
    }
}

/// Pause before a worker is recreated: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A worker that ran for this long was healthy: the pauses start over.
const WELL: Duration = Duration::from_secs(60);

type Stop = Box<dyn Fn() + Send + Sync>;

/// Whether the worker works, for readiness checks. Clones share it.
#[derive(Clone, Default)]
pub struct WorkerHealth(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stops: Vec<Stop>,
    stopping: bool,
    down: Option<String>,
}

impl WorkerHealth {
    /// Whether the worker works.
    ///
    /// # Errors
    /// Why it does not, for people.
    pub fn check(&self) -> Result<(), String> {
        self.state().down.clone().map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the handles of a worker that is up; it is stopped at once if shutdown was requested meanwhile.
    fn up(&self, stops: Vec<Stop>) {
        let mut state = self.state();
        state.down = None;
        state.stops = stops;
        if state.stopping {
            state.stop();
        }
    }

    /// Whether shutdown was requested within `pause`.
    fn stops_within(&self, pause: Duration) -> bool {
        let waited = self.0.changed.wait_timeout_while(self.state(), pause, |state| !state.stopping);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopping
    }

    fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        state.stop();
        self.0.changed.notify_all();
    }
}

impl State {
    fn stop(&self) {
        for stop in &self.stops {
            stop();
        }
    }
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the worker cannot be started: {0}")]
pub struct WorkerError(String);

/// The thread and its worker.
pub(crate) struct WorkerThread {
    health: WorkerHealth,
    thread: JoinHandle<()>,
}

impl WorkerThread {
    /// Starts it; returns once the first worker polls, or waits for its engine.
    pub(crate) async fn start(
        client: EngineClient,
        services: Services,
        health: WorkerHealth,
        settings: WorkerSettings,
    ) -> Result<Self, WorkerError> {
        let (ready, is_ready) = oneshot::channel();
        let thread = {
            let (health, process) = (health.clone(), Handle::current());
            std::thread::Builder::new().name("workflows".to_owned()).spawn(move || {
                let mut ready = Some(ready);
                let parts = Parts { client, services, settings, process };
                keep(&health, || work(&parts, &health, &mut ready));
            })
        }
        .map_err(|error| WorkerError(error.to_string()))?;
        // If the first one cannot be created the start fails; its message is in the health.
        match is_ready.await {
            Ok(()) => Ok(Self { health, thread }),
            Err(_) => Err(WorkerError(health.check().err().unwrap_or_default())),
        }
    }

    /// Stops polling and gives running tasks at most `grace` to end.
    pub(crate) async fn shutdown(self, grace: Duration) {
        self.health.stop();
        let (ended, has_ended) = oneshot::channel();
        // In a thread that nobody waits for: a task of the runtime would keep the process from ending before the worker.
        let joining = std::thread::Builder::new().name("join-workflows".to_owned()).spawn(move || {
            let _ = self.thread.join();
            let _ = ended.send(());
        });
        if joining.is_err() || tokio::time::timeout(grace, has_ended).await.is_err() {
            tracing::warn!("the workflow worker did not end in time; its tasks are taken over");
        }
    }
}

/// Runs `work` again and again until shutdown is requested, or it requests shutdown itself.
fn keep(health: &WorkerHealth, mut work: impl FnMut() -> Result<(), Ended>) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let began = Instant::now();
        let ended = work();
        let reason = match ended {
            _ if health.state().stopping => return,
            Err(Ended::Unmade(reason)) => {
                health.state().down = Some(reason);
                return;
            }
            Err(Ended::Broken(reason)) => reason,
            Ok(()) => "it ended by itself".to_owned(),
        };
        if began.elapsed() > WELL {
            backoff.reset();
        }
        let pause = backoff.pause();
        tracing::error!(reason, pause_ms = pause.as_millis(), "the workflow worker has ended; it is being recreated");
        health.state().down = Some(format!("the workflow worker has ended and is being recreated: {reason}"));
        if health.stops_within(pause) {
            return;
        }
    }
}

/// How a worker ended.
enum Ended {
    /// The first one could not be created.
    Unmade(String),
    /// It worked, or is a later one.
    Broken(String),
}

/// What a worker is built from.
struct Parts {
    client: EngineClient,
    services: Services,
    settings: WorkerSettings,
    /// The process's runtime.
    process: Handle,
}

fn work(parts: &Parts, health: &WorkerHealth, ready: &mut Option<oneshot::Sender<()>>) -> Result<(), Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let worked = match &runtime {
        Ok(runtime) => runtime.block_on(run(parts, health, ready)),
        Err(error) => Err(error.to_string()),
    };
    worked.map_err(|reason| if ready.is_some() { Ended::Unmade(reason) } else { Ended::Broken(reason) })
}

/// The engine's client, once it is there; `None` if shutdown is requested first.
async fn connected(parts: &Parts, health: &WorkerHealth, ready: &mut Option<oneshot::Sender<()>>) -> Option<Client> {
    while parts.client.get().is_err() {
        // Nobody waits for a cluster that may be down for hours: readiness reports it.
        if let Some(ready) = ready.take() {
            let _ = ready.send(());
        }
        if health.state().stopping {
            return None;
        }
        let _ = tokio::time::timeout(Duration::from_millis(100), parts.client.connected()).await;
    }
    parts.client.get().ok()
}

async fn run(parts: &Parts, health: &WorkerHealth, ready: &mut Option<oneshot::Sender<()>>) -> Result<(), String> {
    let Some(client) = connected(parts, health, ready).await else { return Ok(()) };
    let services = &parts.services;
    let sdk = Runtime::from_current_tokio(Default::default()).map_err(|e| whole(&e))?;
    let in_process = InProcess(parts.process.clone());
    let lifecycles = lifecycle_options(&parts.settings, services.clone(), in_process.clone()).map_err(|e| whole(&e))?;
    let mut lifecycles = Worker::new(&sdk, client.clone(), lifecycles).map_err(|e| whole(&e))?;
    let queue = host_queue(&parts.settings.task_queue, services.compute.host());
    let on_host = WorkerOptions::new(queue)
        .maybe_deployment_options(parts.settings.deployment.clone())
        .register_activities(Activities::new(services.clone()))
        .register_activities(EarlierActivities::new(services.clone()))
        .activity_inbound_interceptor(in_process)
        .build();
    let mut on_host = Worker::new(&sdk, client, on_host).map_err(|e| whole(&e))?;
    let (stop_lifecycles, stop_on_host) = (lifecycles.shutdown_handle(), on_host.shutdown_handle());
    health.up(vec![Box::new(lifecycles.shutdown_handle()), Box::new(on_host.shutdown_handle())]);
    if let Some(ready) = ready.take() {
        let _ = ready.send(());
    }
    // Neither is of use without the other: if one ends, so does the other.
    let lifecycles = async {
        let ended = lifecycles.run().await;
        stop_on_host();
        ended
    };
    let on_host = async {
        let ended = on_host.run().await;
        stop_lifecycles();
        ended
    };
    let (lifecycles, on_host) = tokio::join!(lifecycles, on_host);
    lifecycles.and(on_host).map_err(|e| whole(&e))
}

/// Lets activities open what they open in the process's runtime, though the worker's runs them.
#[derive(Clone)]
struct InProcess(Handle);

impl ActivityInboundInterceptor for InProcess {
    fn execute_activity<'a>(
        &'a self,
        input: ExecuteActivityInput,
        next: Next<'a, ExecuteActivityInput, ExecuteActivityOutput<'a>>,
    ) -> ExecuteActivityOutput<'a> {
        Box::pin(TokioContext::new(next.run(input), self.0.clone()))
    }
}

/// An error with its causes: the SDK's own text only says what it did, such as which poll it was.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

/// The existing workflows, registered with the options of a worker or of a replayer: the two must have the same.
macro_rules! lifecycles {
    ($options:expr) => {
        $options
            .register_workflow::<$crate::session_supervise::SessionSupervise>()?
            .register_workflow::<$crate::session_start::SessionStart>()?
            .register_workflow::<$crate::session_stop::SessionStop>()?
            .register_workflow::<$crate::session_reconcile::SessionReconcile>()?
            .register_workflow::<$crate::session_delete::SessionDelete>()?
            .register_workflow::<$crate::token_refresh::TokenRefresh>()?
            .register_workflow::<$crate::project_provision::ProjectProvision>()?
            .register_workflow::<$crate::project_delete::ProjectDelete>()?
            .register_workflow::<$crate::sweep::Sweep>()?
    };
}
pub(crate) use lifecycles;

fn lifecycle_options(
    settings: &WorkerSettings,
    services: Services,
    in_process: InProcess,
) -> Result<WorkerOptions, WorkflowRegistrationError> {
    let options = WorkerOptions::new(settings.task_queue.clone())
        .maybe_deployment_options(settings.deployment.clone())
        .activity_inbound_interceptor(in_process)
        .register_activities(Activities::new(services.clone()))
        .register_activities(EarlierActivities::new(services));
    Ok(lifecycles!(options).build())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_worker_that_does_not_end_keeps_nobody_from_ending() {
        let (release, released) = mpsc::channel::<()>();
        let (ended, has_ended) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let thread = std::thread::spawn(move || released.recv().unwrap_or_default());
            let worker = WorkerThread { health: WorkerHealth::default(), thread };
            runtime.block_on(worker.shutdown(Duration::from_millis(10)));
            // At the end of the process: it waits for what was given to the runtime.
            drop(runtime);
            ended.send(()).unwrap();
        });
        assert_eq!(has_ended.recv_timeout(Duration::from_secs(30)), Ok(()));
        drop(release);
    }
}
