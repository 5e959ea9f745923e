//! Definitions: Kinds that people write and others use, such as agents. They have a name that is unique in their project, a
//! specification, and no lifecycle: no phases, workflows or live log.
//!
//! One state machine serves them all; a Kind of this sort is defined by its specification ([`DefinitionSpec`]). `docs/adding-a-kind.md`
//! shows how to add one.

use std::{collections::BTreeMap, fmt::Debug};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    column::{Column, ColumnType},
    effect::{Effect, LiveEvent, NameClaim},
    entity::{Context, Decision, Entity, Guard, NothingToDo, Refusal, RefusalCode},
    name,
};

/// Longest name, characters.
pub const MAX_NAME: usize = 100;

/// What people write in a definition, and how it is stored.
pub trait DefinitionSpec:
    Debug + Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// See [`Entity::KIND`].
    const KIND: &'static str;
    /// See [`Entity::TITLE`].
    const TITLE: &'static str;
    /// See [`Entity::SCHEMA_VERSION`].
    const SCHEMA_VERSION: i32 = 1;
    /// See [`Entity::COLUMNS`]. Starts with [`Definition::NAME`], [`Definition::CREATED_BY`] and [`Definition::LABELS`].
    const COLUMNS: &'static [Column<Definition<Self>>];
    /// See [`Entity::RULES_SESSIONS`].
    const RULES_SESSIONS: bool = false;
    /// Changes; absent = unchanged.
    type Patch: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Checks every field.
    ///
    /// # Errors
    /// A refusal that names the field.
    fn validate(&self) -> Result<(), Refusal>;
    /// The specification with the changes applied.
    #[must_use]
    fn patched(&self, patch: &Self::Patch) -> Self;
    /// For selection.
    fn labels(&self) -> &BTreeMap<String, String>;
}

/// A definition in a project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "S: DefinitionSpec")]
pub struct Definition<S: DefinitionSpec> {
    /// KSUID.
    pub id: String,
    /// Project.
    pub project_id: String,
    /// Unique among those in the project that are not deleted.
    pub name: String,
    /// Number of operations.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Creator.
    pub created_by: String,
    /// When its last operation was decided.
    pub updated_at: DateTime<Utc>,
    /// When it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<DateTime<Utc>>,
    /// What people wrote.
    pub spec: S,
}

/// Commands on a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", bound = "S: DefinitionSpec")]
pub enum Command<S: DefinitionSpec> {
    /// Create one.
    Create {
        /// Id (KSUID).
        id: String,
        /// Project.
        project_id: String,
        /// Name.
        name: String,
        /// What people wrote.
        spec: Box<S>,
    },
    /// Change.
    Patch {
        /// A new name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Changes of the specification.
        spec: Box<S::Patch>,
    },
    /// Delete; the name becomes free.
    Delete,
}

/// Events of a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", bound = "S: DefinitionSpec")]
pub enum Event<S: DefinitionSpec> {
    /// It was created.
    Created {
        /// Id.
        id: String,
        /// Project.
        project_id: String,
        /// Name.
        name: String,
        /// Creator.
        created_by: String,
        /// What people wrote.
        spec: Box<S>,
    },
    /// It was renamed.
    Renamed {
        /// The old name, which is now free.
        from: String,
        /// The new one.
        to: String,
    },
    /// The specification is now this.
    SpecChanged {
        /// All of it.
        spec: Box<S>,
    },
    /// It was deleted; the name is free.
    Deleted,
}

type Decided<S> = Result<Decision<Event<S>>, Refusal>;

impl<S: DefinitionSpec> Definition<S> {
    /// The column of the name.
    pub const NAME: Column<Self> =
        Column::new("name", ColumnType::Text, |d: &Self| json!(d.name)).filtered("Exact name.").ordered();
    /// The column of the creator.
    pub const CREATED_BY: Column<Self> = Column::new("created_by", ColumnType::Text, |d: &Self| json!(d.created_by))
        .shown_as("created_by_user_id")
        .filtered("User id of its creator.")
        .ordered();
    /// The column of the labels.
    pub const LABELS: Column<Self> = Column::new("labels", ColumnType::Json, |d: &Self| json!(d.spec.labels()));

    fn patched(&self, name: Option<&String>, patch: &S::Patch) -> Decided<S> {
        let mut events = Vec::new();
        if let Some(to) = name.filter(|name| **name != self.name) {
            name::display("name", to, MAX_NAME)?;
            events.push(Event::Renamed { from: self.name.clone(), to: to.clone() });
        }
        let spec = self.spec.patched(patch);
        if spec != self.spec {
            spec.validate()?;
            events.push(Event::SpecChanged { spec: Box::new(spec) });
        }
        Ok(if events.is_empty() { Decision::NothingToDo(NothingToDo::Already) } else { Decision::Events(events) })
    }

