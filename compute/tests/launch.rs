//! Launching once, observing it, and finding it again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::path::{Path, PathBuf};

use ambient_compute::{Compute, ComputeError, Launched, RunnerState, Secret, SecretName};
use harness::{Host, begin, is_root, kill_9, next, next_end, request, session, start, state_is};

#[tokio::test]
async fn a_launch_repeated_by_anyone_starts_one_runner_and_adopts_it() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    let client = start(&compute, &s, 1, 1).await;
    let pid = host.started(&s, 1, 1).pid;
    let others = (host.compute(), host.compute());
    let again = request(&s, 1, 1);
    let (a, b, c) = tokio::join!(compute.launch(&again), others.0.launch(&again), others.1.launch(&again));
    for launched in [a, b, c] {
        assert_eq!(launched.unwrap(), Launched::AlreadyRunning);
    }
    assert_eq!(host.started(&s, 1, 1).pid, pid);
    client.send("POST", "/shutdown", serde_json::json!({})).await.expect(202);
    state_is(&compute, &s, 1, 1, |state| matches!(state, RunnerState::Exited { code: 0, .. })).await;
    assert_eq!(others.0.launch(&again).await.unwrap(), Launched::AlreadyEnded);
    assert!(matches!(compute.endpoint(&s, 1).await, Err(ComputeError::NoRunner { run: 1 })));
}

/// Whoever launched it may be killed before the runner was in its cgroup, outside of which it starts no agent.
#[tokio::test]
async fn a_runner_outside_of_its_control_group_is_moved_there_by_whoever_adopts_it() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    let client = start(&compute, &s, 1, 1).await;
    let pid = host.started(&s, 1, 1).pid;
    let groups = control_groups_of(pid);
    // Out of all of them, and, as on a machine with several hierarchies, out of some.
    for outside in [&groups[..], &groups[groups.len().min(1)..]] {
        outside.iter().for_each(|group| move_out(group, pid));
        assert_eq!(control_groups_of(pid).len(), groups.len() - outside.len());
        assert_eq!(compute.launch(&request(&s, 1, 1)).await.unwrap(), Launched::AlreadyRunning);
        assert_eq!(control_groups_of(pid), groups);
    }
    client.send("POST", "/shutdown", serde_json::json!({})).await.expect(202);
}

/// Runners' cgroups that a process is in, in all hierarchies.
fn control_groups_of(pid: i32) -> Vec<PathBuf> {
    let mut groups = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        let processes = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        if folder.ends_with("runner") && processes.lines().any(|line| line == pid.to_string()) {
            groups.push(folder);
        }
    }
    groups.sort();
    groups
}

/// To the nearest cgroup above ours that accepts it.
fn move_out(group: &Path, pid: i32) {
    let above = group.ancestors().skip_while(|path| !path.ends_with("ambient")).skip(1);
    let taken = above.into_iter().any(|path| std::fs::write(path.join("cgroup.procs"), pid.to_string()).is_ok());
    assert!(taken, "{}", group.display());
}

#[tokio::test]
async fn two_first_launches_at_once_start_one_runner() {
    let host = Host::new();
    let computes = [host.compute(), host.compute(), host.compute(), host.compute()];
    let s = session("a");
    let first = request(&s, 1, 1);
    let launches = futures::future::join_all(computes.iter().map(|compute| compute.launch(&first))).await;
    let started = launches.iter().filter(|launched| matches!(launched, Ok(Launched::Started))).count();
    assert_eq!(started, 1, "{launches:?}");
    assert!(launches.iter().all(Result::is_ok), "{launches:?}");
    state_is(&computes[0], &s, 1, 1, |state| matches!(state, RunnerState::Running { .. })).await;
}

#[tokio::test]
async fn an_intent_without_a_process_is_spawned_again_with_its_nonce() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    compute.ensure_workspace(&s).await.unwrap();
    let mut broken = host.options();
    broken.runner_binary = "/bin/false".into();
    // A server whose runner dies at once, as if it had been killed between intent and start.
    let broken = ambient_compute::local::LocalCompute::new(broken).unwrap();
    broken.launch(&request(&s, 1, 1)).await.unwrap();
    state_is(
        &broken,
        &s,
        1,
        1,
        |state| matches!(state, RunnerState::Lost { reason } if reason.contains("did not come up")),
    )
    .await;
    let nonce = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap()["nonce"].clone();
    let intent = nonce(std::fs::read_to_string(host.paths(&s).launch(1, 1)).unwrap());
    drop(broken);
    let compute = host.compute();
    assert_eq!(compute.launch(&request(&s, 1, 1)).await.unwrap(), Launched::Started);
    state_is(&compute, &s, 1, 1, |state| matches!(state, RunnerState::Running { .. })).await;
    assert_eq!(host.started(&s, 1, 1).nonce, intent);
}

