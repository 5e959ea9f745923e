//! `session-reconcile/{session}/{run}.{generation}`: makes the workspace match the spec. A child of session-supervise,
//! which has one at a time; every attempt reads the newest spec, so an overtaken generation never takes effect.

use ambient_domain::WorkflowInput;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowResult};

use crate::{
    activities::Activities,
    activities::place,
    step::{Patience, Progress, Saga, Step, end},
};

/// The order of effects.
pub const STEPS: &[Step] = &[Step::on_host(&Activities::reconcile_repos).at_most(600).patience(Patience::Endless)];

/// If cancelled it ends as cancelled, however its step ends.
const CANCELED_ANYHOW: &str = "session-reconcile-2026-11-canceled-anyhow";

/// See the module.
#[workflow]
#[derive(Default)]
pub struct SessionReconcile;

#[workflow_methods]
impl SessionReconcile {
    /// Runs the table.
    ///
    /// # Errors
    /// When cancelled with its parent.
    #[run(name = "session-reconcile")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: WorkflowInput) -> WorkflowResult<Progress> {
        let work = async {
            let queue = place(ctx, &input).await?;
            Saga::new(ctx, &input, Some(queue)).run(STEPS).await
        };
        work.await.map_err(|error| end(ctx, error, CANCELED_ANYHOW))
    }
}
