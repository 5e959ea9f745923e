//! Ending a run, and proving that it is over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{collections::HashSet, time::Duration};

use ambient_compute::{Compute, ComputeError, RunnerState};
use harness::{Host, begin, kill_9, running, session, start, state_is};

/// Leaves its session, its process group and its parent.
const ESCAPE: &str = "(setsid sh -c 'trap \"\" TERM HUP INT; sleep SECONDS & wait' &) ; (setsid setsid sh -c 'exec sleep SECONDS' & ) ; sleep SECONDS & echo ready; wait";

fn escape(seconds: &str) -> String {
    ESCAPE.replace("SECONDS", seconds)
}

#[tokio::test]
async fn terminate_drains_the_runner_and_ends_every_process_of_the_run() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    let client = start(&compute, &s, 1, 1).await;
    let mut reader = begin(&client, "m", &escape("311.1")).await;
    assert!(running("311.1").len() >= 3);
    compute.raise_fence(&s, 1).await.unwrap();
    let acknowledge = async {
        let records = reader.until(|record| harness::is_of_type(record, "runner.exited")).await;
        reader.ack(records.last().unwrap().n).await;
    };
    let (terminated, ()) = tokio::join!(compute.terminate(&s, 1, Duration::from_secs(10)), acknowledge);
    terminated.unwrap();
    assert!(running("311.1").is_empty());
    let state = compute.state(&s, 1, 1).await.unwrap();
    assert_eq!(state, RunnerState::Exited { code: 0, reason: "terminated by request".to_owned() });
    compute.terminate(&s, 1, Duration::from_secs(10)).await.unwrap();
    let proof = compute.prove_absent(&s, 1).await.unwrap();
    assert_eq!(proof.host, "here");
    assert!(proof.evidence.len() >= 4, "{proof:?}");
}

#[tokio::test]
async fn a_runner_that_does_not_end_in_its_grace_is_killed_with_all_who_escaped_it() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    let client = start(&compute, &s, 1, 1).await;
    begin(&client, "m", &escape("312.2")).await;
    let pid = host.started(&s, 1, 1).pid;
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::STOP).unwrap();
    compute.terminate(&s, 1, Duration::from_millis(300)).await.unwrap();
    assert!(running("312.2").is_empty());
    assert!(matches!(compute.state(&s, 1, 1).await.unwrap(), RunnerState::Lost { .. }));
}

#[tokio::test]
async fn without_namespaces_what_a_killed_runner_leaves_behind_is_found_told_and_ended() {
    let host = Host::new();
    let (compute, s) = (host.compute_without_namespaces(), session("a"));
    let client = start(&compute, &s, 1, 1).await;
    // One keeps the nonce in a session of its own; one drops its environment and stays in the runner's session. One that does
    // both, and outlives its runner, is known by its user id alone: only a root server can find it.
    let third = if harness::is_root() { "(env -i setsid sleep 313.3 &);" } else { "" };
    begin(
        &client,
        "m",
        &format!("{third} (setsid sleep 313.3 &); (env -i sleep 313.3 &); sleep 0.2; echo ready; sleep 313.3"),
    )
    .await;
    let early = compute.prove_absent(&s, 1).await;
    assert!(matches!(early, Err(ComputeError::Invalid(_))), "the fence is not raised: {early:?}");
    compute.raise_fence(&s, 1).await.unwrap();
    assert!(matches!(compute.prove_absent(&s, 1).await, Err(ComputeError::Remains { .. })));
    kill_9(host.started(&s, 1, 1).pid);
    state_is(&compute, &s, 1, 1, |state| matches!(state, RunnerState::Lost { .. })).await;
    let left = running("313.3");
    assert!(left.len() >= if harness::is_root() { 4 } else { 3 }, "{left:?}");
    let restarted = host.compute();
    let Err(ComputeError::Remains { run: 1, remains }) = restarted.prove_absent(&s, 1).await else { panic!("absent?") };
    for process in &left {
        let pid = process.file_name().unwrap().to_string_lossy().into_owned();
        assert!(remains.iter().any(|what| what.contains(&pid)), "{pid} in {remains:?}");
    }
    assert!(matches!(restarted.delete_workspace(&s).await, Err(ComputeError::Remains { .. })));
    restarted.terminate(&s, 1, Duration::from_secs(1)).await.unwrap();
    assert!(running("313.3").is_empty());
    let proof = restarted.prove_absent(&s, 1).await.unwrap();
    // What nobody can know is said.
    let known = if harness::is_root() { "known by their user id" } else { "would not be seen" };
    assert!(proof.evidence.iter().any(|what| what.contains(known)), "{proof:?}");
}

