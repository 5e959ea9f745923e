//! What an agent cannot do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{collections::BTreeMap, path::Path};

use ambient_runner_protocol::Confinement;
use harness::{Session, output};

/// Runs a script; its output.
async fn run(session: &Session, script: &str) -> String {
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("a", 1, &format!("```\n{script}\n```")).await.expect(200);
    output(&reader.until_turn_ended().await)
}

#[tokio::test]
async fn an_agent_writes_in_its_own_directories_only_and_cannot_read_the_runs_secrets() {
    let session = Session::new(true);
    let outside = session.directory().join("outside");
    std::fs::write(&outside, "secret of another session").unwrap();
    let readable = tempfile::tempdir().unwrap();
    std::fs::write(readable.path().join("tool"), "toolchain").unwrap();
    let mut session = session;
    session.spec.readable_paths = vec![readable.path().to_owned()];
    let run_dir = session.paths.run_dir(1);
    let script = format!(
        "try() {{ if \"$@\" >/dev/null 2>&1; then echo \"yes $*\"; else echo \"no $*\"; fi; }}\n\
         w() {{ echo x > \"$1\"; }}\n\
         try w here; try w $HOME/x; try w $TMPDIR/x; try w /dev/null; try cat /etc/hostname /proc/self/status\n\
         try cat {readable}/tool; try w {readable}/x\n\
         try w {root}/x; try w {run}/events.ndjson; try w /usr/x; try w {outside}; try mv here {root}/x\n\
         try cat {outside}; try cat {run}/secrets/server-to-runner; try cat {run}/runner.log; try w {run}/../../blocks/x\n\
         try cat {run}/launch.1.json; try ls {root}/repos; try cat /proc/1/environ; try kill -9 1\n\
         ln -s {outside} link; try cat link; try w link; try truncate -s0 {outside}; try chown 1:1 here; try sudo true\n\
         grep NoNewPrivs /proc/self/status",
        readable = readable.path().display(),
        root = session.paths.root.display(),
        run = run_dir.display(),
        outside = outside.display(),
    );
    let output = run(&session, &script).await;
    let said =
        |answer: &str| output.lines().filter(|line| line.starts_with(answer)).map(str::to_owned).collect::<Vec<_>>();
    let yes = said("yes ");
    assert_eq!(yes.len(), 6, "{output}");
    assert!(yes[5].contains("tool"), "{output}");
    assert_eq!(said("no ").len(), 19, "{output}");
    assert!(output.contains("NoNewPrivs:\t1"), "{output}");
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "secret of another session");
    let missing = session.started().missing_confinement;
    assert_eq!(missing.len(), 1, "only the shared user id is missing here: {missing:?}");
}

#[tokio::test]
async fn the_environment_is_clean_and_the_sessions_own_does_not_touch_the_platforms() {
    let session = Session::new(true);
    let own = [
        ("GREETING", "hello"),
        ("HOME", "/evil"),
        ("AMBIENT_NONCE", "evil"),
        ("LD_PRELOAD", "/nonexistent.so"),
        ("PATH", "/usr/bin:/bin:/mine"),
    ];
    let own = own.into_iter().collect::<BTreeMap<_, _>>();
    std::fs::write(session.paths.environment(1), serde_json::to_vec(&own).unwrap()).unwrap();
    let output = run(&session, "env").await;
    let nonce = format!("AMBIENT_NONCE={}", session.spec.nonce);
    for line in [
        "GREETING=hello",
        &format!("HOME={}", session.paths.home().display()),
        &nonce,
        "LANG=C.UTF-8",
        "PATH=/usr/bin:/bin:/mine",
        "GIT_AUTHOR_NAME=Ada",
        "LD_PRELOAD=/nonexistent.so",
    ] {
        assert!(output.lines().any(|l| l == line), "{line} in {output}");
    }
    assert!(!output.contains("CARGO") && !output.contains("AMBIENT_ENV_"), "{output}");
    let authorities = output.lines().find_map(|line| line.strip_prefix("SSL_CERT_FILE="));
    let system = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if system.is_file() {
        assert_eq!(authorities.map(Path::new), Some(system), "{output}");
    }
    // The confined command alone loads it: the re-execution before did not complain.
    assert_eq!(output.matches("cannot be preloaded").count(), 2, "once by the shell, once by env: {output}");
}

#[tokio::test]
async fn a_session_may_trust_other_certificate_authorities_than_the_system() {
    let session = Session::new(true);
    let own = BTreeMap::from([("SSL_CERT_FILE", "/mine.pem")]);
    std::fs::write(session.paths.environment(1), serde_json::to_vec(&own).unwrap()).unwrap();
    let output = run(&session, "env").await;
    let told: Vec<_> = output.lines().filter(|line| line.starts_with("SSL_CERT_FILE=")).collect();
    assert_eq!(told, ["SSL_CERT_FILE=/mine.pem"], "{output}");
}

#[tokio::test]
async fn limits_hold_and_switched_off_confinement_is_told() {
    let mut session = Session::new(true);
    session.spec.confinement = Confinement::Off;
    session.spec.limits.open_files = 99;
    session.spec.limits.file_size_bytes = 4096;
    let output = run(&session, "ulimit -n; ulimit -c; head -c 10000 /dev/zero > big || true; wc -c < big").await;
    let lines: Vec<_> = output.lines().filter(|line| line.parse::<u64>().is_ok()).collect();
    assert_eq!(lines, ["99", "0", "4096"], "{output}");
    assert!(session.started().missing_confinement.iter().any(|what| what.contains("switched off")));
}
