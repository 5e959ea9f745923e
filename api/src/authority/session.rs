//! What can be done to sessions.

use ambient_actors::{Reply, Request};
use ambient_compute::{Resource, SessionRef};
use ambient_domain::{
    Defaults, Entity,
    agent::Agent,
    project::{Project, ProjectSpec, Role},
    retention::KEEP_LABEL,
    session::{self, AgentLaunch, Command, Message, Repo, Session, StopReason},
};
use ambient_live::{Beginning, SubscribeError, permissions, snapshot::SnapshotError};
use ambient_persistence::{RunRow, StoreError, StoredEvent, UsageBy, UsageOf, is_ksuid};
use ambient_wire::{
    agui::{Feedback, FeedbackPayload, FeedbackRating},
    permission::InterruptAnswer,
    playbook::PlaybookMetadata,
    session::{Attachment, SessionPatch},
    turn::Turn,
};

use super::{
    access::{Access, Authorized, Found, Target},
    right::{Edit, Right},
    secrets::Sealed,
};
use crate::{
    agent_types,
    error::{ApiError, ApiResult, Number},
    extract::WriteOptions,
    session_spec, turns,
};

/// Approximate size of a live log response, bytes of payload.
const MAX_PAGE_BYTES: i64 = 4 << 20;

impl Target for Session {
    const KIND: &'static str = "Session";
    const PARAM: &'static str = "session_id";

    async fn find(access: &Access, id: &str) -> ApiResult<Option<Found<Self>>> {
        if !is_ksuid(id) {
            return Ok(None);
        }
        let session: Option<Self> = access.state.parts().database.load(id).await?;
        let Some(session) = session.filter(|session| !session.is_deleted()) else { return Ok(None) };
        let role = access.role_on(&session).await?;
        Ok(Some(Found { target: session, role }))
    }
}

impl Access {
    /// Whether such a session exists, whoever may see it. Only tells a caller that was authorised for it before.
    pub(crate) async fn is_there(&self, id: &str) -> bool {
        let session = self.state.parts().database.load::<Session>(id).await;
        session.is_ok_and(|session| session.is_some_and(|session| !session.is_deleted()))
    }

    async fn role_on(&self, session: &Session) -> ApiResult<Option<Role>> {
        let known = self.principal.platform_role().or_else(|| self.principal.role_on_itself(session));
        if known.is_some() || self.principal.session_id().is_some() {
            return Ok(known);
        }
        let project = self.state.parts().database.load::<Project>(&session.project_id).await?;
        Ok(project.and_then(|project| self.principal.role_in(&project)))
    }
}

/// The reply to a message: the session, and where the message is.
pub(crate) struct Accepted {
    /// The session afterwards.
    pub(crate) reply: Reply<Session>,
    /// The message's id.
    pub(crate) message_id: String,
    /// Its place in the live log.
    pub(crate) seq: Option<i64>,
}

impl<R> Authorized<Session, R> {
    /// What its playbook has; none if it goes by none, or by another than what is kept.
    pub(crate) async fn playbook(&self) -> ApiResult<Option<PlaybookMetadata>> {
        let session = &self.target;
        let Some(reconciled) = session.reconciled_workflow.as_ref().filter(|_| session.spec.active_workflow.is_some())
        else {
            return Ok(None);
        };
        let kept = self.access.state.parts().database.playbook(&session.id, &reconciled.commit).await?;
        let corrupt = |error: serde_json::Error| StoreError::Corrupt {
            what: format!("what the playbook of session {} has", session.id),
            reason: error.to_string(),
        };
        Ok(kept.map(serde_json::from_value).transpose().map_err(corrupt)?)
    }
}

