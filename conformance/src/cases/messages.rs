//! Signals, queries, updates.

use serde_json::{Value, json};

use crate::{
    case::{Case, People, case},
    program::{Op, activity, all, seq},
};

const TWO_SIGNALS: People = |people| {
    Box::pin(async move {
        for number in 1..=2 {
            people.at_rest().await;
            people.signal(json!({ "number": number })).await;
        }
        Value::Null
    })
};

const QUERIES: People = |people| {
    Box::pin(async move {
        people.at_rest().await;
        let before = people.query("state").await;
        let unknown = people.query("nonsense").await;
        people.signal(1).await;
        let after = people.query("state").await;
        people
            .wait("its end", || async {
                people.describe(&people.id, "").await.workflow_execution_info.unwrap_or_default().close_time.is_some()
            })
            .await;
        let closed = people.query("state").await;
        let failed = |answer: &Value| answer["error"].is_array();
        json!([before, failed(&unknown), after, closed])
    })
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("a signal", Op::Signals(1)).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                people.signal("hello").await;
                Value::Null
            })
        }),
        case("two signals", Op::Signals(2)).with(TWO_SIGNALS),
        case("signals during an activity", seq([activity("slow", 900), Op::Signals(2)])).with(TWO_SIGNALS).loosely(),
        case("signals and a timer", all([Op::Signals(2), Op::Timer(2_500)])).with(TWO_SIGNALS),
        case("queries", Op::Signals(1)).with(QUERIES),
        case("an update", Op::Updates(1)).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                people.update("update", "first", "one").await
            })
        }),
        case("an update, repeated", Op::Updates(2)).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                let first = people.update("update", "first", "one").await;
                let again = people.update("update", "first", "one").await;
                people.at_rest().await;
                let second = people.update("update", "second", "two").await;
                json!([first, again, second])
            })
        }),
        case("an update that is refused", Op::Updates(1)).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                let refused = people.update("update", "first", "bad").await;
                people.at_rest().await;
                json!([refused, people.update("update", "second", "good").await])
            })
        }),
        case("an update that works", Op::Updates(1)).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                people.update("work", "first", json!({ "x": 1 })).await
            })
        }),
        case("an update that fails", seq([Op::Updates(1), Op::Timer(20)])).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                let failed = people.update("work", "first", "fail").await;
                people.at_rest().await;
                json!([failed, people.update("update", "second", "good").await])
            })
        }),
        case("an update of a kind nobody knows", Op::Updates(1)).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                let unknown = people.update("nonsense", "first", 1).await;
                people.at_rest().await;
                people.update("update", "second", "good").await;
                json!(unknown["error"].is_array())
            })
        }),
        case("an update of a closed workflow", Op::Value(json!(1))).with(|people| {
            Box::pin(async move {
                people
                    .wait("its end", || async {
                        people
                            .describe(&people.id, "")
                            .await
                            .workflow_execution_info
                            .unwrap_or_default()
                            .close_time
                            .is_some()
                    })
                    .await;
                people.update("update", "late", 1).await
            })
        }),
        case("an update and a signal", seq([Op::Signals(1), Op::Updates(1)])).with(|people| {
            Box::pin(async move {
                people.at_rest().await;
                people.signal(1).await;
                people.at_rest().await;
                people.update("update", "first", "one").await
            })
        }),
    ]
}
