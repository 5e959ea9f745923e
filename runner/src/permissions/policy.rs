//! Rules: the first that matches decides.

use ambient_runner_protocol::PermissionPolicy;
use ambient_wire::{
    permission::{PermissionEffect, PermissionRule},
    runner_event::ToolKind,
};

/// Signs of a command that does more than its first word says: such a command matches no `allow`.
/// The domain has the same list, for the rules that an "always" adds.
const COMPOUND: [char; 13] = [';', '&', '|', '<', '>', '(', ')', '{', '}', '`', '\\', '\n', '\r'];

/// What an agent asks for, as it says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) kind: ToolKind,
    pub(crate) command: Option<&'a str>,
    /// Relative to the workspace where they are in it.
    pub(crate) paths: &'a [String],
}

/// What the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ask,
    /// Allowed or not, by this rule.
    Decided {
        allowed: bool,
        rule: String,
    },
}

pub(super) fn judge(policy: &PermissionPolicy, asked: &Asked<'_>) -> Verdict {
    let rule = policy.rules.iter().find(|rule| matches(rule, asked));
    let (effect, words) = match rule {
        Some(rule) => (rule.effect, words(rule)),
        None => (policy.otherwise, "no rule matches".to_owned()),
    };
    match effect {
        PermissionEffect::Ask => Verdict::Ask,
        PermissionEffect::Allow => Verdict::Decided { allowed: true, rule: words },
        PermissionEffect::Deny => Verdict::Decided { allowed: false, rule: words },
    }
}

/// A push happens because the session says so: a rule that names neither pushes nor commands does not speak of it.
pub(super) fn judge_push(policy: &PermissionPolicy, command: &str) -> Verdict {
    let is_about = |rule: &&PermissionRule| rule.tool == Some(ToolKind::Push) || rule.command.is_some();
    let rules = policy.rules.iter().filter(is_about).cloned().collect();
    let about = PermissionPolicy { rules, otherwise: PermissionEffect::Allow, ..PermissionPolicy::default() };
    judge(&about, &Asked { kind: ToolKind::Push, command: Some(command), paths: &[] })
}

/// Stands at the end of a text that was cut: nobody knows what follows, so it matches no `allow`.
pub(crate) const CUT: char = '…';

fn matches(rule: &PermissionRule, asked: &Asked<'_>) -> bool {
    if rule.tool.is_some_and(|tool| tool != asked.kind) {
        return false;
    }
    let is_cut = |text: &str| text.ends_with(CUT);
    if rule.effect == PermissionEffect::Allow
        && (asked.command.is_some_and(|command| is_compound(command) || is_cut(command))
            || asked.paths.iter().any(|path| is_cut(path)))
    {
        return false;
    }
    let command = match (&rule.command, asked.command) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(pattern), Some(command)) => is_like(pattern, command.trim(), None),
    };
    let is_like_path = |pattern: &str, path: &str| is_like(pattern, path, Some('/'));
    let path = match &rule.path {
        None => true,
        // An `allow` has to fit all of them, a `deny` any.
        Some(pattern) if rule.effect == PermissionEffect::Allow => {
            let fits = |path: &String| !leads_out(path) && is_like_path(pattern, path);
            !asked.paths.is_empty() && asked.paths.iter().all(fits)
        }
        Some(pattern) => {
            asked.paths.iter().any(|path| is_like_path(pattern, path) || is_like_path(pattern, &resolved(path)))
        }
    };
    command && path
}

/// Whether a shell would make several commands of it, or put something in its place.
fn is_compound(command: &str) -> bool {
    command.contains(COMPOUND)
}

