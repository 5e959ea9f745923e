//! Pure state machines: commands and facts -> events -> state.
//!
//! No I/O, no async, no clock, no randomness: [`Context`] brings time and ids. Given the same state, command and context,
//! [`Entity::decide`] returns the same decision, and [`Entity::apply`] of the events gives the same state, forever: replay
//! depends on it.

pub mod agent;
mod agent_launch;
pub mod column;
pub mod definition;
pub mod effect;
pub mod entity;
pub mod mcp;
pub mod model_rules;
pub mod name;
pub mod network;
mod patch;
pub mod permission;
pub mod project;
pub mod quantity;
pub mod repository_ref;
pub mod retention;
pub mod session;

pub use column::{Column, ColumnType};
pub use definition::{Definition, DefinitionSpec};
pub use effect::{Effect, LiveEvent, NameClaim, WorkflowInput};
pub use entity::{Context, Decision, Defaults, Entity, Guard, NothingToDo, Part, Refusal, RefusalCode};
