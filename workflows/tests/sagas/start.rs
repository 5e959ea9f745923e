//! session-start: fail at every step, every undo twice.

use ambient_domain::session::{Command, Phase, Repo, Session, workflow_id};
use ambient_persistence::new_id;
use ambient_workflows::{session_start, step::Step};
use futures::future::join_all;

use crate::{
    faults::Fault,
    world::{World, wait_for},
};

/// What undoes these steps, in the order it must be done.
fn undone(steps: &[Step]) -> Vec<&'static str> {
    steps.iter().rev().flat_map(|step| step.undo).map(|undo| undo.name()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_at_any_step_is_undone_and_the_session_ends_failed_and_torn_down() {
    let world = World::new().await;
    let project = world.project().await;
    let failing = (0..session_start::STEPS.len()).map(|at| fails_at(&world, &project, at));
    join_all(failing).await;
    world.end().await;
}

async fn fails_at(world: &World, project: &str, at: usize) {
    let (id, steps) = (new_id(), &session_start::STEPS[..=at]);
    world.faults.plan(&id, &[Fault::fatal(session_start::STEPS[at].name())]);
    world.new_session(&id, project, world.interactive(), true).await;
    let session = world.in_phase(&id, Phase::Failed).await;
    let why = session.status_detail.as_ref().map(|detail| detail.reason.as_str());
    assert_eq!(why, Some("Injected"), "failed at {}: {:?}", session_start::STEPS[at].name(), session.lifecycle);
    assert_eq!(session.run().map(|run| run.attempt), Some(1), "failed at {}", session_start::STEPS[at].name());
    let statuses = world.closed(&id).await;
    let expected = |workflow: &str| if workflow == "session-start" { "Failed" } else { "Completed" };
    for (workflow, status) in &statuses {
        assert_eq!(status, expected(workflow), "{workflow} of the start that failed at {}", steps[at].name());
    }
    // The order of effects is the table's, and so is the order of undoing.
    let mut asked = world.activities_of(&workflow_id::start(&id, 1, 1)).await;
    asked.retain(|name| name != "place-session" && name != "report-failure");
    let done = steps.iter().map(Step::name);
    assert_eq!(asked, done.chain(undone(steps)).collect::<Vec<_>>());
    world.torn_down(&session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_made_the_session_run_and_is_repeated_does_not_end_it() {
    let world = World::new().await;
    let (project, id) = (world.project().await, new_id());
    let (fault, let_go) = Fault::after("reconcile-and-mark-running");
    world.faults.plan(&id, &[fault]);
    world.new_session(&id, &project, world.interactive(), true).await;
    world.in_phase(&id, Phase::Running).await;
    // It runs by now: what is wrong with a change is told, and is no reason to end it.
    let broken = Repo { url: "file:///nowhere/at/all".to_owned(), ..world.repo("second") };
    world.ask::<Session>(&id, Command::AddRepo(broken)).await.unwrap();
    drop(let_go);
    assert_eq!(world.end_of(&workflow_id::start(&id, 1, 1)).await, "Completed");
    let session = world.session(&id).await;
    assert_eq!((session.phase(), world.faults.begun(&id, "reconcile-and-mark-running")), (Some(Phase::Running), 2));
    world.ask::<Session>(&id, Command::Delete).await.unwrap();
    world.closed(&id).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_that_is_done_twice_leaves_what_one_leaves() {
    let world = World::new().await;
    let project = world.project().await;
    let undoing = (0..session_start::STEPS.len()).filter(|at| !session_start::STEPS[*at].undo.is_empty());
    join_all(undoing.map(|at| undone_twice(&world, &project, at))).await;
    world.end().await;
}

/// The step after the one to be undone fails; teardown is held back, so that what is seen is the undo's doing.
async fn undone_twice(world: &World, project: &str, at: usize) {
    let (id, steps) = (new_id(), &session_start::STEPS[..=at]);
    let fails = session_start::STEPS[at + 1].name();
    let held = ambient_workflows::session_stop::STEPS[0].name();
    world.faults.plan(&id, &[Fault::fatal(fails), Fault::twice(undone(steps)), Fault::endless(held)]);
    world.new_session(&id, project, world.interactive(), true).await;
    assert_eq!(world.end_of(&workflow_id::start(&id, 1, 1)).await, "Failed");
    for undo in undone(steps) {
        assert_eq!(world.faults.done(&id, undo), 2, "{undo}");
    }
    wait_for("session-stop at its first step", || async { (world.faults.begun(&id, held) > 0).then_some(()) }).await;
    world.nothing_left(&world.session(&id).await).await;
    world.faults.clear(&id);
    let session = world.in_phase(&id, Phase::Failed).await;
    assert_eq!(session.status_detail.as_ref().map(|detail| detail.reason.as_str()), Some("Injected"));
    world.closed(&id).await;
    world.torn_down(&session).await;
}
