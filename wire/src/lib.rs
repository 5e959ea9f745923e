//! JSON types that API and command line share; some come from a runner and are passed on as they are. Snake case, UTC RFC 3339 times, KSUID
//! ids; unknown input fields are refused.

pub mod agent;
pub mod api;
pub mod content;
pub mod custom;
pub mod definition;
pub mod error;
pub mod execution;
pub mod git;
pub mod git_url;
pub mod live;
pub mod name;
pub mod operation;
pub mod project;
pub mod redact;
pub mod repository_ref;
pub mod session;

/// Base path of the API.
pub const BASE: &str = "/api/ambient/v1";
