//! What a turn of the script agent promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{Session, git, is_of_type, kinds, of_type, output};
use rustix::process::Signal;

#[tokio::test]
async fn a_turn_streams_text_tools_and_output_and_ends_with_a_snapshot() {
    let session = Session::new(true);
    let url = session.origin("up");
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", serde_json::json!({ "url": url })).await.expect(200);
    let mut reader = runner.client.events(1, "", 0).await;
    let text = "Hello\n```sh\necho out; echo err >&2; pwd; echo new > new.txt\n```\nBye\n```bash\ngit add -A; git commit -qm work; echo $HOME $AMBIENT_SESSION_ID\n```\n";
    let accepted = runner.client.deliver("s/1/prompt", 7, text).await.expect(200).json();
    assert_eq!(accepted, serde_json::json!({ "id": "s/1/prompt", "new": true }));
    let records = reader.until_turn_ended().await;
    let mut seen = kinds(&records);
    seen.dedup();
    let tool = ["tool.started", "tool.output", "tool.updated"];
    let text = ["agent.text"];
    let begin = ["attempt.started", "message.accepted", "turn.started"];
    let end = ["turn.result", "repo.snapshot", "turn.ended"];
    assert_eq!(seen, [&begin[..], &text, &tool, &text, &tool, &end].concat());
    let workspace = session.paths.workspace().join("up");
    let all = output(&records);
    for part in
        ["out\n", "err\n", &format!("{}\n", workspace.display()), &format!("{} s\n", session.paths.home().display())]
    {
        assert!(all.contains(part), "{part:?} in {all:?}");
    }
    let ended = of_type(&records, "turn.ended")[0];
    assert_eq!((&ended["outcome"], &ended["last_message_seq"]), (&"finished".into(), &7.into()));
    assert_eq!(ended["turn_id"], "s/1/1");
    let snapshot = of_type(&records, "repo.snapshot")[0];
    assert_eq!(snapshot["ref"], "refs/ambient/snapshots/1-1");
    assert_eq!(git(&workspace, &["rev-parse", "refs/ambient/snapshots/1-1"]), snapshot["commit"].as_str().unwrap());
    assert_eq!(git(&workspace, &["log", "-1", "--format=%an <%ae> %cn"]), "Ada <ada@example.com> Ada");
}

#[tokio::test]
async fn a_snapshot_holds_untracked_files_but_no_ignored_ones_and_leaves_the_index_alone() {
    let session = Session::new(true);
    let url = session.origin("up");
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", serde_json::json!({ "url": url })).await.expect(200);
    let mut reader = runner.client.events(1, "", 0).await;
    let script = "```\necho x > untracked; echo '*.o' > .gitignore; echo y > a.o; echo more >> README.md\n```";
    runner.client.deliver("m", 1, script).await.expect(200);
    reader.until_turn_ended().await;
    let workspace = session.paths.workspace().join("up");
    let files = git(&workspace, &["ls-tree", "--name-only", "refs/ambient/snapshots/1-1"]);
    assert_eq!(files.lines().collect::<Vec<_>>(), [".gitignore", "README.md", "untracked"]);
    assert_eq!(git(&workspace, &["diff", "--cached", "--name-only"]), "");
    let status = runner.client.get("/git/status?repo=up").await.expect(200).json();
    let paths: Vec<_> = status["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["README.md", ".gitignore", "untracked"]);
    let diff = runner.client.get("/git/diff?repo=up").await.expect(200).text();
    assert!(diff.contains("+more") && diff.contains("b/untracked"), "{diff}");
}

#[tokio::test]
async fn a_failing_block_ends_a_batch_runner_with_its_code_after_the_readers_acknowledgement() {
    let session = Session::new(false);
    let mut runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    runner
        .client
        .deliver("s/1/prompt", 1, "```\necho one\n(exit 7)\necho never\n```\n```\necho never\n```")
        .await
        .expect(200);
    let records = reader.until(|record| is_of_type(record, "runner.exited")).await;
    assert!(!output(&records).contains("never"));
    let ended = of_type(&records, "turn.ended")[0];
    assert_eq!((&ended["outcome"], &ended["exit_code"]), (&"error".into(), &7.into()));
    let error = records.iter().find(|record| record.event["type"] == "turn.result").unwrap();
    assert_eq!(error.event["code"], "ScriptFailed");
    assert_eq!(of_type(&records, "runner.exited")[0]["code"], 7);
    assert!(session.exited().is_none(), "it waits for the acknowledgement");
    reader.ack(reader.last).await;
    assert_eq!(runner.exit_code().await, Some(7));
    assert_eq!(session.exited().unwrap().code, 7);
    assert!(!session.spec.socket.exists());
}

#[tokio::test]
async fn an_interactive_runner_goes_on_after_a_failure_and_a_prompt_without_blocks_says_so() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("a", 1, "```\nfalse\n```").await.expect(200);
    let records = reader.until_turn_ended().await;
    assert_eq!(of_type(&records, "turn.ended")[0]["exit_code"], 1);
    runner.client.deliver("b", 2, "just words").await.expect(200);
    let records = reader.until_turn_ended().await;
    assert_eq!(of_type(&records, "turn.ended")[0]["outcome"], "finished");
    let said: String = records.iter().filter_map(|record| record.event["text"].as_str()).collect();
    assert!(said.contains("just words") && said.contains("nothing to run"), "{said}");
}