#[tokio::test]
async fn the_fence_forbids_a_launch_and_the_deletion_forbids_all() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    // Before there is a workspace, too.
    compute.raise_fence(&s, 2).await.unwrap();
    compute.raise_fence(&s, 1).await.unwrap();
    for run in [1, 2] {
        let refused = compute.launch(&request(&s, run, 1)).await;
        assert!(matches!(refused, Err(ComputeError::Fenced { stopped_run: 2, .. })), "{refused:?}");
    }
    start(&compute, &s, 3, 1).await;
    compute.raise_fence(&s, i64::MAX).await.unwrap();
    assert!(matches!(compute.delete_workspace(&s).await, Err(ComputeError::Remains { .. })), "a runner lives");
    compute.terminate(&s, 3, std::time::Duration::from_secs(5)).await.unwrap();
    compute.delete_workspace(&s).await.unwrap();
    compute.delete_workspace(&s).await.unwrap();
    assert!(!host.paths(&s).root.exists());
    for compute in [compute, host.compute()] {
        assert!(matches!(
            compute.launch(&request(&s, 4, 1)).await,
            Err(ComputeError::Fenced { run: 4, stopped_run: i64::MAX })
        ));
        assert!(matches!(compute.ensure_workspace(&s).await, Err(ComputeError::Fenced { .. })));
        compute.prove_absent(&s, 4).await.unwrap();
    }
    assert!(!host.paths(&s).root.exists());
}

#[tokio::test]
async fn a_later_attempt_ends_what_is_left_of_the_lost_one_and_forbids_it() {
    let host = Host::new();
    // Where there are namespaces, nothing is left.
    let (compute, s) = (host.compute_without_namespaces(), session("a"));
    let client = start(&compute, &s, 1, 1).await;
    begin(&client, "m", "echo x; setsid sleep 301.7 & sleep 301.7").await;
    kill_9(host.started(&s, 1, 1).pid);
    state_is(&compute, &s, 1, 1, |state| matches!(state, RunnerState::Lost { .. })).await;
    assert!(!harness::running("301.7").is_empty());
    start(&compute, &s, 1, 2).await;
    assert!(harness::running("301.7").is_empty(), "the new attempt is alone in the workspace");
    let late = compute.launch(&request(&s, 1, 1)).await;
    assert!(matches!(late, Err(ComputeError::Invalid(_))), "{late:?}");
}

#[tokio::test]
async fn observers_see_all_that_is_known_then_exits_at_once_also_of_runners_of_an_earlier_server() {
    let host = Host::new();
    let first = host.compute();
    let (a, b, c) = (session("a"), session("b"), session("c"));
    start(&first, &a, 1, 1).await;
    let client = start(&first, &b, 1, 1).await;
    drop(first);
    let second = host.compute();
    let mut observations = second.observe();
    let mut known = [next(&mut observations).await, next(&mut observations).await];
    known.sort_by(|x, y| x.session.cmp(&y.session));
    assert!(known.iter().all(|known| matches!(known.state, RunnerState::Running { .. })));
    assert_eq!((&known[0].session, &known[1].session), (&a, &b));
    let begin = std::time::Instant::now();
    kill_9(host.started(&a, 1, 1).pid);
    let seen = next_end(&mut observations).await;
    assert!(matches!(seen.state, RunnerState::Lost { .. }) && seen.session == a, "{seen:?}");
    assert!(begin.elapsed().as_millis() < 1500, "{:?}", begin.elapsed());
    let mut reader = client.events(1, "", 0).await;
    client.send("POST", "/shutdown", serde_json::json!({})).await.expect(202);
    let records = reader.until(|record| harness::is_of_type(record, "runner.exited")).await;
    reader.ack(records.last().unwrap().n).await;
    let seen = next_end(&mut observations).await;
    assert_eq!(
        (seen.session, seen.state),
        (b.clone(), RunnerState::Exited { code: 0, reason: "shut down by request".to_owned() })
    );
    start(&second, &c, 4, 2).await;
    let seen = next(&mut observations).await;
    assert!(
        matches!(seen.state, RunnerState::Running { .. }) && seen.session == c && (seen.run, seen.attempt) == (4, 2)
    );
    drop(second);
    assert!(
        tokio::time::timeout(harness::PATIENCE, futures::StreamExt::next(&mut observations)).await.unwrap().is_none()
    );
}

#[tokio::test]
async fn secrets_of_a_run_that_was_stopped_are_not_written_any_more() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    compute.ensure_workspace(&s).await.unwrap();
    let (name, secret) = (SecretName::Environment, Secret::new("{}".to_owned()));
    compute.write_secret(&s, 1, name, &secret).await.unwrap();
    compute.raise_fence(&s, 1).await.unwrap();
    compute.delete_secrets(&s, 1).await.unwrap();
    let late = compute.write_secret(&s, 1, name, &secret).await.unwrap_err();
    assert!(matches!(late, ComputeError::Fenced { run: 1, stopped_run: 1 }), "{late}");
    let left = std::fs::read_dir(host.paths(&s).run_dir(1).join("secrets")).unwrap().count();
    assert_eq!(left, 0);
    compute.write_secret(&s, 2, name, &secret).await.unwrap();
}

