//! A stop that cannot finish: people are told, may proceed without the proof, and the next run waits for it.

use std::time::Duration;

use ambient_domain::session::{Command, ConditionStatus, ConditionType, Phase, Session, StopReason};
use ambient_persistence::new_id;
use ambient_workflows::session_stop;

use crate::{
    faults::Fault,
    world::{World, wait_for},
};

fn stop(force: bool) -> Command {
    Command::Stop { reason: StopReason::UserStopped, seen_seq: None, run: None, force }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_is_stuck_is_told_may_be_forced_and_is_proven_before_the_next_run() {
    let world = World::with_short_timers().await;
    let (project, id, stuck) = (world.project().await, new_id(), "terminate-runner");
    world.new_session(&id, &project, world.interactive(), true).await;
    world.idle(&id).await;
    world.faults.plan(&id, &[Fault::endless(stuck)]);
    world.ask::<Session>(&id, stop(false)).await.unwrap();
    wait_for(stuck, || async { (world.faults.begun(&id, stuck) > 2).then_some(()) }).await;
    world.advance(session_stop::TELL_AFTER + Duration::from_secs(1)).await;
    // Where the clock cannot be moved the timer is short, and may be over before this step is reached.
    let early = crate::engine::is_temporal();
    let told =
        |s: &Session| s.condition(ConditionType::StopIncomplete).is_some_and(|c| early || c.message.contains(stuck));
    let session = world.session_where(&id, "StopIncomplete", told).await;
    assert_eq!(session.phase(), Some(Phase::Stopping), "it is not over for that");

    world.ask::<Session>(&id, stop(true)).await.unwrap();
    let session = world.in_phase(&id, Phase::Stopped).await;
    let proof = session.condition(ConditionType::TornDown).unwrap();
    assert_eq!((proof.status, proof.reason.as_str()), (ConditionStatus::Unknown, "Forced"));
    let live = world.compute.inventory().await.unwrap();
    assert_eq!(live.iter().map(|found| found.live_runs.clone()).collect::<Vec<_>>(), [[1]], "run 1 lives on");

    let waiting = "bring-up-runner";
    world.faults.plan(&id, &[Fault::endless(stuck), Fault::endless(waiting)]);
    world.ask::<Session>(&id, Command::Start { prompt: None }).await.unwrap();
    let blocked = |s: &Session| {
        s.status_detail.as_ref().is_some_and(|d| d.blocked_on.as_ref().is_some_and(|b| b.contains(waiting)))
    };
    let session = world.session_where(&id, "the start says what it waits for", blocked).await;
    assert_eq!((session.run_number(), session.phase()), (2, Some(Phase::Pending)));
    world.faults.clear(&id);
    world.session_where(&id, "two turns", |s| s.run_number() == 2 && world.marks(s) == 2).await;
    world.idle(&id).await;
    world.ask::<Session>(&id, stop(false)).await.unwrap();
    let session = world.in_phase(&id, Phase::Stopped).await;
    world.closed(&id).await;
    world.torn_down(&session).await;
    world.end().await;
}
