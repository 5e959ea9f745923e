//! What a caller can rely on, whatever happens in between.
#![allow(clippy::disallowed_methods, reason = "nobody gives a test's transactions up")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use ambient_actors::{ActorOptions, Actors, CallError, CommandOutcome, Request};
use ambient_domain::{
    RefusalCode,
    project::{self, Project, ProjectPatch},
    session::{self, Fact, Message, Phase, Session, SessionPatch},
};
use ambient_persistence::{Database, DatabaseOptions, Hint, Hints, new_id};
use support::*;

#[tokio::test]
async fn one_command_writes_operation_row_live_events_and_effects_and_wakes_after_the_commit() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    let mut hints = w.hints.subscribe();
    let id = new_id();
    let reply = ask::<Session>(&w.actors, &id, create_session_command(&id, &project, true)).await.unwrap();
    assert_eq!(
        (reply.outcome, reply.state.phase(), reply.state.version),
        (CommandOutcome::Applied, Some(Phase::Pending), 1)
    );
    assert_eq!(w.db.load::<Session>(&id).await.unwrap().as_ref(), Some(&reply.state));

    let operation = w.db.operation(reply.operation_id.as_ref().unwrap()).await.unwrap().unwrap();
    assert_eq!((operation.entity_id.as_str(), operation.version, operation.command.as_str()), (&*id, 1, "create"));
    let events = w.db.read_events(&id, 0, 100).await.unwrap();
    let types: Vec<_> = events.iter().map(|e| (e.seq, e.event_type.as_str(), e.run)).collect();
    assert_eq!(types, [(1, "session.phase", Some(1)), (2, "user.message", Some(1))]);
    assert_eq!(events[1].data["text"], "say hello");
    assert!(w.db.outbox_pending_for(&session::workflow_id::start(&id, 1, 1)).await.unwrap());
    assert_eq!(hints.recv().await, Some(Hint::Live(id.clone())));
    assert_eq!(hints.recv().await, Some(Hint::Outbox));
    w.verify_clean().await;
}

#[tokio::test]
async fn readers_are_told_of_a_project_that_has_changed() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    let mut hints = w.hints.subscribe();
    let patch = ProjectPatch { display_name: Some("Demo".to_owned()), ..ProjectPatch::default() };
    ask::<Project>(&w.actors, &project, project::Command::Patch(Box::new(patch))).await.unwrap();
    assert_eq!(hints.recv().await, Some(Hint::Owners));
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_answer_also_after_a_restart_and_another_body_is_refused() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    let create = |id: &str, body: &[u8]| {
        let mut request = Request::<Session>::new(create_session_command(id, &project, false), caller());
        request.idempotency = Some(key("k1", body));
        request
    };
    let (first_id, second_id) = (new_id(), new_id());
    let first = w.actors.call(&first_id, create(&first_id, b"body")).await.unwrap();
    ask::<Session>(&w.actors, &first_id, start()).await.unwrap();
    // The repetition comes with a new id, to another server: it must not create a second session.
    let second = w.second().await.call(&second_id, create(&second_id, b"body")).await.unwrap();
    assert!(second.replayed && !first.replayed);
    assert_eq!((second.state, second.operation_id), (first.state, first.operation_id));
    let other = w.actors.call(&new_id(), create(&new_id(), b"other body")).await;
    assert_eq!(other, Err(CallError::KeyReused));
    assert_eq!(w.count("select count(*) from ambient.sessions").await, 1);
}

#[tokio::test]
async fn two_servers_that_get_the_same_key_at_once_do_it_once() {
    let w = world().await;
    let other = w.second().await;
    let project = new_project(&w.actors, "demo").await;
    for round in 0..20 {
        let calls = [&w.actors, &other, &w.actors, &other].map(|actors| {
            let id = new_id();
            let mut request = Request::<Session>::new(create_session_command(&id, &project, false), caller());
            request.idempotency = Some(key(&format!("k{round}"), b""));
            let actors = actors.clone();
            tokio::spawn(async move { actors.call(&id, request).await.unwrap().state.id })
        });
        let mut ids = Vec::new();
        for call in calls {
            ids.push(call.await.unwrap());
        }
        ids.dedup();
        assert_eq!(ids.len(), 1);
    }
    assert_eq!(w.count("select count(*) from ambient.sessions").await, 20);
}

