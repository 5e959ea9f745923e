//! Sessions in a real database, decided by the domain itself, and real runner processes.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod runner;
pub mod stand_in;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ambient_domain::{
    Context, Decision, Defaults,
    project::{self, Project, ProjectSpec},
    session::{self, Fact, Message, Session, Spec},
};
use ambient_live::{EndpointError, FactError, FactSink, ReaderOptions, RunnerEndpoints, RunnerReaders, Tokens};
use ambient_persistence::{
    AppendError, AppendItem, AppendPart, Change, Current, Database, DatabaseOptions, Hint, Hints, Metadata,
    StoredEntity, new_id, to_micros,
};
use ambient_tests::TestDatabase;
use ambient_wire::runner_event::RunnerEvent;
use async_trait::async_trait;
use chrono::Utc;
use tokio::sync::watch;

pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn tokens() -> Tokens {
    Tokens::new([7; 32])
}

/// A server's connections.
#[derive(Clone)]
pub struct Server {
    pub db: Database,
    pub hints: Hints,
}

impl Server {
    pub async fn on(database: &TestDatabase) -> Self {
        let db = Database::connect(&database.url(), DatabaseOptions::default()).await.unwrap();
        db.migrate().await.unwrap();
        let hints = Hints::start(&db);
        Self { db, hints }
    }

    pub fn readers(&self, world: &Arc<World>, sink: &Arc<DomainSink>) -> RunnerReaders {
        self.readers_with(world, sink, |_| {})
    }

    pub fn readers_with(
        &self,
        world: &Arc<World>,
        sink: &Arc<DomainSink>,
        change: impl FnOnce(&mut ReaderOptions),
    ) -> RunnerReaders {
        let mut options = ReaderOptions {
            lease_ttl: Duration::from_millis(1500),
            lease_renewal: Duration::from_millis(400),
            lease_poll: Duration::from_millis(200),
            scan_interval: Duration::from_secs(1),
            ..ReaderOptions::default()
        };
        change(&mut options);
        let (db, hints) = (self.db.clone(), self.hints.clone());
        RunnerReaders::start(db, hints, tokens(), world.clone(), sink.clone(), options)
    }

    /// Status and reason of the session's `Ready`.
    pub async fn ready(&self, id: &str) -> (session::ConditionStatus, String) {
        let session = self.session(id).await;
        let ready = session.condition(session::ConditionType::Ready).unwrap();
        (ready.status, ready.reason.clone())
    }

    pub fn sink(&self) -> Arc<DomainSink> {
        Arc::new(DomainSink { server: self.clone(), reported: Mutex::default(), stuck_at: watch::Sender::new(None) })
    }

