//! `patch` for what is not a definition, with the same flags: one for each simple field of the body.

use std::{marker::PhantomData, sync::LazyLock};

use ambient_wire::{definition::schema, project::ProjectPatch, session::SessionPatch};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    arguments::Patch,
    field::{self, Field},
    models, network, permissions, variables,
};
use crate::error::CliError;

/// What a body can change.
#[derive(Debug)]
pub struct Fields {
    simple: Vec<Field>,
    has_name: bool,
    has_variables: bool,
    has_permissions: bool,
    has_models: bool,
    has_network: bool,
}

impl Fields {
    fn of<B: DeserializeOwned + Default + PartialEq>(schema: &Value) -> Self {
        // In a merge patch null clears a field only if its type tells null from absence.
        let clears = |name: &str| serde_json::from_value::<B>(json!({ name: null })).is_ok_and(|b| b != B::default());
        Self {
            simple: field::of_schema(schema).into_iter().map(|field| field.cleared_if(clears)).collect(),
            has_name: schema["properties"].get("name").is_some(),
            has_variables: variables::are_in(schema),
            has_permissions: permissions::are_in(schema),
            has_models: models::are_in(schema),
            has_network: network::is_in(schema),
        }
    }
}

/// A body of `PATCH`.
pub trait Patched: 'static {
    /// Its fields.
    fn fields() -> &'static Fields;
}

impl Patched for SessionPatch {
    fn fields() -> &'static Fields {
        static FIELDS: LazyLock<Fields> = LazyLock::new(|| Fields::of::<SessionPatch>(&schema::<SessionPatch>()));
        &FIELDS
    }
}

impl Patched for ProjectPatch {
    fn fields() -> &'static Fields {
        static FIELDS: LazyLock<Fields> = LazyLock::new(|| Fields::of::<ProjectPatch>(&schema::<ProjectPatch>()));
        &FIELDS
    }
}

/// Arguments of `patch`.
#[derive(Debug, Clone)]
pub struct PatchOf<B> {
    given: Box<Patch>,
    body: PhantomData<fn() -> B>,
}

impl<B> PatchOf<B> {
    /// What is changed, by id or name.
    pub(crate) fn one(&self) -> &str {
        &self.given.one
    }

    /// The request body.
    pub(crate) fn body(&self) -> Result<Value, CliError> {
        (*self.given).clone().body()
    }
}

impl<B: Patched> Args for PatchOf<B> {
    fn augment_args(command: Command) -> Command {
        let Fields { simple, has_name, has_variables, has_permissions, has_models, has_network } = B::fields();
        let command = field::with_flags(Patch::augment_args(command), simple, false);
        let command = if *has_variables { variables::with_flags(command, false) } else { command };
        let command = if *has_permissions { permissions::with_flag(command) } else { command };
        let command = if *has_models { models::with_flag(command) } else { command };
        let command = if *has_network { network::with_flag(command) } else { command };
        // What does not apply is the server's to refuse.
        let clears = simple.iter().any(Field::is_cleared);
        command.mut_arg("name", |arg| arg.hide(!has_name)).mut_arg("clear", |arg| arg.hide(!clears))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<B: Patched> FromArgMatches for PatchOf<B> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Box::new(Patch::read(matches, &B::fields().simple)?);
        Ok(Self { given, body: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
