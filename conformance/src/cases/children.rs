//! Children, and workflows that act on others.

use serde_json::{Value, json};

use crate::{
    case::{Case, Meanwhile, People, case},
    program::{Child, Op, activity, all, cancel_when, catch, child, seq},
};

fn run(child: Child) -> Op {
    Op::Child(child)
}

fn unwaited(id: &str, op: Op, policy: &str) -> Op {
    Op::Child(Child { wait: false, policy: policy.to_owned(), ..child(id, op) })
}

/// Signals the parent once for every thing that it waits for, each time when parent and child (`$-child`) are at rest.
async fn step_by_step(people: Meanwhile, signals: usize) -> Value {
    people.until("ChildWorkflowExecutionStarted", 1).await;
    let child = Meanwhile { id: format!("{}-child", people.id), ..people.clone() };
    for number in 0..signals {
        child.at_rest().await;
        people.at_rest().await;
        people.signal(number).await;
    }
    Value::Null
}

/// One signal at which the parent cancels its child, one when the child has closed: which comes first is not left to chance.
const CANCELS_AND_GOES_ON: People = |people| {
    Box::pin(async move {
        let child = Meanwhile { id: format!("{}-child", people.id), ..people.clone() };
        step_by_step(people.clone(), 1).await;
        child.until("WorkflowExecutionCompleted", 1).await;
        people.at_rest().await;
        people.signal(1).await;
        Value::Null
    })
};
const ONE_SIGNAL: People = |people| Box::pin(step_by_step(people, 1));
const TWO_SIGNALS: People = |people| Box::pin(step_by_step(people, 2));

pub(super) fn cases() -> Vec<Case> {
    let cancelled = |cancellation: &str| {
        let child = Child { cancellation: cancellation.to_owned(), ..child("$-child", catch(Op::Timer(60_000))) };
        seq([catch(cancel_when(run(child), Op::Signals(1))), Op::Signals(2)])
    };
    vec![
        case("a child", run(child("$-child", activity("echo", 1)))),
        case(
            "children in a row",
            seq([run(child("$-one", Op::Value(json!(1)))), run(child("$-two", Op::Value(json!(2))))]),
        ),
        case("a child that fails", run(child("$-child", Op::Fail("of the child".to_owned())))),
        case(
            "a child whose failure is caught",
            seq([catch(run(child("$-child", Op::Fail("so".to_owned())))), Op::Timer(20)]),
        ),
        case("a grandchild", run(child("$-child", run(child("$-grandchild", activity("echo", 1)))))),
        case("a child that ends as cancelled", catch(run(child("$-child", Op::EndCancelled)))),
        case("a child that times out", catch(run(Child { run_timeout: 4_000, ..child("$-child", Op::Signals(1)) }))),
        case("a child that goes on as new", run(child("$-child", Op::ContinueAsNew(Box::new(Op::Value(json!(2))))))),
        case("a child that gets signals", run(Child { signals: 2, ..child("$-child", Op::Signals(2)) })).loosely(),
        case(
            "a child's id is in use",
            seq([unwaited("$-child", Op::Signals(1), "terminate"), catch(run(child("$-child", Op::Value(json!(1)))))]),
        )
        .loosely(),
        case(
            "a child's id is used again",
            seq([run(child("$-child", Op::Value(json!(1)))), run(child("$-child", Op::Value(json!(2))))]),
        ),
        case(
            "a child's id is not used again",
            seq([
                run(child("$-child", Op::Value(json!(1)))),
                catch(run(Child { reuse: "reject".to_owned(), ..child("$-child", Op::Value(json!(2))) })),
            ]),
        ),
        case(
            "a child's id is used again after a failure only",
            seq([
                catch(run(child("$-child", Op::Fail("once".to_owned())))),
                run(Child { reuse: "failed_only".to_owned(), ..child("$-child", Op::Value(json!(2))) }),
                catch(run(Child { reuse: "failed_only".to_owned(), ..child("$-child", Op::Value(json!(3))) })),
            ]),
        ),
        case("the parent closes: terminate", seq([unwaited("$-child", Op::Signals(1), "terminate"), Op::Signals(1)]))
            .with(ONE_SIGNAL),
        case("the parent closes: cancel", seq([unwaited("$-child", Op::Cancelled, "request_cancel"), Op::Signals(1)]))
            .with(ONE_SIGNAL),
        case("the parent closes: abandon", seq([unwaited("$-child", Op::Signals(1), "abandon"), Op::Signals(1)]))
            .with(ONE_SIGNAL),
        case(
            "the parent fails: terminate",
            seq([unwaited("$-child", Op::Signals(1), "terminate"), Op::Signals(1), Op::Fail("so".to_owned())]),
        )
        .with(ONE_SIGNAL),
        case("a child is cancelled and waited for", cancelled("wait")).with(CANCELS_AND_GOES_ON),
        case("a child is cancelled and not waited for", cancelled("try_cancel")).with(CANCELS_AND_GOES_ON).loosely(),
        case("a child is cancelled, waited for to be asked", cancelled("wait_requested"))
            .with(CANCELS_AND_GOES_ON)
            .loosely(),
        case("a child is abandoned", cancelled("abandon")).with(TWO_SIGNALS),
        case(
            "another workflow is signalled",
            seq([
                unwaited("$-child", Op::Signals(1), "abandon"),
                Op::Signals(1),
                Op::SignalOther { id: "$-child".to_owned() },
                Op::Signals(2),
            ]),
        )
        .with(TWO_SIGNALS),
        case(
            "another workflow is cancelled",
            seq([
                unwaited("$-child", Op::Cancelled, "abandon"),
                Op::Signals(1),
                Op::CancelOther { id: "$-child".to_owned() },
                Op::Signals(2),
            ]),
        )
        .with(TWO_SIGNALS),
        case("nobody is signalled", catch(Op::SignalOther { id: "$-nobody".to_owned() })),
        case("nobody is cancelled", catch(Op::CancelOther { id: "$-nobody".to_owned() })),
        case(
            "a closed workflow is signalled",
            seq([run(child("$-child", Op::Value(json!(1)))), catch(Op::SignalOther { id: "$-child".to_owned() })]),
        ),
        case("children at once", all((0..3).map(|n| run(child(&format!("$-{n}"), activity("echo", n)))))).loosely(),
        case("a child is terminated by people", catch(run(child("$-child", Op::Signals(1))))).with(|people| {
            Box::pin(async move {
                people.until("ChildWorkflowExecutionStarted", 1).await;
                people.at_rest().await;
                let child = crate::case::Meanwhile { id: format!("{}-child", people.id), ..people.clone() };
                child.at_rest().await;
                child.terminate("by people").await;
                Value::Null
            })
        }),
    ]
}
