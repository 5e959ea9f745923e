//! Cancellation: of activities, timers, scopes and whole workflows; termination.

use serde_json::{Value, json};

use crate::{
    case::{Case, Meanwhile, People, case},
    program::{Op, act, activity, all, cancel_when, catch, local, seq, shielded},
};

fn beat(cancellation: &str) -> Op {
    let mut activity = act("beat", json!(null));
    activity.heartbeat = 2_000;
    activity.cancellation = cancellation.to_owned();
    Op::Activity(activity)
}

const CANCEL_AT_TIMER: People = |people: Meanwhile| {
    Box::pin(async move {
        people.until("TimerStarted", 1).await;
        people.at_rest().await;
        people.cancel().await;
        Value::Null
    })
};

const CANCEL_AT_ACTIVITY: People = |people: Meanwhile| {
    Box::pin(async move {
        people.until("ActivityTaskScheduled", 1).await;
        people
            .wait("the activity's start", || async {
                let description = people.describe(&people.id, "").await;
                description.pending_activities.iter().any(|activity| activity.state() as i32 == 2)
            })
            .await;
        people.at_rest().await;
        people.cancel().await;
        Value::Null
    })
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("cancelled at a timer", Op::Timer(60_000)).with(CANCEL_AT_TIMER),
        case(
            "cancelled, with a clean-up",
            seq([catch(seq([Op::Timer(60_000), Op::Fail("on".to_owned())])), shielded(activity("echo", "clean"))]),
        )
        .with(CANCEL_AT_TIMER),
        case("cancelled, and it ends so", seq([Op::Timer(60_000), shielded(activity("echo", 1)), Op::EndCancelled]))
            .with(CANCEL_AT_TIMER),
        case("a cancellation that is ignored", shielded(seq([Op::Timer(4_000), activity("echo", 1)])))
            .with(CANCEL_AT_TIMER),
        case("a cancellation that is waited for", seq([all([Op::Cancelled, catch(Op::Timer(60_000))]), Op::Timer(20)]))
            .with(CANCEL_AT_TIMER),
        case("cancelled at an activity that is abandoned", catch(beat("abandon"))).with(CANCEL_AT_ACTIVITY),
        case("cancelled at an activity that is not waited for", catch(beat("try_cancel"))).with(CANCEL_AT_ACTIVITY),
        case("cancelled at an activity that is waited for", seq([catch(beat("wait")), shielded(activity("echo", 1))]))
            .with(CANCEL_AT_ACTIVITY),
        case(
            "a scope is cancelled at a timer",
            seq([catch(cancel_when(Op::Timer(60_000), Op::Timer(50))), Op::Timer(20)]),
        ),
        case(
            "a scope is cancelled at an activity",
            seq([catch(cancel_when(beat("wait"), Op::Timer(700))), Op::Timer(20)]),
        ),
        case("an activity is cancelled before it starts", {
            let mut activity = act("echo", json!(1));
            activity.task_queue = "$-nobody".to_owned();
            activity.cancellation = "wait".to_owned();
            seq([catch(cancel_when(Op::Activity(activity), Op::Timer(200))), Op::Timer(20)])
        }),
        case("cancelled in the task that schedules", catch(cancel_when(activity("echo", 1), local("echo", 1))))
            .loosely(),
        case("a timer is cancelled in its own task", catch(cancel_when(Op::Timer(60_000), Op::Value(json!(1))))),
        case("cancelled twice", seq([catch(Op::Timer(60_000)), shielded(Op::Timer(4_000))])).with(|people| {
            Box::pin(async move {
                people.until("TimerStarted", 1).await;
                people.at_rest().await;
                people.cancel().await;
                people.until("TimerStarted", 2).await;
                people.at_rest().await;
                people.cancel().await;
                Value::Null
            })
        }),
        case("terminated", Op::Signals(1)).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                people.terminate("that is enough").await;
                Value::Null
            })
        }),
        case("terminated with an activity and a timer open", all([beat("wait"), Op::Timer(60_000)])).with(|people| {
            Box::pin(async move {
                people.until("TimerStarted", 1).await;
                people.at_rest().await;
                people.terminate("that is enough").await;
                Value::Null
            })
        }),
    ]
}