impl Authorized<Session, Edit> {
    /// Changes its specification.
    pub(crate) async fn patch(&self, body: SessionPatch, options: WriteOptions<'_>) -> ApiResult<Reply<Session>> {
        if body.permissions.is_some() {
            self.refuse_the_agent("change what the agent may do")?;
        }
        if body.labels.as_ref().is_some_and(|labels| labels.contains_key(KEEP_LABEL.0)) {
            self.refuse_the_agent("change for how long the session is kept")?;
        }
        if body.models.is_some() {
            self.refuse_the_agent("change which models it may ask, and how much")?;
        }
        if body.active_workflow.is_some() {
            self.refuse_the_agent("change which playbook it goes by")?;
        }
        let secrets = body.environment_variables.clone();
        let mut patch = session_spec::patch(body, self.access.state.server_defaults())?;
        let blank = |prompt: &Option<String>| prompt.as_deref().unwrap_or_default().trim().is_empty();
        if !self.target.spec.interactive && patch.prompt.as_ref().is_some_and(blank) {
            // The field is well-formed: it is the session that cannot do without it.
            let reason = "prompt: a batch session (interactive=false) needs one";
            return Err(ApiError::new(Number::Conflict, reason).at("prompt", "is required for a batch session"));
        }
        if let Some(secrets) = secrets {
            let sealed = Sealed::of(<Session as Entity>::KIND, &self.target.id, secrets)?;
            self.access.seal(&sealed).await?;
            patch.environment_variables = Some(sealed.ids);
        }
        self.command(Command::Patch(patch), options).await
    }

    /// Adds a repository.
    pub(crate) async fn add_repo(&self, repo: Repo, options: WriteOptions<'_>) -> ApiResult<Reply<Session>> {
        self.command(Command::AddRepo(repo), options).await.map_err(|error| error.of_item("repos"))
    }

    /// Removes a repository.
    pub(crate) async fn remove_repo(&self, name: String, options: WriteOptions<'_>) -> ApiResult<Reply<Session>> {
        self.command(Command::RemoveRepo { name }, options).await
    }

    /// Starts a run.
    pub(crate) async fn start(&self, prompt: Option<String>, options: WriteOptions<'_>) -> ApiResult<Reply<Session>> {
        self.access.refuse_while_draining().await?;
        let command = Command::Start { prompt: prompt.as_deref().map(Message::of) };
        self.command_with_text(command, prompt, options).await
    }

    /// Stops the run. Only the project's owner may do so by force.
    pub(crate) async fn stop(&self, force: bool, options: WriteOptions<'_>) -> ApiResult<Reply<Session>> {
        if force {
            self.access.authorize::<Session, super::right::Admin>(&self.target.id).await?;
        }
        let command = Command::Stop { reason: StopReason::UserStopped, seen_seq: None, run: None, force };
        self.command(command, options).await
    }

    /// Deletes it. Not with its own token: an agent must not remove what people look at.
    pub(crate) async fn delete(&self, options: WriteOptions<'_>) -> ApiResult<Reply<Session>> {
        if self.access.principal.session_id().is_some() {
            return Err(ApiError::forbidden("a session's token cannot delete the session"));
        }
        self.command(Command::Delete, options).await
    }

    /// Sends a user's message.
    pub(crate) async fn send(
        &self,
        text: String,
        attachments: Vec<Attachment>,
        start: bool,
        options: WriteOptions<'_>,
    ) -> ApiResult<Accepted> {
        if start {
            self.access.refuse_while_draining().await?;
        }
        let message = Message { attachments: session_spec::attachments(attachments), ..Message::of(&text) };
        let command = Command::SendMessage { message, start };
        let reply = self.command_with_text(command, Some(text), options).await?;
        // A message's id is that of the operation that accepted it.
        let message_id = reply.operation_id.clone().unwrap_or_default();
        let stored = self.access.state.parts().database.message(&self.target.id, &message_id).await?;
        Ok(Accepted { reply, message_id, seq: stored.map(|event| event.seq) })
    }

    /// Answers a permission request.
    pub(crate) async fn answer(
        &self,
        interrupt_id: &str,
        given: InterruptAnswer,
        options: WriteOptions<'_>,
    ) -> ApiResult<Reply<Session>> {
        self.refuse_the_agent("answer what the agent asks")?;
        let InterruptAnswer { answer, message: text } = given;
        if let Some(text) = &text {
            ambient_domain::name::text("message", text)?;
            if text.trim().is_empty() {
                return Err(ApiError::invalid("message", "must not be empty"));
            }
        }
        let (interrupt_id, answer) = (interrupt_id.to_owned(), permissions::answer_of(answer));
        let command = Command::AnswerInterrupt { interrupt_id, answer, message: text.as_deref().map(Message::of) };
        let mut request = Request::new(command, self.access.caller());
        request.bodies = text.into_iter().collect();
        self.access.call(&self.target.id, request, options).await
    }

