//! Random commands and facts, most of them near what the state allows.

use ambient_domain::{
    permission::{Answer, Permissions, ToolKind},
    session::{
        Command, ConditionStatus, ConditionType, Fact, Feedback, InterruptOutcome, Message, PermissionRequest, Rating,
        ReconciledRepo, Repo, RepoPosition, RepoProblem, Session, SessionPatch, StopReason, TurnOutcome,
    },
};
use ambient_persistence::to_micros;
use chrono::Utc;
use rand::{Rng, seq::IndexedRandom};
use serde_json::json;

pub(crate) fn command(rng: &mut impl Rng, known: Option<&Session>) -> Command {
    match rng.random_range(0..13) {
        0 => patch(rng),
        1 => Command::Start { prompt: rng.random_bool(0.5).then(|| Message::of("again")) },
        2 => stop(rng),
        3 => Command::SendMessage { message: Message::of("hello"), start: rng.random_bool(0.3) },
        4 => repo(rng),
        5 => answer(rng, known),
        6 => request(rng, known),
        7 => feedback(rng),
        _ => fact(rng, known),
    }
}

fn patch(rng: &mut impl Rng) -> Command {
    Command::Patch(SessionPatch {
        display_name: Some(format!("name {}", rng.random_range(0..1000))),
        llm_temperature: rng.random_bool(0.2).then(|| f64::from(rng.random_range(0..200_u32)) / 100.0),
        timeout: rng.random_bool(0.2).then(|| rng.random_bool(0.5).then(|| rng.random_range(1..1000))),
        permissions: rng
            .random_bool(0.2)
            .then(|| Permissions { timeout: Some(rng.random_range(0..9)), ..Permissions::default() }),
        labels: Some([("k".to_owned(), rng.random_bool(0.5).then(|| "v".to_owned()))].into()),
        ..SessionPatch::default()
    })
}

fn stop(rng: &mut impl Rng) -> Command {
    let reason = *[StopReason::UserStopped, StopReason::Timeout].choose(rng).unwrap();
    Command::Stop { reason, seen_seq: None, run: None, force: rng.random_bool(0.1) }
}

fn repo(rng: &mut impl Rng) -> Command {
    let name = format!("repo-{}", rng.random_range(0..3));
    if rng.random_bool(0.5) {
        let repo: Repo = serde_json::from_value(json!({ "url": format!("file:///srv/{name}"), "name": name })).unwrap();
        Command::AddRepo(repo)
    } else {
        Command::RemoveRepo { name }
    }
}

fn feedback(rng: &mut impl Rng) -> Command {
    let comment = rng.random_bool(0.5).then(|| "in words".to_owned());
    Command::GiveFeedback(Feedback { rating: Rating::ThumbsUp, message_id: None, reason: None, comment })
}

/// Of the current attempt.
fn interrupt_id(rng: &mut impl Rng, known: Option<&Session>) -> String {
    let (run, attempt) = known.and_then(Session::run).map_or((1, 1), |run| (run.number, run.attempt));
    format!("{run}-{attempt}-{}", rng.random_range(0..4))
}

fn answer(rng: &mut impl Rng, known: Option<&Session>) -> Command {
    let answer = *[Answer::Once, Answer::Always, Answer::Reject].choose(rng).unwrap();
    let message = (answer == Answer::Reject && rng.random_bool(0.5)).then(|| Message::of("hello"));
    Command::AnswerInterrupt { interrupt_id: interrupt_id(rng, known), answer, message }
}

fn request(rng: &mut impl Rng, known: Option<&Session>) -> Command {
    let (run, attempt) = known.and_then(Session::run).map_or((1, 1), |run| (run.number, run.attempt));
    let interrupt_id = interrupt_id(rng, known);
    let fact = if rng.random_bool(0.3) {
        let outcomes = [InterruptOutcome::Answered, InterruptOutcome::Lost, InterruptOutcome::Expired];
        Fact::InterruptClosed { interrupt_id, outcome: *outcomes.choose(rng).unwrap(), answer: None }
    } else {
        let command = format!("make {}", rng.random_range(0..3));
        Fact::InterruptRaised {
            request: Box::new(PermissionRequest {
                interrupt_id,
                turn_id: "t".to_owned(),
                tool_call_id: "c".to_owned(),
                title: "in words \u{fffd} é".to_owned(),
                kind: ToolKind::Execute,
                fingerprint: command.clone(),
                command: Some(command),
                paths: Vec::new(),
                answers: vec![Answer::Once, Answer::Always, Answer::Reject],
            }),
        }
    };
    Command::Fact { run, attempt, fact }
}

fn fact(rng: &mut impl Rng, known: Option<&Session>) -> Command {
    let run = known.and_then(Session::run);
    let (number, attempt) = run.map_or((1, 1), |run| (run.number, run.attempt));
    let words = "in words \u{fffd} é".to_owned();
    let facts = [
        Fact::Provisioning,
        Fact::RunnerReady { missing_confinement: vec![] },
        Fact::MarkRunning,
        Fact::TornDown { evidence: vec!["no process".to_owned()], not_run: Vec::new() },
        Fact::TornDown { evidence: vec![], not_run: vec!["m1".to_owned()] },
        Fact::TurnStarted,
        Fact::TurnEnded {
            last_message_id: run.and_then(|run| run.last_message_id.clone()),
            outcome: *[TurnOutcome::Finished, TurnOutcome::Error].choose(rng).unwrap(),
        },
        Fact::RunnerLost { reason: words.clone() },
        Fact::Exited { code: rng.random_range(0..3), reason: words.clone() },
        Fact::Fatal { reason: "Unschedulable".to_owned(), message: words.clone() },
        Fact::Reconciled {
            generation: known.map_or(1, |s| s.generation),
            repos: vec![ReconciledRepo {
                name: "r".to_owned(),
                url: "file:///r".to_owned(),
                branch: None,
                head: Some("abc".to_owned()),
                cloned_at: to_micros(Utc::now()),
                notices: vec![words.clone()],
                problem: None,
            }],
            playbook: None,
            marks_running: rng.random_bool(0.5),
        },
        Fact::ReposSeen {
            problems: [("r".to_owned(), RepoProblem { missing: rng.random_bool(0.5), reason: words.clone() })].into(),
            positions: [].into(),
        },
        Fact::ReposSeen {
            problems: [].into(),
            positions: [("r".to_owned(), RepoPosition { branch: None, head: Some(words.clone()) })].into(),
        },
        Fact::Observed {
            condition_type: ConditionType::RunnerScheduled,
            status: ConditionStatus::False,
            reason: format!("R{}", rng.random_range(0..5)),
            message: words.clone(),
        },
        Fact::Blocked {
            reason: format!("B{}", rng.random_range(0..5)),
            blocked_on: format!("obstacle: {words}"),
            next_retry_at: Some(to_micros(Utc::now())),
            workflow_execution: "w".to_owned(),
        },
        Fact::Unblocked { step: "obstacle".to_owned(), workflow_execution: "w".to_owned() },
    ];
    let fact = facts.choose(rng).unwrap().clone();
    // One in ten is about another run or attempt.
    let run = if rng.random_bool(0.1) { number + 1 } else { number };
    Command::Fact { run, attempt: if rng.random_bool(0.1) { attempt + 1 } else { attempt }, fact }
}
