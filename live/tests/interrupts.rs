//! Permission requests: from the stored log to the session, and answers from the session to the runner, once, whatever dies in between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ambient_domain::{
    agent::{Agent, AgentSpec},
    definition,
    permission::{Answer, PermissionEffect, Permissions},
    project::{self, Project, ProjectPatch, Settings},
    session::{Command, InterruptOutcome, Message, Session, SessionPatch},
};
use ambient_persistence::{Hints, new_id};
use ambient_tests::TestDatabase;
use support::{
    Server, World, eventually,
    stand_in::{Fault, StandIn},
};

async fn answer(server: &Server, session: &Session, id: &str, answer: Answer, message: Option<&str>) -> bool {
    let interrupt_id = id.to_owned();
    let command = Command::AnswerInterrupt { interrupt_id, answer, message: message.map(Message::of) };
    server.command::<Session>(&session.id, &command, message.as_slice()).await
}

async fn is_asked(server: &Server, session: &Session, id: &str) {
    eventually("it is asked", || async {
        server.session(&session.id).await.interrupts.iter().any(|open| open.request.interrupt_id == id)
    })
    .await;
}

async fn is_closed(server: &Server, session: &Session, id: &str, outcome: InterruptOutcome) {
    eventually("it is closed", || async {
        let closed = server.session(&session.id).await.closed_interrupts;
        closed.iter().any(|closed| closed.interrupt_id == id && closed.outcome == outcome)
    })
    .await;
}