    /// Records what a person thinks.
    pub(crate) async fn give_feedback(&self, given: Feedback, options: WriteOptions<'_>) -> ApiResult<Reply<Session>> {
        self.refuse_the_agent("give feedback")?;
        let FeedbackPayload { message_id, reason, comment } = given.payload;
        let rating = match given.meta_type {
            FeedbackRating::ThumbsUp => session::Rating::ThumbsUp,
            FeedbackRating::ThumbsDown => session::Rating::ThumbsDown,
        };
        self.command(Command::GiveFeedback(session::Feedback { rating, message_id, reason, comment }), options).await
    }

    /// What is asked of people, their agents must not do for them.
    fn refuse_the_agent(&self, what: &str) -> ApiResult<()> {
        match self.access.principal.session_id() {
            Some(_) => Err(ApiError::forbidden(format!("a session's token cannot {what}"))),
            None => Ok(()),
        }
    }

    async fn command(&self, command: Command, options: WriteOptions<'_>) -> ApiResult<Reply<Session>> {
        self.command_with_text(command, None, options).await
    }

    async fn command_with_text(
        &self,
        command: Command,
        text: Option<String>,
        options: WriteOptions<'_>,
    ) -> ApiResult<Reply<Session>> {
        if let Some(text) = &text {
            let field = if matches!(command, Command::Start { .. }) { "prompt" } else { "text" };
            ambient_domain::name::text(field, text)?;
        }
        let mut request = Request::new(command, self.access.caller());
        request.bodies = text.into_iter().collect();
        let starts = matches!(request.command, Command::Start { .. } | Command::SendMessage { start: true, .. });
        request.defaults = self.defaults(starts).await?;
        self.access.call(&self.target.id, request, options).await.map_err(with_api_names)
    }

    /// What the session currently falls back to; stored with the operation.
    async fn defaults(&self, starts: bool) -> ApiResult<Defaults> {
        let project = self.access.state.parts().database.load::<Project>(&self.target.project_id).await?;
        let project = project.map(|project| project.spec).unwrap_or_default();
        let mut defaults = session_spec::defaults(&project.settings, self.access.state.server_defaults());
        if starts {
            // A run that is over by the time this is decided is followed by one that goes by it; while one is under way nothing may be missing.
            defaults.agent = match self.launch(&project).await {
                Err(error) if !self.is_running() => return Err(error),
                launch => launch.ok().map(Box::new),
            };
        }
        Ok(defaults)
    }

    /// A run that has begun keeps what it was started with.
    fn is_running(&self) -> bool {
        use ambient_domain::session::Phase;
        matches!(self.target.phase(), Some(Phase::Pending | Phase::Creating | Phase::Running | Phase::Stopping))
    }

    /// What a run that starts now is started with.
    async fn launch(&self, project: &ProjectSpec) -> ApiResult<AgentLaunch> {
        let definition = match &self.target.spec.agent_id {
            Some(id) => self.access.state.parts().database.load::<Agent>(id).await?.filter(|agent| !agent.is_deleted()),
            None => None,
        };
        agent_types::launch(&self.target.spec, definition.as_ref(), project, self.access.state.known_agent_types())
    }
}

impl<R: Right> Authorized<Session, R> {
    /// Its project, and its agent's definition, if it has one.
    pub(crate) async fn owners(&self) -> ApiResult<(Option<Project>, Option<Agent>)> {
        let database = &self.access.state.parts().database;
        let project = database.load::<Project>(&self.target.project_id).await?;
        let agent = match &self.target.spec.agent_id {
            Some(id) => database.load::<Agent>(id).await?.filter(|agent| agent.project_id == self.target.project_id),
            None => None,
        };
        Ok((project, agent))
    }

    /// Events of its live log after `after_seq`, as many as fit into one response.
    pub(crate) async fn events(&self, after_seq: i64, limit: i64) -> ApiResult<Vec<StoredEvent>> {
        let database = &self.access.state.parts().database;
        let events = database.read_event_page(&self.target.id, after_seq, limit, MAX_PAGE_BYTES).await?.events;
        if after_seq > 0 && events.first().is_none_or(|first| first.seq != after_seq + 1) {
            self.kept_after(after_seq).await?;
        }
        Ok(events)
    }

    /// Follows its live log: after `after_seq`, or from the newest snapshot on.
    pub(crate) async fn follow(&self, after_seq: Option<i64>) -> Result<Beginning, SubscribeError> {
        let hub = &self.access.state.parts().hub;
        let Some(after_seq) = after_seq else { return hub.begin(&self.target.id).await };
        Ok(Beginning { snapshot: None, subscription: hub.subscribe(&self.target.id, after_seq).await? })
    }

