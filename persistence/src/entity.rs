//! How entities stand in their tables.

use ambient_domain::{
    Entity,
    project::{Permission, Project, SubjectType},
    session::Session,
};
use serde_json::{Map, Value, json};

/// A table of entity rows.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// Qualified name.
    pub name: &'static str,
    /// Place in the fixed order in which tables are locked.
    pub lock_rank: u8,
    /// Columns of the entity's own, beside those every entity table has.
    pub columns: &'static [&'static str],
}

/// Columns of every entity table, besides the bookkeeping ones the append fills in.
pub(crate) const COMMON: [&str; 11] = [
    "id",
    "project_id",
    "version",
    "schema_version",
    "last_operation_id",
    "last_hash",
    "state",
    "spec",
    "created_at",
    "updated_at",
    "deleted_at",
];

/// An entity with a table. A new entity is a domain module, a table, this mapping and its routes.
pub trait StoredEntity: Entity {
    /// Its table.
    const TABLE: &'static Table;
    /// Whether it has a live log.
    const HAS_LIVE_LOG: bool;

    /// Values of the table's own columns and of `created_at`, `updated_at`, `deleted_at`.
    fn columns(&self) -> Map<String, Value>;

    /// Whether its `spec`, which stands in a column of its own, is that of `other`. True for a kind without one. To be
    /// overridden where a spec can be long.
    fn has_spec_of(&self, other: &Self) -> bool {
        let spec = |entity: &Self| {
            serde_json::to_value(entity).ok().and_then(|mut value| value.get_mut("spec").map(Value::take))
        };
        spec(self) == spec(other)
    }

    /// The run that its live events belong to, where they do not say so themselves.
    fn live_run(&self) -> Option<i64> {
        None
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

impl StoredEntity for Session {
    const TABLE: &'static Table = &Table {
        name: "ambient.sessions",
        lock_rank: 1,
        columns: &[
            "display_name",
            "phase",
            "agent",
            "interactive",
            "llm_model",
            "run",
            "attempt",
            "generation",
            "observed_generation",
            "created_by",
            "parent_session_id",
            "start_time",
            "completion_time",
            "labels",
        ],
    };
    const HAS_LIVE_LOG: bool = true;

    fn columns(&self) -> Map<String, Value> {
        object(json!({
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "deleted_at": self.deleted_at,
            "display_name": self.spec.display_name,
            "phase": self.phase(),
            "agent": self.spec.agent,
            "interactive": self.spec.interactive,
            "llm_model": self.spec.llm_model,
            "run": self.run_number(),
            "attempt": self.run().map_or(0, |run| run.attempt),
            "generation": self.generation,
            "observed_generation": self.observed_generation,
            "created_by": self.created_by,
            "parent_session_id": self.spec.parent_session_id,
            "start_time": self.start_time,
            "completion_time": self.completion_time,
            "labels": self.spec.labels,
        }))
    }

    fn has_spec_of(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    fn live_run(&self) -> Option<i64> {
        self.run().map(|run| run.number)
    }
}

impl StoredEntity for Project {
    const TABLE: &'static Table = &Table {
        name: "ambient.projects",
        lock_rank: 0,
        columns: &["name", "display_name", "phase", "provisioned", "members", "labels"],
    };
    const HAS_LIVE_LOG: bool = false;

    fn columns(&self) -> Map<String, Value> {
        object(json!({
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "deleted_at": self.deleted_at,
            "name": self.name,
            "display_name": self.spec.display_name,
            "phase": self.phase,
            "provisioned": self.provisioned,
            "members": self.permissions.iter().map(member).collect::<Vec<_>>(),
            "labels": self.spec.labels,
        }))
    }

    fn has_spec_of(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

fn member(permission: &Permission) -> String {
    member_name(permission.subject_type, &permission.subject_name)
}

/// A subject as it stands in `projects.members`.
pub(crate) fn member_name(subject_type: SubjectType, name: &str) -> String {
    match subject_type {
        SubjectType::User => format!("user:{name}"),
        SubjectType::Group => format!("group:{name}"),
    }
}
