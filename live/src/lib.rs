//! The live log of sessions: from the runner's log into the table, and from the table to everyone who watches.
//!
//! * [`reader`]: one reader per run, fenced by a lease, stores a runner's log exactly once, derives facts from what is stored, and
//!   delivers messages.
//! * [`hub`]: one reader of the table per watched session and process; any number of subscribers share what it reads.
//! * [`runner_client`]: the runner's routes. [`permissions`]: in its form. [`token`]: session tokens. [`snapshot`]: a session's messages in one piece.
//! * [`Budgets`]: how much of models a run may use.
//!
//! Invariant: a subscriber gets the rows of `session_events` after its cursor, each exactly once and in order, whichever
//! server it is connected to and however often it reconnects.

pub mod agent;
mod budget;
pub mod hub;
pub mod permissions;
pub mod reader;
pub mod runner_client;
pub mod snapshot;
pub mod token;

pub use budget::{Budgets, Used};
pub use hub::{Batch, Beginning, End, Event, HubOptions, LiveHub, Snapshot, SubscribeError, Subscription};
pub use reader::{DrainError, EndpointError, FactError, FactSink, ReaderOptions, RunnerEndpoints, RunnerReaders};
pub use runner_client::{FileContent, GitDiff, NewFile, RunnerClient, RunnerClientError, RunnerEvents};
pub use snapshot::SnapshotError;
pub use token::{Direction, TokenClaims, TokenError, Tokens};
