//! Projects.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::{object, one_object};

/// A project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Project {
    /// `Project`.
    pub kind: String,
    /// KSUID.
    pub id: String,
    /// `/api/ambient/v1/projects/{id}`.
    pub href: String,
    /// Creation.
    pub created_at: DateTime<Utc>,
    /// Last change.
    pub updated_at: DateTime<Utc>,
    /// Number of operations; what `If-Match` compares.
    pub version: i64,
    /// Unique name.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// Said before every session's prompt.
    pub prompt: String,
    /// `Active` or `Terminating`.
    pub status: String,
    /// Whether its space exists.
    pub provisioned: bool,
    /// For selection.
    pub labels: BTreeMap<String, String>,
    /// For tools.
    pub annotations: BTreeMap<String, String>,
    /// Defaults of its sessions.
    pub settings: ProjectSettings,
}

/// Defaults of a project's sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectSettings {
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_model: Option<String>,
    /// Seconds; 0 = off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<i64>,
}

/// `POST /projects`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectCreate {
    /// Unique name: `^[a-z][a-z0-9-]*[a-z0-9]$`, 2-63 characters.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub display_name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Said before every session's prompt.
    #[serde(default)]
    pub prompt: String,
    /// For selection.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For tools.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Defaults of its sessions.
    #[serde(default, deserialize_with = "one_object")]
    pub settings: ProjectSettings,
}

/// `PATCH /projects/{id}`: a JSON merge patch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectPatch {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Said before every session's prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, Option<String>>>,
    /// All settings.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub settings: Option<ProjectSettings>,
}

/// A role in a project. `POST /projects/{id}/permissions` grants it in place of the subject's former one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectPermission {
    /// `user` or `group`.
    pub subject_type: String,
    /// Name of the user or group.
    pub subject_name: String,
    /// `view`, `edit` or `admin`.
    pub role: String,
}