#[tokio::test]
async fn prose_never_runs_whatever_an_editor_left_in_the_message() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    let task = "\u{feff}```sh\r\necho one\r\n```\r\ntouch prose-ran\r\n```sh\r\necho two\r\n```\r\ntouch prose-ran\r\n";
    runner.client.deliver("a", 1, task).await.expect(200);
    let records = reader.until_turn_ended().await;
    assert_eq!(of_type(&records, "turn.ended")[0]["outcome"], "finished");
    assert_eq!(output(&records), "one\ntwo\n");
    runner.client.deliver("b", 2, "```sh\ntouch first-ran\n```\nx\n\n```\ntouch prose-ran\n").await.expect(200);
    let records = reader.until_turn_ended().await;
    let error = records.iter().find(|record| record.event["type"] == "turn.result").unwrap();
    let told = "the shell block that begins in line 6 has no closing fence; nothing was run";
    assert_eq!((&error.event["code"], &error.event["message"]), (&"ScriptFailed".into(), &told.into()));
    assert_eq!(std::fs::read_dir(session.paths.workspace()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_interrupt_ends_the_turn_with_all_its_processes_and_the_next_message_runs() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.send("POST", "/interrupt", serde_json::json!({})).await.expect(204);
    let stubborn =
        "```\ntrap '' TERM\nsetsid sh -c 'trap \"\" TERM; while :; do sleep 98.7651; done' &\necho ready\nwait\n```";
    runner.client.deliver("a", 1, stubborn).await.expect(200);
    reader.until(|record| is_of_type(record, "tool.output")).await;
    assert_eq!(runner.client.get("/health").await.json()["state"], "working");
    runner.client.send("POST", "/interrupt", serde_json::json!({})).await.expect(204);
    let records = reader.until_turn_ended().await;
    let ended = of_type(&records, "turn.ended")[0];
    assert_eq!((&ended["outcome"], &ended["code"]), (&"interrupted".into(), &"Interrupted".into()));
    assert!(harness::running("98.7651").is_empty());
    runner.client.deliver("b", 2, "```\necho next\n```").await.expect(200);
    assert_eq!(output(&reader.until_turn_ended().await), "next\n");
}

#[tokio::test]
async fn a_halt_ends_the_turn_and_no_other_begins() {
    let session = Session::new(true);
    let mut runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("a", 1, "```\necho ready\nsleep 600\n```").await.expect(200);
    reader.until(|record| is_of_type(record, "tool.output")).await;
    for (id, seq) in [("b", 2), ("c", 3)] {
        runner.client.deliver(id, seq, "```\ntouch ran\n```").await.expect(200);
    }
    runner.client.send("POST", "/halt", serde_json::json!({})).await.expect(204);
    // At once: the turn in progress need not have ended.
    let late = runner.client.deliver("d", 4, "```\ntouch ran\n```").await;
    assert_eq!(late.status, 409, "{late:?}");
    let records = reader.until_turn_ended().await;
    assert_eq!(of_type(&records, "turn.ended")[0]["code"], "Interrupted");
    let known = runner.client.deliver("b", 2, "```\ntouch ran\n```").await;
    assert_eq!((known.status, &known.json()["new"]), (200, &false.into()), "{known:?}");
    runner.client.send("POST", "/shutdown", serde_json::json!({})).await.expect(202);
    let rest = reader.until(|record| is_of_type(record, "runner.exited")).await;
    assert!(rest.iter().all(|record| record.event["type"] != "turn.started"), "{rest:?}");
    assert_eq!(runner.exit_code().await, Some(0));
    assert!(!session.paths.workspace().join("ran").exists());
}

#[tokio::test]
async fn a_background_process_neither_holds_up_the_turn_nor_dies_of_a_closed_pipe() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    let script = "```\n(while [ ! -e stop ]; do echo noise; sleep 0.02; done; echo alive > proof) &\necho begun\n```";
    runner.client.deliver("a", 1, script).await.expect(200);
    reader.until_turn_ended().await;
    runner.client.deliver("b", 2, "```\nsleep 0.3; touch stop\n```").await.expect(200);
    reader.until_turn_ended().await;
    let proof = session.paths.workspace().join("proof");
    harness::eventually("the background process finished", || proof.exists()).await;
}

