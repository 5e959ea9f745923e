//! Embedded workflow engine: the part of Temporal's `WorkflowService` that `temporalio-sdk` uses, in process, on Postgres.
//!
//! It takes the place of a network connection in the SDK's client (`ConnectionOptions::service_override`), so workflows,
//! workers and clients are ordinary Temporal code, and histories are Temporal histories. Any number of processes share one
//! database; they share nothing else.
//!
//! ```no_run
//! # async fn example(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! let engine = ambient_engine::Engine::start(pool, ambient_engine::EngineOptions::default()).await?;
//! let connection = engine.connection().await?; // for temporalio_client::Client::new
//! # Ok(())
//! # }
//! ```
//!
//! The modules, and which may use which: a module uses those on the lines above its own, and nothing else
//! (`tests/tests/module_order.rs` reads this list).
//!
//! * `clock`, `due`, `error`, `options`, `proto`, `recorded`, `token`: the basics: times, errors, encodings
//! * `caller`, `lease`, `model`, `search_attributes`: plain data: runs, decided changes, this process's row, types
//! * `hot`, `matching`, `retry`: cached runs, who waits for which tasks, when an activity is retried
//! * `hint`, `history`, `shelf`, `store`: deciding on a request (pure), changes that wait, the only place that appends to a history
//! * `engine`: the parts of one process, and what follows from a commit
//! * `change`, `deferred`, `pollers`, `retention`: the path of a change through read, decide, write; what waits for the task it causes
//! * `effects`, `handoff`, `liveness`, `timers`: tasks to pollers, changes applied to other runs, work of dead processes, what is due
//! * `rpc`, `wake`: answering requests; what processes tell each other
//! * `integrity`, `service`: checking every invariant of stored data; from a call's name and bytes to its handler and back
//! * `export`, `server`, `start`: histories for other readers, calls from a socket, start and stop

mod caller;
mod change;
mod clock;
mod deferred;
mod due;
mod effects;
mod engine;
mod error;
mod export;
mod handoff;
mod hint;
mod history;
mod hot;
pub mod integrity;
mod lease;
mod liveness;
mod matching;
mod model;
mod options;
mod pollers;
mod proto;
mod recorded;
mod retention;
mod retry;
mod rpc;
mod search_attributes;
mod server;
mod service;
mod shelf;
#[cfg(test)]
mod simulation;
mod start;
mod store;
#[cfg(test)]
mod testing;
mod timers;
mod token;
mod wake;

pub use engine::Engine;
pub use error::EngineError;
pub use export::{After, HistoryReader, StoredRun};
pub use options::EngineOptions;
pub use server::{Bounds, Limits as ServeLimits, ServeError, Tls};
