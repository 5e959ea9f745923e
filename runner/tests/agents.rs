//! What the host of agents promises, whatever an agent does: the agent here does what its messages tell it to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{path::Path, time::Duration};

use ambient_runner_protocol::{AgentCommand, Record};
use ambient_wire::{
    permission::{PermissionEffect, PermissionRule},
    runner_event::{RunnerEvent, ToolKind},
};
use harness::{Runner, Session, client::Reader, eventually, is_of_type, kinds, of_type, running};
use rustix::process::Signal;
use serde_json::{Value, json};

fn session(words: &str) -> Session {
    let mut session = Session::new(true);
    let program = env!("CARGO_BIN_EXE_ambient-fake-agent");
    session.spec.agent = "fake".to_owned();
    session.spec.readable_paths.push(Path::new(program).parent().unwrap().to_owned());
    session.spec.agent_command = Some(AgentCommand {
        program: program.to_owned(),
        // Nobody reads it: it tells this session's agents from the others.
        args: vec![mark(&session)],
        environment: [("FAKE_AGENT".to_owned(), words.to_owned())].into(),
        ..AgentCommand::default()
    });
    session
}

fn mark(session: &Session) -> String {
    format!("agent-of-{}", session.spec.nonce)
}

/// This session's agents, and the stages that wait for them.
fn agents(session: &Session) -> Vec<i32> {
    let pid = |path: &std::path::PathBuf| path.file_name()?.to_str()?.parse().ok();
    running(&format!("agent-of-{}", session.spec.nonce)).iter().filter_map(pid).collect()
}

async fn begin(session: &Session) -> (Runner, Reader) {
    let runner = session.start().await;
    let reader = runner.client.events(1, "", 0).await;
    (runner, reader)
}

async fn turn(runner: &Runner, reader: &mut Reader, seq: i64, text: &str) -> Vec<Record> {
    runner.client.deliver(&format!("m{seq}"), seq, text).await.expect(200);
    reader.until_turn_ended().await
}

async fn until(reader: &mut Reader, name: &str) -> Value {
    let records = reader.until(|record| is_of_type(record, name)).await;
    of_type(&records, name)[0].clone()
}

fn said(records: &[Record]) -> String {
    of_type(records, "agent.text").iter().map(|event| event["text"].as_str().unwrap()).collect()
}