#[tokio::test]
async fn nothing_outlives_a_killed_runner_whatever_it_did_to_hide_and_only_then_is_absence_proven() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    let client = start(&compute, &s, 1, 1).await;
    let hide =
        "(env -i setsid sh -c '(setsid sleep 317.7 &) ; (trap \"\" TERM HUP INT; setsid sleep 317.7 &) ; exit 0' &)";
    begin(&client, "m", &format!("{hide}; {hide}; sleep 0.3; echo ready; sleep 317.7")).await;
    compute.raise_fence(&s, 1).await.unwrap();
    let (runner, init) = (host.started(&s, 1, 1).pid, host.started(&s, 1, 1).init.expect("namespaces"));
    // A stopped runner ends nobody: what hides is seen through the namespace's first process.
    let pid = rustix::process::Pid::from_raw(runner).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    assert!(running("317.7").len() >= 5);
    let Err(ComputeError::Remains { remains, .. }) = compute.prove_absent(&s, 1).await else { panic!("absent?") };
    for process in running("317.7") {
        let pid = process.file_name().unwrap().to_string_lossy().into_owned();
        assert!(remains.iter().any(|what| what.contains(&pid)), "{pid} in {remains:?}");
    }
    kill_9(runner);
    let restarted = host.compute();
    let deadline = std::time::Instant::now() + harness::PATIENCE;
    let proof = loop {
        match restarted.prove_absent(&s, 1).await {
            Ok(proof) => break proof,
            Err(ComputeError::Remains { .. }) if std::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(running("317.7").is_empty(), "proven while something lives");
    let first = format!("pid {}, the first of its PID namespace, has ended", init.pid);
    assert!(proof.evidence.iter().any(|what| what.contains(&first)), "{proof:?}");
}

#[tokio::test]
async fn agents_can_be_killed_without_their_runner() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    let client = start(&compute, &s, 1, 1).await;
    let mut reader = begin(&client, "m", &escape("314.4")).await;
    compute.kill_agents(&s, 1).await.unwrap();
    assert!(running("314.4").is_empty());
    reader.until_turn_ended().await;
    assert_eq!(client.get("/health").await.expect(200).json()["state"], "idle");
}

#[tokio::test]
async fn another_host_cannot_prove_absence_and_other_sessions_are_left_alone() {
    let host = Host::new();
    let (compute, a, b) = (host.compute(), session("a"), session("b"));
    start(&compute, &a, 1, 1).await;
    let other = start(&compute, &b, 1, 1).await;
    begin(&other, "m", "echo ready; sleep 315.5").await;
    compute.raise_fence(&a, 1).await.unwrap();
    compute.terminate(&a, 1, Duration::from_secs(5)).await.unwrap();
    let mut elsewhere = host.options();
    elsewhere.host = "elsewhere".to_owned();
    let elsewhere = ambient_compute::local::LocalCompute::new(elsewhere).unwrap();
    let refused = elsewhere.prove_absent(&a, 1).await;
    assert!(
        matches!(&refused, Err(ComputeError::Remains { remains, .. }) if remains[0].contains("'here'")),
        "{refused:?}"
    );
    compute.prove_absent(&a, 1).await.unwrap();
    assert!(!running("315.5").is_empty());
    let inventory = compute.inventory().await.unwrap();
    let live = inventory.into_iter().map(|entry| (entry.session.session_id, entry.live_runs)).collect::<HashSet<_>>();
    assert_eq!(live, HashSet::from([("a".to_owned(), vec![]), ("b".to_owned(), vec![1])]));
    let resources = compute.resources(&b).await.unwrap();
    for kind in ["directory", "process", "socket"] {
        assert!(resources.iter().any(|resource| resource.kind == kind), "{kind} in {resources:?}");
    }
}

#[tokio::test]
async fn a_forged_record_of_a_runner_names_nobody_elses_process() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    start(&compute, &s, 1, 1).await;
    let mut innocent = std::process::Command::new("sleep").arg("316.6").spawn().unwrap();
    let mut forged = host.started(&s, 1, 1);
    let stat = procfs::process::Process::new(innocent.id().cast_signed()).unwrap().stat().unwrap();
    (forged.pid, forged.start_time) = (stat.pid, stat.starttime);
    std::fs::write(host.paths(&s).started(1, 1), serde_json::to_vec(&forged).unwrap()).unwrap();
    assert!(matches!(compute.state(&s, 1, 1).await.unwrap(), RunnerState::Lost { .. }));
    compute.terminate(&s, 1, Duration::from_secs(5)).await.unwrap();
    assert!(innocent.try_wait().unwrap().is_none(), "it lives");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    compute.raise_fence(&s, 1).await.unwrap();
    compute.prove_absent(&s, 1).await.unwrap();
}

#[tokio::test]
async fn a_project_with_sessions_is_kept_and_one_without_is_removed() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    compute.ensure_project("project").await.unwrap();
    compute.ensure_workspace(&s).await.unwrap();
    assert!(matches!(compute.delete_project("project").await, Err(ComputeError::Invalid(_))));
    let locked = host.paths(&s).workspace().join("locked");
    std::fs::create_dir_all(locked.join("deep")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
    compute.delete_workspace(&s).await.unwrap();
    compute.delete_project("project").await.unwrap();
    compute.delete_project("project").await.unwrap();
    assert!(!host.directory.path().join("data/projects/project").exists());
}
