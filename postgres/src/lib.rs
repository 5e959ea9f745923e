//! How to connect to PostgreSQL, how to bring a schema up to date, and lanes for what everything passes through. Knows
//! nothing of what is stored.
//!
//! Invariants: what a URL asks of the connection's security is kept or refused, never passed over; nothing is asked of the
//! database's privileges that is not needed.

mod connect;
mod lanes;
mod migrate;
mod transport;

pub use connect::connect_options;
pub use lanes::{Lane, Lanes, is_broken};
pub use migrate::{MigrationError, Schema};
pub use transport::Transport;
