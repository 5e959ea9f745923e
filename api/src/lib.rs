//! The HTTP edge: authenticate, authorise by lookup, ask an actor, map the reply. Nothing is decided here.
//!
//! Invariants
//! * Every failure is a [`ambient_wire::error::Error`], made in one place ([`error`]), even one that no route sees ([`envelope`]).
//! * Every handler that touches an entity holds an [`authority`] value that proves the caller's right to it.
//! * Every read comes from rows; every change goes through an actor.
//! * Every wait has a limit, every body a size, every live connection a bound.
//!
//! Which module may use which: a module uses those on the lines above its own, and nothing else (`tests/tests/module_order.rs` reads this list).
//!
//! * `mcp`, `model_rules`: MCP servers, what is said about models
//! * `error`, `representation`, `schema_rules`: failures, the JSON of entities, what the document says about values
//! * `envelope`, `extract`, `given`, `kinds`, `respond`, `responses`: failures that no route sees, what a handler gets from a request, checks on input, responses, failures
//!   in the document
//! * `agent_types`, `observe`: programs that run as agents; a request's ids and logs
//! * `usage`: what model calls have used
//! * `stored`: what turns say about stored snapshots
//! * `turns`: what messages came to
//! * `session_spec`: specifications of sessions
//! * `authority`: who may do what to what
//! * `conversation`, `list`, `live`: messages, paging, live connections
//! * `agui`, `definitions`: AG-UI made of live logs, Kinds that consist of fields
//! * `routes`: one file per resource
//! * `openapi`: the document of all routes
//! * `router`: all routes, and what wraps them
//! * `listener`: the router on a socket

mod agent_types;
mod agui;
mod authority;
mod conversation;
mod definitions;
mod envelope;
mod error;
mod extract;
mod given;
mod kinds;
mod list;
mod listener;
mod live;
mod mcp;
mod model_rules;
mod observe;
mod openapi;
mod representation;
mod respond;
mod responses;
mod router;
mod routes;
mod schema_rules;
mod session_spec;
mod stored;
mod turns;
mod usage;

pub use agent_types::AgentType;
pub use authority::{ApiConfig, AppParts, AppState, PlatformRole, Principal, PrincipalKind, StaticToken};
pub use error::{ApiError, ApiResult, CATALOGUE, Number};
pub use listener::{Limits, serve, serve_router};
pub use openapi::{client_openapi_yaml, openapi, openapi_yaml};
pub use router::router;

use axum::http::HeaderName;

/// Names the request, or the operation that it created.
pub(crate) const OPERATION_ID: HeaderName = HeaderName::from_static("x-operation-id");
