//! Lets this program decide accepted operations again: each on the state built from those before it, with the context that was
//! stored with it. The same command, state and context must give the same events, forever; a release that decides differently is
//! found before it takes over.
//!
//! Reads only. One entity's state and one page of its operations are in memory at a time.

use std::fmt::Debug;

use ambient_domain::{Context, Decision, Entity};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sqlx::{Row, postgres::PgRow};

use crate::{
    database::Database,
    error::StoreError,
    kinds::Kind,
    operations::{Operation, from_row},
};

/// Operations read per query.
const PAGE: i64 = 500;

/// An entity whose operations from version `from` on are among those to be decided again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concerned {
    /// Entity kind.
    pub entity_kind: String,
    /// Entity id.
    pub entity_id: String,
    /// First version to be decided again; earlier ones are only applied.
    pub from: i64,
    /// Last version.
    pub to: i64,
}

impl Database {
    /// The entities that the latest `count` operations belong to. An entity's operations become visible in version order, so none
    /// before those found is missing.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn concerned_by_last(&self, count: u32) -> Result<Vec<Concerned>, StoreError> {
        let sql = "select entity_kind, entity_id, min(version) as first, max(version) as last
                   from (select entity_kind, entity_id, version from ambient.operations
                         order by operations.xid desc, position desc limit $1) newest
                   group by entity_kind, entity_id order by entity_kind, entity_id";
        let rows = sqlx::query(sql).bind(i64::from(count)).fetch_all(self.pool()).await?;
        let concerned = |row: &PgRow| {
            Ok(Concerned {
                entity_kind: row.try_get("entity_kind")?,
                entity_id: row.try_get("entity_id")?,
                from: row.try_get("first")?,
                to: row.try_get("last")?,
            })
        };
        rows.iter().map(concerned).collect()
    }

    /// A page of an entity's operations: those after version `after` up to version `to`, oldest first.
    ///
    /// # Errors
    /// When the database cannot be reached, or an operation is not JSON.
    pub async fn logged_operations(&self, entity: &Concerned, after: i64) -> Result<Vec<Operation>, StoreError> {
        let sql = "select * from ambient.operations
                   where entity_kind = $1 and entity_id = $2 and version > $3 and version <= $4 order by version limit $5";
        let query = sqlx::query(sql).bind(&entity.entity_kind).bind(&entity.entity_id).bind(after).bind(entity.to);
        query.bind(PAGE).fetch_all(self.pool()).await?.iter().map(from_row).collect()
    }
}

/// An entity being taken through its operations.
#[derive(Debug)]
pub struct EntityReplay(Box<dyn ReplayState>);

impl EntityReplay {
    /// An entity before its first operation. None: this program has no such kind.
    #[must_use]
    pub fn of_kind(kind: &str) -> Option<Self> {
        Kind::named(kind).map(|kind| Self((kind.replay)()))
    }

    /// Takes the next operation: decides it again if requested, then applies what was recorded, so that a different decision
    /// does not hide what follows. Returns how this program decides differently, in words; none if it does not.
    ///
    /// # Errors
    /// When the operation cannot be applied, so that nothing can be said about those after it.
    pub fn next(&mut self, operation: &Operation, decide: bool) -> Result<Option<String>, String> {
        self.0.next(operation, decide)
    }
}

/// [`EntityReplay`] of one Kind.
pub(crate) trait ReplayState: Debug + Send {
    fn next(&mut self, operation: &Operation, decide: bool) -> Result<Option<String>, String>;
}

#[derive(Debug)]
struct Typed<E>(Option<Box<E>>);

impl<E: Entity> ReplayState for Typed<E> {
    fn next(&mut self, operation: &Operation, decide: bool) -> Result<Option<String>, String> {
        step(&mut self.0, operation, decide)
    }
}

pub(crate) fn replay_of<E: Entity>() -> Box<dyn ReplayState> {
    Box::new(Typed::<E>(None))
}

fn step<E: Entity>(state: &mut Option<Box<E>>, operation: &Operation, decide: bool) -> Result<Option<String>, String> {
    if operation.schema_version > E::SCHEMA_VERSION {
        return Err(format!("schema version {} is unknown to this release", operation.schema_version));
    }
    let expected = state.as_ref().map_or(0, |state| state.version()) + 1;
    if operation.version != expected {
        return Err(format!("version {expected} is missing"));
    }
    let recorded: Vec<E::Event> = read("the events", &operation.events)?;
    let outcome = if decide { decided_again(state.as_deref(), operation, &recorded).err() } else { None };
    let before = state.take().map(|state| *state);
    let after = recorded.iter().fold(before, |state, event| Some(E::apply(state, event, operation.occurred_at)));
    *state = after.map(Box::new);
    if let Some(state) = state {
        state.set_version(operation.version, operation.occurred_at);
    }
    Ok(outcome)
}

fn decided_again<E: Entity>(state: Option<&E>, operation: &Operation, recorded: &[E::Event]) -> Result<(), String> {
    let command: E::Command = read("the command", &operation.input)?;
    let context: Context = read("the context", &operation.context)?;
    let name = E::command_name(&command);
    if name != operation.command {
        return Err(format!("the command is now named {name}"));
    }
    match E::decide(state, &command, &context) {
        Ok(Decision::Events(events)) if events == recorded => Ok(()),
        Ok(Decision::Events(events)) => Err(first_difference(recorded, &events)),
        Ok(Decision::NothingToDo(nothing)) => Err(format!("there is now nothing to do ({nothing:?})")),
        Err(refusal) => Err(format!("it is now refused ({:?}): {}", refusal.code, refusal.reason)),
    }
}

/// Names of the first events that differ; their contents may be long and are in the log.
fn first_difference<T: PartialEq + Serialize>(recorded: &[T], now: &[T]) -> String {
    let at = recorded.iter().zip(now).take_while(|(recorded, now)| recorded == now).count();
    let (was, is) = (recorded.get(at).map(name_of), now.get(at).map(name_of));
    let number = at + 1;
    match (was, is) {
        (Some(was), Some(is)) if was == is => {
            let field =
                recorded.get(at).zip(now.get(at)).and_then(|(was, is)| first_field(was, is)).unwrap_or_default();
            format!("event {number}, {was}: {field} is not what was recorded")
        }
        (was, is) => {
            let none = || "none".to_owned();
            format!("event {number} was {}, is now {}", was.unwrap_or_else(none), is.unwrap_or_else(none))
        }
    }
}

fn name_of<T: Serialize>(event: &T) -> String {
    let value = serde_json::to_value(event).unwrap_or_default();
    value.get("event").and_then(Value::as_str).unwrap_or("an event").to_owned()
}

/// Name of the first field that differs; values may be long.
fn first_field<T: Serialize>(was: &T, is: &T) -> Option<String> {
    let (was, is) = (serde_json::to_value(was).ok()?, serde_json::to_value(is).ok()?);
    let (was, is) = (was.as_object()?, is.as_object()?);
    was.keys().chain(is.keys()).find(|key| was.get(*key) != is.get(*key)).cloned()
}

fn read<T: DeserializeOwned>(what: &str, value: &Value) -> Result<T, String> {
    T::deserialize(value).map_err(|error| format!("{what} cannot be read: {error}"))
}
