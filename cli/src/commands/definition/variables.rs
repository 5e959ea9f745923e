//! Environment variables, for Kinds that have them: one flag each, as for sessions.

use ambient_wire::session::SecretText;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value, json};

use super::{super::input, arguments::add};
use crate::error::CliError;

const FIELD: &str = "environment_variables";
const SET: &str = "env";
const REMOVE: &str = "remove-env";

/// The given variables.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables {
    set: Vec<(String, SecretText)>,
    removed: Vec<String>,
}

/// Whether a body has variables.
pub(super) fn are_in(schema: &Value) -> bool {
    schema["properties"].get(FIELD).is_some()
}

/// Adds the flags.
pub(super) fn with_flags(command: Command, creates: bool) -> Command {
    let about = "Environment variable, sealed and never shown again; with NAME alone its value is taken from this terminal's environment; \
                 may be repeated";
    let set = Arg::new(SET).long(SET).value_name("NAME[=VALUE]").value_parser(input::variable);
    let command = command.arg(set.action(ArgAction::Append).help(about));
    if creates {
        return command;
    }
    let remove = Arg::new(REMOVE).long(REMOVE).value_name("NAME").action(ArgAction::Append);
    command.arg(remove.help("Variable to remove; may be repeated"))
}

/// What the flags say; nothing if there are none.
pub(super) fn given(matches: &ArgMatches) -> Variables {
    let set = matches.try_get_many::<(String, SecretText)>(SET).ok().flatten();
    let removed = matches.try_get_many::<String>(REMOVE).ok().flatten();
    Variables {
        set: set.into_iter().flatten().cloned().collect(),
        removed: removed.into_iter().flatten().cloned().collect(),
    }
}

impl Variables {
    /// Adds them to a body.
    pub(super) fn add_to(self, body: &mut Map<String, Value>) -> Result<(), CliError> {
        let set = self.set.into_iter().map(|(name, value)| (name, json!(value)));
        let removed = self.removed.into_iter().map(|name| (name, Value::Null));
        add(body, FIELD, input::by_key("--env", set.chain(removed))?)
    }
}
