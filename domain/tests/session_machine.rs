//! The session machine against an independent model of its table, over random sequences.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ambient_domain::{
    Effect, Entity, RefusalCode,
    session::{
        Command, ConditionStatus, ConditionType, Event, Fact, Phase, ReconciledRepo, RepoPosition, RepoProblem,
        Session, SessionPatch, TurnOutcome,
    },
};
use proptest::prelude::*;
use support::*;

/// What happens to a session, without run and attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Input {
    Start,
    Stop { force: bool },
    StopOfAnotherRun,
    Send { start: bool },
    Rename,
    ChangeRepos,
    ChangePrompt,
    Now(Seen),
    OfAnotherRun(Seen),
    OfAnotherAttempt(Seen),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Seen {
    Provisioning,
    RunnerReady,
    MarkRunning,
    Exited(i32),
    RunnerLost,
    Fatal,
    TornDown,
    TurnEnded(TurnOutcome),
    StaleTurnEnded,
    WorkflowLost,
    Blocked,
    Unblocked,
}

fn seen() -> impl Strategy<Value = Seen> {
    use TurnOutcome::{Error, Finished, Interrupted};
    prop_oneof![
        3 => Just(Seen::Provisioning), 1 => Just(Seen::RunnerReady), 3 => Just(Seen::MarkRunning),
        1 => prop_oneof![Just(0), Just(1), Just(2), Just(64)].prop_map(Seen::Exited),
        2 => Just(Seen::RunnerLost), 1 => Just(Seen::Fatal), 3 => Just(Seen::TornDown),
        1 => prop_oneof![Just(Finished), Just(Error), Just(Interrupted)].prop_map(Seen::TurnEnded),
        1 => Just(Seen::StaleTurnEnded), 1 => Just(Seen::WorkflowLost),
        1 => Just(Seen::Blocked), 1 => Just(Seen::Unblocked),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        4 => Just(Input::Start),
        2 => any::<bool>().prop_map(|force| Input::Stop { force }),
        1 => Just(Input::StopOfAnotherRun),
        2 => any::<bool>().prop_map(|start| Input::Send { start }),
        1 => Just(Input::Rename), 1 => Just(Input::ChangeRepos), 1 => Just(Input::ChangePrompt),
        12 => seen().prop_map(Input::Now),
        1 => seen().prop_map(Input::OfAnotherRun),
        1 => seen().prop_map(Input::OfAnotherAttempt),
    ]
}

fn command(session: &Session, input: Input, n: u32) -> Command {
    let patch = |patch| Command::Patch(patch);
    match input {
        Input::Start => start(),
        Input::Stop { force } => stop(force),
        Input::StopOfAnotherRun => {
            let Command::Stop { reason, seen_seq, force, .. } = stop(false) else { unreachable!() };
            Command::Stop { reason, seen_seq, run: Some(session.run_number() + 1), force }
        }
        Input::Send { start } => send(start),
        Input::Rename => patch(SessionPatch { display_name: Some(format!("n{n}")), ..SessionPatch::default() }),
        Input::ChangePrompt => patch(SessionPatch { prompt: Some(Some(format!("p{n}"))), ..SessionPatch::default() }),
        Input::ChangeRepos => {
            let repo = serde_json::json!({"name": "r", "url": format!("https://host/{n}.git")});
            let repos = Some(vec![serde_json::from_value(repo).unwrap()]);
            patch(SessionPatch { repos, ..SessionPatch::default() })
        }
        Input::Now(seen) => now(session, fact(session, seen)),
        Input::OfAnotherRun(seen) => {
            Command::Fact { run: session.run_number() + 1, attempt: 1, fact: fact(session, seen) }
        }
        Input::OfAnotherAttempt(seen) => {
            let attempt = session.run().map_or(1, |run| run.attempt) + 1;
            Command::Fact { run: session.run_number(), attempt, fact: fact(session, seen) }
        }
    }
}

fn fact(session: &Session, seen: Seen) -> Fact {
    match seen {
        Seen::Provisioning => Fact::Provisioning,
        Seen::RunnerReady => Fact::RunnerReady { missing_confinement: vec![] },
        Seen::MarkRunning => Fact::MarkRunning,
        Seen::Exited(code) => exited(code),
        Seen::RunnerLost => runner_lost(),
        Seen::Fatal => fatal(),
        Seen::TornDown => torn_down(),
        Seen::TurnEnded(outcome) => turn_ended(session, outcome),
        Seen::StaleTurnEnded => {
            Fact::TurnEnded { last_message_id: Some("an earlier one".to_owned()), outcome: TurnOutcome::Finished }
        }
        Seen::WorkflowLost => Fact::WorkflowLost {
            workflow_execution: session.required_workflows().pop().unwrap_or_else(|| "none".to_owned()),
        },
        Seen::Blocked => Fact::Blocked {
            reason: "ComputeError".to_owned(),
            blocked_on: "step: why".to_owned(),
            next_retry_at: None,
            workflow_execution: "w".to_owned(),
        },
        Seen::Unblocked => Fact::Unblocked { step: "step".to_owned(), workflow_execution: "w".to_owned() },
    }
}

