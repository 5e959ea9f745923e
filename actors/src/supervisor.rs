//! Parent of all actors: one that fails is removed, so that the next call starts a new one from the row.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::registry::Registry;

pub(crate) struct Supervisor;

impl Actor for Supervisor {
    type Msg = ();
    type State = Arc<Registry>;
    type Arguments = Arc<Registry>;

    async fn pre_start(&self, _: ActorRef<()>, registry: Arc<Registry>) -> Result<Arc<Registry>, ActorProcessingErr> {
        Ok(registry)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        registry: &mut Arc<Registry>,
    ) -> Result<(), ActorProcessingErr> {
        // One that ended by passivation was already taken out of the registry.
        if let SupervisionEvent::ActorFailed(cell, error) = event {
            tracing::error!(%error, "an actor failed; the next call starts it from its row");
            metrics::counter!("ambient_actor_failures_total").increment(1);
            registry.remove(cell.get_id());
        }
        Ok(())
    }
}
