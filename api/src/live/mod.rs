//! Live connections: a session's log as WebSocket frames or Server-Sent Events.
//!
//! A connection buffers no events of its own: it pulls a subscription's next batch once the last one is written, so a slow
//! reader costs nothing but its slot, and is served from the table when it has fallen behind.

pub(crate) mod connection;
mod frames;
pub(crate) mod sse;
