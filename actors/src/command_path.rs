//! From a command to its reply: decide, append, and again if the row has moved on.
//!
//! Whether a request was answered before is looked up only where it matters: when there is nothing to append, or the append finds
//! that its idempotency key was used.

use std::{future::Future, sync::Arc, time::Duration};

use ambient_domain::{Context, Decision, Guard, NothingToDo, Refusal, RefusalCode};
use ambient_persistence::{
    AppendError, AppendItem, AppendPart, Appended, Change, Current, Database, Exclusive, Hint, Hints,
    IdempotencyRecord, Metadata, RecordedOutcome, StoreError, StoredEntity, to_micros,
};

use crate::{
    options::Clock,
    request::{CallError, CommandOutcome, Reply, Request},
};

/// Most decisions per command.
const MAX_ROUNDS: u32 = 5;
/// Decisions on what is in memory or was just read; later ones are made under the row's lock, so that a server that was
/// overtaken twice is not overtaken forever.
const OPTIMISTIC_ROUNDS: u32 = 2;
/// Wait after a round without an outcome; grows with each.
const PAUSE: Duration = Duration::from_millis(10);

/// Timeout for a read; beyond the database's own timeouts, for a network that has silently failed.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// What carrying out a command needs, whatever entity it is for.
#[derive(Clone)]
pub(crate) struct CommandServices {
    pub(crate) db: Database,
    pub(crate) hints: Hints,
    pub(crate) clock: Clock,
}

/// An entity in memory: a cache of its row.
pub(crate) struct CachedEntity<E> {
    id: String,
    /// Apart from the actor's task, which keeps room for more than one of what it holds itself.
    state: Option<Box<Current<E>>>,
    loaded: bool,
}

impl<E: StoredEntity> CachedEntity<E> {
    pub(crate) fn new(id: String) -> Self {
        Self { id, state: None, loaded: false }
    }

    fn version(&self) -> i64 {
        self.state.as_ref().map_or(0, |current| current.version())
    }

    fn remember(&mut self, state: Option<Current<E>>) {
        self.state = state.map(Box::new);
        self.loaded = true;
    }

    fn forget(&mut self) {
        self.state = None;
        self.loaded = false;
    }
}

/// A call being carried out.
pub(crate) struct Call<'a, E: StoredEntity> {
    pub(crate) services: &'a CommandServices,
    pub(crate) request: &'a Request<E>,
    pub(crate) operation_id: &'a str,
}

/// The outcome of a decision.
enum Plan<E> {
    /// To be appended; the entity that results.
    Append(Arc<AppendItem>, Current<E>),
    /// Nothing to write.
    NothingToDo(NothingToDo),
    /// Not possible.
    Refuse(CallError),
}

type Answer<E> = Result<Reply<E>, CallError>;

pub(crate) async fn carry_out<E: StoredEntity>(call: &Call<'_, E>, cached: &mut CachedEntity<E>) -> Answer<E> {
    let mut reason = String::from("the entity is changed too often at present");
    for round in 1..=MAX_ROUNDS {
        let fresh = !cached.loaded;
        let mut lock = None;
        if round > OPTIMISTIC_ROUNDS {
            let exclusive = read(call.services.db.lock::<E>(&cached.id)).await?;
            cached.remember(exclusive.current().cloned());
            lock = Some(exclusive);
        } else if fresh {
            cached.remember(read(call.services.db.load_current(&cached.id)).await?);
        }
        let plan = call.decide(cached.state.as_deref());
        let Plan::Append(item, after) = plan else {
            // Another server may know something newer than this one's memory.
            if !fresh && lock.is_none() && call.is_behind(cached).await? {
                cached.forget();
                continue;
            }
            drop(lock);
            return call.answer_without_operation(plan, cached).await;
        };
        match call.append(&item, lock, cached).await {
            Ok(appended) => return Ok(call.applied(after, &appended, cached)),
            Err(Failed::Final(error)) => return call.earlier_answer().await?.unwrap_or(Err(error)),
            Err(Failed::Again(why)) => reason = why,
        }
        if round < MAX_ROUNDS {
            tokio::time::sleep(PAUSE * (round - 1)).await;
        }
    }
    Err(CallError::Unavailable { reason })
}

async fn read<T>(reading: impl Future<Output = Result<T, StoreError>>) -> Result<T, CallError> {
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(result) => result.map_err(|error| store_error(&error)),
        Err(_) => Err(CallError::Unavailable { reason: "the database does not answer".to_owned() }),
    }
}

/// What a failed append means for the call.
enum Failed {
    /// Reply with this, unless the request was answered before.
    Final(CallError),
    /// Decide again.
    Again(String),
}

