//! The worker host: the worker, with the outbox dispatcher and the compute observer alongside.

use std::time::Duration;

use ambient_persistence::Hints;
use temporalio_client::{Client, WorkflowIdConflictPolicy, WorkflowStartOptions, errors::WorkflowStartError};
use tokio::task::JoinSet;

use crate::{
    activities::when_asked,
    dispatcher,
    engine_client::EngineClient,
    observer,
    services::Services,
    sweep::Sweep,
    worker::{WorkerError, WorkerHealth, WorkerSettings, WorkerThread},
};

/// Between two attempts to start the sweep.
const SWEEP_AGAIN: Duration = Duration::from_secs(2);

/// A running worker host.
pub struct WorkerHost {
    worker: WorkerThread,
    tasks: JoinSet<()>,
}

impl WorkerHost {
    /// Starts worker, dispatcher, observer and sweep. From then on `health` says whether the worker works. If a cluster
    /// is not there yet, they wait for it.
    ///
    /// # Errors
    /// When the worker cannot be created.
    pub async fn start(
        client: EngineClient,
        services: Services,
        hints: Hints,
        health: WorkerHealth,
        settings: WorkerSettings,
    ) -> Result<Self, WorkerError> {
        let queue = settings.task_queue.clone();
        let worker = WorkerThread::start(client.clone(), services.clone(), health, settings).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(dispatcher::run(services.db.clone(), hints, client.clone(), queue.clone()));
        tasks.spawn(observer::run(services.clone()));
        tasks.spawn(when_asked(services.clone()));
        let host = services.compute.host().to_owned();
        tasks.spawn(async move { start_sweep(&client.connected().await, &queue, &host).await });
        Ok(Self { worker, tasks })
    }

    /// Stops polling, gives running tasks at most `grace` to end; the next worker does the rest.
    pub async fn shutdown(mut self, grace: Duration) {
        self.tasks.shutdown().await;
        self.worker.shutdown(grace).await;
    }
}

async fn start_sweep(client: &Client, task_queue: &str, host: &str) {
    let options = WorkflowStartOptions::new(task_queue, format!("sweep/{host}"))
        .id_conflict_policy(WorkflowIdConflictPolicy::UseExisting)
        .build();
    loop {
        match client.start_workflow(Sweep::run, host.to_owned(), options.clone()).await {
            Ok(_) | Err(WorkflowStartError::AlreadyStarted { .. }) => return,
            Err(error) => tracing::warn!(%error, "the sweep waits for the engine"),
        }
        tokio::time::sleep(SWEEP_AGAIN).await;
    }
}