/// The model: only what the table speaks of.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Model {
    phase: &'static str,
    /// Phase after Stopping.
    outcome: &'static str,
    run: i64,
    attempt: i32,
    interactive: bool,
    ends_with_turn: bool,
}

/// What the table says of an input.
#[derive(Debug, PartialEq)]
enum Expect {
    /// Accepted; or nothing to do, which looks the same from here.
    Becomes(Model),
    Refused(RefusalCode),
    /// The table does not speak of it.
    Open,
}

impl Model {
    fn expect(self, input: Input) -> Expect {
        let active = matches!(self.phase, "Pending" | "Creating" | "Running");
        let over = matches!(self.phase, "Stopped" | "Completed" | "Failed");
        let same = Expect::Becomes(self);
        let started = Expect::Becomes(Model { phase: "Pending", run: self.run + 1, attempt: 1, ..self });
        match input {
            Input::Start if self.phase == "New" || over => started,
            Input::Start if self.phase == "Stopping" => Expect::Refused(RefusalCode::TryLater),
            Input::Start => Expect::Refused(RefusalCode::Phase),
            Input::Stop { .. } if self.phase == "New" => Expect::Refused(RefusalCode::Phase),
            Input::Stop { force: true } if active => Expect::Becomes(Model { phase: "Stopped", ..self }),
            Input::Stop { force: false } if active => self.stopping("Stopped"),
            Input::Stop { force: true } if !over => Expect::Becomes(Model { phase: self.outcome, ..self }),
            Input::Stop { .. } | Input::StopOfAnotherRun | Input::Rename => same,
            Input::Send { .. } if self.phase == "Running" && !self.interactive => Expect::Refused(RefusalCode::Phase),
            Input::Send { .. } if active => same,
            Input::Send { .. } if self.phase == "Stopping" => Expect::Refused(RefusalCode::TryLater),
            Input::Send { start: true } => started,
            Input::Send { start: false } => Expect::Refused(RefusalCode::Phase),
            Input::ChangeRepos if self.phase == "Stopping" => Expect::Refused(RefusalCode::TryLater),
            Input::ChangeRepos => same,
            Input::ChangePrompt if active || self.phase == "Stopping" => Expect::Refused(RefusalCode::Phase),
            Input::ChangePrompt => same,
            // A run is torn down as a whole, whatever the attempt.
            Input::OfAnotherAttempt(Seen::TornDown) => self.fact(Seen::TornDown),
            Input::OfAnotherRun(_) | Input::OfAnotherAttempt(_) => same,
            Input::Now(seen) => self.fact(seen),
        }
    }

    fn stopping(self, outcome: &'static str) -> Expect {
        Expect::Becomes(Model { phase: "Stopping", outcome, ..self })
    }

    fn fact(self, seen: Seen) -> Expect {
        let same = Expect::Becomes(self);
        match (self.phase, seen) {
            ("Pending", Seen::Provisioning) => Expect::Becomes(Model { phase: "Creating", ..self }),
            ("Creating", Seen::MarkRunning) => Expect::Becomes(Model { phase: "Running", ..self }),
            ("Creating" | "Running", Seen::Exited(0)) => self.stopping("Completed"),
            ("Pending" | "Creating" | "Running", Seen::Fatal | Seen::WorkflowLost) => self.stopping("Failed"),
            ("Creating" | "Running", Seen::Exited(_)) => self.stopping("Failed"),
            ("Creating" | "Running", Seen::RunnerLost) if self.attempt < 3 => {
                Expect::Becomes(Model { phase: "Creating", attempt: self.attempt + 1, ..self })
            }
            ("Creating" | "Running", Seen::RunnerLost) => self.stopping("Failed"),
            ("Pending", Seen::RunnerLost | Seen::Exited(_)) => Expect::Open,
            ("Stopping", Seen::TornDown) => Expect::Becomes(Model { phase: self.outcome, ..self }),
            ("Running", Seen::TurnEnded(TurnOutcome::Finished)) if self.ends_with_turn => self.stopping("Completed"),
            ("Running", Seen::TurnEnded(TurnOutcome::Error)) if self.ends_with_turn && self.interactive => {
                self.stopping("Failed")
            }
            ("Pending" | "Creating", Seen::TurnEnded(_)) => Expect::Open,
            _ => same,
        }
    }