fn end(records: &[Record]) -> (&str, &str) {
    let ended = *of_type(records, "turn.ended").last().unwrap();
    (ended["outcome"].as_str().unwrap(), ended["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn what_an_agent_tells_is_recorded_in_order_and_what_nobody_understands_is_passed_over() {
    let session = session("noise");
    let (runner, mut reader) = begin(&session).await;
    let text = "think hm\nsay a\nsay b\ntool t1 echo x\ndone t1 fine\nsay c\ndiff unknown /x/new.rs\nplan first\nunknown\nnoise Warning: x\next\ncwd\nlate after\nusage";
    let records = turn(&runner, &mut reader, 1, text).await;
    assert_eq!(end(&records), ("finished", ""));
    let mut seen = kinds(&records);
    seen.dedup();
    let expected = [
        "attempt.started",
        "message.accepted",
        "turn.started",
        "agent.notice",
        "agent.started",
        "agent.thought",
        "agent.text",
        "tool.started",
        "tool.updated",
        "agent.text",
        "tool.started",
        "agent.plan",
        "agent.notice",
        "agent.text",
        "usage",
        "turn.result",
        "turn.ended",
    ];
    assert_eq!(seen, expected);
    let workspace = session.paths.workspace();
    assert_eq!(said(&records), format!("abcext: -32601cwd: {}", workspace.display()));
    let messages: Vec<_> = of_type(&records, "agent.text").iter().map(|event| event["message_id"].clone()).collect();
    assert_eq!((&messages[0], messages.last().unwrap()), (&json!("s/1/1/text/2"), &json!("s/1/1/text/4")));
    let tools = of_type(&records, "tool.started");
    assert_eq!((&tools[0]["title"], &tools[0]["status"]), (&json!("echo x"), &json!("in_progress")));
    assert_eq!(tools[1]["content"][0], json!({ "type": "diff", "path": "/x/new.rs", "new_text": "new\n" }));
    let started = of_type(&records, "agent.started")[0];
    assert_eq!((&started["name"], &started["conversation"]), (&json!("fake"), &json!("new")));
    assert_eq!(started["offers"]["modes"]["currentModeId"], "ask");
    let usage = of_type(&records, "usage")[0];
    assert_eq!(
        (&usage["input_tokens"], &usage["cached_input_tokens"], &usage["source"]),
        (&json!(10), &json!(4), &json!("agent"))
    );
    assert!(records.iter().all(|record| RunnerEvent::read(&record.event).is_some()));
}

#[tokio::test]
async fn what_comes_after_the_answer_is_recorded_and_the_next_turn_goes_on_with_the_same_process() {
    let session = session("");
    let (runner, mut reader) = begin(&session).await;
    turn(&runner, &mut reader, 1, "say one\nlate more").await;
    let records = turn(&runner, &mut reader, 2, "say two\nstop max_tokens").await;
    assert_eq!((said(&records).ends_with("two"), end(&records)), (true, ("error", "AgentError")));
    assert_eq!(of_type(&records, "turn.ended")[0]["stop_reason"], "max_tokens");
    let records = turn(&runner, &mut reader, 3, "fail no more tokens").await;
    assert_eq!(end(&records), ("error", "AgentError"));
    assert!(of_type(&records, "turn.result")[0]["message"].as_str().unwrap().contains("no more tokens"));
    assert!(of_type(&records, "agent.started").is_empty());
    assert_eq!(end(&turn(&runner, &mut reader, 4, "say four").await), ("finished", ""));
}

#[tokio::test]
async fn a_request_waits_for_its_answer_which_is_given_once() {
    let session = session("");
    let (runner, mut reader) = begin(&session).await;
    for (seq, answer, option) in
        [(1, "once", "opt-allow_once"), (2, "always", "opt-allow_once"), (3, "reject", "opt-reject_once")]
    {
        runner.client.deliver(&format!("m{seq}"), seq, "ask c1 rm -r build").await.expect(200);
        let request = until(&mut reader, "permission.requested").await;
        let id = request["interrupt_id"].as_str().unwrap().to_owned();
        assert_eq!(id, format!("1-1-{seq}"));
        assert_eq!((&request["command"], &request["kind"]), (&json!("rm -r build"), &json!("execute")));
        assert_eq!(request["answers"], json!(["once", "always", "reject"]));
        let path = format!("/interrupts/{id}");
        let taken = runner.client.send("POST", &path, json!({ "answer": answer })).await.expect(200).json();
        assert_eq!(taken, json!({ "interrupt_id": id, "taken": true }));
        let again = runner.client.send("POST", &path, json!({ "answer": "reject" })).await.expect(200).json();
        assert_eq!(again["taken"], false);
        let records = reader.until_turn_ended().await;
        assert_eq!(said(&records), format!("answer c1: selected {option}"));
        let closed = of_type(&records, "permission.closed");
        assert_eq!(
            (closed.len(), &closed[0]["outcome"], &closed[0]["answer"]),
            (1, &json!("answered"), &json!(answer))
        );
    }
    runner.client.send("POST", "/interrupts/1-1-9", json!({ "answer": "once" })).await.expect(404);
    runner.client.send("POST", "/interrupts/1-1-1", json!({ "answer": "maybe" })).await.expect(400);
    runner.client.deliver("m4", 4, "ask c2 x").await.expect(200);
    until(&mut reader, "permission.requested").await;
    runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    let records = reader.until_turn_ended().await;
    assert_eq!((end(&records).0, said(&records).as_str()), ("interrupted", "answer c2: cancelled "));
    assert_eq!(of_type(&records, "permission.closed")[0]["outcome"], "cancelled");
}

#[tokio::test]
async fn rules_answer_in_place_of_people_and_can_be_changed() {
    let mut session = session("");
    let rule = |effect, command: &str| PermissionRule {
        effect,
        tool: Some(ToolKind::Execute),
        command: Some(command.to_owned()),
        path: None,
    };
    session.spec.permissions.rules = vec![rule(PermissionEffect::Deny, "rm *"), rule(PermissionEffect::Allow, "ls*")];
    session.spec.permissions.timeout = Some(1);
    let (runner, mut reader) = begin(&session).await;
    let records = turn(&runner, &mut reader, 1, "ask a ls -l\nask b rm x").await;
    assert_eq!(said(&records), "answer a: selected opt-allow_onceanswer b: selected opt-reject_once");
    let decided: Vec<_> = of_type(&records, "permission.decided")
        .iter()
        .map(|event| (event["allowed"].clone(), event["rule"].clone()))
        .collect();
    assert_eq!(
        decided,
        [
            (json!(true), json!("allow tool execute command ls*")),
            (json!(false), json!("deny tool execute command rm *"))
        ]
    );
    // Nobody answers in time.
    let records = turn(&runner, &mut reader, 2, "ask c ls; id").await;
    assert_eq!(of_type(&records, "permission.closed")[0]["outcome"], "expired");
    assert_eq!(said(&records), "answer c: selected opt-reject_once");
    let policy = json!({ "rules": [], "otherwise": "allow" });
    runner.client.send("PUT", "/policy", policy).await.expect(204);
    let records = turn(&runner, &mut reader, 3, "ask d rm x\nask-few e x").await;
    assert_eq!(said(&records), "answer d: selected opt-allow_onceanswer e: selected opt-allow_once");
}

#[tokio::test]
async fn requests_beyond_the_limit_are_rejected_and_the_others_are_cancelled_with_the_turn() {
    let session = session("");
    let (runner, mut reader) = begin(&session).await;
    runner.client.deliver("m1", 1, "asks 70").await.expect(200);
    let mut open = 0;
    let mut told = 0;
    let records = reader
        .until(|record| {
            open += usize::from(is_of_type(record, "permission.requested"));
            told += usize::from(record.event["text"].as_str().is_some_and(|text| text.contains("too many requests")));
            open == 64 && told == 6
        })
        .await;
    assert!(!records.is_empty());
    runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    let records = reader.until_turn_ended().await;
    assert_eq!((end(&records).0, of_type(&records, "permission.closed").len()), ("interrupted", 64));
    assert_eq!(end(&turn(&runner, &mut reader, 2, "say next").await), ("finished", ""));
}

#[tokio::test]
async fn a_cancelled_turn_leaves_nothing_that_it_has_started_and_the_agent_goes_on() {
    let session = session("");
    let (runner, mut reader) = begin(&session).await;
    turn(&runner, &mut reader, 1, "child 98.7641").await;
    assert_eq!(running("98.7641").len(), 1, "what a finished turn has started goes on");
    runner.client.deliver("m2", 2, "child 98.7642\nsay ready\nhang").await.expect(200);
    until(&mut reader, "agent.text").await;
    eventually("the child runs", || running("98.7642").len() == 1).await;
    runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    let records = reader.until_turn_ended().await;
    assert_eq!(end(&records), ("interrupted", "Interrupted"));
    assert_eq!((running("98.7641").len(), running("98.7642").len()), (1, 0));
    let records = turn(&runner, &mut reader, 3, "say next").await;
    assert_eq!((said(&records).as_str(), of_type(&records, "agent.started").len()), ("next", 0));
}

#[tokio::test]
async fn an_agent_that_does_not_stop_is_ended_and_the_next_one_loads_the_conversation_without_repeating_it() {
    let session = session("");
    let (runner, mut reader) = begin(&session).await;
    let first = turn(&runner, &mut reader, 1, "say remember").await;
    let id = of_type(&first, "agent.started")[0]["agent_session_id"].clone();
    runner.client.deliver("m2", 2, "say ready\nstubborn").await.expect(200);
    until(&mut reader, "agent.text").await;
    runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    let records = reader.until_turn_ended().await;
    assert_eq!((end(&records).0, of_type(&records, "agent.ended").len()), ("interrupted", 1));
    let records = turn(&runner, &mut reader, 3, "say next").await;
    let started = of_type(&records, "agent.started")[0];
    assert_eq!(
        (&started["conversation"], &started["agent_session_id"], &started["incarnation"]),
        (&json!("loaded"), &id, &json!(2))
    );
    assert_eq!(said(&records), "next");
    assert!(of_type(&records, "tool.started").is_empty());
}

#[tokio::test]
async fn an_agent_that_dies_is_told_with_its_last_words_and_its_open_request_is_lost() {
    let session = session("");
    let (runner, mut reader) = begin(&session).await;
    let records = turn(&runner, &mut reader, 1, "say working\ndie 3 out of cheese").await;
    assert_eq!(end(&records), ("error", "AgentLost"));
    let result = of_type(&records, "turn.result")[0];
    assert!(result["message"].as_str().unwrap().contains("panicked: out of cheese"), "{result}");
    assert_eq!(result["exit_code"], 3);
    runner.client.deliver("m2", 2, "ask a x").await.expect(200);
    until(&mut reader, "permission.requested").await;
    for pid in agents(&session) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL);
    }
    let records = reader.until_turn_ended().await;
    assert_eq!(end(&records), ("error", "AgentLost"));
    assert_eq!(of_type(&records, "permission.closed")[0]["outcome"], "lost");
    let records = turn(&runner, &mut reader, 3, "say again").await;
    assert_eq!(
        (said(&records).as_str(), &of_type(&records, "agent.started")[0]["conversation"]),
        ("again", &json!("loaded"))
    );
}

