//! Lost workers: tasks that are taken and never answered, or answered too late. They are taken by hand.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    by_hand::{by_hand, given, given_attempt},
    case::{Case, People, case},
    program::{Activity, Op, act, activity, catch, seq},
};

/// The first attempt is lost; what its worker answers late is too late; the second one ends the workflow.
const LOST_ONCE: People = |people| {
    Box::pin(async move {
        let first = people.take().await;
        let second = people.take().await;
        let late = people.complete(&first, "late").await;
        let failed_late = people.fail_task(&first).await;
        let done = people.complete(&second, "done").await;
        json!([given(&first), given(&second), late, failed_late, done])
    })
};

/// A signal waits behind the lost attempt and makes the next one a first attempt.
const LOST_BEFORE_A_SIGNAL: People = |people| {
    Box::pin(async move {
        let first = people.take().await;
        people.signal(1).await;
        let second = people.take().await;
        json!([given(&first), given(&second), people.complete(&second, "done").await])
    })
};

/// The first attempt fails, once and no more; the second ends the workflow.
const FAILED_BY_HAND: People = |people| {
    Box::pin(async move {
        let first = people.take().await;
        let failed = people.fail_task(&first).await;
        let again = people.fail_task(&first).await;
        let second = people.take().await;
        json!([given(&first), failed, again, given(&second), people.complete(&second, "done").await])
    })
};

/// The worker is gone when its sticky queue would be asked: nobody polls it.
const STICKY_AND_GONE: People = |people| {
    Box::pin(async move {
        let first = people.take().await;
        let stuck = people.stick(&first).await;
        people.signal(1).await;
        let second = people.take().await;
        json!([stuck, given(&second), people.complete(&second, "done").await])
    })
};

/// The worker is lost with a task of its sticky queue: the next attempt is for any worker, with the whole history.
const STICKY_AND_LOST: People = |people| {
    Box::pin(async move {
        let first = people.take().await;
        let polling = people.clone();
        let poll = tokio::spawn(async move { polling.take_sticky().await });
        people.sticky_is_polled().await;
        let stuck = people.stick(&first).await;
        people.signal(1).await;
        let second = poll.await.unwrap();
        let third = people.take().await;
        json!([stuck, given(&second), given(&third), people.complete(&third, "done").await])
    })
};

/// Taken, and never answered. A workflow task may take as long as its run at most: taken later, its time ends well after the run's.
const TAKEN_LATE: People = |people| {
    Box::pin(async move {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let task = people.take().await;
        given(&task)
    })
};

const TAKEN_AND_TERMINATED: People = |people| {
    Box::pin(async move {
        let task = people.take().await;
        people.terminate("its worker is lost").await;
        json!([given(&task), people.complete(&task, "late").await])
    })
};

/// The first attempt of the activity is lost, the second is done.
const ACTIVITY_LOST_ONCE: People = |people| {
    Box::pin(async move {
        let first = people.take_activity().await;
        let second = people.take_activity().await;
        let late = people.complete_activity(&first, "late").await;
        let done = people.complete_activity(&second, "done").await;
        json!([given_attempt(&first), given_attempt(&second), late, done])
    })
};

/// As before, and the lost one has told how far it was.
const ACTIVITY_LOST_AFTER_A_HEARTBEAT: People = |people| {
    Box::pin(async move {
        let first = people.take_activity().await;
        let beat = people.heartbeat(&first, json!({ "at": 7 })).await;
        let second = people.take_activity().await;
        let late = people.heartbeat(&first, json!({ "at": 8 })).await;
        let done = people.complete_activity(&second, "done").await;
        json!([beat, given_attempt(&second), late, done])
    })
};

/// Two attempts are lost, the third is done.
const ACTIVITY_LOST_TWICE: People = |people| {
    Box::pin(async move {
        let (first, second) = (people.take_activity().await, people.take_activity().await);
        let third = people.take_activity().await;
        let late = people.complete_activity(&second, "late").await;
        let done = people.complete_activity(&third, "done").await;
        json!([given_attempt(&first), given_attempt(&third), late, done])
    })
};

/// Both attempts are lost; the first has told how far it was.
const ACTIVITY_LOST_FOR_GOOD: People = |people| {
    Box::pin(async move {
        let first = people.take_activity().await;
        let beat = people.heartbeat(&first, json!({ "at": 7 })).await;
        let second = people.take_activity().await;
        people.until("ActivityTaskTimedOut", 1).await;
        let late = people.complete_activity(&second, "late").await;
        json!([beat, given_attempt(&second), late])
    })
};

fn lost(change: impl FnOnce(&mut Activity)) -> Op {
    let mut activity = act("by hand", json!("input"));
    activity.task_queue = "$-lost".to_owned();
    change(&mut activity);
    Op::Activity(activity)
}

pub(super) fn cases() -> Vec<Case> {
    // What hands answer is not what the program says: it is never walked through.
    let workflow = |name: &str| case(name, Op::Value(Value::Null)).started_with(by_hand);
    vec![
        workflow("a workflow task is lost with its worker").with(LOST_ONCE),
        workflow("a signal behind a lost workflow task").with(LOST_BEFORE_A_SIGNAL),
        workflow("a workflow task is failed by hand").with(FAILED_BY_HAND),
        workflow("a sticky worker is gone").with(STICKY_AND_GONE),
        workflow("a sticky worker is lost with its task").with(STICKY_AND_LOST),
        workflow("terminated while its task is lost").with(TAKEN_AND_TERMINATED),
        case("a run times out while its task is lost", Op::Value(Value::Null)).with(TAKEN_LATE).started_with(
            |options| {
                let mut options = by_hand(options);
                options.task_timeout = Some(Duration::from_secs(60));
                options.run_timeout = Some(Duration::from_secs(4));
                options
            },
        ),
        case("an activity is lost with its worker", lost(|a| a.start_to_close = 2_000)).with(ACTIVITY_LOST_ONCE),
        case("an activity is lost twice", lost(|a| a.start_to_close = 1_500)).with(ACTIVITY_LOST_TWICE),
        case("an activity is lost after a heartbeat", lost(|a| a.heartbeat = 2_000))
            .with(ACTIVITY_LOST_AFTER_A_HEARTBEAT),
        case(
            "an activity is lost for good",
            seq([
                catch(lost(|a| {
                    a.heartbeat = 1_500;
                    a.attempts = 2;
                })),
                activity("echo", 1),
            ]),
        )
        .with(ACTIVITY_LOST_FOR_GOOD),
    ]
}
