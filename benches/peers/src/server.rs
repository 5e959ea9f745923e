//! A Restate server process on loopback. It and its data end with the value.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::Client;
use serde_json::json;
use tempfile::TempDir;

use crate::rounds::Failure;

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A server that is ready.
pub(crate) struct Server {
    process: Process,
    /// Where workflows are started.
    pub(crate) ingress: SocketAddr,
    admin: SocketAddr,
    /// Of the server.
    pub(crate) version: String,
}

impl Server {
    /// Starts one and waits until it takes requests.
    pub(crate) async fn start(http: &Client) -> Result<Self, Failure> {
        let program = std::env::var_os("RESTATE_SERVER").ok_or("RESTATE_SERVER is not set")?;
        let version = version(program.as_ref())?;
        let [node, ingress, admin] = free_addresses()?;
        let process = Process::spawn(program.as_ref(), &settings(node, ingress, admin))?;
        let mut server = Self { process, ingress, admin, version };
        server.until_ready(http, &format!("http://{admin}/health")).await?;
        server.until_ready(http, &format!("http://{ingress}/restate/health")).await?;
        Ok(server)
    }

    async fn until_ready(&mut self, http: &Client, url: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && self.process.child.try_wait()?.is_none() {
            let answer = http.get(url).timeout(PATIENCE).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(format!("the Restate server does not get ready: {}", self.process.log()).into())
    }

    /// Makes a service known to it.
    pub(crate) async fn register(&self, http: &Client, service: SocketAddr) -> Result<(), Failure> {
        let request = http.post(format!("http://{}/deployments", self.admin)).timeout(PATIENCE);
        let answer = request.json(&json!({"uri": format!("http://{service}")})).send().await?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(format!("the service is not registered: {}", answer.text().await?).into())
    }
}

/// Partitions of the log. It comes with 24; on two cores, in the same runs, 4 did 1.2 to 1.9 times as many workflows a second
/// with the same delay of one alone. The log is written through to the disk all the same.
const PARTITIONS: u16 = 4;

/// Where it listens, what it says, and its partitions; all else that costs or saves time is as it comes.
fn settings(node: SocketAddr, ingress: SocketAddr, admin: SocketAddr) -> String {
    let (node, ingress, admin) = (node.port(), ingress.port(), admin.port());
    format!(
        r#"node-name = "peer"
listen-mode = "tcp"
bind-ip = "127.0.0.1"
bind-port = {node}
advertised-host = "127.0.0.1"
default-num-partitions = {PARTITIONS}
disable-telemetry = true
log-filter = "warn"
log-disable-ansi-codes = true
[ingress]
bind-port = {ingress}
[admin]
bind-port = {admin}
"#
    )
}

/// Ports that were free: the server takes them at once, and nobody else on loopback is expected to.
fn free_addresses() -> Result<[SocketAddr; 3], Failure> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let [a, b, c] = [bind()?, bind()?, bind()?];
    Ok([a.local_addr()?, b.local_addr()?, c.local_addr()?])
}

/// Such as `restate-server 1.7.12`.
fn version(program: &Path) -> Result<String, Failure> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

struct Process {
    child: Child,
    dir: TempDir,
}

impl Process {
    fn spawn(program: &Path, settings: &str) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("ambient-restate-").tempdir()?;
        let file = dir.path().join("restate.toml");
        fs::write(&file, settings)?;
        let mut command = Command::new(program);
        // Settings of the surroundings would change what is measured.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RESTATE_")) {
            command.env_remove(name);
        }
        command.arg("--no-logo").arg("--config-file").arg(file).arg("--base-dir").arg(dir.path().join("data"));
        let log = File::create(dir.path().join("log"))?;
        let child =
            command.current_dir(dir.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { child, dir })
    }

    /// The end of what it said.
    fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its data go with it: there is nothing to put in order first.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
