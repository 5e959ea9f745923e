//! `docs/session-state.md` is drawn from the machine itself. `UPDATE_DOCS=1 cargo test -p ambient-domain` redraws it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    path::Path,
};

use ambient_domain::session::{Command, ConditionStatus, ConditionType, Fact, Session, TurnOutcome};
use support::*;

const PHASES: [&str; 8] = ["New", "Pending", "Creating", "Running", "Stopping", "Stopped", "Completed", "Failed"];

/// Everything that can be asked or seen, with its name in the diagram. Commands first.
fn inputs(session: &Session) -> Vec<(&'static str, Command)> {
    let fact = |fact| now(session, fact);
    let lost = session.required_workflows().pop().unwrap_or_default();
    vec![
        ("start", start()),
        ("stop", stop(false)),
        ("stop (force)", stop(true)),
        ("send message", send(false)),
        ("send message (start)", send(true)),
        ("delete", Command::Delete),
        ("Provisioning", fact(Fact::Provisioning)),
        ("RunnerReady", fact(Fact::RunnerReady { missing_confinement: vec![] })),
        ("MarkRunning", fact(Fact::MarkRunning)),
        ("Exited(0)", fact(exited(0))),
        ("Exited(other)", fact(exited(1))),
        ("RunnerLost", fact(runner_lost())),
        ("Fatal", fact(fatal())),
        ("TurnEnded (ends with the turn)", fact(turn_ended(session, TurnOutcome::Finished))),
        ("TornDown", fact(torn_down())),
        ("WorkflowLost", fact(Fact::WorkflowLost { workflow_execution: lost })),
    ]
}
const COMMANDS: usize = 6;

/// What decides how a session goes on; two sessions alike in this are drawn as one.
fn key(session: &Session) -> (String, String, i32, bool, bool) {
    let started = session.condition(ConditionType::RunnerStarted).is_some_and(|c| c.status == ConditionStatus::True);
    let outcome = match &session.lifecycle {
        ambient_domain::session::Lifecycle::Stopping { outcome, .. } => outcome.phase().to_string(),
        _ => String::new(),
    };
    let attempt = session.run().map_or(0, |run| run.attempt);
    (phase(session), outcome, attempt, started, session.spec.completes_with_turn())
}

/// Edges by (from, to), and what each phase answers to each command.
struct Explored {
    edges: BTreeMap<(usize, usize), BTreeSet<(usize, &'static str)>>,
    answers: BTreeMap<(usize, usize), BTreeSet<&'static str>>,
}

fn explore() -> Explored {
    let place = |session: &Session| PHASES.iter().position(|name| *name == phase(session)).unwrap();
    let mut queue: VecDeque<Session> = [new_session(spec(true, false)), new_session(spec(true, true))].into();
    let mut seen: BTreeSet<_> = queue.iter().map(key).collect();
    let mut explored = Explored { edges: BTreeMap::new(), answers: BTreeMap::new() };
    while let Some(session) = queue.pop_front() {
        for (i, (name, command)) in inputs(&session).into_iter().enumerate() {
            let result = step(Some(&session), &command, &context(1));
            let answer = match &result {
                Ok(Some(_)) => "yes",
                Ok(None) => "nothing to do",
                Err(_) => "409",
            };
            explored.answers.entry((i, place(&session))).or_default().insert(answer);
            let Ok(Some(step)) = result else { continue };
            if step.after.deleted_at.is_some() {
                continue;
            }
            let restarted = name == "RunnerLost" && phase(&step.after) == "Creating";
            if phase(&step.after) != phase(&session) || restarted {
                let name = if restarted { "RunnerLost (attempts left)" } else { name };
                explored.edges.entry((place(&session), place(&step.after))).or_default().insert((i, name));
            }
            if seen.insert(key(&step.after)) {
                queue.push_back(step.after);
            }
        }
    }
    explored
}

fn document() -> String {
    let explored = explore();
    let mut out = String::from(
        "# States of a session\n\n\
         Drawn from the state machine by `domain/tests/state_diagram.rs`; a test fails when it is out of date\n\
         (`UPDATE_DOCS=1 cargo test -p ambient-domain --test state_diagram` redraws it). Lower case: commands from people,\n\
         which may be refused; upper case: facts, which never are. `delete` is allowed in every state.\n\n\
         ```mermaid\nstateDiagram-v2\n    [*] --> New\n",
    );
    for ((from, to), names) in &explored.edges {
        let names: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
        writeln!(out, "    {} --> {}: {}", PHASES[*from], PHASES[*to], names.join(", ")).unwrap();
    }
    for terminal in ["Stopped", "Completed", "Failed"] {
        writeln!(out, "    {terminal} --> [*]: delete").unwrap();
    }
    out.push_str("```\n\n## How each state answers a command\n\n");
    writeln!(out, "| Command | {} |", PHASES.join(" | ")).unwrap();
    writeln!(out, "|---|{}", "---|".repeat(PHASES.len())).unwrap();
    let names = inputs(&new_session(spec(true, false)));
    for (i, (name, _)) in names.iter().take(COMMANDS).enumerate() {
        let answers = (0..PHASES.len()).map(|phase| {
            let answers: Vec<&str> = explored.answers[&(i, phase)].iter().copied().collect();
            answers.join(" or ")
        });
        writeln!(out, "| {name} | {} |", answers.collect::<Vec<_>>().join(" | ")).unwrap();
    }
    out.push_str(
        "\nThis is for interactive sessions; a batch session (`interactive: false`) takes no messages while Running and ends with its turn.\n\n\
         ## Permission requests\n\n\
         A request of the agent belongs to one attempt of a run. It is taken while the session is Creating or Running, and can be answered then: the\n\
         first answer counts, the same one again changes nothing, another one is a 409. While one waits, `Ready` is True with `WaitingForAnswer`.\n\n\
         | It is closed as | when |\n|---|---|\n\
         | `answered` | the runner's log says that the agent has the answer |\n\
         | `expired` | nobody answered within the `timeout` of the permissions: it is rejected |\n\
         | `cancelled` | its turn was stopped, or the run was, before there was an answer |\n\
         | `lost` | agent or runner ended before an answer was handed over, the runner was launched again, the turn ended without it, or the run ended otherwise than by a stop |\n\n\
         While Stopping, requests stay open and take no answers: the rest of the log says how they ended; what is still open at the end is closed with it.\n\
         An answer that was lost is shown with the same request of a later attempt of the run, and given again if `repeat_answers` says so.\n",
    );
    out
}

#[test]
fn the_state_diagram_in_the_docs_is_that_of_the_machine() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/session-state.md");
    let drawn = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &drawn).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(stored, drawn, "docs/session-state.md is out of date: run with UPDATE_DOCS=1");
}

#[test]
fn every_phase_can_be_reached() {
    let explored = explore();
    for (place, phase) in PHASES.iter().enumerate().skip(1) {
        assert!(explored.edges.keys().any(|(_, to)| *to == place), "{phase}");
    }
    let leaving_terminal: Vec<_> = explored.edges.keys().filter(|(from, _)| *from >= 5).collect();
    assert!(leaving_terminal.iter().all(|(_, to)| PHASES[*to] == "Pending"), "an ended session only starts anew");
    for (from, to) in explored.edges.keys() {
        let forced = explored.edges[&(*from, *to)].iter().all(|(_, name)| *name == "stop (force)");
        assert!(*to < 5 || *from == 4 || forced, "{} -> {} without Stopping", PHASES[*from], PHASES[*to]);
    }
}
