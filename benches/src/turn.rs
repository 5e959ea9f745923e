//! A turn of a real agent, Codex, on a whole server, beside the same agent under a client that does nothing but speak its protocol, and
//! behind a server that only relays it; and how long a stop takes while its model is answering.
//!
//! The model is the scripted one, in this process, which notes when a call arrives and when its last byte has gone: what lies before and
//! after it is the agent's and ours, and beside the bare client only ours.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use ambient_scripted_model::{Ending, ScriptedModel, Seen};
use ambient_tests::TestDatabase;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use crate::{
    Failure,
    interleave::{millis, percentile},
    rival::Rival,
    server::{Server, program, short_dir},
    subscribers::{Socket, connect, next_event},
    table::Table,
};

const KEY: &str = "key-of-the-endpoint";
const PROJECT: &str = "bench";
/// Of sessions.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TURNS: usize = 60;
const STOPS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(30);
/// What a turn may take longer with us, on each side of its model, milliseconds.
const ALLOWED: f64 = 15.0;
/// What a stop may take, milliseconds.
const STOP: f64 = 2_000.0;

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let agents = agents_dir();
    install(&agents).await?;
    let model = ScriptedModel::start(Some(KEY)).await?;
    let database = TestDatabase::new().await;
    let settings = [
        ("AMBIENT_OPENAI_URL", format!("{}/v1", model.url())),
        ("AMBIENT_OPENAI_KEY", KEY.to_owned()),
        ("AMBIENT_DEFAULT_MODEL", "scripted".to_owned()),
        ("AMBIENT_AGENTS_DIR", agents.to_string_lossy().into_owned()),
    ];
    let server = Server::start_with(&database.url(), PROJECT, &settings).await?;
    turns(table, &server, &model, &codex(&agents)?).await?;
    stops(table, &server, &model).await
}

/// Before and after the model's call.
#[derive(Default)]
struct Sides {
    before: Vec<f64>,
    after: Vec<f64>,
}

impl Sides {
    /// Notes a turn that was asked for and has ended at these times, with the newest call of the model.
    fn note(&mut self, model: &ScriptedModel, (asked, ended): (Instant, Instant)) -> Result<(), Failure> {
        let in_it = |call: &Seen| call.began > asked && call.began < ended && call.scenario == "hello";
        let call = model.seen().into_iter().rfind(in_it);
        let Seen { began, ended: over, .. } = call.ok_or("a turn without a call of its model")?;
        let over = over.ok_or("a turn that ended before its model's call")?;
        self.before.push(millis(began.duration_since(asked)));
        self.after.push(millis(ended.saturating_duration_since(over)));
        Ok(())
    }
}

async fn turns(table: &mut Table, server: &Server, model: &ScriptedModel, codex: &Path) -> Result<(), Failure> {
    let mut session = Session::start(server, json!({"interactive": true})).await?;
    let mut bare = Bare::start(model, codex).await?;
    let mut rival = Rival::start(model, codex).await?;
    let (mut ours, mut theirs, mut rivals) = (Sides::default(), Sides::default(), Sides::default());
    // The first of all opens connections.
    for turn in 0..=TURNS {
        let mut all = vec![(&mut ours, session.turn("SCENARIO=hello").await?)];
        all.push((&mut theirs, bare.turn("SCENARIO=hello").await?));
        if let Some(rival) = &mut rival {
            all.push((&mut rivals, rival.turn("SCENARIO=hello").await?));
        }
        for (sides, times) in all.into_iter().filter(|_| turn > 0) {
            sides.note(model, times)?;
        }
    }
    session.told.print(&ours);
    session.stop().await?;
    let sides = [
        ("turn: message sent -> model called", &ours.before, &theirs.before, &rivals.before),
        ("turn: model's last byte -> end of the turn at the client", &ours.after, &theirs.after, &rivals.after),
    ];
    for (figure, ours, theirs, rivals) in sides {
        let (ours, theirs) = (percentile(ours, 50), percentile(theirs, 50));
        let named = format!("{figure}, p50 of {TURNS}");
        table.compare(&*named, "ms", ours, theirs, "the same agent under a bare client");
        table.compare(format!("{figure}: ours alone"), "ms", ours - theirs, ALLOWED, "what it may be");
        if rival.is_some() {
            table.compare(named, "ms", ours, percentile(rivals, 50), "the same agent behind sandbox-agent");
        }
    }
    Ok(())
}

/// Events of a turn that show how far it is.
const STAGES: [&str; 5] = ["user.message", "message.accepted", "turn.started", "turn.result", "turn.ended"];

