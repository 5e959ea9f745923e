//! From the request to create and start a session until it is Running, without a clone, through a real server process.
//!
//! The ceiling is compute alone: from launching a runner until its health endpoint answers, without API, database and workflows.

use std::time::{Duration, Instant};

use ambient_compute::{
    Compute, LaunchRequest, Secret, SecretName, SessionRef,
    local::{LocalCompute, LocalOptions, remove_control_groups},
};
use ambient_live::RunnerClient;
use ambient_persistence::new_id;
use ambient_runner_protocol::{GitIdentity, PermissionPolicy, SessionPaths};
use ambient_tests::TestDatabase;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Failure,
    interleave::{millis, percentile},
    server::{Server, UID_BASE, end_processes_of, program, short_dir},
    subscribers::{connect, next_event},
    table::{Pair, Table},
};

const STARTS: usize = 20;
const PROJECT: &str = "bench";
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let database = TestDatabase::new().await;
    let server = Server::start(&database.url(), PROJECT).await?;
    let bare = Bare::new()?;
    started(&server).await?;
    bare.launched().await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        ours.push(millis(started(&server).await?));
        theirs.push(millis(bare.launched().await?));
    }
    for percent in [50, 95] {
        let (ours, theirs) = (percentile(&ours, percent), percentile(&theirs, percent));
        let pair = Pair { ours, theirs, ratio: ours / theirs };
        let beside = format!("launch until the runner's health answers, p{percent}");
        table.add(format!("create + start -> Running, p{percent} of {STARTS}"), "ms", pair, beside);
    }
    Ok(())
}

/// How long it takes a session to be Running, as a subscriber of its log sees it. It is stopped afterwards.
async fn started(server: &Server) -> Result<Duration, Failure> {
    let began = Instant::now();
    let body = json!({"project_id": PROJECT, "interactive": true, "start": true});
    let session = server.ask(Method::POST, "/sessions", body).await?;
    let id = session["id"].as_str().ok_or("a session without id")?;
    let subscribe = json!({"op": "subscribe", "id": "s", "channel": format!("session:{id}"), "after_seq": 0});
    let url = format!("ws://{}/api/ambient/v1/live", server.address);
    let mut socket = connect(&url, Some(&server.token), subscribe.to_string()).await?;
    loop {
        let event: Value = serde_json::from_str(&next_event(&mut socket).await?)?;
        match event["data"]["phase"].as_str().filter(|_| event["type"] == "session.phase") {
            Some("Running") => break,
            Some("Pending" | "Creating") | None => {}
            Some(other) => return Err(format!("the session became {other}").into()),
        }
    }
    let took = began.elapsed();
    server.ask(Method::POST, &format!("/sessions/{id}/stop"), json!({})).await?;
    server.until(&format!("/sessions/{id}"), |session| session["phase"] == "Stopped").await?;
    Ok(took)
}

/// Compute without a server.
pub(crate) struct Bare {
    compute: LocalCompute,
    project_id: String,
    dir: TempDir,
}

impl Bare {
    pub(crate) fn new() -> Result<Self, Failure> {
        let dir = short_dir()?;
        let mut options = LocalOptions::new(dir.path().join("d"), program("ambient-runner")?, "bare".to_owned());
        options.session_uid_base = Some(UID_BASE + 100_000);
        Ok(Self { compute: LocalCompute::new(options)?, project_id: new_id(), dir })
    }

    async fn launched(&self) -> Result<Duration, Failure> {
        let (session, took) = self.launch().await?;
        self.end(&session).await?;
        Ok(took)
    }

    /// A session's runner, and how long it took to answer.
    pub(crate) async fn launch(&self) -> Result<(SessionRef, Duration), Failure> {
        let session = SessionRef { project_id: self.project_id.clone(), session_id: new_id() };
        self.compute.ensure_project(&self.project_id).await?;
        self.compute.ensure_workspace(&session).await?;
        for name in [SecretName::ServerToRunner, SecretName::RunnerToServer] {
            self.compute.write_secret(&session, 1, name, &Secret::new("token".to_owned())).await?;
        }
        let request = LaunchRequest {
            session: session.clone(),
            run: 1,
            attempt: 1,
            interactive: true,
            agent: "script".to_owned(),
            agent_command: None,
            model: None,
            permissions: PermissionPolicy::default(),
            git_identity: GitIdentity { name: "bench".to_owned(), email: "bench@localhost.invalid".to_owned() },
            limits: ambient_compute::OwnLimits::default(),
            network: None,
            setup_script: None,
        };
        let began = Instant::now();
        self.compute.launch(&request).await?;
        tokio::time::timeout(PATIENCE, self.healthy(&session)).await?;
        Ok((session, began.elapsed()))
    }

    /// The process of a session's runner.
    pub(crate) fn process(&self, session: &SessionRef) -> Result<u32, Failure> {
        let root =
            self.dir.path().join("d/projects").join(&session.project_id).join("sessions").join(&session.session_id);
        let started = std::fs::read(SessionPaths { root }.started(1, 1))?;
        let pid = serde_json::from_slice::<Value>(&started)?["pid"].as_u64().ok_or("a runner without a pid")?;
        Ok(u32::try_from(pid)?)
    }

    pub(crate) async fn end(&self, session: &SessionRef) -> Result<(), Failure> {
        self.compute.raise_fence(session, i64::MAX).await?;
        // Without a pause: during one the machine cools down, and what is measured next is how it warms up.
        self.compute.terminate(session, 1, Duration::ZERO).await?;
        self.compute.delete_workspace(session).await?;
        Ok(())
    }

    async fn healthy(&self, session: &SessionRef) {
        loop {
            if let Ok(endpoint) = self.compute.endpoint(session, 1).await
                && let Ok(client) = RunnerClient::new(endpoint.socket, "token")
                && client.health().await.is_ok()
            {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        end_processes_of(self.dir.path());
        remove_control_groups(&self.dir.path().join("d"));
    }
}