/// A path without `.`, `..` and empty parts, as far as its words go.
fn resolved(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

fn leads_out(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// Whether a text is like a pattern, in which `*` stands for any text without `boundary`, and `**` for any.
fn is_like(pattern: &str, text: &str, boundary: Option<char>) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // reached[j]: the pattern so far fits the first j characters.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut i = 0;
    while i < pattern.len() {
        if pattern[i] == '*' {
            let is_double = pattern.get(i + 1) == Some(&'*');
            i += if is_double { 2 } else { 1 };
            for j in 0..text.len() {
                let crosses = !is_double && boundary == Some(text[j]);
                reached[j + 1] |= reached[j] && !crosses;
            }
            continue;
        }
        for j in (0..text.len()).rev() {
            reached[j + 1] = reached[j] && text[j] == pattern[i];
        }
        reached[0] = false;
        i += 1;
    }
    reached[text.len()]
}

fn words(rule: &PermissionRule) -> String {
    let effect = match rule.effect {
        PermissionEffect::Allow => "allow",
        PermissionEffect::Ask => "ask",
        PermissionEffect::Deny => "deny",
    };
    let tool =
        rule.tool.and_then(|tool| serde_json::to_value(tool).ok()).and_then(|tool| tool.as_str().map(str::to_owned));
    let parts = [("tool", tool), ("command", rule.command.clone()), ("path", rule.path.clone())];
    let parts = parts.into_iter().filter_map(|(name, value)| Some(format!(" {name} {}", value?)));
    format!("{effect}{}", parts.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(
        effect: PermissionEffect,
        tool: Option<ToolKind>,
        command: Option<&str>,
        path: Option<&str>,
    ) -> PermissionRule {
        PermissionRule { effect, tool, command: command.map(str::to_owned), path: path.map(str::to_owned) }
    }

    fn verdict(rules: &[PermissionRule], kind: ToolKind, command: Option<&str>, paths: &[&str]) -> Option<bool> {
        let policy = PermissionPolicy { rules: rules.to_vec(), ..PermissionPolicy::default() };
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        match judge(&policy, &Asked { kind, command, paths: &paths }) {
            Verdict::Ask => None,
            Verdict::Decided { allowed, .. } => Some(allowed),
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_without_one_somebody_is_asked() {
        use PermissionEffect::{Allow, Ask, Deny};
        let rules = [
            rule(Deny, None, Some("git push*"), None),
            rule(Allow, None, Some("git *"), None),
            rule(Ask, Some(ToolKind::Edit), None, Some("secret/**")),
            rule(Allow, Some(ToolKind::Edit), None, Some("src/*.rs")),
        ];
        let run = |command| verdict(&rules, ToolKind::Execute, Some(command), &[]);
        assert_eq!(run("git push origin main"), Some(false));
        assert_eq!(run("git status"), Some(true));
        assert_eq!(run("ls"), None);
        let edit = |paths: &[&str]| verdict(&rules, ToolKind::Edit, None, paths);
        assert_eq!(edit(&["src/main.rs"]), Some(true));
        assert_eq!(edit(&["src/a/main.rs"]), None, "a star does not cross folders");
        assert_eq!(edit(&["src/main.rs", "secret/key.rs"]), None);
        assert_eq!(edit(&["src/main.rs", "README"]), None, "an allow has to fit all files");
        assert_eq!(edit(&["src/../x.rs"]), None);
        assert_eq!(edit(&[]), None, "a call that names no file fits no rule on files");
        assert_eq!(edit(&["src/ma…"]), None, "nobody knows what was cut off");
    }

    #[test]
    fn a_push_goes_by_rules_on_pushes_and_on_commands() {
        use PermissionEffect::{Allow, Ask, Deny};
        let push = |rules: &[PermissionRule], command: &str| {
            let rules = rules.to_vec();
            let policy = PermissionPolicy { rules, otherwise: Deny, ..PermissionPolicy::default() };
            match judge_push(&policy, command) {
                Verdict::Ask => None,
                Verdict::Decided { allowed, .. } => Some(allowed),
            }
        };
        let on = |effect, command| rule(effect, Some(ToolKind::Push), command, None);
        assert_eq!(push(&[], "git push app main"), Some(true), "the session says that it is pushed");
        assert_eq!(push(&[rule(Deny, None, None, None)], "git push app main"), Some(true));
        assert_eq!(push(&[on(Ask, None)], "git push app main"), None);
        let rules =
            [on(Allow, Some("git push app ambient/*")), rule(Deny, None, Some("git push * main"), None), on(Ask, None)];
        assert_eq!(push(&rules, "git push app main"), Some(false));
        assert_eq!(push(&rules, "git push app ambient/x"), Some(true));
        assert_eq!(push(&rules, "git push app ambient/x;y"), None, "an allow is for one command");
        assert_eq!(push(&rules, "git push app other"), None);
    }

    #[test]
    fn another_way_to_write_a_path_leads_past_no_deny() {
        use PermissionEffect::{Allow, Deny};
        let rules = [rule(Deny, None, None, Some("secrets/**")), rule(Allow, Some(ToolKind::Edit), None, None)];
        for path in ["secrets/key", "x/../secrets/key", "secrets//key", "./secrets/./key", "secrets/a/../key"] {
            assert_eq!(verdict(&rules, ToolKind::Edit, None, &[path]), Some(false), "{path}");
        }
        assert_eq!(verdict(&rules, ToolKind::Edit, None, &["src/key"]), Some(true));
    }

    #[test]
    fn a_command_of_several_matches_no_allow_but_every_deny() {
        use PermissionEffect::{Allow, Deny};
        let rules = [rule(Deny, None, Some("*rm -rf*"), None), rule(Allow, None, Some("echo *"), None)];
        for command in [
            "echo a; id",
            "echo a && id",
            "echo a | sh",
            "echo $(id)",
            "echo `id`",
            "echo a > b",
            "echo a\nid",
            "echo a & id",
            "echo <(id)",
            "echo ${x@P}",
            "echo {a,b}",
            "echo a\\\nid",
            "echo aaaa…",
        ] {
            assert_eq!(verdict(&rules, ToolKind::Execute, Some(command), &[]), None, "{command}");
        }
        assert_eq!(verdict(&rules, ToolKind::Execute, Some("echo a b"), &[]), Some(true));
        assert_eq!(verdict(&rules, ToolKind::Execute, Some("ls; rm -rf /"), &[]), Some(false));
    }

    #[test]
    fn patterns() {
        for (pattern, text, boundary, fits) in [
            ("", "", None, true),
            ("*", "", None, true),
            ("a*c", "abbc", None, true),
            ("a*c", "abb", None, false),
            ("*b*", "abc", None, true),
            ("**", "a/b", Some('/'), true),
            ("*", "a/b", Some('/'), false),
            ("a/**/c", "a/b/b/c", Some('/'), true),
            ("ab", "abc", None, false),
        ] {
            assert_eq!(is_like(pattern, text, boundary), fits, "{pattern} {text}");
        }
        let long = "a".repeat(20_000);
        assert!(!is_like("*a*a*a*a*a*a*a*a*b", &long, None), "in reasonable time");
    }
}
