//! The hostile agent: what runs in a session tries to get out of it, and must not.
//!
//! `make hostile` runs all of it, as root and as an ordinary user. Each attack is a shell script that an agent runs in a real
//! session of a real server; whether it got anywhere is checked from outside. An attack that succeeds prints `GOT` first.
//! What is promised, and by which feature of the kernel, is in `docs/security.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod files;
mod git;
mod network;
mod processes;
mod reads;
#[path = "../support/mod.rs"]
mod support;
mod world;
