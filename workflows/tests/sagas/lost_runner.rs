//! A runner that is killed is launched again, and given up after three launches.

use std::path::Path;

use ambient_domain::session::{Lifecycle, MAX_ATTEMPTS, Phase, RunOutcome, Session, Spec, workflow_id};
use ambient_persistence::new_id;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    clocks::minute_passes,
    world::{World, wait_for},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_session_whose_runner_is_killed_runs_its_prompt_again_until_its_attempts_are_used_up() {
    let world = World::new().await;
    let (project, id) = (world.project().await, new_id());
    let prompt = "```sh\necho turn >> \"$HOME/marks\"\nsleep 3600\n```".to_owned();
    let spec = Spec { interactive: false, prompt: Some(prompt), ..world.interactive() };
    world.new_session(&id, &project, spec, true).await;
    for attempt in 1..=MAX_ATTEMPTS {
        let turns = usize::try_from(attempt).unwrap();
        let at_work = |s: &Session| {
            s.phase() == Some(Phase::Running)
                && s.run().is_some_and(|r| r.attempt == attempt)
                && world.marks(s) == turns
        };
        let session = world.session_where(&id, &format!("the prompt's turn {attempt}"), at_work).await;
        let runner = world.runner_of(&session, 1, attempt).unwrap();
        kill_process(Pid::from_raw(runner.pid).unwrap(), Signal::KILL).unwrap();
        wait_for("the runner gone", || async { (!is_alive(runner.pid, runner.start_time)).then_some(()) }).await;
    }
    let session = world.in_phase(&id, Phase::Failed).await;
    let Lifecycle::Ended { outcome: RunOutcome::Failed { reason, .. }, run } = &session.lifecycle else {
        panic!("{:?}", session.lifecycle)
    };
    assert_eq!((reason.as_str(), run.number, run.attempt), ("RunnerLost", 1, MAX_ATTEMPTS));
    world.closed(&id).await;
    for attempt in 1..=MAX_ATTEMPTS {
        world.end_of(&workflow_id::start(&id, 1, attempt)).await;
    }
    world.torn_down(&session).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_of_which_its_host_knows_nothing_any_more_is_found_by_the_sweep() {
    let world = World::new().await;
    let (project, id) = (world.project().await, new_id());
    world.new_session(&id, &project, world.interactive(), true).await;
    let session = world.idle(&id).await;
    let runner = world.runner_of(&session, 1, 1).unwrap();
    // Without its records nobody can tell of its end.
    std::fs::remove_dir_all(world.paths(&session).run_dir(1)).unwrap();
    kill_process(Pid::from_raw(runner.pid).unwrap(), Signal::KILL).unwrap();
    wait_for("the runner gone", || async { (!is_alive(runner.pid, runner.start_time)).then_some(()) }).await;
    minute_passes(&world).await;
    let again = |s: &Session| s.phase() == Some(Phase::Running) && s.run().is_some_and(|run| run.attempt == 2);
    world.session_where(&id, "Running in attempt 2", again).await;
    world.end().await;
}

/// A zombie is gone; so is a process with the same number that began at another time.
fn is_alive(pid: i32, start_time: u64) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let mut fields = fields.split(' ');
    let zombie = matches!(fields.next(), Some("Z" | "X"));
    !zombie && fields.nth(18).and_then(|field| field.parse().ok()) == Some(start_time)
}
