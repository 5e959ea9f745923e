//! A runner as a real process in a session's directory of its own.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

pub mod client;
pub mod lfs;
pub mod scene;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use ambient_runner_protocol::{
    CONTRACT_VERSION, Confinement, Exited, Fence, GitIdentity, LaunchSpec, Limits, SessionPaths, Started,
};
use tempfile::TempDir;

pub use client::*;

pub const TOKEN: &str = "token-of-the-run";

/// A session's directory.
pub struct Session {
    directory: TempDir,
    pub paths: SessionPaths,
    pub spec: LaunchSpec,
    /// Starts the runner where the kernel makes no user namespaces.
    pub without_namespaces: bool,
}

impl Session {
    pub fn new(interactive: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("ar").tempdir().unwrap();
        let root = directory.path().join("projects/p/sessions/s");
        let paths = SessionPaths { root: root.clone() };
        for path in [paths.workspace(), paths.home(), paths.tmp(), paths.run_dir(1).join("secrets")] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::write(paths.server_token(1), format!("{TOKEN}\n")).unwrap();
        let nonce = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned();
        let spec = LaunchSpec {
            version: CONTRACT_VERSION,
            session_id: "s".to_owned(),
            project_id: "p".to_owned(),
            run: 1,
            attempt: 1,
            nonce,
            session_dir: root,
            socket: directory.path().join("s.sock"),
            interactive,
            agent: "script".to_owned(),
            agent_command: None,
            model: None,
            network: ambient_wire::network::Network::default(),
            setup_script: None,
            permissions: ambient_wire::permission::PermissionPolicy::default(),
            git_identity: GitIdentity { name: "Ada".to_owned(), email: "ada@example.com".to_owned() },
            readable_paths: Vec::new(),
            platform_paths: Vec::new(),
            limits: Limits { processes: 512, open_files: 1024, file_size_bytes: 1 << 30, ..Limits::default() },
            confinement: Confinement::Require,
            own_user: false,
            agent_user: None,
            host: "test".to_owned(),
            agent_groups: Vec::new(),
            unenforced: Vec::new(),
        };
        Self { directory, paths, spec, without_namespaces: false }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the attempt and waits until it is up.
    pub async fn start(&self) -> Runner {
        let mut runner = self.spawn();
        let started = self.paths.started(self.spec.run, self.spec.attempt);
        eventually("the runner comes up", || {
            assert!(runner.child.try_wait().unwrap().is_none(), "the runner ended: {}", self.log());
            started.exists()
        })
        .await;
        runner.client = Client::new(&self.spec.socket, TOKEN);
        runner
    }

    pub fn spawn(&self) -> Runner {
        let launch = self.paths.launch(self.spec.run, self.spec.attempt);
        std::fs::write(&launch, serde_json::to_vec(&self.spec).unwrap()).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.paths.runner_log(1)).unwrap();
        let runner = env!("CARGO_BIN_EXE_ambient-runner");
        let mut command = Command::new(runner);
        if self.without_namespaces {
            command = Command::new("unshare");
            let refuse = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
            command.args(["--map-root-user", "sh", "-c", refuse, "sh", runner]);
        }
        let child = command
            .args(["serve", "--launch"])
            .arg(&launch)
            .env_clear()
            .env("AMBIENT_NONCE", &self.spec.nonce)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Runner { child, client: Client::new(&self.spec.socket, TOKEN) }
    }

    pub fn next_attempt(&mut self) {
        self.spec.attempt += 1;
        self.spec.nonce = format!("{}x", self.spec.nonce);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.paths.runner_log(1)).unwrap_or_default()
    }

    pub fn exited(&self) -> Option<Exited> {
        let bytes = std::fs::read(self.paths.exited(self.spec.run, self.spec.attempt)).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    pub fn started(&self) -> Started {
        let bytes = std::fs::read(self.paths.started(self.spec.run, self.spec.attempt)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    pub fn raise_fence(&self, stopped_run: i64) {
        std::fs::write(self.paths.fence(), serde_json::to_vec(&Fence { stopped_run }).unwrap()).unwrap();
    }

    /// Makes a repository with one commit to clone from; its URL.
    pub fn origin(&self, name: &str) -> String {
        let path = self.directory().join(name);
        std::fs::create_dir_all(&path).unwrap();
        git(&path, &["init", "--quiet", "--initial-branch=main"]);
        std::fs::write(path.join("README.md"), "hello\n").unwrap();
        git(&path, &["add", "."]);
        git(&path, &["commit", "--quiet", "-m", "first"]);
        let bare = self.directory().join(format!("{name}.git"));
        git(&path, &["clone", "--quiet", "--bare", ".", &bare.to_string_lossy()]);
        format!("file://{}", bare.display())
    }
}

impl Drop for Session {
    /// Ends what a killed runner left behind.
    fn drop(&mut self) {
        let ours = self.directory().to_string_lossy().into_owned();
        client::end_all(&ours);
    }
}

pub struct Runner {
    pub child: Child,
    pub client: Client,
}

impl Runner {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub async fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the runner ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().code()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .envs(
            ["AUTHOR", "COMMITTER"]
                .iter()
                .flat_map(|who| [(format!("GIT_{who}_NAME"), "Bob"), (format!("GIT_{who}_EMAIL"), "bob@example.com")]),
        )
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository that is pushed to a branch of its origin at the end of every successful turn, as the runner is told.
pub fn pushed(url: &str, branch: &str) -> serde_json::Value {
    serde_json::json!({ "url": url, "output": { "push_to": "same", "target_branch": branch }, "auto_push": true })
}

/// `yes`/`no` and what was tried, a line each.
const TRY: &str = "try() { if \"$@\" >/dev/null 2>&1; then echo \"yes $*\"; else echo \"no $*\"; fi; }\n";

/// Runs a script to the end of its turn; its output. `try COMMAND` prints `yes` or `no` and the command.
pub async fn run(runner: &Runner, id: &str, script: &str) -> String {
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver(id, 1, &format!("```\n{TRY}{script}\n```")).await.expect(200);
    let mut records = Vec::new();
    loop {
        records.extend(reader.until_turn_ended().await);
        let ended = of_type(&records, "turn.ended").into_iter().any(|turn| turn["message_id"] == id);
        if ended {
            return output(&records);
        }
    }
}

/// Lines that begin so.
pub fn answers<'a>(output: &'a str, answer: &str) -> Vec<&'a str> {
    output.lines().filter(|line| line.starts_with(answer)).collect()
}

/// Processes whose command line contains the text.
pub fn running(text: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    entries
        .filter(|path| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(text) && !path.ends_with("self") && !path.ends_with("thread-self")
        })
        .collect()
}
