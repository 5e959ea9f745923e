//! Repository references: bookmarks.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{api::present, definition::Definition};

/// A bookmark of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryRef {
    /// `RepositoryRef`.
    pub kind: String,
    /// KSUID.
    pub id: String,
    /// `/api/ambient/v1/repository_refs/{id}`.
    pub href: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Number of operations so far; what `If-Match` compares.
    pub version: i64,
    /// Project id.
    pub project_id: String,
    /// Unique in the project.
    pub name: String,
    /// User id of its creator.
    pub created_by_user_id: String,
    /// `https://…` or `file:///…`.
    pub url: String,
    /// Branch; null: the remote's default.
    pub branch: Option<String>,
    /// `github`, `gitlab` or `git`: as given, else derived from the URL's host.
    pub provider: String,
    /// Its owner at the host: as given, else derived from the URL.
    pub owner: Option<String>,
    /// Its name at the host: as given, else the last part of the URL.
    pub repo_name: String,
    /// For selection.
    pub labels: BTreeMap<String, String>,
    /// For tools.
    pub annotations: BTreeMap<String, String>,
}

/// `POST /repository_refs`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "project_id": "demo", "name": "hello", "url": "https://git.example.com/team/hello.git" }))]
pub struct RepositoryRefCreate {
    /// Project id or name.
    pub project_id: String,
    /// Unique in the project, 1-100 characters.
    pub name: String,
    /// `https://…` or `file:///…`.
    pub url: String,
    /// Branch; the remote's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// `github`, `gitlab` or `git`; derived from the URL's host when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Its owner at the host; derived from the URL when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its name at the host; the last part of the URL when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_name: Option<String>,
    /// For selection.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For tools.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// `PATCH /repository_refs/{id}`: a JSON merge patch. Null derives a field from the URL again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "a merge patch tells an absent field from null")]
#[schema(example = json!({ "branch": "main", "labels": { "team": null } }))]
pub struct RepositoryRefPatch {
    /// Unique in the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `https://…` or `file:///…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Branch.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub branch: Option<Option<String>>,
    /// `github`, `gitlab` or `git`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub provider: Option<Option<String>>,
    /// Its owner at the host.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub owner: Option<Option<String>>,
    /// Its name at the host.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub repo_name: Option<Option<String>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, Option<String>>>,
}

impl Definition for RepositoryRef {
    const KIND: &'static str = "RepositoryRef";
    const ENTITY_KIND: &'static str = "repository_ref";
    const PATH: &'static str = "repository_refs";
    const PARAM: &'static str = "repository_ref_id";
    const ABOUT: &'static str = "Repository references: bookmarks of repositories";
    const TABLE: &'static [&'static str] = &["provider", "branch", "url"];
    type Create = RepositoryRefCreate;
    type Patch = RepositoryRefPatch;
}
