//! Permission requests: answered exactly once, lost with their attempt, and answered again only by policy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use ambient_domain::{
    Context, Refusal, RefusalCode,
    permission::{Answer, PermissionEffect, PermissionRule, Permissions, ToolKind},
    session::{
        Command, ConditionStatus, ConditionType, Event, Fact, InterruptOutcome, MAX_CLOSED, MAX_OPEN, Message,
        PermissionRequest, Session, SessionPatch, TurnOutcome, WAITING_FOR_ANSWER,
    },
};
use proptest::prelude::*;
use support::*;

fn request(id: &str, command: &str) -> PermissionRequest {
    PermissionRequest {
        interrupt_id: id.to_owned(),
        turn_id: "turn".to_owned(),
        tool_call_id: "call".to_owned(),
        title: format!("Run {command}"),
        kind: ToolKind::Execute,
        command: Some(command.to_owned()),
        paths: Vec::new(),
        fingerprint: format!("fingerprint of {command}"),
        answers: vec![Answer::Once, Answer::Always, Answer::Reject],
    }
}

fn raised(id: &str, command: &str) -> Fact {
    Fact::InterruptRaised { request: Box::new(request(id, command)) }
}

fn closed(id: &str, outcome: InterruptOutcome) -> Fact {
    Fact::InterruptClosed { interrupt_id: id.to_owned(), outcome, answer: None }
}

fn answering(id: &str, answer: Answer, message: Option<&str>) -> Command {
    Command::AnswerInterrupt { interrupt_id: id.to_owned(), answer, message: message.map(Message::of) }
}

fn by(name: &str, n: u32) -> Context {
    Context { principal: name.to_owned(), ..context(n) }
}

fn running(change: impl FnOnce(&mut ambient_domain::session::Spec)) -> Session {
    let mut spec = spec(true, false);
    change(&mut spec);
    let mut session = step(Some(&new_session(spec)), &start(), &context(1)).unwrap().unwrap().after;
    for fact in [Fact::Provisioning, Fact::MarkRunning, Fact::TurnStarted] {
        session = told(&session, fact);
    }
    session
}

/// The session after a fact of its current attempt.
fn told(session: &Session, fact: Fact) -> Session {
    step(Some(session), &now(session, fact), &by("system:reader", 2))
        .unwrap()
        .map_or_else(|| session.clone(), |s| s.after)
}

fn answered(session: &Session, id: &str, answer: Answer) -> Session {
    step(Some(session), &answering(id, answer, None), &by("bob", 3)).unwrap().unwrap().after
}

fn refusal(session: &Session, command: &Command) -> Refusal {
    step(Some(session), command, &by("carol", 9)).err().expect("is refused")
}

fn ready(session: &Session) -> (ConditionStatus, &str, &str) {
    let ready = session.condition(ConditionType::Ready).unwrap();
    (ready.status, ready.reason.as_str(), ready.message.as_str())
}

#[test]
fn a_session_that_asks_waits_visibly_until_it_is_answered_and_the_answer_says_who_gave_it() {
    let session = told(&running(|_| {}), raised("1-1-1", "make"));
    assert_eq!(ready(&session), (ConditionStatus::True, WAITING_FOR_ANSWER, "Run make"));
    assert_eq!((session.waiting_count(), session.runner_due()), (1, false));
    assert!(
        step(Some(&session), &now(&session, raised("1-1-1", "make")), &context(4)).unwrap().is_none(),
        "told again"
    );
    assert!(step(Some(&session), &now(&session, Fact::TurnStarted), &context(4)).unwrap().is_none());
    let two = told(&session, raised("1-1-2", "make test"));
    assert_eq!(ready(&two).2, "Run make (and 1 more)");
    let session = answered(&session, "1-1-1", Answer::Once);
    assert_eq!(ready(&session), (ConditionStatus::True, "Running", ""));
    assert_eq!((session.waiting_count(), session.runner_due()), (0, true), "the answer is still to be handed over");
    let given = session.interrupts[0].answer.clone().unwrap();
    assert_eq!((given.answer, given.by.as_str(), given.at), (Answer::Once, "bob", at(3)));
    let session = told(&session, closed("1-1-1", InterruptOutcome::Answered));
    assert!(session.interrupts.is_empty() && !session.runner_due());
    assert_eq!(session.closed_interrupts[0].answer, Some(given));
}