#[tokio::test]
async fn a_batch_whose_agent_dies_has_failed_and_what_the_agent_says_stays_in_the_log() {
    for code in [0, 3] {
        let mut session = session("");
        session.spec.interactive = false;
        let (mut runner, mut reader) = begin(&session).await;
        runner.client.deliver("m1", 1, &format!("die {code} key sk-canary")).await.expect(200);
        let records = reader.until(|record| is_of_type(record, "runner.exited")).await;
        assert!(of_type(&records, "turn.result")[0]["message"].as_str().unwrap().contains("sk-canary"));
        let exited = of_type(&records, "runner.exited")[0];
        assert!(!exited.to_string().contains("sk-canary"), "it goes into operations: {exited}");
        reader.ack(reader.last).await;
        assert_eq!(runner.exit_code().await, Some(if code == 0 { 1 } else { code }));
    }
}

#[tokio::test]
async fn many_files_at_once_wait_for_each_other_and_are_all_answered() {
    let session = session("");
    std::fs::write(session.paths.workspace().join("large"), "x".repeat(1_000_000)).unwrap();
    let (runner, mut reader) = begin(&session).await;
    let records = turn(&runner, &mut reader, 1, "reads 40 large").await;
    assert_eq!((end(&records), said(&records).as_str()), (("finished", ""), "read 40 of 1000000"));
}

