//! Envelopes.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// `ProjectList`, `SessionList`, …
    pub kind: String,
    /// Page, from 1.
    pub page: i64,
    /// Items returned.
    pub size: i64,
    /// Items there are.
    pub total: i64,
    /// The items.
    pub items: Vec<T>,
    /// Cursor of the next page, where the list has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Tells an absent field (`None`) from `null` (`Some(None)`).
///
/// # Errors
/// When the value has another type.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Release.
    pub version: String,
    /// Agents of this build.
    pub agents: Vec<String>,
}

/// `GET /livez` and `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok` or `unavailable`.
    pub status: String,
    /// One entry a part.
    pub checks: Vec<HealthCheck>,
}

/// A part's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthCheck {
    /// `database`, `engine`, `compute`.
    pub name: String,
    /// Fit for work.
    pub ok: bool,
    /// Why not, or how the connection to the `database` travels; else empty.
    #[serde(default)]
    pub reason: String,
}
