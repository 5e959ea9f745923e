//! What an agent's namespaces keep from it, and what their end proves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use ambient_runner_protocol::Confinement;
use harness::{Session, answers, eventually, is_of_type, output, run, running};

#[tokio::test]
async fn an_agent_can_neither_see_nor_stop_nor_cripple_its_runner() {
    let session = Session::new(true);
    let runner = session.start().await;
    let pid = runner.child.id();
    let init = session.started().init.expect("namespaces").pid;
    let mut script = String::new();
    for pid in [pid.cast_signed(), init, std::process::id().cast_signed()] {
        script += &format!(
            "try kill -0 {pid}; try kill -9 {pid}; try kill -STOP {pid}; try renice -n 19 -p {pid}; try ls /proc/{pid}\n\
             try prlimit --pid {pid} --fsize=0; try prlimit --pid {pid} --nofile=0\n"
        );
    }
    script += "try kill -9 1; try kill -STOP 1; try cat /proc/1/environ; try ls -l /proc/1/fd; try ls /proc/1/root/\n";
    script += "kill -9 -1";
    let output = run(&runner, "m", &script).await;
    assert_eq!(answers(&output, "no ").len(), 26, "{output}");
    assert!(answers(&output, "yes ").is_empty(), "{output}");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max file size")).unwrap();
    assert!(files.contains("unlimited"), "{files}");
    let after = run(&runner, "n", "echo alive").await;
    assert!(after.contains("alive"), "the runner works on: {after}");
}

