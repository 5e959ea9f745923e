//! Operations: accepted commands and facts.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// `Operation`.
    pub kind: String,
    /// KSUID.
    pub id: String,
    /// `/api/ambient/v1/operations/{id}`.
    pub href: String,
    /// `session`, `project`, `agent`, …
    pub entity_kind: String,
    /// Entity's id.
    pub entity_id: String,
    /// Version of the entity after it.
    pub version: i64,
    /// Project.
    pub project_id: String,
    /// Command.
    pub command: String,
    /// Schema version of command and events.
    pub schema_version: i32,
    /// The full command, without message bodies.
    pub input: Value,
    /// The events it produced.
    pub events: Value,
    /// The context it was decided with.
    pub context: Value,
    /// Who requested it.
    pub principal: String,
    /// Correlation id of the request it belongs to.
    pub correlation_id: String,
    /// Operation or workflow that caused it.
    pub causation_id: Option<String>,
    /// When it was accepted.
    pub occurred_at: DateTime<Utc>,
    /// Hash chained over the entity's previous operation, hex.
    pub hash: String,
}

/// `POST /replay/verify`; with an empty body everything is verified.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Only this kind: `session`, `project`, `agent`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity_kind: Option<String>,
    /// Only this entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity_id: Option<String>,
}

/// Whether rows equal their replayed operations and the hash chains are intact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyReport {
    /// `VerifyReport`.
    pub kind: String,
    /// Number of entities checked.
    pub entities: u64,
    /// Number of operations replayed.
    pub operations: u64,
    /// The first divergence of each entity that has one; empty if all is well.
    pub divergences: Vec<VerifyDivergence>,
}

/// Where stored data is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyDivergence {
    /// Kind of the entity: `session`, `project`, `agent`, …
    pub kind: String,
    /// Entity's id.
    pub id: String,
    /// Version at which it was found.
    pub version: i64,
    /// What is wrong, in words.
    pub what: String,
}