#[tokio::test]
async fn a_failing_batch_is_observed_as_exited_with_its_code() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    compute.ensure_workspace(&s).await.unwrap();
    let secret = ambient_compute::Secret::new(harness::TOKEN.to_owned());
    compute.write_secret(&s, 1, ambient_compute::SecretName::ServerToRunner, &secret).await.unwrap();
    let mut observations = compute.observe();
    let batch = ambient_compute::LaunchRequest { interactive: false, ..request(&s, 1, 1) };
    compute.launch(&batch).await.unwrap();
    assert!(matches!(next(&mut observations).await.state, RunnerState::Running { .. }));
    let client = harness::Client::new(&compute.endpoint(&s, 1).await.unwrap().socket, harness::TOKEN);
    let mut reader = client.events(1, "", 0).await;
    client.deliver("a/1/prompt", 1, "```\nexit 42\n```").await.expect(200);
    let records = reader.until(|record| harness::is_of_type(record, "runner.exited")).await;
    reader.ack(records.last().unwrap().n).await;
    let seen = next_end(&mut observations).await;
    assert!(matches!(seen.state, RunnerState::Exited { code: 42, .. }), "{seen:?}");
}

#[tokio::test]
async fn bad_requests_are_refused_before_anything_is_written() {
    let host = Host::new();
    let compute = host.compute();
    for bad in ["", "..", "a/b", "a\0", "ä", &"x".repeat(50)] {
        let refused = compute.ensure_workspace(&session(bad)).await;
        assert!(matches!(refused, Err(ComputeError::Invalid(_))), "{bad:?}: {refused:?}");
        assert!(compute.launch(&request(&session(bad), 1, 1)).await.is_err());
        assert!(compute.ensure_project(bad).await.is_err());
    }
    let mut unknown = request(&session("a"), 1, 1);
    unknown.agent = "other".to_owned();
    let refused = compute.launch(&unknown).await;
    assert!(
        matches!(&refused, Err(ComputeError::UnknownAgent { available, .. }) if available == "script"),
        "{refused:?}"
    );
    assert!(matches!(compute.launch(&request(&session("a"), 0, 1)).await, Err(ComputeError::Invalid(_))));
    assert_eq!(compute.state(&session("a"), 1, 1).await.unwrap(), RunnerState::Absent);
    assert!(compute.inventory().await.unwrap().is_empty());
    let long = host.directory.path().join("x".repeat(80));
    let options =
        ambient_compute::local::LocalOptions::new(long, harness::runner_binary().to_owned(), "here".to_owned());
    assert!(matches!(ambient_compute::local::LocalCompute::new(options), Err(ComputeError::Invalid(_))));
}

#[tokio::test]
async fn as_root_each_session_has_two_users_of_its_own_and_otherwise_the_lack_of_it_is_told() {
    let host = Host::new();
    let (compute, a, b) = (host.compute(), session("a"), session("b"));
    let client = start(&compute, &a, 1, 1).await;
    start(&compute, &b, 1, 1).await;
    let uid = |s| procfs_uid(host.started(s, 1, 1).pid);
    let RunnerState::Running { missing_confinement } = compute.state(&a, 1, 1).await.unwrap() else {
        panic!("not running")
    };
    if !is_root() {
        assert_eq!(uid(&a), rustix::process::geteuid().as_raw());
        assert!(missing_confinement.iter().any(|what| what.contains("user id")), "{missing_confinement:?}");
        return;
    }
    assert!(!missing_confinement.iter().any(|what| what.contains("user id")), "{missing_confinement:?}");
    use std::os::unix::fs::MetadataExt;
    let agent = |s| host.paths(s).workspace().metadata().unwrap().uid();
    let all = std::collections::BTreeSet::from([uid(&a), uid(&b), agent(&a), agent(&b)]);
    assert!(all.len() == 4 && all.iter().all(|uid| (1_900_000_000..1_900_025_000).contains(uid)), "{all:?}");
    let other = host.paths(&b);
    let script = format!(
        "id -u; cat {} || echo no; ls {} || echo no; echo x > {} || echo no",
        other.server_token(1).display(),
        other.workspace().display(),
        host.paths(&a).fence().display()
    );
    let mut reader = client.events(1, "", 0).await;
    client.deliver("m", 1, &format!("```\n{script}\n```")).await.expect(200);
    let output = harness::output(&reader.until_turn_ended().await);
    assert!(output.contains(&agent(&a).to_string()) && output.matches("no\n").count() == 3, "{output}");
    // The same ids after a restart of the server, and the token is the runner's alone.
    let again = host.compute();
    again.ensure_workspace(&a).await.unwrap();
    let token = host.paths(&a).server_token(1).metadata().unwrap();
    assert_eq!((token.uid(), token.mode() & 0o777), (uid(&a), 0o600));
    assert_eq!(host.paths(&a).root.metadata().unwrap().uid(), 0, "nobody but root can replace the fence");
}

fn procfs_uid(pid: i32) -> u32 {
    procfs::process::Process::new(pid).unwrap().status().unwrap().euid
}
