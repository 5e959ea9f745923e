//! Projects, sessions and commands that are measured.

use std::time::Duration;

use ambient_actors::{ActorOptions, Actors, Caller, Request};
use ambient_domain::{
    Context, Decision, Defaults, Entity,
    project::{self, Project},
    session::{self, Message, Session, Spec},
};
use ambient_persistence::{
    AppendItem, AppendPart, Change, Current, Database, DatabaseOptions, Hints, Metadata, new_id, to_micros,
};
use ambient_tests::TestDatabase;
use chrono::Utc;
use futures::{StreamExt, TryStreamExt, stream};

use crate::Failure;

/// The text of a message.
pub(crate) const TEXT: &str = "Please look at the failing test in the parser, find out why it fails, and mend it.";

/// Actors on a database of their own, as a server has them.
pub(crate) struct World {
    pub(crate) db: Database,
    pub(crate) actors: Actors,
    pub(crate) hints: Hints,
    pub(crate) database: TestDatabase,
}

impl World {
    pub(crate) async fn start() -> Result<Self, Failure> {
        let database = TestDatabase::new().await;
        let db = Database::connect(&database.url(), DatabaseOptions::default()).await?;
        db.migrate().await?;
        let hints = Hints::start(&db);
        let actors = Actors::start(db.clone(), hints.clone(), ActorOptions::default());
        Ok(Self { db, actors, hints, database })
    }

    /// Sessions that take messages. No server carries out their effects here.
    pub(crate) async fn sessions(&self, count: usize) -> Result<Vec<Session>, Failure> {
        let project_id = new_id();
        let create = project::Command::Create {
            project_id: project_id.clone(),
            name: format!("bench-{}", project_id.to_ascii_lowercase()),
            spec: Box::default(),
            owner: "bench".to_owned(),
        };
        self.actors.call::<Project>(&project_id, Request::new(create, caller())).await?;
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "display_name": "bench", "agent_type": "script", "interactive": true, "inactivity_timeout": 0,
            "llm_temperature": 0.7, "llm_max_tokens": 4000, "prompt": "say hello"
        }))?;
        let create = |_| async {
            let session_id = new_id();
            let (project_id, spec) = (project_id.clone(), Box::new(spec.clone()));
            let create = session::Command::Create { session_id: session_id.clone(), project_id, spec, start: true };
            self.actors.call::<Session>(&session_id, Request::new(create, caller())).await.map(|reply| reply.state)
        };
        Ok(stream::iter(0..count).map(create).buffer_unordered(16).try_collect().await?)
    }

    /// These sessions, to be changed.
    pub(crate) async fn current(&self, sessions: &[Session]) -> Result<Vec<Current<Session>>, Failure> {
        let mut current = Vec::with_capacity(sessions.len());
        for session in sessions {
            current.push(self.db.load_current::<Session>(&session.id).await?.ok_or("no session")?);
        }
        Ok(current)
    }

    pub(crate) async fn end(self) {
        self.actors.shutdown(Duration::from_secs(5)).await;
        self.hints.stop();
        self.db.close().await;
        drop(self.database);
    }
}

fn caller() -> Caller {
    Caller { principal: "bench".to_owned(), ..Caller::default() }
}

fn message() -> session::Command {
    session::Command::SendMessage { message: Message::of(TEXT), start: false }
}

/// A message, as the edge asks for it: operation, row, live event.
pub(crate) fn message_request() -> Request<Session> {
    Request { bodies: vec![TEXT.to_owned()], ..Request::new(message(), caller()) }
}

/// What is reported of a session's first run.
pub(crate) fn fact_request(fact: session::Fact) -> Request<Session> {
    Request::new(session::Command::Fact { run: 1, attempt: 1, fact }, caller())
}

/// A message as an item of a batch, and the session after it.
pub(crate) fn message_item(before: &Current<Session>) -> Result<(AppendItem, Current<Session>), Failure> {
    let context = Context {
        now: to_micros(Utc::now()),
        operation_id: new_id(),
        principal: "bench".to_owned(),
        defaults: Defaults::default(),
    };
    let command = message();
    let Ok(Decision::Events(events)) = Session::decide(Some(before), &command, &context) else {
        return Err("a message was refused".into());
    };
    let apply = |state: Option<Session>, event| Some(Session::apply(state, event, context.now));
    let mut after = events.iter().fold(Some(before.state.clone()), apply).ok_or("no state")?;
    after.set_version(before.version() + 1, context.now);
    let metadata = Metadata { correlation_id: context.operation_id.clone(), ..Metadata::default() };
    let part = AppendPart::new(&Change {
        before: Some(before),
        after: &after,
        command: &command,
        events: &events,
        context: &context,
        metadata: &metadata,
        bodies: &[TEXT.to_owned()],
    })?;
    let last_hash = part.hash();
    Ok((AppendItem { parts: vec![part], ..AppendItem::default() }, Current { state: after, last_hash }))
}
