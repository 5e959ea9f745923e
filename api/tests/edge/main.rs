//! The edge as its callers see it: a real database, real actors, a real socket. Only compute and the workflow engine are
//! stand-ins, because nothing is launched here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod authorisation;
mod bad_input;
mod defaults;
mod definitions;
mod document;
mod feedback;
mod interrupts;
mod listener;
mod live;
mod models;
mod output;
mod resources;
mod retention;
mod support;
mod unread;
mod workspace;
mod writes;
