use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;

/// As in a log: numbered from 1.
fn logged(told: Vec<Value>) -> Vec<Event> {
    let event = |(seq, data): (i64, Value)| Event {
        seq,
        event_type: data["type"].as_str().unwrap().to_owned(),
        data,
        at: chrono::DateTime::from_timestamp_millis(seq).unwrap(),
    };
    (1..).zip(told).map(event).collect()
}

fn projected(events: &[Event]) -> Vec<Value> {
    let mut projector = Projector::new("s");
    events.iter().flat_map(|event| projector.take(event)).collect()
}

/// The rules of the stock client's verification, and the shape of what it takes for an error.
#[derive(Debug, Default)]
struct Verifier {
    running: bool,
    texts: BTreeSet<String>,
    thoughts: BTreeSet<String>,
    spans: BTreeSet<String>,
    calls: BTreeSet<String>,
}

impl Verifier {
    fn see(&mut self, event: &Value) -> Result<(), String> {
        let (kind, id) = (event["type"].as_str().unwrap(), |field: &str| event[field].as_str().unwrap().to_owned());
        let is = |holds: bool| if holds { Ok(()) } else { Err(event.to_string()) };
        for field in ["messageId", "toolCallId", "runId", "delta", "role", "usage", "outcome", "code"] {
            is(event.get(field) != Some(&Value::Null))?;
        }
        is(event["timestamp"].is_i64())?;
        if kind == "RUN_STARTED" {
            is(!self.running)?;
            self.running = true;
            return Ok(());
        }
        is(self.running)?;
        match kind {
            "RUN_FINISHED" | "RUN_ERROR" => {
                let open = [&self.texts, &self.thoughts, &self.spans, &self.calls];
                is(open.iter().all(|open| open.is_empty()))?;
                self.running = false;
            }
            "TEXT_MESSAGE_START" => is(self.texts.insert(id("messageId")))?,
            "TEXT_MESSAGE_CONTENT" => is(self.texts.contains(&id("messageId")))?,
            "TEXT_MESSAGE_END" => is(self.texts.remove(&id("messageId")))?,
            "REASONING_START" => is(self.spans.insert(id("messageId")))?,
            "REASONING_END" => is(self.spans.remove(&id("messageId")))?,
            "REASONING_MESSAGE_START" => is(self.thoughts.insert(id("messageId")))?,
            "REASONING_MESSAGE_CONTENT" => is(self.thoughts.contains(&id("messageId")))?,
            "REASONING_MESSAGE_END" => is(self.thoughts.remove(&id("messageId")))?,
            "TOOL_CALL_START" => is(self.calls.insert(id("toolCallId")))?,
            "TOOL_CALL_ARGS" => is(self.calls.contains(&id("toolCallId")))?,
            "TOOL_CALL_END" => is(self.calls.remove(&id("toolCallId")))?,
            "TOOL_CALL_RESULT" | "CUSTOM" | "ACTIVITY_SNAPSHOT" => {}
            _ => is(false)?,
        }
        Ok(())
    }
}

fn verify(events: &[Value]) -> Result<(), String> {
    let mut verifier = Verifier::default();
    events.iter().try_for_each(|event| verifier.see(event))
}

/// An event in a few words.
fn told(event: &Value) -> String {
    let detail = ["delta", "content", "code", "name", "runId", "messageId", "toolCallId"]
        .into_iter()
        .find_map(|field| event[field].as_str())
        .unwrap_or_default();
    let outcome = event["outcome"]["type"].as_str().map(|outcome| format!(" {outcome}")).unwrap_or_default();
    format!("{} {detail}{outcome}", event["type"].as_str().unwrap())
}

fn request(id: &str, call: &str) -> Value {
    json!({ "type": "permission.requested", "interrupt_id": id, "turn_id": "t", "tool_call_id": call, "title": "rm",
        "kind": "execute", "command": "rm x", "fingerprint": "f", "answers": ["once", "reject"] })
}

fn closed(id: &str) -> Value {
    json!({ "type": "permission.closed", "interrupt_id": id, "outcome": "answered", "answer": "once" })
}

fn text(id: &str, text: &str) -> Value {
    json!({ "type": "agent.text", "message_id": id, "text": text })
}

fn ended(turn: &str) -> Value {
    json!({ "type": "turn.ended", "turn_id": turn, "message_id": "u", "last_message_seq": 1, "outcome": "finished",
        "stop_reason": "end_turn" })
}

