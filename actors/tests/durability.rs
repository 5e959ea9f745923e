//! What is accepted stays, exactly once, whatever breaks: connections, decisions, and another process on the same sessions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/cutting_proxy.rs"]
mod cutting_proxy;
#[path = "support/random.rs"]
mod random;
mod support;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    process::{Child, Command as Process},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use ambient_actors::{ActorOptions, Actors, CallError, CommandOutcome, Request};
use ambient_domain::{
    Column, ColumnType, Context, Decision, Defaults, Effect, Entity, Guard, LiveEvent, NameClaim, Refusal,
    session::{self, Message, Session},
};
use ambient_persistence::{Database, DatabaseOptions, Hints, StoredEntity, Table, VerifyScope, new_id};
use chrono::{DateTime, Utc};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use support::*;

#[tokio::test]
async fn after_random_commands_every_row_is_what_its_operations_give() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    for seed in 0..4 {
        let mut rng = StdRng::seed_from_u64(seed);
        let id = new_session(&w.actors, &project, false).await;
        let mut known = None;
        for _ in 0..80 {
            let command = random::command(&mut rng, known.as_ref());
            match ask::<Session>(&w.actors, &id, command.clone()).await {
                Ok(reply) => known = Some(reply.state),
                Err(CallError::Refused(_)) => {}
                Err(error) => panic!("seed {seed}: {command:?}: {error}"),
            }
        }
        let stored = w.db.load::<Session>(&id).await.unwrap().unwrap();
        assert_eq!(known.as_ref(), Some(&stored), "seed {seed}");
        assert_eq!(w.db.load_at(&id, stored.version).await.unwrap(), Some(stored), "seed {seed}");
    }
    w.verify_clean().await;
}

