//! What the readers of runners' logs need from compute and actors.

use std::{path::PathBuf, sync::Arc};

use ambient_actors::{Actors, Caller, Request};
use ambient_compute::{Compute, ComputeError, RunnerState, SessionRef};
use ambient_domain::session::{Command, Fact, Session, TurnOutcome};
use ambient_live::{EndpointError, FactError, FactSink, RunnerEndpoints};
use ambient_persistence::Database;
use async_trait::async_trait;

use crate::observer;

/// Both ends of a reader: the runner's socket on this host, and the session's actor that takes the facts.
pub struct RunnerEnds {
    compute: Arc<dyn Compute>,
    actors: Actors,
    db: Database,
}

impl RunnerEnds {
    /// Reads this host's runners.
    #[must_use]
    pub fn new(compute: Arc<dyn Compute>, actors: Actors, db: Database) -> Self {
        Self { compute, actors, db }
    }
}

impl RunnerEnds {
    /// A runner exits with its agent's code, and the agent may have been killed for what it used up, or one of its processes, of which
    /// its shell says nothing (in a pipe, say): only compute knows.
    async fn with_cause(&self, session_id: &str, run: i64, attempt: i32, fact: Fact) -> Result<Fact, FactError> {
        let may_hide_it = match &fact {
            Fact::Exited { code, .. } => *code != 0,
            Fact::TurnEnded { outcome, .. } => *outcome != TurnOutcome::Interrupted,
            _ => false,
        };
        if !may_hide_it {
            return Ok(fact);
        }
        let not_known = |error: &dyn std::fmt::Display| FactError::new(error.to_string());
        let session = self.db.load::<Session>(session_id).await.map_err(|error| not_known(&error))?;
        let Some(Session { project_id, .. }) = session else { return Ok(fact) };
        let session = SessionRef { project_id, session_id: session_id.to_owned() };
        let state = self.compute.state(&session, run, attempt).await.map_err(|error| not_known(&error))?;
        let exhausted = matches!(state, RunnerState::Exhausted { .. }).then(|| observer::fact_of(&state)).flatten();
        Ok(exhausted.unwrap_or(fact))
    }
}

#[async_trait]
impl RunnerEndpoints for RunnerEnds {
    async fn endpoint(&self, project_id: &str, session_id: &str, run: i64) -> Result<Option<PathBuf>, EndpointError> {
        let host = self.db.host_of_session(session_id).await.map_err(EndpointError::new)?;
        if host.as_deref() != Some(self.compute.host()) {
            return Ok(None);
        }
        let session = SessionRef { project_id: project_id.to_owned(), session_id: session_id.to_owned() };
        match self.compute.endpoint(&session, run).await {
            Ok(endpoint) => Ok(Some(endpoint.socket)),
            Err(ComputeError::NoRunner { .. }) => Ok(None),
            Err(error) => Err(EndpointError::new(error)),
        }
    }
}

#[async_trait]
impl FactSink for RunnerEnds {
    async fn report(&self, session_id: &str, run: i64, attempt: i32, fact: Fact) -> Result<(), FactError> {
        let caller = Caller {
            principal: "system:reader".to_owned(),
            correlation_id: format!("{session_id}/{run}"),
            ..Caller::default()
        };
        let fact = self.with_cause(session_id, run, attempt, fact).await?;
        let request = Request::new(Command::Fact { run, attempt, fact: fact.storable() }, caller);
        match self.actors.call::<Session>(session_id, request).await {
            Ok(_) => Ok(()),
            Err(error) => Err(FactError::new(error.to_string())),
        }
    }
}