impl<E: StoredEntity> Call<'_, E> {
    /// What was answered to the same request before; an error if the key was used for a different one.
    async fn earlier_answer(&self) -> Result<Option<Answer<E>>, CallError> {
        let Some((key, request_hash)) = self.key() else { return Ok(None) };
        let stored = read(self.services.db.stored_outcome::<E>(&key)).await?;
        Ok(stored.map(|stored| match stored.state {
            Some(state) if stored.request_hash == request_hash => Ok(Reply {
                state,
                outcome: if stored.outcome == RecordedOutcome::Applied {
                    CommandOutcome::Applied
                } else {
                    CommandOutcome::Already
                },
                operation_id: stored.operation_id,
                replayed: true,
            }),
            _ => Err(CallError::KeyReused),
        }))
    }

    fn key(&self) -> Option<(ambient_persistence::IdempotencyKey, Vec<u8>)> {
        let key = self.request.idempotency.as_ref()?;
        let stored = ambient_persistence::IdempotencyKey {
            principal: self.request.caller.principal.clone(),
            method: key.method.clone(),
            path: key.path.clone(),
            key: key.key.clone(),
        };
        Some((stored, key.request_hash.clone()))
    }

    fn decide(&self, current: Option<&Current<E>>) -> Plan<E> {
        let state = current.map(|current| &current.state);
        let context = Context {
            now: to_micros(self.services.clock.now()),
            operation_id: self.operation_id.to_owned(),
            principal: self.request.caller.principal.clone(),
            defaults: self.request.defaults.clone(),
        };
        if let Some(stale) = self.stale(state) {
            return Plan::Refuse(stale);
        }
        match E::decide(state, &self.request.command, &context) {
            Err(refusal) => Plan::Refuse(CallError::Refused(refusal)),
            Ok(Decision::NothingToDo(nothing)) => Plan::NothingToDo(nothing),
            Ok(Decision::Events(events)) => self.prepare(current, &events, &context).unwrap_or_else(Plan::Refuse),
        }
    }

    /// `if_match` against an entity that exists.
    fn stale(&self, state: Option<&E>) -> Option<CallError> {
        let (expected, state) = (self.request.if_match?, state.filter(|state| !state.is_deleted())?);
        (state.version() != expected).then(|| CallError::Stale { current: state.version() })
    }

    fn prepare(
        &self,
        before: Option<&Current<E>>,
        events: &[E::Event],
        context: &Context,
    ) -> Result<Plan<E>, CallError> {
        let state = before.map(|before| &before.state);
        let mut after = events.iter().fold(state.cloned(), |state, event| Some(E::apply(state, event, context.now)));
        if let Some(after) = &mut after {
            after.set_version(state.map_or(0, E::version) + 1, context.now);
        }
        let Some(after) = after else {
            return Ok(Plan::NothingToDo(NothingToDo::Already));
        };
        let metadata = self.metadata();
        let (command, metadata, bodies) = (&self.request.command, &metadata, &self.request.bodies[..]);
        let change = Change { before, after: &after, command, events, context, metadata, bodies };
        let part = AppendPart::new(&change).map_err(|error| store_error(&error))?;
        let last_hash = part.hash();
        let idempotency = self.record(Some(self.operation_id.to_owned()), RecordedOutcome::Applied, &after)?;
        let item = AppendItem { parts: vec![part], idempotency, guards: E::guards(state, command) };
        Ok(Plan::Append(Arc::new(item), Current { state: after, last_hash }))
    }

    fn metadata(&self) -> Metadata {
        let caller = &self.request.caller;
        let correlation_id =
            if caller.correlation_id.is_empty() { self.operation_id.to_owned() } else { caller.correlation_id.clone() };
        Metadata {
            correlation_id,
            causation_id: caller.causation_id.clone(),
            trace_parent: caller.trace_parent.clone(),
        }
    }

    fn record(
        &self,
        operation_id: Option<String>,
        outcome: RecordedOutcome,
        state: &E,
    ) -> Result<Option<IdempotencyRecord>, CallError> {
        let Some((key, hash)) = self.key() else { return Ok(None) };
        let record = IdempotencyRecord::new(key, hash, operation_id, outcome, state);
        record.map(Some).map_err(|error| store_error(&error))
    }

    async fn is_behind(&self, cached: &CachedEntity<E>) -> Result<bool, CallError> {
        let current = read(self.services.db.current_version::<E>(&cached.id)).await?;
        Ok(current.unwrap_or(0) != cached.version())
    }

    /// A refusal, a stale version, or nothing to do, on a state that is known to be current.
    async fn answer_without_operation(&self, plan: Plan<E>, cached: &CachedEntity<E>) -> Answer<E> {
        // The same request may have been answered by another server meanwhile; then this one is a repeat.
        if let Some(answer) = self.earlier_answer().await? {
            return answer;
        }
        let nothing = match plan {
            Plan::Refuse(error) => return Err(error),
            Plan::NothingToDo(nothing) => nothing,
            Plan::Append(..) => return Err(CallError::Unavailable { reason: "internal: not decided".to_owned() }),
        };
        let Some(state) = cached.state.as_ref().map(|current| current.state.clone()) else {
            return Err(CallError::Refused(Refusal::new(RefusalCode::NotFound, format!("{} not found", E::KIND))));
        };
        if nothing == NothingToDo::Superseded {
            return Ok(Reply { state, outcome: CommandOutcome::Superseded, operation_id: None, replayed: false });
        }
        if let Some(record) = self.record(None, RecordedOutcome::Already, &state)? {
            let written = read(self.services.db.remember_outcome(&record)).await?;
            if !written && let Some(answer) = self.earlier_answer().await? {
                return answer;
            }
        }
        Ok(Reply { state, outcome: CommandOutcome::Already, operation_id: None, replayed: false })
    }

    async fn append(
        &self,
        item: &Arc<AppendItem>,
        lock: Option<Exclusive<E>>,
        cached: &mut CachedEntity<E>,
    ) -> Result<Appended, Failed> {
        // Also without an event in its live log: whoever tells its runner what has changed looks at the row.
        let (live, effects) = (E::HAS_LIVE_LOG, item.parts[0].has_effects());
        let mut result = match lock {
            Some(lock) => lock.append(item).await,
            None => self.services.db.append_one(item).await,
        };
        // While the outcome is in doubt the very same item is retried; deciding again could do the same thing twice.
        for round in 1..MAX_ROUNDS {
            if !matches!(result, Err(AppendError::OutcomeUnknown(_))) {
                break;
            }
            tokio::time::sleep(PAUSE * 10 * round).await;
            result = self.services.db.append_one(item).await;
        }
        match result {
            Ok(appended) => {
                self.publish(&cached.id, live, effects);
                Ok(appended)
            }
            Err(error) => {
                cached.forget();
                Err(self.failed(error))
            }
        }
    }

    fn failed(&self, error: AppendError) -> Failed {
        match error {
            AppendError::Conflict { .. } => {
                metrics::counter!("ambient_append_conflicts_total", "kind" => E::KIND).increment(1);
                Failed::Again("the entity is changed too often at present".to_owned())
            }
            AppendError::Unavailable(reason) => Failed::Again(reason),
            AppendError::KeyUsed => Failed::Final(CallError::KeyReused),
            AppendError::NameTaken { scope, name } => Failed::Final(CallError::NameTaken { scope, name }),
            AppendError::Guard(guard) => Failed::Final(CallError::Refused(refusal_of(&guard))),
            AppendError::OutcomeUnknown(_) => {
                Failed::Final(CallError::Timeout { operation_id: self.operation_id.to_owned() })
            }
            AppendError::Database(error) => {
                tracing::error!(%error, kind = E::KIND, "an append was refused by the database");
                Failed::Final(store_error(&error))
            }
        }
    }

    /// Only after the commit.
    fn publish(&self, id: &str, live: bool, effects: bool) {
        if live {
            self.services.hints.publish(Hint::Live(id.to_owned()));
        }
        if effects {
            self.services.hints.publish(Hint::Outbox);
        }
        if E::RULES_SESSIONS {
            self.services.hints.publish(Hint::Owners);
        }
    }

    fn applied(&self, after: Current<E>, appended: &Appended, cached: &mut CachedEntity<E>) -> Reply<E> {
        let state = after.state.clone();
        if appended.repeated {
            // It was written some time ago; others may have followed.
            cached.forget();
        } else {
            cached.remember(Some(after));
        }
        let operation_id = Some(self.operation_id.to_owned());
        Reply { state, outcome: CommandOutcome::Applied, operation_id, replayed: false }
    }
}

fn refusal_of(guard: &Guard) -> Refusal {
    match guard {
        Guard::ProjectActive { project_id } => Refusal {
            code: RefusalCode::Conflict,
            field: Some("project_id".to_owned()),
            reason: format!("the Project {project_id} does not exist or is Terminating: it takes nothing new"),
        },
        Guard::LogNotNewer { .. } => Refusal::new(RefusalCode::Phase, "there was activity since"),
    }
}

fn store_error(error: &StoreError) -> CallError {
    match error {
        StoreError::Nul { field } => {
            let field = field.strip_prefix("input.").unwrap_or(field);
            CallError::Refused(Refusal::invalid(field, "must not contain NUL"))
        }
        StoreError::Unfaithful { field } => CallError::Refused(Refusal::invalid(*field, "cannot be stored exactly")),
        error => CallError::Unavailable { reason: error.to_string() },
    }
}
