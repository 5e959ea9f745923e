//! Definitions over HTTP: list, create, get, patch and delete of every Kind of them, with their part of the document.
//!
//! A Kind says here only what is its own: which checks its bodies need ([`Served`]). It writes and shows the same JSON as it
//! stores, so that a field is stated where it is described (the wire) and where it is decided on (the domain), not a third time.

mod document;
mod handlers;
mod rules;

use std::borrow::Borrow;

use ambient_domain::{
    Definition, DefinitionSpec,
    definition::{Command, MAX_NAME},
};
use ambient_persistence::{StoredEntity, new_id};
use ambient_wire::{BASE, definition::Definition as Wire};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;

pub(crate) use self::rules::constrain;
use crate::{
    authority::{Access, AppState, Change, ENVIRONMENT_VARIABLES, New, Permitted, Sealed, Target},
    error::{ApiError, ApiResult},
    given,
    schema_rules::tells_null,
};

/// A Kind of definitions that the API serves.
pub(crate) trait Served: DefinitionSpec {
    /// The definition itself: `Definition<Self>`.
    type Entity: StoredEntity<Command = Command<Self>> + Borrow<Definition<Self>> + Target;
    /// As it is shown.
    type Wire: Wire;

    /// Checks what a caller writes of a new one, beyond its type; the name is checked already.
    fn check_create(body: &Create<Self>, access: &Access) -> ApiResult<()>;
    /// Checks what a caller changes.
    fn check_patch(body: &Patch<Self>, access: &Access) -> ApiResult<()>;
    /// What values of a field of its own may be, for the document; null: what the field's name says for all Kinds.
    fn rules(_field: &str) -> Value {
        Value::Null
    }
    /// Fields that are shown besides those that are stored, or in place of them.
    fn derived(&self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }
}

/// Permissions know a served Kind by this.
impl<S: Served> Permitted for S {
    type Entity = <S as Served>::Entity;
    const PARAM: &'static str = S::Wire::PARAM;
}

/// Body of `POST`.
pub(crate) type Create<S> = <<S as Served>::Wire as Wire>::Create;
/// Body of `PATCH`.
pub(crate) type Patch<S> = <<S as Served>::Wire as Wire>::Patch;

/// The project that a body names.
fn project_of<S: Served>(body: &Create<S>) -> ApiResult<String> {
    Ok(take(&mut fields(body)?, "project_id").unwrap_or_default())
}

/// What a body says of a new definition.
fn new<S: Served>(body: &Create<S>, access: &Access) -> ApiResult<New<S>> {
    let (id, mut fields) = (new_id(), fields(body)?);
    take(&mut fields, "project_id");
    let name = take(&mut fields, "name").unwrap_or_default();
    given::name("name", &name, MAX_NAME)?;
    S::check_create(body, access)?;
    let sealed = take_secrets(S::KIND, &id, &mut fields)?;
    Ok(New { name, spec: same(fields)?, sealed, id })
}

fn change<S: Served>(id: &str, body: &Patch<S>, access: &Access) -> ApiResult<Change<S>> {
    let mut fields = fields(body)?;
    let name = take(&mut fields, "name");
    given::optional_name("name", name.as_deref(), MAX_NAME)?;
    S::check_patch(body, access)?;
    let sealed = take_secrets(S::KIND, id, &mut fields)?;
    Ok(Change { name, spec: same(fields)?, sealed })
}

/// Takes the values of variables, which no specification has, and leaves the ids under which they are sealed.
fn take_secrets(kind: &str, id: &str, fields: &mut Map<String, Value>) -> ApiResult<Sealed> {
    let given = fields.remove(ENVIRONMENT_VARIABLES);
    let is_given = given.is_some();
    let secrets = given.map(serde_json::from_value).transpose();
    // The body's own type has read it before.
    let secrets = secrets.map_err(|_| ApiError::internal(&"variables of another type"))?;
    let sealed = Sealed::of(kind, id, secrets.unwrap_or_default())?;
    if is_given {
        fields.insert(ENVIRONMENT_VARIABLES.to_owned(), json!(sealed.ids));
    }
    Ok(sealed)
}

/// A field that every Kind has, and no specification.
fn take(body: &mut Map<String, Value>, field: &str) -> Option<String> {
    body.remove(field).and_then(|value| value.as_str().map(str::to_owned))
}

/// A definition as it is shown.
fn shown<S: Served>(definition: &Definition<S>) -> ApiResult<S::Wire> {
    let mut all = fields(&definition.spec)?;
    let head = json!({
        "kind": S::TITLE,
        "id": definition.id,
        "href": format!("{BASE}/{}/{}", S::Wire::PATH, definition.id),
        "created_at": definition.created_at,
        "updated_at": definition.updated_at,
        "version": definition.version,
        "project_id": definition.project_id,
        "name": definition.name,
        "created_by_user_id": definition.created_by,
    });
    all.extend(definition.spec.derived().into_iter().map(|(field, value)| (field.to_owned(), value)));
    all.extend(fields(&head)?);
    same(all)
}

fn fields<T: Serialize>(of: &T) -> ApiResult<Map<String, Value>> {
    match serde_json::to_value(of) {
        Ok(Value::Object(map)) => Ok(map),
        other => Err(ApiError::internal(&format!("not an object: {other:?}"))),
    }
}

/// The same fields as another type; a value that it does not take is the caller's to mend, and named.
fn same<T: DeserializeOwned>(fields: Map<String, Value>) -> ApiResult<T> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let field = error.path().to_string();
        ApiError::invalid(field, error.into_inner().to_string())
    })
}

/// A served Kind, as data: its routes, and what the document calls it.
pub(crate) struct Resource {
    /// Routes with their documentation.
    pub(crate) routes: fn() -> OpenApiRouter<AppState>,
    /// Name of its routes, and tag of its operations.
    pub(crate) path: &'static str,
    /// What it is.
    pub(crate) about: &'static str,
    /// Name of its type in the document; those of its bodies begin with it.
    pub(crate) title: &'static str,
    /// See [`Served::rules`].
    rules: fn(&str) -> Value,
    /// Whether its patch tells `null` from nothing in a property.
    pub(crate) tells_null: fn(&str) -> bool,
}

impl Resource {
    pub(crate) const fn of<S: Served>() -> Self {
        Self {
            routes: document::routes::<S>,
            path: S::Wire::PATH,
            about: S::Wire::ABOUT,
            title: S::TITLE,
            rules: S::rules,
            tells_null: tells_null::<Patch<S>>,
        }
    }
}
