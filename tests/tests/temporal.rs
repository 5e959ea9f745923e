//! The product on a real Temporal server: a server that is down delays work but loses none, and a database's engine changes
//! only when nothing is open. Needs Temporal's command line (`AMBIENT_TEMPORAL_CLI`, see `make conformance`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use ambient_tests::TestDatabase;
use serde_json::json;
use support::{Server, binary, clean_command, eventually, free_port, script, short_dir};
use tempfile::TempDir;

/// A Temporal server that can be killed, and started again with what it stored.
struct Temporal {
    cli: PathBuf,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Temporal {
    /// One that has not been started. None where there is no Temporal.
    fn found() -> Option<Self> {
        let cli = std::env::var_os("AMBIENT_TEMPORAL_CLI").filter(|cli| !cli.is_empty());
        if cli.is_none() {
            assert!(std::env::var_os("AMBIENT_REQUIRE_TEMPORAL").is_none(), "no Temporal server");
            println!("skipped: no Temporal server");
        }
        Some(Self { cli: cli?.into(), dir: short_dir(), port: free_port(), child: None })
    }

    fn start(&mut self) {
        let mut command = Command::new(&self.cli);
        command.args(["server", "start-dev", "--headless", "--ip", "127.0.0.1", "--log-level", "error", "--port"]);
        command.arg(self.port.to_string()).arg("--db-filename").arg(self.dir.path().join("temporal.db"));
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        self.child = Some(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes a server use it.
    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("AMBIENT_ENGINE", "temporal".to_owned()), ("AMBIENT_TEMPORAL_ADDRESS", self.address())]
    }
}

impl Drop for Temporal {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// The engine's line of `/readyz`.
async fn engine_is(server: &Server, ok: bool) -> String {
    eventually(if ok { "the engine to be ready" } else { "the engine to be down" }, async || {
        let checks = server.readiness().await?.json["checks"].as_array()?.clone();
        let engine = checks.into_iter().find(|check| check["name"] == "engine")?;
        (engine["ok"] == ok).then(|| engine["reason"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

#[tokio::test]
async fn a_cluster_that_is_down_delays_work_and_loses_none() {
    let Some(mut temporal) = Temporal::found() else { return };
    let database = TestDatabase::new().await;
    let mut server = Server::new(&database, "one");
    server.settings = temporal.settings();
    server.launch();
    let reason = engine_is(&server, false).await;
    assert!(reason.contains("Temporal") && reason.contains(&temporal.address()), "{reason}");
    assert_eq!(server.readiness().await.unwrap().status, 503);

    // What is asked for meanwhile is kept.
    server.post("/projects", json!({"name": "later"})).await.expect(201);
    let prompt = script("echo begun\nfor n in $(seq 60); do sleep 0.2; done\necho over");
    let id = server.session(json!({"project_id": "later", "prompt": prompt})).await;
    temporal.start();
    engine_is(&server, true).await;
    server.printed(&id, "begun").await;
    server.phase(&id, "Running").await;

    temporal.kill();
    let reason = engine_is(&server, false).await;
    assert!(reason.contains(&temporal.address()), "{reason}");
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    temporal.start();
    engine_is(&server, true).await;
    let session = server.phase(&id, "Stopped").await;
    assert_eq!(session["outcome"]["reason"], "UserStopped");
}

fn drain(server: &Server, database: &TestDatabase, arguments: &[&str]) -> (bool, String) {
    let mut command = clean_command(binary("ambient"));
    command.args(["engine", "drain"]).args(arguments).envs(server.settings.iter().map(|(name, value)| (name, value)));
    command.env("AMBIENT_DATABASE_URL", database.url()).env("AMBIENT_DATA_DIR", server.data_dir());
    let output = command.output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(told).unwrap())
}

#[tokio::test]
async fn the_engine_of_a_database_changes_only_when_nothing_is_open() {
    let Some(mut temporal) = Temporal::found() else { return };
    temporal.start();
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "one").await;
    server.project("move").await;
    let id = server.session(json!({"project_id": "move", "prompt": script("echo begun"), "interactive": true})).await;
    server.phase(&id, "Running").await;
    server.stop().await;

    server.settings = temporal.settings();
    server.launch();
    let (success, log) = server.ended().await;
    let supervisor = format!("session-supervise/{id}/1");
    assert!(!success && log.contains("embedded engine") && log.contains(&supervisor), "{log}");

    server.settings.clear();
    server.restart().await;
    let (empty, told) = drain(&server, &database, &[]);
    assert!(!empty && told.contains(&supervisor), "{told}");
    let refused = server.post("/sessions", json!({"project_id": "move", "prompt": "x", "start": true})).await;
    assert_eq!(refused.status, 503, "{}", refused.json);
    assert!(refused.json.to_string().contains("ambient engine drain"), "{}", refused.json);
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    let (empty, told) = drain(&server, &database, &["--wait", "60"]);
    assert!(empty, "{told}");
    server.stop().await;

    server.settings = temporal.settings();
    server.restart().await;
    server.post(&format!("/sessions/{id}/start"), json!({"prompt": script("echo on Temporal")})).await.expect(202);
    server.printed(&id, "on Temporal").await;
    let executions = server.get(&format!("/workflow_executions?session_id={id}")).await.expect(200);
    assert!(executions.to_string().contains(&format!("session-supervise/{id}/2")), "{executions}");
    assert!(!executions.to_string().contains(&supervisor), "what was before is in the other engine: {executions}");

    // And back: refused while it runs.
    server.phase(&id, "Running").await;
    server.stop().await;
    server.settings.retain(|(name, _)| *name != "AMBIENT_ENGINE");
    server.launch();
    let (success, log) = server.ended().await;
    assert!(!success && log.contains("Temporal's namespace default") && log.contains("session-supervise"), "{log}");
}
