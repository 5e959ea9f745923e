//! How much of models a run may use, to its runner: before messages, when those whose limits hold for it have changed, and, where its
//! project has a budget, when usage of others is stored.

use std::{convert::Infallible, time::Duration};

use ambient_persistence::{RulerVersions, retry::jittered};
use ambient_runner_protocol::ModelBudget;
use tokio::{
    sync::{
        Mutex,
        broadcast::{self, error::RecvError},
        watch,
    },
    time::{Instant, sleep, timeout},
};

use super::{Context, RunRef};
use crate::runner_client::{RunnerClient, RunnerClientError};

/// Least time between two looks: a busy project's usage is stored many times a second.
const LEAST_INTERVAL: Duration = Duration::from_millis(500);
/// The same, in times of what a look took: adding up a large project's usage must not keep the database busy.
const LEAST_LOOKS: u32 = 10;
/// Most time between two looks: a budget's period ends without anybody saying so.
const MOST_INTERVAL: Duration = Duration::from_secs(60);
/// Timeout of a look.
const LOOK: Duration = Duration::from_secs(10);

/// What the runner at the other end of one connection has been told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Option<ModelBudget>>);

impl Told {
    /// Tells the run's budget, if it is not the one that was told last. Returns whether its project has one.
    pub(super) async fn tell(&self, context: &Context, run: &RunRef, client: &RunnerClient) -> Result<bool, String> {
        let mut told = self.0.lock().await;
        let looked = timeout(LOOK, context.budgets.of(&run.session_id, run.run)).await;
        let budget = looked.map_err(|_| format!("no answer within {LOOK:?}"))?.map_err(|e| e.to_string())?;
        if *told == Some(budget) {
            return Ok(budget.project.is_some());
        }
        match client.set_model_budget(&budget).await {
            // A runner of an earlier release keeps to what it was launched with.
            Ok(()) | Err(RunnerClientError::Refused { status: 404, .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
        *told = Some(budget);
        Ok(budget.project.is_some())
    }

    /// Tells it whenever it may have changed, as long as the connection lasts.
    pub(super) async fn keep_up(
        &self,
        context: &Context,
        run: &RunRef,
        client: &RunnerClient,
        mut rulers: watch::Receiver<Option<RulerVersions>>,
    ) -> Infallible {
        loop {
            // Anew each time, and before the look: what was stored earlier is seen by it, what is stored later is told.
            let mut spending = context.spending.subscribe();
            rulers.mark_unchanged();
            let began = Instant::now();
            let (with_others, most) = match self.tell(context, run, client).await {
                Ok(with_others) => (with_others, MOST_INTERVAL),
                Err(reason) => {
                    tracing::warn!(
                        session = run.session_id,
                        reason,
                        "the runner cannot be told its budget; trying again"
                    );
                    (true, LEAST_INTERVAL)
                }
            };
            sleep(LEAST_INTERVAL.max(began.elapsed() * LEAST_LOOKS)).await;
            let changed = async {
                tokio::select! {
                    () = spent(&mut spending, &run.project_id), if with_others => {}
                    Ok(()) = rulers.changed() => {}
                    // Without the registry nobody waits here any more.
                    else => std::future::pending().await,
                }
            };
            let _ = timeout(jittered(most), changed).await;
        }
    }
}

/// Returns when usage of the project may have been stored.
async fn spent(spending: &mut broadcast::Receiver<String>, project_id: &str) {
    loop {
        match spending.recv().await {
            Ok(project) if project == project_id => return,
            Ok(_) => {}
            // What was missed may have been this project's.
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