    fn of(session: &Session, before: Model) -> Model {
        let known = ["New", "Pending", "Creating", "Running", "Stopping", "Stopped", "Completed", "Failed"];
        let now = phase(session);
        let phase = known.into_iter().find(|name| *name == now).unwrap();
        let outcome = match &session.lifecycle {
            ambient_domain::session::Lifecycle::Stopping { outcome, .. } => {
                let name = outcome.phase().to_string();
                known.into_iter().find(|n| *n == name).unwrap()
            }
            _ => before.outcome,
        };
        let (run, attempt) = session.run().map_or((0, 0), |run| (run.number, run.attempt));
        Model { phase, outcome, run, attempt, ..before }
    }
}

fn check(interactive: bool, stop_on_run_finished: bool, inputs: &[Input]) {
    let mut session = new_session(spec(interactive, stop_on_run_finished));
    let mut model = Model {
        phase: "New",
        outcome: "",
        run: 0,
        attempt: 0,
        interactive,
        ends_with_turn: !interactive || stop_on_run_finished,
    };
    for (n, input) in (1..).zip(inputs) {
        let command = command(&session, *input, n);
        let result = step(Some(&session), &command, &context(n));
        assert_same_again(&session, &command, n);
        match (model.expect(*input), result) {
            (Expect::Refused(code), Err(refusal)) => {
                assert_eq!(refusal.code, code, "{input:?} in {model:?}: {refusal}");
                assert!(refusal.reason.contains(&phase(&session)) || model.phase == "New", "{input:?}: {refusal}");
            }
            (Expect::Becomes(_) | Expect::Open, Err(refusal)) => panic!("{input:?} in {model:?} refused: {refusal}"),
            (Expect::Refused(_), Ok(_)) => panic!("{input:?} in {model:?} is not refused"),
            (expected, Ok(step)) => {
                let before = session.clone();
                if let Some(step) = step {
                    assert_invariants(&before, &step);
                    session = step.after;
                }
                let found = Model::of(&session, model);
                if let Expect::Becomes(mut expected) = expected {
                    if expected.phase != "Stopping" {
                        expected.outcome = found.outcome;
                    }
                    assert_eq!(found, expected, "{input:?} in {model:?}");
                }
                model = found;
            }
        }
    }
}

/// The same state, command and context give the same, and everything reads back from JSON as it was.
fn assert_same_again(session: &Session, command: &Command, n: u32) {
    let read: Command = serde_json::from_slice(&serde_json::to_vec(command).unwrap()).unwrap();
    assert_eq!(read, *command);
    let state: Session = serde_json::from_slice(&serde_json::to_vec(session).unwrap()).unwrap();
    assert_eq!(state, *session);
    let first = Session::decide(Some(session), command, &context(n));
    assert_eq!(first, Session::decide(Some(&state), &read, &context(n)));
    if let Ok(ambient_domain::Decision::Events(events)) = first {
        let read: Vec<Event> = serde_json::from_slice(&serde_json::to_vec(&events).unwrap()).unwrap();
        assert_eq!(read, events);
    }
}