#[tokio::test]
async fn output_is_lossless_in_utf8_cut_at_its_limit_and_the_result_holds_the_end() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    let script = "```\nprintf 'a\\000b\\377c'; printf '\\342\\202'; sleep 0.2; printf '\\254\\n'\n```\n```\nyes 0123456789 | head -c 3000000; echo; echo END\n```";
    runner.client.deliver("a", 1, script).await.expect(200);
    let records = reader.until_turn_ended().await;
    let results: Vec<_> = records.iter().filter(|record| record.event["type"] == "tool.updated").collect();
    assert_eq!(results[0].event["output"], "a\u{FFFD}b\u{FFFD}c€\n");
    let content = results[1].event["output"].as_str().unwrap();
    assert!(content.len() < 70_000 && content.ends_with("END\n") && content.starts_with("[the beginning"));
    let streamed = output(&records);
    assert!(streamed.len() < 1_200_000, "{}", streamed.len());
    assert!(streamed.contains("no more output is recorded") && streamed.ends_with("\nEND\n"));
    for value in of_type(&records, "tool.output") {
        assert!(value["text"].as_str().unwrap().len() <= 16 * 1024);
    }
}

#[tokio::test]
async fn sigterm_by_request_drains_snapshots_and_records_the_end() {
    let session = Session::new(false);
    let url = session.origin("up");
    let mut runner = session.start().await;
    runner.client.send("PUT", "/repos/up", serde_json::json!({ "url": url })).await.expect(200);
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("a", 1, "```\necho half > half.txt\necho ready\nsleep 97.531\n```").await.expect(200);
    reader.until(|record| is_of_type(record, "tool.output")).await;
    session.raise_fence(1);
    runner.signal(Signal::TERM);
    let records = reader.until(|record| is_of_type(record, "runner.exited")).await;
    assert_eq!(of_type(&records, "turn.ended")[0]["code"], "Terminated");
    assert_eq!(of_type(&records, "repo.snapshot").len(), 1);
    reader.ack(reader.last).await;
    assert_eq!(runner.exit_code().await, Some(0));
    assert_eq!(session.exited().unwrap().reason, "terminated by request");
    assert!(harness::running("97.531").is_empty());
    let workspace = session.paths.workspace().join("up");
    assert_eq!(git(&workspace, &["show", "refs/ambient/snapshots/1-1:half.txt"]), "half");
}

#[tokio::test]
async fn shutdown_records_the_end_and_a_dead_reader_holds_it_up_for_a_bounded_time() {
    let session = Session::new(true);
    let mut runner = session.start().await;
    let begin = std::time::Instant::now();
    runner.client.send("POST", "/shutdown", serde_json::json!({})).await.expect(202);
    runner.client.deliver("late", 1, "```\ntrue\n```").await.expect(409);
    assert_eq!(runner.exit_code().await, Some(0));
    assert!(begin.elapsed().as_secs() < 15);
    assert_eq!(session.exited().unwrap().code, 0);
}

#[tokio::test]
async fn only_an_exit_code_that_stands_for_a_signal_is_told_as_one() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    let cases =
        [("exit 200", "exit code 200"), ("kill -KILL $$", "exit code 137 (signal 9)"), ("exit 3", "exit code 3")];
    for (turn, (script, told)) in (1..).zip(cases) {
        runner.client.deliver(&turn.to_string(), turn, &format!("```\n{script}\n```")).await.expect(200);
        let records = reader.until_turn_ended().await;
        let error = records.iter().find(|record| record.event["type"] == "turn.result").unwrap();
        assert_eq!(error.event["message"], format!("shell block 1 failed: {told}"));
    }
}

#[tokio::test]
async fn a_batch_runner_whose_turn_is_interrupted_ends_because_it_takes_no_other_message() {
    let session = Session::new(false);
    let mut runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("a", 1, "```\necho ready\nsleep 600\n```").await.expect(200);
    reader.until(|record| is_of_type(record, "tool.output")).await;
    runner.client.send("POST", "/interrupt", serde_json::json!({})).await.expect(204);
    let records = reader.until(|record| is_of_type(record, "runner.exited")).await;
    assert_eq!(of_type(&records, "turn.ended")[0]["code"], "Interrupted");
    reader.ack(records.last().unwrap().n).await;
    assert_eq!(runner.exit_code().await, Some(1));
    assert_eq!(session.exited().unwrap().reason, "its turn was interrupted");
}

#[tokio::test]
async fn a_reference_in_the_way_of_a_snapshot_does_not_keep_it_from_being_taken() {
    let session = Session::new(true);
    let url = session.origin("up");
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", serde_json::json!({ "url": url })).await.expect(200);
    let mut reader = runner.client.events(1, "", 0).await;
    for (n, hide) in
        ["git update-ref refs/ambient/snapshots/1-1/x HEAD", "rm -rf .git/refs/ambient; : > .git/refs/ambient"]
            .into_iter()
            .enumerate()
    {
        let text = format!("```\n{hide}\necho {n} > secret\n```");
        runner.client.deliver(&n.to_string(), 1, &text).await.expect(200);
        let records = reader.until_turn_ended().await;
        let snapshots = of_type(&records, "repo.snapshot");
        assert_eq!(snapshots.len(), 1, "{hide}: {records:?}");
        assert_eq!(snapshots[0]["ref"], "");
        assert!(snapshots[0]["patch"].as_str().unwrap().contains(&format!("+{n}")), "{hide}");
    }
}
