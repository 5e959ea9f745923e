//! What is remembered of deleted sessions, and for how long.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ambient_domain::{
    WorkflowInput,
    session::{Command, Lifecycle, Phase, RunOutcome, Session},
};
use ambient_persistence::new_id;
use ambient_runner_protocol::Exited;
use ambient_workflows::{TASK_QUEUE, session_delete::SessionDelete, sweep};
use rustix::process::{Pid, Signal, kill_process};
use temporalio_client::WorkflowStartOptions;

use crate::{
    clocks::minute_passes,
    faults::{Fault, SWEEP},
    world::{World, wait_for},
};

fn mark(world: &World, session: &Session) -> PathBuf {
    let root = world.paths(session).root;
    root.ancestors().nth(4).unwrap().join("deleted").join(&session.id)
}

/// Makes the mark two days old.
fn age(mark: &Path) {
    let two_days = Duration::from_secs(2 * 24 * 60 * 60);
    File::options().write(true).open(mark).unwrap().set_modified(SystemTime::now() - two_days).unwrap();
}

/// A session that is deleted; its mark.
async fn deleted(world: &World, project: &str) -> (String, PathBuf) {
    let id = new_id();
    world.new_session(&id, project, world.interactive(), false).await;
    world.ask::<Session>(&id, Command::Delete).await.unwrap();
    let mark = mark(world, &world.session(&id).await);
    wait_for("its deletion", || async {
        let all = world.closed(&id).await;
        (all.iter().any(|(workflow, _)| workflow == "session-delete") && mark.exists()).then_some(())
    })
    .await;
    (id, mark)
}

/// The next sweep is over, whose last step is done twice: as when its server dies between the work and the word of it.
async fn sweep_passes(world: &World) {
    let last = sweep::STEPS.last().unwrap().name();
    world.faults.plan(SWEEP, &[Fault::twice(vec![last])]);
    let before = world.faults.done(SWEEP, last);
    minute_passes(world).await;
    wait_for("a sweep", || async { (world.faults.done(SWEEP, last) >= before + 2).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_session_is_forgotten_by_its_host_once_nothing_can_act_on_it_and_comes_back_for_nobody() {
    let world = World::with_short_timers().await;
    let project = world.project().await;
    let (old, old_mark) = deleted(&world, &project).await;
    let (_, young_mark) = deleted(&world, &project).await;
    let (owed, owed_mark) = deleted(&world, &project).await;
    let (busy, busy_mark) = deleted(&world, &project).await;
    let (unknown_mark, foreign) = (old_mark.with_file_name(new_id()), old_mark.with_file_name(".x.tmp"));
    for mark in [&unknown_mark, &foreign] {
        File::create(mark).unwrap();
    }
    for mark in [&old_mark, &owed_mark, &busy_mark, &unknown_mark, &foreign] {
        age(mark);
    }
    let sql = "insert into ambient.outbox (entity_kind, entity_id, operation_id, workflow_id, effect, parked_reason)
               values ('session', $1, 'o', 'w', '{}', 'by the test')";
    sqlx::query(sql).bind(&owed).execute(world.db.pool()).await.unwrap();
    let (held, let_go) = Fault::held("raise-fence-for-good");
    world.faults.plan(&busy, &[held]);
    let late = format!("session-delete/{busy}/late");
    let input = WorkflowInput { project_id: project.clone(), session_id: busy.clone(), run: 0, attempt: 0 };
    let options = WorkflowStartOptions::new(TASK_QUEUE, late.clone()).build();
    world.client.start_workflow(SessionDelete::run, input, options).await.unwrap();
    world.open_execution(&busy, "session-delete").await;

    sweep_passes(&world).await;
    assert!(!old_mark.exists(), "nothing can act on it");
    for kept in [&young_mark, &owed_mark, &busy_mark, &unknown_mark, &foreign] {
        assert!(kept.exists(), "{} is kept", kept.display());
    }
    let session = world.session(&old).await;
    let place = ambient_compute::SessionRef { project_id: project.clone(), session_id: old.clone() };
    assert!(
        world.ask::<Session>(&old, Command::Start { prompt: None }).await.is_err(),
        "its row says that it is deleted"
    );
    assert!(world.compute.prove_absent(&place, 1).await.is_err(), "without a fence nothing is proven");
    assert!(!world.paths(&session).root.exists(), "and nothing of it comes back");

    drop(let_go);
    assert_eq!(world.end_of(&late).await, "Completed");
    assert!(!world.paths(&world.session(&busy).await).root.exists());
    age(&busy_mark);
    sqlx::query("update ambient.outbox set done_at = now() where entity_id = $1")
        .bind(&owed)
        .execute(world.db.pool())
        .await
        .unwrap();
    sweep_passes(&world).await;
    assert!(!owed_mark.exists() && !busy_mark.exists() && young_mark.exists());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_runner_says_of_its_end_is_taken_whatever_characters_it_has() {
    let world = World::new().await;
    let (project, id) = (world.project().await, new_id());
    world.new_session(&id, &project, world.interactive(), true).await;
    let session = world.idle(&id).await;
    let runner = world.runner_of(&session, 1, 1).unwrap();
    let reason = format!("broken\0 in the middle{}", "é".repeat(100_000));
    let record = Exited { nonce: runner.nonce, code: 3, reason, at: chrono::Utc::now(), cause: None };
    std::fs::write(world.paths(&session).exited(1, 1), serde_json::to_vec(&record).unwrap()).unwrap();
    kill_process(Pid::from_raw(runner.pid).unwrap(), Signal::KILL).unwrap();
    let session = world.in_phase(&id, Phase::Failed).await;
    let Lifecycle::Ended { outcome: RunOutcome::Failed { message, exit_code, .. }, .. } = &session.lifecycle else {
        panic!("{:?}", session.lifecycle)
    };
    assert!(message.starts_with("broken\u{fffd} in the middle") && message.len() <= 8 * 1024, "{}", message.len());
    assert_eq!(*exit_code, Some(3));
    world.closed(&id).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_an_administrator_terminates_is_finished_by_the_sweep() {
    let world = World::with_short_timers().await;
    let (project, id) = (world.project().await, new_id());
    world.new_session(&id, &project, world.interactive(), true).await;
    let session = world.idle(&id).await;
    let (held, let_go) = Fault::held("terminate-runner");
    world.faults.plan(&id, &[held]);
    world.ask::<Session>(&id, Command::Delete).await.unwrap();
    wait_for("the deletion", || async { (world.faults.begun(&id, "terminate-runner") > 0).then_some(()) }).await;
    let execution = world.open_execution(&id, "session-delete").await;
    // Nothing is taken from an execution that is at work.
    sweep_passes(&world).await;
    assert!(world.paths(&session).root.exists());
    world.executions.terminate(&execution, "by the test").await.unwrap();
    world.faults.clear(&id);
    drop(let_go);
    sweep_passes(&world).await;
    wait_for("what is left to go", || async { (!world.paths(&session).root.exists()).then_some(()) }).await;
    world.nothing_left(&session).await;
    world.end().await;
}