/// When they happened, by the clocks of server and runner, milliseconds after the turns were asked for.
#[derive(Default)]
struct Told([Vec<f64>; STAGES.len()]);

impl Told {
    fn note(&mut self, asked: DateTime<Utc>, event: &Value) {
        let Some(stage) = STAGES.iter().position(|stage| event["type"] == *stage) else { return };
        let at = event["at"].as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok());
        self.0[stage].extend(at.and_then(|at| (at - asked).to_std().ok()).map(millis));
    }

    /// Where the time goes, for whoever wants to shorten it.
    fn print(&self, sides: &Sides) {
        let stages = STAGES.iter().zip(&self.0).map(|(stage, times)| format!("{stage} {:.1}", percentile(times, 50)));
        let stages = stages.collect::<Vec<_>>().join(", ");
        let called = percentile(&sides.before, 50);
        eprintln!("bench: a turn, p50 in ms after the request: {stages}; the model called {called:.1}");
    }
}

/// From the request until the session is Stopped, which is when no process, socket, token or connection is left.
async fn stops(table: &mut Table, server: &Server, model: &ScriptedModel) -> Result<(), Failure> {
    let mut took = Vec::new();
    for _ in 0..STOPS {
        let before = model.seen().last().map_or(0, |call| call.number);
        let session = Session::start(server, json!({"interactive": true, "prompt": "SCENARIO=slow"})).await?;
        let is_open = |call: &Seen| call.number > before && call.scenario == "slow" && call.ending == Ending::Open;
        timeout(PATIENCE, model.until(|seen| seen.iter().any(is_open))).await?;
        took.push(millis(session.stop().await?));
        let is_over = |call: &Seen| call.ending != Ending::Open;
        timeout(PATIENCE, model.until(|seen| seen.iter().all(is_over))).await?;
    }
    for percent in [50, 99] {
        let figure = format!("stop of a session whose model is answering, p{percent} of {STOPS}");
        table.compare(figure, "ms", percentile(&took, percent), STOP, "what it may take");
    }
    Ok(())
}

/// A session whose log is watched.
struct Session<'a> {
    server: &'a Server,
    id: String,
    socket: Socket,
    asked: DateTime<Utc>,
    told: Told,
}

impl<'a> Session<'a> {
    async fn start(server: &'a Server, further: Value) -> Result<Self, Failure> {
        let mut body = json!({"project_id": PROJECT, "agent_type": "codex", "start": true});
        for (name, value) in further.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let session = server.ask(Method::POST, "/sessions", body).await?;
        let id = session["id"].as_str().ok_or("a session without id")?.to_owned();
        let subscribe = json!({"op": "subscribe", "id": "s", "channel": format!("session:{id}"), "after_seq": 0});
        let url = format!("ws://{}/api/ambient/v1/live", server.address);
        let socket = connect(&url, Some(&server.token), subscribe.to_string()).await?;
        let mut session = Self { server, id, socket, asked: Utc::now(), told: Told::default() };
        session.until(|event| event["data"]["phase"] == "Running").await?;
        Ok(session)
    }

    async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Result<(), Failure> {
        loop {
            let event: Value = serde_json::from_str(&next_event(&mut self.socket).await?)?;
            self.told.note(self.asked, &event);
            if fits(&event) {
                return Ok(());
            }
            if event["data"]["phase"] == "Failed" || event["data"]["outcome"] == "error" {
                return Err(format!("the session failed: {event}").into());
            }
        }
    }

    /// When it was asked for, and when its end was seen.
    async fn turn(&mut self, text: &str) -> Result<(Instant, Instant), Failure> {
        let asked = Instant::now();
        self.asked = Utc::now();
        self.server.ask(Method::POST, &format!("/sessions/{}/messages", self.id), json!({ "text": text })).await?;
        self.until(|event| event["type"] == "turn.ended").await?;
        Ok((asked, Instant::now()))
    }

    async fn stop(mut self) -> Result<Duration, Failure> {
        let asked = Instant::now();
        self.server.ask(Method::POST, &format!("/sessions/{}/stop", self.id), json!({})).await?;
        self.until(|event| event["data"]["phase"] == "Stopped").await?;
        Ok(asked.elapsed())
    }
}

/// The agent under a client that does nothing else.
struct Bare {
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    session: String,
    asked: u64,
    _child: Child,
    home: CodexHome,
}

/// Where Codex finds its settings.
pub(crate) struct CodexHome(TempDir);

