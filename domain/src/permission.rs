//! What an agent may do without asking, and answers to what it asks.
//!
//! Sessions, agents and projects each have permissions. The session's come first, then its agent's, then its project's: the first rule
//! that matches decides, whoever wrote it. What rules look at is what the agent claims: they are convenience, confinement is the boundary.

use serde::{Deserialize, Serialize};

use crate::{
    entity::{Refusal, RefusalCode},
    name,
};

/// Most rules of one owner.
pub const MAX_RULES: usize = 100;
/// Longest pattern of a rule, bytes.
pub const MAX_PATTERN: usize = 4096;
/// Longest time that a request may wait, seconds.
const MAX_TIMEOUT: i64 = 30 * 86_400;

/// What one owner says: a session, an agent or a project. What is absent is left to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    /// Tried in order; the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PermissionRule>,
    /// What happens if no rule matches; `ask` if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<PermissionEffect>,
    /// Seconds after which an unanswered request is rejected; 0 = it waits as long as the session runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Whether an answer that was lost with agent or runner answers the repeated request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_answers: Option<bool>,
}

/// A rule: matches if everything that it names does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionRule {
    /// What happens.
    pub effect: PermissionEffect,
    /// Sort of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolKind>,
    /// The whole command, with `*` for any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Files that the call is about: every one for `allow`, any for the others; with `*` for any text but `/` and `**` for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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

/// Sort of a tool call, as the agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    missing_docs,
    reason = "the names say it; but for `push`, which is the runner's, they are those of the Agent Client Protocol"
)]
pub enum ToolKind {
    Read,
    Edit,
    Delete,
    Move,
    Search,
    Execute,
    Think,
    Fetch,
    SwitchMode,
    Push,
    #[default]
    Other,
}

/// An answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Allowed this time.
    Once,
    /// Allowed from now on.
    Always,
    /// Not allowed.
    Reject,
}

impl Answer {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Always => "always",
            Self::Reject => "reject",
        }
    }
}

impl Permissions {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What these owners say together, the first first.
    #[must_use]
    pub fn merged<'a>(owners: impl IntoIterator<Item = &'a Self>) -> Self {
        owners.into_iter().fold(Self::default(), |mut all, next| {
            all.rules.extend_from_slice(&next.rules);
            all.otherwise = all.otherwise.or(next.otherwise);
            all.timeout = all.timeout.or(next.timeout);
            all.repeat_answers = all.repeat_answers.or(next.repeat_answers);
            all
        })
    }

    /// Checks every field; `field` is the name of all of it.
    ///
    /// # Errors
    /// A refusal that names the field.
    pub fn validate(&self, field: &str) -> Result<(), Refusal> {
        name::at_most(MAX_RULES, &format!("{field}.rules"), self.rules.len())?;
        for (i, rule) in self.rules.iter().enumerate() {
            pattern(&format!("{field}.rules[{i}].command"), rule.command.as_deref())?;
            pattern(&format!("{field}.rules[{i}].path"), rule.path.as_deref())?;
        }
        if self.timeout.is_some_and(|t| !(0..=MAX_TIMEOUT).contains(&t)) {
            return Err(Refusal::invalid(
                format!("{field}.timeout"),
                format!("must be 0 (none) to {MAX_TIMEOUT} seconds"),
            ));
        }
        Ok(())
    }
}

fn pattern(field: &str, given: Option<&str>) -> Result<(), Refusal> {
    match given {
        Some(given) if given.trim().is_empty() => Err(Refusal::invalid(field, "must not be empty")),
        Some(given) if given.len() > MAX_PATTERN => {
            Err(Refusal::invalid(field, format!("must have at most {MAX_PATTERN} bytes")))
        }
        Some(given) if given.contains('\0') => Err(Refusal::invalid(field, "must not contain NUL")),
        _ => Ok(()),
    }
}

