//! What activities work with, and how their failures are reported.

use std::{io::ErrorKind, sync::Arc};

use ambient_actors::{Actors, CallError, Caller, Clock, CommandOutcome, Reply, Request};
use ambient_compute::{Compute, ComputeError, SessionRef};
use ambient_domain::{
    Defaults, WorkflowInput,
    session::{Command, Fact, Session},
};
use ambient_live::{
    reader::RunnerReaders,
    runner_client::{RunnerClient, RunnerClientError},
    token::Tokens,
};
use ambient_persistence::{Database, StoreError, StoredEntity, Vault, VaultError};
use ambient_snapshots::SnapshotStore;
use async_trait::async_trait;

use crate::{executions::Executions, models::Models, retention::Retention, step::Progress};

/// Condition reason.
const DISK_FULL: &str = "DiskFull";

/// A hook with which tests make steps fail, before or after their work.
#[async_trait]
pub trait StepHook: Send + Sync {
    /// Before the work of `step`; an error is a failure of the step.
    ///
    /// # Errors
    /// As the test wants.
    async fn before(&self, step: &str, input: &WorkflowInput) -> Result<(), StepError> {
        let _ = (step, input);
        Ok(())
    }
    /// After the work of `step`; an error makes the engine run it again.
    ///
    /// # Errors
    /// As the test wants.
    async fn after(&self, step: &str, input: &WorkflowInput) -> Result<(), StepError> {
        let _ = (step, input);
        Ok(())
    }
}

/// The production hook: does nothing.
#[derive(Debug, Default)]
pub struct NoHook;
impl StepHook for NoHook {}

/// Everything activities need.
#[derive(Clone)]
pub struct Services {
    /// Rows, log, outbox.
    pub db: Database,
    /// The only way to change an entity.
    pub actors: Actors,
    /// Where sessions run.
    pub compute: Arc<dyn Compute>,
    /// Readers of runners' logs.
    pub readers: RunnerReaders,
    /// Session tokens.
    pub tokens: Tokens,
    /// Values of sessions' variables.
    pub vault: Vault,
    /// Where sessions' models are asked.
    pub models: Models,
    /// Where snapshots are kept, if they are.
    pub snapshots: Option<SnapshotStore>,
    /// How long things are kept.
    pub retention: Retention,
    /// Executions, for the sweep.
    pub executions: Executions,
    /// Time.
    pub clock: Clock,
    /// Failures for tests.
    pub hook: Arc<dyn StepHook>,
}

/// Why a step failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StepError {
    /// A retry may succeed.
    #[error("{message}")]
    Retry {
        /// Condition reason.
        reason: &'static str,
        /// In words.
        message: String,
    },
    /// A retry fails in the same way.
    #[error("{message}")]
    Fatal {
        /// Condition reason.
        reason: &'static str,
        /// In words.
        message: String,
    },
    /// Someone else has taken over.
    #[error("superseded")]
    Superseded,
}

/// The outcome of a step.
pub(crate) type StepResult = Result<Progress, StepError>;

impl StepError {
    /// A failure that is retried.
    pub fn retry(reason: &'static str, message: &impl ToString) -> Self {
        Self::Retry { reason, message: message.to_string() }
    }
}

impl From<ComputeError> for StepError {
    fn from(error: ComputeError) -> Self {
        match error {
            ComputeError::Fenced { .. } => Self::Superseded,
            ComputeError::Invalid(_) | ComputeError::UnknownAgent { .. } => {
                Self::Fatal { reason: "PrerequisiteFailed", message: error.to_string() }
            }
            ComputeError::Remains { .. } => Self::retry("RemainsFound", &error),
            ComputeError::DiskFull(_) => Self::retry(DISK_FULL, &error),
            ComputeError::Io { ref source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                Self::retry(DISK_FULL, &error)
            }
            ComputeError::NoRunner { .. } | ComputeError::Io { .. } => Self::retry("ComputeError", &error),
        }
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::retry("DatabaseError", &error)
    }
}

impl From<VaultError> for StepError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store(error) => error.into(),
            broken => Self::Fatal { reason: "SecretMissing", message: broken.to_string() },
        }
    }
}

