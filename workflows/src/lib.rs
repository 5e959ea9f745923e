//! Lifecycles as durable workflows on `temporalio-sdk`, their activities, the worker host and the outbox dispatcher.
//!
//! One readable file per workflow. Invariants: a workflow never starts, signals or cancels another (except its own children):
//! it reports facts, and the actors' effects do that; inputs are only ids; every activity may be repeated.
//!
//! Which module may use which: a module uses those on the lines above its own, and nothing else (`tests/tests/module_order.rs` reads this list).
//!
//! * `engine_client`, `executions`, `models`, `network`, `project_attribute`, `retention`, `step`: the engine's client, executions for people, where models are asked, what
//!   is reached of the network, how long things are kept, a table's step
//! * `dispatcher`, `services`, `temporal`: carrying out effects, what activities work with, an engine's executions
//! * `model_access`, `observer`: a session's models and variables at a launch; how compute sees runners
//! * `activities`, `runner_ends`: the steps; what readers of logs need from compute and actors
//! * `project_delete`, `project_provision`, `session_delete`, `session_reconcile`, `session_start`, `session_stop`, `sweep`, `token_refresh`: lifecycles
//! * `session_supervise`: the lifecycle that starts others
//! * `worker`: all of them on an engine
//! * `cluster`, `host`, `replay`: a Temporal cluster, the worker with what runs alongside, recorded histories

#![allow(missing_docs, reason = "the workflow and activity macros make undocumented constants of every method")]

pub mod activities;
pub mod cluster;
mod dispatcher;
mod engine_client;
pub mod executions;
pub mod host;
mod model_access;
mod models;
mod network;
mod observer;
pub mod project_attribute;
pub mod project_delete;
pub mod project_provision;
pub mod replay;
mod retention;
mod runner_ends;
pub mod services;
pub mod session_delete;
pub mod session_reconcile;
pub mod session_start;
pub mod session_stop;
pub mod session_supervise;
pub mod step;
pub mod sweep;
pub mod temporal;
pub mod token_refresh;
mod worker;

pub use cluster::{Claim, Cluster, ClusterOptions};
pub use engine_client::EngineClient;
pub use executions::{
    ENTITY_WORKFLOWS, ExecutionError, ExecutionFilter, ExecutionService, Executions, PLATFORM_WORKFLOWS,
};
pub use host::WorkerHost;
pub use models::{Endpoint, Key, ModelAccess, Models, Said, ServerModels, usual_base_url};
pub use network::network;
pub use retention::Retention;
pub use runner_ends::RunnerEnds;
pub use services::{NoHook, Services, StepError, StepHook};
pub use temporal::TemporalExecutions;
pub use worker::{TASK_QUEUE, WorkerError, WorkerHealth, WorkerSettings};