#[tokio::test]
async fn sockets_and_files_of_the_machine_have_no_path() {
    let session = Session::new(true);
    let elsewhere = tempfile::tempdir().unwrap();
    let socket = elsewhere.path().join("database.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let beside = session.directory().join("admin-token");
    std::fs::write(&beside, "secret").unwrap();
    let runner = session.start().await;
    let script = format!(
        "try ls {socket}; try ls {elsewhere}; try ls {beside}; try ls {runner}; try ls /root; try ls /home; try ls /var/lib\n\
         try ls /run/docker.sock /run/dbus; try ls /boot; try ls /srv\n\
         echo roots: $(ls -A /); echo processes: $(ls -d /proc/[0-9]* | wc -l); ls -A {data}",
        socket = socket.display(),
        elsewhere = elsewhere.path().display(),
        beside = beside.display(),
        runner = session.spec.socket.display(),
        data = session.directory().display(),
    );
    let output = run(&runner, "m", &script).await;
    assert_eq!(answers(&output, "no ").len(), 10, "{output}");
    let processes = answers(&output, "processes: ")[0].trim_start_matches("processes: ").parse::<u32>().unwrap();
    assert!(processes < 8, "{output}");
    assert!(output.lines().any(|line| line == "projects"), "only the way to the session is there: {output}");
}

#[tokio::test]
async fn temporary_files_and_shared_memory_are_the_sessions_own_and_python_pools_work() {
    let (one, two) = (Session::new(true), Session::new(true));
    let (first, second) = (one.start().await, two.start().await);
    let name = format!("ambient-test-{}", std::process::id());
    let script =
        format!("echo one > /tmp/{name}; echo one > /dev/shm/{name}; echo one > /var/tmp/{name}2; cat /tmp/{name}2");
    assert!(run(&first, "m", &script).await.contains("one"));
    for place in ["/tmp", "/dev/shm", "/var/tmp"] {
        assert!(!std::path::Path::new(place).join(&name).exists(), "{place}");
    }
    let output = run(&second, "m", &format!("try cat /tmp/{name}; try cat /dev/shm/{name}")).await;
    assert_eq!(answers(&output, "no ").len(), 2, "{output}");
    let pool = "import multiprocessing as m\nif __name__ == '__main__':\n    with m.Pool(2) as p: print('pool', sum(p.map(abs, range(-9, 0))))\n    \
                from multiprocessing import shared_memory as s\n    b = s.SharedMemory(create=True, size=1<<20); b.buf[0] = 7; print('shared', b.buf[0]); b.unlink()";
    let script = format!(
        "command -v python3 >/dev/null || {{ echo pool 45 shared 7; exit 0; }}\ncat > p.py <<'E'\n{pool}\nE\npython3 p.py"
    );
    let output = run(&second, "n", &script).await;
    assert!(output.contains("pool 45") && output.contains("shared 7"), "{output}");
    let sizes = run(&second, "o", "df -k --output=size /tmp /dev/shm | tail -n +2").await;
    let kib: Vec<u64> = sizes.lines().filter_map(|line| line.trim().parse().ok()).collect();
    assert_eq!(kib, [524_288, 524_288], "bounded: {sizes}");
}

#[tokio::test]
async fn whatever_an_agent_does_to_hide_ends_with_its_runner() {
    let session = Session::new(true);
    let mut runner = session.start().await;
    let hide = "(env -i setsid sh -c '(trap \"\" TERM HUP; setsid sleep 321.5 &)' &)";
    run(&runner, "m", &format!("{hide}; {hide}; sleep 0.2")).await;
    assert_eq!(running("sleep\u{0}321.5").len(), 2, "background processes outlive their turn");
    assert!(
        run(&runner, "n", "pgrep -f 321.5 | wc -l").await.lines().any(|line| line == "2"),
        "and are seen by the next"
    );
    runner.signal(rustix::process::Signal::KILL);
    runner.exit_code().await;
    eventually("all of the agent ends", || running("sleep\u{0}321.5").is_empty()).await;
    let init = session.started().init.unwrap();
    eventually("init ends", || !std::path::Path::new(&format!("/proc/{}", init.pid)).exists()).await;
}

#[tokio::test]
async fn a_runner_that_ends_leaves_nothing_that_hides_and_is_not_kept_by_it() {
    let session = Session::new(true);
    let mut runner = session.start().await;
    let hide = "(env -i setsid sh -c '(trap \"\" TERM HUP; setsid sleep 322.5 &)' &)";
    run(&runner, "m", &format!("{hide}; sleep 0.2")).await;
    assert_eq!(running("sleep\u{0}322.5").len(), 1);
    runner.client.send("POST", "/shutdown", serde_json::json!({})).await.expect(202);
    assert_eq!(runner.exit_code().await, Some(0));
    assert!(running("sleep\u{0}322.5").is_empty());
}

#[tokio::test]
async fn an_attempt_whose_namespaces_are_ended_from_outside_is_lost_and_not_recorded_as_over() {
    let session = Session::new(true);
    let mut runner = session.start().await;
    let init = rustix::process::Pid::from_raw(session.started().init.unwrap().pid).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
    assert_eq!(runner.exit_code().await, Some(74));
    assert!(session.exited().is_none(), "the next attempt goes on");
}

#[tokio::test]
async fn where_the_kernel_refuses_namespaces_it_is_told_and_a_session_that_requires_them_is_refused() {
    let mut session = Session::new(true);
    session.without_namespaces = true;
    let mut refused = session.spawn();
    assert_eq!(refused.exit_code().await, Some(2));
    let reason = session.exited().unwrap().reason;
    assert!(
        reason.contains("cannot be confined") && reason.contains("namespaces of its own (a user namespace: "),
        "{reason}"
    );
    session.next_attempt();
    session.spec.confinement = Confinement::BestEffort;
    let runner = session.start().await;
    let started = session.started();
    assert_eq!(started.init, None);
    let missing = started.missing_confinement;
    assert!(missing.iter().any(|what| what.contains("may outlive the session unseen")), "{missing:?}");
    let output = run(&runner, "m", "try cat /etc/hostname; try ls /root").await;
    assert!(output.contains("yes cat") && output.contains("no ls"), "Landlock holds: {output}");
}

#[tokio::test]
async fn signals_and_codes_of_a_command_are_told_as_they_are_and_a_trapped_sigterm_is_honoured() {
    let session = Session::new(true);
    let runner = session.start().await;
    for (id, script, code) in [("a", "exit 42", 42), ("b", "kill -9 $$", 137), ("c", "kill -TERM $$", 143)] {
        let mut reader = runner.client.events(1, "", 0).await;
        runner.client.deliver(id, 1, &format!("```\n{script}\n```")).await.expect(200);
        let mut records = Vec::new();
        while !harness::of_type(&records, "turn.ended").into_iter().any(|turn| turn["message_id"] == id) {
            records.extend(reader.until_turn_ended().await);
        }
        assert_eq!(harness::of_type(&records, "turn.ended").last().unwrap()["exit_code"], code, "{script}");
    }
    let mut reader = runner.client.events(2, "", 0).await;
    let script = "trap 'echo got TERM; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    runner.client.deliver("d", 2, &format!("```\n{script}\n```")).await.expect(200);
    reader.until(|record| record.event["text"].as_str().is_some_and(|text| text.contains("ready"))).await;
    runner.client.send("POST", "/interrupt", serde_json::json!({})).await.expect(204);
    let records = reader.until(|record| record.event["message_id"] == "d" && is_of_type(record, "turn.ended"));
    assert!(output(&records.await).contains("got TERM"), "the command ended in its own way");
}

#[tokio::test]
async fn nothing_left_in_the_temporary_folder_keeps_a_later_attempt_from_starting() {
    let mut session = Session::new(true);
    let runner = session.start().await;
    let script = "cd $TMPDIR; mkdir -p a/b/c; echo x > a/b/c/x; chmod 555 a/b/c; chmod 000 a/b; chmod 555 a\n\
                  mkdir -p $(printf 'd/%.0s' $(seq 1500)); ln -s / root; ln -s $HOME home; echo kept > $HOME/kept; chmod 500 .";
    run(&runner, "m", script).await;
    drop(runner);
    session.next_attempt();
    let runner = session.start().await;
    assert_eq!(std::fs::read_dir(session.paths.tmp()).unwrap().count(), 0);
    let output = run(&runner, "n", "cat $HOME/kept; ls -d /etc; echo x > $TMPDIR/x && echo written").await;
    assert!(output.contains("kept") && output.contains("/etc") && output.contains("written"), "{output}");
}
