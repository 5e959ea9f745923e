//! The one actor. Its mailbox puts an entity's commands in this process in sequence.

use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ambient_persistence::StoredEntity;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    command_path::{self, CachedEntity, Call, CommandServices},
    request::{CallError, Reply, Request},
};

/// A call in the mailbox.
pub(crate) struct Envelope<E: StoredEntity> {
    pub(crate) request: Arc<Request<E>>,
    pub(crate) operation_id: String,
    pub(crate) reply: oneshot::Sender<Result<Reply<E>, CallError>>,
    /// Set when the work begins: a call that an actor took down with it before that goes to the next actor.
    pub(crate) begun: Arc<AtomicBool>,
    /// Returned when the call is done, not when its caller stops waiting.
    pub(crate) _permits: [OwnedSemaphorePermit; 2],
}

/// Hosts an entity.
pub(crate) struct EntityActor<E> {
    services: CommandServices,
    entity: PhantomData<fn() -> E>,
}

impl<E> EntityActor<E> {
    pub(crate) fn new(services: CommandServices) -> Self {
        Self { services, entity: PhantomData }
    }
}

impl<E: StoredEntity> Actor for EntityActor<E> {
    type Msg = Envelope<E>;
    type State = CachedEntity<E>;
    /// The entity's id.
    type Arguments = String;

    /// Does no I/O: the first call reads the row, and can then say why if it fails.
    async fn pre_start(&self, _: ActorRef<Envelope<E>>, id: String) -> Result<CachedEntity<E>, ActorProcessingErr> {
        Ok(CachedEntity::new(id))
    }

    async fn handle(
        &self,
        _: ActorRef<Envelope<E>>,
        envelope: Envelope<E>,
        cached: &mut CachedEntity<E>,
    ) -> Result<(), ActorProcessingErr> {
        if envelope.reply.is_closed() {
            // Its caller had gone before the work began; nothing was done.
            return Ok(());
        }
        envelope.begun.store(true, Ordering::Release);
        let call = Call { services: &self.services, request: &envelope.request, operation_id: &envelope.operation_id };
        let result = Box::pin(command_path::carry_out(&call, cached)).await;
        // The caller may have stopped waiting; what was done is done.
        let _ = envelope.reply.send(result);
        Ok(())
    }
}
