//! A runner and its agent each have a user id: what holds through these ids alone, and that files follow their owners.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    time::Duration,
};

use ambient_compute::{
    Compute, RunnerState, SessionRef,
    local::{Confinement, LocalCompute},
};
use ambient_runner_protocol::{Record, SessionPaths};
use harness::{Client, Host, is_root, running, session, start, state_is};
use serde_json::json;

/// Users of a runner and its agent.
fn users(paths: &SessionPaths) -> (u32, u32) {
    (paths.life_lock().metadata().unwrap().uid(), paths.workspace().metadata().unwrap().uid())
}

fn missing(state: RunnerState) -> String {
    match state {
        RunnerState::Running { missing_confinement } => missing_confinement.join("; "),
        other => panic!("{other:?}"),
    }
}

/// No namespaces, no Landlock, no seccomp: what is left are the user ids.
fn unconfined(host: &Host) -> LocalCompute {
    let options = host.options();
    LocalCompute::new(ambient_compute::local::LocalOptions { confinement: Confinement::Off, ..options }).unwrap()
}

/// A server whose runners have one id with their agents: in this place a kernel refuses two.
fn with_one_id(host: &Host, confinement: Confinement) -> LocalCompute {
    let wrapper = host.directory.path().join("refuses");
    let real = host.directory.path().join("real-runner");
    std::fs::copy(harness::runner_binary(), &real).unwrap();
    let refuse = "[ \"$1\" = become ] && { echo 'ambient-runner: no two ids here' >&2; exit 126; }";
    std::fs::write(&wrapper, format!("#!/bin/sh\n{refuse}\nexec {} \"$@\"\n", real.display())).unwrap();
    for file in [&wrapper, &real] {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let options = host.options();
    LocalCompute::new(ambient_compute::local::LocalOptions { runner_binary: wrapper, confinement, ..options }).unwrap()
}

/// The `turn`th message of a run; what all have printed.
async fn run(client: &Client, turn: i64, script: &str) -> String {
    let mut reader = client.events(1, "", 0).await;
    let id = format!("m{turn}");
    client.deliver(&id, turn, &format!("```\n{script}\n```")).await.expect(200);
    let ended = |record: &Record| harness::is_of_type(record, "turn.ended") && record.event["message_id"] == id;
    harness::output(&reader.until(ended).await)
}

async fn stop(compute: &LocalCompute, s: &SessionRef, run: i64) {
    compute.raise_fence(s, run).await.unwrap();
    compute.terminate(s, run, Duration::from_secs(5)).await.unwrap();
    compute.prove_absent(s, run).await.unwrap();
}

/// A bare repository with one commit that anybody may read and write; its URL.
fn origin(directory: &Path) -> String {
    let script = "git init --quiet --initial-branch=main o && cd o && echo hello > file && git add . && \
                  git -c user.name=a -c user.email=a@b commit --quiet -m first && cd .. && \
                  git clone --quiet --bare o o.git && chmod -R a+rwX o.git";
    let made = Command::new("sh").args(["-euc", script]).current_dir(directory).env("HOME", "/nonexistent").status();
    assert!(made.unwrap().success());
    format!("file://{}/o.git", directory.display())
}

#[tokio::test]
async fn by_their_ids_alone_an_agent_has_no_power_over_its_runner() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (compute, s) = (unconfined(&host), session("a"));
    let client = start(&compute, &s, 1, 1).await;
    let paths = host.paths(&s);
    let (runner, agent) = users(&paths);
    assert!(runner != agent && runner != 0 && agent != 0);
    client.send("PUT", "/repos/up", json!({ "url": origin(host.directory.path()) })).await.expect(200);
    let pid = host.started(&s, 1, 1).pid;
    let limits = || std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let before = limits();
    let script = format!(
        "set +eu; id -u; cd {root}\n\
         for s in 0 STOP TERM KILL; do kill -$s {pid} && echo GOT signal $s; done\n\
         prlimit --pid {pid} --nofile=0 && echo GOT nofile\n\
         renice -n 19 -p {pid} && echo GOT renice\n\
         taskset -p 1 {pid} && echo GOT taskset\n\
         cat /proc/{pid}/environ && echo GOT environ\n\
         cat /proc/{pid}/maps && echo GOT maps\n\
         ls /proc/{pid}/fd/ | grep . && echo GOT descriptors\n\
         head -c1 /proc/{pid}/mem && echo GOT memory\n\
         (echo 1000 > /proc/{pid}/oom_score_adj) && echo GOT oom\n\
         nsenter -U -t {pid} true && echo GOT its namespace\n\
         nsenter -U -t {pid} --setuid {runner} --setgid {runner} true && echo GOT its user\n\
         setpriv --reuid={runner} --regid={runner} --clear-groups true && echo GOT setuid\n\
         unshare -U sh -c 'echo 0 {runner} 1 > /proc/self/uid_map' && echo GOT a map\n\
         ls runs && echo GOT runs\n\
         ls repos && echo GOT records\n\
         ls {socket} && echo GOT sockets\n\
         cat runs/1/secrets/server-to-runner && echo GOT the token\n\
         cat runs/1/events.ndjson && echo GOT the log\n\
         (echo x >> life.lock) && echo GOT the lock\n\
         (echo x > fence.json) && echo GOT the fence\n\
         (echo x > blocks/x) && echo GOT scripts\n\
         (echo x >> blocks/block-1-1.sh) && echo GOT its script\n\
         (echo x >> mirrors/up.git/config) && echo GOT the mirror\n\
         (echo x > mirrors/up.git/x) && echo GOT a file in the mirror\n\
         (echo x > mirrors/gitconfig) && echo GOT configuration\n\
         ln mirrors/up.git/config workspace/link && echo GOT a link\n\
         find . -writable ! -type l ! -path './workspace*' ! -path './home*' ! -path './tmp*' 2>/dev/null | sed 's/^/GOT /'\n\
         grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status | grep -v 0000000000000000 && echo GOT capabilities\n\
         cd workspace/up && git log --oneline && echo 'and it works'\n\
         kill -9 -1",
        root = paths.root.display(),
        socket = compute.endpoint(&s, 1).await.unwrap().socket.parent().unwrap().display(),
    );
    let output = run(&client, 1, &script).await;
    assert!(output.contains(&agent.to_string()) && output.contains("and it works"), "{output}");
    assert!(!output.split_whitespace().any(|word| word == "GOT"), "{output}");
    assert_eq!(limits(), before);
    client.get("/health").await.expect(200);
    let output = run(&client, 2, "echo 'and goes on'").await;
    assert!(output.contains("and goes on"), "{output}");
    // A process that hides from everything else is the session's by its user.
    run(&client, 3, "env -i setsid sh -c '(env -i setsid sleep 321.5 >/dev/null 2>&1 &)' </dev/null >/dev/null 2>&1")
        .await;
    harness::eventually_many("321.5", 1).await;
    stop(&compute, &s, 1).await;
    assert!(running("321.5").is_empty());
}