impl From<RunnerClientError> for StepError {
    fn from(error: RunnerClientError) -> Self {
        Self::retry("RunnerUnreachable", &error)
    }
}

impl From<CallError> for StepError {
    fn from(error: CallError) -> Self {
        Self::retry("ActorBusy", &error)
    }
}

/// The session in a workflow's input.
#[must_use]
pub fn session_ref(input: &WorkflowInput) -> SessionRef {
    SessionRef { project_id: input.project_id.clone(), session_id: input.session_id.clone() }
}

fn as_command(input: &WorkflowInput, fact: Fact) -> Command {
    Command::Fact { run: input.run, attempt: input.attempt, fact: fact.storable() }
}

impl Services {
    /// The session's row.
    ///
    /// # Errors
    /// When the database fails; `Superseded` if there is no such session.
    pub async fn session(&self, session_id: &str) -> Result<Session, StepError> {
        self.db.load::<Session>(session_id).await?.ok_or(StepError::Superseded)
    }

    /// The session, while it is in the run (and attempt, unless 0) of `input` and the run is not ending.
    ///
    /// # Errors
    /// `Superseded` if it is not.
    pub async fn active_session(&self, input: &WorkflowInput) -> Result<Session, StepError> {
        use ambient_domain::session::Lifecycle;
        let session = self.session(&input.session_id).await?;
        let active = match &session.lifecycle {
            Lifecycle::Pending { run } | Lifecycle::Creating { run } | Lifecycle::Running { run } => {
                run.number == input.run && (input.attempt == 0 || run.attempt == input.attempt)
            }
            _ => false,
        };
        if active && session.deleted_at.is_none() { Ok(session) } else { Err(StepError::Superseded) }
    }

    /// Reports a fact about the run and attempt of `input`.
    ///
    /// # Errors
    /// When the actor cannot take it right now.
    pub async fn report(&self, by: &str, input: &WorkflowInput, fact: Fact) -> Result<Progress, StepError> {
        self.command::<Session>(by, &input.session_id, as_command(input, fact)).await
    }

    /// Reports a fact about the run and attempt of `input`, and returns the session with the reply.
    ///
    /// # Errors
    /// When the actor cannot take it right now; `Superseded` if the session is no longer in that run and attempt.
    pub async fn report_and_read(&self, by: &str, input: &WorkflowInput, fact: Fact) -> Result<Session, StepError> {
        let reply = self.ask::<Session>(by, &input.session_id, as_command(input, fact)).await?;
        if reply.outcome == CommandOutcome::Superseded { Err(StepError::Superseded) } else { Ok(reply.state) }
    }

    /// Gives a command to an entity's actor, as the system.
    ///
    /// # Errors
    /// When the actor refuses, or cannot take it right now.
    pub async fn command<E: StoredEntity>(
        &self,
        by: &str,
        id: &str,
        command: E::Command,
    ) -> Result<Progress, StepError> {
        let reply = self.ask::<E>(by, id, command).await?;
        Ok(if reply.outcome == CommandOutcome::Superseded { Progress::Superseded } else { Progress::Done })
    }

    async fn ask<E: StoredEntity>(&self, by: &str, id: &str, command: E::Command) -> Result<Reply<E>, StepError> {
        let caller = Caller {
            principal: "system:workflows".to_owned(),
            correlation_id: by.to_owned(),
            causation_id: Some(by.to_owned()),
            trace_parent: None,
        };
        let request = Request {
            command,
            caller,
            if_match: None,
            idempotency: None,
            bodies: Vec::new(),
            defaults: Defaults::default(),
        };
        Ok(self.actors.call::<E>(id, request).await?)
    }

    /// A client of the run's runner.
    ///
    /// # Errors
    /// When it has no endpoint.
    pub async fn runner(&self, input: &WorkflowInput) -> Result<RunnerClient, StepError> {
        let endpoint = self.compute.endpoint(&session_ref(input), input.run).await?;
        let token = self.tokens.server_to_runner(&input.session_id, input.run);
        Ok(RunnerClient::new(endpoint.socket, token)?)
    }
}
