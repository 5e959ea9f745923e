use serde_json::json;

use super::*;
use crate::output::capture;

/// Numbered from 1.
fn numbered(told: Vec<(&str, Value)>) -> Vec<Event> {
    let event = |(seq, (event_type, mut data)): (i64, (&str, Value))| {
        let ours = event_type.starts_with("session.") || event_type.starts_with("user.");
        if !ours {
            data["type"] = json!(event_type);
        }
        Event { seq, event_type: event_type.to_owned(), data, at: chrono::DateTime::UNIX_EPOCH }
    };
    (1..).zip(told).map(event).collect()
}

/// What is printed on standard output and standard error.
fn printed(terminal: bool, color: bool, told: Vec<(&str, Value)>) -> (String, String) {
    let (console, out, err) = capture::console(terminal, color);
    let mut renderer = Renderer::new(console, OutputFormat::Table);
    numbered(told).iter().for_each(|event| renderer.event(event).unwrap());
    renderer.finish().unwrap();
    (out.text(), err.text())
}

/// What a session's log holds, with the events that earlier runners recorded.
fn events() -> Vec<Event> {
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
        ("TOOL_CALL_ARGS", json!({"toolCallId": "a", "delta": "make test\necho done"})),
        ("TOOL_CALL_END", json!({"toolCallId": "a"})),
        ("CUSTOM", output("a", "stdout", "one\ntw")),
        ("CUSTOM", output("a", "stdout", "o")),
        ("CUSTOM", output("a", "stderr", "!\r\n")),
        ("TOOL_CALL_RESULT", json!({"toolCallId": "a", "content": "one\ntwo!\n", "exitCode": 3})),
        ("TOOL_CALL_START", json!({"toolCallId": "c", "toolCallName": "shell"})),
        ("TOOL_CALL_ARGS", json!({"toolCallId": "c", "delta": "\ncargo test"})),
        ("TOOL_CALL_END", json!({"toolCallId": "c"})),
        ("TOOL_CALL_RESULT", json!({"toolCallId": "c", "content": "", "exitCode": 0})),
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
        ("session.messages_not_run", json!({"run": 1, "message_ids": ["m1", "m2"]})),
        ("CUSTOM", json!({"name": "ambient.exit", "value": {"code": 3, "reason": "script failed"}})),
        ("session.phase", json!({"phase": "Stopping", "reason": "RunnerExit", "message": "exit code 3"})),
        ("session.phase", json!({"phase": "Failed", "reason": "RunnerExit", "message": "exit code 3"})),
    ];
    numbered(told)
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
      not run: 2 messages, which were still waiting for their turns (-o json has their ids)
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
fn who_comes_in_the_middle_of_a_call_sees_its_output_once() {
    let earlier = |text: &str| json!({"name": "ambient.tool_output", "value": {"toolCallId": "c", "stream": "stdout", "text": text}});
    let result = json!({"toolCallId": "c", "content": "one\ntwo\nthree\n", "exitCode": 0});
    let told = vec![("CUSTOM", earlier("two\n")), ("CUSTOM", earlier("three\n")), ("TOOL_CALL_RESULT", result)];
    assert_eq!(printed(false, false, told).0, "two\nthree\n");
    let output = |text: &str| json!({"tool_call_id": "c", "stream": "stdout", "text": text});
    let result = json!({"tool_call_id": "c", "status": "completed", "output": "one\ntwo\nthree\n", "exit_code": 0});
    let told = vec![("tool.output", output("two\n")), ("tool.output", output("three\n")), ("tool.updated", result)];
    assert_eq!(printed(false, false, told).0, "two\nthree\n");
}

#[test]
fn on_a_terminal_progress_never_ends_up_behind_half_a_line() {
    let piece = json!({"message_id": "m", "text": "half"});
    let (console, out, _) = capture::console(true, false);
    let mut renderer = Renderer::new(console, OutputFormat::Table);
    for event in numbered(vec![("agent.text", piece), ("session.phase", json!({"phase": "Stopping"}))]) {
        renderer.event(&event).unwrap();
    }
    assert_eq!(out.text(), "half\n");
}