impl CodexHome {
    pub(crate) fn new(model: &ScriptedModel) -> Result<Self, Failure> {
        let home = short_dir()?;
        let own = home.path().join(".codex");
        std::fs::create_dir(&own)?;
        let settings = format!(
            "model = \"scripted\"\nmodel_provider = \"bench\"\ncheck_for_update_on_startup = false\napproval_policy = \"untrusted\"\n\
             sandbox_mode = \"danger-full-access\"\n[analytics]\nenabled = false\n[model_providers.bench]\nname = \"Bench\"\n\
             base_url = \"{}/v1\"\nenv_key = \"OPENAI_API_KEY\"\nwire_api = \"responses\"\n",
            model.url()
        );
        std::fs::write(own.join("config.toml"), settings)?;
        Ok(Self(home))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// As a session's agent is told, and nothing else: where it finds certificates alone makes 20 ms of each turn.
    pub(crate) fn name_in(&self, command: &mut tokio::process::Command) {
        command.env_clear().env("HOME", self.path()).env("CODEX_HOME", self.path().join(".codex"));
        command.env("PATH", PATH).env("LANG", "C.UTF-8").env("TERM", "dumb").env("TMPDIR", self.path());
        command.env("OPENAI_API_KEY", KEY).env("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt");
    }
}

impl Bare {
    async fn start(model: &ScriptedModel, codex: &Path) -> Result<Self, Failure> {
        let home = CodexHome::new(model)?;
        let mut command = tokio::process::Command::new(codex);
        home.name_in(&mut command);
        command
            .kill_on_drop(true)
            .current_dir(home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take().ok_or("no input")?, child.stdout.take().ok_or("no output")?);
        let lines = BufReader::new(stdout).lines();
        let mut bare = Self { stdin, lines, session: String::new(), asked: 0, _child: child, home };
        bare.ask("initialize", json!({"protocolVersion": 1, "clientCapabilities": {}})).await?;
        let folder = bare.home.path().to_string_lossy().into_owned();
        let session = bare.ask("session/new", json!({"cwd": folder, "mcpServers": []})).await?;
        session["sessionId"].as_str().ok_or("a conversation without id")?.clone_into(&mut bare.session);
        Ok(bare)
    }

    async fn turn(&mut self, text: &str) -> Result<(Instant, Instant), Failure> {
        let asked = Instant::now();
        let prompt = json!({"sessionId": self.session, "prompt": [{"type": "text", "text": text}]});
        self.ask("session/prompt", prompt).await?;
        Ok((asked, Instant::now()))
    }

    async fn ask(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        self.asked += 1;
        let request = json!({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params});
        self.stdin.write_all(format!("{request}\n").as_bytes()).await?;
        loop {
            let line = timeout(PATIENCE, self.lines.next_line()).await??.ok_or("the agent has ended")?;
            let Ok(answer) = serde_json::from_str::<Value>(&line) else { continue };
            if answer["id"] == self.asked {
                return if answer["error"].is_null() { Ok(answer["result"].clone()) } else { Err(line.into()) };
            }
        }
    }
}

/// Where agents are installed; the script names a folder that stays.
fn agents_dir() -> PathBuf {
    let given = std::env::var_os("AMBIENT_TEST_AGENTS_DIR").map(PathBuf::from);
    given.unwrap_or_else(|| std::env::temp_dir().join("ambient-bench-agents"))
}

async fn install(agents: &Path) -> Result<(), Failure> {
    let (program, data, agents) = (program("ambient")?, short_dir()?, agents.to_owned());
    let install = tokio::task::spawn_blocking(move || {
        let mut install = Command::new(program);
        install.args(["agent-type", "install", "codex"]).env("AMBIENT_AGENTS_DIR", agents);
        install.env("AMBIENT_DATA_DIR", data.path()).env("AMBIENT_SERVER_CONFIG", "/dev/null").output()
    });
    let installed = install.await??;
    if installed.status.success() {
        return Ok(());
    }
    Err(format!("the agent cannot be installed: {}", String::from_utf8_lossy(&installed.stderr)).into())
}

/// The agent's program among those that are installed.
fn codex(agents: &Path) -> Result<PathBuf, Failure> {
    let scope = |folder: PathBuf| folder.join("node_modules/@zed-industries");
    let entries = std::fs::read_dir(agents)?.flatten().map(|entry| scope(entry.path()));
    let packages = entries.filter_map(|scope| std::fs::read_dir(scope).ok()).flat_map(Iterator::flatten);
    let mut programs = packages.map(|package| package.path().join("bin/codex-acp"));
    programs.find(|program| program.is_file()).ok_or_else(|| "codex-acp is not where it was installed".into())
}
