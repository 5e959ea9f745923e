//! `session-supervise/{session}/{run}`: owns every clock of a run (start deadline, timeout, inactivity) and puts changed
//! specs into effect, one `session-reconcile` at a time. Acts only through commands and facts. Ends with the run.
//!
//! The clocks keep running during a reconciliation: one with a missing repository keeps retrying until someone fixes the spec.

use std::time::Duration;

use ambient_domain::WorkflowInput;
use futures::{
    FutureExt as _,
    future::{Fuse, FusedFuture as _},
};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, ChildWorkflowOptions, ParentClosePolicy, SyncWorkflowContext, WorkflowContext, WorkflowResult,
};

use crate::{
    activities::Activities,
    project_attribute,
    session_reconcile::SessionReconcile,
    step::{Progress, is_asked_to_end},
};

/// Events after which it continues as new: a short history is quick to replay after a crash.
pub const LONGEST_HISTORY: u32 = 500;
/// Pause after a reconciliation that did not finish: an administrator cancelled it, or the engine gave up on it.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// Longest wait for a reconciliation that the previous run started: nobody tells this run how it ends.
const BEGUN_BEFORE: Duration = Duration::from_secs(60);

/// The clocks keep running during a reconciliation, and a failed one is started again.
const CLOCKS_BESIDE: &str = "session-supervise-2026-11-clocks-beside-reconciliation";
/// If cancelled it ends as cancelled, even if it would have continued as new then.
const CANCELED_AT_LONGEST: &str = "session-supervise-2026-11-canceled-at-longest";

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
        let mut reconciliation = Fuse::terminated();
        loop {
            ctx.state_mut(|s| s.woken = false);
            let look = ctx.execute_activity(Activities::supervise, input.clone(), options()).await?;
            if look.over {
                return Ok(Progress::Done);
            }
            let mut wait = Duration::from_millis(look.wait_ms);
            if let Some(generation) = look.reconcile
                && reconciliation.is_terminated()
            {
                let beside = ctx.patched(CLOCKS_BESIDE);
                let id = format!("session-reconcile/{}/{}.{generation}", input.session_id, input.run);
                // One that outlives this run notices by itself that it is no longer wanted.
                let policy = if beside { ParentClosePolicy::Abandon } else { ParentClosePolicy::default() };
                let options = ChildWorkflowOptions::builder()
                    .workflow_id(id)
                    .parent_close_policy(policy)
                    .search_attributes(project_attribute::of(&input.project_id))
                    .build();
                match ctx.start_child_workflow(SessionReconcile::run, input.clone(), options).await {
                    Ok(child) if beside => reconciliation = child.result().boxed_local().fuse(),
                    Ok(child) => {
                        child.result().await?;
                        continue;
                    }
                    // It is running: this workflow continued as new meanwhile.
                    Err(_) => wait = wait.min(BEGUN_BEFORE),
                }
            }
            let long = ctx.continue_as_new_suggested() || ctx.history_length() > LONGEST_HISTORY;
            if long && !is_asked_to_end(ctx, CANCELED_AT_LONGEST) {
                ctx.continue_as_new(input.clone(), project_attribute::kept(&input.project_id))?;
            }
            let mut woken = std::pin::pin!(ctx.wait_condition(|s: &Self| s.woken).fuse());
            let mut clock = std::pin::pin!(ctx.timer(wait).fuse());
            temporalio_sdk::workflows::select! {
                woken = woken => if let Err(cancelled) = woken {
                    // It is cancelled too, and ends first.
                    if !reconciliation.is_terminated() {
                        let _ = reconciliation.await;
                    }
                    return Err(cancelled.into());
                },
                ended = reconciliation => if ended.is_err() {
                    let _ = ctx.timer(AFTER_FAILURE).await;
                },
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
