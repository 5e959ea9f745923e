//! What a session may use: its limits hold, its neighbours and the server do not suffer, and what happened is reported.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{path::Path, time::Duration};

use ambient_compute::{
    Compute, ComputeError, LaunchRequest, OwnLimits, RunnerState, SessionRef, Shortage,
    local::{LocalCompute, LocalOptions},
};
use harness::{Client, Host, is_root, next_end, request, running, session, start, state_is};

const MIB: u64 = 1 << 20;

async fn start_with(compute: &LocalCompute, s: &SessionRef, limits: OwnLimits) -> Client {
    compute.ensure_workspace(s).await.unwrap();
    let token = ambient_compute::Secret::new(harness::TOKEN.to_owned());
    compute.write_secret(s, 1, ambient_compute::SecretName::ServerToRunner, &token).await.unwrap();
    compute.launch(&LaunchRequest { limits, ..request(s, 1, 1) }).await.unwrap();
    state_is(compute, s, 1, 1, |state| matches!(state, RunnerState::Running { .. })).await;
    Client::new(&compute.endpoint(s, 1).await.unwrap().socket, harness::TOKEN)
}

async fn run(client: &Client, script: &str) {
    client.deliver("m", 1, &format!("```\n{script}\n```")).await.expect(200);
}

async fn exhausted(compute: &LocalCompute, s: &SessionRef) -> (Shortage, String) {
    match state_is(compute, s, 1, 1, |state| matches!(state, RunnerState::Exhausted { .. })).await {
        RunnerState::Exhausted { shortage, message } => (shortage, message),
        other => panic!("{other:?}"),
    }
}

async fn missing(compute: &LocalCompute, s: &SessionRef) -> String {
    match compute.state(s, 1, 1).await.unwrap() {
        RunnerState::Running { missing_confinement } => missing_confinement.join("; "),
        other => panic!("{other:?}"),
    }
}

