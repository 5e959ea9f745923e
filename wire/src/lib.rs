//! JSON types shared by API, CLI and runner: snake case, UTC RFC 3339 times, KSUID ids; unknown input fields are refused.

pub mod agent;
pub mod api;
pub mod definition;
pub mod error;
pub mod execution;
pub mod git_url;
pub mod live;
pub mod name;
pub mod operation;
pub mod project;
pub mod redact;
pub mod repository_ref;
pub mod runner;
pub mod session;

/// Base path of the API.
pub const BASE: &str = "/api/ambient/v1";
