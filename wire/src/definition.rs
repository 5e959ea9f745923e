//! What definitions have in common: Kinds that people write and others use, such as agents. The API and the command line serve
//! all of them alike, from what is declared here.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::{PartialSchema, ToSchema};

/// A definition Kind as the API shows it.
///
/// Its fields start with `kind`, `id`, `href`, `created_at`, `updated_at`, `version`, `project_id`, `name` and
/// `created_by_user_id`; those of [`Definition::Create`] start with `project_id` and `name`.
pub trait Definition: Serialize + DeserializeOwned + ToSchema + Send + Sync + 'static {
    /// Name in the API: `Agent`.
    const KIND: &'static str;
    /// Name in operations, and with dashes on the command line: `repository_ref`.
    const ENTITY_KIND: &'static str;
    /// Name in its routes: `agents`.
    const PATH: &'static str;
    /// Name of the route parameter with its id: `agent_id`.
    const PARAM: &'static str;
    /// What it is, for people: "Agents: workers, described once".
    const ABOUT: &'static str;
    /// Fields shown in tables, besides id, name and age.
    const TABLE: &'static [&'static str];
    /// Body of `POST`.
    type Create: Serialize + DeserializeOwned + ToSchema + Send + Sync + 'static;
    /// Body of `PATCH`, a JSON merge patch.
    type Patch: Serialize + DeserializeOwned + Default + PartialEq + ToSchema + Send + Sync + 'static;

    /// JSON Schema of [`Definition::Create`]: names, types and descriptions of the writable fields.
    #[must_use]
    fn create_schema() -> Value {
        schema::<Self::Create>()
    }

    /// JSON Schema of [`Definition::Patch`].
    #[must_use]
    fn patch_schema() -> Value {
        schema::<Self::Patch>()
    }
}

/// JSON Schema of a body: names, types and descriptions of its fields.
#[must_use]
pub fn schema<T: PartialSchema>() -> Value {
    // A schema consists of strings, numbers and maps of strings: it can always be serialised.
    serde_json::to_value(T::schema()).unwrap_or_default()
}
