//! A real server process, used over HTTP. It and the runners it leaves end with this value.

use std::{
    fs::{self, File, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Method};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Failure;

const BASE: &str = "/api/ambient/v1";
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A server process.
pub(crate) struct Server {
    dir: TempDir,
    pub(crate) address: String,
    pub(crate) token: String,
    child: Child,
    http: Client,
}

impl Server {
    /// Starts one, with a project, on a database.
    pub(crate) async fn start(database_url: &str, project: &str) -> Result<Self, Failure> {
        Self::start_with(database_url, project, &[]).await
    }

    /// The same, with further settings, by the names of their variables.
    pub(crate) async fn start_with(
        database_url: &str,
        project: &str,
        settings: &[(&str, String)],
    ) -> Result<Self, Failure> {
        let dir = short_dir()?;
        // The server takes the address again at once; nobody else on loopback is expected to.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let data = dir.path().join("d");
        let mut command = Command::new(program("ambient")?);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AMBIENT_")) {
            command.env_remove(name);
        }
        command.env("AMBIENT_SERVER_CONFIG", "/dev/null").env("AMBIENT_DATABASE_URL", database_url);
        command.env("AMBIENT_DATA_DIR", &data).env("AMBIENT_LISTEN", &address).env("AMBIENT_HOST", "bench");
        command.env("AMBIENT_SESSION_UID_BASE", UID_BASE.to_string()).env("AMBIENT_LOG_LEVEL", "warn");
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        let log = File::create(dir.path().join("server.log"))?;
        let child = command.arg("server").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let http = Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let mut server = Self { dir, address, token: String::new(), child, http };
        server.ready().await?;
        server.token = fs::read_to_string(data.join("admin-token"))?.trim().to_owned();
        server.project(project).await?;
        Ok(server)
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let (url, deadline) = (format!("http://{}/readyz", self.address), Instant::now() + PATIENCE);
        while Instant::now() < deadline && self.child.try_wait()?.is_none() {
            if self.http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let log = fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default();
        Err(format!("the server does not get ready:\n{log}").into())
    }

    async fn project(&self, name: &str) -> Result<(), Failure> {
        self.ask(Method::POST, "/projects", json!({"name": name})).await?;
        let path = format!("/projects/{name}");
        self.until(&path, |project| project["provisioned"] == true).await
    }

    /// Looks again until it is so.
    pub(crate) async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while !fits(&self.ask(Method::GET, path, Value::Null).await?) {
            if Instant::now() > deadline {
                return Err(format!("{path} does not become what it should").into());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// A request with the administrator's token; anything but success is an error.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, Failure> {
        let request = self.http.request(method, format!("http://{}{BASE}{path}", self.address));
        let request = request.bearer_auth(&self.token);
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await?;
        let (status, body) = (answer.status(), answer.bytes().await?);
        if !status.is_success() {
            return Err(format!("{path}: {status} {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    pub(crate) fn resident_bytes(&self) -> Result<f64, Failure> {
        resident_bytes(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its end is not measured; runners outlive it on purpose, so they are ended by what they were started with.
        let _ = self.child.kill();
        let _ = self.child.wait();
        end_processes_of(self.dir.path());
        ambient_compute::local::remove_control_groups(&self.dir.path().join("d"));
    }
}

/// First user id of sessions here, apart from those of tests and of a server that stays.
pub(crate) const UID_BASE: u32 = 1_700_000_000;

/// A program of this build: beside the folder of this one.
pub(crate) fn program(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| format!("{name} is not built: use `make bench`").into())
}

/// A short directory that sessions' users can enter.
pub(crate) fn short_dir() -> Result<TempDir, Failure> {
    let dir = tempfile::Builder::new().prefix("amb").tempdir_in("/tmp")?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711))?;
    Ok(dir)
}

/// Memory of a process that is not shared out, bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<f64, Failure> {
    memory_of(pid, "VmRSS:")
}

/// That part of it that no file backs: its program's pages are shared with all that run the same.
pub(crate) fn anonymous_bytes(pid: u32) -> Result<f64, Failure> {
    memory_of(pid, "RssAnon:")
}

fn memory_of(pid: u32, what: &str) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).ok_or_else(|| format!("no {what}"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}

/// Ends every process whose arguments name this directory of ours, by its id.
pub(crate) fn end_processes_of(dir: &Path) {
    let needle = dir.as_os_str().as_encoded_bytes();
    let named = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.windows(needle.len()).any(|window| window == needle)
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids.filter(named).filter_map(Pid::from_raw) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
}
