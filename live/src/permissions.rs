//! Permissions and answers as the domain has them, in the runner's form and back. The only place that knows both.

use ambient_domain::{agent::Agent, permission as domain, project::ProjectSpec};
use ambient_wire::{
    permission::{PermissionEffect, PermissionPolicy, PermissionRule},
    runner_event::{PermissionAnswer, PermissionOutcome, ToolKind},
};

/// What a session's agent and project say about permissions. A deleted agent says nothing.
#[must_use]
pub fn inherited(agent: Option<&Agent>, project: &ProjectSpec) -> domain::Permissions {
    let of_agent = agent.filter(|agent| agent.deleted_at.is_none()).map(|agent| &agent.spec.permissions);
    domain::Permissions::merged(of_agent.into_iter().chain([&project.settings.permissions]))
}

/// What an agent may do without asking: the policy that a runner goes by.
#[must_use]
pub fn policy(permissions: &domain::Permissions) -> PermissionPolicy {
    let domain::Permissions { rules, otherwise, timeout, repeat_answers } = permissions;
    PermissionPolicy {
        rules: rules.iter().map(rule).collect(),
        otherwise: effect(otherwise.unwrap_or_default()),
        timeout: timeout.filter(|seconds| *seconds > 0),
        repeat_answers: repeat_answers.unwrap_or_default(),
    }
}

/// A rule.
#[must_use]
pub fn rule(rule: &domain::PermissionRule) -> PermissionRule {
    let domain::PermissionRule { effect: what, tool, command, path } = rule;
    PermissionRule { effect: effect(*what), tool: tool.map(tool_kind), command: command.clone(), path: path.clone() }
}

/// A rule, in the domain's form.
#[must_use]
pub fn rule_of(rule: PermissionRule) -> domain::PermissionRule {
    let PermissionRule { effect: what, tool, command, path } = rule;
    domain::PermissionRule { effect: effect_of(what), tool: tool.map(tool_kind_of), command, path }
}

macro_rules! same_names {
    ($(#[$about:meta])* $to:ident, $(#[$back_about:meta])* $from:ident: $domain:ty, $wire:ty { $($name:ident),+ }) => {
        $(#[$about])*
        #[must_use]
        pub fn $to(given: $domain) -> $wire {
            match given { $(<$domain>::$name => <$wire>::$name),+ }
        }
        $(#[$back_about])*
        #[must_use]
        pub fn $from(given: $wire) -> $domain {
            match given { $(<$wire>::$name => <$domain>::$name),+ }
        }
    };
}

same_names! {
    /// What a rule does.
    effect,
    /// What a rule does, in the domain's form.
    effect_of: domain::PermissionEffect, PermissionEffect { Allow, Ask, Deny }
}

same_names! {
    /// A sort of tool call.
    tool_kind,
    /// A sort of tool call, in the domain's form.
    tool_kind_of: domain::ToolKind, ToolKind { Read, Edit, Delete, Move, Search, Execute, Think, Fetch, SwitchMode, Push, Other }
}

same_names! {
    /// An answer.
    answer,
    /// An answer, in the domain's form.
    answer_of: domain::Answer, PermissionAnswer { Once, Always, Reject }
}

same_names! {
    /// How a request ended.
    outcome,
    /// How a request ended, in the domain's form.
    outcome_of: ambient_domain::session::InterruptOutcome, PermissionOutcome { Answered, Cancelled, Expired, Lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_says_what_the_permissions_say_and_asks_if_they_say_nothing() {
        let said = serde_json::json!({
            "rules": [{ "effect": "allow", "tool": "execute", "command": "make *" }, { "effect": "deny", "path": "secrets/**" }],
            "timeout": 0, "repeat_answers": true
        });
        let said: domain::Permissions = serde_json::from_value(said).unwrap();
        let policy = policy(&said);
        assert_eq!((policy.otherwise, policy.timeout, policy.repeat_answers), (PermissionEffect::Ask, None, true));
        let rules = serde_json::to_value(&policy.rules).unwrap();
        assert_eq!(rules, serde_json::to_value(&said.rules).unwrap());
    }
}
