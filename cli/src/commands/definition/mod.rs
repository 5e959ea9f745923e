//! `ambient agent`, `ambient repository-ref`, …: the commands for every definition Kind, generated from its API types. A field
//! added there gets its flag here.

mod arguments;
mod field;
mod models;
mod network;
mod patched;
mod permissions;
mod show;
mod variables;

use std::sync::LazyLock;

use ambient_wire::{agent::Agent, api::List as Page, definition::Definition};
use clap::{ArgMatches, Args as _, Command, FromArgMatches, Subcommand};
use serde_json::Value;

pub(super) use self::patched::PatchOf;
use self::{
    arguments::{Create, Get, List, One, Patch},
    field::Field,
};
use super::{Connection, is_id, operations};
use crate::{client::route::Route, error::CliError, exit::Exit};

/// The Kinds.
static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    vec![
        // One line each.
        Kind::of::<ambient_wire::agent::Agent>(),
        Kind::of::<ambient_wire::repository_ref::RepositoryRef>(),
    ]
});

/// A Kind, as far as its commands need to know.
#[derive(Debug)]
pub(crate) struct Kind {
    /// In operations: `repository_ref`.
    entity_kind: &'static str,
    /// Its routes: `repository_refs`.
    path: &'static str,
    about: &'static str,
    /// The command: `repository-ref`, and its other name.
    command: String,
    alias: String,
    /// Fields of the table, and their headings.
    table: Vec<(&'static str, String)>,
    create: Vec<Field>,
    patch: Vec<Field>,
    /// Whether it has environment variables.
    has_variables: bool,
    /// Whether it has permissions.
    has_permissions: bool,
    /// Whether it says something about models.
    has_models: bool,
    /// Whether it has a network.
    has_network: bool,
}

impl Kind {
    fn of<D: Definition>() -> Self {
        let schema = D::create_schema();
        let create = field::of_schema(&schema);
        let heading = |&field: &&'static str| (field, field.replace('_', " ").to_uppercase());
        Self {
            entity_kind: D::ENTITY_KIND,
            path: D::PATH,
            about: D::ABOUT,
            command: D::ENTITY_KIND.replace('_', "-"),
            alias: D::PATH.replace('_', "-"),
            table: D::TABLE.iter().map(heading).collect(),
            patch: field::of_patch(&D::patch_schema(), &create),
            create,
            has_variables: variables::are_in(&schema),
            has_permissions: permissions::are_in(&schema),
            has_models: models::are_in(&schema),
            has_network: network::is_in(&schema),
        }
    }

    fn named(command: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.command == command)
    }

    /// What people call one.
    fn word(&self) -> String {
        self.entity_kind.replace('_', " ")
    }

    fn with_flags(&self, command: Command, fields: &'static [Field], creates: bool) -> Command {
        let command = field::with_flags(command, fields, creates);
        let command = if self.has_variables { variables::with_flags(command, creates) } else { command };
        let command = if self.has_permissions { permissions::with_flag(command) } else { command };
        let command = if self.has_models { models::with_flag(command) } else { command };
        if self.has_network { network::with_flag(command) } else { command }
    }

    fn arguments(&'static self) -> Command {
        let help = |command: Command, about: String, example: &str| {
            // After the arguments, which would otherwise bring their own text.
            command.about(about).after_help(format!("Example:\n  ambient {} {example}", self.command))
        };
        let create = self.with_flags(Create::augment_args(Command::new("create")), &self.create, true);
        let example = format!("create NAME{}", field::required(&self.create));
        let word = self.word();
        let create = help(create, format!("Create {}; its name must be unique in the project", a(&word)), &example);
        let list = List::augment_args(Command::new("list").visible_alias("ls"));
        let list = help(list, format!("List the project's {word}s"), "list --label team=web");
        let get = help(Get::augment_args(Command::new("get")), format!("Show {}", a(&word)), "get NAME -o json");
        let patch = self.with_flags(Patch::augment_args(Command::new("patch")), &self.patch, false);
        let patch = help(patch, format!("Change the given fields of {}", a(&word)), "patch NAME --label team=web");
        let one = |verb: &'static str| One::augment_args(Command::new(verb));
        let delete = help(one("delete"), format!("Delete {}; its name becomes free", a(&word)), "delete NAME");
        let history =
            help(one("history"), format!("List the operations of {}, newest first", a(&word)), "history NAME");
        Command::new(self.command.as_str())
            .visible_alias(self.alias.as_str())
            .about(self.about)
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommands([create, list, get, patch, delete, history])
    }
}