async fn is_gone(compute: &LocalCompute, s: &SessionRef) -> Vec<String> {
    // As session-stop does: a disk that is full at first takes it when the reserve is given free.
    let deadline = std::time::Instant::now() + harness::PATIENCE;
    while let Err(error) = compute.raise_fence(s, 1).await {
        assert!(std::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    compute.terminate(s, 1, Duration::from_secs(5)).await.unwrap();
    compute.prove_absent(s, 1).await.unwrap().evidence
}

#[tokio::test]
async fn a_session_is_ended_at_its_memory_limit_while_its_runner_and_its_neighbours_live() {
    let host = Host::new();
    let (compute, greedy, modest) = (host.compute(), session("a"), session("b"));
    let mut observations = compute.observe();
    let limits = OwnLimits { memory_bytes: Some(96 * MIB), ..OwnLimits::default() };
    let client = start_with(&compute, &greedy, limits).await;
    start(&compute, &modest, 1, 1).await;
    // Each below the limit, together above it.
    let eater = "x=$(head -c 30000000 /dev/zero | tr '\\0' a); sleep 303.1";
    run(&client, &format!("for i in 1 2 3 4 5 6; do bash -c \"{}\" & done; wait", eater.replace('$', "\\$"))).await;
    let (shortage, message) = exhausted(&compute, &greedy).await;
    assert_eq!((shortage, message.contains("96 MiB")), (Shortage::OutOfMemory, true), "{message}");
    let told = next_end(&mut observations).await;
    assert!(told.session == greedy && matches!(told.state, RunnerState::Exhausted { .. }), "{told:?}");
    assert!(compute.endpoint(&greedy, 1).await.is_ok(), "the runner lives and tells how far the agent came");
    let other = compute.state(&modest, 1, 1).await.unwrap();
    assert!(matches!(other, RunnerState::Running { .. }), "{other:?}");
    // Known to a server that comes later, and when nothing is left of the group.
    is_gone(&compute, &greedy).await;
    assert!(running("303.1").is_empty());
    assert_eq!(exhausted(&host.compute(), &greedy).await.0, Shortage::OutOfMemory);
}

#[tokio::test]
async fn processes_are_bounded_end_at_once_and_the_kernel_says_that_none_is_left() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    let client = start_with(&compute, &s, OwnLimits { processes: Some(40), ..OwnLimits::default() }).await;
    if missing(&compute, &s).await.contains("limit on processes: no control group") {
        return;
    }
    let bomb =
        "set +e; for i in $(seq 400); do (env -i setsid sleep 303.2 &) 2>/dev/null; done; echo full; sleep 303.2";
    run(&client, bomb).await;
    let most = 40;
    harness::eventually_many("303.2", 20).await;
    assert!(running("303.2").len() <= most, "{}", running("303.2").len());
    let evidence = is_gone(&compute, &s).await;
    assert!(running("303.2").is_empty());
    if is_root() {
        assert!(evidence.iter().any(|what| what == "its control group is empty"), "{evidence:?}");
    }
}

#[tokio::test]
async fn a_session_whose_files_take_too_much_is_ended_also_when_they_have_no_name() {
    let fillers = [
        "head -c 64000000 /dev/zero > big; sleep 303.3",
        "exec 3> gone; rm gone; head -c 64000000 /dev/zero >&3; sleep 303.3",
        "mkdir -p $HOME/a/b; for i in 1 2 3 4; do head -c 16000000 /dev/zero > $HOME/a/b/$i; done; sleep 303.3",
    ];
    for filler in fillers {
        let host = Host::new();
        let (compute, s) = (host.compute(), session("a"));
        let _observed = compute.observe();
        let client = start_with(&compute, &s, OwnLimits { disk_bytes: Some(24 * MIB), ..OwnLimits::default() }).await;
        run(&client, filler).await;
        let (shortage, message) = exhausted(&compute, &s).await;
        assert_eq!((shortage, message.contains("24 MiB")), (Shortage::DiskFull, true), "{filler}: {message}");
        is_gone(&compute, &s).await;
        assert!(running("303.3").is_empty());
    }
}

#[tokio::test]
async fn the_servers_maximum_counts_whatever_a_session_names() {
    let host = Host::new();
    let most = OwnLimits { memory_bytes: Some(64 * MIB), processes: Some(50), ..OwnLimits::default() };
    let compute = LocalCompute::new(LocalOptions { most, ..host.options() }).unwrap();
    let s = session("a");
    start_with(&compute, &s, OwnLimits { memory_bytes: Some(1 << 40), ..OwnLimits::default() }).await;
    let intent: serde_json::Value =
        serde_json::from_slice(&std::fs::read(host.paths(&s).launch(1, 1)).unwrap()).unwrap();
    assert_eq!((&intent["limits"]["memory_bytes"], &intent["limits"]["processes"]), (&(64 * MIB).into(), &50.into()));
}

/// A small file system; only root can make one.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(on: &Path, bytes: u64) -> Self {
        std::fs::create_dir_all(on).unwrap();
        let size = format!("size={bytes},mode=755");
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(on).status();
        assert!(mounted.unwrap().success());
        Self(on.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn who_fills_the_servers_disk_is_ended_new_work_waits_and_all_goes_on_when_there_is_space() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let data = host.directory.path().join("data");
    let _small = Small::mount(&data, harness::runner_binary().metadata().unwrap().len() + 120 * MIB);
    let options = LocalOptions { disk_reserve: 256 * MIB, disk_low_water: 256 * MIB, ..host.options() };
    let compute = LocalCompute::new(options).unwrap();
    let reserve = data.join("reserve");
    assert!(reserve.metadata().unwrap().len() > MIB);
    let _observed = compute.observe();
    let (greedy, modest, late) = (session("a"), session("b"), session("c"));
    let client = start_with(&compute, &greedy, OwnLimits::default()).await;
    start(&compute, &modest, 1, 1).await;
    run(&client, "set +e; sleep 2; cat /dev/zero > big; sleep 303.4").await;
    let (shortage, message) = exhausted(&compute, &greedy).await;
    assert!(shortage == Shortage::DiskFull, "{message}");
    let other = compute.state(&modest, 1, 1).await.unwrap();
    assert!(matches!(other, RunnerState::Running { .. }), "{other:?}");
    let reason = compute.readiness().await.unwrap_err();
    assert!(reason.contains(&*data.to_string_lossy()) && reason.contains("free"), "{reason}");
    compute.ensure_workspace(&late).await.unwrap();
    let refused = compute.launch(&request(&late, 1, 1)).await;
    assert!(matches!(refused, Err(ComputeError::DiskFull(_))), "{refused:?}");
    // Ends and deletions go through, and with them the space comes back.
    is_gone(&compute, &greedy).await;
    compute.raise_fence(&greedy, i64::MAX).await.unwrap();
    compute.delete_workspace(&greedy).await.unwrap();
    start(&compute, &late, 1, 1).await;
    compute.readiness().await.unwrap();
    harness::eventually("the reserve is kept again", || reserve.exists()).await;
}
