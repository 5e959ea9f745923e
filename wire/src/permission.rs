//! Rules on what an agent may do without asking, and answers to what it asks.
//!
//! Rules are convenience: what they look at is what the agent claims. What it can do at all is bounded by its confinement.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, IntoDeserializer},
};
use utoipa::ToSchema;

use crate::{
    api::objects,
    runner_event::{PermissionAnswer, ToolKind},
};

/// What a session, an agent or a project says about what agents may do without asking. The session's rules come first, then its agent's,
/// then its project's, and the first that matches decides; of the other fields the first that is present counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    /// Tried in order; the first that matches decides. At most 100.
    #[serde(default, deserialize_with = "objects", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PermissionRule>,
    /// What happens if no rule matches; `ask` if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<PermissionEffect>,
    /// Seconds after which an unanswered request is rejected; 0, or absent everywhere: it waits as long as the session runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Whether a request that is repeated, because agent or runner were lost before they got the answer, gets that answer without asking again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_answers: Option<bool>,
}

impl Permissions {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Rules, tried in order; the first that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PermissionPolicy {
    /// At most 300: those of a session, its agent and its project.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PermissionRule>,
    /// What happens if no rule matches.
    #[serde(default)]
    pub otherwise: PermissionEffect,
    /// Seconds after which an unanswered request is rejected, 1 to 2592000; absent = it waits as long as the session runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Answers a request that is repeated, because agent or runner were lost before they got the answer, with the earlier answer.
    #[serde(default)]
    pub repeat_answers: bool,
}

/// A rule: matches if everything that it names does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PermissionRule {
    /// What happens.
    pub effect: PermissionEffect,
    /// Sort of the call.
    #[serde(default, deserialize_with = "known_tool", skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolKind>,
    /// The whole command, with `*` for any text. A command of several (`;`, `&&`, `|`, `$(…)`, a new line, …) matches no `allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Files that the call is about, relative to the workspace, with `*` for any text but `/` and `**` for any: an `allow` must match every one of them,
    /// another rule any. A call without files matches no such rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// An agent may say any sort, but a rule for one that is misspelt would be another rule.
fn known_tool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ToolKind>, D::Error> {
    let Some(name) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let kind = ToolKind::deserialize(name.as_str().into_deserializer())?;
    if kind == ToolKind::Other && name != "other" {
        let known = "read, edit, delete, move, search, execute, think, fetch, switch_mode, push, other";
        return Err(D::Error::custom(format!("must be one of {known}")));
    }
    Ok(Some(kind))
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PermissionEffect {
    /// The agent may.
    Allow,
    /// A person is asked.
    #[default]
    Ask,
    /// The agent may not.
    Deny,
}

/// A person's answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InterruptAnswer {
    /// The answer.
    pub answer: PermissionAnswer,
    /// With `reject`: what the agent should do instead; it is told as the next message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_for_a_sort_of_call_that_there_is_not_is_refused() {
        let read =
            |tool: &str| serde_json::from_str::<PermissionRule>(&format!(r#"{{"effect":"allow","tool":"{tool}"}}"#));
        assert_eq!(read("execute").unwrap().tool, Some(ToolKind::Execute));
        assert_eq!(read("other").unwrap().tool, Some(ToolKind::Other));
        assert!(read("shell").unwrap_err().to_string().contains("execute"));
    }
}
