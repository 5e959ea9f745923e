//! How to connect to PostgreSQL, how to migrate a schema, and lanes for what everything passes through. Knows
//! nothing about what is stored.
//!
//! Invariants: what a URL demands of the connection's security is kept or refused, never ignored; no database privileges
//! are required that are not needed.

mod connect;
mod lanes;
mod migrate;
mod transport;

pub use connect::connect_options;
pub use lanes::{Lane, Lanes, is_broken};
pub use migrate::{MigrationError, Schema};
pub use transport::Transport;
