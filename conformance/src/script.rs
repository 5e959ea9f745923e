//! The workflow that executes a program.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use futures::{FutureExt as _, future::LocalBoxFuture};
use serde_json::{Value, json};
use temporalio_common::{ActivityDefinition, RetryPolicy, search_attributes::SearchAttributeKey};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ActivityCancellationType, ActivityOptions, ApplicationFailure, ChildWorkflowCancellationType, ChildWorkflowOptions,
    ContinueAsNewOptions, LocalActivityOptions, ParentClosePolicy, SignalWorkflowOptions, SyncWorkflowContext,
    TimerOptions, WorkflowCancellationToken, WorkflowContext, WorkflowContextView, WorkflowIdReusePolicy,
    WorkflowResult, WorkflowTermination, workflows::join_all,
};

use crate::{
    case::errors,
    program::{Activity, Child, Input, Op},
};

/// See the module.
#[workflow]
#[derive(Default)]
pub struct Script {
    signals: Vec<Value>,
    updates: Vec<Value>,
}

#[workflow_methods]
impl Script {
    #[run(name = "script")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: Input) -> WorkflowResult<Value> {
        let walk = Walk { ctx: ctx.clone(), prefix: input.prefix };
        let scope = ctx.cancellation_token();
        let result = walk.go(input.op, scope).await?;
        let (signals, updates) = ctx.state(|s| (s.signals.clone(), s.updates.clone()));
        Ok(json!({ "result": result, "signals": signals, "updates": updates }))
    }

    #[signal(name = "signal")]
    pub fn signal(&mut self, _ctx: &mut SyncWorkflowContext<Self>, value: Value) {
        self.signals.push(value);
    }

    #[query(name = "state")]
    pub fn state(&self, _ctx: &WorkflowContextView) -> Value {
        json!({ "signals": self.signals, "updates": self.updates })
    }

    #[update(name = "update")]
    pub fn update(&mut self, _ctx: &mut SyncWorkflowContext<Self>, value: Value) -> Value {
        self.updates.push(value.clone());
        json!({ "taken": value, "count": self.updates.len() })
    }

    #[update_validator(update)]
    pub fn validate_update(
        &self,
        _ctx: &WorkflowContextView,
        value: &Value,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if value == "bad" { Err("refused by the validator".into()) } else { Ok(()) }
    }

    /// An update that does something before it answers: an activity with its value.
    #[update(name = "work")]
    pub async fn work(
        ctx: &mut WorkflowContext<Self>,
        value: Value,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let options = ActivityOptions::start_to_close_timeout(Duration::from_secs(30));
        let name = if value == "fail" { "refuse" } else { "echo" };
        let result = ctx.execute_activity(Named(name.to_owned()), value, options).await?;
        ctx.state_mut(|s| s.updates.push(result.clone()));
        Ok(result)
    }
}

/// An activity by name.
pub struct Named(pub String);

impl ActivityDefinition for Named {
    type Input = Value;
    type Output = Value;
    fn name(&self) -> &str {
        &self.0
    }
}

#[derive(Clone)]
struct Walk {
    ctx: WorkflowContext<Script>,
    prefix: String,
}

type Walked = Result<Value, WorkflowTermination>;

thread_local! {
    /// Tasks that have failed on purpose, by run id.
    static FAILED: RefCell<BTreeMap<String, u32>> = const { RefCell::new(BTreeMap::new()) };
}

