use serde_json::json;

use super::*;
use crate::output::capture;

fn events() -> Vec<Event> {
    let event = |(n, (event_type, mut data)): (usize, (&str, Value))| {
        if event_type.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
            data["type"] = json!(event_type);
        }
        Event { seq: n as i64 + 1, event_type: event_type.to_owned(), data, at: chrono::DateTime::UNIX_EPOCH }
    };
    let output = |id: &str, stream: &str, text: &str| json!({"name": "ambient.tool_output", "value": {"toolCallId": id, "stream": stream, "text": text}});
    let told = vec![
        ("session.phase", json!({"phase": "Pending", "reason": "Pending", "message": "", "run": 1})),
        ("user.message", json!({"text": "# Task\nDo it", "is_prompt": true})),
        ("session.condition", json!({"type": "RunnerStarted", "status": "True", "reason": "Running", "message": ""})),
        ("session.phase", json!({"phase": "Running", "reason": "Running", "message": "", "run": 1})),
        ("RUN_STARTED", json!({"runId": "r"})),
        ("TEXT_MESSAGE_START", json!({"messageId": "m"})),
        ("TEXT_MESSAGE_CONTENT", json!({"messageId": "m", "delta": "Let me "})),
        ("TEXT_MESSAGE_CONTENT", json!({"messageId": "m", "delta": "look.\u{1b}[2J"})),
        ("TEXT_MESSAGE_END", json!({"messageId": "m"})),
        ("TOOL_CALL_START", json!({"toolCallId": "a", "toolCallName": "shell"})),
        ("TOOL_CALL_ARGS", json!({"toolCallId": "a", "delta": "{\"script\":\"make "})),
        ("TOOL_CALL_ARGS", json!({"toolCallId": "a", "delta": "test\\necho done\"}"})),
        ("TOOL_CALL_END", json!({"toolCallId": "a"})),
        ("CUSTOM", output("a", "stdout", "one\ntw")),
        ("CUSTOM", output("a", "stdout", "o")),
        ("CUSTOM", output("a", "stderr", "!\r\n")),
        ("TOOL_CALL_RESULT", json!({"toolCallId": "a", "content": "one\ntwo!\n", "exitCode": 3})),
        ("TOOL_CALL_START", json!({"toolCallId": "c", "toolCallName": "shell"})),
        ("TOOL_CALL_ARGS", json!({"toolCallId": "c", "delta": "\ncargo test"})),
        ("TOOL_CALL_END", json!({"toolCallId": "c"})),
        ("TOOL_CALL_RESULT", json!({"toolCallId": "c", "content": "", "exitCode": 0})),
        ("TOOL_CALL_START", json!({"toolCallId": "b", "toolCallName": "read_file"})),
        ("TOOL_CALL_ARGS", json!({"toolCallId": "b", "delta": "{\"path\":\"a.txt\"}"})),
        ("TOOL_CALL_RESULT", json!({"toolCallId": "b", "content": "content"})),
        (
            "CUSTOM",
            json!({"name": "ambient.snapshot", "value": {"repo": "demo", "commit": "0123456789abcdef", "ref": "x"}}),
        ),
        ("CUSTOM", json!({"name": "ambient.snapshot_failed", "value": {"repo": "other", "reason": "disk full"}})),
        ("CUSTOM", json!({"name": "ambient.attempt_started", "value": {"attempt": 2, "resumed": true}})),
        ("RUN_ERROR", json!({"code": "ScriptFailed", "message": "block 1 ended with 3"})),
        ("RUN_ERROR", json!({"code": "Interrupted", "message": "the turn was interrupted"})),
        ("A_LATER_RELEASES", json!({"x": 1})),
        ("session.blocked", json!({"reason": "StopIncomplete", "blocked_on": "process 12"})),
        ("session.blocked", Value::Null),
        ("CUSTOM", json!({"name": "ambient.exit", "value": {"code": 3, "reason": "script failed"}})),
        ("session.phase", json!({"phase": "Stopping", "reason": "RunnerExit", "message": "exit code 3"})),
        ("session.phase", json!({"phase": "Failed", "reason": "RunnerExit", "message": "exit code 3"})),
    ];
    told.into_iter().enumerate().map(event).collect()
}

