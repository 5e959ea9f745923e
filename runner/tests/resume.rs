//! What survives the death of a runner.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::io::Write;

use harness::{Session, is_of_type, of_type, output};
use rustix::process::Signal;

/// Runs the first time until it is killed, the second time to its end.
const TWICE: &str = "```\nif [ -e once ]; then echo second; else touch once; echo first; sleep 300; fi\n```";

async fn killed_in_mid_turn(session: &mut Session) -> (String, i64) {
    let mut runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("s/1/prompt", 5, TWICE).await.expect(200);
    reader.until(|record| is_of_type(record, "tool.output")).await;
    runner.signal(Signal::KILL);
    assert_eq!(runner.exit_code().await, None);
    assert!(session.exited().is_none());
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        // What compute does before it launches again.
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(&format!("AMBIENT_NONCE={}", session.spec.nonce)) {
            let pid = process.file_name().to_string_lossy().parse().unwrap();
            let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
    session.next_attempt();
    (reader.log_id.clone(), reader.last)
}

#[tokio::test]
async fn after_kill_9_the_batch_prompt_runs_again_as_a_new_turn_of_the_same_log() {
    let mut session = Session::new(false);
    let (log_id, last) = killed_in_mid_turn(&mut session).await;
    let runner = session.start().await;
    let mut reader = runner.client.events(1, &log_id, last).await;
    let records = reader.until(|record| harness::has_ended(record, "finished")).await;
    assert_eq!(reader.log_id, log_id);
    assert_eq!(records[0].n, last + 1, "nothing is repeated and nothing lost");
    let attempt = of_type(&records, "attempt.started")[0];
    assert_eq!((&attempt["attempt"], &attempt["resumed"]), (&2.into(), &true.into()));
    let ends = of_type(&records, "turn.ended");
    assert_eq!(
        (&ends[0]["turn_id"], &ends[0]["outcome"], &ends[0]["code"]),
        (&"s/1/1".into(), &"interrupted".into(), &"RunnerLost".into())
    );
    assert_eq!((&ends[1]["turn_id"], &ends[1]["outcome"]), (&"s/1/2".into(), &"finished".into()));
    assert_eq!(ends[1]["last_message_seq"], 5);
    assert_eq!(output(&records), "second\n");
}

#[tokio::test]
async fn after_kill_9_an_interactive_session_waits_for_its_user_and_knows_old_messages() {
    let mut session = Session::new(true);
    let (log_id, last) = killed_in_mid_turn(&mut session).await;
    let runner = session.start().await;
    let mut reader = runner.client.events(1, &log_id, last).await;
    let records = reader.until_turn_ended().await;
    assert_eq!(of_type(&records, "turn.ended")[0]["code"], "RunnerLost");
    let again = runner.client.deliver("s/1/prompt", 5, TWICE).await.expect(200).json();
    assert_eq!(again["new"], false);
    runner.client.deliver("next", 6, "```\necho next\n```").await.expect(200);
    assert_eq!(output(&reader.until_turn_ended().await), "next\n", "only the new message ran");
}

#[tokio::test]
async fn a_message_is_taken_once_and_those_that_waited_run_after_a_restart() {
    let mut session = Session::new(true);
    let mut runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("a", 1, "```\necho a; sleep 300\n```").await.expect(200);
    reader.until(|record| is_of_type(record, "tool.output")).await;
    let waiting = "```\necho b >> b; cat b\n```";
    assert_eq!(runner.client.deliver("b", 2, waiting).await.expect(200).json()["new"], true);
    assert_eq!(runner.client.deliver("b", 2, waiting).await.expect(200).json()["new"], false);
    runner.signal(Signal::KILL);
    runner.exit_code().await;
    session.next_attempt();
    let runner = session.start().await;
    assert_eq!(runner.client.deliver("b", 2, waiting).await.expect(200).json()["new"], false);
    let mut reader = runner.client.events(1, "", 0).await;
    let records = reader.until(|record| harness::has_ended(record, "finished")).await;
    assert_eq!(of_type(&records, "message.accepted").len(), 2);
    assert_eq!(std::fs::read_to_string(session.paths.workspace().join("b")).unwrap(), "b\n");
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_the_numbers_go_on_without_a_gap() {
    let mut session = Session::new(true);
    let mut runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("a", 1, "```\necho a\n```").await.expect(200);
    reader.until_turn_ended().await;
    let (log_id, last) = (reader.log_id.clone(), reader.last);
    runner.signal(Signal::KILL);
    runner.exit_code().await;
    let log = session.paths.event_log(1);
    let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.write_all(
        format!("{{\"n\":{},\"at\":\"2026-01-01T00:00:00Z\",\"event\":{{\"type\":\"CUS", last + 1).as_bytes(),
    )
    .unwrap();
    file.write_all(&[0; 5000]).unwrap();
    session.next_attempt();
    let runner = session.start().await;
    let mut reader = runner.client.events(1, &log_id, last).await;
    let records = reader.until(|record| is_of_type(record, "attempt.started")).await;
    assert_eq!(records[0].n, last + 1);
    assert_eq!(reader.log_id, log_id);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<ambient_runner_protocol::Record>(line).is_ok()));
}

#[tokio::test]
async fn a_signal_from_outside_is_a_loss_and_not_an_end() {
    let mut session = Session::new(false);
    let mut runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("s/1/prompt", 5, TWICE).await.expect(200);
    reader.until(|record| is_of_type(record, "tool.output")).await;
    runner.signal(Signal::TERM);
    assert_eq!(runner.exit_code().await, Some(143));
    assert!(session.exited().is_none());
    session.next_attempt();
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    let records = reader.until(|record| harness::has_ended(record, "finished")).await;
    assert!(output(&records).ends_with("second\n"));
}

#[tokio::test]
async fn a_batch_that_died_between_its_end_and_the_record_ends_with_the_same_code() {
    let mut session = Session::new(false);
    let mut runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("s/1/prompt", 5, "```\nexit 9\n```").await.expect(200);
    reader.until(|record| is_of_type(record, "runner.exited")).await;
    runner.signal(Signal::KILL);
    runner.exit_code().await;
    assert!(session.exited().is_none());
    session.next_attempt();
    let mut runner = session.spawn();
    harness::eventually("it is up", || session.paths.started(1, 2).exists()).await;
    let mut reader = runner.client.events(1, "", 0).await;
    let records = reader.until(|record| is_of_type(record, "runner.exited") && record.n > 5).await;
    reader.ack(records.last().unwrap().n).await;
    assert_eq!(runner.exit_code().await, Some(9));
    assert_eq!(session.exited().unwrap().code, 9);
}

#[tokio::test]
async fn the_fence_and_the_lock_keep_a_second_runner_out() {
    let mut session = Session::new(true);
    let _runner = session.start().await;
    session.next_attempt();
    assert_eq!(session.spawn().exit_code().await, Some(75), "another runner holds the workspace");
    let mut session = Session::new(true);
    session.raise_fence(1);
    assert_eq!(session.spawn().exit_code().await, Some(75), "the fence forbids the run");
    assert!(session.exited().is_none() && !session.paths.event_log(1).exists(), "nothing was done");
    session.spec.agent = "other".to_owned();
    session.raise_fence(0);
    assert_eq!(session.spawn().exit_code().await, Some(2));
    let reason = session.exited().unwrap().reason;
    assert!(reason.contains("agent 'other' has no command"), "{reason}");
}