/// Who decides under the row's lock has one connection; were a second one asked for then, these would wait for each other.
#[tokio::test]
async fn contended_commands_with_keys_need_one_connection_each() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    let id = new_session(&w.actors, &project, true).await;
    let options = DatabaseOptions { max_connections: 2, ..DatabaseOptions::default() };
    let db = Database::connect(&w.database.url(), options).await.unwrap();
    for round in 0..4 {
        let calls = (0..16).map(|server| {
            let actors = Actors::start(db.clone(), Hints::local(), ActorOptions::default());
            let text = format!("{round}.{server}");
            let message = Message::of(&text);
            let mut request =
                Request::<Session>::new(session::Command::SendMessage { message, start: false }, caller());
            request.bodies = vec![text];
            request.idempotency = Some(key(&format!("k{round}.{server}"), b""));
            let id = id.clone();
            tokio::spawn(async move { actors.call(&id, request).await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap().unwrap().outcome, CommandOutcome::Applied);
        }
    }
    w.verify_clean().await;
}

#[tokio::test]
async fn nothing_to_do_is_remembered_under_its_key_and_a_refusal_is_not() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    let id = new_session(&w.actors, &project, false).await;
    let request = |command: session::Command, k: &str| {
        let mut request = Request::<Session>::new(command, caller());
        request.idempotency = Some(key(k, b""));
        request
    };
    let refused = w.actors.call(&id, request(stop(), "stop")).await.unwrap_err();
    assert!(matches!(&refused, CallError::Refused(r) if r.code == RefusalCode::Phase), "{refused}");
    w.actors.call(&id, request(start(), "start")).await.unwrap();
    let stopped = w.actors.call(&id, request(stop(), "stop")).await.unwrap();
    assert_eq!((stopped.outcome, stopped.replayed), (CommandOutcome::Applied, false));
    let again = w.actors.call(&id, request(stop(), "stop again")).await.unwrap();
    assert_eq!((again.outcome, again.replayed), (CommandOutcome::Already, false));
    ask::<Session>(&w.actors, &id, torn_down(1)).await.unwrap();
    ask::<Session>(&w.actors, &id, start()).await.unwrap();
    // The late repetition of a stop that had nothing to do must not stop the next run.
    let late = w.actors.call(&id, request(stop(), "stop again")).await.unwrap();
    assert_eq!((late.outcome, late.replayed), (CommandOutcome::Already, true));
    assert_eq!(w.db.load::<Session>(&id).await.unwrap().unwrap().phase(), Some(Phase::Pending));
}

#[tokio::test]
async fn a_server_with_an_old_state_in_memory_neither_refuses_nor_accepts_wrongly() {
    let w = world().await;
    let other = w.second().await;
    let project = new_project(&w.actors, "demo").await;
    let id = new_session(&w.actors, &project, true).await;
    // `other` remembers Pending.
    ask::<Session>(&other, &id, fact(9, 0, Fact::MarkRunning)).await.unwrap();
    ask::<Session>(&w.actors, &id, stop()).await.unwrap();
    ask::<Session>(&w.actors, &id, torn_down(1)).await.unwrap();
    // By its memory this would be a refusal ("is Pending already").
    let started = ask::<Session>(&other, &id, start()).await.unwrap();
    assert_eq!((started.state.run_number(), started.state.version), (2, 4));
    // By the first server's memory (run 1 over) this would be nothing to do.
    let stopped = ask::<Session>(&w.actors, &id, stop()).await.unwrap();
    assert_eq!((stopped.outcome, stopped.state.phase()), (CommandOutcome::Applied, Some(Phase::Stopping)));
    // A stale If-Match tells the row's version, not the memory's.
    let mut request = Request::<Session>::new(session::Command::Delete, caller());
    request.if_match = Some(4);
    assert_eq!(other.call(&id, request.clone()).await, Err(CallError::Stale { current: 5 }));
    request.if_match = Some(5);
    assert!(other.call(&id, request).await.unwrap().state.deleted_at.is_some());
    w.verify_clean().await;
}