#[tokio::test]
async fn a_connection_cut_at_any_moment_neither_loses_nor_doubles_a_message() {
    const TASKS: usize = 6;
    /// Messages of each task at least, and at most; they go on until enough connections have been cut.
    const LEAST: usize = 25;
    const MOST: usize = 1_000;
    const CUTS: i64 = 20;
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    let id = new_session(&w.actors, &project, true).await;
    // Killed by a connection that is not among the killed.
    let options = DatabaseOptions { application_name: "killer".to_owned(), ..DatabaseOptions::default() };
    let killer_db = Database::connect(&w.database.url(), options).await.unwrap();
    let (cuts, done) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let (cut, is_done) = (cuts.clone(), done.clone());
    let killer = tokio::spawn(async move {
        let mut rng = StdRng::seed_from_u64(7);
        while !is_done.load(Ordering::Relaxed) && cut.load(Ordering::Relaxed) < CUTS {
            tokio::time::sleep(Duration::from_micros(rng.random_range(500..15_000))).await;
            // Waits until it has ended, so that no connection is cut later than that.
            let sql = "select count(pg_terminate_backend(pid, 5000)) from (select pid from pg_stat_activity
                       where datname = current_database() and application_name = 'ambient' and state <> 'idle'
                       order by random() limit 1) x";
            let killed: i64 = sqlx::query_scalar(sql).fetch_one(killer_db.pool()).await.unwrap();
            cut.fetch_add(killed, Ordering::Relaxed);
        }
    });
    let tasks = (0..TASKS).map(|task| {
        let (actors, id, cuts) = (w.actors.clone(), id.clone(), cuts.clone());
        tokio::spawn(async move {
            let mut sent = 0;
            while sent < LEAST || (sent < MOST && cuts.load(Ordering::Relaxed) < CUTS) {
                send_until_answered(&actors, &id, &format!("{task}/{sent}")).await;
                sent += 1;
            }
            sent
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut sent = 0;
    for task in tasks {
        sent += task.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    killer.await.unwrap();
    assert_eq!(cuts.load(Ordering::Relaxed), CUTS, "connections cut during {sent} messages");
    let events = w.db.read_events(&id, 0, 10_000).await.unwrap();
    assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), (1..=events.len() as i64).collect::<Vec<_>>());
    let texts: Vec<_> = events.iter().filter_map(|e| e.data["text"].as_str()).collect();
    assert_eq!(texts.len(), 1 + sent, "none lost, none twice");
    assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len());
    assert_eq!(w.db.current_version::<Session>(&id).await.unwrap(), Some(1 + i64::try_from(sent).unwrap()));
    w.verify_clean().await;
}

async fn send_until_answered(actors: &Actors, id: &str, text: &str) {
    let command = session::Command::SendMessage { message: Message::of(text), start: false };
    let mut request = Request::<Session>::new(command, caller());
    request.bodies = vec![text.to_owned()];
    request.idempotency = Some(key(text, b""));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match actors.call(id, request.clone()).await {
            Ok(reply) => return assert_eq!(reply.outcome, CommandOutcome::Applied),
            Err(CallError::Unavailable { .. } | CallError::Timeout { .. }) if Instant::now() < deadline => {}
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_neither_repeated_nor_given_up() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    let id = new_session(&w.actors, &project, true).await;
    let proxy = cutting_proxy::start(&w.database.url()).await;
    // No idempotency key: the operation's id alone must do.
    let actors = Actors::start(connect(&proxy.url).await, Hints::local(), ActorOptions::default());
    for n in 0..30 {
        let text = format!("message {n}");
        let command = session::Command::SendMessage { message: Message::of(&text), start: false };
        let mut request = Request::<Session>::new(command, caller());
        request.bodies = vec![text];
        let reply = actors.call(&id, request).await.unwrap();
        assert_eq!((reply.outcome, reply.state.version), (CommandOutcome::Applied, n + 2));
    }
    let (lost, swallowed) = (proxy.answers_lost(), proxy.commits_swallowed());
    assert!(lost >= 5 && swallowed >= 5, "{lost} answers lost, {swallowed} commits swallowed");
    assert_eq!(w.db.last_seq(&id).await.unwrap(), 2 + 30);
    w.verify_clean().await;
}

/// An entity whose decision can panic: also the proof that a new entity is a module, a table and a mapping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Counter {
    id: String,
    version: i64,
    at: DateTime<Utc>,
    count: i64,
}

impl Entity for Counter {
    const KIND: &'static str = "counter";
    const TITLE: &'static str = "Counter";
    const SCHEMA_VERSION: i32 = 1;
    const COLUMNS: &'static [Column<Self>] = &[Column::new("count", ColumnType::Integer, |c| c.count.into())];
    type Command = String;
    type Event = String;

    fn command_name(_: &String) -> &'static str {
        "count"
    }
    fn decide(_: Option<&Self>, command: &String, _: &Context) -> Result<Decision<String>, Refusal> {
        assert!(command != "panic", "asked for");
        Ok(Decision::Events(vec![command.clone()]))
    }
    fn apply(state: Option<Self>, event: &String, at: DateTime<Utc>) -> Self {
        let before = state.unwrap_or(Self { id: event.clone(), version: 0, at, count: 0 });
        Self { count: before.count + 1, ..before }
    }
    fn set_version(&mut self, version: i64, at: DateTime<Utc>) {
        (self.version, self.at) = (version, at);
    }
    fn id(&self) -> &str {
        &self.id
    }
    fn version(&self) -> i64 {
        self.version
    }
    fn project_id(&self) -> &str {
        "none"
    }
    fn created_at(&self) -> DateTime<Utc> {
        self.at
    }
    fn updated_at(&self) -> DateTime<Utc> {
        self.at
    }
    fn deleted_at(&self) -> Option<DateTime<Utc>> {
        None
    }
    fn deletion() -> String {
        "delete".to_owned()
    }
    fn guards(_: Option<&Self>, _: &String) -> Vec<Guard> {
        Vec::new()
    }
    fn effects(&self, _: &[String], _: &Context) -> Vec<Effect> {
        Vec::new()
    }
    fn live(&self, _: &[String]) -> Vec<LiveEvent> {
        Vec::new()
    }
    fn names(&self, _: &[String]) -> Vec<NameClaim> {
        Vec::new()
    }
}

impl StoredEntity for Counter {
    const TABLE: &'static Table = &Table { name: "ambient.counters", lock_rank: 9, columns: &["count"] };
}

#[tokio::test]
async fn a_decision_that_panics_costs_its_own_caller_only() {
    let w = world().await;
    let table = "create table ambient.counters (like ambient.projects including defaults including constraints,
                     count bigint not null, primary key (id));
                 alter table ambient.counters drop column name, drop column display_name, drop column phase,
                     drop column provisioned, drop column members, drop column labels";
    sqlx::raw_sql(table).execute(w.db.pool()).await.unwrap();
    ask::<Counter>(&w.actors, "c1", "c1".to_owned()).await.unwrap();
    let calls = (0..30).map(|i| {
        let actors = w.actors.clone();
        let command = if i % 10 == 4 { "panic" } else { "c1" }.to_owned();
        tokio::spawn(async move { ask::<Counter>(&actors, "c1", command).await })
    });
    let mut failed = 0;
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Ok(reply) => assert_eq!(reply.state.count, reply.state.version),
            Err(CallError::Unavailable { .. }) => failed += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(failed, 3);
    assert_eq!(w.db.load::<Counter>("c1").await.unwrap().unwrap().count, 28);
}

