//! The clocks of a run, moved rather than waited for: timeout, inactivity, token; and the sweep, which runs every minute.

use std::time::Duration;

use ambient_domain::session::{Command, Lifecycle, Phase, RunOutcome, Session, Spec, StopReason, workflow_id};
use ambient_persistence::new_id;
use ambient_workflows::{activities::TOKEN_LIFE, session_start, sweep, token_refresh};

use crate::{
    faults::{Fault, SWEEP},
    world::{World, wait_for},
};

fn outcome(session: &Session) -> &RunOutcome {
    match &session.lifecycle {
        Lifecycle::Ended { outcome, .. } => outcome,
        other => panic!("not ended: {other:?}"),
    }
}

/// Its timer is set: a clock that is moved before would be moved in vain.
async fn asleep(world: &World, workflow_id: &str) {
    wait_for(&format!("{workflow_id} asleep"), || async {
        let history = world.executions.history(workflow_id, 0, 10_000).await.ok()?;
        let last = |event_type: &str| history.iter().rposition(|event| event.event_type == event_type);
        (last("TimerStarted")? > last("ActivityTaskScheduled")?).then_some(())
    })
    .await;
}

/// Failed, because its time is over.
async fn timed_out(world: &World, id: &str) -> Session {
    let session = world.in_phase(id, Phase::Failed).await;
    let why = outcome(&session);
    assert!(matches!(why, RunOutcome::Failed { reason, .. } if reason == "Timeout"), "{why:?}");
    session
}