#[test]
fn the_same_answer_again_changes_nothing_and_another_is_refused_also_when_it_is_closed() {
    let open = answered(&told(&running(|_| {}), raised("1-1-1", "make")), "1-1-1", Answer::Once);
    let over = told(&open, closed("1-1-1", InterruptOutcome::Answered));
    for session in [&open, &over] {
        assert!(step(Some(session), &answering("1-1-1", Answer::Once, None), &context(5)).unwrap().is_none());
        for other in [answering("1-1-1", Answer::Reject, None), answering("1-1-1", Answer::Reject, Some("no"))] {
            let refused = refusal(session, &other);
            assert_eq!(refused.code, RefusalCode::Conflict);
            assert!(refused.reason.contains("once, by bob"), "{refused}");
        }
    }
    assert_eq!(refusal(&open, &answering("1-1-7", Answer::Once, None)).code, RefusalCode::NotFound);
    let waiting = told(&running(|_| {}), raised("1-1-1", "make"));
    let cancelled = told(&waiting, closed("1-1-1", InterruptOutcome::Cancelled));
    let refused = refusal(&cancelled, &answering("1-1-1", Answer::Once, None));
    assert_eq!((refused.code, refused.reason.contains("was cancelled")), (RefusalCode::Conflict, true));
    let stopping = step(Some(&waiting), &stop(false), &context(5)).unwrap().unwrap().after;
    assert_eq!(refusal(&stopping, &answering("1-1-1", Answer::Once, None)).code, RefusalCode::Phase);
    assert_eq!(stopping.waiting_count(), 0);
}

#[test]
fn always_adds_a_rule_that_says_just_that_in_front_of_the_others() {
    let rule = |command: &str, effect: PermissionEffect| PermissionRule {
        effect,
        tool: Some(ToolKind::Execute),
        command: Some(command.to_owned()),
        path: None,
    };
    let before = rule("make *", PermissionEffect::Ask);
    let session = running(|spec| spec.permissions.rules = vec![before.clone()]);
    let session = told(&session, raised("1-1-1", "make test"));
    let done = step(Some(&session), &answering("1-1-1", Answer::Always, None), &context(4)).unwrap().unwrap();
    let added = rule("make test", PermissionEffect::Allow);
    assert!(matches!(&done.events[..], [Event::InterruptAnswered { rule: Some(rule), .. }] if *rule == added));
    assert_eq!(done.after.spec.permissions.rules, [added, before]);
    let session = told(&done.after, closed("1-1-1", InterruptOutcome::Answered));
    assert!(session.runner_due(), "the runner has yet to learn of the rule");
    let session = told(&session, Fact::PermissionsInForce { changes: session.permission_changes });
    assert!(!session.runner_due());
    let compound = told(&session, raised("1-1-2", "make; rm -rf ."));
    assert_eq!(compound.interrupts[0].answers(), [Answer::Once, Answer::Reject]);
    assert_eq!(refusal(&compound, &answering("1-1-2", Answer::Always, None)).field.as_deref(), Some("answer"));
}

