//! Real servers on the test's own database, used as users do. What a test starts ends with it.

pub(crate) mod collector;
pub(crate) mod fake_agent;
pub(crate) mod live;
pub(crate) mod processes;
pub(crate) mod real_agents;
pub(crate) mod runner;

use std::{
    fs::{self, File, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ambient_tests::TestDatabase;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take that should happen soon, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const BASE: &str = "/api/ambient/v1";

/// Asks until there is an answer.
///
/// # Panics
/// When there is none in time.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A binary of this build.
pub(crate) fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

/// A command without settings of the one who runs the tests.
pub(crate) fn clean_command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    let ours = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("AMBIENT_");
    std::env::vars_os().map(|(name, _)| name).filter(ours).for_each(|name| {
        command.env_remove(name);
    });
    command.stdin(Stdio::null()).env("AMBIENT_SERVER_CONFIG", "/dev/null");
    command
}

/// A short directory that sessions' users can enter.
pub(crate) fn short_dir() -> TempDir {
    let dir = tempfile::Builder::new().prefix("amb").tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    dir
}

/// Below the range the kernel hands out by itself, so that it stays free over a restart.
pub(crate) fn free_port() -> u16 {
    let random = || 15_000 + u16::try_from(uuid::Uuid::new_v4().as_u128() % 15_000).unwrap();
    std::iter::repeat_with(random).take(1_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.json);
        self.json
    }
}