#[test]
fn the_agents_words_and_output_are_told_apart_from_progress() {
    let (console, out, err) = capture::console(false, false);
    let mut renderer = Renderer::new(console, OutputFormat::Table);
    for event in events() {
        renderer.event(&event).unwrap();
    }
    insta::assert_snapshot!(out.text(), @r#"
    Let me look.
    $ make test …
    one
    two!
    exit code 3
    $ cargo test
    [read_file] {"path":"a.txt"}
    content
    "#);
    insta::assert_snapshot!(err.text(), @"
    ● Pending
    > # Task …
      RunnerStarted: Running
    ● Running
      snapshot of demo: 0123456789ab…
      no snapshot of other: disk full
      runner is back (attempt 2)
      turn failed: ScriptFailed: block 1 ended with 3
      turn stopped: the turn was interrupted
      waiting: StopIncomplete: process 12
      runner ended: 3 script failed
    ● Stopping (RunnerExit): exit code 3
    ● Failed (RunnerExit)
    ");
}

#[test]
fn the_first_line_that_says_something_stands_for_a_text() {
    for (text, line) in [
        ("```sh\nmake\n```\n", "make"),
        ("\n a \n\nb", "a …"),
        ("one", "one"),
        ("```\n```", ""),
        ("\u{feff}~~~sh\nmake\n~~~", "make"),
    ] {
        assert_eq!(first_line(text), line, "{text:?}");
    }
}

#[test]
fn json_is_one_event_a_line() {
    let (console, out, err) = capture::console(false, false);
    let mut renderer = Renderer::new(console, OutputFormat::Json);
    for event in events() {
        renderer.event(&event).unwrap();
    }
    let read: Vec<Event> = out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, events());
    assert_eq!(err.text(), "");
}

#[test]
fn on_a_terminal_progress_never_ends_up_behind_half_a_line() {
    let (console, out, _) = capture::console(true, false);
    let mut renderer = Renderer::new(console, OutputFormat::Table);
    let event = |event_type: &str, data: Value| Event {
        seq: 1,
        event_type: event_type.to_owned(),
        data,
        at: chrono::DateTime::UNIX_EPOCH,
    };
    renderer.event(&event("TEXT_MESSAGE_CONTENT", json!({"delta": "half"}))).unwrap();
    renderer.event(&event("session.phase", json!({"phase": "Stopping"}))).unwrap();
    assert_eq!(out.text(), "half\n");
}

#[test]
fn a_snapshot_is_shown_as_its_events_would_have_been() {
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let messages = json!([
        {"id": "u", "role": "user", "content": "# Task\nDo it"},
        {"id": "m", "role": "assistant", "content": "Let me look.\u{1b}[2J"},
        {"id": "a", "role": "assistant", "content": "", "toolCalls": [call("a", "shell", "{\"script\":\"make\\necho\"}")]},
        {"id": "r", "role": "tool", "content": "one\ntwo!", "toolCallId": "a", "exitCode": 3},
        {"id": "b", "role": "assistant", "content": "", "toolCalls": [call("b", "read_file", "{\"path\":\"a.txt\"}")]},
        {"id": "s", "role": "tool", "content": "content", "toolCallId": "b"},
    ]);
    let data = json!({"type": "MESSAGES_SNAPSHOT", "covers_seq": 41, "omitted": 7, "messages": messages});
    let snapshot = Snapshot { covers_seq: 41, data };
    let (console, out, err) = capture::console(false, false);
    Renderer::new(console, OutputFormat::Table).snapshot(&snapshot).unwrap();
    insta::assert_snapshot!(out.text(), @r#"
    Let me look.
    $ make …
    one
    two!
    exit code 3
    [read_file] {"path":"a.txt"}
    content
    "#);
    insta::assert_snapshot!(err.text(), @"
      7 earlier messages are left out; --after-seq 0 shows everything
    > # Task …
    ");
    let (console, out, _) = capture::console(false, false);
    Renderer::new(console, OutputFormat::Json).snapshot(&snapshot).unwrap();
    let read: Value = serde_json::from_str(out.text().strip_suffix('\n').unwrap()).unwrap();
    assert_eq!((read, out.text().lines().count()), (snapshot.data, 1));
}
