//! `session-delete/{session}/{operation}`: repeats session-stop's teardown for every run, then removes secrets and workspace.

use ambient_domain::WorkflowInput;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowResult};

use crate::{
    activities::Activities,
    activities::place,
    step::{Patience, Progress, Saga, Step, end},
};

/// The order of effects; `activities::stop::delete_all` does the same for the sweep.
pub const STEPS: &[Step] = &[
    Step::on_host(&Activities::raise_fence_for_good).patience(Patience::Endless),
    Step::on_host(&Activities::revoke_credentials).patience(Patience::Endless),
    Step::on_host(&Activities::terminate_runner).at_most(60).patience(Patience::Endless),
    Step::on_host(&Activities::drain_rest_of_log).patience(Patience::Endless),
    Step::on_host(&Activities::delete_run_objects).patience(Patience::Endless),
    Step::on_host(&Activities::prove_session_gone).patience(Patience::Endless),
    Step::anywhere(&Activities::forget_secrets).patience(Patience::Endless),
    Step::on_host(&Activities::delete_workspace).patience(Patience::Endless),
];

/// If cancelled it ends as cancelled, however its step ends.
const CANCELED_ANYHOW: &str = "session-delete-2026-11-canceled-anyhow";

/// See the module.
#[workflow]
#[derive(Default)]
pub struct SessionDelete;

#[workflow_methods]
impl SessionDelete {
    /// Runs the table.
    ///
    /// # Errors
    /// When cancelled by an administrator.
    #[run(name = "session-delete")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: WorkflowInput) -> WorkflowResult<Progress> {
        let work = async {
            let queue = place(ctx, &input).await?;
            Saga::new(ctx, &input, Some(queue)).run(STEPS).await
        };
        work.await.map_err(|error| end(ctx, error, CANCELED_ANYHOW))
    }
}