#[test]
fn a_turn_with_a_request_is_two_runs_and_what_comes_while_it_waits_belongs_to_the_second() {
    let events = projected(&logged(vec![
        json!({ "type": "session.phase", "phase": "Running", "reason": "Running", "message": "" }),
        json!({ "type": "user.message", "message_id": "u", "text": "do it" }),
        json!({ "type": "turn.started", "turn_id": "t", "message_id": "u" }),
        json!({ "type": "agent.thought", "message_id": "m", "text": "hm" }),
        text("m", "I "),
        text("m", "will"),
        json!({ "type": "tool.started", "tool_call_id": "c", "title": "Shell", "kind": "execute", "status": "pending", "input": {} }),
        request("1-1-1", "c"),
        text("n", "meanwhile"),
        json!({ "type": "user.message", "message_id": "v", "text": "and then this" }),
        closed("1-1-1"),
        json!({ "type": "tool.updated", "tool_call_id": "c", "status": "completed", "output": "gone", "exit_code": 0 }),
        json!({ "type": "usage", "turn_id": "t", "source": "agent", "model": "m1", "input_tokens": 9 }),
        json!({ "type": "usage", "turn_id": "t", "source": "proxy", "model": "m1", "input_tokens": 3 }),
        json!({ "type": "usage", "turn_id": "t", "source": "proxy", "model": "m1", "input_tokens": 4, "output_tokens": 1 }),
        json!({ "type": "turn.result", "turn_id": "t", "outcome": "finished" }),
        ended("t"),
        text("late", "between turns"),
        json!({ "type": "turn.started", "turn_id": "t2", "message_id": "v" }),
        json!({ "type": "turn.result", "turn_id": "t2", "outcome": "error", "code": "AgentError", "message": "it broke" }),
        json!({ "type": "turn.ended", "turn_id": "t2", "message_id": "v", "last_message_seq": 1, "outcome": "error", "code": "AgentError" }),
        json!({ "type": "session.phase", "phase": "Stopped", "reason": "UserStopped", "message": "" }),
    ]));
    verify(&events).unwrap();
    insta::assert_snapshot!(events.iter().map(told).collect::<Vec<_>>().join("\n"), @r#"
    RUN_STARTED t
    TEXT_MESSAGE_START u
    TEXT_MESSAGE_CONTENT do it
    TEXT_MESSAGE_END u
    REASONING_START m/reasoning
    REASONING_MESSAGE_START m/reasoning
    REASONING_MESSAGE_CONTENT hm
    REASONING_MESSAGE_END m/reasoning
    REASONING_END m/reasoning
    TEXT_MESSAGE_START m
    TEXT_MESSAGE_CONTENT I 
    TEXT_MESSAGE_CONTENT will
    TEXT_MESSAGE_END m
    TOOL_CALL_START c
    TOOL_CALL_END c
    RUN_FINISHED t interrupt
    RUN_STARTED t#2
    TEXT_MESSAGE_START n
    TEXT_MESSAGE_CONTENT meanwhile
    TEXT_MESSAGE_END n
    TEXT_MESSAGE_START v
    TEXT_MESSAGE_CONTENT and then this
    TEXT_MESSAGE_END v
    CUSTOM ambient.permission.closed
    TOOL_CALL_RESULT gone
    RUN_FINISHED t#2 success
    RUN_STARTED t2
    TEXT_MESSAGE_START late
    TEXT_MESSAGE_CONTENT between turns
    TEXT_MESSAGE_END late
    RUN_ERROR AgentError
    "#);
    let interrupted = events.iter().find(|event| event["outcome"]["type"] == "interrupt").unwrap();
    let interrupt = &interrupted["outcome"]["interrupts"][0];
    assert_eq!((&interrupt["id"], &interrupt["toolCallId"]), (&json!("1-1-1"), &json!("c")));
    let finished = events.iter().find(|event| event["outcome"]["type"] == "success").unwrap();
    assert_eq!(finished["usage"], json!([{ "model": "m1", "inputTokens": 7, "outputTokens": 1 }]));
    assert_eq!(events.last().unwrap()["message"], "it broke");
}

#[test]
fn logs_of_earlier_runners_are_projected_too() {
    let custom = |name: &str, value: Value| json!({ "type": "CUSTOM", "name": name, "value": value });
    let events = projected(&logged(vec![
        json!({ "type": "RUN_STARTED", "threadId": "s", "runId": "t", "messageId": "u" }),
        json!({ "type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant" }),
        json!({ "type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "hi" }),
        json!({ "type": "TEXT_MESSAGE_END", "messageId": "m" }),
        json!({ "type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "shell" }),
        json!({ "type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": "make" }),
        json!({ "type": "TOOL_CALL_END", "toolCallId": "c" }),
        custom("ambient.tool_output", json!({ "toolCallId": "c", "stream": "stdout", "text": "ok" })),
        json!({ "type": "TOOL_CALL_RESULT", "messageId": "c/result", "toolCallId": "c", "content": "ok", "exitCode": 0 }),
        json!({ "type": "RUN_ERROR", "runId": "t", "message": "stopped", "code": "Interrupted" }),
        custom(
            "ambient.turn_ended",
            json!({ "run_id": "t", "message_id": "u", "outcome": "interrupted", "code": "Interrupted" }),
        ),
    ]));
    verify(&events).unwrap();
    insta::assert_snapshot!(events.iter().map(told).collect::<Vec<_>>().join("\n"), @r#"
    RUN_STARTED t
    TEXT_MESSAGE_START m
    TEXT_MESSAGE_CONTENT hi
    TEXT_MESSAGE_END m
    TOOL_CALL_START c
    TOOL_CALL_ARGS {"script":"make"}
    TOOL_CALL_END c
    CUSTOM ambient.tool.output
    TOOL_CALL_RESULT ok
    RUN_FINISHED t cancelled
    "#);
}

#[test]
fn a_reader_that_comes_in_the_middle_of_a_run_or_a_question_gets_a_run_of_its_own() {
    let mut projector = Projector::new("s");
    let log = logged(vec![
        json!({ "type": "turn.started", "turn_id": "t", "message_id": "u" }),
        text("m", "I "),
        text("m", "will"),
        request("1-1-1", "c"),
    ]);
    log[..2].iter().for_each(|event| drop(projector.take(event)));
    let mut seen = projector.reenter();
    seen.extend(log[2..].iter().flat_map(|event| projector.take(event)));
    verify(&seen).unwrap();
    let waiting = projector.reenter();
    verify(&waiting).unwrap();
    assert_eq!(waiting.iter().map(told).collect::<Vec<_>>(), ["RUN_STARTED t", "RUN_FINISHED t interrupt"]);
    assert_eq!(Projector::new("s").reenter(), Vec::<Value>::new());
}

#[test]
fn what_waits_for_the_next_run_has_a_limit_and_what_was_left_out_is_counted() {
    let mut log = vec![json!({ "type": "turn.started", "turn_id": "t", "message_id": "u" }), request("1-1-1", "c")];
    log.extend((0..5000).map(|n| text("m", &n.to_string())));
    log.extend([closed("1-1-1"), ended("t")]);
    let events = projected(&logged(log));
    verify(&events).unwrap();
    let left_out = events.iter().find(|event| event["name"] == "ambient.omitted").unwrap();
    assert_eq!(left_out["value"]["events"], 5000 - 4096);
}

/// Few ids, so that they meet; turns, requests and ends at any time.
fn any_event() -> impl Strategy<Value = Value> {
    let id = prop::sample::select(vec!["a", "b", "c"]);
    let word = prop::sample::select(vec!["", "x", "two words"]);
    let status = prop::sample::select(vec!["pending", "in_progress", "completed", "failed"]);
    let outcome = prop::sample::select(vec!["finished", "error", "interrupted"]);
    (0..16, id, word, status, outcome).prop_map(|(which, id, word, status, outcome)| match which {
        0 | 1 => json!({ "type": "turn.started", "turn_id": format!("t{id}"), "message_id": format!("u{id}") }),
        2 => json!({ "type": "turn.ended", "turn_id": "t", "message_id": "u", "last_message_seq": 1, "outcome": outcome }),
        3 => json!({ "type": "turn.result", "turn_id": "t", "outcome": outcome, "code": "X", "message": word }),
        4 => json!({ "type": "user.message", "message_id": format!("u{id}"), "text": word }),
        5 | 6 => text(id, word),
        7 => json!({ "type": "agent.thought", "message_id": id, "text": word }),
        8 => json!({ "type": "tool.started", "tool_call_id": id, "title": word, "kind": "edit", "status": status }),
        9 => json!({ "type": "tool.updated", "tool_call_id": id, "status": status, "input": { "x": word } }),
        10 | 11 => request(id, id),
        12 => closed(id),
        13 => json!({ "type": "agent.plan", "entries": [] }),
        14 => json!({ "type": "session.phase", "phase": "Stopped", "reason": "UserStopped", "message": word }),
        _ => json!({ "type": "tool.output", "tool_call_id": id, "stream": "stdout", "text": word }),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_a_log_holds_and_wherever_it_ends_the_stock_client_accepts_it(events in vec(any_event(), 0..60)) {
        // That a beginning of the log gives a beginning of the events is the type of `take`; that each is accepted is the verifier's.
        prop_assert_eq!(verify(&projected(&logged(events))), Ok(()));
    }

    #[test]
    fn after_the_end_of_a_turn_nothing_is_remembered(events in vec(any_event(), 0..60)) {
        let log = logged(events);
        let mut whole = Projector::new("s");
        for (place, event) in log.iter().enumerate() {
            whole.take(event);
            if event.event_type == "turn.ended" {
                let mut fresh = Projector::new("s");
                let mut rest = Projector::new("s");
                log[..=place].iter().for_each(|event| drop(rest.take(event)));
                let of = |projector: &mut Projector| {
                    log[place + 1..].iter().flat_map(|event| projector.take(event)).collect::<Vec<_>>()
                };
                prop_assert_eq!(of(&mut fresh), of(&mut rest));
            }
        }
    }

    #[test]
    fn whoever_comes_in_anywhere_gets_what_the_stock_client_accepts(events in vec(any_event(), 0..40), cut in 0..40_usize) {
        let log = logged(events);
        let mut projector = Projector::new("s");
        let (head, tail) = log.split_at(cut.min(log.len()));
        head.iter().for_each(|event| drop(projector.take(event)));
        let mut seen = projector.reenter();
        seen.extend(tail.iter().flat_map(|event| projector.take(event)));
        prop_assert_eq!(verify(&seen), Ok(()));
    }
}
