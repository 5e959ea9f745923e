//! Workflows and activities the tests run: ordinary Temporal code.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use temporalio_common::RetryPolicy;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityCancellationType, ActivityOptions, ApplicationFailure, ChildWorkflowOptions, ContinueAsNewOptions,
    ParentClosePolicy, SyncWorkflowContext, WorkflowCancellationToken, WorkflowContext, WorkflowContextView,
    WorkflowResult, WorkflowTermination,
    activities::{ActivityContext, ActivityError},
};

/// What the activities share with the test.
#[derive(Default)]
pub struct Probe {
    pub runs: AtomicU32,
    pub cancelled: AtomicU32,
    pub refunds: AtomicU32,
    pub release: tokio::sync::Notify,
    pub started: tokio::sync::Notify,
}

pub struct Acts {
    pub probe: Arc<Probe>,
}

#[activities]
impl Acts {
    #[activity(name = "step")]
    pub async fn step(_ctx: ActivityContext, input: String) -> Result<String, ActivityError> {
        Ok(input + "x")
    }

    /// Succeeds at the given attempt.
    #[activity(name = "flaky")]
    pub async fn flaky(ctx: ActivityContext, at: u32) -> Result<u32, ActivityError> {
        let attempt = ctx.info().attempt;
        if attempt < at {
            return Err(ApplicationFailure::new(std::io::Error::other(format!("attempt {attempt}"))).into());
        }
        Ok(attempt)
    }

    #[activity(name = "refuse")]
    pub async fn refuse(self: Arc<Self>, _ctx: ActivityContext, _input: ()) -> Result<(), ActivityError> {
        self.probe.runs.fetch_add(1, Ordering::SeqCst);
        Err(ApplicationFailure::builder(std::io::Error::other("never")).non_retryable(true).build().into())
    }

    /// Hangs on the first attempt, until released or cancelled; later attempts return their number.
    #[activity(name = "hang")]
    pub async fn hang(self: Arc<Self>, ctx: ActivityContext, _input: ()) -> Result<u32, ActivityError> {
        self.probe.runs.fetch_add(1, Ordering::SeqCst);
        self.probe.started.notify_one();
        if ctx.info().attempt == 1 {
            self.probe.release.notified().await;
        }
        Ok(ctx.info().attempt)
    }

    /// Heartbeats until it is told to cancel.
    #[activity(name = "beat")]
    pub async fn beat(self: Arc<Self>, ctx: ActivityContext, _input: ()) -> Result<(), ActivityError> {
        self.probe.started.notify_one();
        for beat in 0..600u32 {
            ctx.record_heartbeat(beat).await.ok();
            tokio::select! {
                () = ctx.cancelled() => {
                    self.probe.cancelled.fetch_add(1, Ordering::SeqCst);
                    return Err(ActivityError::cancelled());
                }
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
        Ok(())
    }

    #[activity(name = "nap")]
    pub async fn nap(_ctx: ActivityContext, ms: u64) -> Result<(), ActivityError> {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(())
    }

    /// Somebody else says how it ends.
    #[activity(name = "later")]
    pub async fn later(self: Arc<Self>, _ctx: ActivityContext, _input: ()) -> Result<String, ActivityError> {
        self.probe.started.notify_one();
        Err(ActivityError::WillCompleteAsync)
    }

    #[activity(name = "refund")]
    pub async fn refund(self: Arc<Self>, _ctx: ActivityContext, _input: ()) -> Result<(), ActivityError> {
        self.probe.refunds.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

pub fn soon() -> ActivityOptions {
    ActivityOptions::start_to_close_timeout(Duration::from_secs(30))
}

fn attempts(maximum: u32) -> RetryPolicy {
    RetryPolicy::builder().maximum_attempts(maximum).initial_interval(Duration::from_millis(20)).build()
}

fn retrying(maximum: u32) -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(Duration::from_secs(30)).retry_policy(attempts(maximum)).build()
}

/// Three activities in a row.
#[workflow]
#[derive(Default)]
pub struct Three;
#[workflow_methods]
impl Three {
    #[run(name = "three")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, s: String) -> WorkflowResult<String> {
        let a = ctx.execute_activity(Acts::step, s, soon()).await?;
        let b = ctx.execute_activity(Acts::step, a, soon()).await?;
        Ok(ctx.execute_activity(Acts::step, b, soon()).await?)
    }
}

/// `Three` as somebody changed it: the second step is another activity.
#[workflow]
#[derive(Default)]
pub struct ThreeChanged;
#[workflow_methods]
impl ThreeChanged {
    #[run(name = "three")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, s: String) -> WorkflowResult<String> {
        let a = ctx.execute_activity(Acts::step, s, soon()).await?;
        ctx.execute_activity(Acts::refund, (), soon()).await?;
        Ok(ctx.execute_activity(Acts::step, a, soon()).await?)
    }
}

#[workflow]
#[derive(Default)]
pub struct Retries;
#[workflow_methods]
impl Retries {
    #[run(name = "retries")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, at: u32) -> WorkflowResult<u32> {
        Ok(ctx.execute_activity(Acts::flaky, at, retrying(3)).await?)
    }
}