#[tokio::test]
async fn an_agent_that_cannot_load_is_told_what_was_said_and_so_are_people() {
    for words in ["no-load", "load-fails"] {
        let session = session(words);
        let (runner, mut reader) = begin(&session).await;
        turn(&runner, &mut reader, 1, "say the answer is 42\ntool t ls -l").await;
        turn(&runner, &mut reader, 2, "die 1 x").await;
        let records = turn(&runner, &mut reader, 3, "say next").await;
        assert_eq!(of_type(&records, "agent.started")[0]["conversation"], "retold");
        let said = said(&records);
        assert!(said.contains("User: say the answer is 42") && said.contains("You: the answer is 42"), "{said}");
        assert!(said.contains("You used a tool: ls -l") && !said.contains("User: say next"), "{said}");
        assert!(said.ends_with("next"), "{said}");
        let told = of_type(&records, "agent.notice");
        assert!(told.iter().any(|event| event["text"].as_str().unwrap().contains("is told what was said")), "{told:?}");
        let records = turn(&runner, &mut reader, 4, "say more").await;
        assert_eq!(self::said(&records), "more", "once");
    }
}

#[tokio::test]
async fn after_the_loss_of_the_runner_the_request_is_lost_and_the_conversation_goes_on() {
    let mut session = session("");
    let (mut runner, mut reader) = begin(&session).await;
    turn(&runner, &mut reader, 1, "say remember").await;
    runner.client.deliver("m2", 2, "ask a x").await.expect(200);
    let request = until(&mut reader, "permission.requested").await;
    runner.signal(Signal::KILL);
    runner.exit_code().await;
    eventually("the agent has ended", || agents(&session).is_empty()).await;
    session.next_attempt();
    let (runner, mut reader) = begin(&session).await;
    let records = reader.until(|record| is_of_type(record, "turn.ended") && record.event["message_id"] == "m2").await;
    let closed = of_type(&records, "permission.closed")[0];
    assert_eq!((&closed["interrupt_id"], &closed["outcome"]), (&request["interrupt_id"], &json!("lost")));
    let path = format!("/interrupts/{}", request["interrupt_id"].as_str().unwrap());
    let late = runner.client.send("POST", &path, json!({ "answer": "once" })).await.expect(200).json();
    assert_eq!(late["taken"], false);
    runner.client.deliver("m3", 3, "ask a x").await.expect(200);
    let again = until(&mut reader, "permission.requested").await;
    assert_eq!(again["interrupt_id"], "1-2-1");
    assert_eq!(again["fingerprint"], request["fingerprint"]);
    runner.client.send("POST", "/interrupts/1-2-1", json!({ "answer": "once" })).await.expect(200);
    assert_eq!(said(&reader.until_turn_ended().await), "answer a: selected opt-allow_once");
}

