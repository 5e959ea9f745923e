//! What a session's agent may reach of the network, as people say it. How an entry of the list is read is not for here to say.

use serde::{Deserialize, Serialize};

use crate::entity::Refusal;

/// Most entries of an allow-list.
pub const MAX_ALLOWED: usize = 100;
/// Longest entry, bytes.
const MAX_ENTRY: usize = 265;

/// What an agent may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// How much.
    pub mode: NetworkMode,
    /// Hosts, as `host`, `*.host` or `host:port`; only with [`NetworkMode::AllowList`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
}

/// How much an agent may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// What the machine reaches.
    Open,
    /// Nothing but the session's model endpoint.
    None,
    /// The same, and what the list names.
    AllowList,
}

impl Network {
    /// Checks every field.
    ///
    /// # Errors
    /// A refusal that names the field.
    pub fn validate(&self) -> Result<(), Refusal> {
        if (self.mode == NetworkMode::AllowList) == self.allow.is_empty() {
            return Err(Refusal::invalid(
                "network.allow",
                "names the hosts of mode 'allow_list', and is for no other mode",
            ));
        }
        if self.allow.len() > MAX_ALLOWED {
            return Err(Refusal::invalid("network.allow", format!("has more than {MAX_ALLOWED} entries")));
        }
        let is_entry =
            |entry: &String| (1..=MAX_ENTRY).contains(&entry.len()) && entry.bytes().all(|b| b.is_ascii_graphic());
        match self.allow.iter().position(|entry| !is_entry(entry)) {
            Some(i) => {
                Err(Refusal::invalid(format!("network.allow[{i}]"), "must have 1 to 265 visible ASCII characters"))
            }
            None => Ok(()),
        }
    }
}
