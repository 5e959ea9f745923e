//! The worker host: the worker, with the outbox dispatcher and the compute observer beside it.

use std::time::Duration;

use ambient_persistence::Hints;
use temporalio_client::{Client, WorkflowIdConflictPolicy, WorkflowStartOptions, errors::WorkflowStartError};
use tokio::task::JoinSet;

use crate::{
    dispatcher, observer,
    services::Services,
    sweep::Sweep,
    worker::{TASK_QUEUE, WorkerHealth, WorkerThread},
};

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

/// A running worker host.
pub struct WorkerHost {
    worker: WorkerThread,
    tasks: JoinSet<()>,
}

impl WorkerHost {
    /// Starts worker, dispatcher, observer and sweep. `health` tells from then on whether the worker works.
    ///
    /// # Errors
    /// When worker or sweep cannot be started.
    pub async fn start(
        client: Client,
        services: Services,
        hints: Hints,
        health: WorkerHealth,
    ) -> Result<Self, HostError> {
        let worker = WorkerThread::start(client.clone(), services.clone(), health).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(dispatcher::run(services.db.clone(), hints, client.clone(), TASK_QUEUE.to_owned()));
        tasks.spawn(observer::run(services.clone()));
        start_sweep(&client, services.compute.host()).await?;
        Ok(Self { worker, tasks })
    }

    /// Stops polling, lets running tasks end for at most `grace`; what is left is done by the next worker.
    pub async fn shutdown(mut self, grace: Duration) {
        self.tasks.shutdown().await;
        self.worker.shutdown(grace).await;
    }
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
