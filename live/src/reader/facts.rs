//! Facts of a run, from the stored log.

use std::time::Duration;

use ambient_domain::session::{Fact, RepoPosition, RepoProblem, TurnOutcome};
use ambient_persistence::retry::Backoff;
use ambient_persistence::{RunnerCursor, RunnerRecord, StoreError};
use ambient_wire::runner_event::{self, ENDED_BY_REQUEST, RunnerEvent};
use serde_json::Value;
use tokio::{sync::Notify, time::timeout};

use super::{Context, RunRef, interrupts};

/// Types of records that facts come from, and names of the CUSTOM events that earlier runners recorded in their place.
const TYPES: &[&str] = &[
    "attempt.started",
    "agent.started",
    "turn.started",
    "turn.ended",
    "runner.exited",
    interrupts::REQUESTED,
    interrupts::CLOSED,
    "RUN_STARTED",
];
const NAMES: &[&str] = &["ambient.attempt_started", "ambient.turn_ended", "ambient.exit"];
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
    match RunnerEvent::read(event)? {
        RunnerEvent::AttemptStarted { attempt, .. } => Some(attempt),
        _ => None,
    }
}

/// The facts in a record, in order.
fn facts_of(event: &Value) -> Vec<Fact> {
    let mut facts = match RunnerEvent::read(event) {
        Some(RunnerEvent::TurnStarted { .. }) => vec![Fact::TurnStarted],
        Some(RunnerEvent::AgentStarted { agent_session_id, .. }) => vec![Fact::AgentStarted { agent_session_id }],
        Some(RunnerEvent::TurnEnded { message_id, result, problems, repos, .. }) => {
            // Earlier runners do not report what was wrong, or what was checked out.
            let seen = problems.map(|problems| repos_seen(problems, repos));
            // A turn works on one message, so that message is its last.
            let last_message_id = Some(message_id).filter(|id| !id.is_empty());
            let ended = Fact::TurnEnded { last_message_id, outcome: outcome(result.outcome) };
            seen.into_iter().chain([ended]).collect()
        }
        Some(RunnerEvent::RunnerExited { code, reason }) if reason != ENDED_BY_REQUEST => {
            vec![Fact::Exited { code, reason }]
        }
        _ => Vec::new(),
    };
    facts.extend(interrupts::fact_of(event));
    facts
}

fn outcome(told: runner_event::TurnOutcome) -> TurnOutcome {
    match told {
        runner_event::TurnOutcome::Finished => TurnOutcome::Finished,
        runner_event::TurnOutcome::Interrupted => TurnOutcome::Interrupted,
        runner_event::TurnOutcome::Error => TurnOutcome::Error,
    }
}

/// The state of repositories at the end of a turn.
fn repos_seen(problems: Vec<runner_event::RepoProblem>, repos: Vec<runner_event::RepoPosition>) -> Fact {
    let problem = |problem: runner_event::RepoProblem| {
        (short(&problem.repo), RepoProblem { missing: problem.missing, reason: short(&problem.reason) })
    };
    let position = |runner_event::RepoPosition { repo, branch, head }| {
        (short(&repo), RepoPosition { branch: branch.as_deref().map(short), head: head.as_deref().map(short) })
    };
    Fact::ReposSeen {
        problems: problems.into_iter().take(MAX_REPOS).map(problem).collect(),
        positions: repos.into_iter().take(MAX_REPOS).map(position).collect(),
    }
}

pub(super) fn short(text: &str) -> String {
    text.chars().take(MAX_TOLD).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn custom(name: &str, value: &Value) -> Value {
        json!({ "type": "CUSTOM", "name": name, "value": value })
    }

    /// As it is recorded today, and as earlier runners recorded it.
    fn ended(more: &Value) -> [Value; 2] {
        let mut told = json!({ "message_id": "m", "outcome": "interrupted", "last_message_seq": 4 });
        told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (mut today, mut earlier) = (told.clone(), told);
        (today["type"], today["turn_id"], earlier["run_id"]) = ("turn.ended".into(), "r".into(), "r".into());
        [today, custom("ambient.turn_ended", &earlier)]
    }

    #[test]
    fn facts_are_what_the_log_says_and_an_asked_for_exit_is_none() {
        for started in [
            json!({ "type": "turn.started", "turn_id": "r", "message_id": "m" }),
            json!({ "type": "RUN_STARTED", "runId": "r" }),
        ] {
            assert_eq!(facts_of(&started), [Fact::TurnStarted]);
        }
        let (id, offers) = ("thread-7", json!({}));
        let agent = json!({
            "type": "agent.started", "incarnation": 2, "name": "a", "version": "1", "agent_session_id": id,
            "conversation": "loaded", "offers": offers,
        });
        assert_eq!(facts_of(&agent), [Fact::AgentStarted { agent_session_id: id.to_owned() }]);
        let fact = Fact::TurnEnded { last_message_id: Some("m".to_owned()), outcome: TurnOutcome::Interrupted };
        for told in ended(&json!({})) {
            assert_eq!(facts_of(&told), std::slice::from_ref(&fact), "{told}");
        }
        let problem = RepoProblem { missing: true, reason: "gone".to_owned() };
        let position = RepoPosition { branch: Some("b".to_owned()), head: None };
        let (problems, positions) = ([("r".to_owned(), problem)].into(), [("r".to_owned(), position)].into());
        let seen = Fact::ReposSeen { problems, positions };
        let problems = json!([{ "repo": "r", "missing": true, "reason": "gone" }]);
        for told in ended(&json!({ "problems": problems, "repos": [{ "repo": "r", "branch": "b", "head": null }] })) {
            assert_eq!(facts_of(&told), [seen.clone(), fact.clone()], "{told}");
        }
        let exits = |reason: &str| {
            let mut exit = json!({ "code": 3, "reason": reason });
            let earlier = custom("ambient.exit", &exit);
            exit["type"] = "runner.exited".into();
            [exit, earlier].map(|exit| facts_of(&exit))
        };
        let exit = vec![Fact::Exited { code: 3, reason: "x".to_owned() }];
        assert_eq!(exits("x"), [exit.clone(), exit]);
        assert_eq!(exits(ENDED_BY_REQUEST), [vec![], vec![]]);
    }

    #[test]
    fn an_attempt_is_known_by_its_first_record_which_is_no_fact() {
        for begun in [
            json!({ "type": "attempt.started", "log_id": "L", "attempt": 2, "resumed": true }),
            custom("ambient.attempt_started", &json!({ "log_id": "L", "attempt": 2, "resumed": true })),
        ] {
            assert_eq!((started_attempt(&begun), facts_of(&begun)), (Some(2), vec![]));
            let event_type = begun["type"].as_str().unwrap().to_owned();
            assert!(matters(&RunnerRecord { n: 1, at: chrono::Utc::now(), event_type, data: begun }));
        }
        let snapshot = custom("ambient.snapshot", &json!({}));
        assert_eq!((started_attempt(&snapshot), facts_of(&snapshot)), (None, vec![]));
    }
}
