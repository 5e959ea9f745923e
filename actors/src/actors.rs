//! Access to the actors: permits, routing, passivation, shutdown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ambient_persistence::{Database, Hints, StoredEntity, new_id};
use ractor::{ActorCell, ActorRef, ActorRuntime};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tracing::Instrument;

use crate::{
    command_path::CommandServices,
    entity_actor::{EntityActor, Envelope},
    options::ActorOptions,
    registry::Registry,
    request::{CallError, Reply, Request},
    supervisor::Supervisor,
};

/// All actors of a process. Clones share them.
#[derive(Clone)]
pub struct Actors {
    inner: Arc<Inner>,
}

struct Inner {
    services: CommandServices,
    options: ActorOptions,
    registry: Arc<Registry>,
    supervisor: ActorCell,
    permits: Arc<Semaphore>,
    closed: AtomicBool,
    passivation: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.passivation.abort();
        self.supervisor.stop(None);
    }
}

impl Actors {
    /// Starts; actors are created by their first call. Must be called in a tokio runtime.
    ///
    /// # Panics
    /// Never: the supervisor has no name that could be taken.
    #[must_use]
    #[allow(clippy::expect_used, reason = "spawning fails only when a name is taken, and there is none")]
    pub fn start(db: Database, hints: Hints, options: ActorOptions) -> Self {
        let registry = Arc::new(Registry::default());
        let (supervisor, _) = ActorRuntime::spawn_instant(None, Supervisor, registry.clone()).expect("it has no name");
        let passivation = tokio::spawn(passivate(registry.clone(), options.idle_after, options.max_resident));
        let inner = Inner {
            services: CommandServices { db, hints, clock: options.clock.clone() },
            permits: Arc::new(Semaphore::new(options.permits as usize)),
            options,
            registry,
            supervisor: supervisor.get_cell(),
            closed: AtomicBool::new(false),
            passivation,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Has the entity's actor decide and carry out a command.
    ///
    /// # Errors
    /// [`CallError`] says why not, and whether it may have been carried out nevertheless ([`CallError::Timeout`]).
    pub async fn call<E: StoredEntity>(&self, id: &str, request: Request<E>) -> Result<Reply<E>, CallError> {
        let command = E::command_name(&request.command);
        let span =
            tracing::info_span!("actor", kind = E::KIND, id, command, correlation_id = request.caller.correlation_id);
        let started = Instant::now();
        let result = Box::pin(self.route(id, Arc::new(request))).instrument(span).await;
        let outcome = result.as_ref().map_or_else(CallError::label, |_| "ok");
        metrics::histogram!("ambient_command_seconds", "kind" => E::KIND).record(started.elapsed().as_secs_f64());
        metrics::counter!("ambient_commands_total", "kind" => E::KIND, "outcome" => outcome).increment(1);
        result
    }

    async fn route<E: StoredEntity>(&self, id: &str, request: Arc<Request<E>>) -> Result<Reply<E>, CallError> {
        let deadline = Instant::now() + self.inner.options.call_timeout;
        // Built before anything is tried, so that every attempt is the same operation.
        let operation_id = new_id();
        loop {
            let global = self.global_permit()?;
            let (cell, queue) = self.actor::<E>(id)?;
            let own = queue.try_acquire_owned().map_err(|_| CallError::Busy)?;
            let (reply, answer) = oneshot::channel();
            let begun = Arc::new(AtomicBool::new(false));
            let envelope = Envelope {
                request: request.clone(),
                operation_id: operation_id.clone(),
                reply,
                begun: begun.clone(),
                _permits: [global, own],
            };
            if ActorRef::<Envelope<E>>::from(cell).send_message(envelope).is_err() {
                // It is being evicted: the next actor takes the call.
                tokio::task::yield_now().await;
                continue;
            }
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(result)) => return result,
                Ok(Err(_)) if begun.load(Ordering::Acquire) => {
                    return Err(CallError::Unavailable {
                        reason: "the actor failed; it restarts from its row".to_owned(),
                    });
                }
                // The actor ended with this call still in its mailbox.
                Ok(Err(_)) if Instant::now() < deadline => {}
                _ => return Err(CallError::Timeout { operation_id }),
            }
        }
    }

    fn global_permit(&self) -> Result<OwnedSemaphorePermit, CallError> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(CallError::ShuttingDown);
        }
        let permit = self.inner.permits.clone().try_acquire_owned();
        permit.map_err(|_| if self.inner.permits.is_closed() { CallError::ShuttingDown } else { CallError::Busy })
    }

    fn actor<E: StoredEntity>(&self, id: &str) -> Result<(ActorCell, Arc<Semaphore>), CallError> {
        let inner = &self.inner;
        inner.registry.get_or_spawn((E::KIND, id.to_owned()), inner.options.per_actor_queue, || {
            let actor = EntityActor::<E>::new(inner.services.clone());
            let spawned = ActorRuntime::spawn_linked_instant(None, actor, id.to_owned(), inner.supervisor.clone());
            let (actor, _) = spawned.map_err(|error| CallError::Unavailable { reason: error.to_string() })?;
            Ok(actor.get_cell())
        })
    }

    /// Actors in memory.
    #[must_use]
    pub fn resident(&self) -> usize {
        self.inner.registry.len()
    }

    /// Refuses new calls, lets those in progress end (at most `grace`), and stops the actors.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.closed.store(true, Ordering::Release);
        // Once every permit is back, every call is done.
        let drained = self.inner.permits.acquire_many(self.inner.options.permits);
        if tokio::time::timeout(grace, drained).await.is_err() {
            tracing::warn!("calls are still under way at the end of the grace period");
        }
        self.inner.permits.close();
        self.inner.passivation.abort();
        for cell in self.inner.registry.take_all() {
            // One that has already stopped is just as good.
            let _ = cell.drain();
        }
        self.inner.supervisor.stop(None);
    }
}

/// Evicts idle actors: what is in their mailbox is still done, later calls go to a new one.
async fn passivate(registry: Arc<Registry>, idle_after: Duration, max_resident: usize) {
    let period = (idle_after / 4).clamp(Duration::from_millis(5), Duration::from_secs(10));
    loop {
        tokio::time::sleep(period).await;
        for cell in registry.take_idle(idle_after, max_resident) {
            let _ = cell.drain();
        }
    }
}
