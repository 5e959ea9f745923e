//! The binary's parts: configuration, logs, embedded PostgreSQL, and the commands that put the server together.

// `println!` panics if the reader has gone; see `commands::say`.
#![deny(clippy::print_stdout)]

pub mod agent_types;
pub mod commands;
pub mod compose;
pub mod config;
pub mod data_dir;
mod engine_choice;
pub mod instance;
pub mod keys;
pub mod log_tail;
mod open_files;
pub mod port_holder;
pub mod postgres;
mod snapshots;
pub mod telemetry;
mod traces;
mod user_ids;
mod workflow_engine;
