//! What stopping a turn promises, whatever the block in progress does with its output and its signals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::time::{Duration, Instant};

use ambient_runner_protocol::Record;
use harness::{Reader, Runner, Session, eventually, is_of_type, of_type};
use rustix::process::{Pid, Signal};
use serde_json::json;

/// A block that is up once `up` is there.
fn block(before: &str, after: &str) -> String {
    format!("```sh\n{before}\ntouch up\n{after}\n```")
}

async fn stop_when_up(session: &Session, runner: &Runner, reader: &mut Reader, id: &str, text: &str) -> Vec<Record> {
    let up = session.paths.workspace().join("up");
    let _ = std::fs::remove_file(&up);
    runner.client.deliver(id, 1, text).await.expect(200);
    eventually("the block is up", || up.exists()).await;
    runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    reader.until_turn_ended().await
}

fn assert_stopped(records: &[Record], what: &str) {
    let ended = of_type(records, "turn.ended")[0];
    assert_eq!((&ended["outcome"], &ended["code"]), (&json!("interrupted"), &json!("Interrupted")), "{what}");
    let error = records.iter().find(|record| record.event["type"] == "turn.result").unwrap();
    assert_eq!((&error.event["code"], &error.event["exitCode"]), (&json!("Interrupted"), &json!(null)), "{what}");
}

#[tokio::test]
async fn a_stopped_block_gets_sigterm_and_its_time_wherever_its_output_goes() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    let trap = "trap 'sleep 0.4; echo cleaned >> proof; exit 3' TERM";
    for (n, output) in ["true", "exec > file 2>&1", "exec > /dev/null 2>&1", "exec >&- 2>&-"].into_iter().enumerate() {
        let text = block(&format!("{output}\n{trap}"), "while :; do sleep 0.05; done");
        let begin = Instant::now();
        let records = stop_when_up(&session, &runner, &mut reader, &n.to_string(), &text).await;
        assert_stopped(&records, output);
        assert!(begin.elapsed() < Duration::from_secs(10), "{output}");
        let proof = std::fs::read_to_string(session.paths.workspace().join("proof")).unwrap_or_default();
        assert_eq!(proof, "cleaned\n".repeat(n + 1), "{output}");
    }
}

#[tokio::test]
async fn a_stopped_block_that_ignores_sigterm_or_hides_is_killed_and_counts_as_stopped() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    let blocks = [
        ("trap '' TERM\nexec > /dev/null 2>&1", "while :; do sleep 96.1357 || true; done"),
        ("exec > /dev/null 2>&1", "(trap '' TERM; while :; do sleep 96.1357 || true; done) & wait"),
        // Without the marks of the turn.
        ("exec > /dev/null 2>&1", "exec env -i sleep 96.1357"),
    ];
    for (n, (before, after)) in blocks.into_iter().enumerate() {
        let records = stop_when_up(&session, &runner, &mut reader, &n.to_string(), &block(before, after)).await;
        assert_stopped(&records, after);
        eventually("nothing of the block is left", || harness::running("96.1357").is_empty()).await;
    }
    runner.client.deliver("next", 1, "```\necho next\n```").await.expect(200);
    assert_eq!(harness::output(&reader.until_turn_ended().await), "next\n");
}

#[tokio::test]
async fn a_stop_at_a_blocks_end_or_between_two_is_a_stop_and_nothing_more_runs() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    for (n, end) in ["true", "false", "kill -9 $$", "exec >&- 2>&-; exit 5"].into_iter().enumerate() {
        // Another block waits for the stop, so that it cannot come too late.
        let text = format!("```\ntouch up\n{end}\n```\n```\ntouch never\nsleep 60\n```");
        let up = session.paths.workspace().join("up");
        let _ = std::fs::remove_file(&up);
        runner.client.deliver(&n.to_string(), 1, &text).await.expect(200);
        eventually("the block is up", || up.exists()).await;
        runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
        let records = reader.until_turn_ended().await;
        let ended = of_type(&records, "turn.ended")[0];
        // A failure that was seen before the stop is one; there is no third outcome.
        let failed = ended["code"] == "ScriptFailed" && end != "true";
        assert!(ended["code"] == "Interrupted" || failed, "{end}: {ended}");
    }
}

#[tokio::test]
async fn a_block_that_is_killed_after_the_stop_has_not_failed() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    let up = session.paths.workspace().join("up");
    let text =
        "```\ntrap '' TERM\nexec > /dev/null 2>&1\necho $$ > up.new; mv up.new up\nwhile :; do sleep 0.05; done\n```";
    runner.client.deliver("a", 1, text).await.expect(200);
    eventually("the block is up", || up.exists()).await;
    let pid: i32 = std::fs::read_to_string(&up).unwrap().trim().parse().unwrap();
    runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    // As compute does with what does not end in time. Where the agent has process ids of its own it dies of the stop.
    let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
    assert_stopped(&reader.until_turn_ended().await, "killed");
}

#[tokio::test]
async fn a_batch_session_that_is_stopped_in_a_silent_block_ends_as_asked() {
    let session = Session::new(false);
    let mut runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    let text = block("exec > file 2>&1\ntrap 'echo cleaned; exit 3' TERM", "while :; do sleep 0.05; done");
    runner.client.deliver("a", 1, &text).await.expect(200);
    let up = session.paths.workspace().join("up");
    eventually("the block is up", || up.exists()).await;
    session.raise_fence(1);
    runner.signal(Signal::TERM);
    let records = reader.until(|record| is_of_type(record, "runner.exited")).await;
    assert_eq!(of_type(&records, "turn.ended")[0]["code"], "Terminated");
    reader.ack(reader.last).await;
    assert_eq!(runner.exit_code().await, Some(0));
    // bash itself says that the loop's command was terminated.
    assert!(std::fs::read_to_string(session.paths.workspace().join("file")).unwrap().ends_with("cleaned\n"));
}
