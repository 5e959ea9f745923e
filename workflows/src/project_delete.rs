//! `project-delete/{project}/{operation}`: every session is deleted, then the project's space; then the name is free.

use ambient_domain::WorkflowInput;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowResult};

use crate::{
    activities::Activities,
    step::{Patience, Progress, Saga, Step, end},
};

/// The order of effects.
pub const STEPS: &[Step] = &[
    Step::anywhere(&Activities::delete_sessions).at_most(300).patience(Patience::Endless),
    Step::anywhere(&Activities::await_sessions_gone).at_most(300).patience(Patience::Endless),
    Step::anywhere(&Activities::delete_project_space).patience(Patience::Endless),
    Step::anywhere(&Activities::report_project_deleted).patience(Patience::Endless),
];

/// If cancelled it ends as cancelled, however its step ends.
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
