//! The error envelope: the body of every failure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of every failure, including unknown routes and refused callers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ApiError)]
pub struct Error {
    /// `Error`.
    pub kind: String,
    /// The number as text.
    pub id: String,
    /// `/api/ambient/v1/errors/<n>`.
    pub href: String,
    /// `ambient-<n>`.
    pub code: String,
    /// The reason, for people.
    pub reason: String,
    /// Same as the header `X-Operation-ID`.
    pub operation_id: String,
    /// Fields at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<ErrorDetail>,
    /// Where events are no longer kept: the oldest that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<i64>,
    /// What the snapshot covers to start from: the one that a stream without a place begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers_seq: Option<i64>,
}

/// A field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// Path of the field, `repos[0].url`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}
