//! The nearest rival of a turn: sandbox-agent, a server that relays an agent's protocol over HTTP and keeps nothing of it.
//!
//! It is used as its clients use it: requests are posted, the agent's notifications are followed as a stream of events meanwhile, and a turn
//! is over when the answer to its prompt arrives. The agent is given by its name on PATH, so that it is the one that the others have.

use std::{
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use ambient_scripted_model::ScriptedModel;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    Failure,
    server::{end_processes_of, short_dir},
    turn::{CodexHome, PATH},
};

/// Names its program, which scripts install.
const PROGRAM: &str = "AMBIENT_BENCH_SANDBOX_AGENT";
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Its server with one agent.
pub(crate) struct Rival {
    http: Client,
    url: String,
    conversation: String,
    asked: u64,
    following: JoinHandle<()>,
    _child: Child,
    _home: CodexHome,
    dir: TempDir,
}

impl Rival {
    /// None where it is not installed.
    pub(crate) async fn start(model: &ScriptedModel, codex: &Path) -> Result<Option<Self>, Failure> {
        let Some(program) = std::env::var_os(PROGRAM).filter(|program| !program.is_empty()) else {
            eprintln!("bench: sandbox-agent is not here ({PROGRAM}): it is left out");
            return Ok(None);
        };
        let (home, dir) = (CodexHome::new(model)?, short_dir()?);
        // The second is what it takes for installed.
        for name in ["codex-acp", "codex"] {
            symlink(codex, dir.path().join(name))?;
        }
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(program);
        command.args(["server", "--no-token", "--no-telemetry", "--host", "127.0.0.1", "--port"]);
        command.arg(address.port().to_string()).current_dir(home.path()).kill_on_drop(true);
        home.name_in(&mut command);
        command
            .env("PATH", format!("{}:{PATH}", dir.path().display()))
            .env("SANDBOX_AGENT_REQUIRE_PREINSTALL", "1")
            .env("RUST_LOG", "warn");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let http = Client::builder().no_proxy().build()?;
        let url = format!("http://{address}/v1/acp/bench");
        let (following, conversation) = (tokio::spawn(async {}), String::new());
        let mut rival = Self { http, url, conversation, asked: 0, following, _child: child, _home: home, dir };
        rival.ready(&format!("http://{address}/v1/health")).await?;
        rival.converse().await?;
        Ok(Some(rival))
    }

    async fn ready(&self, health: &str) -> Result<(), Failure> {
        let answers = async {
            while !self.http.get(health).send().await.is_ok_and(|answer| answer.status().is_success()) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        timeout(PATIENCE, answers).await.map_err(|_| "sandbox-agent does not get ready".into())
    }

    async fn converse(&mut self) -> Result<(), Failure> {
        self.ask("initialize", json!({"protocolVersion": 1, "clientCapabilities": {}})).await?;
        let mut events =
            self.http.get(&self.url).header("accept", "text/event-stream").send().await?.error_for_status()?;
        self.following = tokio::spawn(async move { while let Ok(Some(_)) = events.chunk().await {} });
        let folder = self._home.path().to_string_lossy().into_owned();
        let session = self.ask("session/new", json!({"cwd": folder, "mcpServers": []})).await?;
        session["sessionId"].as_str().ok_or("a conversation without id")?.clone_into(&mut self.conversation);
        Ok(())
    }

    /// When it was asked for, and when its end was seen.
    pub(crate) async fn turn(&mut self, text: &str) -> Result<(Instant, Instant), Failure> {
        let prompt = json!({"sessionId": self.conversation, "prompt": [{"type": "text", "text": text}]});
        let asked = Instant::now();
        self.ask("session/prompt", prompt).await?;
        Ok((asked, Instant::now()))
    }

    async fn ask(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        self.asked += 1;
        let request = json!({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params});
        let request = self.http.post(&self.url).query(&[("agent", "codex")]).json(&request);
        let answer = timeout(PATIENCE, async { request.send().await?.text().await }).await??;
        let said: Value = serde_json::from_str(&answer)?;
        if said["result"].is_null() {
            return Err(format!("sandbox-agent: {method}: {answer}").into());
        }
        Ok(said["result"].clone())
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.following.abort();
        // Codex stays when its server is gone.
        end_processes_of(self.dir.path());
    }
}
