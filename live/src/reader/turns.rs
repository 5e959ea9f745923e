//! What a batch of a runner's log says about turns, usage and the run, for the tables that outlive the log's events.

use ambient_persistence::{
    AGENT, ModelUsage, PROXY, RunnerRecord, TurnChange, TurnChanges, TurnEnd, TurnStarted, UsageChange,
};
use ambient_wire::runner_event::{RunnerEvent, TurnOutcome, TurnResult, Usage, UsageSource};
use chrono::{DateTime, Utc};
use serde_json::json;

use super::runs;

/// Longest text that is kept, characters.
pub(super) const MAX_WORDS: usize = 2_000;
/// Longest name of a model, characters.
const MAX_MODEL: usize = 200;
/// What can say anything about them: most records do not, and are not parsed.
const TYPES: [&str; 12] = [
    "turn.started",
    "turn.result",
    "turn.ended",
    "tool.started",
    "permission.requested",
    "permission.decided",
    "usage",
    "repo.snapshot",
    "repo.snapshot_failed",
    "repo.pushed",
    "repo.push_failed",
    "repo.abandoned",
];

/// What the records say, in order.
pub(super) fn changes(records: &[RunnerRecord]) -> TurnChanges {
    let mut found = TurnChanges::default();
    for (index, record) in records.iter().enumerate() {
        if TYPES.contains(&record.event_type.as_str())
            && let Some(event) = RunnerEvent::read(&record.data)
        {
            runs::take(&mut found.run, index, record.at, &event);
            take(&mut found, index, record.at, event);
        }
    }
    found
}

fn take(found: &mut TurnChanges, index: usize, at: DateTime<Utc>, event: RunnerEvent) {
    match event {
        RunnerEvent::TurnStarted { turn_id, message_id } => {
            let started = Some(TurnStarted { message_id: short(&message_id, MAX_MODEL), at, index });
            found.turns.push(TurnChange { number: number(&turn_id), started, ..TurnChange::default() });
        }
        RunnerEvent::TurnResult { turn_id, result, message } => {
            named(found, &turn_id).result = Some(end(result, &message));
        }
        RunnerEvent::TurnEnded { turn_id, result, problems, repos, .. } => {
            let turn = named(found, &turn_id);
            turn.result.get_or_insert_with(|| end(result, ""));
            turn.ended = Some((at, index));
            for problem in problems.into_iter().flatten() {
                turn.repos.push(json!({ "repo": problem.repo, "failed": short(&problem.reason, MAX_WORDS) }));
            }
            for position in repos {
                let told = json!({ "branch": position.branch, "head": position.head });
                turn.repos.push(json!({ "repo": position.repo, "position": told }));
            }
        }
        RunnerEvent::ToolStarted { .. } => current(found).tool_calls += 1,
        RunnerEvent::PermissionRequested { .. } | RunnerEvent::PermissionDecided { .. } => {
            current(found).permission_requests += 1;
        }
        RunnerEvent::Usage { turn_id, source, model, usage, .. } => {
            found.usage.extend(used(&turn_id, source, &model, &usage, at));
        }
        RunnerEvent::RepoSnapshot { snapshot } => {
            // The patch is in the log.
            let kept = json!({
                "commit": snapshot.commit, "head": snapshot.head, "base": snapshot.base, "changes": snapshot.changes,
                "left_out": snapshot.left_out.len(), "tree": snapshot.tree, "packs": snapshot.packs,
                "not_stored": snapshot.not_stored.map(|reason| short(&reason, MAX_WORDS)),
            });
            current(found).repos.push(json!({ "repo": snapshot.repo, "snapshot": kept }));
        }
        RunnerEvent::RepoPushFailed { repo, url, branch, reason } => {
            let failed = short(&format!("it could not be pushed to branch {branch} of {url}: {reason}"), MAX_WORDS);
            current(found).repos.push(json!({ "repo": repo, "failed": failed }));
        }
        RunnerEvent::RepoPushed { repo, pushed } => {
            current(found).repos.push(json!({ "repo": repo, "pushed": pushed }));
        }
        _ => {}
    }
}

/// `{session}/{run}/{number}`.
fn number(turn_id: &str) -> Option<i64> {
    turn_id.rsplit('/').next()?.parse().ok().filter(|number| *number > 0)
}

fn named<'f>(found: &'f mut TurnChanges, turn_id: &str) -> &'f mut TurnChange {
    let number = number(turn_id);
    if found.turns.last().is_none_or(|last| last.number != number) {
        found.turns.push(TurnChange { number, ..TurnChange::default() });
    }
    last(found)
}

/// The turn that the last record was about.
fn current(found: &mut TurnChanges) -> &mut TurnChange {
    last(found)
}

fn last(found: &mut TurnChanges) -> &mut TurnChange {
    if found.turns.is_empty() {
        found.turns.push(TurnChange::default());
    }
    let end = found.turns.len() - 1;
    &mut found.turns[end]
}

