//! `session-start/{session}/{run}.{attempt}`: from Pending (or a lost runner) to Running.
//!
//! On failure it reports, then undoes what it did: a runner ended by an undo before the outcome is decided would
//! be taken for lost and launched again. On cancellation it undoes nothing, since session-stop owns teardown, and ends as cancelled,
//! whatever its last step returned.

use std::time::Duration;

use ambient_domain::WorkflowInput;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{SyncWorkflowContext, WorkflowContext, WorkflowResult};

use crate::{
    activities::{Activities, EarlierActivities, place, report_failure},
    step::{Patience, Progress, Saga, Step, end, failure_of, is_cancelled},
};

/// The order of effects. Actions that take a millisecond or two share one step: each step costs a round trip through the engine.
pub const STEPS: &[Step] = &[
    Step::on_host(&Activities::bring_up_runner)
        .at_most(120)
        .undone_by(&[&Activities::terminate_runner, &Activities::revoke_credentials]),
    Step::on_host(&Activities::await_runner).at_most(120).patience(Patience::Few),
    Step::on_host(&Activities::reconcile_and_mark_running).at_most(600).patience(Patience::Few),
    Step::on_host(&Activities::deliver_prompt).at_most(120),
];

/// For executions that started before [`FEWER_STEPS`].
const EARLIER_STEPS: &[Step] = &[
    Step::anywhere(&EarlierActivities::report_provisioning),
    Step::on_host(&Activities::ensure_project_space),
    Step::on_host(&EarlierActivities::ensure_workspace),
    Step::on_host(&EarlierActivities::prove_earlier_runs_gone),
    Step::on_host(&EarlierActivities::issue_credentials).undone_by(&[&Activities::revoke_credentials]),
    Step::on_host(&EarlierActivities::launch_runner).undone_by(&[&Activities::terminate_runner]),
    Step::on_host(&Activities::await_runner).at_most(120).patience(Patience::Few),
    Step::on_host(&Activities::reconcile_repos).at_most(600).patience(Patience::Few),
    Step::anywhere(&EarlierActivities::mark_running),
    Step::on_host(&Activities::deliver_prompt).at_most(120),
];

/// Four steps instead of ten.
const FEWER_STEPS: &str = "session-start-2026-11-fewer-steps";

/// A start that is cancelled ends as cancelled, however its step ends.
const CANCELED_ANYHOW: &str = "session-start-2026-11-canceled-anyhow";

/// A start that has failed ends as failed, though the stop that follows cancels it.
const FAILED_ANYHOW: &str = "session-start-2026-11-failed-anyhow";

/// See the module.
#[workflow]
#[derive(Default)]
pub struct SessionStart {
    woken: bool,
}

#[workflow_methods]
impl SessionStart {
    /// Runs the table.
    ///
    /// # Errors
    /// When cancelled.
    #[run(name = "session-start")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: WorkflowInput) -> WorkflowResult<Progress> {
        if input.attempt > 1 {
            ctx.timer(backoff(input.attempt)).await;
        }
        attempt(ctx, &input).await
    }

    /// The session has changed. The steps read the state again themselves.
    #[signal(name = "wake")]
    pub fn wake(&mut self, _: &mut SyncWorkflowContext<Self>) {
        self.woken = true;
    }
}

async fn attempt(ctx: &WorkflowContext<SessionStart>, input: &WorkflowInput) -> WorkflowResult<Progress> {
    let mut saga = None;
    let work = async {
        let queue = place(ctx, input).await?;
        let steps = if ctx.patched(FEWER_STEPS) { STEPS } else { EARLIER_STEPS };
        saga.insert(Saga::new(ctx, input, Some(queue))).run(steps).await
    };
    let error = match work.await {
        Ok(progress) => return Ok(progress),
        Err(error) if is_cancelled(&error) || ctx.cancellation_token().reason().is_some() => {
            return Err(end(ctx, error, CANCELED_ANYHOW));
        }
        Err(error) => error,
    };
    let (reason, message) = failure_of(&error);
    let reported = report_failure(ctx, input, reason, message, ctx.patched(FAILED_ANYHOW))
        .await
        .map_err(|error| end(ctx, error, CANCELED_ANYHOW))?;
    // Superseded: a stop owns the teardown, or the next attempt has started, and an undo would hit that attempt.
    if let (Progress::Done, Some(saga)) = (reported, &mut saga) {
        saga.undo().await;
    }
    Err(error.into())
}

/// Wait before launching `attempt`: 1 s, 4 s.
fn backoff(attempt: i32) -> Duration {
    Duration::from_secs(1 << (2 * (attempt.clamp(2, 5) - 2)))
}
