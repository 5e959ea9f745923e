//! Replay: this program can continue the corpus, a changed workflow is caught and named, an export is what was stored.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures, reason = "tests")]

mod branch;
#[allow(unreachable_pub, dead_code, missing_docs, reason = "what the workflow macros make")]
mod changed;
#[allow(dead_code, reason = "written by the saga tests")]
mod corpus;
mod exported;
mod recorded;
