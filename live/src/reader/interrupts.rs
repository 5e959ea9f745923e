//! Facts about permission requests, from the stored log.

use ambient_domain::{
    permission::Answer,
    session::{Fact, PermissionRequest},
};
use ambient_wire::{
    redact,
    runner_event::{self, RunnerEvent},
};
use serde_json::Value;

use super::facts::short;
use crate::permissions;

/// Types of the records.
pub(super) const REQUESTED: &str = "permission.requested";
pub(super) const CLOSED: &str = "permission.closed";

/// Longest command, in characters, and most files that people are shown: runners are not trusted.
const MAX_COMMAND: usize = 2_000;
const MAX_PATHS: usize = 50;
/// Longest title or path, in characters.
const MAX_TITLE: usize = 500;
/// Longest id.
const MAX_ID: usize = 100;

/// The fact in a record about a request, if it is one.
pub(super) fn fact_of(event: &Value) -> Option<Fact> {
    if !matches!(event["type"].as_str()?, REQUESTED | CLOSED) {
        return None;
    }
    match RunnerEvent::read(event)? {
        RunnerEvent::PermissionRequested { request } if is_id(&request.interrupt_id) => {
            Some(Fact::InterruptRaised { request: Box::new(shortened(request)) })
        }
        RunnerEvent::PermissionClosed { interrupt_id, outcome, answer } if is_id(&interrupt_id) => {
            let (outcome, answer) = (permissions::outcome_of(outcome), answer.map(permissions::answer_of));
            Some(Fact::InterruptClosed { interrupt_id, outcome, answer })
        }
        _ => None,
    }
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// In a form that is kept forever: short, and without the credentials of URLs. A rule for what people see would then be another rule than
/// one for what was asked, so that `always` is no answer.
fn shortened(request: runner_event::PermissionRequest) -> PermissionRequest {
    let runner_event::PermissionRequest { command, paths, .. } = &request;
    let shown = command.as_deref().map(|command| kept(command, MAX_COMMAND));
    let files: Vec<String> = paths.iter().take(MAX_PATHS).map(|path| kept(path, MAX_TITLE)).collect();
    let is_exact = shown == *command && files == *paths;
    // Whoever answers sees that there is more: it is in the log.
    let more = (paths.len() > MAX_PATHS).then(|| "…".to_owned());
    let answers = request.answers.iter().take(3).copied().map(permissions::answer_of);
    PermissionRequest {
        turn_id: short(&request.turn_id),
        tool_call_id: short(&request.tool_call_id),
        title: kept(&request.title, MAX_TITLE),
        kind: permissions::tool_kind_of(request.kind),
        answers: answers.filter(|answer| is_exact || *answer != Answer::Always).collect(),
        command: shown,
        paths: files.into_iter().chain(more).collect(),
        fingerprint: short(&request.fingerprint),
        interrupt_id: request.interrupt_id,
    }
}

/// At most `most` characters; what is cut ends with `…`.
fn kept(text: &str, most: usize) -> String {
    let text = redact::text(text);
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use ambient_domain::session::InterruptOutcome;
    use serde_json::json;

    use super::*;

    fn requested(id: &str, command: &str, paths: &[&str]) -> Value {
        json!({
            "type": REQUESTED, "interrupt_id": id, "turn_id": "t", "tool_call_id": "c", "title": "Run it", "kind": "execute",
            "command": command, "paths": paths, "fingerprint": "f", "answers": ["once", "always"]
        })
    }

    #[test]
    fn requests_and_their_ends_are_facts_and_what_is_too_long_is_visibly_cut() {
        let Some(Fact::InterruptRaised { request }) = fact_of(&requested("1-1-1", "make", &["a"])) else { panic!() };
        assert_eq!((request.command.as_deref(), request.paths.len()), (Some("make"), 1));
        assert_eq!(request.answers, [Answer::Once, Answer::Always]);
        let long = "é".repeat(5_000);
        let Some(Fact::InterruptRaised { request }) = fact_of(&requested("1-1-1", &long, &["a"; 60])) else { panic!() };
        assert!(request.command.unwrap().ends_with("é…") && request.paths.len() == 51 && request.paths[50] == "…");
        assert_eq!(request.answers, [Answer::Once], "a rule for what is cut would be another rule");
        let secret = "git fetch https://bot:s3cret@host/x";
        let Some(Fact::InterruptRaised { request }) = fact_of(&requested("1-1-1", secret, &[])) else { panic!() };
        assert!(!format!("{request:?}").contains("s3cret") && request.answers == [Answer::Once], "{request:?}");
        for id in ["", "../health", "a b", &"1".repeat(101)] {
            assert_eq!(fact_of(&requested(id, "make", &[])), None, "{id}");
        }
        let closed = json!({ "type": CLOSED, "interrupt_id": "1-1-1", "outcome": "answered", "answer": "once" });
        let (outcome, answer) = (InterruptOutcome::Answered, Some(Answer::Once));
        let fact = Fact::InterruptClosed { interrupt_id: "1-1-1".to_owned(), outcome, answer };
        assert_eq!(fact_of(&closed), Some(fact));
        assert_eq!(fact_of(&json!({ "type": CLOSED, "interrupt_id": 7 })), None);
    }
}
