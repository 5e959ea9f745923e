//! What people do while a workflow is running: two starts at once, stop during start, delete during anything.

use ambient_actors::CallError;
use ambient_domain::{
    RefusalCode,
    session::{Command, Phase, Session, StopReason, workflow_id},
};
use ambient_persistence::new_id;
use ambient_workflows::{
    session_start, session_stop,
    step::{Patience, Step},
};
use futures::future::join_all;

use crate::{
    faults::Fault,
    world::{World, wait_for},
};

fn stop() -> Command {
    Command::Stop { reason: StopReason::UserStopped, seen_seq: None, run: None, force: false }
}

/// A session that is being started and has come to this step, which fails for as long as the workflow is patient with it.
async fn started_up_to(world: &World, project: &str, step: &Step) -> String {
    let (id, step, patience) = (new_id(), step.name(), step.patience);
    let fault = if patience == Patience::Few { Fault::twice(vec![step]) } else { Fault::endless(step) };
    world.faults.plan(&id, &[fault]);
    world.new_session(&id, project, world.interactive(), true).await;
    wait_for(step, || async { (world.faults.begun(&id, step) > 0).then_some(()) }).await;
    id
}

/// The session is deleted, and nothing of it is left.
async fn gone(world: &World, id: &str) {
    let (delete, count) = ("session-delete".to_owned(), "Completed".to_owned());
    let all = wait_for("session-delete", || async {
        let all = world.closed(id).await;
        all.iter().any(|(workflow, _)| *workflow == delete).then_some(all)
    })
    .await;
    assert!(all.contains(&(delete, count)), "{all:?}");
    let session = world.session(id).await;
    assert!(session.deleted_at.is_some());
    assert!(!world.paths(&session).root.exists(), "the workspace of {id} is still there");
    world.nothing_left(&session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_starts_at_once_one_is_accepted() {
    let world = World::new().await;
    let (project, id) = (world.project().await, new_id());
    world.new_session(&id, &project, world.interactive(), false).await;
    let start = || world.ask::<Session>(&id, Command::Start { prompt: None });
    let answers = <[_; 2]>::from(tokio::join!(start(), start()));
    let refused = answers
        .iter()
        .filter(|answer| matches!(answer, Err(CallError::Refused(refusal)) if refusal.code == RefusalCode::Phase));
    assert_eq!((answers.iter().filter(|a| a.is_ok()).count(), refused.count()), (1, 1), "{answers:?}");
    let session = world.idle(&id).await;
    assert_eq!((session.run_number(), world.marks(&session)), (1, 1));
    // A stop that comes again changes nothing; a start waits for the proof.
    world.faults.plan(&id, &[Fault::endless(session_stop::STEPS[0].name())]);
    world.ask::<Session>(&id, stop()).await.unwrap();
    world.ask::<Session>(&id, stop()).await.unwrap();
    let early = world.ask::<Session>(&id, Command::Start { prompt: None }).await.unwrap_err();
    assert!(matches!(early, CallError::Refused(ref r) if r.code == RefusalCode::TryLater), "{early:?}");
    world.faults.clear(&id);
    let stopped = world.in_phase(&id, Phase::Stopped).await;
    world.closed(&id).await;
    world.torn_down(&stopped).await;
    // The next run has the workspace of the last one, and nothing else of it.
    world.ask::<Session>(&id, Command::Start { prompt: None }).await.unwrap();
    let session = world.session_where(&id, "two turns", |s| s.run_number() == 2 && world.marks(s) == 2).await;
    world.ask::<Session>(&id, Command::Delete).await.unwrap();
    gone(&world, &session.id).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_at_any_step_of_a_start_ends_it_stopped_and_torn_down() {
    let world = World::new().await;
    let project = world.project().await;
    join_all(session_start::STEPS.iter().map(|step| async {
        let id = started_up_to(&world, &project, step).await;
        world.ask::<Session>(&id, stop()).await.unwrap();
        let session = world.in_phase(&id, Phase::Stopped).await;
        let started = workflow_id::start(&id, 1, 1);
        // A step that sees for itself that the run is over ends the start before its cancellation arrives.
        let end = world.end_of(&started).await;
        assert!(["Canceled", "Completed"].contains(&end.as_str()), "{end}, stopped at {}", step.name());
        // What it did is the beginning of its table: a cancelled start undoes nothing.
        let mut asked = world.activities_of(&started).await;
        asked.retain(|name| name != "place-session");
        let table = session_start::STEPS.iter().map(Step::name);
        assert_eq!(asked, table.take(asked.len()).collect::<Vec<_>>(), "stopped at {}", step.name());
        world.closed(&id).await;
        world.torn_down(&session).await;
    }))
    .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_at_any_step_of_a_start_or_a_stop_leaves_nothing() {
    let world = World::new().await;
    let project = world.project().await;
    let starting = join_all(session_start::STEPS.iter().map(|step| async {
        let id = started_up_to(&world, &project, step).await;
        world.ask::<Session>(&id, Command::Delete).await.unwrap();
        gone(&world, &id).await;
    }));
    let stopping = join_all(session_stop::STEPS.iter().map(|step| async {
        let id = new_id();
        world.new_session(&id, &project, world.interactive(), true).await;
        world.idle(&id).await;
        world.faults.plan(&id, &[Fault::endless(step.name())]);
        world.ask::<Session>(&id, stop()).await.unwrap();
        wait_for(step.name(), || async { (world.faults.begun(&id, step.name()) > 0).then_some(()) }).await;
        world.ask::<Session>(&id, Command::Delete).await.unwrap();
        world.faults.clear(&id);
        gone(&world, &id).await;
    }));
    tokio::join!(starting, stopping);
    world.end().await;
}
