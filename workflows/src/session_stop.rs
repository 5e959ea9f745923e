//! `session-stop/{session}/{run}`: leaves nothing of the run, and proves it.
//!
//! Never gives up: every step is retried forever, `status_detail` says what is blocking, and after five minutes the condition
//! StopIncomplete says what is left.

use std::time::Duration;

use ambient_domain::WorkflowInput;
use futures::FutureExt as _;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{ActivityExecutionError, ActivityOptions, WorkflowContext, WorkflowResult};

use crate::{
    activities::Activities,
    activities::place,
    step::{Patience, Progress, Saga, Step, end},
};

/// The order of effects.
pub const STEPS: &[Step] = &[
    Step::on_host(&Activities::raise_fence).patience(Patience::Endless),
    Step::on_host(&Activities::revoke_credentials).patience(Patience::Endless),
    Step::on_host(&Activities::interrupt_agent).patience(Patience::Endless),
    Step::on_host(&Activities::drain_log).patience(Patience::Endless),
    Step::on_host(&Activities::terminate_runner).at_most(60).patience(Patience::Endless),
    Step::on_host(&Activities::drain_rest_of_log).patience(Patience::Endless),
    Step::on_host(&Activities::delete_run_objects).patience(Patience::Endless),
    Step::on_host(&Activities::prove_torn_down).patience(Patience::Endless),
];

/// After this time people are told what is left.
pub const TELL_AFTER: Duration = Duration::from_secs(300);

/// If cancelled it ends as cancelled, however its step ends.
const CANCELED_ANYHOW: &str = "session-stop-2026-11-canceled-anyhow";

/// See the module.
#[workflow]
#[derive(Default)]
pub struct SessionStop;

#[workflow_methods]
impl SessionStop {
    /// Runs the table.
    ///
    /// # Errors
    /// When cancelled by an administrator.
    #[run(name = "session-stop")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: WorkflowInput) -> WorkflowResult<Progress> {
        stop(ctx, &input).await.map_err(|error| end(ctx, error, CANCELED_ANYHOW))
    }
}

async fn stop(ctx: &WorkflowContext<SessionStop>, input: &WorkflowInput) -> Result<Progress, ActivityExecutionError> {
    let queue = place(ctx, input).await?;
    let mut saga = Saga::new(ctx, input, Some(queue));
    let mut work = std::pin::pin!(saga.run(STEPS).fuse());
    let mut long = std::pin::pin!(ctx.timer(TELL_AFTER).fuse());
    temporalio_sdk::workflows::select! {
        progress = work => return progress,
        _ = long => {}
    }
    let options = ActivityOptions::start_to_close_timeout(Duration::from_secs(30));
    ctx.execute_activity(Activities::report_stop_incomplete, input.clone(), options).await?;
    work.await
}
