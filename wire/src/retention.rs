//! For how long what finished sessions have left is kept, and what was removed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// For how long a project keeps what its finished sessions have left, in days; 0 = for ever, absent = as long as the server does. Sessions
/// with the label `retention=keep` are kept from all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Events of a session's live log, after a snapshot has covered them. The snapshot stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_days: Option<u32>,
    /// A session's workspace, after something last happened in the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_days: Option<u32>,
    /// Stored snapshots of a session's turns, after the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_days: Option<u32>,
}

impl Retention {
    /// Says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is in force, in days; 0 = for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptDays {
    /// Events.
    pub event_days: u32,
    /// Workspaces.
    pub workspace_days: u32,
    /// Stored snapshots.
    pub snapshot_days: u32,
}

/// `GET /projects/{id}/retention`: what another policy would remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RetentionQuery {
    /// Instead of the project's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 36500)]
    pub event_days: Option<u32>,
    /// Instead of the project's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 36500)]
    pub workspace_days: Option<u32>,
    /// Instead of the project's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 36500)]
    pub snapshot_days: Option<u32>,
    /// Sessions listed; 100 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub size: Option<u32>,
}

/// A project's retention: what is in force, and what it would remove now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectRetention {
    /// `ProjectRetention`.
    pub kind: String,
    /// Project id.
    pub project_id: String,
    /// What the project says, with what the request asks about in its place.
    pub policy: Retention,
    /// What that comes to on this server.
    pub in_force: KeptDays,
    /// Fewest days that a project may say: the server's bound.
    pub min_days: u32,
    /// Most days that anything is kept: the server's bound; 0 = none. Bounds win over what projects say.
    pub max_days: u32,
    /// What would be removed now.
    pub due: RetentionDue,
    /// The first sessions that would lose something, by id.
    pub sessions: Vec<SessionRetentionDue>,
    /// The last time that somebody had it applied at once.
    pub request: Option<RetentionRequest>,
}

/// What retention would remove now, of all sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RetentionDue {
    /// Sessions that would lose something.
    pub sessions: i64,
    /// Events.
    pub events: i64,
    /// Their payloads as they are stored, bytes: an estimate, from the first 100 events of the listed sessions.
    pub estimated_event_bytes: i64,
    /// Workspaces. How large they are is not looked at.
    pub workspaces: i64,
    /// Stored packs, bytes, as the turns say.
    pub snapshot_bytes: i64,
}

/// What retention would remove now of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionRetentionDue {
    /// Session id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Events.
    pub events: i64,
    /// Their payloads as they are stored, bytes: an estimate.
    pub estimated_event_bytes: i64,
    /// Its workspace.
    pub workspace: bool,
    /// The host that has it.
    pub host: Option<String>,
    /// Stored packs, bytes.
    pub snapshot_bytes: i64,
}

/// That somebody has a project's retention applied at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetentionRequest {
    /// Who.
    pub requested_by: String,
    /// When.
    pub requested_at: DateTime<Utc>,
    /// When it was done; files on other hosts go with the next sweep there.
    pub done_at: Option<DateTime<Utc>>,
}

/// What retention has removed of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionRetention {
    /// Oldest event that is kept; a snapshot stands for those before it.
    pub retained_from_seq: i64,
    /// Events that are gone.
    pub events_removed: i64,
    /// When the last of them went.
    pub events_removed_at: Option<DateTime<Utc>>,
    /// The last run whose workspace was removed; 0 = none. A later run has a new one.
    pub workspace_removed_after_run: i64,
    /// When it was.
    pub workspace_removed_at: Option<DateTime<Utc>>,
    /// When the stored snapshots of its turns were.
    pub snapshots_removed_at: Option<DateTime<Utc>>,
}