/// A running session and its runner.
async fn asking(server: &Server, world: &World) -> (Session, StandIn) {
    let session = server.new_session(|_| {}).await;
    let runner = StandIn::of(&session);
    world.set(&session.id, Some(runner.socket()));
    server.running(&session).await;
    (session, runner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_seen_by_everyone_its_answer_reaches_the_agent_once_and_the_log_closes_it() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let (world, sink) = (World::new(), server.sink());
    let (session, runner) = asking(&server, &world).await;
    let readers = server.readers(&world, &sink);
    runner.ask("1-1-1", "make");
    is_asked(&server, &session, "1-1-1").await;
    assert!(answer(&server, &session, "1-1-1", Answer::Reject, Some("use ninja")).await);
    is_closed(&server, &session, "1-1-1", InterruptOutcome::Answered).await;
    assert!(!answer(&server, &session, "1-1-1", Answer::Reject, Some("use ninja")).await, "again: nothing to do");
    eventually("the message is delivered", || async { runner.told().contains(&"message use ninja".to_owned()) }).await;
    assert_eq!(runner.given(), ["1-1-1 Reject"]);
    assert_eq!(runner.told().iter().filter(|told| told.starts_with("answer")).count(), 1);
    let events = server.db.read_events(&session.id, 0, 1_000).await.unwrap();
    let of_requests: Vec<_> = events
        .iter()
        .filter(|event| event.event_type == "session.interrupt")
        .map(|event| event.data["change"].as_str().unwrap())
        .collect();
    assert_eq!(of_requests, ["raised", "answered", "closed"]);
    let by = events.iter().find(|event| event.data["change"] == "answered").unwrap();
    assert_eq!(by.data["given"]["by"], "alice");
    readers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_given_while_nobody_reads_is_handed_over_by_whoever_reads_next() {
    let database = TestDatabase::new().await;
    let (a, b) = (Server::on(&database).await, Server::on(&database).await);
    let (world, sink_a, sink_b) = (World::new(), a.sink(), b.sink());
    let (session, runner) = asking(&a, &world).await;
    let readers_a = a.readers(&world, &sink_a);
    runner.ask("1-1-1", "make");
    is_asked(&a, &session, "1-1-1").await;
    // As kill -9: nothing is given back.
    drop(readers_a);
    answer(&a, &session, "1-1-1", Answer::Once, None).await;
    assert!(runner.given().is_empty());
    let readers_b = b.readers(&world, &sink_b);
    is_closed(&b, &session, "1-1-1", InterruptOutcome::Answered).await;
    assert_eq!(runner.given(), ["1-1-1 Once"]);
    readers_b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_delivery_fails_before_or_after_it_was_recorded_is_delivered_again_and_counts_once() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let (world, sink) = (World::new(), server.sink());
    let (session, runner) = asking(&server, &world).await;
    runner.fail(&[Fault::After, Fault::Before, Fault::Before]);
    let readers = server.readers(&world, &sink);
    runner.ask("1-1-1", "make");
    is_asked(&server, &session, "1-1-1").await;
    answer(&server, &session, "1-1-1", Answer::Once, None).await;
    is_closed(&server, &session, "1-1-1", InterruptOutcome::Answered).await;
    assert_eq!(runner.given(), ["1-1-1 Once"]);
    assert!(runner.told().len() >= 3, "{:?}", runner.told());
    readers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_which_nobody_else_was_told_is_found_by_the_slow_look() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let (world, sink) = (World::new(), server.sink());
    let (session, runner) = asking(&server, &world).await;
    let readers = server.readers(&world, &sink);
    runner.ask("1-1-1", "make");
    is_asked(&server, &session, "1-1-1").await;
    let silent = Server { db: server.db.clone(), hints: Hints::local() };
    answer(&silent, &session, "1-1-1", Answer::Once, None).await;
    is_closed(&server, &session, "1-1-1", InterruptOutcome::Answered).await;
    readers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_a_request_that_the_runner_does_not_know_is_lost_and_by_policy_given_when_it_is_asked_again() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let (world, sink) = (World::new(), server.sink());
    let (session, runner) = asking(&server, &world).await;
    runner.forget("1-1-1");
    let readers = server.readers(&world, &sink);
    let permissions = Some(Permissions { repeat_answers: Some(true), ..Permissions::default() });
    let patch = Command::Patch(SessionPatch { permissions, ..SessionPatch::default() });
    server.command::<Session>(&session.id, &patch, &[]).await;
    runner.ask("1-1-1", "make");
    is_asked(&server, &session, "1-1-1").await;
    answer(&server, &session, "1-1-1", Answer::Once, None).await;
    is_closed(&server, &session, "1-1-1", InterruptOutcome::Lost).await;
    runner.ask("1-1-2", "make");
    is_closed(&server, &session, "1-1-2", InterruptOutcome::Answered).await;
    assert_eq!(runner.given(), ["1-1-2 Once"]);
    readers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_reach_the_runner_and_the_rule_of_an_always_before_the_answer() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let (world, sink) = (World::new(), server.sink());
    let (session, runner) = asking(&server, &world).await;
    let readers = server.readers(&world, &sink);
    let permissions = Some(Permissions { otherwise: Some(PermissionEffect::Deny), ..Permissions::default() });
    let patch = Command::Patch(SessionPatch { permissions, ..SessionPatch::default() });
    server.command::<Session>(&session.id, &patch, &[]).await;
    eventually("the runner is told", || async { !server.session(&session.id).await.runner_due() }).await;
    runner.ask("1-1-1", "make");
    is_asked(&server, &session, "1-1-1").await;
    answer(&server, &session, "1-1-1", Answer::Always, None).await;
    is_closed(&server, &session, "1-1-1", InterruptOutcome::Answered).await;
    assert_eq!(runner.told(), ["policy of 0 rules", "policy of 1 rules", "answer 1-1-1"]);
    eventually("everything is told", || async { !server.session(&session.id).await.runner_due() }).await;
    readers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agent_and_project_say_reaches_the_runner_of_a_running_session() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let (world, sink, agent_id) = (World::new(), server.sink(), new_id());
    let session = server.new_session(|spec| spec.agent_id = Some(agent_id.clone())).await;
    let runner = StandIn::of(&session);
    world.set(&session.id, Some(runner.socket()));
    server.running(&session).await;
    let readers = server.readers(&world, &sink);
    let says = |effect| Permissions { otherwise: Some(effect), ..Permissions::default() };
    let has = |effect| {
        let server = &server;
        let id = &session.id;
        eventually("the runner goes by it", move || async move {
            let now = server.session(id).await;
            now.permissions().otherwise == effect && !now.runner_due()
        })
    };

    let settings = Settings { permissions: says(PermissionEffect::Allow), ..Settings::default() };
    let patch = ProjectPatch { settings: Some(settings), ..ProjectPatch::default() };
    server.command::<Project>(&session.project_id, &project::Command::Patch(Box::new(patch)), &[]).await;
    has(Some(PermissionEffect::Allow)).await;

    // The agent's comes before the project's, until the agent is deleted.
    let spec = Box::new(AgentSpec { permissions: says(PermissionEffect::Deny), ..AgentSpec::default() });
    let (id, project_id, name) = (agent_id.clone(), session.project_id.clone(), "coder".to_owned());
    server.command::<Agent>(&agent_id, &definition::Command::Create { id, project_id, name, spec }, &[]).await;
    has(Some(PermissionEffect::Deny)).await;
    server.command::<Agent>(&agent_id, &definition::Command::Delete, &[]).await;
    has(Some(PermissionEffect::Allow)).await;
    assert_eq!(runner.told(), ["policy of 0 rules"; 3]);

    // What changed while nobody read is found by whoever reads next.
    readers.shutdown().await;
    let patch = ProjectPatch { settings: Some(Settings::default()), ..ProjectPatch::default() };
    server.command::<Project>(&session.project_id, &project::Command::Patch(Box::new(patch)), &[]).await;
    let readers = server.readers(&world, &sink);
    has(None).await;
    assert_eq!(runner.told().len(), 4);
    readers.shutdown().await;
}