fn assert_invariants(before: &Session, step: &Step) {
    let after = &step.after;
    assert!(after.run_number() >= before.run_number() && after.generation >= before.generation);
    assert_eq!(after.version, before.version + 1);
    let ended = |s: &Session| matches!(phase(s).as_str(), "Stopped" | "Completed" | "Failed");
    if ended(after) && !ended(before) {
        let proven = step.events.iter().any(|e| matches!(e, Event::Ended { proven: true, .. }));
        let torn_down = after.condition(ConditionType::TornDown).unwrap().status;
        assert_eq!(torn_down == ConditionStatus::True, proven, "a terminal phase is a proof, or says that it is none");
        assert!(proven || step.events.iter().any(|e| matches!(e, Event::Ended { proven: false, .. })));
    }
    let starts = |workflow: &str| {
        let is = |e: &&Effect| matches!(e, Effect::StartWorkflow { workflow: w, .. } if w == workflow);
        step.effects.iter().filter(is).count()
    };
    let began = step.events.iter().filter(|e| matches!(e, Event::StopBegan { .. })).count();
    let lost = step.events.iter().filter(|e| matches!(e, Event::WorkflowLost { .. })).count();
    assert_eq!(starts("session-stop"), began + lost, "who begins to stop starts session-stop");
    if step.events.iter().any(|e| matches!(e, Event::Started { .. })) {
        let ids: Vec<&str> = step.effects.iter().map(Effect::workflow_id).collect();
        let run = after.run_number();
        assert_eq!(ids, [format!("session-start/{ID}/{run}.1"), format!("session-supervise/{ID}/{run}")]);
    }
    for workflow in after.required_workflows() {
        let fresh = !before.required_workflows().contains(&workflow);
        let started = step
            .effects
            .iter()
            .any(|e| matches!(e, Effect::StartWorkflow { workflow_id, .. } if *workflow_id == workflow));
        assert!(!fresh || started, "{workflow} is required from now on and nobody starts it");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_machine_follows_its_table(
        interactive in any::<bool>(),
        stop_on_run_finished in any::<bool>(),
        inputs in proptest::collection::vec(input(), 1..60),
    ) {
        check(interactive, stop_on_run_finished, &inputs);
    }

    #[test]
    fn after_delete_facts_are_superseded_and_commands_find_nothing(
        inputs in proptest::collection::vec(input(), 0..20),
        after in proptest::collection::vec(input(), 1..20),
    ) {
        let mut session = new_session(spec(true, false));
        for (n, input) in (1..).zip(inputs) {
            if let Ok(Some(step)) = step(Some(&session), &command(&session, input, n), &context(n)) {
                session = step.after;
            }
        }
        let deleted = step(Some(&session), &Command::Delete, &context(50)).unwrap().unwrap();
        let ids: Vec<String> = deleted.effects.iter().map(|e| e.workflow_id().to_owned()).collect();
        prop_assert!(ids.last().unwrap().starts_with("session-delete/"), "{ids:?}");
        prop_assert!(deleted.after.run_with_valid_tokens().is_none());
        for (n, input) in (51..).zip(after) {
            match step(Some(&deleted.after), &command(&deleted.after, input, n), &context(n)) {
                Ok(done) => prop_assert!(done.is_none()),
                Err(refusal) => prop_assert_eq!(refusal.code, RefusalCode::NotFound),
            }
        }
        prop_assert!(step(Some(&deleted.after), &Command::Delete, &context(99)).unwrap().is_none());
    }
}

#[test]
fn a_patch_with_null_clears_the_field_also_after_it_was_stored() {
    let patch: SessionPatch = serde_json::from_str(r#"{"prompt": null, "display_name": "x"}"#).unwrap();
    assert_eq!((patch.prompt.clone(), patch.timeout), (Some(None), None));
    let stored = serde_json::to_string(&Command::Patch(patch.clone())).unwrap();
    assert_eq!(serde_json::from_str::<Command>(&stored).unwrap(), Command::Patch(patch));
}

#[test]
fn an_obstacle_is_shown_until_its_step_is_done_and_no_other_step_takes_it_away() {
    let apply = |session: &Session, fact: Fact| step(Some(session), &now(session, fact), &context(5)).unwrap();
    let unblocked = |step: &str| Fact::Unblocked { step: step.to_owned(), workflow_execution: "w".to_owned() };
    let blocked = Fact::Blocked {
        reason: "RepoCloneFailed".to_owned(),
        blocked_on: "reconcile-repos: no such host".to_owned(),
        next_retry_at: None,
        workflow_execution: "w".to_owned(),
    };
    let mut session = new_session(spec(true, false));
    session = step(Some(&session), &start(), &context(2)).unwrap().unwrap().after;
    session = apply(&session, Fact::Provisioning).unwrap().after;
    let creating = session.status_detail.clone();
    session = apply(&session, blocked.clone()).unwrap().after;
    assert_eq!(session.status_detail.as_ref().unwrap().reason, "RepoCloneFailed");
    assert!(apply(&session, unblocked("reconcile")).is_none(), "another step, though its name begins so");
    session = apply(&session, unblocked("reconcile-repos")).unwrap().after;
    let shown = session.status_detail.clone().unwrap();
    assert_eq!((shown.reason.as_str(), shown.blocked_on), ("Creating", None));
    assert_eq!(shown.workflow_execution, creating.unwrap().workflow_execution);
    session = apply(&session, Fact::MarkRunning).unwrap().after;
    session = apply(&session, blocked).unwrap().after;
    session = apply(&session, unblocked("reconcile-repos")).unwrap().after;
    assert_eq!(session.status_detail, None, "a session that runs waits for nothing");
}

#[test]
fn repositories_as_wanted_make_a_session_run_that_comes_up_and_no_other() {
    let apply = |session: &Session, fact: Fact| step(Some(session), &now(session, fact), &context(5)).unwrap();
    let as_wanted = |session: &Session, marks_running: bool| Fact::Reconciled {
        generation: session.generation,
        repos: Vec::new(),
        playbook: None,
        marks_running,
    };
    let mut session = new_session(spec(true, false));
    session = step(Some(&session), &start(), &context(2)).unwrap().unwrap().after;
    session = apply(&session, Fact::Provisioning).unwrap().after;
    let plain = apply(&session, as_wanted(&session, false)).unwrap();
    assert_eq!((plain.events.len(), plain.after.phase()), (1, Some(Phase::Creating)));
    let both = apply(&session, as_wanted(&session, true)).unwrap();
    assert_eq!((both.events.len(), both.after.phase()), (2, Some(Phase::Running)));
    // Reported apart or together, it is the same.
    let apart = apply(&plain.after, Fact::MarkRunning).unwrap().after;
    assert_eq!(Session { version: 0, ..apart }, Session { version: 0, ..both.after.clone() });
    // The step is repeated: once the first fact is in force, Running is what is left; then nothing.
    let rest = apply(&plain.after, as_wanted(&plain.after, true)).unwrap();
    assert_eq!((rest.events.len(), rest.after.phase()), (1, Some(Phase::Running)));
    assert!(apply(&both.after, as_wanted(&both.after, true)).is_none());
    let stored = serde_json::to_value(as_wanted(&session, false)).unwrap();
    assert_eq!(stored.get("marks_running"), None, "what was stored before reads and hashes as it did");
}

#[test]
fn what_is_wrong_with_a_repository_is_shown_until_it_is_right_again_also_after_the_end() {
    let apply = |session: &Session, fact: Fact| step(Some(session), &now(session, fact), &context(5)).unwrap();
    let seen = |problem: Option<RepoProblem>| Fact::ReposSeen {
        problems: problem.into_iter().map(|problem| ("r".to_owned(), problem)).collect(),
        positions: [].into(),
    };
    let shown = |session: &Session| {
        let condition = session.condition(ConditionType::ReposReconciled).unwrap();
        (condition.status, condition.reason.clone(), condition.message.clone())
    };
    let repo = ReconciledRepo {
        name: "r".to_owned(),
        url: "file:///r".to_owned(),
        branch: None,
        head: None,
        cloned_at: chrono::DateTime::UNIX_EPOCH,
        notices: vec!["is empty".to_owned()],
        problem: None,
    };
    let mut session = new_session(spec(false, false));
    session = step(Some(&session), &start(), &context(2)).unwrap().unwrap().after;
    session = apply(&session, Fact::Provisioning).unwrap().after;
    session = apply(
        &session,
        Fact::Reconciled { generation: session.generation, repos: vec![repo], playbook: None, marks_running: false },
    )
    .unwrap()
    .after;
    assert!(apply(&session, seen(None)).is_none(), "nothing is new");
    let at = |head: &str| Fact::ReposSeen {
        problems: [].into(),
        positions: [("r".to_owned(), RepoPosition { branch: None, head: Some(head.to_owned()) })].into(),
    };
    let moved = apply(&session, at("one")).unwrap();
    assert!(moved.events.len() == 1 && apply(&moved.after, at("one")).is_none());
    session = moved.after;
    let broken = RepoProblem { missing: false, reason: "git failed".to_owned() };
    session = apply(&session, seen(Some(broken))).unwrap().after;
    assert_eq!(shown(&session), (ConditionStatus::False, "RepoBroken".to_owned(), "r: git failed".to_owned()));
    session = apply(&session, seen(None)).unwrap().after;
    assert_eq!(shown(&session), (ConditionStatus::True, "Reconciled".to_owned(), "r: is empty".to_owned()));
    session = apply(&session, Fact::Exited { code: 0, reason: String::new() }).unwrap().after;
    session = apply(&session, Fact::TornDown { evidence: Vec::new(), not_run: Vec::new() }).unwrap().after;
    let missing = RepoProblem { missing: true, reason: "is gone".to_owned() };
    session = apply(&session, seen(Some(missing))).unwrap().after;
    assert_eq!(shown(&session), (ConditionStatus::False, "RepoMissing".to_owned(), "r: is gone".to_owned()));
    assert_eq!(session.reconciled_repos[0].head.as_deref(), Some("one"), "what is not told is as it was");
}