    /// Seq of the last event up to `seq` that ends a turn; 0 if there is none.
    pub(crate) async fn last_turn_end(&self, seq: i64) -> ApiResult<i64> {
        Ok(self.access.state.parts().database.last_turn_end(&self.target.id, seq).await?)
    }

    /// Events that turns and their runs begin and end with, after `after_seq`.
    pub(crate) async fn turn_events(&self, after_seq: i64, limit: i64) -> ApiResult<Vec<StoredEvent>> {
        Ok(self.access.state.parts().database.turn_events(&self.target.id, after_seq, limit).await?)
    }

    /// Its turns, the newest first, and how many there are.
    pub(crate) async fn turns(&self, run: Option<i64>, page: i64, size: i64) -> ApiResult<(Vec<Turn>, i64)> {
        let (rows, total) = self.access.state.parts().database.turns(&self.target.id, run, page, size).await?;
        let (Some(newest), Some(oldest)) = (rows.first(), rows.last()) else { return Ok((Vec::new(), total)) };
        let of = UsageOf::Turns(&self.target.id, (oldest.run, oldest.number), (newest.run, newest.number));
        let used = self.access.model_usage(of, UsageBy::Turn).await?;
        let removed = self.removed().await?;
        let shown = rows.into_iter().map(|row| turns::shown(&self.target, row, &used, removed.as_ref()));
        Ok((shown.collect(), total))
    }

    /// A turn, with its patches.
    pub(crate) async fn turn(&self, id: &str) -> ApiResult<Turn> {
        let database = &self.access.state.parts().database;
        let row = match turns::parse(id) {
            Some((run, number)) => database.turn(&self.target.id, run, number).await?,
            None => None,
        };
        let row = row.ok_or_else(|| ApiError::not_found("Turn", id))?;
        let (first, last) = (row.first_seq, row.last_seq.unwrap_or(i64::MAX));
        let snapshots = database.snapshots_between(&self.target.id, first, last).await?;
        let of = UsageOf::Turns(&self.target.id, (row.run, row.number), (row.run, row.number));
        let used = self.access.model_usage(of, UsageBy::Turn).await?;
        // After the patches were read: of one that is gone it is said.
        let removed = self.removed().await?;
        Ok(turns::with_patches(turns::shown(&self.target, row, &used, removed.as_ref()), &snapshots))
    }

    /// What its current or last run has come to.
    pub(crate) async fn results(&self) -> ApiResult<RunRow> {
        let database = &self.access.state.parts().database;
        Ok(database.run_results(&self.target.id, self.target.run_number()).await?.unwrap_or_default())
    }

    /// Where an interrupt was requested, and where it was closed.
    pub(crate) async fn interrupt_seqs(&self, interrupt_id: &str) -> ApiResult<Option<(i64, Option<i64>)>> {
        Ok(self.access.state.parts().database.interrupt_seqs(&self.target.id, interrupt_id).await?)
    }

    /// The messages so far in one piece: a `MESSAGES_SNAPSHOT` as live logs have it.
    pub(crate) async fn messages(&self) -> ApiResult<serde_json::Value> {
        let database = &self.access.state.parts().database;
        let messages = ambient_live::snapshot::current(database, &self.target.id).await;
        messages.map_err(|error| match error {
            SnapshotError::Store(error) => error.into(),
            broken @ (SnapshotError::Corrupt { .. } | SnapshotError::Gap { .. }) => ApiError::internal(&broken),
        })
    }

    /// How many messages its live log has.
    pub(crate) async fn message_count(&self) -> ApiResult<i64> {
        Ok(self.access.state.parts().database.count_messages(&self.target.id).await?)
    }

    /// Seq of the last event.
    pub(crate) async fn last_seq(&self) -> ApiResult<i64> {
        Ok(self.access.state.parts().database.last_seq(&self.target.id).await?)
    }

    /// Its compute resources.
    pub(crate) async fn resources(&self) -> ApiResult<Vec<Resource>> {
        Ok(self.access.state.parts().compute.resources(&self.reference()).await?)
    }

    pub(super) fn reference(&self) -> SessionRef {
        SessionRef { project_id: self.target.project_id.clone(), session_id: self.target.id.clone() }
    }
}

/// The domain's field names, as spelt in the API.
pub(super) fn with_api_names(error: ApiError) -> ApiError {
    error.rename("display_name", "name")
}
