//! Runs: continue-as-new, timeouts, starts with policies.

use std::time::Duration;

use serde_json::{Value, json};
use temporalio_client::{WorkflowIdConflictPolicy, WorkflowIdReusePolicy, WorkflowStartOptions};

use crate::{
    backend::QUEUE,
    case::{Case, Meanwhile, case, errors},
    program::{Input, Op, activity, seq},
    script::Script,
};

fn again(op: Op) -> Op {
    Op::ContinueAsNew(Box::new(op))
}

/// Starts the case's workflow once more; `true` and whether the run is the same, or the error.
async fn start_again(people: &Meanwhile, reuse: WorkflowIdReusePolicy, conflict: WorkflowIdConflictPolicy) -> Value {
    let options = WorkflowStartOptions::new(QUEUE, people.id.as_str())
        .id_reuse_policy(reuse)
        .id_conflict_policy(conflict)
        .build();
    let before = people.describe(&people.id, "").await.workflow_execution_info.unwrap_or_default();
    let before = before.execution.unwrap_or_default().run_id;
    let input = Input { prefix: people.id.clone(), op: Op::Signals(1) };
    match people.client.start_workflow(Script::run, input, options).await {
        Ok(handle) => json!({ "same": handle.run_id() == Some(before.as_str()) }),
        Err(error) => json!({ "error": errors(&error) }),
    }
}

async fn closed(people: &Meanwhile) {
    people
        .wait("its end", || async {
            people.describe(&people.id, "").await.workflow_execution_info.unwrap_or_default().close_time.is_some()
        })
        .await;
}

pub(super) fn cases() -> Vec<Case> {
    use temporalio_client::{WorkflowIdConflictPolicy as Conflict, WorkflowIdReusePolicy as Reuse};
    vec![
        case("continue as new", again(Op::Value(json!("second run")))),
        case("continue as new twice", again(again(activity("echo", 3)))),
        case("continue as new with a memo", seq([Op::Memo("a".to_owned(), json!(1)), again(Op::Timer(20))])),
        case(
            "continue as new with a search attribute",
            seq([Op::SearchAttribute("x".to_owned()), again(Op::Timer(20))]),
        ),
        case("continue as new after a signal", seq([Op::Signals(1), again(Op::Value(json!(2)))])).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                people.signal(1).await;
                Value::Null
            })
        }),
        case("a run that times out", Op::Signals(1)).started_with(|mut options| {
            options.run_timeout = Some(Duration::from_secs(3));
            options
        }),
        case("an execution that times out", Op::Timer(60_000)).started_with(|mut options| {
            options.execution_timeout = Some(Duration::from_secs(3));
            options
        }),
        case("an execution that times out in its second run", again(Op::Timer(60_000))).started_with(|mut options| {
            options.execution_timeout = Some(Duration::from_secs(4));
            options
        }),
        case("an eager start", activity("echo", 1)).started_with(|mut options| {
            options.enable_eager_workflow_start = true;
            options
        }),
        case("reset, and the signal is applied again", Op::Signals(2)).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                people.signal(1).await;
                people.at_rest().await;
                people.reset(4).await;
                people.at_rest().await;
                people.signal(2).await;
                Value::Null
            })
        }),
        case("reset after an activity", seq([activity("echo", 1), activity("echo", 2), Op::Signals(1)])).with(
            |people| {
                Box::pin(async move {
                    people.until("ActivityTaskCompleted", 2).await;
                    people.at_rest().await;
                    // The task that has the first activity's result.
                    people.reset(10).await;
                    people.until("ActivityTaskCompleted", 2).await;
                    people.at_rest().await;
                    people.signal(1).await;
                    Value::Null
                })
            },
        ),
        case("reset of a closed run", seq([activity("echo", 1), Op::Timer(20)])).with(|people| {
            Box::pin(async move {
                closed(&people).await;
                people.reset(4).await;
                closed(&people).await;
                Value::Null
            })
        }),
        case("the id is in use", Op::Signals(1)).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                let fail = start_again(&people, Reuse::AllowDuplicate, Conflict::Fail).await;
                let same = start_again(&people, Reuse::AllowDuplicate, Conflict::UseExisting).await;
                people.signal(1).await;
                json!([fail["error"].is_array(), same])
            })
        }),
        case("the one that runs is terminated", Op::Signals(1)).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                let other = start_again(&people, Reuse::AllowDuplicate, Conflict::TerminateExisting).await;
                people.at_rest().await;
                people.signal(1).await;
                other
            })
        }),
        case("the id is not used again", Op::Value(json!(1))).with(|people| {
            Box::pin(async move {
                closed(&people).await;
                let reject = start_again(&people, Reuse::RejectDuplicate, Conflict::Fail).await;
                let failed_only = start_again(&people, Reuse::AllowDuplicateFailedOnly, Conflict::Fail).await;
                json!([reject["error"].is_array(), failed_only["error"].is_array()])
            })
        }),
        case("the id is used again", Op::Fail("first".to_owned())).with(|people| {
            Box::pin(async move {
                closed(&people).await;
                let again = start_again(&people, Reuse::AllowDuplicateFailedOnly, Conflict::Fail).await;
                people.at_rest().await;
                people.signal(1).await;
                again
            })
        }),
    ]
}