/// A server process with its data directory.
pub(crate) struct Server {
    pub(crate) dir: TempDir,
    pub(crate) host: String,
    database_url: String,
    port: u16,
    http: reqwest::Client,
    /// Further settings, as variables.
    pub(crate) settings: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Server {
    /// Starts one and waits until it is ready.
    pub(crate) async fn start(database: &TestDatabase, host: &str) -> Self {
        let mut server = Self::new(database, host);
        server.restart().await;
        server
    }

    /// Starts one more on the same database; it needs the key the first one sealed the server's keys with.
    pub(crate) async fn start_beside(&self, database: &TestDatabase, host: &str) -> Self {
        let mut server = Self::new(database, host);
        fs::create_dir(server.data_dir()).unwrap();
        fs::copy(self.data_dir().join("vault.key"), server.data_dir().join("vault.key")).unwrap();
        server.restart().await;
        server
    }

    /// One that has not been started.
    pub(crate) fn new(database: &TestDatabase, host: &str) -> Self {
        Self::at(&database.url(), host)
    }

    /// One that has not been started, for the database of a URL.
    pub(crate) fn at(database_url: &str, host: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let (dir, host, database_url) = (short_dir(), host.to_owned(), database_url.to_owned());
        Self { dir, host, database_url, port: free_port(), http, settings: Vec::new(), child: None }
    }

    /// Begins to start again on the same address and data; [`Server::ready`] waits.
    pub(crate) fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = File::options().append(true).create(true).open(self.log_file()).unwrap();
        let mut command = clean_command(binary("ambient"));
        command.arg("server").stdout(Stdio::null()).stderr(log);
        command.env("AMBIENT_DATABASE_URL", &self.database_url).env("AMBIENT_DATA_DIR", self.data_dir());
        command.env("AMBIENT_LISTEN", self.address()).env("AMBIENT_HOST", &self.host);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.spawn().unwrap());
    }

    pub(crate) async fn ready(&mut self) {
        let url = format!("http://{}/readyz", self.address());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.http.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none() && Instant::now() < deadline, "not ready ({ended:?}):\n{}", self.log());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What `/readyz` says; none while nobody listens.
    pub(crate) async fn readiness(&self) -> Option<Answer> {
        let answer = self.http.get(format!("http://{}/readyz", self.address())).send().await.ok()?;
        let status = answer.status().as_u16();
        Some(Answer { status, json: answer.json().await.unwrap_or_default() })
    }

    /// Waits for its end; its status and the end of its log.
    pub(crate) async fn ended(&mut self) -> (bool, String) {
        let mut child = self.child.take().unwrap();
        let status = eventually("the server's end", async || child.try_wait().unwrap()).await;
        (status.success(), self.log())
    }

    /// Asks it to end, and waits.
    pub(crate) async fn stop(&mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.ended().await.0, "it did not end well:\n{}", self.log());
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.launch();
        self.ready().await;
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("d")
    }

    pub(crate) fn token(&self) -> String {
        fs::read_to_string(self.data_dir().join("admin-token")).unwrap().trim().to_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// All that it has logged.
    pub(crate) fn whole_log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// End of the server's log.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// A request with the administrator's token.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}{BASE}{path}", self.address())).bearer_auth(self.token())
    }

    /// No answer when the server is not there.
    pub(crate) async fn try_send(request: reqwest::RequestBuilder) -> Option<Answer> {
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let body = response.bytes().await.ok()?;
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        Some(Answer { status, json: serde_json::from_slice(&body).unwrap_or_else(|_| text()) })
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        Self::try_send(request).await.unwrap_or_else(|| panic!("no answer:\n{}", self.log()))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> String {
        let request = self.http.get(format!("http://{}/metrics", self.address())).bearer_auth(self.token());
        request.send().await.unwrap().text().await.unwrap()
    }

    /// A project that has its space.
    pub(crate) async fn project(&self, name: &str) -> Value {
        self.post("/projects", json!({"name": name})).await.expect(201);
        let path = format!("/projects/{name}");
        eventually("the project has its space", async || {
            let project = self.get(&path).await.expect(200);
            (project["provisioned"] == true).then_some(project)
        })
        .await
    }

    /// A session that is started; its id.
    pub(crate) async fn session(&self, mut body: Value) -> String {
        body["start"] = json!(true);
        let session = self.post("/sessions", body).await.expect(201);
        session["id"].as_str().unwrap().to_owned()
    }

    /// The session, when it is in a phase; a server that is away is waited for.
    pub(crate) async fn phase(&self, id: &str, phase: &str) -> Value {
        let mut last = Value::Null;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(answer) = Self::try_send(self.request(Method::GET, &format!("/sessions/{id}"))).await {
                last = answer.json;
                if last["phase"] == phase {
                    return last;
                }
                let over = ["Completed", "Failed", "Stopped"].iter().any(|over| last["phase"] == *over);
                let new = matches!(phase, "Pending" | "Creating" | "Running");
                assert!(!over || new, "wanted {phase}, got {last:#}\n{}", self.log());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        panic!("not {phase} within {PATIENCE:?}: {last:#}\n{}", self.log())
    }

    /// The whole live log, read page by page.
    pub(crate) async fn events(&self, id: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let page = self.get(&format!("/sessions/{id}/events?size=1000&after_seq={}", all.len())).await.expect(200);
            all.extend(page["items"].as_array().unwrap().iter().cloned());
            if page.get("next").is_none_or(Value::is_null) {
                return all;
            }
        }
    }

    /// Waits for an event.
    pub(crate) async fn event(&self, id: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || self.events(id).await.into_iter().find(|event| fits(event))).await
    }

    /// Waits until the agent has printed this.
    pub(crate) async fn printed(&self, id: &str, text: &str) {
        let fits = |event: &Value| runner::output(event).is_some_and(|printed| printed.contains(text));
        self.event(id, &format!("the agent prints {text:?}"), fits).await;
    }

    /// Every execution of a session has closed; each once.
    pub(crate) async fn closed_once(&self, id: &str) {
        let path = format!("/workflow_executions?size=1000&session_id={id}");
        let executions = eventually("every execution of the session has closed", async || {
            let list = self.get(&path).await.expect(200)["items"].as_array().unwrap().clone();
            let open =
                list.iter().any(|execution| execution["status"] == "Running" || execution["closed_at"].is_null());
            (!open && !list.is_empty()).then_some(list)
        })
        .await;
        let mut ids: Vec<&str> = executions.iter().map(|execution| execution["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        let all = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), all, "{ids:?}");
        for execution in &executions {
            let status = execution["status"].as_str().unwrap();
            assert!(["Completed", "Canceled", "Cancelled"].contains(&status), "{execution:#}");
            let name = execution["id"].as_str().unwrap().replace('/', "%2F");
            let history = self.get(&format!("/workflow_executions/{name}/history")).await.expect(200);
            let kinds = history["items"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap());
            let closing = |kind: &&str| {
                let kind = kind.to_lowercase().replace('_', "");
                let end = kind.trim_start_matches("eventtype").strip_prefix("workflowexecution").unwrap_or_default();
                ["completed", "canceled", "failed", "timedout", "terminated", "continuedasnew"].contains(&end)
            };
            assert_eq!(kinds.filter(closing).count(), 1, "{name}: {history:#}");
        }
    }

    /// Rows equal their replayed operations.
    pub(crate) async fn verified(&self) {
        let report = self.post("/replay/verify", json!({})).await.expect(200);
        assert_eq!(report["divergences"], json!([]));
    }

    /// Directory of a session.
    pub(crate) fn session_dir(&self, id: &str) -> PathBuf {
        let projects = self.data_dir().join("projects");
        let entries = fs::read_dir(&projects).into_iter().flatten();
        let paths: Vec<PathBuf> = entries.map(|project| project.unwrap().path().join("sessions").join(id)).collect();
        let there = paths.iter().find(|path| path.exists()).or(paths.first());
        there.cloned().unwrap_or_else(|| projects.join("none"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        processes::end_all(&processes::nonces(&self.data_dir()));
        ambient_compute::local::remove_control_groups(&self.data_dir());
    }
}

/// A bare repository with one commit (`log.txt` = "start"), which every user can push to.
pub(crate) struct Origin {
    dir: TempDir,
}

impl Origin {
    pub(crate) fn new() -> Self {
        let dir = short_dir();
        let origin = Self { dir };
        let work = origin.dir.path().join("work");
        fs::create_dir(&work).unwrap();
        origin.git(&work, &["init", "-q", "-b", "main"]);
        fs::write(work.join("log.txt"), "start\n").unwrap();
        origin.git(&work, &["add", "."]);
        origin.git(&work, &["-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-q", "-m", "start"]);
        origin.git(&work, &["clone", "-q", "--bare", ".", "../origin.git"]);
        origin.git(&origin.path(), &["config", "core.sharedRepository", "0666"]);
        origin.open_to_everyone();
        origin
    }

    /// After changes that left files only their owner may write.
    pub(crate) fn open_to_everyone(&self) {
        let everyone = Command::new("chmod").args(["-R", "a+rwX"]).arg(self.path()).status().unwrap();
        assert!(everyone.success());
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("origin.git")
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// Whoever reads from it waits until [`Self::let_go`]: its configuration includes a pipe without a writer.
    pub(crate) fn hold(&self) {
        let made = Command::new("mkfifo").args(["-m", "0666"]).arg(self.pipe()).status().unwrap();
        assert!(made.success());
        self.git(&self.path(), &["config", "include.path", &self.pipe().display().to_string()]);
    }

    pub(crate) fn let_go(&self) {
        let config = self.path().join("config");
        let held = fs::read_to_string(&config).unwrap();
        fs::write(&config, held.split("[include]").next().unwrap()).unwrap();
        // Lets in those who wait, who then read nothing.
        drop(fs::OpenOptions::new().read(true).write(true).open(self.pipe()).unwrap());
    }

    fn pipe(&self) -> PathBuf {
        self.dir.path().join("pipe")
    }

    /// Git as its owner, on any directory.
    pub(crate) fn git(&self, at: &Path, arguments: &[&str]) -> String {
        let mut command = clean_command("git");
        command.arg("-C").arg(at).args(arguments).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", self.dir.path());
        command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A fork of it: another origin, with the same history.
    pub(crate) fn fork(&self) -> Self {
        let fork = Self { dir: short_dir() };
        self.git(&self.path(), &["clone", "-q", "--bare", ".", &fork.path().display().to_string()]);
        fork.git(&fork.path(), &["config", "core.sharedRepository", "0666"]);
        fork.open_to_everyone();
        fork
    }

    /// A file of a branch.
    pub(crate) fn file(&self, branch: &str, path: &str) -> String {
        self.git(&self.path(), &["show", &format!("{branch}:{path}")])
    }

    /// Commit of a branch.
    pub(crate) fn head(&self, branch: &str) -> String {
        self.git(&self.path(), &["rev-parse", branch]).trim().to_owned()
    }

    /// Whether there is such a branch.
    pub(crate) fn has(&self, branch: &str) -> bool {
        !self.git(&self.path(), &["branch", "--list", branch]).trim().is_empty()
    }

    /// Number of commits of a branch.
    pub(crate) fn commits(&self, branch: &str) -> usize {
        self.git(&self.path(), &["rev-list", "--count", branch]).trim().parse().unwrap()
    }
}

/// A prompt whose shell block this is.
pub(crate) fn script(shell: &str) -> String {
    format!("```sh\n{shell}\n```")
}
