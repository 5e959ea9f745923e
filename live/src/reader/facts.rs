//! Facts of a run, from the stored log.

use std::time::Duration;

use ambient_domain::session::{Fact, RepoPosition, RepoProblem, TurnOutcome};
use ambient_persistence::retry::Backoff;
use ambient_persistence::{RunnerCursor, RunnerRecord, StoreError};
use ambient_wire::custom::{self, ENDED_BY_REQUEST};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::Notify, time::timeout};

use super::{Context, RunRef};

const TYPES: &[&str] = &["RUN_STARTED"];
const NAMES: &[&str] = &[custom::ATTEMPT_STARTED, custom::TURN_ENDED, custom::EXIT];
/// Timeout of one attempt to deliver a fact.
const REPORT: Duration = Duration::from_secs(10);

/// Most repositories, and characters of text about each: runners are not trusted.
const MAX_REPOS: usize = 50;
const MAX_TOLD: usize = 500;

/// Whether facts may come from a record.
pub(super) fn matters(record: &RunnerRecord) -> bool {
    let name = || record.data["name"].as_str().unwrap_or_default();
    TYPES.contains(&record.event_type.as_str()) || (record.event_type == "CUSTOM" && NAMES.contains(&name()))
}

/// Reports whenever `due`, forever.
pub(super) async fn report_whenever(context: &Context, run: &RunRef, due: &Notify) {
    let mut backoff = Backoff::new(Duration::from_millis(100), context.options.longest_pause);
    loop {
        match report_all(context, run).await {
            Ok(()) => {
                backoff.reset();
                due.notified().await;
            }
            Err(error) => {
                tracing::warn!(session = run.session_id, %error, "the stored log cannot be read for facts; trying again");
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

/// Whether something stored has not been checked for facts.
pub(super) async fn are_due(context: &Context, run: &RunRef) -> Result<bool, StoreError> {
    let cursors = context.db.runner_cursors(&run.session_id, run.run).await?;
    Ok(cursors.iter().any(|cursor| cursor.facts_reported < cursor.cursor))
}

/// Reports every fact in what is stored, in order, and returns once all were accepted.
pub(super) async fn report_all(context: &Context, run: &RunRef) -> Result<(), StoreError> {
    let cursors = context.db.runner_cursors(&run.session_id, run.run).await?;
    for cursor in cursors.into_iter().rev().filter(|cursor| cursor.facts_reported < cursor.cursor) {
        report_log(context, run, cursor).await?;
    }
    Ok(())
}

async fn report_log(context: &Context, run: &RunRef, cursor: RunnerCursor) -> Result<(), StoreError> {
    let RunnerCursor { log_id, cursor, mut facts_reported, mut facts_attempt } = cursor;
    loop {
        let records = context.db.runner_records(&run.session_id, &log_id, facts_reported, TYPES, NAMES).await?;
        if records.is_empty() {
            break;
        }
        for record in records {
            if let Some(attempt) = started_attempt(&record.data) {
                facts_attempt = attempt;
            } else {
                for fact in facts_of(&record.data) {
                    report(context, run, facts_attempt, &fact).await;
                }
            }
            facts_reported = record.n;
            context.db.set_facts_reported(&run.session_id, &log_id, facts_reported, facts_attempt).await?;
        }
    }
    // The rest has no facts: it need not be checked again.
    context.db.set_facts_reported(&run.session_id, &log_id, cursor, facts_attempt).await
}

/// Delivers a fact, retrying as often as it takes.
async fn report(context: &Context, run: &RunRef, attempt: i32, fact: &Fact) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let sink = context.facts.report(&run.session_id, run.run, attempt, fact.clone());
        let reason = match timeout(REPORT, sink).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.reason,
            Err(_) => format!("no answer within {REPORT:?}"),
        };
        metrics::counter!("ambient_runner_fact_retries_total").increment(1);
        tracing::warn!(session = run.session_id, fact = fact.name(), reason, "a fact was not accepted; trying again");
        tokio::time::sleep(backoff.pause()).await;
    }
}

fn started_attempt(event: &Value) -> Option<i32> {
    let attempt = event["value"]["attempt"].as_i64().filter(|_| event["name"] == custom::ATTEMPT_STARTED)?;
    i32::try_from(attempt).ok()
}

/// The facts in a record, in order.
fn facts_of(event: &Value) -> Vec<Fact> {
    repos_seen(event).into_iter().chain(fact_of(event)).collect()
}

/// The state of repositories at the end of a turn. Earlier runners do not report what was wrong, or what was checked out.
fn repos_seen(event: &Value) -> Option<Fact> {
    let told = event["value"].get("problems").filter(|_| event["name"] == custom::TURN_ENDED)?;
    let told = Vec::<custom::RepoProblem>::deserialize(told).ok()?;
    let problem = |problem: custom::RepoProblem| {
        (short(&problem.repo), RepoProblem { missing: problem.missing, reason: short(&problem.reason) })
    };
    let problems = told.into_iter().take(MAX_REPOS).map(problem).collect();
    let told = Vec::<custom::RepoPosition>::deserialize(&event["value"]["repos"]).unwrap_or_default();
    let position = |custom::RepoPosition { repo, branch, head }| {
        (short(&repo), RepoPosition { branch: branch.as_deref().map(short), head: head.as_deref().map(short) })
    };
    let positions = told.into_iter().take(MAX_REPOS).map(position).collect();
    Some(Fact::ReposSeen { problems, positions })
}

fn short(text: &str) -> String {
    text.chars().take(MAX_TOLD).collect()
}

fn fact_of(event: &Value) -> Option<Fact> {
    let value = &event["value"];
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    match (event["type"].as_str()?, event["name"].as_str().unwrap_or_default()) {
        ("RUN_STARTED", _) => Some(Fact::TurnStarted),
        ("CUSTOM", custom::TURN_ENDED) => {
            let outcome = match value["outcome"].as_str() {
                Some("finished") => TurnOutcome::Finished,
                Some("interrupted") => TurnOutcome::Interrupted,
                _ => TurnOutcome::Error,
            };
            // A turn works on one message, so that message is its last.
            Some(Fact::TurnEnded { last_message_id: text("last_message_id").or_else(|| text("message_id")), outcome })
        }
        ("CUSTOM", custom::EXIT) => {
            let reason = text("reason").unwrap_or_default();
            let code = i32::try_from(value["code"].as_i64()?).ok()?;
            (reason != ENDED_BY_REQUEST).then_some(Fact::Exited { code, reason })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn custom_event(name: &str, value: &Value) -> Value {
        json!({ "type": "CUSTOM", "name": name, "value": value })
    }

    #[test]
    fn facts_are_what_the_log_says_and_an_asked_for_exit_is_none() {
        assert_eq!(fact_of(&json!({ "type": "RUN_STARTED", "runId": "r" })), Some(Fact::TurnStarted));
        let ended = json!({ "run_id": "r", "message_id": "m", "outcome": "interrupted", "last_message_seq": 4 });
        let fact = Fact::TurnEnded { last_message_id: Some("m".to_owned()), outcome: TurnOutcome::Interrupted };
        assert_eq!(facts_of(&custom_event(custom::TURN_ENDED, &ended)), std::slice::from_ref(&fact));
        let problems = json!({ "repo": "r", "missing": true, "reason": "gone" });
        let repos = json!([{ "repo": "r", "branch": "b", "head": null }]);
        let with = json!({ "message_id": "m", "outcome": "interrupted", "problems": [problems], "repos": repos });
        let problem = RepoProblem { missing: true, reason: "gone".to_owned() };
        let position = RepoPosition { branch: Some("b".to_owned()), head: None };
        let (problems, positions) = ([("r".to_owned(), problem)].into(), [("r".to_owned(), position)].into());
        let seen = Fact::ReposSeen { problems, positions };
        assert_eq!(facts_of(&custom_event(custom::TURN_ENDED, &with)), [seen, fact]);
        let exit = |reason: &str| custom_event(custom::EXIT, &json!({ "code": 3, "reason": reason }));
        assert_eq!(fact_of(&exit("x")), Some(Fact::Exited { code: 3, reason: "x".to_owned() }));
        assert_eq!(fact_of(&exit(ENDED_BY_REQUEST)), None);
        assert_eq!(fact_of(&custom_event(custom::SNAPSHOT, &json!({}))), None);
        assert_eq!(started_attempt(&custom_event(custom::ATTEMPT_STARTED, &json!({ "attempt": 2 }))), Some(2));
    }
}
