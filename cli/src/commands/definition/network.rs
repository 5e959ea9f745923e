//! The network, for bodies that have one: a word or hosts.

use ambient_wire::network::Network;
use clap::{Arg, ArgMatches, Command};
use serde_json::{Map, Value, json};

use super::super::input;

const FIELD: &str = "network";

/// Whether a body has a network.
pub(super) fn is_in(schema: &Value) -> bool {
    schema["properties"].get(FIELD).is_some()
}

/// Adds the flag.
pub(super) fn with_flag(command: Command) -> Command {
    let about = "What agents may reach of the network: open, none, or hosts separated by commas, such as github.com,*.crates.io";
    command.arg(Arg::new(FIELD).long(FIELD).value_name("open|none|HOST,…").value_parser(input::network).help(about))
}

/// What is given.
pub(super) fn given(matches: &ArgMatches) -> Option<Network> {
    matches.try_get_one::<Network>(FIELD).ok().flatten().cloned()
}

/// Adds it to a body.
pub(super) fn add_to(body: &mut Map<String, Value>, network: Option<Network>) {
    body.extend(network.map(|network| (FIELD.to_owned(), json!(network))));
}
