//! `session-supervise/{session}/{run}`: owns every clock of a run (start deadline, timeout, inactivity) and brings changed
//! specs into force, one `session-reconcile` at a time. Acts only by commands and facts. Ends with the run.

use std::time::Duration;

use ambient_domain::WorkflowInput;
use futures::FutureExt as _;
use serde::{Deserialize, Serialize};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, ChildWorkflowOptions, ContinueAsNewOptions, SyncWorkflowContext, WorkflowContext, WorkflowResult,
};

use crate::{activities::Activities, session_reconcile::SessionReconcile, step::Progress};

/// What a look at the session came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The run is ending or over.
    pub over: bool,
    /// A generation to bring into force.
    pub reconcile: Option<i64>,
    /// Milliseconds until a clock runs out.
    pub wait_ms: u64,
}

/// Events after which it continues as new: a short history is quick to replay after a crash.
pub const LONGEST_HISTORY: u32 = 500;

/// See the module.
#[workflow]
#[derive(Default)]
pub struct SessionSupervise {
    woken: bool,
}

#[workflow_methods]
impl SessionSupervise {
    /// Looks, acts, waits.
    ///
    /// # Errors
    /// When cancelled (the session was deleted).
    #[run(name = "session-supervise")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: WorkflowInput) -> WorkflowResult<Progress> {
        loop {
            ctx.state_mut(|s| s.woken = false);
            let look = ctx.execute_activity(Activities::supervise, input.clone(), options()).await?;
            if look.over {
                return Ok(Progress::Done);
            }
            if let Some(generation) = look.reconcile {
                let id = format!("session-reconcile/{}/{}.{generation}", input.session_id, input.run);
                let options = ChildWorkflowOptions::workflow_id(id);
                // A child that ran before (this workflow continued as new meanwhile) is as good as one that ends now.
                if let Ok(child) = ctx.start_child_workflow(SessionReconcile::run, input.clone(), options).await {
                    child.result().await?;
                    continue;
                }
            }
            if ctx.continue_as_new_suggested() || ctx.history_length() > LONGEST_HISTORY {
                ctx.continue_as_new(input.clone(), ContinueAsNewOptions::default())?;
            }
            let mut woken = std::pin::pin!(ctx.wait_condition(|s: &Self| s.woken).fuse());
            let mut clock = std::pin::pin!(ctx.timer(Duration::from_millis(look.wait_ms)).fuse());
            temporalio_sdk::workflows::select! {
                woken = woken => woken?,
                _ = clock => {}
            }
        }
    }

    /// The session has changed.
    #[signal(name = "wake")]
    pub fn wake(&mut self, _: &mut SyncWorkflowContext<Self>) {
        self.woken = true;
    }
}

fn options() -> ActivityOptions {
    ActivityOptions::start_to_close_timeout(Duration::from_secs(30))
}