#[test]
fn a_rejection_with_a_message_is_one_operation_and_the_message_runs_next() {
    let session = told(&running(|_| {}), raised("1-1-1", "make"));
    let refused = refusal(&session, &answering("1-1-1", Answer::Once, Some("no")));
    assert_eq!(refused.field.as_deref(), Some("message"));
    let reject = answering("1-1-1", Answer::Reject, Some("use ninja"));
    let done = step(Some(&session), &reject, &context(4)).unwrap().unwrap();
    let Event::MessageAccepted { message_id, message, .. } = &done.events[1] else { panic!("{:?}", done.events) };
    assert_eq!((message_id.as_str(), message), ("operation-4", &Message::of("use ninja")));
    assert_eq!(done.after.interrupts[0].answer.as_ref().unwrap().message_id.as_ref(), Some(message_id));
    assert_eq!(done.after.run().unwrap().last_message_id.as_ref(), Some(message_id), "the turn is not the last");
    assert!(step(Some(&done.after), &reject, &context(5)).unwrap().is_none(), "it is sent once");
    let mut batch = session;
    batch.spec.interactive = false;
    assert_eq!(refusal(&batch, &reject).code, RefusalCode::Phase);
}

#[test]
fn an_answer_lost_with_its_attempt_is_shown_when_the_agent_asks_again_and_given_again_only_by_policy() {
    for repeats in [false, true] {
        let session = running(|spec| spec.permissions.repeat_answers = repeats.then_some(true));
        let session = answered(&told(&session, raised("1-1-1", "make")), "1-1-1", Answer::Once);
        let lost = step(Some(&session), &now(&session, runner_lost()), &context(4)).unwrap().unwrap();
        assert!(matches!(
            &lost.events[..],
            [Event::InterruptClosed { outcome: InterruptOutcome::Lost, .. }, Event::Restarted { .. }]
        ));
        assert!(lost.after.interrupts.is_empty() && !lost.after.runner_due());
        let again = now(&lost.after, raised("1-2-1", "make"));
        let again = step(Some(&lost.after), &again, &by("system:reader", 5)).unwrap().unwrap();
        assert_eq!(again.after.interrupts[0].earlier.as_ref().unwrap().by, "bob");
        let given = again.after.interrupts[0].answer.as_ref().map(|given| (given.answer, given.by.as_str(), given.at));
        assert_eq!(given, repeats.then_some((Answer::Once, "bob", at(3))));
        let twice = told(&again.after, raised("1-2-2", "make"));
        assert!(twice.interrupts[1].answer.is_none(), "once is not twice, also at the same time");
        let over = told(&again.after, closed("1-2-1", InterruptOutcome::Answered));
        let third = told(&over, raised("1-2-3", "make"));
        assert!(third.interrupts[0].answer.is_none() && third.interrupts[0].earlier.is_none(), "it is used up");
        let other = told(&lost.after, raised("1-2-1", "make test"));
        assert!(other.interrupts[0].earlier.is_none() && other.interrupts[0].answer.is_none());
    }
}

#[test]
fn what_the_log_says_late_of_an_attempt_that_is_over_corrects_what_was_taken_for_lost() {
    let session = running(|spec| spec.permissions.repeat_answers = Some(true));
    let session = answered(&told(&session, raised("1-1-1", "make")), "1-1-1", Answer::Once);
    let late = now(&session, closed("1-1-1", InterruptOutcome::Answered));
    let lost = told(&session, runner_lost());
    let corrected = step(Some(&lost), &late, &context(5)).unwrap().unwrap().after;
    assert_eq!(corrected.closed_interrupts[0].outcome, InterruptOutcome::Answered);
    let again = told(&corrected, raised("1-2-1", "make"));
    assert!(again.interrupts[0].answer.is_none(), "the agent had it: once is not twice");
    assert!(step(Some(&corrected), &late, &context(6)).unwrap().is_none());
    let stale = Command::Fact { run: 1, attempt: 1, fact: raised("1-1-2", "make") };
    assert!(step(Some(&lost), &stale, &context(6)).unwrap().is_none(), "its agent waits no more");
}

