//! Permissions, for bodies that have them: a file.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::{Map, Value, json};

use super::super::input;
use crate::error::CliError;

const FIELD: &str = "permissions";

/// Whether a body has permissions.
pub(super) fn are_in(schema: &Value) -> bool {
    schema["properties"].get(FIELD).is_some()
}

/// Adds the flag.
pub(super) fn with_flag(command: Command) -> Command {
    let about = "File with what agents may do without asking, as a JSON object in the API's form, in place of what was said before; - is \
                 standard input";
    command.arg(Arg::new(FIELD).long(FIELD).value_name("FILE").value_parser(value_parser!(PathBuf)).help(about))
}

/// The file.
pub(super) fn given(matches: &ArgMatches) -> Option<PathBuf> {
    matches.try_get_one::<PathBuf>(FIELD).ok().flatten().cloned()
}

/// Adds what is in the file to a body.
pub(super) fn add_to(body: &mut Map<String, Value>, file: Option<&Path>) -> Result<(), CliError> {
    let permissions = input::permissions(file)?;
    body.extend(permissions.map(|permissions| (FIELD.to_owned(), json!(permissions))));
    Ok(())
}