/// Started, idle, and nothing of it under way that a moved clock would time out.
async fn at_rest(world: &World, id: &str) -> Session {
    let session = world.idle(id).await;
    assert_eq!(world.end_of(&workflow_id::start(id, 1, 1)).await, "Completed");
    asleep(world, &workflow_id::supervise(id, 1)).await;
    session
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_ends_when_its_time_is_over_or_nothing_has_happened_for_long() {
    let world = World::new().await;
    let (project, timed, quiet) = (world.project().await, new_id(), new_id());
    world.new_session(&timed, &project, Spec { timeout: Some(7200), ..world.interactive() }, true).await;
    world.new_session(&quiet, &project, Spec { inactivity_timeout: 3600, ..world.interactive() }, true).await;
    at_rest(&world, &timed).await;
    at_rest(&world, &quiet).await;
    world.advance(Duration::from_secs(3_700)).await;
    let session = world.in_phase(&quiet, Phase::Stopped).await;
    assert_eq!(outcome(&session), &RunOutcome::Stopped { reason: StopReason::InactivityTimeout });
    world.closed(&quiet).await;
    world.torn_down(&session).await;
    assert_eq!(at_rest(&world, &timed).await.phase(), Some(Phase::Running), "its time is not over");
    world.advance(Duration::from_secs(3_600)).await;
    let session = timed_out(&world, &timed).await;
    world.closed(&timed).await;
    world.torn_down(&session).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_a_run_goes_on_while_its_repositories_cannot_be_brought_about() {
    let world = World::new().await;
    let (project, id) = (world.project().await, new_id());
    world.new_session(&id, &project, Spec { timeout: Some(7200), ..world.interactive() }, true).await;
    at_rest(&world, &id).await;
    let (step, before) = ("reconcile-repos", world.faults.begun(&id, "reconcile-repos"));
    world.faults.plan(&id, &[Fault::endless(step)]);
    world.ask::<Session>(&id, Command::AddRepo(world.repo("second"))).await.unwrap();
    wait_for("the second try", || async { (world.faults.begun(&id, step) > before + 1).then_some(()) }).await;
    asleep(&world, &workflow_id::supervise(&id, 1)).await;
    world.advance(Duration::from_secs(7_300)).await;
    let session = timed_out(&world, &id).await;
    world.faults.clear(&id);
    world.closed(&id).await;
    world.torn_down(&session).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_never_comes_to_an_end_fails_at_its_deadline() {
    let world = World::new().await;
    let (project, id) = (world.project().await, new_id());
    // Patient for minutes at this step; the clock of the run is not.
    let step = session_start::STEPS.iter().find(|step| step.name() == "bring-up-runner").unwrap().name();
    world.faults.plan(&id, &[Fault::endless(step)]);
    world.new_session(&id, &project, world.interactive(), true).await;
    wait_for(step, || async { (world.faults.begun(&id, step) > 0).then_some(()) }).await;
    asleep(&world, &workflow_id::supervise(&id, 1)).await;
    world.advance(Duration::from_secs(601)).await;
    let session = world.in_phase(&id, Phase::Failed).await;
    assert_eq!(outcome(&session).reason(), "StartDeadlineExceeded");
    world.closed(&id).await;
    world.torn_down(&session).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_replaced_in_time_though_every_try_fails_at_first_or_is_repeated() {
    let world = World::new().await;
    let (project, plain, failing, twice) = (world.project().await, new_id(), new_id(), new_id());
    for id in [&plain, &failing, &twice] {
        world.new_session(id, &project, world.interactive(), true).await;
        at_rest(&world, id).await;
    }
    world.faults.plan(&failing, &[Fault::everywhere(2)]);
    world.faults.plan(&twice, &[Fault::all_twice()]);
    let token =
        |session: &Session| std::fs::read(world.paths(session).run_dir(1).join("secrets/runner-to-server")).unwrap();
    let mut before = Vec::new();
    for id in [&plain, &failing, &twice] {
        asleep(&world, &workflow_id::token_refresh(id, 1)).await;
        before.push(token(&world.session(id).await));
    }
    world.advance(Duration::from_secs(TOKEN_LIFE.unsigned_abs() * 3 / 4)).await;
    for (id, before) in [&plain, &failing, &twice].into_iter().zip(before) {
        let session = world.session(id).await;
        wait_for("a new token", || async { (token(&session) != before).then_some(()) }).await;
        assert_eq!(world.session(id).await.restart_count, 0, "a new token needs no restart");
    }
    for step in token_refresh::STEPS {
        wait_for("the repeat", || async { (world.faults.done(&twice, step.name()) == 2).then_some(()) }).await;
        assert_eq!((world.faults.begun(&failing, step.name()), world.faults.done(&plain, step.name())), (3, 1));
    }
    for id in [&plain, &failing, &twice] {
        let stop = Command::Stop { reason: StopReason::UserStopped, seen_seq: None, run: None, force: false };
        world.ask::<Session>(id, stop).await.unwrap();
        let session = world.in_phase(id, Phase::Stopped).await;
        let all = world.closed(id).await;
        assert!(all.iter().all(|(_, status)| status == "Completed"), "{all:?}");
        world.torn_down(&session).await;
    }
    world.end().await;
}

/// The next sweep begins.
pub(crate) async fn minute_passes(world: &World) {
    asleep(world, &format!("sweep/{}", world.compute.host())).await;
    world.advance(sweep::EVERY + Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweep_goes_on_through_failures_and_finds_a_lost_workflow() {
    let world = World::with_short_timers().await;
    let (project, id) = (world.project().await, new_id());
    world.new_session(&id, &project, world.interactive(), true).await;
    at_rest(&world, &id).await;
    for (round, faults) in [vec![Fault::everywhere(1)], vec![Fault::all_twice()]].into_iter().enumerate() {
        world.faults.plan(SWEEP, &faults);
        let before = sweep::STEPS.iter().map(|step| world.faults.done(SWEEP, step.name())).collect::<Vec<_>>();
        minute_passes(&world).await;
        for (step, before) in sweep::STEPS.iter().zip(before) {
            let done = || async { (world.faults.done(SWEEP, step.name()) > before + round).then_some(()) };
            wait_for(step.name(), done).await;
        }
    }
    assert_eq!(world.session(&id).await.phase(), Some(Phase::Running), "a sweep leaves what is well alone");
    world.faults.clear(SWEEP);
    world.executions.terminate(&workflow_id::supervise(&id, 1), "lost").await.unwrap();
    minute_passes(&world).await;
    let session = world.in_phase(&id, Phase::Failed).await;
    assert_eq!(outcome(&session).reason(), "WorkflowLost");
    world.closed(&id).await;
    world.torn_down(&session).await;
    world.end().await;
}