/// Succeeds at the second attempt, an hour after the first.
#[workflow]
#[derive(Default)]
pub struct SlowRetries;
#[workflow_methods]
impl SlowRetries {
    #[run(name = "slow-retries")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, _i: ()) -> WorkflowResult<u32> {
        let policy = RetryPolicy::builder().initial_interval(Duration::from_secs(3600)).build();
        let options =
            ActivityOptions::with_start_to_close_timeout(Duration::from_secs(30)).retry_policy(policy).build();
        Ok(ctx.execute_activity(Acts::flaky, 2u32, options).await?)
    }
}

#[workflow]
#[derive(Default)]
pub struct Refused;
#[workflow_methods]
impl Refused {
    #[run(name = "refused")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, _i: ()) -> WorkflowResult<()> {
        Ok(ctx.execute_activity(Acts::refuse, (), soon()).await?)
    }
}

/// Sleeps for so many seconds and says how long that was by workflow time.
#[workflow]
#[derive(Default)]
pub struct Sleeper;
#[workflow_methods]
impl Sleeper {
    #[run(name = "sleeper")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, seconds: u64) -> WorkflowResult<u64> {
        let before = ctx.workflow_time().unwrap();
        ctx.timer(Duration::from_secs(seconds)).await;
        Ok(ctx.workflow_time().unwrap().duration_since(before).unwrap().as_secs())
    }
}

/// Collects signals until it has the given number; answers queries meanwhile.
#[workflow]
#[derive(Default)]
pub struct Inbox {
    got: Vec<String>,
}
#[workflow_methods]
impl Inbox {
    #[run(name = "inbox")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, wanted: usize) -> WorkflowResult<Vec<String>> {
        ctx.wait_condition(move |s: &Self| s.got.len() >= wanted).await?;
        Ok(ctx.state(|s| s.got.clone()))
    }
    #[signal(name = "put")]
    pub fn put(&mut self, _c: &mut SyncWorkflowContext<Self>, what: String) {
        self.got.push(what);
    }
    #[query(name = "list")]
    pub fn list(&self, _c: &WorkflowContextView) -> Vec<String> {
        self.got.clone()
    }
}

/// Waits for an activity; cancelled, it refunds in a scope of its own.
#[workflow]
#[derive(Default)]
pub struct CleansUp;
#[workflow_methods]
impl CleansUp {
    #[run(name = "cleans-up")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, _i: ()) -> WorkflowResult<()> {
        let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(60))
            .heartbeat_timeout(Duration::from_secs(2))
            .cancellation_type(ActivityCancellationType::WaitCancellationCompleted)
            .build();
        if ctx.execute_activity(Acts::beat, (), options).await.is_err() {
            let detached = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(10))
                .cancellation_token(WorkflowCancellationToken::new())
                .build();
            ctx.execute_activity(Acts::refund, (), detached).await?;
            return Err(WorkflowTermination::cancelled());
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
pub enum Policy {
    Terminate,
    Abandon,
    RequestCancel,
}

