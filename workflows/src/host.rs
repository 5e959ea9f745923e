//! The worker host: runs workflows and activities on a thread of its own (`Worker::run()` is not `Send`), with the outbox
//! dispatcher and the compute observer beside it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use ambient_persistence::Hints;
use temporalio_client::{Client, WorkflowIdConflictPolicy, WorkflowStartOptions, errors::WorkflowStartError};
use temporalio_sdk::{Runtime, Worker, WorkerOptions};
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    activities::Activities, dispatcher, observer, project_delete::ProjectDelete, project_provision::ProjectProvision,
    services::Services, session_delete::SessionDelete, session_reconcile::SessionReconcile,
    session_start::SessionStart, session_stop::SessionStop, session_supervise::SessionSupervise, step::host_queue,
    sweep::Sweep, token_refresh::TokenRefresh,
};

/// Task queue of workflows and of activities that any worker may run.
pub const TASK_QUEUE: &str = "ambient";

/// Why the host could not be started.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The worker cannot be made.
    #[error("the worker cannot be started: {0}")]
    Worker(String),
    /// The sweep cannot be started.
    #[error("the sweep cannot be started: {0}")]
    Sweep(#[from] WorkflowStartError),
}

type Stop = Box<dyn Fn() + Send + Sync>;

/// A running worker.
pub struct WorkerHost {
    stops: Vec<Stop>,
    thread: Option<JoinHandle<()>>,
    tasks: JoinSet<()>,
    alive: Arc<AtomicBool>,
}

impl WorkerHost {
    /// Starts worker, dispatcher, observer and sweep.
    ///
    /// # Errors
    /// When worker or sweep cannot be started.
    pub async fn start(client: Client, services: Services, hints: Hints) -> Result<Self, HostError> {
        let alive = Arc::new(AtomicBool::new(true));
        let (ready, stops) = oneshot::channel();
        let thread = {
            let (client, services, alive) = (client.clone(), services.clone(), alive.clone());
            std::thread::Builder::new().name("workflows".to_owned()).spawn(move || {
                if let Err(error) = work(client, services, ready) {
                    tracing::error!(error, "the workflow worker has ended");
                }
                alive.store(false, Ordering::Release);
            })
        }
        .map_err(|error| HostError::Worker(error.to_string()))?;
        let stops = stops.await.map_err(|_| HostError::Worker("see the log".to_owned()))?;
        let mut tasks = JoinSet::new();
        let db = services.db.clone();
        tasks.spawn(dispatcher::run(db, hints, client.clone(), TASK_QUEUE.to_owned()));
        tasks.spawn(observer::run(services.clone()));
        start_sweep(&client, services.compute.host()).await?;
        Ok(Self { stops, thread: Some(thread), tasks, alive })
    }

    /// Whether the worker runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// A probe for readiness checks.
    #[must_use]
    pub fn alive(&self) -> Arc<AtomicBool> {
        self.alive.clone()
    }

    /// Stops polling, lets running tasks end for at most `grace`; what is left is done by the next worker.
    pub async fn shutdown(mut self, grace: Duration) {
        self.tasks.shutdown().await;
        for stop in &self.stops {
            stop();
        }
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join());
            if tokio::time::timeout(grace, joined).await.is_err() {
                tracing::warn!("the workflow worker did not end in time; its tasks are taken over");
            }
        }
    }
}

fn work(client: Client, services: Services, ready: oneshot::Sender<Vec<Stop>>) -> Result<(), String> {
    let say = |error: &dyn std::fmt::Display| error.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| say(&e))?;
    runtime.block_on(async move {
        let sdk = Runtime::from_current_tokio(Default::default()).map_err(|e| say(&e))?;
        let host = services.compute.host().to_owned();
        let lifecycles = lifecycle_options(services.clone()).map_err(|e| say(&e))?;
        let mut lifecycles = Worker::new(&sdk, client.clone(), lifecycles).map_err(|e| say(&e))?;
        let on_host = WorkerOptions::new(host_queue(&host)).register_activities(Activities::new(services)).build();
        let mut on_host = Worker::new(&sdk, client, on_host).map_err(|e| say(&e))?;
        let stops: Vec<Stop> = vec![Box::new(lifecycles.shutdown_handle()), Box::new(on_host.shutdown_handle())];
        let _ = ready.send(stops);
        let (lifecycles, on_host) = tokio::join!(lifecycles.run(), on_host.run());
        lifecycles.and(on_host).map_err(|e| say(&e))
    })
}

fn lifecycle_options(services: Services) -> Result<WorkerOptions, temporalio_sdk::error::WorkflowRegistrationError> {
    Ok(WorkerOptions::new(TASK_QUEUE)
        .register_workflow::<SessionSupervise>()?
        .register_workflow::<SessionStart>()?
        .register_workflow::<SessionStop>()?
        .register_workflow::<SessionReconcile>()?
        .register_workflow::<SessionDelete>()?
        .register_workflow::<TokenRefresh>()?
        .register_workflow::<ProjectProvision>()?
        .register_workflow::<ProjectDelete>()?
        .register_workflow::<Sweep>()?
        .register_activities(Activities::new(services))
        .build())
}

async fn start_sweep(client: &Client, host: &str) -> Result<(), WorkflowStartError> {
    let options = WorkflowStartOptions::new(TASK_QUEUE, format!("sweep/{host}"))
        .id_conflict_policy(WorkflowIdConflictPolicy::UseExisting)
        .build();
    match client.start_workflow(Sweep::run, host.to_owned(), options).await {
        Ok(_) | Err(WorkflowStartError::AlreadyStarted { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
