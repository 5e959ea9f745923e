//! What definitions have in common: Kinds that people write down and others use, such as agents. API and command line serve them
//! all alike, from what is said here.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::{PartialSchema, ToSchema};

/// A Kind of definitions, as it is shown.
///
/// Its fields begin with `kind`, `id`, `href`, `created_at`, `updated_at`, `version`, `project_id`, `name` and
/// `created_by_user_id`; those of [`Definition::Create`] with `project_id` and `name`.
pub trait Definition: Serialize + DeserializeOwned + ToSchema + Send + Sync + 'static {
    /// Name in the API: `Agent`.
    const KIND: &'static str;
    /// Name in operations, and on the command line with dashes: `repository_ref`.
    const ENTITY_KIND: &'static str;
    /// Name of its routes: `agents`.
    const PATH: &'static str;
    /// Name of a route's parameter with its id: `agent_id`.
    const PARAM: &'static str;
    /// What it is, for people: "Agents: who works, written down once".
    const ABOUT: &'static str;
    /// Fields shown in a table, besides id, name and age.
    const TABLE: &'static [&'static str];
    /// Body of `POST`.
    type Create: Serialize + DeserializeOwned + ToSchema + Send + Sync + 'static;
    /// Body of `PATCH`, a JSON merge patch.
    type Patch: Serialize + DeserializeOwned + Default + PartialEq + ToSchema + Send + Sync + 'static;

    /// JSON Schema of [`Definition::Create`]: names, types and descriptions of what can be written.
    #[must_use]
    fn create_schema() -> Value {
        // A schema is made of strings, numbers and maps of strings: it can always be serialised.
        serde_json::to_value(Self::Create::schema()).unwrap_or_default()
    }

    /// JSON Schema of [`Definition::Patch`].
    #[must_use]
    fn patch_schema() -> Value {
        serde_json::to_value(Self::Patch::schema()).unwrap_or_default()
    }
}