    /// Decides and appends, again when somebody else was faster. True when there was something to do.
    pub async fn command<E: StoredEntity>(&self, id: &str, command: &E::Command, bodies: &[&str]) -> bool {
        loop {
            let before = self.db.load_current::<E>(id).await.unwrap();
            let bodies: Vec<String> = bodies.iter().map(|body| (*body).to_owned()).collect();
            let Some(part) = decided(before.as_ref(), command, &bodies) else { return false };
            let guards = E::guards(before.as_deref(), command);
            let item = AppendItem { parts: vec![part], guards, ..AppendItem::default() };
            match self.db.append(vec![item]).await.pop().unwrap() {
                Ok(_) => {
                    self.hints.publish(if E::RULES_SESSIONS { Hint::Owners } else { Hint::Live(id.to_owned()) });
                    return true;
                }
                Err(AppendError::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub async fn new_session(&self, change: impl FnOnce(&mut Spec)) -> Session {
        let project_id = new_id();
        let create = project::Command::Create {
            project_id: project_id.clone(),
            name: format!("p{}", &uuid()[..8]),
            spec: Box::new(ProjectSpec::default()),
            owner: "alice".to_owned(),
        };
        self.command::<Project>(&project_id, &create, &[]).await;
        let mut spec: Spec = serde_json::from_value(serde_json::json!({
            "display_name": "test", "agent_type": "script", "interactive": true, "inactivity_timeout": 0,
            "llm_temperature": 0.7, "llm_max_tokens": 4000
        }))
        .unwrap();
        change(&mut spec);
        let session_id = new_id();
        let create =
            session::Command::Create { session_id: session_id.clone(), project_id, spec: Box::new(spec), start: true };
        self.command::<Session>(&session_id, &create, &[]).await;
        self.session(&session_id).await
    }

    pub async fn fact(&self, session_id: &str, fact: Fact) -> bool {
        self.command::<Session>(session_id, &session::Command::Fact { run: 1, attempt: 1, fact }, &[]).await
    }

    pub async fn creating(&self, session: &Session) {
        self.fact(&session.id, Fact::Provisioning).await;
    }

    pub async fn running(&self, session: &Session) {
        self.fact(&session.id, Fact::Provisioning).await;
        self.fact(&session.id, Fact::RunnerReady { missing_confinement: Vec::new() }).await;
        self.fact(&session.id, Fact::MarkRunning).await;
    }

    pub async fn send(&self, session: &Session, text: &str) {
        let command = session::Command::SendMessage { message: Message::of(text), start: false };
        self.command::<Session>(&session.id, &command, &[text]).await;
    }

    pub async fn stop(&self, session: &Session) {
        let reason = session::StopReason::UserStopped;
        let stop = session::Command::Stop { reason, seen_seq: None, run: None, force: false };
        self.command::<Session>(&session.id, &stop, &[]).await;
    }

    pub async fn session(&self, id: &str) -> Session {
        self.db.load::<Session>(id).await.unwrap().unwrap()
    }

    pub async fn phase(&self, id: &str) -> String {
        self.session(id).await.phase().map_or_else(String::new, |phase| phase.to_string())
    }

    /// Events of runners' logs as stored, in order of seq: (log, n, type in today's words).
    pub async fn runner_events(&self, session_id: &str) -> Vec<(String, i64, String)> {
        let events = self.db.read_events(session_id, 0, 1_000_000).await.unwrap();
        assert!(events.iter().zip(1..).all(|(event, seq)| event.seq == seq), "seq has a gap");
        let of_runner = events.into_iter().filter_map(|event| {
            let told = RunnerEvent::read(&event.data).map(|told| serde_json::to_value(told).unwrap());
            let name = told.map_or(event.event_type, |told| told["type"].as_str().unwrap().to_owned());
            Some((event.log_id?, event.runner_seq?, name))
        });
        of_runner.collect()
    }
}

pub fn uuid() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned()
}

fn decided<E: StoredEntity>(
    before: Option<&Current<E>>,
    command: &E::Command,
    bodies: &[String],
) -> Option<AppendPart> {
    let context = Context {
        now: to_micros(Utc::now()),
        operation_id: new_id(),
        principal: "alice".to_owned(),
        defaults: Defaults::default(),
    };
    let state = before.map(|before| &before.state);
    let Decision::Events(events) = E::decide(state, command, &context).unwrap() else { return None };
    let mut after = events.iter().fold(state.cloned(), |s, e| Some(E::apply(s, e, context.now))).unwrap();
    after.set_version(state.map_or(0, E::version) + 1, context.now);
    let metadata = Metadata { correlation_id: "test".to_owned(), ..Metadata::default() };
    let (events, context, metadata) = (&events[..], &context, &metadata);
    let change = Change { before, after: &after, command, events, context, metadata, bodies };
    Some(AppendPart::new(&change).unwrap())
}

/// Where runners listen, as the test knows it.
#[derive(Default)]
pub struct World {
    sockets: Mutex<HashMap<String, PathBuf>>,
    asked: AtomicUsize,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
    /// How often a reader has begun a try; all but the last have ended.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
    pub fn set(&self, session_id: &str, socket: Option<PathBuf>) {
        let mut sockets = self.sockets.lock().unwrap();
        match socket {
            Some(socket) => sockets.insert(session_id.to_owned(), socket),
            None => sockets.remove(session_id),
        };
    }
}

#[async_trait]
impl RunnerEndpoints for World {
    async fn endpoint(&self, _: &str, session_id: &str, _: i64) -> Result<Option<PathBuf>, EndpointError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.sockets.lock().unwrap().get(session_id).cloned())
    }
}

/// The actors' part: decides facts by the domain.
pub struct DomainSink {
    server: Server,
    reported: Mutex<Vec<(i32, Fact)>>,
    /// A fact of this name is never taken, as if the process died before.
    pub stuck_at: watch::Sender<Option<&'static str>>,
}

impl DomainSink {
    pub fn reported(&self) -> Vec<(i32, Fact)> {
        self.reported.lock().unwrap().clone()
    }
    pub fn names(&self) -> Vec<&'static str> {
        self.reported().iter().map(|(_, fact)| fact.name()).collect()
    }
}

#[async_trait]
impl FactSink for DomainSink {
    async fn report(&self, session_id: &str, run: i64, attempt: i32, fact: Fact) -> Result<(), FactError> {
        if *self.stuck_at.borrow() == Some(fact.name()) {
            return Err(FactError::new("stuck"));
        }
        self.reported.lock().unwrap().push((attempt, fact.clone()));
        self.server.command::<Session>(session_id, &session::Command::Fact { run, attempt, fact }, &[]).await;
        Ok(())
    }
}

/// Polls until it is so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
