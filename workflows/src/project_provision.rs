//! `project-provision/{project}/{operation}`: sets up the project's space.

use ambient_domain::WorkflowInput;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowResult};

use crate::{
    activities::Activities,
    step::{Patience, Progress, Saga, Step, end},
};

/// The order of effects.
pub const STEPS: &[Step] = &[
    Step::anywhere(&Activities::ensure_project_space).patience(Patience::Endless),
    Step::anywhere(&Activities::report_provisioned).patience(Patience::Endless),
];

/// If cancelled it ends as cancelled, however its step ends.
const CANCELED_ANYHOW: &str = "project-provision-2026-11-canceled-anyhow";

/// See the module.
#[workflow]
#[derive(Default)]
pub struct ProjectProvision;

#[workflow_methods]
impl ProjectProvision {
    /// Runs the table.
    ///
    /// # Errors
    /// When cancelled by an administrator.
    #[run(name = "project-provision")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: WorkflowInput) -> WorkflowResult<Progress> {
        Saga::new(ctx, &input, None).run(STEPS).await.map_err(|error| end(ctx, error, CANCELED_ANYHOW))
    }
}
