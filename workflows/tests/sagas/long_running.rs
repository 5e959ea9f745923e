//! Workflows that run for as long as a session: their histories do not grow without bound.

use ambient_domain::session::{Command, Phase, Session, StopReason, workflow_id};
use ambient_persistence::new_id;
use ambient_workflows::session_supervise::LONGEST_HISTORY;

use crate::world::{World, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_continues_as_new_and_goes_on() {
    let world = World::new().await;
    let (project, id) = (world.project().await, new_id());
    world.new_session(&id, &project, world.interactive(), true).await;
    world.idle(&id).await;
    let supervisor = workflow_id::supervise(&id, 1);
    let first = world.executions.get(&supervisor).await.unwrap().run_id;
    let mut seen = 0;
    let continued = loop {
        world.executions.signal(&supervisor, "wake", &serde_json::Value::Null).await.unwrap();
        let (run_id, length) = wait_for("the look that the signal asks for", || async {
            let run_id = world.executions.get(&supervisor).await.ok()?.run_id;
            let length = world.executions.history(&supervisor, 0, 10_000).await.ok()?.len();
            (run_id != first || length >= seen + 5).then_some((run_id, length))
        })
        .await;
        if run_id != first {
            break run_id;
        }
        assert!(length < LONGEST_HISTORY as usize + 100, "{length} events and no new run");
        seen = length;
    };
    let now = world.executions.get(&supervisor).await.unwrap();
    assert_eq!((now.run_id, now.status.as_str()), (continued, "Running"));
    assert_eq!(world.session(&id).await.phase(), Some(Phase::Running));
    // It still sees what happens to the session.
    let stop = Command::Stop { reason: StopReason::UserStopped, seen_seq: None, run: None, force: false };
    world.ask::<Session>(&id, stop).await.unwrap();
    world.in_phase(&id, Phase::Stopped).await;
    assert_eq!(world.end_of(&supervisor).await, "Completed");
    world.end().await;
}