/// A turn of an agent that thinks, plans, asks and edits.
fn turn() -> Vec<(&'static str, Value)> {
    let diff = json!({"type": "diff", "path": "src/main.rs", "old_text": "fn main() {}\n", "new_text": "fn main() {\n    run();\n}\n"});
    let plan = |first: &str, second: &str| {
        json!({"entries": [
            {"content": "Look", "priority": "high", "status": first},
            {"content": "Edit\nit", "priority": "low", "status": second},
        ]})
    };
    let request = |id: &str, title: &str, command: Option<&str>| {
        json!({"interrupt_id": id, "turn_id": "t", "tool_call_id": "e", "title": title, "kind": "execute", "command": command,
            "paths": ["src/main.rs"], "fingerprint": "f", "answers": ["once", "always", "reject"]})
    };
    let mut decided = request("1-1-2", "Run", Some("ls"));
    (decided["allowed"], decided["rule"]) = (json!(true), json!("tool read"));
    vec![
        (
            "agent.started",
            json!({"incarnation": 1, "name": "codex", "version": "0.16", "agent_session_id": "x",
            "conversation": "retold", "offers": {}}),
        ),
        ("turn.started", json!({"turn_id": "t", "message_id": "u"})),
        ("agent.thought", json!({"message_id": "h", "text": "The user "})),
        ("agent.thought", json!({"message_id": "h", "text": "wants\nan edit."})),
        ("agent.plan", plan("in_progress", "pending")),
        ("agent.text", json!({"message_id": "m", "text": "I will **edit**:\n\n"})),
        ("agent.plan", plan("in_progress", "pending")),
        ("agent.text", json!({"message_id": "m", "text": "now.\u{1b}[2J"})),
        (
            "tool.started",
            json!({"tool_call_id": "r", "title": "Read src/main.rs", "kind": "read", "status": "pending"}),
        ),
        (
            "tool.updated",
            json!({"tool_call_id": "r", "status": "completed",
            "content": [{"type": "text", "text": "1\n2\n3\n4\n5\n6\n7"}]}),
        ),
        (
            "tool.started",
            json!({"tool_call_id": "e", "title": "Edit \u{202e}file", "kind": "edit", "status": "in_progress", "content": [diff]}),
        ),
        ("permission.requested", request("1-1-1", "Edit file", None)),
        ("permission.closed", json!({"interrupt_id": "1-1-1", "outcome": "answered", "answer": "once"})),
        ("tool.updated", json!({"tool_call_id": "e", "status": "completed", "content": [diff]})),
        (
            "tool.started",
            json!({"tool_call_id": "x", "title": "Shell", "kind": "execute", "status": "pending", "input": {}}),
        ),
        ("permission.decided", decided),
        (
            "tool.updated",
            json!({"tool_call_id": "x", "status": "in_progress", "input": {"command": ["bash", "-lc", "make\nmake test"]}}),
        ),
        ("tool.output", json!({"tool_call_id": "x", "stream": "stdout", "text": "12%\r99%\n"})),
        ("tool.updated", json!({"tool_call_id": "x", "status": "failed", "exit_code": 2, "output": "12%\r99%\n"})),
        ("tool.started", json!({"tool_call_id": "y", "title": "Shell", "kind": "execute", "status": "pending"})),
        ("tool.updated", json!({"tool_call_id": "y", "input": {"command": "ls"}})),
        ("tool.updated", json!({"tool_call_id": "y", "status": "completed", "output": "a.txt"})),
        ("tool.started", json!({"tool_call_id": "z", "title": "Fetch it", "kind": "fetch", "status": "failed"})),
        ("agent.plan", plan("completed", "in_progress")),
        ("agent.content", json!({"message_id": "c", "content": {"type": "image", "mimeType": "image/png"}})),
        ("agent.settings", json!({"mode": "read-only"})),
        ("agent.notice", json!({"text": "the reply was cut off"})),
        ("usage", json!({"turn_id": "t", "source": "proxy", "input_tokens": 1200, "output_tokens": 34})),
        ("turn.result", json!({"turn_id": "t", "outcome": "finished", "stop_reason": "max_tokens"})),
        ("turn.ended", json!({"turn_id": "t", "message_id": "u", "last_message_seq": 2, "outcome": "finished"})),
        ("agent.ended", json!({"incarnation": 1, "exit_code": 101, "reason": "panicked"})),
        ("of.tomorrow", json!({"x": 1})),
    ]
}