impl Walk {
    fn go(&self, op: Op, scope: WorkflowCancellationToken) -> LocalBoxFuture<'static, Walked> {
        let walk = self.clone();
        async move { walk.step(op, scope).await }.boxed_local()
    }

    async fn step(&self, op: Op, scope: WorkflowCancellationToken) -> Walked {
        match op {
            Op::Seq(ops) => {
                let mut results = Vec::new();
                for op in ops {
                    results.push(self.go(op, scope.clone()).await?);
                }
                Ok(json!(results))
            }
            Op::All(ops) => {
                let all = join_all(ops.into_iter().map(|op| self.go(op, scope.clone()))).await;
                Ok(json!(all.into_iter().collect::<Result<Vec<_>, _>>()?))
            }
            Op::First(ops) => self.first(ops, &scope).await,
            Op::Activity(activity) => self.activity(activity, scope).await,
            Op::Local(activity) => self.local(activity, scope).await,
            Op::Timer(ms) => {
                let options = TimerOptions::builder(Duration::from_millis(ms)).cancellation_token(scope).build();
                Ok(json!(format!("{:?}", self.ctx.timer(options).await)))
            }
            Op::Signals(count) => {
                self.ctx.wait_condition(move |s: &Script| s.signals.len() >= count).await?;
                Ok(json!(self.ctx.state(|s| s.signals.clone())))
            }
            Op::Updates(count) => {
                self.ctx.wait_condition(move |s: &Script| s.updates.len() >= count).await?;
                Ok(json!(self.ctx.state(|s| s.updates.clone())))
            }
            Op::Cancelled => {
                scope.cancelled().await;
                Ok(json!({ "cancelled": scope.reason() }))
            }
            Op::Catch(op) => match self.go(*op, scope).await {
                Ok(value) => Ok(json!({ "done": value })),
                Err(error @ (WorkflowTermination::Evicted | WorkflowTermination::ContinueAsNew(_))) => Err(error),
                Err(error) => Ok(json!({ "caught": errors(&error) })),
            },
            Op::CancelWhen { op, when } => self.cancel_when(*op, *when, &scope).await,
            Op::Shielded(op) => self.go(*op, WorkflowCancellationToken::new()).await,
            Op::Child(child) => self.child(child, scope).await,
            Op::SignalOther { id } => {
                let handle = self.ctx.external_workflow(self.named(&id), None);
                handle.signal(Script::signal, json!("from another"), SignalWorkflowOptions::default()).await?;
                Ok(Value::Null)
            }
            Op::CancelOther { id } => {
                let handle = self.ctx.external_workflow(self.named(&id), None);
                handle.cancel(Some("by another".to_owned())).await?;
                Ok(Value::Null)
            }
            Op::ContinueAsNew(op) => {
                let input = Input { prefix: self.prefix.clone(), op: *op };
                match self.ctx.continue_as_new(input, ContinueAsNewOptions::default())? {}
            }
            Op::Patched { id, deprecated } => {
                Ok(json!(if deprecated { self.ctx.deprecate_patch(&id) } else { self.ctx.patched(&id) }))
            }
            Op::Memo(key, value) => {
                self.ctx.upsert_memo([(key, Some(temporalio_common::MemoValue::new(value)))])?;
                Ok(Value::Null)
            }
            Op::SearchAttribute(value) => {
                let key = SearchAttributeKey::<String>::keyword(crate::backend::KEYWORD);
                self.ctx.upsert_search_attributes([key.value_set(value)]);
                Ok(Value::Null)
            }
            Op::Random => {
                let (_number, id): (u64, _) = (self.ctx.random(), self.ctx.uuid4());
                Ok(json!(id.len()))
            }
            Op::Fail(message) => Err(ApplicationFailure::builder(std::io::Error::other(message))
                .type_name("Script".to_owned())
                .build()
                .into()),
            Op::EndCancelled => Err(WorkflowTermination::cancelled()),
            Op::FailTask(times) => {
                let failed = FAILED.with_borrow_mut(|failed| {
                    let failed = failed.entry(self.ctx.run_id().to_owned()).or_default();
                    *failed += 1;
                    *failed
                });
                if failed <= times {
                    self.ctx.force_task_fail(std::io::Error::other("for the test"));
                    std::future::pending::<()>().await;
                }
                Ok(Value::Null)
            }
            Op::Value(value) => Ok(value),
        }
    }

    fn named(&self, id: &str) -> String {
        id.replace('$', &self.prefix)
    }

    /// The losers are cancelled and waited for, so that no command depends on timing.
    async fn first(&self, ops: Vec<Op>, scope: &WorkflowCancellationToken) -> Walked {
        let inner = scope.child_token();
        let mut left: Vec<_> = ops.into_iter().map(|op| self.go(op, inner.clone())).collect();
        let (won, index, others) = futures::future::select_all(std::mem::take(&mut left)).await;
        inner.cancel();
        let _ = join_all(others).await;
        Ok(json!({ "index": index, "value": won? }))
    }

    async fn cancel_when(&self, op: Op, when: Op, scope: &WorkflowCancellationToken) -> Walked {
        let inner = scope.child_token();
        let token = inner.clone();
        let cancels = async {
            let done = self.go(when, scope.clone()).await;
            token.cancel_with_reason("enough");
            done
        };
        let (result, when) = temporalio_sdk::workflows::join!(self.go(op, inner), cancels.boxed_local());
        when?;
        result
    }

    async fn activity(&self, activity: Activity, scope: WorkflowCancellationToken) -> Walked {
        let name = Named(activity.name.clone());
        let input = activity.input.clone();
        let mut options = ActivityOptions::with_close_timeouts(close_timeouts(&activity))
            .cancellation_type(match activity.cancellation.as_str() {
                "wait" => ActivityCancellationType::WaitCancellationCompleted,
                "abandon" => ActivityCancellationType::Abandon,
                _ => ActivityCancellationType::TryCancel,
            })
            .retry_policy(retry_policy(&activity))
            .cancellation_token(scope)
            .build();
        options.activity_id = text(activity.id);
        options.task_queue = text(activity.task_queue).map(|queue| self.named(&queue));
        options.schedule_to_start_timeout = millis(activity.schedule_to_start);
        options.heartbeat_timeout = millis(activity.heartbeat);
        Ok(self.ctx.execute_activity(name, input, options).await?)
    }

    async fn local(&self, activity: Activity, scope: WorkflowCancellationToken) -> Walked {
        let name = Named(activity.name.clone());
        let mut options = LocalActivityOptions::default();
        options.retry_policy = retry_policy(&activity);
        options.start_to_close_timeout = millis(activity.start_to_close);
        options.schedule_to_close_timeout = millis(activity.schedule_to_close);
        options.cancellation_token = Some(scope);
        Ok(self.ctx.execute_local_activity(name, activity.input, options).await?)
    }

    async fn child(&self, child: Child, scope: WorkflowCancellationToken) -> Walked {
        let options = ChildWorkflowOptions::builder()
            .workflow_id(self.named(&child.id))
            .parent_close_policy(match child.policy.as_str() {
                "abandon" => ParentClosePolicy::Abandon,
                "request_cancel" => ParentClosePolicy::RequestCancel,
                _ => ParentClosePolicy::Terminate,
            })
            .cancel_type(match child.cancellation.as_str() {
                "try_cancel" => ChildWorkflowCancellationType::TryCancel,
                "wait_requested" => ChildWorkflowCancellationType::WaitCancellationRequested,
                "abandon" => ChildWorkflowCancellationType::Abandon,
                _ => ChildWorkflowCancellationType::WaitCancellationCompleted,
            })
            .id_reuse_policy(match child.reuse.as_str() {
                "failed_only" => WorkflowIdReusePolicy::AllowDuplicateFailedOnly,
                "reject" => WorkflowIdReusePolicy::RejectDuplicate,
                _ => WorkflowIdReusePolicy::AllowDuplicate,
            })
            .maybe_run_timeout(millis(child.run_timeout))
            .cancellation_token(scope)
            .build();
        let input = Input { prefix: self.prefix.clone(), op: *child.op };
        let started = self.ctx.start_child_workflow(Script::run, input, options).await?;
        for number in 0..child.signals {
            started.signal(Script::signal, json!(number), SignalWorkflowOptions::default()).await?;
        }
        if child.wait { Ok(started.result().await?) } else { Ok(json!("started")) }
    }
}

fn close_timeouts(activity: &Activity) -> temporalio_sdk::ActivityCloseTimeouts {
    use temporalio_sdk::ActivityCloseTimeouts::{ScheduleAndStartToClose, ScheduleToClose, StartToClose};
    match (millis(activity.start_to_close), millis(activity.schedule_to_close)) {
        (Some(start_to_close), Some(schedule_to_close)) => {
            ScheduleAndStartToClose { schedule_to_close, start_to_close }
        }
        (None, Some(limit)) => ScheduleToClose(limit),
        (limit, None) => StartToClose(limit.unwrap_or(Duration::from_secs(30))),
    }
}

fn retry_policy(activity: &Activity) -> RetryPolicy {
    RetryPolicy::builder()
        .initial_interval(millis(activity.first_interval).unwrap_or(Duration::from_millis(50)))
        .maximum_attempts(activity.attempts)
        .non_retryable_error_types(activity.non_retryable.clone())
        .build()
}

fn millis(count: u64) -> Option<Duration> {
    (count > 0).then(|| Duration::from_millis(count))
}

fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