fn end(result: TurnResult, message: &str) -> TurnEnd {
    let outcome = match result.outcome {
        TurnOutcome::Finished => "finished",
        TurnOutcome::Error => "error",
        TurnOutcome::Interrupted => "interrupted",
    };
    let TurnResult { outcome: _, code, exit_code, stop_reason } = result;
    TurnEnd {
        outcome: outcome.to_owned(),
        code: code.map(|code| short(&code, MAX_MODEL)),
        message: short(message, MAX_WORDS),
        exit_code,
        stop_reason: stop_reason.map(|reason| short(&reason, MAX_MODEL)),
    }
}

/// Nothing, if no figure was said.
fn used(turn_id: &str, source: UsageSource, model: &str, usage: &Usage, at: DateTime<Utc>) -> Option<UsageChange> {
    let Usage { input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_micros, currency } = usage;
    let figures = [input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_micros];
    if source == UsageSource::Agent && figures.iter().all(|figure| figure.is_none()) {
        return None;
    }
    let [input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_micros] =
        figures.map(|figure| i64::try_from(figure.unwrap_or(0)).unwrap_or(i64::MAX));
    let currency = currency.as_deref().map(|currency| short(currency, 3)).unwrap_or_default();
    let usage = ModelUsage {
        calls: 1,
        input_tokens,
        cached_input_tokens,
        output_tokens,
        reasoning_tokens,
        cost_micros,
        currency,
    };
    let source = if source == UsageSource::Proxy { PROXY } else { AGENT };
    Some(UsageChange { turn: number(turn_id).unwrap_or(0), source, model: short(model, MAX_MODEL), at, usage })
}

pub(super) fn short(text: &str, most: usize) -> String {
    text.chars().map(|letter| if letter == '\0' { '\u{fffd}' } else { letter }).take(most).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn records(events: Vec<Value>) -> Vec<RunnerRecord> {
        let record = |(n, data): (i64, Value)| {
            let event_type = data["type"].as_str().unwrap_or_default().to_owned();
            RunnerRecord { n, at: DateTime::UNIX_EPOCH, event_type, data }
        };
        (1..).zip(events).map(record).collect()
    }

    #[test]
    fn a_batch_tells_where_turns_begin_and_end_and_what_happened_in_them() {
        let found = changes(&records(vec![
            json!({"type": "repo.snapshot_failed", "repo": "a", "reason": "x"}),
            json!({"type": "tool.started", "tool_call_id": "1", "title": "t", "kind": "read", "status": "pending"}),
            json!({"type": "turn.ended", "turn_id": "s/1/1", "message_id": "m", "last_message_seq": 1, "outcome": "finished",
                   "problems": [{"repo": "a", "missing": true, "reason": "gone"}], "repos": [{"repo": "b", "branch": "main", "head": "12"}]}),
            json!({"type": "turn.started", "turn_id": "s/1/2", "message_id": "m2"}),
            json!({"type": "agent.text", "message_id": "x", "text": "hello"}),
            json!({"type": "tool.started", "tool_call_id": "2", "title": "t", "kind": "read", "status": "pending"}),
            json!({"type": "turn.result", "turn_id": "s/1/2", "outcome": "error", "code": "AgentError", "message": "no\u{0}"}),
        ]));
        let [before, ended, next] = &found.turns[..] else { panic!("{found:#?}") };
        assert_eq!((before.number, before.tool_calls, before.ended), (None, 1, None));
        assert_eq!((ended.number, ended.ended.map(|(_, index)| index), ended.repos.len()), (Some(1), Some(2), 2));
        assert_eq!(next.started.as_ref().map(|started| started.index), Some(3));
        assert_eq!((next.number, next.tool_calls, next.ended), (Some(2), 1, None));
        assert_eq!(next.result.as_ref().map(|end| (&*end.outcome, &*end.message)), Some(("error", "no\u{fffd}")));
    }

    #[test]
    fn usage_belongs_to_its_turn_and_reports_without_figures_say_nothing() {
        let found = changes(&records(vec![
            json!({"type": "usage", "turn_id": "s/1/3", "source": "proxy", "model": "m", "input_tokens": 5, "output_tokens": 18446744073709551615u64}),
            json!({"type": "usage", "turn_id": "", "source": "agent", "raw": {"used": 3}}),
            json!({"type": "usage", "turn_id": "odd", "source": "agent", "cost_micros": 3, "currency": "USD."}),
        ]));
        let told: Vec<_> =
            found.usage.iter().map(|u| (u.turn, u.source, u.usage.input_tokens, u.usage.output_tokens)).collect();
        assert_eq!(told, [(3, PROXY, 5, i64::MAX), (0, AGENT, 0, 0)]);
        assert_eq!((found.usage[1].usage.cost_micros, &*found.usage[1].usage.currency), (3, "USD"));
        assert!(found.turns.is_empty());
    }
}