/// `an agent`.
fn a(word: &str) -> String {
    format!("{} {word}", if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" })
}

/// Commands for a definition. One is named by its name within the project, or by its id.
#[derive(Debug, Clone)]
pub struct DefinitionCommand {
    kind: &'static Kind,
    action: Action,
}

#[derive(Debug, Clone)]
enum Action {
    Create(Box<Create>),
    List(Box<List>),
    Get(Get),
    Patch(Box<Patch>),
    Delete(One),
    History(One),
}

impl Subcommand for DefinitionCommand {
    fn augment_subcommands(command: Command) -> Command {
        KINDS.iter().fold(command, |command, kind| command.subcommand(kind.arguments()))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Kind::named(name).is_some()
    }
}

impl FromArgMatches for DefinitionCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, matches) = matches.subcommand().ok_or_else(missing)?;
        let (verb, matches) = matches.subcommand().ok_or_else(missing)?;
        let kind = Kind::named(name).ok_or_else(missing)?;
        let action = match verb {
            "create" => Action::Create(Box::new(Create::read(matches, &kind.create)?)),
            "list" => Action::List(Box::new(List::from_arg_matches(matches)?)),
            "get" => Action::Get(Get::from_arg_matches(matches)?),
            "patch" => Action::Patch(Box::new(Patch::read(matches, &kind.patch)?)),
            "delete" => Action::Delete(One::from_arg_matches(matches)?),
            "history" => Action::History(One::from_arg_matches(matches)?),
            _ => return Err(missing()),
        };
        Ok(Self { kind, action })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

pub(super) async fn run(command: DefinitionCommand, connection: &Connection) -> Result<Exit, CliError> {
    let DefinitionCommand { kind, action } = command;
    match action {
        Action::Create(create) => {
            let body = create.body(connection.project()?)?;
            let answer = connection.client.post(&Route::new([kind.path]), &body).await?;
            connection.object(&answer, show::id, |one| show::table(kind, std::slice::from_ref(one)).render(""))
        }
        Action::List(list) => {
            let answer = connection.client.get(&list.route(kind.path, connection)).await?;
            connection.list(&answer, &format!("{}s", kind.word()), show::id, |all| show::table(kind, all))
        }
        Action::Get(get) => {
            let id = connection.definition_id(kind, &get.one).await?;
            let route = Route::new([kind.path, &id]).query("version", get.at_version);
            let answer = connection.client.get(&route).await?;
            connection.object(&answer, show::id, |one| show::details(kind, one))
        }
        Action::Patch(patch) => {
            let id = connection.definition_id(kind, &patch.one).await?;
            let answer = connection.client.patch(&Route::new([kind.path, &id]), &patch.body()?).await?;
            connection.object(&answer, show::id, |one| show::table(kind, std::slice::from_ref(one)).render(""))
        }
        Action::Delete(one) => {
            let id = connection.definition_id(kind, &one.name).await?;
            connection.client.delete(&Route::new([kind.path, &id])).await?;
            let name = if one.name == id { String::new() } else { format!("{} ", one.name) };
            connection.console.note(&format!("{} {name}({id}) is deleted", kind.word()));
            Ok(Exit::Success)
        }
        Action::History(one) => {
            let id = connection.definition_id(kind, &one.name).await?;
            operations::history(kind.entity_kind, &id, connection).await
        }
    }
}

impl Connection {
    /// Id of an agent given by name within the project, or by id.
    pub(crate) async fn agent_id(&self, agent: &str) -> Result<String, CliError> {
        let found = self.definition_id(&Kind::of::<Agent>(), agent).await;
        found.map_err(|error| match error {
            // In earlier releases this flag named a program.
            error if error.exit() == Exit::NotFound => {
                CliError::refused(Exit::NotFound, format!("{error}; to name a program to run, use --agent-type"))
            }
            error => error,
        })
    }

    /// Id of a definition given by name within the project, or by id. A name may look like an id, so names are looked up first; a
    /// prefix `id:` says that an id is meant.
    async fn definition_id(&self, kind: &Kind, given: &str) -> Result<String, CliError> {
        if let Some(id) = given.strip_prefix("id:").filter(|id| is_id(id)) {
            return Ok(id.to_owned());
        }
        let route = Route::new([kind.path]).query("name", Some(given)).query("project_id", self.chosen_project());
        let found: Page<Value> = match self.client.get(&route.query("size", Some(10))).await {
            // No such project: an id does not need one.
            Err(CliError::Api { status: 404, .. }) if is_id(given) => return Ok(given.to_owned()),
            found => found?.decode()?,
        };
        let (word, command) = (kind.word(), &kind.command);
        match found.items.as_slice() {
            [one] => Ok(show::id(one).to_owned()),
            [] if is_id(given) => Ok(given.to_owned()),
            [] => Err(CliError::refused(Exit::NotFound, format!("no {word} '{given}'; see 'ambient {command} list'"))),
            several => {
                let ids = several.iter().map(show::id).collect::<Vec<_>>().join(", ");
                let reason =
                    format!("{} in several projects are named '{given}'; give the id of one: {ids}", kind.alias);
                Err(CliError::refused(Exit::Conflict, reason))
            }
        }
    }
}

#[cfg(test)]
mod tests;
