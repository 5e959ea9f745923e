//! JSON types that API and command line share; some come from a runner and are passed on as they are. Snake case, UTC RFC 3339 times, KSUID
//! ids; unknown input fields are refused.

pub mod agent;
pub mod agent_type;
pub mod agui;
pub mod api;
pub mod content;
pub mod definition;
pub mod error;
pub mod execution;
pub mod file_name;
pub mod git;
pub mod git_history;
pub mod git_merge;
pub mod git_url;
pub mod interrupt;
pub mod lines;
pub mod live;
pub mod mcp;
pub mod model;
pub mod name;
pub mod network;
pub mod operation;
pub mod permission;
pub mod playbook;
pub mod project;
pub mod redact;
pub mod repo;
pub mod repository_ref;
pub mod retention;
pub mod runner_event;
pub mod session;
pub mod turn;
pub mod upload;
pub mod usage;

/// Base path of the API.
pub const BASE: &str = "/api/ambient/v1";