#[test]
fn a_turn_reads_as_words_calls_with_their_changes_and_questions_that_say_how_to_answer() {
    let (out, err) = printed(false, false, turn());
    insta::assert_snapshot!(out, @r#"
    I will **edit**:

    now.
    ▸ Read src/main.rs
      1
      2
      3
      4
      … 3 more lines
    ▸ Edit \u{202e}file
      src/main.rs  (+3 -1)
      @@ -1 +1,3 @@
      -fn main() {}
      +fn main() {
      +    run();
      +}
    $ make …
    99%
    exit code 2
    $ ls
    a.txt
    ▸ Fetch it
    failed
    [image image/png]
    "#);
    insta::assert_snapshot!(err, @r#"
      agent: codex 0.16; it was told what was said before, shortened
      plan:
      ▶ Look
      ☐ Edit …
      allowed by rule (tool read): $ ls
      plan:
      ☑ Look
      ▶ Edit …
      mode read-only
      the reply was cut off
      the agent stopped early: max_tokens
      1,200 tokens in, 34 out
      the agent has ended with exit code 101: panicked
    "#);
}

#[test]
fn on_a_terminal_what_is_said_thought_and_done_stands_apart() {
    let (out, _) = printed(true, true, turn());
    insta::assert_snapshot!(out.replace('\u{1b}', "^"), @r#"
    ^[2m✻ ^[0m^[2mThe user ^[0m^[2mwants^[0m
    ^[2man edit.^[0m

    I will **edit**:

    now.

    ^[1m▸ Read src/main.rs^[0m
    ^[2m  1^[0m
    ^[2m  2^[0m
    ^[2m  3^[0m
    ^[2m  4^[0m
    ^[2m  … 3 more lines^[0m
    ^[1m▸ Edit \u{202e}file^[0m
    ^[2m  src/main.rs  (+3 -1)^[0m
    ^[36m  @@ -1 +1,3 @@^[0m
    ^[31m  -fn main() {}^[0m
    ^[32m  +fn main() {^[0m
    ^[32m  +    run();^[0m
    ^[32m  +}^[0m
    ^[1m$ make …^[0m
    99%
    ^[31mexit code 2^[0m
    ^[1m$ ls^[0m
    a.txt
    ^[1m▸ Fetch it^[0m
    ^[31mfailed^[0m

    [image image/png]
    "#);
}

#[test]
fn a_call_that_says_what_it_does_only_at_its_end_or_never_is_shown_all_the_same() {
    let started = |id: &str| json!({"tool_call_id": id, "title": "Shell", "kind": "execute", "status": "pending"});
    let told = vec![
        ("tool.started", started("a")),
        (
            "tool.updated",
            json!({"tool_call_id": "a", "status": "completed", "input": {"command": "ls"}, "output": "x"}),
        ),
        ("tool.started", started("b")),
        ("tool.started", started("c")),
        ("agent.text", json!({"message_id": "m", "text": "Well."})),
        ("tool.updated", json!({"tool_call_id": "unknown", "status": "completed", "output": "late"})),
    ];
    assert_eq!(printed(false, false, told).0, "$ ls\nx\n▸ Shell\n▸ Shell\nWell.\nlate\n");
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
        {"id": "c", "role": "assistant", "content": "", "kind": "execute", "toolCalls": [call("c", "Shell", "{\"command\":[\"sh\",\"-c\",\"ls\"]}")]},
        {"id": "c/result", "role": "tool", "content": "a.txt", "toolCallId": "c", "status": "completed"},
        {"id": "d", "role": "assistant", "content": "", "kind": "edit", "toolCalls": [call("d", "Edit it", "")]},
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
    $ ls
    a.txt
    ▸ Edit it
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

#[test]
fn what_may_not_be_reached_is_a_line_of_progress() {
    let refused = |host: &str, port: u16, reason: &str, count: u64| {
        ("network.refused", json!({"host": host, "port": port, "reason": reason, "count": count}))
    };
    let told = vec![
        refused("evil.test", 443, "not_allowed", 1),
        refused("evil.test", 443, "no_network", 7),
        refused("localhost", 80, "not_public", 1),
        refused("", 0, "not_allowed", 1968),
    ];
    let (out, err) = printed(false, false, told);
    assert_eq!(out, "");
    insta::assert_snapshot!(err, @"
      network: evil.test:443 refused: not in the session's allow-list
      network: evil.test:443 refused, 7 times: the session has no network
      network: localhost:80 refused: its address is not public and not in the session's allow-list
      network: further hosts refused, 1968 times: not in the session's allow-list
    ");
}