/// Starts a child that waits for signals, and ends when it is signalled itself.
#[workflow]
#[derive(Default)]
pub struct Guardian {
    done: bool,
}
#[workflow_methods]
impl Guardian {
    #[run(name = "guardian")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, policy: Policy) -> WorkflowResult<()> {
        let policy = match policy {
            Policy::Terminate => ParentClosePolicy::Terminate,
            Policy::Abandon => ParentClosePolicy::Abandon,
            Policy::RequestCancel => ParentClosePolicy::RequestCancel,
        };
        let id = format!("{}-child", ctx.workflow_id());
        let options = ChildWorkflowOptions::builder().workflow_id(id).parent_close_policy(policy).build();
        let _child = ctx.start_child_workflow(Inbox::run, 1usize, options).await?;
        ctx.wait_condition(|s: &Self| s.done).await?;
        Ok(())
    }
    #[signal(name = "end")]
    pub fn end(&mut self, _c: &mut SyncWorkflowContext<Self>, _: ()) {
        self.done = true;
    }
}

/// A child per run, `n` times, by continue-as-new.
#[workflow]
#[derive(Default)]
pub struct Chain;
#[workflow_methods]
impl Chain {
    #[run(name = "chain")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, n: u32) -> WorkflowResult<String> {
        let id = format!("{}-child-{n}", ctx.workflow_id());
        let child =
            ctx.start_child_workflow(Three::run, format!("p{n}"), ChildWorkflowOptions::workflow_id(id)).await?;
        let result = child.result().await?;
        ctx.timer(Duration::from_millis(5)).await;
        if n > 0 {
            ctx.continue_as_new(n - 1, ContinueAsNewOptions::default())?;
        }
        Ok(result)
    }
}

/// Runs a child to its end, whatever that is; says how it ended.
#[workflow]
#[derive(Default)]
pub struct Watcher;
#[workflow_methods]
impl Watcher {
    #[run(name = "watcher")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, (id, task): (String, String)) -> WorkflowResult<String> {
        let options = ChildWorkflowOptions::workflow_id(id);
        Ok(match task.as_str() {
            "refused" => match ctx.start_child_workflow(Refused::run, (), options).await {
                Ok(child) => child.result().await.map_or_else(|e| format!("{e:?}"), |()| "ok".to_owned()),
                Err(e) => format!("not started: {e:?}"),
            },
            _ => match ctx.start_child_workflow(Inbox::run, 1usize, options).await {
                Ok(child) => child.result().await.map_or_else(|e| format!("{e:?}"), |r| r.join(",")),
                Err(e) => format!("not started: {e:?}"),
            },
        })
    }
}

/// Signals another workflow, then asks it to cancel.
#[workflow]
#[derive(Default)]
pub struct Caller;
#[workflow_methods]
impl Caller {
    #[run(name = "caller")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, (id, word): (String, String)) -> WorkflowResult<Vec<bool>> {
        let other = ctx.external_workflow(id, None);
        let signalled = other.signal(Inbox::put, word, Default::default()).await.is_ok();
        let cancelled = other.cancel(None).await.is_ok();
        Ok(vec![signalled, cancelled])
    }
}

/// One activity that hangs on its first attempt.
#[workflow]
#[derive(Default)]
pub struct Hangs;
#[workflow_methods]
impl Hangs {
    #[run(name = "hangs")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, heartbeat_s: u64) -> WorkflowResult<u32> {
        let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(3600))
            .retry_policy(attempts(5))
            .maybe_heartbeat_timeout((heartbeat_s > 0).then(|| Duration::from_secs(heartbeat_s)))
            .build();
        Ok(ctx.execute_activity(Acts::hang, (), options).await?)
    }
}

/// Schedules a step on a queue nobody serves.
#[workflow]
#[derive(Default)]
pub struct Elsewhere;
#[workflow_methods]
impl Elsewhere {
    #[run(name = "elsewhere")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, to_start: bool) -> WorkflowResult<String> {
        let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(7200))
            .task_queue("nobody".to_owned())
            .maybe_schedule_to_start_timeout(to_start.then(|| Duration::from_secs(60)))
            .build();
        let mut step = ctx.execute_activity(Acts::step, "a".to_owned(), options);
        if to_start {
            return Ok(match step.await {
                Ok(done) => done,
                Err(e) => format!("{e:?}"),
            });
        }
        temporalio_sdk::workflows::select! {
            _ = step => Ok("done".to_owned()),
            _ = ctx.timer(Duration::from_millis(20)) => Ok("left waiting".to_owned()),
        }
    }
}

