//! `project-delete/{project}/{operation}`: every session is deleted, then the project's space; then the name is free.

use ambient_domain::WorkflowInput;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowResult};

use crate::step::{Patience, Progress, Saga, Step, end};

/// The order of effects.
pub const STEPS: &[Step] = &[
    Step::anywhere("delete-sessions").at_most(300).patience(Patience::Endless),
    Step::anywhere("await-sessions-gone").at_most(300).patience(Patience::Endless),
    Step::anywhere("delete-project-space").patience(Patience::Endless),
    Step::anywhere("report-project-deleted").patience(Patience::Endless),
];

/// One that is cancelled ends as cancelled, however its step ends.
const CANCELED_ANYHOW: &str = "project-delete-2026-11-canceled-anyhow";

/// See the module.
#[workflow]
#[derive(Default)]
pub struct ProjectDelete;

#[workflow_methods]
impl ProjectDelete {
    /// Runs the table.
    ///
    /// # Errors
    /// When cancelled by an administrator.
    #[run(name = "project-delete")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: WorkflowInput) -> WorkflowResult<Progress> {
        Saga::new(ctx, &input, None).run(STEPS).await.map_err(|error| end(ctx, error, CANCELED_ANYHOW))
    }
}
