//! What is said about models, for bodies that have it: a file.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::{Map, Value, json};

use super::super::input;
use crate::error::CliError;

const FIELD: &str = "models";

/// Whether a body has it.
pub(super) fn are_in(schema: &Value) -> bool {
    schema["properties"].get(FIELD).is_some()
}

/// Adds the flag.
pub(super) fn with_flag(command: Command) -> Command {
    let about = "File with which models may be asked, where, with whose key and how much, as a JSON object in the API's form, in place of \
                 what was said before; - is standard input";
    command.arg(Arg::new(FIELD).long(FIELD).value_name("FILE").value_parser(value_parser!(PathBuf)).help(about))
}

/// The file.
pub(super) fn given(matches: &ArgMatches) -> Option<PathBuf> {
    matches.try_get_one::<PathBuf>(FIELD).ok().flatten().cloned()
}

/// Adds what is in the file to a body.
pub(super) fn add_to(body: &mut Map<String, Value>, file: Option<&Path>) -> Result<(), CliError> {
    let models = input::models(file)?;
    body.extend(models.map(|models| (FIELD.to_owned(), json!(models))));
    Ok(())
}
