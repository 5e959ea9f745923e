//! The binary's parts: configuration, logs, embedded PostgreSQL, and the commands that put the server together.

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
pub mod telemetry;
mod workflow_engine;