#[test]
fn while_a_session_stops_the_log_says_how_requests_ended_and_at_the_end_none_is_open() {
    let session = told(&told(&running(|_| {}), raised("1-1-1", "a")), raised("1-1-2", "b"));
    let session = told(&answered(&session, "1-1-2", Answer::Once), raised("1-1-3", "c"));
    let stopping = step(Some(&session), &stop(false), &context(4)).unwrap().unwrap().after;
    let stopping = told(&stopping, closed("1-1-3", InterruptOutcome::Expired));
    let ended = told(&stopping, torn_down());
    let how = |session: &Session| -> BTreeMap<String, InterruptOutcome> {
        session.closed_interrupts.iter().map(|c| (c.interrupt_id.clone(), c.outcome)).collect()
    };
    use InterruptOutcome::{Cancelled, Expired, Lost};
    let expected = [("1-1-1", Cancelled), ("1-1-2", Lost), ("1-1-3", Expired)];
    assert_eq!(how(&ended), expected.map(|(id, outcome)| (id.to_owned(), outcome)).into());
    let forced = step(Some(&session), &stop(true), &context(4)).unwrap().unwrap().after;
    assert!(forced.interrupts.is_empty() && how(&forced)["1-1-1"] == Cancelled);
    let next = step(Some(&ended), &start(), &context(8)).unwrap().unwrap().after;
    assert!(next.closed_interrupts.is_empty());
}

#[test]
fn a_turn_that_is_over_leaves_no_request_open() {
    let session = told(&running(|_| {}), raised("1-1-1", "make"));
    let idle = told(&session, turn_ended(&session, TurnOutcome::Finished));
    assert!(idle.interrupts.is_empty());
    assert_eq!(ready(&idle).1, "Idle");
    assert!(step(Some(&idle), &now(&idle, turn_ended(&idle, TurnOutcome::Finished)), &context(5)).unwrap().is_none());
}

#[test]
fn an_agent_that_asks_too_much_is_refused_without_asking_anyone_and_what_is_remembered_is_bounded() {
    let mut session = running(|_| {});
    for n in 0..4 * MAX_OPEN {
        session = told(&session, raised(&format!("1-1-{n}"), "make"));
    }
    assert_eq!(session.waiting_count(), MAX_OPEN);
    assert_eq!(session.interrupts.len(), 2 * MAX_OPEN);
    let rejected: Vec<_> = session.answered_interrupts().filter_map(|open| open.answer.as_ref()).collect();
    assert!(rejected.len() == MAX_OPEN && rejected.iter().all(|given| given.answer == Answer::Reject));
    for n in 0..2 * MAX_OPEN {
        session = told(&session, closed(&format!("1-1-{n}"), InterruptOutcome::Answered));
    }
    assert_eq!((session.interrupts.len(), session.closed_interrupts.len()), (0, MAX_CLOSED));
}

#[test]
fn permissions_change_at_any_time_and_the_runner_is_told() {
    let session = running(|_| {});
    let other = Permissions { otherwise: Some(PermissionEffect::Deny), ..Permissions::default() };
    let patch = SessionPatch { permissions: Some(other.clone()), ..SessionPatch::default() };
    let patched = step(Some(&session), &Command::Patch(patch.clone()), &context(4)).unwrap().unwrap().after;
    assert!(patched.runner_due() && patched.generation == session.generation);
    let of_project =
        Permissions { timeout: Some(60), otherwise: Some(PermissionEffect::Allow), ..Permissions::default() };
    let inherited = |since_launch| Fact::PermissionsInherited { permissions: of_project.clone(), since_launch };
    let inherits = told(&patched, inherited(false));
    let all = inherits.permissions();
    assert_eq!(inherits.permission_changes, patched.permission_changes, "its launch goes by them");
    assert_eq!(told(&patched, inherited(true)).permission_changes, patched.permission_changes + 1);
    assert_eq!(told(&inherits, inherited(true)), inherits, "it has them");
    assert_eq!((all.otherwise, all.timeout), (Some(PermissionEffect::Deny), Some(60)));
    let stopped = told(&step(Some(&patched), &stop(false), &context(5)).unwrap().unwrap().after, torn_down());
    assert!(!stopped.runner_due());
    let started = told(&step(Some(&stopped), &start(), &context(6)).unwrap().unwrap().after, Fact::Provisioning);
    assert!(!started.runner_due(), "a launch goes by what is said then");
    assert!(step(Some(&patched), &Command::Patch(patch), &context(7)).unwrap().is_none());
}

