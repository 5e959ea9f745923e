//! Branches that nothing else takes: workflows that are superseded at any step, cancelled by an administrator, whose undo fails,
//! whose steps time out, or that have looped so often that they continue as new.

use std::{net::TcpListener, time::Duration};

use ambient_actors::CallError;
use ambient_domain::{
    WorkflowInput,
    project::{self, Project},
    session::{Command, Phase, Session, Spec, StopReason, workflow_id},
};
use ambient_persistence::new_id;
use ambient_wire::execution::PendingActivity;
use ambient_workflows::{
    TASK_QUEUE, session_delete,
    session_reconcile::SessionReconcile,
    session_start, session_stop,
    step::{FEW_LOST, Step},
    sweep, token_refresh,
};
use futures::future::join_all;
use temporalio_client::WorkflowStartOptions;

use crate::{
    faults::{Fault, SWEEP},
    world::{World, wait_for},
};

fn stop() -> Command {
    Command::Stop { reason: StopReason::UserStopped, seen_seq: None, run: None, force: false }
}

async fn stopped(world: &World, id: &str) {
    world.faults.clear(id);
    world.ask::<Session>(id, stop()).await.unwrap();
    stopped_at_last(world, id).await;
}

/// The sweep does not look for workflows that are gone: a session whose start was cancelled would fail as soon as it does.
fn nobody_misses_workflows(world: &World) {
    world.faults.plan(SWEEP, &[Fault::fatal(sweep::STEPS[0].name())]);
}

/// Waits until a step of an entity was begun.
async fn begun(world: &World, entity: &str, step: &str) {
    wait_for(step, || async { (world.faults.begun(entity, step) > 0).then_some(()) }).await;
}

