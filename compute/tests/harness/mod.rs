//! Local compute on a real directory with the real runner.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

#[path = "../../../runner/tests/harness/client.rs"]
pub mod client;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use ambient_compute::{
    Compute, LaunchRequest, Launched, Observation, OwnLimits, RunnerState, Secret, SecretName, SessionRef,
    local::{LocalCompute, LocalOptions},
};
use ambient_runner_protocol::{GitIdentity, PermissionPolicy, SessionPaths, Started};
use futures::{StreamExt, stream::BoxStream};
use tempfile::TempDir;

pub use client::*;

pub const TOKEN: &str = "token-of-the-run";

/// The runner beside the test, where a build of the workspace puts it; built if it is not there. A build from within a test would
/// have other features and variables, and its dependencies be built twice each time.
pub fn runner_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let program = profile.join("ambient-runner");
        if program.exists() {
            return program;
        }
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "-p", "ambient-runner", "--manifest-path"]);
        build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
        build.arg("--target-dir").arg(profile.parent().unwrap());
        match profile.file_name().and_then(|name| name.to_str()).unwrap() {
            "debug" => {}
            name => {
                build.args(["--profile", name]);
            }
        }
        assert!(build.status().unwrap().success(), "the runner cannot be built");
        program
    })
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A data directory; short, because sockets live in it.
pub struct Host {
    pub directory: TempDir,
}

impl Host {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("ac").tempdir_in("/tmp").unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    pub fn options(&self) -> LocalOptions {
        LocalOptions::new(self.directory.path().join("data"), runner_binary().to_owned(), "here".to_owned())
    }

    /// A server's compute on a kernel that refuses namespaces: the runner comes up where none may be made.
    pub fn compute_without_namespaces(&self) -> LocalCompute {
        let (real, wrapper) = (self.directory.path().join("real-runner"), self.directory.path().join("wrapped-runner"));
        std::fs::copy(runner_binary(), &real).unwrap();
        let script = format!(
            "#!/bin/sh\nexec unshare --map-root-user sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; exec {} \"$@\"' sh \"$@\"\n",
            real.display()
        );
        std::fs::write(&wrapper, script).unwrap();
        use std::os::unix::fs::PermissionsExt;
        for file in [&real, &wrapper] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut options = self.options();
        options.runner_binary = wrapper;
        LocalCompute::new(options).unwrap()
    }

    /// A server's compute; another one is a restarted (or second) server.
    pub fn compute(&self) -> LocalCompute {
        LocalCompute::new(self.options()).unwrap()
    }

    pub fn paths(&self, session: &SessionRef) -> SessionPaths {
        let projects = self.directory.path().join("data/projects");
        SessionPaths { root: projects.join(&session.project_id).join("sessions").join(&session.session_id) }
    }

    pub fn started(&self, session: &SessionRef, run: i64, attempt: i32) -> Started {
        serde_json::from_slice(&std::fs::read(self.paths(session).started(run, attempt)).unwrap()).unwrap()
    }
}

impl Drop for Host {
    /// Ends whatever is left: a runner lives on without its server, and its agents without it.
    fn drop(&mut self) {
        let ours = self.directory.path().to_string_lossy().into_owned();
        client::end_all(&ours);
        ambient_compute::local::remove_control_groups(&self.options().data_dir);
    }
}

pub fn session(name: &str) -> SessionRef {
    SessionRef { project_id: "project".to_owned(), session_id: name.to_owned() }
}

pub fn request(session: &SessionRef, run: i64, attempt: i32) -> LaunchRequest {
    LaunchRequest {
        session: session.clone(),
        run,
        attempt,
        interactive: true,
        agent: "script".to_owned(),
        agent_command: None,
        model: None,
        permissions: PermissionPolicy::default(),
        git_identity: GitIdentity { name: "Ada".to_owned(), email: "ada@example.com".to_owned() },
        limits: OwnLimits::default(),
        network: None,
        setup_script: None,
    }
}

/// Launches with all that comes before, and waits until the runner is up.
pub async fn start(compute: &LocalCompute, session: &SessionRef, run: i64, attempt: i32) -> Client {
    compute.ensure_project(&session.project_id).await.unwrap();
    compute.ensure_workspace(session).await.unwrap();
    compute.write_secret(session, run, SecretName::ServerToRunner, &Secret::new(TOKEN.to_owned())).await.unwrap();
    assert_eq!(compute.launch(&request(session, run, attempt)).await.unwrap(), Launched::Started);
    state_is(compute, session, run, attempt, |state| matches!(state, RunnerState::Running { .. })).await;
    Client::new(&compute.endpoint(session, run).await.unwrap().socket, TOKEN)
}

pub async fn state_is(
    compute: &LocalCompute,
    session: &SessionRef,
    run: i64,
    attempt: i32,
    fits: impl Fn(&RunnerState) -> bool,
) -> RunnerState {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = compute.state(session, run, attempt).await.unwrap();
        if fits(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "it stays {state:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn next(observations: &mut BoxStream<'static, Observation>) -> Observation {
    tokio::time::timeout(PATIENCE, observations.next()).await.expect("an observation in time").unwrap()
}

/// The next end; what lives may be told more than once.
pub async fn next_end(observations: &mut BoxStream<'static, Observation>) -> Observation {
    loop {
        let seen = next(observations).await;
        if !matches!(seen.state, RunnerState::Running { .. }) {
            return seen;
        }
    }
}

/// Delivers a script and waits for its first output.
pub async fn begin(client: &Client, id: &str, script: &str) -> Reader {
    let mut reader = client.events(1, "", 0).await;
    client.deliver(id, 1, &format!("```\n{script}\n```")).await.expect(200);
    reader.until(|record| is_of_type(record, "tool.output")).await;
    reader
}

pub fn kill_9(pid: i32) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

/// Processes whose command line contains the text.
pub fn running(text: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let own = std::process::id().to_string();
    entries
        .filter(|path| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(text) && name.parse::<i32>().is_ok() && name != own
        })
        .collect()
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// At least so many processes whose command line contains the text.
pub async fn eventually_many(text: &str, least: usize) {
    eventually("there are many processes", || running(text).len() >= least).await;
}
