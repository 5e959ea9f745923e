//! One generic ractor actor hosts every entity.
//!
//! Invariants
//! * State changes only through [`ambient_persistence::Database::append`]; nothing is answered or published before the commit.
//! * An actor's memory is a cache: before it answers with a refusal, a 412 or "nothing to do", it is compared with the row. Two
//!   servers may host the same entity at once.
//! * ractor's mailboxes are unbounded, so a permit is taken before a message is sent: one per actor, one overall.
//! * A call that meets an actor being evicted goes to a new one; none is lost.
//!
//! Which module may use which: a module uses those on the lines above its own, and nothing else (`tests/tests/module_order.rs` reads this list).
//!
//! * `options`, `registry`, `request`: limits and the clock, which actors are in memory, requests and replies
//! * `command_path`, `supervisor`: deciding and appending a command; what becomes of an actor that fails
//! * `entity_actor`: one command after the other
//! * `actors`: access to the actors

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