const CHILD_URL: &str = "AMBIENT_TEST_CHILD_URL";
const CHILD_SESSIONS: &str = "AMBIENT_TEST_CHILD_SESSIONS";
const CHILD_REPORT: &str = "AMBIENT_TEST_CHILD_REPORT";
const CHILD_SEED: &str = "AMBIENT_TEST_CHILD_SEED";
const CALLS_OF_A_CHILD: usize = 5_000;
const SESSIONS: usize = 6;

/// What a child has been answered.
#[derive(Debug, Serialize, Deserialize)]
struct Answered {
    session: String,
    /// The state it was answered on is between these versions.
    low: i64,
    high: i64,
    answer: Answer,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Applied { operation_id: String, version: i64 },
    Nothing(session::Command),
    Refused(session::Command),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_the_same_sessions_accept_everything_once_and_refuse_nothing_wrongly() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(new_session(&w.actors, &project, false).await);
    }
    let started = Instant::now();
    let reports: Vec<_> = (0..2).map(|i| std::env::temp_dir().join(format!("{}-{i}.json", new_id()))).collect();
    let children = reports.iter().enumerate().map(|(i, report)| {
        Process::new(std::env::current_exe().unwrap())
            .args(["child_of_the_two_processes", "--exact", "--ignored", "--nocapture"])
            .env(CHILD_URL, w.database.url())
            .env(CHILD_SESSIONS, sessions.join(","))
            .env(CHILD_REPORT, report)
            .env(CHILD_SEED, i.to_string())
            .spawn()
            .unwrap()
    });
    for child in children.collect::<Vec<_>>() {
        wait(child).await;
    }
    println!("{} calls in {:?}", 2 * CALLS_OF_A_CHILD, started.elapsed());
    let read = |path: &std::path::PathBuf| {
        let answers: Vec<Answered> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        std::fs::remove_file(path).unwrap();
        answers
    };
    let answers: Vec<Answered> = reports.iter().flat_map(read).collect();
    assert_eq!(answers.len(), 2 * CALLS_OF_A_CHILD);
    check_accepted(&w, &answers).await;
    check_not_accepted(&w, &sessions, &answers).await;
    w.verify_clean().await;
    for id in &sessions {
        let events = w.db.read_events(id, 0, 100_000).await.unwrap();
        assert_eq!(w.db.last_seq(id).await.unwrap(), events.len() as i64);
        assert!(events.iter().zip(1..).all(|(event, seq)| event.seq == seq));
    }
}

async fn wait(mut child: Child) {
    let deadline = Instant::now() + Duration::from_secs(240);
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return assert!(status.success(), "{status}"),
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                panic!("a child takes too long");
            }
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Every accepted command is exactly one operation under its id and version, and there are no others.
async fn check_accepted(w: &World, answers: &[Answered]) {
    let sql = "select id, entity_id, version from ambient.operations where entity_kind = 'session' and version > 1";
    let rows: Vec<(String, String, i64)> = sqlx::query_as(sql).fetch_all(w.db.pool()).await.unwrap();
    let stored: BTreeSet<_> = rows.iter().cloned().collect();
    let accepted: Vec<_> = answers
        .iter()
        .filter_map(|a| match &a.answer {
            Answer::Applied { operation_id, version } => Some((operation_id.clone(), a.session.clone(), *version)),
            _ => None,
        })
        .collect();
    assert_eq!(accepted.len(), stored.len());
    assert_eq!(accepted.into_iter().collect::<BTreeSet<_>>(), stored);
    let mut summary = String::new();
    let count = |f: fn(&Answer) -> bool| answers.iter().filter(|a| f(&a.answer)).count();
    write!(summary, "{} applied", count(|a| matches!(a, Answer::Applied { .. }))).unwrap();
    write!(summary, ", {} nothing to do", count(|a| matches!(a, Answer::Nothing(_)))).unwrap();
    println!("{summary}, {} refused", count(|a| matches!(a, Answer::Refused(_))));
}

