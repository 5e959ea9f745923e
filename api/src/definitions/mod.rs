//! Definitions over HTTP: list, create, get, patch and delete for every definition Kind, with their part of the document.
//!
//! A Kind states only what is specific to it: which checks its bodies need ([`Served`]). It reads and shows the same JSON that it
//! stores, so a field is declared where it is described (wire) and where it is decided on (domain), not a third time.

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
    extract::in_words,
    given,
    schema_rules::tells_null,
};

/// A definition Kind that the API serves.
pub(crate) trait Served: DefinitionSpec {
    /// The definition itself: `Definition<Self>`.
    type Entity: StoredEntity<Command = Command<Self>> + Borrow<Definition<Self>> + Target;
    /// As the API shows it.
    type Wire: Wire;

    /// Checks a new one's fields, beyond their types; the name has been checked already.
    fn check_create(body: &Create<Self>, access: &Access) -> ApiResult<()>;
    /// Checks a caller's changes.
    fn check_patch(body: &Patch<Self>, access: &Access) -> ApiResult<()>;
    /// What the values of a Kind's own field may be, for the document; null: whatever the field's name implies for all Kinds.
    fn rules(_field: &str) -> Value {
        Value::Null
    }
    /// Fields that are shown in addition to those stored, or instead of them.
    fn derived(&self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }
}

/// By this, permissions know a served Kind.
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

/// What a body says about a new definition.
fn new<S: Served>(body: &Create<S>, access: &Access) -> ApiResult<New<S>> {
    let (id, mut fields) = (new_id(), fields(body)?);
    take(&mut fields, "project_id");
    let name = given::composed(&take(&mut fields, "name").unwrap_or_default());
    given::name("name", &name, MAX_NAME)?;
    S::check_create(body, access)?;
    let sealed = take_secrets(S::KIND, &id, &mut fields)?;
    Ok(New { name, spec: same(fields)?, sealed, id })
}

fn change<S: Served>(id: &str, body: &Patch<S>, access: &Access) -> ApiResult<Change<S>> {
    let mut fields = fields(body)?;
    let name = take(&mut fields, "name").map(|name| given::composed(&name));
    given::optional_name("name", name.as_deref(), MAX_NAME)?;
    S::check_patch(body, access)?;
    let sealed = take_secrets(S::KIND, id, &mut fields)?;
    Ok(Change { name, spec: same(fields)?, sealed })
}

/// Takes the values of variables, which no specification contains, and leaves the ids under which they are sealed.
fn take_secrets(kind: &str, id: &str, fields: &mut Map<String, Value>) -> ApiResult<Sealed> {
    let given = fields.remove(ENVIRONMENT_VARIABLES);
    let is_given = given.is_some();
    let secrets = given.map(serde_json::from_value).transpose();
    // The body's own type has already read it.
    let secrets = secrets.map_err(|_| ApiError::internal(&"variables of another type"))?;
    let sealed = Sealed::of(kind, id, secrets.unwrap_or_default())?;
    if is_given {
        fields.insert(ENVIRONMENT_VARIABLES.to_owned(), json!(sealed.ids));
    }
    Ok(sealed)
}

/// A field that every Kind has, but no specification.
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

/// The same fields as another type; if it rejects a value, that is the caller's error, and the field is named.
fn same<T: DeserializeOwned>(fields: Map<String, Value>) -> ApiResult<T> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let field = error.path().to_string();
        ApiError::invalid(field, in_words(&error.into_inner().to_string()))
    })
}

/// A served Kind, as data: its routes, and how the document describes it.
pub(crate) struct Resource {
    /// Routes with their documentation.
    pub(crate) routes: fn() -> OpenApiRouter<AppState>,
    /// Name in its routes, and tag of its operations.
    pub(crate) path: &'static str,
    /// What it is.
    pub(crate) about: &'static str,
    /// Name of its type in the document; the names of its bodies start with it.
    pub(crate) title: &'static str,
    /// See [`Served::rules`].
    rules: fn(&str) -> Value,
    /// Whether its patch distinguishes `null` from an absent property.
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