/// Local activities, a memo and the workflow's own id.
#[workflow]
#[derive(Default)]
pub struct Local;
#[workflow_methods]
impl Local {
    #[run(name = "local")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, s: String) -> WorkflowResult<String> {
        let options =
            || temporalio_sdk::LocalActivityOptions::builder().start_to_close_timeout(Duration::from_secs(5)).build();
        let a = ctx.execute_local_activity(Acts::step, s, options()).await?;
        Ok(ctx.execute_local_activity(Acts::step, a, options()).await?)
    }
}

/// A timer and a step behind a patch.
#[workflow]
#[derive(Default)]
pub struct Patched;
#[workflow_methods]
impl Patched {
    #[run(name = "patched")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, _i: ()) -> WorkflowResult<String> {
        let out = if ctx.patched("louder") { "loud" } else { "quiet" };
        let token = WorkflowCancellationToken::new();
        let timer =
            temporalio_sdk::TimerOptions::builder(Duration::from_secs(3600)).cancellation_token(token.clone()).build();
        let long = ctx.timer(timer);
        token.cancel();
        let _ = long.await;
        Ok(ctx.execute_activity(Acts::step, out.to_owned(), soon()).await?)
    }
}

/// Adds up what updates tell it until it is told to finish.
#[workflow]
#[derive(Default)]
pub struct Ledger {
    total: i64,
    done: bool,
}
#[workflow_methods]
impl Ledger {
    #[run(name = "ledger")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, again: u32) -> WorkflowResult<i64> {
        ctx.wait_condition(|s: &Self| s.done).await?;
        if again > 0 {
            ctx.continue_as_new(again - 1, ContinueAsNewOptions::default())?;
        }
        Ok(ctx.state(|s| s.total))
    }
    /// The total afterwards.
    #[update(name = "add")]
    pub fn add(&mut self, _c: &mut SyncWorkflowContext<Self>, n: i64) -> i64 {
        self.total += n;
        self.total
    }
    #[update_validator(add)]
    fn validate_add(&self, _c: &WorkflowContextView, n: &i64) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if *n > 0 { Ok(()) } else { Err("not a positive number".into()) }
    }
    /// Fails after it has been accepted.
    #[update(name = "overdraw")]
    pub async fn overdraw(
        _c: &mut WorkflowContext<Self>,
        _n: i64,
    ) -> Result<i64, Box<dyn std::error::Error + Send + Sync>> {
        Err("not enough".into())
    }
    /// Takes a step on the way.
    #[update(name = "note")]
    pub async fn note(ctx: &mut WorkflowContext<Self>, what: String) -> String {
        ctx.execute_activity(Acts::step, what, soon()).await.unwrap_or_default()
    }
    /// Ends when the workflow is told to, if ever.
    #[update(name = "wait")]
    pub async fn wait(ctx: &mut WorkflowContext<Self>, total: i64) -> i64 {
        let _ = ctx.wait_condition(move |s: &Self| s.total >= total).await;
        ctx.state(|s| s.total)
    }
    #[signal(name = "finish")]
    pub fn finish(&mut self, _c: &mut SyncWorkflowContext<Self>, _: ()) {
        self.done = true;
    }
    #[query(name = "total")]
    pub fn total(&self, _c: &WorkflowContextView) -> i64 {
        self.total
    }
}

/// An activity that somebody without a token completes.
#[workflow]
#[derive(Default)]
pub struct Deferred;
#[workflow_methods]
impl Deferred {
    #[run(name = "deferred")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, queue: Option<String>) -> WorkflowResult<String> {
        let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(3600))
            .maybe_task_queue(queue)
            .retry_policy(attempts(2))
            .build();
        Ok(match ctx.execute_activity(Acts::later, (), options).await {
            Ok(done) => done,
            Err(e) => format!("{e:?}"),
        })
    }
}

/// Takes a long local activity, and updates meanwhile; how many came before it ended.
#[workflow]
#[derive(Default)]
pub struct Naps {
    knocks: u32,
}
#[workflow_methods]
impl Naps {
    #[run(name = "naps")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, ms: u64) -> WorkflowResult<u32> {
        let options =
            temporalio_sdk::LocalActivityOptions::builder().start_to_close_timeout(Duration::from_secs(30)).build();
        ctx.execute_local_activity(Acts::nap, ms, options).await?;
        Ok(ctx.state(|s| s.knocks))
    }
    #[update(name = "knock")]
    pub fn knock(&mut self, _c: &mut SyncWorkflowContext<Self>, _: ()) -> u32 {
        self.knocks += 1;
        self.knocks
    }
}