/// What happens, with small numbers in place of ids.
#[derive(Debug, Clone, Copy)]
enum Input {
    Raised(u8),
    Closed(u8, InterruptOutcome),
    Answer(u8, Answer),
    Lost,
    TurnEnded,
    Stop,
    TornDown,
    Start,
}

fn input() -> impl Strategy<Value = Input> {
    use InterruptOutcome::{Answered, Cancelled, Expired, Lost};
    let outcome = prop_oneof![Just(Answered), Just(Cancelled), Just(Expired), Just(Lost)];
    let answer = prop_oneof![Just(Answer::Once), Just(Answer::Always), Just(Answer::Reject)];
    prop_oneof![
        5 => (0..4_u8).prop_map(Input::Raised),
        3 => (0..4_u8, outcome).prop_map(|(n, outcome)| Input::Closed(n, outcome)),
        5 => (0..4_u8, answer).prop_map(|(n, answer)| Input::Answer(n, answer)),
        1 => Just(Input::Lost), 1 => Just(Input::TurnEnded), 1 => Just(Input::Stop), 1 => Just(Input::TornDown),
        1 => Just(Input::Start),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_gets_one_answer_at_most_and_no_fact_is_refused_or_counts_twice(
        repeats in any::<bool>(),
        inputs in proptest::collection::vec(input(), 1..80),
    ) {
        let mut session = running(|spec| spec.permissions.repeat_answers = repeats.then_some(true));
        let mut answers: BTreeMap<(i64, String), usize> = BTreeMap::new();
        for (n, input) in (10..).zip(inputs) {
            let (run, attempt) = session.run().map_or((1, 1), |run| (run.number, run.attempt));
            let id = |n: u8| format!("{run}-{attempt}-{n}");
            let command = match input {
                Input::Raised(n) => now(&session, raised(&id(n), if n % 2 == 0 { "make" } else { "test" })),
                Input::Closed(n, outcome) => now(&session, closed(&id(n), outcome)),
                Input::Answer(n, answer) => answering(&id(n), answer, None),
                Input::Lost => now(&session, runner_lost()),
                Input::TurnEnded => now(&session, turn_ended(&session, TurnOutcome::Finished)),
                Input::Stop => stop(false),
                Input::TornDown => now(&session, torn_down()),
                Input::Start => start(),
            };
            let is_fact = matches!(command, Command::Fact { .. });
            let result = step(Some(&session), &command, &context(n));
            prop_assert!(!is_fact || result.is_ok());
            let Ok(Some(done)) = result else { continue };
            for event in &done.events {
                if let Event::InterruptAnswered { interrupt_id, .. } = event {
                    *answers.entry((run, interrupt_id.clone())).or_default() += 1;
                }
            }
            session = done.after;
            if is_fact && !matches!(input, Input::Lost | Input::TurnEnded) {
                let again = step(Some(&session), &command, &context(n)).unwrap();
                prop_assert!(again.is_none(), "{input:?} counts twice");
            }
            let stored: Session = serde_json::from_slice(&serde_json::to_vec(&session).unwrap()).unwrap();
            prop_assert_eq!(&stored, &session);
            let attempt = session.run().map_or(0, |run| run.attempt);
            prop_assert!(session.interrupts.iter().all(|open| open.attempt == attempt));
            prop_assert!(session.waiting_count() == 0 || ready(&session).0 == ConditionStatus::False
                || ready(&session).1 == WAITING_FOR_ANSWER);
            let over = matches!(phase(&session).as_str(), "Stopped" | "Completed" | "Failed" | "Pending");
            prop_assert!(!over || (session.interrupts.is_empty() && !session.runner_due()));
        }
        prop_assert!(answers.values().all(|count| *count == 1), "{answers:?}");
    }
}