#[tokio::test]
async fn files_are_read_and_written_with_the_rights_of_the_agent() {
    let session = session("");
    let (runner, mut reader) = begin(&session).await;
    let workspace = session.paths.workspace();
    std::fs::write(workspace.join("there"), "one\n").unwrap();
    let secret = session.directory().join("secret");
    std::fs::write(&secret, "password").unwrap();
    std::os::unix::fs::symlink(&secret, workspace.join("link")).unwrap();
    let there = workspace.join("there");
    let text = format!(
        "read {there}\nread {absent}\nwrite {new} text\nread {secret}\nread link\nwrite link x\nwrite /etc/x y\nread /proc/1/environ\nwrite there two",
        there = there.display(),
        absent = workspace.join("absent").display(),
        new = workspace.join("a/b/new").display(),
        secret = secret.display(),
    );
    let records = turn(&runner, &mut reader, 1, &text).await;
    let said = said(&records);
    assert!(said.starts_with("read: \"one\\n\"read: \"\"wrote: ok"), "{said}");
    assert_eq!(std::fs::read_to_string(workspace.join("a/b/new")).unwrap(), "text");
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "two");
    assert!(!said.contains("password"), "{said}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "password");
    assert_eq!(said.matches("wrote: ok").count(), 2 + usize::from(!workspace.join("link").is_symlink()), "{said}");
}

#[tokio::test]
async fn terminals_run_with_the_rights_of_the_agent_and_end_with_it() {
    let session = session("");
    let (runner, mut reader) = begin(&session).await;
    let records = turn(
        &runner,
        &mut reader,
        1,
        "term echo out; echo err >&2; exit 3\nterm yes | head -c 1000\nterm-kill sleep 98.7651",
    )
    .await;
    let said = said(&records);
    assert!(said.contains("terminal: 3 null") && said.contains("out\\n") && said.contains("err\\n"), "{said}");
    assert!(said.contains("\"truncated\":true"), "{said}");
    assert!(said.contains("\"signal 15\"") || said.contains("terminal: 143"), "{said}");
    assert!(running("98.7651").is_empty());
    let streamed: String =
        of_type(&records, "tool.output").iter().map(|event| event["text"].as_str().unwrap()).collect();
    assert!(streamed.contains("out\n") && streamed.len() > 1000, "{streamed}");
    runner.client.deliver("m2", 2, "term sleep 98.7652").await.expect(200);
    eventually("it runs", || !running("98.7652").is_empty()).await;
    runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    assert_eq!(end(&reader.until_turn_ended().await).0, "interrupted");
    assert!(running("98.7652").is_empty());
}

