//! A runner as a real process.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use ambient_domain::session::Session;
use ambient_live::RunnerClient;
use ambient_runner_protocol::{CONTRACT_VERSION, Confinement, GitIdentity, LaunchSpec, Limits, Record, SessionPaths};
use tempfile::TempDir;

use super::{eventually, tokens, uuid};

/// The program, built if it is not there.
fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let exe = std::env::current_exe().unwrap();
        let profile = exe.parent().and_then(|deps| deps.parent()).unwrap().to_owned();
        let program = profile.join("ambient-runner");
        if !program.exists() {
            let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
            let target = profile.parent().unwrap();
            let mut build = Command::new(cargo);
            build.args(["build", "--package", "ambient-runner", "--target-dir"]).arg(target);
            assert!(build.status().unwrap().success(), "the runner cannot be built");
        }
        program
    };
    PROGRAM.get_or_init(find).clone()
}

/// A session's directory, and the runner in it while it lives.
pub struct Runner {
    directory: TempDir,
    pub paths: SessionPaths,
    pub spec: LaunchSpec,
    child: Option<Child>,
}

impl Runner {
    pub fn of(session: &Session) -> Self {
        let directory = tempfile::Builder::new().prefix("al").tempdir().unwrap();
        let root = directory.path().join("projects/p/sessions/s");
        let paths = SessionPaths { root: root.clone() };
        for path in [paths.workspace(), paths.home(), paths.tmp(), paths.run_dir(1).join("secrets")] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::write(paths.server_token(1), tokens().server_to_runner(&session.id, 1)).unwrap();
        let spec = LaunchSpec {
            version: CONTRACT_VERSION,
            session_id: session.id.clone(),
            project_id: session.project_id.clone(),
            run: 1,
            attempt: 1,
            nonce: uuid(),
            session_dir: root,
            socket: directory.path().join("s.sock"),
            interactive: session.spec.interactive,
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
            confinement: Confinement::BestEffort,
            own_user: false,
            agent_user: None,
            host: "test".to_owned(),
            agent_groups: Vec::new(),
            unenforced: Vec::new(),
        };
        Self { directory, paths, spec, child: None }
    }

    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Starts the attempt and waits until it is up.
    pub async fn start(&mut self) {
        let launch = self.paths.launch(1, self.spec.attempt);
        std::fs::write(&launch, serde_json::to_vec(&self.spec).unwrap()).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.paths.runner_log(1)).unwrap();
        let child = Command::new(program())
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
        self.child = Some(child);
        let started = self.paths.started(1, self.spec.attempt);
        eventually("the runner comes up", || async { started.exists() }).await;
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Kills it, as a power failure would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end as compute does, and waits.
    pub async fn terminate(&mut self) {
        std::fs::write(self.paths.stop_request(1), "").unwrap();
        let mut child = self.child.take().unwrap();
        let status = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(status.success());
        tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    }

    pub fn next_attempt(&mut self) {
        self.spec.attempt += 1;
        self.spec.nonce = uuid();
    }

    pub fn client(&self) -> RunnerClient {
        RunnerClient::new(&self.spec.socket, tokens().server_to_runner(&self.spec.session_id, 1)).unwrap()
    }

    /// The log as it is in the file.
    pub fn records(&self) -> Vec<Record> {
        let text = std::fs::read_to_string(self.paths.event_log(1)).unwrap();
        text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = |path| std::fs::read_to_string(path).unwrap_or_default();
            let (recorded, said) = (text(self.paths.event_log(1)), text(self.paths.runner_log(1)));
            println!("the runner recorded {} lines; it said:\n{said}", recorded.lines().count());
        }
        self.kill();
    }
}