#[tokio::test]
async fn a_name_belongs_to_one_project_until_it_is_gone() {
    let w = world().await;
    let id = new_project(&w.actors, "demo").await;
    let second = new_id();
    let taken = ask::<Project>(&w.actors, &second, create_project_command(&second, "demo")).await;
    assert_eq!(taken, Err(CallError::NameTaken { scope: "project".to_owned(), name: "demo".to_owned() }));
    assert_eq!(w.db.load::<Project>(&second).await.unwrap(), None);
    ask::<Project>(&w.actors, &id, project::Command::Delete).await.unwrap();
    assert!(ask::<Project>(&w.actors, &second, create_project_command(&second, "demo")).await.is_err());
    ask::<Project>(&w.actors, &id, project::Command::DeleteFinished).await.unwrap();
    ask::<Project>(&w.actors, &second, create_project_command(&second, "demo")).await.unwrap();
    assert_eq!(w.db.project_by_id_or_name("demo").await.unwrap().unwrap().id, second);
    assert_eq!(w.db.project_by_id_or_name(&id).await.unwrap().unwrap().id, id);
}

#[tokio::test]
async fn conditions_outside_the_entity_hold_in_the_transaction() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    let id = new_session(&w.actors, &project, true).await;
    let stop_if_quiet = |seq| session::Command::Stop {
        reason: session::StopReason::InactivityTimeout,
        seen_seq: Some(seq),
        run: Some(1),
        force: false,
    };
    let seen = w.db.last_seq(&id).await.unwrap();
    let message = Message::of("wake up");
    let mut send = Request::<Session>::new(session::Command::SendMessage { message, start: false }, caller());
    send.bodies = vec!["wake up".to_owned()];
    w.actors.call(&id, send).await.unwrap();
    let refused = ask::<Session>(&w.actors, &id, stop_if_quiet(seen)).await.unwrap_err();
    assert_eq!(refused.to_string(), "there was activity since");
    let seen = w.db.last_seq(&id).await.unwrap();
    assert_eq!(w.db.read_events(&id, seen - 1, 1).await.unwrap()[0].data["text"], "wake up");
    ask::<Session>(&w.actors, &id, stop_if_quiet(seen)).await.unwrap();
    ask::<Session>(&w.actors, &id, torn_down(1)).await.unwrap();

    ask::<Project>(&w.actors, &project, project::Command::Delete).await.unwrap();
    for refused in [
        ask::<Session>(&w.actors, &id, start()).await.unwrap_err(),
        ask::<Session>(&w.actors, &new_id(), create_session_command(&new_id(), &project, false)).await.unwrap_err(),
    ] {
        let CallError::Refused(refusal) = refused else { panic!("{refused}") };
        assert_eq!((refusal.code, refusal.field.as_deref()), (RefusalCode::Conflict, Some("project_id")));
    }
    w.verify_clean().await;
}

#[tokio::test]
async fn nul_is_refused_with_the_field_and_the_actor_goes_on() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    let id = new_session(&w.actors, &project, false).await;
    let fatal = Fact::Fatal { reason: "RunnerExit".to_owned(), message: "a\0b".to_owned() };
    ask::<Session>(&w.actors, &id, start()).await.unwrap();
    let refused = ask::<Session>(&w.actors, &id, fact(1, 1, fatal)).await.unwrap_err();
    let CallError::Refused(refusal) = refused else { panic!("{refused}") };
    assert_eq!(refusal.field.as_deref(), Some("fact.message"));
    let text = "a\0b".to_owned();
    let send = session::Command::SendMessage { message: Message::of(&text), start: false };
    let request = Request { bodies: vec![text], ..Request::<Session>::new(send, caller()) };
    let CallError::Refused(refusal) = w.actors.call(&id, request).await.unwrap_err() else { panic!("not refused") };
    assert_eq!(refusal.field.as_deref(), Some("text"));
    ask::<Session>(&w.actors, &id, stop()).await.unwrap();
}

#[tokio::test]
async fn an_operation_of_a_newer_release_makes_the_actor_refuse_and_not_guess() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    sqlx::query("update ambient.projects set schema_version = 99").execute(w.db.pool()).await.unwrap();
    let patch =
        project::Command::Patch(Box::new(ProjectPatch { description: Some("x".to_owned()), ..Default::default() }));
    let refused = ask::<Project>(&w.second().await, &project, patch).await.unwrap_err();
    assert!(matches!(&refused, CallError::Unavailable { reason } if reason.contains("schema version 99")), "{refused}");
}