#[tokio::test]
async fn a_runner_has_the_better_of_what_its_agent_has_closed_and_of_nothing_else() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    let client = start(&compute, &s, 1, 1).await;
    assert_eq!(missing(compute.state(&s, 1, 1).await.unwrap()), "", "nothing is missing with two ids");
    let script =
        "umask 077; mkdir -p shut $TMPDIR/shut/inner; echo inside > shut/file; chmod 000 shut/file shut $TMPDIR/shut";
    run(&client, 1, script).await;
    let paths = host.paths(&s);
    let pid = host.started(&s, 1, 1).pid;
    let status = procfs::process::Process::new(pid).unwrap().status().unwrap();
    // CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SYS_PTRACE; none for what it starts.
    let kept = (1 << 0) | (1 << 1) | (1 << 3) | (1 << 5) | (1 << 6) | (1 << 7) | (1 << 19);
    assert_eq!((status.capeff, status.capprm, status.capbnd), (kept, kept, Some(kept)));
    assert_eq!((status.capinh, status.capamb), (0, Some(0)));
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    let mut ids: Vec<u32> = map.lines().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    let (runner, agent) = users(&paths);
    assert_eq!(ids, [agent, runner], "{map}");
    stop(&compute, &s, 1).await;
    start(&compute, &s, 2, 1).await;
    assert!(!paths.tmp().join("shut").exists(), "what was left in the temporary folder is gone");
}

