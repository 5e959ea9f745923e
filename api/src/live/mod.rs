//! Live connections: a session's log as WebSocket frames or Server-Sent Events.
//!
//! A connection holds no events of its own: it pulls the next batch of a subscription when the last one is written, so a slow
//! reader costs nothing but its place, and is served from the table when it has fallen behind.

pub(crate) mod connection;
mod frames;
pub(crate) mod sse;