#[tokio::test]
async fn calls_that_meet_an_actor_leaving_the_memory_are_not_lost() {
    let options = ActorOptions { idle_after: Duration::from_millis(1), ..ActorOptions::default() };
    let w = world_with(options).await;
    let project = new_project(&w.actors, "demo").await;
    let id = new_session(&w.actors, &project, false).await;
    let mut calls = Vec::new();
    for task in 0..4 {
        let (actors, id) = (w.actors.clone(), id.clone());
        calls.push(tokio::spawn(async move {
            for i in 0..100 {
                let patch = SessionPatch { display_name: Some(format!("{task}/{i}")), ..Default::default() };
                ask::<Session>(&actors, &id, session::Command::Patch(patch)).await.unwrap();
                if i % 10 == task {
                    tokio::time::sleep(Duration::from_millis(8)).await;
                }
            }
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(w.db.current_version::<Session>(&id).await.unwrap(), Some(401));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while w.actors.resident() > 0 {
        assert!(tokio::time::Instant::now() < deadline, "idle actors stay in the memory");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    w.verify_clean().await;
}

#[tokio::test]
async fn without_a_permit_a_call_is_turned_away_and_a_shutdown_lets_the_others_end() {
    let options = ActorOptions { permits: 6, per_actor_queue: 4, ..ActorOptions::default() };
    let w = world_with(options).await;
    let project = new_project(&w.actors, "demo").await;
    let (a, b) = (new_session(&w.actors, &project, false).await, new_session(&w.actors, &project, false).await);
    // The rows are locked, so that calls pile up.
    let mut lock = w.db.pool().begin().await.unwrap();
    sqlx::query("select from ambient.sessions for update").execute(&mut *lock).await.unwrap();
    let call = |id: &str, i: usize| {
        let (actors, id) = (w.actors.clone(), id.to_owned());
        let patch = SessionPatch { display_name: Some(format!("name {i}")), ..Default::default() };
        tokio::spawn(async move { ask::<Session>(&actors, &id, session::Command::Patch(patch)).await })
    };
    let waiting: Vec<_> = (0..4).map(|i| call(&a, i)).collect();
    tokio::task::yield_now().await;
    assert_eq!(call(&a, 9).await.unwrap(), Err(CallError::Busy), "the actor's own queue is full");
    let more: Vec<_> = (0..2).map(|i| call(&b, i)).collect();
    tokio::task::yield_now().await;
    assert_eq!(call(&b, 9).await.unwrap(), Err(CallError::Busy), "all permits are taken");
    let shutdown = tokio::spawn({
        let actors = w.actors.clone();
        async move { actors.shutdown(Duration::from_secs(10)).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(call(&b, 10).await.unwrap(), Err(CallError::ShuttingDown));
    lock.rollback().await.unwrap();
    for call in waiting.into_iter().chain(more) {
        assert_eq!(call.await.unwrap().unwrap().outcome, CommandOutcome::Applied);
    }
    shutdown.await.unwrap();
    assert_eq!(call(&b, 11).await.unwrap(), Err(CallError::ShuttingDown));
}

#[tokio::test]
async fn a_caller_that_waits_in_vain_learns_the_operation_and_may_repeat() {
    let options = ActorOptions { call_timeout: Duration::from_millis(200), ..ActorOptions::default() };
    let w = world_with(options).await;
    let project = new_project(&w.actors, "demo").await;
    let id = new_session(&w.actors, &project, false).await;
    let mut request = Request::<Session>::new(start(), caller());
    request.idempotency = Some(key("k", b""));
    let mut lock = w.db.pool().begin().await.unwrap();
    sqlx::query("select from ambient.sessions for update").execute(&mut *lock).await.unwrap();
    let CallError::Timeout { operation_id } = w.actors.call(&id, request.clone()).await.unwrap_err() else { panic!() };
    lock.rollback().await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let reply = loop {
        match w.actors.call(&id, request.clone()).await {
            Ok(reply) => break reply,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!((reply.replayed, reply.operation_id), (true, Some(operation_id)));
    assert_eq!(reply.state.run_number(), 1);
}