#[tokio::test]
async fn files_follow_their_owners_when_a_server_can_have_two_ids_and_when_it_cannot() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let s = session("a");
    let url = origin(host.directory.path());
    let paths = host.paths(&s);
    // Its agent has its runner's id and is not confined: it can do what it wants with the runner's files.
    let compute = with_one_id(&host, Confinement::Off);
    let client = start(&compute, &s, 1, 1).await;
    assert!(missing(compute.state(&s, 1, 1).await.unwrap()).contains("the agent shares its runner's"));
    client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200);
    let root = paths.root.display();
    let mischief = format!(
        "cd {root}/mirrors/up.git; ln config {root}/workspace/link; ln -s /etc/passwd passwd; chmod 666 config HEAD; chmod 777 refs\n\
         ls -la; mkfifo pipe"
    );
    run(&client, 1, &mischief).await;
    let (runner, agent) = users(&paths);
    assert_eq!(runner, agent);
    stop(&compute, &s, 1).await;
    // As if another account had run that server.
    for path in [paths.root.clone(), paths.runs(), paths.fence()] {
        std::os::unix::fs::chown(&path, Some(agent), None).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let passwd = std::fs::metadata("/etc/passwd").unwrap();

    let compute = host.compute();
    for run_number in [2, 3] {
        let client = start(&compute, &s, run_number, 1).await;
        let (runner, same) = users(&paths);
        assert!(runner != agent && same == agent);
        for (path, mode) in [(paths.root.clone(), 0o750), (paths.runs(), 0o750), (paths.fence(), 0o644)] {
            let about = path.metadata().unwrap();
            assert_eq!((about.uid(), about.mode() & 0o7777), (0, mode), "{}", path.display());
        }
        for file in ["config", "HEAD", "refs", "objects", ""] {
            let about = paths.mirrors().join("up.git").join(file).symlink_metadata().unwrap();
            assert_eq!(
                (about.uid(), about.gid(), about.nlink() > 1 && about.is_file()),
                (runner, runner, false),
                "{file}"
            );
            assert_eq!(about.mode() & 0o022, 0, "{file}");
        }
        for strange in ["pipe", "passwd"] {
            assert!(paths.mirrors().join("up.git").join(strange).symlink_metadata().is_err(), "{strange}");
        }
        let link = paths.workspace().join("link").metadata().unwrap();
        assert_eq!(link.uid(), agent, "the other name has the old file");
        assert_eq!(std::fs::metadata("/etc/passwd").unwrap().uid(), passwd.uid());
        let script =
            format!("cd up; echo {run_number} >> file; git commit --quiet -am more; git log --oneline | wc -l");
        run(&client, 1, &script).await;
        client.send("POST", "/git/push", json!({ "repo": "up", "branch": format!("b{run_number}") })).await.expect(200);
        stop(&compute, &s, run_number).await;
    }

    // And back.
    let compute = with_one_id(&host, Confinement::BestEffort);
    let client = start(&compute, &s, 4, 1).await;
    assert_eq!(users(&paths), (agent, agent));
    assert_eq!(client.get("/repos").await.expect(200).json()[0]["branch"], "main");
    run(&client, 1, "cd up; echo x >> file; git commit --quiet -am last").await;
    client.send("POST", "/git/push", json!({ "repo": "up", "branch": "b4" })).await.expect(200);
    stop(&compute, &s, 4).await;
    let branches =
        Command::new("git").args(["branch", "--list"]).current_dir(host.directory.path().join("o.git")).output();
    let branches = String::from_utf8(branches.unwrap().stdout).unwrap();
    assert!(["b2", "b3", "b4"].iter().all(|branch| branches.contains(branch)), "{branches}");
}

#[tokio::test]
async fn a_runner_that_cannot_become_its_user_is_lost_and_told() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    compute.ensure_project(&s.project_id).await.unwrap();
    compute.ensure_workspace(&s).await.unwrap();
    // As on a machine whose administrator has forbidden it since: the server found that two ids can be had.
    std::fs::write(host.directory.path().join("data/bin/ambient-runner"), "#!/bin/sh\nexit 126\n").unwrap();
    compute.launch(&harness::request(&s, 1, 1)).await.unwrap();
    let state = state_is(&compute, &s, 1, 1, |state| matches!(state, RunnerState::Lost { .. })).await;
    assert!(matches!(&state, RunnerState::Lost { reason } if reason.contains("126")), "{state:?}");
}
