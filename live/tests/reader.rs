//! Readers, with real runners and a real database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{io::Write, time::Duration};

use ambient_domain::session::{ConditionStatus, Fact, RUNNER_UNRESPONSIVE, TurnOutcome};
use ambient_live::snapshot;
use ambient_tests::TestDatabase;
use ambient_wire::runner_event::RunnerEvent;
use support::{Server, World, eventually, runner::Runner};

fn script(text: &str) -> String {
    format!("Do it.\n\n```sh\n{text}\n```\n")
}

/// Every record of the runner's log is stored, once and in order.
async fn assert_stored(server: &Server, session_id: &str, runner: &Runner) {
    let stored: Vec<i64> = server.runner_events(session_id).await.into_iter().map(|(_, n, _)| n).collect();
    let recorded: Vec<i64> = runner.records().into_iter().map(|record| record.n).collect();
    assert_eq!(stored, recorded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_session_is_read_from_its_prompt_to_the_end_of_its_runner() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let (world, sink) = (World::new(), server.sink());
    let session = server
        .new_session(|spec| {
            spec.interactive = false;
            spec.prompt = Some(script("echo hello > out.txt; seq 1 500"));
        })
        .await;
    let mut runner = Runner::of(&session);
    server.creating(&session).await;
    let readers = server.readers(&world, &sink);
    runner.start().await;
    world.set(&session.id, Some(runner.spec.socket.clone()));
    readers.ensure(&session.project_id, &session.id, 1);
    eventually("the attempt's start is stored", || async { !server.runner_events(&session.id).await.is_empty() }).await;
    let undelivered = server.db.undelivered_messages(&session.id, 1).await.unwrap();
    assert_eq!(undelivered.len(), 1, "nothing is delivered before the session is Running");
    server.running(&session).await;
    eventually("the turn's end decides the session", || async { server.phase(&session.id).await == "Stopping" }).await;

    assert!(readers.drained(&session.project_id, &session.id, 1).await);
    runner.terminate().await;
    world.set(&session.id, None);
    let log = runner.paths.event_log(1);
    readers.drain_from_file(&session.project_id, &session.id, 1, &log).await.unwrap();
    assert_eq!(readers.drain_from_file(&session.project_id, &session.id, 1, &log).await.unwrap(), 0);
    readers.forget(&session.id, 1).await;
    assert_stored(&server, &session.id, &runner).await;
    let names = server.runner_events(&session.id).await;
    assert_eq!(names.last().map(|(_, _, name)| name.as_str()), Some("runner.exited"));
    let ended =
        Fact::TurnEnded { last_message_id: Some(format!("{}/1/prompt", session.id)), outcome: TurnOutcome::Finished };
    let seen = Fact::ReposSeen { problems: [].into(), positions: [].into() };
    let facts = [(1, Fact::TurnStarted), (1, seen), (1, ended)];
    assert_eq!(sink.reported(), facts, "an exit that was asked for is no fact");

    let covers = snapshot::compact(&server.db, &session.id).await.unwrap();
    assert_eq!(covers, server.db.last_seq(&session.id).await.unwrap());
    assert_eq!(snapshot::compact(&server.db, &session.id).await.unwrap(), covers);
    let messages = server.db.latest_snapshot(&session.id).await.unwrap().unwrap().data["messages"].take();
    let roles: Vec<_> = messages.as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "assistant", "tool"]);
    assert_eq!(messages[0]["content"], session.spec.prompt.unwrap());
    assert!(messages[2]["toolCalls"][0]["function"]["arguments"].as_str().unwrap().contains("seq 1 500"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_also_large_ones_and_over_the_loss_of_the_runner() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let (world, sink) = (World::new(), server.sink());
    let session = server.new_session(|spec| spec.prompt = Some("first".to_owned())).await;
    let mut runner = Runner::of(&session);
    world.set(&session.id, Some(runner.spec.socket.clone()));
    let readers = server.readers(&world, &sink);
    server.running(&session).await;
    // Nobody listens as yet: it is tried again.
    let large = "x".repeat(1024 * 1024);
    server.send(&session, &large).await;
    server.send(&session, "third").await;
    eventually("it was tried in vain", || async { world.asked() > 1 }).await;
    runner.start().await;
    let delivered = || async { server.db.undelivered_messages(&session.id, 1).await.unwrap().is_empty() };
    eventually("all are delivered", delivered).await;
    runner.kill();
    server.send(&session, "fourth").await;
    runner.next_attempt();
    runner.start().await;
    eventually("the rest is delivered", delivered).await;
    eventually("four turns ended", || async {
        sink.names().iter().filter(|name| **name == "fact_turn_ended").count() >= 4
    })
    .await;
    let accepted: Vec<String> = runner
        .records()
        .iter()
        .filter_map(|record| match RunnerEvent::read(&record.event) {
            Some(RunnerEvent::MessageAccepted { message_id, .. }) => Some(message_id),
            _ => None,
        })
        .collect();
    let events = server.db.read_events(&session.id, 0, 10_000).await.unwrap();
    let sent: Vec<String> =
        events.into_iter().filter(|e| e.event_type == "user.message").filter_map(|e| e.message_id).collect();
    assert_eq!(accepted, sent);
    assert!(accepted[0].ends_with("/1/prompt"));
    let attempts: Vec<i32> = sink.reported().iter().map(|(attempt, _)| *attempt).collect();
    assert!(attempts.is_sorted() && attempts.contains(&1) && attempts.contains(&2), "{attempts:?}");
    readers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_readers_one_is_killed_and_nothing_is_lost_or_repeated() {
    let database = TestDatabase::new().await;
    let (a, b) = (Server::on(&database).await, Server::on(&database).await);
    let (world, world_b, sink_a, sink_b) = (World::new(), World::new(), a.sink(), b.sink());
    // It speaks for as long as it takes: how many records a while makes, the machine decides.
    let speaks = script("for i in $(seq 1 6000); do if [ -e enough ]; then exit; fi; echo $i; sleep 0.01; done");
    let session = a.new_session(|spec| spec.prompt = Some(speaks)).await;
    let mut runner = Runner::of(&session);
    runner.start().await;
    world.set(&session.id, Some(runner.spec.socket.clone()));
    let readers_a = a.readers(&world, &sink_a);
    readers_a.ensure(&session.project_id, &session.id, 1);
    a.running(&session).await;
    let stored = || async { a.runner_events(&session.id).await.len() };
    eventually("the first reads", || async { stored().await > 30 }).await;
    eventually("it tells what it read", || async { sink_a.names() == ["fact_turn_started"] }).await;
    let epoch = a.db.runner_epoch(&session.id, 1).await.unwrap();
    world_b.set(&session.id, Some(runner.spec.socket.clone()));
    let readers_b = b.readers(&world_b, &sink_b);
    readers_b.ensure(&session.project_id, &session.id, 1);
    eventually("the second has asked for the lease, and asks again", || async { world_b.asked() > 1 }).await;
    assert_eq!(a.db.runner_epoch(&session.id, 1).await.unwrap(), epoch, "a lease that is held is not taken");
    // As kill -9: nothing is given back.
    drop(readers_a);
    let at = stored().await;
    eventually("the second takes over", || async { stored().await > at + 30 }).await;
    assert!(a.db.runner_epoch(&session.id, 1).await.unwrap() > epoch);
    std::fs::write(runner.paths.workspace().join("enough"), "").unwrap();
    eventually("the turn ends", || async { sink_b.names().contains(&"fact_turn_ended") }).await;
    assert!(readers_b.drained(&session.project_id, &session.id, 1).await);
    assert_stored(&a, &session.id, &runner).await;
    assert_eq!(sink_a.names(), ["fact_turn_started"]);
    assert_eq!(sink_b.names(), ["fact_repos_seen", "fact_turn_ended"], "what was reported is not reported again");
    readers_b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fact_that_was_stored_and_not_reported_is_reported_by_the_next_reader_without_the_runner() {
    let database = TestDatabase::new().await;
    let (a, b) = (Server::on(&database).await, Server::on(&database).await);
    let (world, sink_a, sink_b) = (World::new(), a.sink(), b.sink());
    let session = a
        .new_session(|spec| {
            spec.interactive = false;
            spec.prompt = Some(script("echo no; exit 3"));
        })
        .await;
    let mut runner = Runner::of(&session);
    runner.start().await;
    world.set(&session.id, Some(runner.spec.socket.clone()));
    sink_a.stuck_at.send_replace(Some("fact_turn_ended"));
    let readers_a = a.readers(&world, &sink_a);
    a.running(&session).await;
    let exit_stored =
        || async { a.runner_events(&session.id).await.last().is_some_and(|(_, _, name)| name == "runner.exited") };
    eventually("the runner's exit is stored", exit_stored).await;
    let until = ["fact_turn_started", "fact_repos_seen"];
    eventually("what comes before is told", || async { sink_a.names() == until }).await;
    assert_eq!(a.phase(&session.id).await, "Running");
    drop(readers_a);
    runner.kill();
    world.set(&session.id, None);
    let _readers_b = b.readers(&world, &sink_b);
    eventually("the exit is decided", || async { b.phase(&session.id).await == "Stopping" }).await;
    assert_eq!(sink_b.names(), ["fact_repos_seen", "fact_turn_ended", "fact_exited"]);
    assert_stored(&b, &session.id, &runner).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_of_a_log_is_stored_from_its_file_though_another_server_holds_the_lease() {
    let database = TestDatabase::new().await;
    let (a, b) = (Server::on(&database).await, Server::on(&database).await);
    let (world, elsewhere, sink_a, sink_b) = (World::new(), World::new(), a.sink(), b.sink());
    let session = a.new_session(|spec| spec.prompt = Some(script("seq 1 300; sleep 30"))).await;
    let mut runner = Runner::of(&session);
    runner.start().await;
    world.set(&session.id, Some(runner.spec.socket.clone()));
    let readers_a = a.readers(&world, &sink_a);
    a.running(&session).await;
    eventually("the first reads", || async { a.runner_events(&session.id).await.len() > 5 }).await;
    a.stop(&session).await;
    runner.kill();
    // Records that no reader has got, and a torn one.
    let n = i64::try_from(runner.records().len()).unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(runner.paths.event_log(1)).unwrap();
    for n in n + 1..=n + 1000 {
        writeln!(file, r#"{{"n":{n},"at":"2026-01-01T00:00:00Z","event":{{"type":"RAW"}}}}"#).unwrap();
    }
    write!(file, r#"{{"n":{},"at":"2026-"#, n + 1001).unwrap();
    let readers_b = b.readers(&elsewhere, &sink_b);
    let log = runner.paths.event_log(1);
    let stored = readers_b.drain_from_file(&session.project_id, &session.id, 1, &log).await.unwrap();
    assert!(stored >= 1000, "{stored}");
    assert_stored(&a, &session.id, &runner).await;
    assert!(!readers_b.drained(&session.project_id, &session.id, 1).await, "a runner that is gone cannot be asked");
    let began = std::time::Instant::now();
    readers_a.shutdown().await;
    readers_b.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_does_not_answer_is_not_ready_and_one_that_stays_so_is_lost() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let (world, sink) = (World::new(), server.sink());
    let session = server.new_session(|_| {}).await;
    let mut runner = Runner::of(&session);
    runner.start().await;
    world.set(&session.id, Some(runner.spec.socket.clone()));
    // As silent as the other, but it answers when asked.
    let quiet = server.new_session(|_| {}).await;
    let mut quiet_runner = Runner::of(&quiet);
    quiet_runner.start().await;
    world.set(&quiet.id, Some(quiet_runner.spec.socket.clone()));
    let readers = server.readers_with(&world, &sink, |options| {
        options.ping_interval = Duration::from_millis(500);
        options.answer_patience = Duration::from_secs(2);
        options.unresponsive_patience = Duration::from_secs(8);
    });
    for session in [&quiet, &session] {
        readers.ensure(&session.project_id, &session.id, 1);
        server.running(session).await;
        eventually("it is read", || async { !server.runner_events(&session.id).await.is_empty() }).await;
        assert_eq!(server.ready(&session.id).await, (ConditionStatus::True, "Idle".to_owned()));
    }

    let unresponsive = (ConditionStatus::False, RUNNER_UNRESPONSIVE.to_owned());
    runner.signal("STOP");
    eventually("it is noticed", || async { server.ready(&session.id).await == unresponsive }).await;
    assert_eq!(server.phase(&session.id).await, "Running");
    runner.signal("CONT");
    let well = (ConditionStatus::True, "Idle".to_owned());
    eventually("so is its return", || async { server.ready(&session.id).await == well }).await;

    runner.signal("STOP");
    eventually("it counts as lost", || async { server.session(&session.id).await.restart_count == 1 }).await;
    let lost = sink.reported().into_iter().find(|(_, fact)| fact.name() == "fact_runner_lost").unwrap();
    assert_eq!(lost.0, 1, "of the attempt that the log knows");
    // It has said nothing for longer than the other needed to be noticed and lost.
    assert_eq!(server.ready(&quiet.id).await, well);
    assert_eq!(server.session(&quiet.id).await.restart_count, 0);
    readers.shutdown().await;
}
