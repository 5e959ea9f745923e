//! How much of models a run may use, to its runner: when usage in its project is stored, before messages, and every few seconds, because
//! what people say about limits is not hinted at.

use std::{convert::Infallible, time::Duration};

use ambient_persistence::retry::jittered;
use ambient_runner_protocol::ModelBudget;
use tokio::{
    sync::{Mutex, broadcast::error::RecvError},
    time::{sleep, timeout},
};

use super::{Context, RunRef};
use crate::runner_client::{RunnerClient, RunnerClientError};

/// Least time between two looks: a busy project's usage is stored many times a second.
const LEAST_INTERVAL: Duration = Duration::from_millis(500);
/// Most time between two looks.
const MOST_INTERVAL: Duration = Duration::from_secs(5);
/// Timeout of a look.
const LOOK: Duration = Duration::from_secs(10);

/// What the runner at the other end of one connection has been told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Option<ModelBudget>>);

impl Told {
    /// Tells the run's budget, if it is not the one that was told last.
    pub(super) async fn tell(&self, context: &Context, run: &RunRef, client: &RunnerClient) -> Result<(), String> {
        let mut told = self.0.lock().await;
        let looked = timeout(LOOK, context.budgets.of(&run.session_id, run.run)).await;
        let budget = looked.map_err(|_| format!("no answer within {LOOK:?}"))?.map_err(|e| e.to_string())?;
        if *told == Some(budget) {
            return Ok(());
        }
        match client.set_model_budget(&budget).await {
            // A runner of an earlier release keeps to what it was launched with.
            Ok(()) | Err(RunnerClientError::Refused { status: 404, .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
        *told = Some(budget);
        Ok(())
    }

    /// Tells it whenever it may have changed, as long as the connection lasts.
    pub(super) async fn keep_up(&self, context: &Context, run: &RunRef, client: &RunnerClient) -> Infallible {
        loop {
            // Anew each time, and before the look: what was stored earlier is seen by it, what is stored later is told.
            let mut spending = context.spending.subscribe();
            if let Err(reason) = self.tell(context, run, client).await {
                tracing::warn!(session = run.session_id, reason, "the runner cannot be told its budget; trying again");
            }
            sleep(LEAST_INTERVAL).await;
            let spent = async {
                loop {
                    match spending.recv().await {
                        Ok(project) if project == run.project_id => return,
                        Ok(_) => {}
                        // What was missed may have been this project's.
                        Err(RecvError::Lagged(_)) => return,
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            let _ = timeout(jittered(MOST_INTERVAL), spent).await;
        }
    }
}
