//! Conformance of the embedded engine with a real Temporal server.
//!
//! A case is a small program ([`program::Op`]) that the workflow `script` executes, and what people do to it meanwhile. It
//! runs on both engines in the same test run, with the same worker; results, commands and histories are compared, up to the short
//! list in [`normal`]. Programs are data, so random ones (`random`) come from a seed.

#![allow(missing_docs, reason = "the workflow and activity macros make undocumented constants of every method")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures, reason = "a test suite")]
#![allow(clippy::needless_pass_by_value, reason = "inputs of handlers are values")]

pub mod activities;
pub mod backend;
pub mod by_hand;
pub mod case;
pub mod cases;
pub mod forward;
pub mod normal;
pub mod program;
pub mod random;
pub mod record;
pub mod script;
