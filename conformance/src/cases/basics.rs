//! Results, timers, markers, properties, failures.

use serde_json::json;

use crate::{
    case::{Case, case},
    program::{Op, activity, all, catch, first, local, seq},
};

pub(super) fn cases() -> Vec<Case> {
    let patched = |id: &str, deprecated| Op::Patched { id: id.to_owned(), deprecated };
    let failing_local = |name: &str, attempts| {
        let mut activity = crate::program::act(name, json!(3));
        activity.attempts = attempts;
        Op::Local(activity)
    };
    vec![
        case("a result", Op::Value(json!({ "a": [1, "two", null] }))),
        case("a failure", Op::Fail("of the workflow".to_owned())),
        case("it ends as cancelled", Op::EndCancelled),
        case("a timer", Op::Timer(50)),
        case("a timer of no time", Op::Timer(0)),
        case("timers in a row", seq([Op::Timer(20), Op::Timer(30)])),
        // Whether they fire together is up to the engine's clock.
        case("timers at once", all([Op::Timer(20), Op::Timer(400), Op::Timer(800)])).loosely(),
        case("the first of two timers", first([Op::Timer(20), Op::Timer(60_000)])),
        case("a timer or an activity", first([activity("echo", 1), Op::Timer(60_000)])),
        case("a local activity", local("echo", json!("here"))),
        case("local activities in a row", seq([local("echo", 1), local("echo", 2), local("echo", 3)])),
        case("local activities at once", all([local("echo", 1), local("echo", 2)])),
        case("a local activity that fails at first", failing_local("flaky", 0)),
        case("a local activity that fails for good", catch(failing_local("fail", 2))),
        case("a local activity that refuses", catch(local("refuse", json!(null)))),
        case("a local one between remote ones", seq([activity("echo", 1), local("echo", 2), activity("echo", 3)])),
        case("a patch", seq([patched("one", false), activity("echo", 1)])),
        case("a patch, deprecated", seq([patched("one", true), activity("echo", 1)])),
        case("a patch asked for twice", seq([patched("one", false), Op::Timer(20), patched("one", false)])),
        case("two patches", seq([patched("one", false), patched("two", false), Op::Timer(20)])),
        case("a memo", seq([Op::Memo("color".to_owned(), json!("red")), Op::Timer(20)])),
        case(
            "a memo set twice",
            seq([Op::Memo("a".to_owned(), json!(1)), Op::Timer(20), Op::Memo("a".to_owned(), json!(2))]),
        ),
        case("a search attribute", seq([Op::SearchAttribute("x".to_owned()), Op::Timer(20)])),
        case("random numbers and ids", seq([Op::Random, Op::Timer(20), Op::Random])),
        case("a task that fails once", seq([Op::FailTask(1), activity("echo", 1)])),
        case("a task that fails twice", seq([Op::Timer(20), Op::FailTask(2), Op::Timer(20)])),
        case("many commands in one task", all((0..20).map(|n| Op::Timer(100 + 150 * n)))).loosely(),
    ]
}
