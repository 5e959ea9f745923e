//! Tasks whose pollers have gone before they received them.

use tonic::Status;

use crate::{
    caller::Claim,
    change::{Decision, Unchanged},
    engine::Engine,
    history::{commands::Needs, workflow_task::holds},
    matching::Kind,
    model::Target,
    token::TaskToken,
};

/// Gives a task back whose caller has gone before receiving it.
pub(crate) async fn give_back(engine: &Engine, claim: Claim) {
    let result = match claim {
        Claim::Workflow(token) => workflow_task(engine, &token).await,
        Claim::Activity(token) => activity(engine, &token).await,
    };
    if let Err(status) = result {
        tracing::debug!(%status, "task not given back, it will time out");
    }
}

/// The poller went away before it received the task: offer it again, as if it had not been taken.
async fn workflow_task(engine: &Engine, token: &TaskToken) -> Result<(), Status> {
    let given = engine
        .change(&Target::Run(token.run_id()), Needs::default(), |t, _| {
            if !holds(&t.run, token) {
                return Ok(Decision::Keep(()));
            }
            t.untake_task()?;
            Ok(Decision::Write(()))
        })
        .await;
    match given {
        Err(Unchanged::Status(status)) => Err(status),
        _ => Ok(()),
    }
}

/// The same for an activity.
async fn activity(engine: &Engine, token: &TaskToken) -> Result<(), Status> {
    if let Some(queue) = engine.inner.store.unclaim_activity(token, engine.inner.lease.process()).await? {
        engine.wake_queue(Kind::Activity, &queue);
    }
    Ok(())
}