#[tokio::test]
async fn two_hundred_thousand_updates_and_a_line_without_end_are_survived() {
    let session = session("");
    let (runner, mut reader) = begin(&session).await;
    let records = turn(&runner, &mut reader, 1, "chunks 200000\nlong 20000\nhuge 40000000\nsay end").await;
    assert_eq!(end(&records), ("finished", ""));
    let said = said(&records);
    assert!(said.starts_with("0 1 2 ") && said.contains(" 199999 long") && said.ends_with("end"));
    let longest =
        of_type(&records, "agent.text").iter().map(|event| event["text"].as_str().unwrap().len()).max().unwrap();
    assert!(longest <= 16 * 1024 && records.len() < 20_000, "{longest} {}", records.len());
    let notices = of_type(&records, "agent.notice");
    assert!(notices[0]["text"].as_str().unwrap().contains("a line of 40000000 bytes"), "{notices:?}");
}

#[tokio::test]
async fn an_agent_that_does_not_begin_says_why() {
    for (words, told) in [
        ("auth", "wants to be authenticated by one of: An API key (key)"),
        ("wrong-version", "negotiated 2"),
        ("dies-at-new", "no model is configured"),
    ] {
        let session = session(words);
        let (runner, mut reader) = begin(&session).await;
        let records = turn(&runner, &mut reader, 1, "say x").await;
        assert_eq!(end(&records), ("error", "AgentError"));
        let message = of_type(&records, "turn.result")[0]["message"].as_str().unwrap();
        assert!(message.contains(told), "{message}");
        assert!(agents(&session).is_empty());
    }
    let mut absent = session("");
    absent.spec.agent_command.as_mut().unwrap().program = "no-such-agent".to_owned();
    let (runner, mut reader) = begin(&absent).await;
    let records = turn(&runner, &mut reader, 1, "say x").await;
    let message = of_type(&records, "turn.result")[0]["message"].as_str().unwrap();
    assert!(message.contains("no-such-agent"), "{message}");
}

#[tokio::test]
async fn a_turn_is_stopped_while_the_agent_begins_and_a_stop_leaves_nothing() {
    let session = session("no-init,stays");
    let (mut runner, mut reader) = begin(&session).await;
    runner.client.deliver("m1", 1, "say x").await.expect(200);
    eventually("the agent runs", || !agents(&session).is_empty()).await;
    runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    assert_eq!(end(&reader.until_turn_ended().await).0, "interrupted");
    assert!(agents(&session).is_empty(), "it is not left behind beside the next one");
    let begun = std::time::Instant::now();
    runner.client.send("POST", "/shutdown", json!({})).await.expect(202);
    let records = reader.until(|record| is_of_type(record, "runner.exited")).await;
    reader.ack(records.last().unwrap().n).await;
    assert_eq!(runner.exit_code().await, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10) && agents(&session).is_empty());
}

#[tokio::test]
async fn settings_are_applied_at_the_start_and_while_it_runs_as_far_as_the_agent_offers_them() {
    let mut session = session("");
    let command = session.spec.agent_command.as_mut().unwrap();
    command.settings.mode = Some("code".to_owned());
    command.settings.model = Some("m".to_owned());
    command.home_files = [(".fake/config".to_owned(), "x = 1\n".to_owned())].into();
    let (runner, mut reader) = begin(&session).await;
    let records = turn(&runner, &mut reader, 1, "say x").await;
    assert_eq!(of_type(&records, "agent.settings")[0]["mode"], "code");
    let notice = of_type(&records, "agent.notice")[0]["text"].as_str().unwrap().to_owned();
    assert_eq!(notice, "model 'm' is not in effect: the agent offers no choice of models");
    assert_eq!(std::fs::read_to_string(session.paths.home().join(".fake/config")).unwrap(), "x = 1\n");
    runner.client.send("PUT", "/settings", json!({ "mode": "ask" })).await.expect(204);
    assert_eq!(until(&mut reader, "agent.settings").await["mode"], "ask");
    runner.client.send("PUT", "/settings", json!({ "mode": "fly" })).await.expect(204);
    let notice = until(&mut reader, "agent.notice").await;
    assert!(notice["text"].as_str().unwrap().contains("no mode fly"), "{notice}");
}
