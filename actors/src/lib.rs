//! One generic ractor actor hosts every entity.
//!
//! Invariants
//! * State changes only by [`ambient_persistence::Database::append`]; nothing is answered or published before the commit.
//! * An actor's memory is a cache: before a refusal, a 412 or "nothing to do" is answered, it is compared with the row. Two
//!   servers may host the same entity at once.
//! * ractor's mailboxes have no bound, so a permit is taken before a message is sent: one per actor, one over all.
//! * A call that meets an actor on its way out is put to a new one; none is lost.

mod actors;
mod command_path;
mod entity_actor;
mod options;
mod registry;
mod request;
mod supervisor;

pub use actors::Actors;
pub use options::{ActorOptions, Clock};
pub use request::{CallError, Caller, CommandOutcome, IdempotencyKey, Reply, Request};