/// Waits until an activity of an execution is pending so.
async fn pending(world: &World, workflow_id: &str, activity: &str, fits: impl Fn(&PendingActivity) -> bool) {
    wait_for(&format!("{activity} pending"), || async {
        let pending = world.executions.get(workflow_id).await.ok()?.pending_activities;
        pending.iter().any(|found| found.activity == activity && fits(found)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_superseded_at_any_step_ends_there_and_undoes_nothing() {
    let world = World::new().await;
    nobody_misses_workflows(&world);
    let project = world.project().await;
    join_all(session_start::STEPS.iter().enumerate().map(|(at, step)| {
        let (world, project) = (&world, &project);
        async move {
            let id = new_id();
            world.faults.plan(&id, &[Fault::superseded(step.name())]);
            world.new_session(&id, project, world.interactive(), true).await;
            let start = workflow_id::start(&id, 1, 1);
            assert_eq!(world.end_of(&start).await, "Completed", "superseded at {}", step.name());
            let mut asked = world.activities_of(&start).await;
            asked.retain(|name| name != "place-session");
            assert_eq!(asked, session_start::STEPS[..=at].iter().map(Step::name).collect::<Vec<_>>());
            stopped(world, &id).await;
        }
    }))
    .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_an_administrator_cancels_at_any_step_ends_there_and_undoes_nothing() {
    let world = World::new().await;
    nobody_misses_workflows(&world);
    let project = world.project().await;
    join_all(session_start::STEPS.iter().enumerate().map(|(at, step)| {
        let (world, project) = (&world, &project);
        async move {
            let id = new_id();
            world.faults.plan(&id, &[Fault::endless(step.name())]);
            world.new_session(&id, project, world.interactive(), true).await;
            let start = workflow_id::start(&id, 1, 1);
            pending(world, &start, step.name(), |a| a.attempt > 1 && a.state == "Scheduled").await;
            world.executions.cancel(&start, "by an administrator").await.unwrap();
            assert_eq!(world.end_of(&start).await, "Canceled", "cancelled at {}", step.name());
            let mut asked = world.activities_of(&start).await;
            asked.retain(|name| name != "place-session");
            assert_eq!(asked, session_start::STEPS[..=at].iter().map(Step::name).collect::<Vec<_>>());
            stopped(world, &id).await;
        }
    }))
    .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_cancelled_ends_so_also_when_its_step_fails_then() {
    let world = World::new().await;
    nobody_misses_workflows(&world);
    let project = world.project().await;
    for step in ["bring-up-runner", "await-runner"] {
        let id = new_id();
        let (fault, let_go) = Fault::fatal_when_let(step);
        world.faults.plan(&id, &[fault]);
        world.new_session(&id, &project, world.interactive(), true).await;
        begun(&world, &id, step).await;
        let start = workflow_id::start(&id, 1, 1);
        world.executions.cancel(&start, "by an administrator").await.unwrap();
        drop(let_go);
        assert_eq!(world.end_of(&start).await, "Canceled", "cancelled at {step}");
        let asked = world.activities_of(&start).await;
        assert_eq!(asked.last().map(String::as_str), Some(step), "it reports nothing and undoes nothing");
        stopped(&world, &id).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_start_undoes_nothing_when_it_is_superseded_and_goes_on_when_an_undo_fails() {
    let world = World::new().await;
    let (project, superseded, undo_fails) = (world.project().await, new_id(), new_id());
    world.faults.plan(&superseded, &[Fault::fatal("await-runner"), Fault::superseded("report-failure")]);
    world.new_session(&superseded, &project, world.interactive(), true).await;
    let start = workflow_id::start(&superseded, 1, 1);
    assert_eq!(world.end_of(&start).await, "Failed");
    assert_eq!(world.activities_of(&start).await.last().unwrap(), "report-failure");
    stopped(&world, &superseded).await;

    // Teardown is held back, so that it is the undo that fails.
    let held = session_stop::STEPS[0].name();
    let faults = [Fault::fatal("await-runner"), Fault::endless("terminate-runner"), Fault::endless(held)];
    world.faults.plan(&undo_fails, &faults);
    world.new_session(&undo_fails, &project, world.interactive(), true).await;
    let start = workflow_id::start(&undo_fails, 1, 1);
    assert_eq!(world.end_of(&start).await, "Failed");
    let asked = world.activities_of(&start).await;
    assert_eq!(asked[asked.len() - 2..], ["terminate-runner", "revoke-credentials"]);
    assert_eq!(world.faults.done(&undo_fails, "terminate-runner"), 0);
    world.faults.clear(&undo_fails);
    let session = world.in_phase(&undo_fails, Phase::Failed).await;
    world.closed(&undo_fails).await;
    world.torn_down(&session).await;
    world.end().await;
}

/// A repository whose server takes connections and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_whose_step_does_not_come_to_an_end_fails() {
    if crate::engine::is_temporal() {
        println!("skipped on Temporal: its clock cannot be moved");
        return;
    }
    let world = World::new().await;
    let (project, id) = (world.project().await, new_id());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut repo = world.repo("silent");
    repo.url = format!("https://{}/silent.git", silent.local_addr().unwrap());
    world.new_session(&id, &project, Spec { repos: vec![repo], ..world.interactive() }, true).await;
    let start = workflow_id::start(&id, 1, 1);
    let mut attempt = 0;
    while attempt < i32::try_from(FEW_LOST).unwrap() {
        pending(&world, &start, "reconcile-and-mark-running", |a| a.attempt > attempt && a.state == "Started").await;
        attempt += 1;
        // Longer than between two heartbeats, shorter than the start's deadline. A heartbeat that comes first, with the new time, keeps
        // the try alive: then once more.
        let under_way = async |attempt: i32| {
            let found = world.executions.get(&start).await.unwrap();
            found.pending_activities.iter().any(|a| a.activity == "reconcile-and-mark-running" && a.attempt == attempt)
        };
        let mut moved = 0;
        while under_way(attempt).await && moved < 3 {
            world.advance(Duration::from_secs(30)).await;
            moved += 1;
            tokio::time::timeout(Duration::from_secs(5), async {
                while under_way(attempt).await {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
            .await
            .ok();
        }
    }
    assert_eq!(world.end_of(&start).await, "Failed");
    world.in_phase(&id, Phase::Failed).await;
    world.closed(&id).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconciliation_is_cancelled_with_its_session_and_may_have_begun_before() {
    let world = World::new().await;
    let (project, deleted, before) = (world.project().await, new_id(), new_id());
    for id in [&deleted, &before] {
        world.new_session(id, &project, world.interactive(), true).await;
        world.idle(id).await;
        assert_eq!(world.end_of(&workflow_id::start(id, 1, 1)).await, "Completed");
        world.faults.plan(id, &[Fault::endless("reconcile-repos")]);
    }
    world.ask::<Session>(&deleted, Command::AddRepo(world.repo("second"))).await.unwrap();
    let child = format!("session-reconcile/{deleted}/1.2");
    wait_for("the reconciliation", || async { world.executions.get(&child).await.ok() }).await;
    // The pause before this try is long enough for the cancellation to come within it.
    pending(&world, &child, "reconcile-repos", |a| a.attempt > 4 && a.state == "Scheduled").await;
    world.ask::<Session>(&deleted, Command::Delete).await.unwrap();
    world.faults.clear(&deleted);
    world.closed(&deleted).await;

    // One of this id is under way when the supervisor comes to it.
    let child = format!("session-reconcile/{before}/1.2");
    let input = WorkflowInput { project_id: project.clone(), session_id: before.clone(), run: 1, attempt: 0 };
    let options = WorkflowStartOptions::new(TASK_QUEUE, child.clone()).build();
    world.client.start_workflow(SessionReconcile::run, input, options).await.unwrap();
    world.ask::<Session>(&before, Command::AddRepo(world.repo("second"))).await.unwrap();
    let supervisor = workflow_id::supervise(&before, 1);
    wait_for("a child that is there", || async {
        let history = world.executions.history(&supervisor, 0, 10_000).await.ok()?;
        history.iter().any(|e| e.event_type == "StartChildWorkflowExecutionFailed").then_some(())
    })
    .await;
    world.faults.clear(&before);
    assert_eq!(world.end_of(&child).await, "Completed");
    stopped(&world, &before).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconciliation_that_an_administrator_cancels_is_begun_again() {
    let world = World::new().await;
    let (project, id) = (world.project().await, new_id());
    world.new_session(&id, &project, world.interactive(), true).await;
    world.idle(&id).await;
    assert_eq!(world.end_of(&workflow_id::start(&id, 1, 1)).await, "Completed");
    world.faults.plan(&id, &[Fault::endless("reconcile-repos")]);
    let before = world.faults.begun(&id, "reconcile-repos");
    world.ask::<Session>(&id, Command::AddRepo(world.repo("second"))).await.unwrap();
    wait_for("the step", || async { (world.faults.begun(&id, "reconcile-repos") > before).then_some(()) }).await;
    assert_eq!(cancelled(&world, &id, "session-reconcile").await, "Canceled");
    world.faults.clear(&id);
    world.session_where(&id, "reconciled", |session| session.observed_generation == session.generation).await;
    let supervisor = workflow_id::supervise(&id, 1);
    assert_eq!(world.executions.get(&supervisor).await.unwrap().status, "Running");
    world.ask::<Session>(&id, stop()).await.unwrap();
    world.in_phase(&id, Phase::Stopped).await;
    assert_eq!(world.end_of(&supervisor).await, "Completed");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_administrator_cancels_or_terminates_ends_so() {
    let world = World::new().await;
    let (id, lost) = (new_id(), new_id());
    world.faults.plan(&id, &[Fault::endless("ensure-project-space")]);
    world.new_project(&id, "cancelled").await;
    begun(&world, &id, "ensure-project-space").await;
    assert_eq!(cancelled(&world, &id, "project-provision").await, "Canceled");
    world.faults.plan(&id, &[Fault::endless("delete-sessions")]);
    world.ask::<Project>(&id, project::Command::Delete).await.unwrap();
    begun(&world, &id, "delete-sessions").await;
    assert_eq!(cancelled(&world, &id, "project-delete").await, "Canceled");

    let project = world.project().await;
    world.new_session(&lost, &project, world.interactive(), true).await;
    world.idle(&lost).await;
    world.faults.plan(&lost, &[Fault::endless(session_stop::STEPS[0].name())]);
    world.ask::<Session>(&lost, stop()).await.unwrap();
    begun(&world, &lost, session_stop::STEPS[0].name()).await;
    assert_eq!(cancelled(&world, &lost, "session-stop").await, "Canceled");
    // The sweep finds that nobody stops it any more.
    minute_passes(&world).await;
    stopped_at_last(&world, &lost).await;
    world.faults.plan(&lost, &[Fault::endless(session_delete::STEPS[0].name())]);
    world.ask::<Session>(&lost, Command::Delete).await.unwrap();
    begun(&world, &lost, session_delete::STEPS[0].name()).await;
    assert_eq!(cancelled(&world, &lost, "session-delete").await, "Canceled");

    let sweep = format!("sweep/{}", world.compute.host());
    world.executions.cancel(&sweep, "by an administrator").await.unwrap();
    assert_eq!(world.end_of(&sweep).await, "Canceled");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_administrator_cancels_ends_so_also_when_its_step_fails_then() {
    let world = World::new().await;
    let (id, cancelled, deleted) = (new_id(), new_id(), new_id());
    let begin = world.new_project(&id, "cancelled");
    assert_eq!(
        cancelled_when_it_fails(&world, &id, "project-provision", "ensure-project-space", begin).await,
        "Canceled"
    );
    let begin = asked(world.ask::<Project>(&id, project::Command::Delete));
    assert_eq!(cancelled_when_it_fails(&world, &id, "project-delete", "delete-sessions", begin).await, "Canceled");

    let project = world.project().await;
    world.new_session(&cancelled, &project, world.interactive(), true).await;
    world.idle(&cancelled).await;
    let refresh = workflow_id::token_refresh(&cancelled, 1);
    wait_for("token-refresh", || async { world.executions.get(&refresh).await.ok() }).await;
    let begin = async { world.executions.signal(&refresh, "wake", &serde_json::Value::Null).await.unwrap() };
    assert_eq!(cancelled_when_it_fails(&world, &cancelled, "token-refresh", "refresh-token", begin).await, "Canceled");
    let (step, begin) = (session_stop::STEPS[0].name(), asked(world.ask::<Session>(&cancelled, stop())));
    assert_eq!(cancelled_when_it_fails(&world, &cancelled, "session-stop", step, begin).await, "Canceled");
    minute_passes(&world).await;
    stopped_at_last(&world, &cancelled).await;
    let (step, begin) = (session_delete::STEPS[0].name(), asked(world.ask::<Session>(&cancelled, Command::Delete)));
    assert_eq!(cancelled_when_it_fails(&world, &cancelled, "session-delete", step, begin).await, "Canceled");

    world.new_session(&deleted, &project, world.interactive(), true).await;
    world.idle(&deleted).await;
    assert_eq!(world.end_of(&workflow_id::start(&deleted, 1, 1)).await, "Completed");
    let begin = asked(world.ask::<Session>(&deleted, Command::AddRepo(world.repo("second"))));
    let (workflow, step) = ("session-reconcile", "reconcile-repos");
    assert_eq!(cancelled_when_it_fails(&world, &deleted, workflow, step, begin).await, "Canceled");
    world.ask::<Session>(&deleted, Command::Delete).await.unwrap();
    world.closed(&deleted).await;
    world.end().await;
}

/// Cancels the workflow that something begins while its step is under way, which fails then, and returns how it ended.
async fn cancelled_when_it_fails(
    world: &World,
    entity: &str,
    workflow: &str,
    step: &'static str,
    begin: impl Future<Output = ()>,
) -> String {
    let (fault, let_go) = Fault::fatal_when_let(step);
    world.faults.plan(entity, &[fault]);
    let before = world.faults.begun(entity, step);
    begin.await;
    wait_for(step, || async { (world.faults.begun(entity, step) > before).then_some(()) }).await;
    let found = world.open_execution(entity, workflow).await;
    world.executions.cancel(&found, "by an administrator").await.unwrap();
    drop(let_go);
    let end = world.end_of(&found).await;
    world.faults.clear(entity);
    end
}

async fn asked<T>(answer: impl Future<Output = Result<T, CallError>>) {
    assert!(answer.await.is_ok());
}

async fn stopped_at_last(world: &World, id: &str) {
    world.faults.clear(id);
    world.in_phase(id, Phase::Stopped).await;
    world.closed(id).await;
}

/// Cancels the entity's open execution of a workflow, and returns how it ended.
async fn cancelled(world: &World, entity: &str, workflow: &str) -> String {
    let found = world.open_execution(entity, workflow).await;
    world.executions.cancel(&found, "by an administrator").await.unwrap();
    world.end_of(&found).await
}

async fn minute_passes(world: &World) {
    let sweep = format!("sweep/{}", world.compute.host());
    wait_for("the sweep asleep", || async {
        let history = world.executions.history(&sweep, 0, 10_000).await.ok()?;
        let last = |event_type: &str| history.iter().rposition(|event| event.event_type == event_type);
        (last("TimerStarted")? > last("ActivityTaskScheduled")?).then_some(())
    })
    .await;
    world.advance(sweep::EVERY + Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_and_a_token_refresh_continue_as_new_and_go_on() {
    let world = World::with_short_timers().await;
    let sweep = format!("sweep/{}", world.compute.host());
    let first = wait_for("the sweep", || async { world.executions.get(&sweep).await.ok() }).await.run_id;
    let last_step = sweep::STEPS[sweep::STEPS.len() - 1].name();
    loop {
        let done = world.faults.done(SWEEP, last_step);
        minute_passes(&world).await;
        wait_for("the next sweep", || async { (world.faults.done(SWEEP, last_step) > done).then_some(()) }).await;
        if world.executions.get(&sweep).await.unwrap().run_id != first {
            break;
        }
        assert!(done < 100, "{done} sweeps and no new run");
    }
    let (project, id) = (world.project().await, new_id());
    world.new_session(&id, &project, world.interactive(), true).await;
    world.idle(&id).await;
    let refresh = workflow_id::token_refresh(&id, 1);
    let first = wait_for("token-refresh", || async { world.executions.get(&refresh).await.ok() }).await.run_id;
    // Every signal but the first comes while a refresh is under way, also before the task in which a run continues as new: none
    // is lost.
    let wake = || async { world.executions.signal(&refresh, "wake", &serde_json::Value::Null).await.unwrap() };
    let step = "refresh-token";
    let (fault, mut let_go) = Fault::held(step);
    let mut signals = world.faults.begun(&id, step);
    world.faults.plan(&id, &[fault]);
    wake().await;
    while world.executions.get(&refresh).await.unwrap().run_id == first {
        signals += 1;
        wait_for("a refresh", || async { (world.faults.begun(&id, step) >= signals).then_some(()) }).await;
        let (fault, let_next_go) = Fault::held(step);
        world.faults.plan(&id, &[fault]);
        wake().await;
        let_go = let_next_go;
        assert!(signals < 400, "{signals} refreshes and no new run");
    }
    wait_for("a refresh of the next run", || async { (world.faults.begun(&id, step) > signals).then_some(()) }).await;
    // Nor is a cancellation, which comes where this run would continue as new.
    while world.executions.history(&refresh, token_refresh::LONGEST_HISTORY.into(), 1).await.unwrap().is_empty() {
        wake().await;
    }
    world.executions.cancel(&refresh, "by an administrator").await.unwrap();
    world.faults.clear(&id);
    drop(let_go);
    assert_eq!(world.end_of(&refresh).await, "Canceled");
    world.ask::<Session>(&id, stop()).await.unwrap();
    world.in_phase(&id, Phase::Stopped).await;
    world.end().await;
}