    /// The namespace of names in its project.
    fn scope(&self) -> String {
        format!("{}/{}", S::KIND, self.project_id)
    }
}

fn create<S: DefinitionSpec>(id: &str, project_id: &str, name: &str, spec: &S, context: &Context) -> Decided<S> {
    name::display("name", name, MAX_NAME)?;
    spec.validate()?;
    Ok(Decision::Events(vec![Event::Created {
        id: id.to_owned(),
        project_id: project_id.to_owned(),
        name: name.to_owned(),
        created_by: context.principal.clone(),
        spec: Box::new(spec.clone()),
    }]))
}

impl<S: DefinitionSpec> Entity for Definition<S> {
    const KIND: &'static str = S::KIND;
    const TITLE: &'static str = S::TITLE;
    const SCHEMA_VERSION: i32 = S::SCHEMA_VERSION;
    const COLUMNS: &'static [Column<Self>] = S::COLUMNS;
    const RULES_SESSIONS: bool = S::RULES_SESSIONS;
    type Command = Command<S>;
    type Event = Event<S>;

    fn command_name(command: &Command<S>) -> &'static str {
        match command {
            Command::Create { .. } => "create",
            Command::Patch { .. } => "patch",
            Command::Delete => "delete",
        }
    }

    fn decide(state: Option<&Self>, command: &Command<S>, context: &Context) -> Decided<S> {
        let absent = || Refusal::new(RefusalCode::NotFound, format!("{} not found", S::TITLE));
        match (state, command) {
            (None, Command::Create { id, project_id, name, spec }) => create(id, project_id, name, &**spec, context),
            (None, _) => Err(absent()),
            (Some(_), Command::Create { .. }) => {
                Err(Refusal::new(RefusalCode::Conflict, format!("this {} already exists", S::TITLE)))
            }
            (Some(definition), Command::Delete) if definition.is_deleted() => {
                Ok(Decision::NothingToDo(NothingToDo::Already))
            }
            (Some(definition), _) if definition.is_deleted() => Err(absent()),
            (Some(definition), Command::Patch { name, spec }) => definition.patched(name.as_ref(), spec),
            (Some(_), Command::Delete) => Ok(Decision::Events(vec![Event::Deleted])),
        }
    }

    fn apply(state: Option<Self>, event: &Event<S>, at: DateTime<Utc>) -> Self {
        let mut definition = state.unwrap_or_else(|| Self {
            id: String::new(),
            project_id: String::new(),
            name: String::new(),
            version: 0,
            created_at: at,
            created_by: String::new(),
            updated_at: at,
            deleted_at: None,
            spec: S::default(),
        });
        match event {
            Event::Created { id, project_id, name, created_by, spec } => {
                definition.id.clone_from(id);
                definition.project_id.clone_from(project_id);
                definition.name.clone_from(name);
                definition.created_by.clone_from(created_by);
                definition.spec = (**spec).clone();
            }
            Event::Renamed { to, .. } => definition.name.clone_from(to),
            Event::SpecChanged { spec } => definition.spec = (**spec).clone(),
            Event::Deleted => definition.deleted_at = Some(at),
        }
        definition
    }

    fn set_version(&mut self, version: i64, at: DateTime<Utc>) {
        self.version = version;
        self.updated_at = at;
    }
    fn id(&self) -> &str {
        &self.id
    }
    fn version(&self) -> i64 {
        self.version
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn created_at(&self) -> DateTime<Utc> {
        self.created_at
    }
    fn updated_at(&self) -> DateTime<Utc> {
        self.updated_at
    }
    fn deleted_at(&self) -> Option<DateTime<Utc>> {
        self.deleted_at
    }
    fn deletion() -> Command<S> {
        Command::Delete
    }

    fn guards(_: Option<&Self>, command: &Command<S>) -> Vec<Guard> {
        match command {
            Command::Create { project_id, .. } => vec![Guard::ProjectActive { project_id: project_id.clone() }],
            Command::Patch { .. } | Command::Delete => Vec::new(),
        }
    }

    fn effects(&self, _: &[Event<S>], _: &Context) -> Vec<Effect> {
        Vec::new()
    }

    fn live(&self, _: &[Event<S>]) -> Vec<LiveEvent> {
        Vec::new()
    }

    fn names(&self, events: &[Event<S>]) -> Vec<NameClaim> {
        let claim = |name: &String| NameClaim::Claim { scope: self.scope(), name: name.clone() };
        let release = |name: &String| NameClaim::Release { scope: self.scope(), name: name.clone() };
        let of = |event: &Event<S>| match event {
            Event::Created { name, .. } => vec![claim(name)],
            Event::Renamed { from, to } => vec![release(from), claim(to)],
            Event::Deleted => vec![release(&self.name)],
            Event::SpecChanged { .. } => Vec::new(),
        };
        events.iter().flat_map(of).collect()
    }
}
