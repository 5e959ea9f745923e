//! Remote activities: results, retries, timeouts.

use serde_json::json;

use crate::{
    case::{Case, case},
    program::{Activity, Op, act, activity, all, catch, seq},
};

fn with(name: &str, input: serde_json::Value, change: impl FnOnce(&mut Activity)) -> Op {
    let mut activity = act(name, input);
    change(&mut activity);
    Op::Activity(activity)
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("an activity", activity("echo", json!({ "x": 1 }))),
        case("activities in a row", seq([activity("echo", 1), activity("echo", 2), activity("echo", 3)])),
        case("activities at once", all((0..4).map(|n| activity("echo", n)))).loosely(),
        case("an activity that fails at first", activity("flaky", 3)),
        case("an activity that fails for good", with("fail", json!("Broken"), |a| a.attempts = 2)),
        case(
            "a failure that is caught",
            seq([catch(with("fail", json!("Broken"), |a| a.attempts = 1)), Op::Timer(20)]),
        ),
        case("an activity that refuses", activity("refuse", json!(null))),
        case(
            "a type that is not retried",
            with("fail", json!("Fatal"), |a| a.non_retryable = vec!["Fatal".to_owned()]),
        ),
        case(
            "another type is retried",
            catch(with("fail", json!("Other"), |a| {
                a.non_retryable = vec!["Fatal".to_owned()];
                a.attempts = 2;
            })),
        ),
        case("an activity that names its next retry", activity("later", 100)),
        case("heartbeat details are carried over", with("carry", json!({ "at": 7 }), |a| a.heartbeat = 5_000)),
        case(
            "start to close",
            catch(with("slow", json!(3_000), |a| {
                a.start_to_close = 300;
                a.attempts = 1;
            })),
        ),
        case(
            "start to close, tried again",
            with("hang", json!(null), |a| {
                a.start_to_close = 400;
                a.attempts = 2;
            }),
        ),
        case(
            "schedule to close, no time for another attempt",
            catch(with("fail", json!("Again"), |a| {
                a.schedule_to_close = 1_000;
                a.start_to_close = 0;
                a.first_interval = 5_000;
            })),
        ),
        case(
            "schedule to close, after the second attempt",
            catch(with("fail", json!("Again"), |a| {
                a.schedule_to_close = 6_000;
                a.start_to_close = 0;
                a.first_interval = 2_000;
            })),
        ),
        case(
            "schedule to start",
            catch(with("echo", json!(1), |a| {
                a.schedule_to_start = 300;
                a.task_queue = "$-nobody".to_owned();
            })),
        ),
        case(
            "no heartbeat",
            catch(with("hang", json!(null), |a| {
                a.heartbeat = 400;
                a.attempts = 1;
            })),
        ),
        case(
            "no heartbeat, tried again",
            with("hang", json!(null), |a| {
                a.heartbeat = 400;
                a.attempts = 2;
            }),
        ),
        case("an id of its own", with("echo", json!(1), |a| a.id = "mine".to_owned())),
        case(
            "an id used twice in a row",
            seq([
                with("echo", json!(1), |a| a.id = "mine".to_owned()),
                with("echo", json!(2), |a| a.id = "mine".to_owned()),
            ]),
        ),
        case("a large result", seq([activity("large", 100_000), Op::Timer(20)])),
        case("a timer beside a slow activity", all([activity("slow", 600), Op::Timer(100)])).loosely(),
    ]
}