/// Whatever was not accepted was not acceptable in a state that the entity had during the call.
async fn check_not_accepted(w: &World, sessions: &[String], answers: &[Answered]) {
    let mut states: HashMap<(String, i64), Session> = HashMap::new();
    for id in sessions {
        let sql = "select version, events, occurred_at from ambient.operations where entity_id = $1 order by version";
        let rows: Vec<(i64, Vec<u8>, DateTime<Utc>)> =
            sqlx::query_as(sql).bind(id).fetch_all(w.db.pool()).await.unwrap();
        let mut state = None;
        for (version, events, at) in rows {
            let events: Vec<session::Event> = serde_json::from_slice(&events).unwrap();
            state = events.iter().fold(state, |s, e| Some(Session::apply(s, e, at)));
            state.as_mut().unwrap().set_version(version, at);
            states.insert((id.clone(), version), state.clone().unwrap());
        }
    }
    let context = Context {
        now: Utc::now(),
        operation_id: new_id(),
        principal: "alice".to_owned(),
        defaults: Defaults::default(),
    };
    for answered in answers {
        let (Answer::Nothing(command) | Answer::Refused(command)) = &answered.answer else { continue };
        let justified = (answered.low..=answered.high).any(|version| {
            let state = states.get(&(answered.session.clone(), version));
            let decision = Session::decide(state, command, &context);
            match &answered.answer {
                Answer::Nothing(_) => matches!(decision, Ok(Decision::NothingToDo(_))),
                _ => decision.is_err(),
            }
        });
        assert!(justified, "{answered:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test of two processes"]
async fn child_of_the_two_processes() {
    const TASKS: usize = 12;
    let variable = |name: &str| std::env::var(name).unwrap();
    let options = DatabaseOptions { max_connections: 8, ..DatabaseOptions::default() };
    let db = Database::connect(&variable(CHILD_URL), options).await.unwrap();
    let actors = Actors::start(db.clone(), Hints::start(&db), ActorOptions::default());
    let sessions: Arc<Vec<String>> = Arc::new(variable(CHILD_SESSIONS).split(',').map(str::to_owned).collect());
    let known: Arc<Mutex<HashMap<String, Session>>> = Arc::default();
    let seed: u64 = variable(CHILD_SEED).parse().unwrap();
    let tasks = (0..TASKS).map(|task| {
        let calls = CALLS_OF_A_CHILD / TASKS + usize::from(task < CALLS_OF_A_CHILD % TASKS);
        let mut rng = StdRng::seed_from_u64(seed * 1000 + task as u64);
        let (db, actors, sessions, known) = (db.clone(), actors.clone(), sessions.clone(), known.clone());
        tokio::spawn(async move {
            let mut answers = Vec::with_capacity(calls);
            for _ in 0..calls {
                let session = &sessions[rng.random_range(0..sessions.len())];
                let state = known.lock().unwrap().get(session).cloned();
                let command = random::command(&mut rng, state.as_ref());
                answers.push(answered(&db, &actors, session, command, &known).await);
            }
            answers
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.extend(task.await.unwrap());
    }
    actors.shutdown(Duration::from_secs(10)).await;
    std::fs::write(variable(CHILD_REPORT), serde_json::to_vec(&answers).unwrap()).unwrap();
}

async fn answered(
    db: &Database,
    actors: &Actors,
    session: &str,
    command: session::Command,
    known: &Mutex<HashMap<String, Session>>,
) -> Answered {
    let low = known.lock().unwrap().get(session).map_or(1, |state| state.version);
    let answer = loop {
        match ask::<Session>(actors, session, command.clone()).await {
            Ok(reply) => {
                let version = reply.state.version;
                let mut known = known.lock().unwrap();
                if known.get(session).is_none_or(|state| state.version < version) {
                    known.insert(session.to_owned(), reply.state);
                }
                break match reply.operation_id {
                    Some(operation_id) => Answer::Applied { operation_id, version },
                    None => Answer::Nothing(command),
                };
            }
            Err(CallError::Refused(_)) => break Answer::Refused(command),
            Err(CallError::Unavailable { .. } | CallError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let high = db.current_version::<Session>(session).await.unwrap().unwrap();
    Answered { session: session.to_owned(), low, high, answer }
}

#[tokio::test]
async fn an_unreachable_database_is_said_and_not_waited_for_for_ever() {
    let w = world().await;
    let project = new_project(&w.actors, "demo").await;
    w.db.close().await;
    let error =
        ask::<ambient_domain::project::Project>(&w.actors, &project, ambient_domain::project::Command::Delete).await;
    assert!(matches!(error, Err(CallError::Unavailable { .. })), "{error:?}");
    let scope = VerifyScope::default();
    assert!(w.db.verify(&scope).await.is_err());
}