impl PermissionRule {
    /// The rule that allows just such a call from now on. None if a rule cannot say exactly that: of several commands at once, or what has a
    /// `*`, a rule would allow nothing or too much; and a call without a command and with no one file is not described well enough.
    #[must_use]
    pub fn allowing(tool: ToolKind, command: Option<&str>, paths: &[String]) -> Option<Self> {
        let effect = PermissionEffect::Allow;
        let exact = |text: &str| !text.trim().is_empty() && text.len() <= MAX_PATTERN && !text.contains(['*', '\0']);
        match (command, paths) {
            (Some(command), _) if exact(command) && !is_compound(command.trim()) => {
                Some(Self { effect, tool: Some(tool), command: Some(command.trim().to_owned()), path: None })
            }
            (None, [path]) if exact(path) && !leads_out(path) => {
                Some(Self { effect, tool: Some(tool), command: None, path: Some(path.clone()) })
            }
            _ => None,
        }
    }
}

/// Whether a shell may make several commands of it, or put something in its place. Runners let no such command match an `allow`.
fn is_compound(command: &str) -> bool {
    command.contains([';', '&', '|', '<', '>', '(', ')', '{', '}', '`', '\\', '\n', '\r'])
}

/// Whether a path may lead elsewhere than it says. Runners let no such path match a rule.
fn leads_out(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// Refuses one rule too many.
pub(crate) fn room_for_a_rule(rules: &[PermissionRule]) -> Result<(), Refusal> {
    if rules.len() < MAX_RULES {
        return Ok(());
    }
    Err(Refusal {
        code: RefusalCode::Conflict,
        field: Some("answer".to_owned()),
        reason: format!("the Session has {MAX_RULES} permission rules already: remove some, or answer once"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(timeout: Option<i64>, otherwise: Option<PermissionEffect>, command: &str) -> Permissions {
        let rule = PermissionRule {
            effect: PermissionEffect::Deny,
            tool: None,
            command: Some(command.to_owned()),
            path: None,
        };
        Permissions { rules: vec![rule], otherwise, timeout, repeat_answers: None }
    }

    #[test]
    fn the_first_owner_that_says_something_decides_and_rules_keep_their_order() {
        let session = said(None, None, "a");
        let agent = said(Some(0), Some(PermissionEffect::Allow), "b");
        let project = said(Some(9), Some(PermissionEffect::Deny), "c");
        let all = Permissions::merged([&session, &agent, &project]);
        let commands: Vec<_> = all.rules.iter().filter_map(|rule| rule.command.as_deref()).collect();
        assert_eq!(commands, ["a", "b", "c"]);
        assert_eq!((all.timeout, all.otherwise, all.repeat_answers), (Some(0), Some(PermissionEffect::Allow), None));
        assert!(Permissions::merged([]).is_empty());
    }

    #[test]
    fn a_call_is_allowed_for_ever_only_by_a_rule_that_says_exactly_that() {
        let allowing = |command: Option<&str>, paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            PermissionRule::allowing(ToolKind::Execute, command, &paths)
        };
        let rule = allowing(Some(" cargo test\n"), &["a", "b"]).unwrap();
        assert_eq!((rule.command.as_deref(), rule.path), (Some("cargo test"), None));
        assert_eq!(allowing(None, &["src/a.rs"]).unwrap().path.as_deref(), Some("src/a.rs"));
        let inexact =
            ["rm *", "a; b", "a && b", "a | b", "a $(b)", "a ${b}", "a\\;b", "a `b`", "a\nb", "a > b", "", " "];
        assert!(inexact.iter().all(|command| allowing(Some(command), &["a"]).is_none()));
        assert!(
            allowing(None, &[]).is_none() && allowing(None, &["a", "b"]).is_none() && allowing(None, &["*"]).is_none()
        );
        assert!(allowing(Some(&"x".repeat(MAX_PATTERN + 1)), &[]).is_none());
    }

    #[test]
    fn what_is_wrong_with_permissions_is_told_with_its_field() {
        let field = |permissions: &Permissions| permissions.validate("permissions").unwrap_err().field.unwrap();
        assert_eq!(field(&said(Some(-1), None, "a")), "permissions.timeout");
        assert_eq!(field(&said(None, None, " ")), "permissions.rules[0].command");
        let mut many = said(None, None, "a");
        many.rules = vec![many.rules[0].clone(); MAX_RULES + 1];
        assert_eq!(field(&many), "permissions.rules");
        assert!(said(Some(0), None, "a").validate("permissions").is_ok());
    }
}
