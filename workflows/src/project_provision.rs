//! `project-provision/{project}/{operation}`: the project's space exists.

use ambient_domain::WorkflowInput;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowResult};

use crate::step::{Patience, Progress, Saga, Step};

/// The order of effects.
pub const STEPS: &[Step] = &[
    Step::anywhere("ensure-project-space").patience(Patience::Endless),
    Step::anywhere("report-provisioned").patience(Patience::Endless),
];

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
        Ok(Saga::new(ctx, &input, None).run(STEPS).await?)
    }
}
