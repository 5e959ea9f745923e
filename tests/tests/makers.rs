//! Agents of several makers, each on a whole server with a model that follows a script, through all that a session does with one.
//!
//! They come from npm, are large and slow to start, and are tested by the suite `agents` (`make agents`), one at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{
    collections::HashSet,
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use ambient_scripted_model::{Ending, ScriptedModel, Seen};
use ambient_tests::TestDatabase;
use ambient_wire::runner_event::{
    Conversation, PermissionOutcome, RunnerEvent, ToolKind, TurnOutcome, TurnResult, UsageSource,
};
use serde_json::{Value, json};
use support::{
    Server,
    processes::{marked, nonces_of, signal},
    real_agents::{KEY, bare_server, folder, server},
    runner,
};

/// How long anything may take: some of them need half a minute to start when the machine is busy.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// An agent, and how it differs from others.
#[derive(Debug, Clone, Copy)]
struct Maker {
    agent: &'static str,
    /// A name that it takes for one of a model.
    model: &'static str,
    /// It edits files with patches or commands, which it need not ask for.
    patches: bool,
    /// It asks to run commands outside of its sandbox.
    escalates: bool,
    /// It names its records of a conversation by the minute in which that began, and empties them when it loads them within that minute.
    records_by_minute: bool,
}

impl Maker {
    fn of(agent: &'static str) -> Self {
        Self { agent, model: "scripted", patches: false, escalates: false, records_by_minute: false }
    }
}

/// A session of an agent.
struct World {
    maker: Maker,
    model: ScriptedModel,
    server: Server,
    id: String,
    /// Turns that were begun.
    turns: usize,
    /// The minute in which the conversation began, at the latest.
    minute: u64,
    _database: TestDatabase,
}

impl World {
    async fn new(maker: Maker) -> Self {
        let (database, model) = (TestDatabase::new().await, ScriptedModel::start(Some(KEY)).await.unwrap());
        let server = server(&database, &model, maker.agent, maker.model).await;
        // Whatever they want of others than the model, they do not get, and it is told.
        let body = json!({ "project_id": "agents", "agent_type": maker.agent, "network": { "mode": "none" } });
        let session = server.post("/sessions", body).await.expect(201);
        let id = session["id"].as_str().unwrap().to_owned();
        Self { maker, model, server, id, turns: 0, minute: 0, _database: database }
    }

    /// Asks until there is an answer.
    async fn soon<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            if Instant::now() > deadline {
                panic!("{}: not within {PATIENCE:?}: {what}: {:#?}", self.maker.agent, self.told().await);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn path(&self, rest: &str) -> String {
        format!("/sessions/{}/{rest}", self.id)
    }

    fn in_workspace(&self, name: &str) -> std::path::PathBuf {
        self.server.session_dir(&self.id).join("workspace").join(name)
    }

    async fn told(&self) -> Vec<RunnerEvent> {
        let events = self.server.events(&self.id).await;
        events.iter().filter_map(|event| RunnerEvent::read(&event["data"])).collect()
    }

    /// For the scripted model.
    fn scenario(&self, text: &str) -> String {
        if self.maker.escalates { format!("ESCALATE=1 {text}") } else { text.to_owned() }
    }

    async fn start(&mut self, prompt: &str) {
        self.turns += 1;
        self.server.post(&self.path("start"), json!({ "prompt": self.scenario(prompt) })).await.expect(202);
    }

    async fn say(&mut self, text: &str) {
        self.turns += 1;
        self.server.post(&self.path("messages"), json!({ "text": self.scenario(text) })).await.expect(201);
    }

    /// How its newest process came by what was said before.
    async fn conversation(&self) -> Option<Conversation> {
        self.told().await.iter().rev().find_map(|event| match event {
            RunnerEvent::AgentStarted { conversation, .. } => Some(*conversation),
            _ => None,
        })
    }

    /// How the newest turn ended, if it has.
    async fn ended(&self) -> Option<TurnResult> {
        runner::ended(&self.server.events(&self.id).await).into_iter().nth(self.turns - 1)
    }

    async fn waiting(&self) -> Option<Value> {
        let open = self.server.get(&self.path("interrupts")).await.expect(200);
        open["items"].as_array().unwrap().iter().find(|request| request["status"] == "waiting").cloned()
    }

    /// What it asks next.
    async fn asked(&self) -> Value {
        self.soon("it asks", async || self.waiting().await).await
    }

    async fn answer(&self, request: &Value, answer: Value) {
        let path = self.path(&format!("interrupts/{}", request["id"].as_str().unwrap()));
        self.server.post(&path, answer).await.expect(200);
    }

    /// Answers whatever it asks until the newest turn has ended: the turn's end, and what was asked.
    async fn answer_until_ended(&self, answer: Value) -> (TurnResult, Vec<Value>) {
        let mut asked: Vec<Value> = Vec::new();
        let result = self
            .soon("the turn ends", async || {
                if let Some(request) = self.waiting().await {
                    let path = self.path(&format!("interrupts/{}", request["id"].as_str().unwrap()));
                    // It may have ended meanwhile.
                    if self.server.post(&path, answer.clone()).await.status == 200 {
                        asked.push(request);
                    }
                }
                self.ended().await
            })
            .await;
        (result, asked)
    }

    async fn finished(&self, answer: Value) -> Vec<Value> {
        let (result, asked) = self.answer_until_ended(answer).await;
        assert_eq!(result.outcome, TurnOutcome::Finished, "{result:?} {:#?}", self.told().await);
        asked
    }

    /// A turn in which the model says something without end; it has begun to.
    async fn say_something_long(&mut self) {
        let before = self.slow_calls(Ending::Open);
        self.say("SCENARIO=slow COUNT=6000").await;
        self.soon("the model is asked", async || (self.slow_calls(Ending::Open) > before).then_some(())).await;
        self.soon("the text is there", async || {
            let events = self.server.events(&self.id).await;
            let begun = events.iter().rposition(|event| event["type"] == "turn.started")?;
            events[begun..].iter().any(|event| event["type"] == "agent.text").then_some(())
        })
        .await;
    }

    fn slow_calls(&self, ending: Ending) -> usize {
        self.model.seen().iter().filter(|call| call.scenario == "slow" && call.ending == ending).count()
    }

    async fn no_call_is_open(&self) {
        let open = |calls: &[Seen]| calls.iter().any(|call| call.ending == Ending::Open);
        self.soon("the model's connections are closed", async || (!open(&self.model.seen())).then_some(())).await;
    }

    async fn phase(&self, phase: &str) {
        self.soon(phase, async || {
            let session = self.server.get(&format!("/sessions/{}", self.id)).await.expect(200);
            assert_ne!(session["phase"], "Failed", "{session:#}");
            (session["phase"] == phase).then_some(())
        })
        .await;
    }

    fn nonces(&self) -> HashSet<String> {
        nonces_of(&self.server.session_dir(&self.id))
    }

    /// The agent's own processes, oldest first: their program or a word of theirs is where agents are installed.
    fn processes(&self) -> Vec<u32> {
        let place = folder().to_string_lossy().into_owned();
        let mut all: Vec<u32> = marked(&self.nonces())
            .into_iter()
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.split(|byte| *byte == 0).take(2).any(|word| String::from_utf8_lossy(word).starts_with(&place))
            })
            .collect();
        all.sort_unstable();
        all
    }

    async fn stop(&self) {
        let nonces = self.nonces();
        assert!(!marked(&nonces).is_empty());
        self.server.post(&self.path("stop"), json!({})).await.expect(202);
        self.phase("Stopped").await;
        assert_eq!(marked(&nonces), Vec::<u32>::new(), "no process is left");
        self.no_call_is_open().await;
    }

    /// The key is in no file of the session, no process, and nothing that was told.
    async fn the_key_is_nowhere(&self) {
        for pid in marked(&self.nonces()) {
            for file in ["environ", "cmdline"] {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                assert!(!holds_the_key(&text), "{file} of {pid}");
            }
        }
        for folder in ["workspace", "home", "tmp"] {
            search(&self.server.session_dir(&self.id).join(folder));
        }
        let events = self.server.events(&self.id).await;
        assert!(!holds_the_key(serde_json::to_string(&events).unwrap().as_bytes()));
    }
}

fn holds_the_key(text: &[u8]) -> bool {
    text.windows(KEY.len()).any(|window| window == KEY.as_bytes())
}

fn search(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (kind, path) = (entry.file_type().unwrap(), entry.path());
        if kind.is_dir() {
            search(&path);
        } else if kind.is_file() {
            assert!(!holds_the_key(&fs::read(&path).unwrap_or_default()), "{}", path.display());
        }
    }
}

/// Of the clock.
fn minute() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 60
}

fn once() -> Value {
    json!({ "answer": "once" })
}

/// All that a session does with an agent.
async fn everything(maker: Maker) {
    let mut world = World::new(maker).await;
    edits(&mut world).await;
    answers(&mut world).await;
    interrupts(&mut world).await;
    is_lost(&mut world).await;
    stops_and_loads(&mut world).await;
    let refused: Vec<RunnerEvent> = world.told().await.into_iter().filter(is_refusal).collect();
    assert!(refused.is_empty(), "they ask nobody but the model: {refused:#?}");
    world.server.verified().await;
}

/// New, prompt, edit, "once".
async fn edits(world: &mut World) {
    // The tools of some want whole names of files, those of others none.
    let folder = world.server.session_dir(&world.id).join("workspace");
    let named = if world.maker.patches { String::new() } else { format!(" CWD={}", folder.display()) };
    world.start(&format!("SCENARIO=edit{named}")).await;
    let asked = world.finished(once()).await;
    assert_eq!(fs::read_to_string(world.in_workspace("notes.txt")).unwrap(), "one\nTWO\n");
    assert_eq!(fs::read_to_string(world.in_workspace("shell.txt")).unwrap(), "from-shell\n");
    let of = |tool: &str| asked.iter().filter(|request| request["tool"] == tool).count();
    assert!(of("execute") >= 1 && (of("edit") >= 1 || world.maker.patches), "{asked:#?}");
    let says = |request: &Value| request["command"].as_str().is_some_and(|command| command.contains("echo from-shell"));
    assert_eq!(asked.iter().filter(|request| says(request)).count(), 1, "{asked:#?}");
    let told = world.told().await;
    let metered = |event: &&RunnerEvent| matches!(event, RunnerEvent::Usage { source: UsageSource::Proxy, .. });
    assert!(told.iter().filter(metered).count() >= 5, "each call is metered: {told:#?}");
    let usage = world.server.get(&world.path("usage")).await.expect(200);
    assert!(usage["total"]["input_tokens"].as_u64().unwrap() > 0, "{usage:#}");
    assert!(
        world.model.seen().iter().all(|call| call.headers.values().any(|value| value.ends_with(KEY))),
        "the key is the server's"
    );
    assert_eq!(world.conversation().await, Some(Conversation::New));
    world.the_key_is_nowhere().await;
    world.minute = minute();
}

/// "Always", "reject", "reject" with a message.
async fn answers(world: &mut World) {
    let touch = |name: &str| format!("SCENARIO=shell COMMAND=touch {name}");
    world.say(&touch("always.txt")).await;
    assert_eq!(world.finished(json!({ "answer": "always" })).await.len(), 1);
    // The runner is told of the rule, which takes a moment.
    for round in 1.. {
        fs::remove_file(world.in_workspace("always.txt")).unwrap();
        world.say(&touch("always.txt")).await;
        let asked = world.finished(once()).await;
        assert!(world.in_workspace("always.txt").exists());
        if asked.is_empty() {
            break;
        }
        assert!(round < 5, "it need not ask again: {asked:#?}");
    }
    let by_rule = |event: &RunnerEvent| matches!(event, RunnerEvent::PermissionDecided { allowed: true, .. });
    assert!(world.told().await.iter().any(by_rule), "{:#?}", world.told().await);

    world.say(&touch("rejected.txt")).await;
    let (result, asked) = world.answer_until_ended(json!({ "answer": "reject" })).await;
    assert!(!asked.is_empty() && result.outcome == TurnOutcome::Finished, "{result:?} {asked:#?}");
    assert!(!world.in_workspace("rejected.txt").exists());

    world.say(&touch("refused.txt")).await;
    let request = world.asked().await;
    // Told as the next message.
    world.turns += 1;
    world.answer(&request, json!({ "answer": "reject", "message": world.scenario(&touch("instead.txt")) })).await;
    world.finished(once()).await;
    assert!(!world.in_workspace("refused.txt").exists());
    assert!(world.in_workspace("instead.txt").exists());
}

/// Cancel: while the model speaks, and while a request waits; each time the same process works on.
async fn interrupts(world: &mut World) {
    let processes = world.processes();
    world.say_something_long().await;
    world.server.post(&world.path("agui/interrupt"), json!({})).await.expect(204);
    let (result, _) = world.answer_until_ended(once()).await;
    assert_eq!(result.outcome, TurnOutcome::Interrupted, "{result:?}");
    world.no_call_is_open().await;
    assert_eq!(world.slow_calls(Ending::Done), 0);

    world.say("SCENARIO=shell COMMAND=touch cancelled.txt").await;
    world.asked().await;
    world.server.post(&world.path("agui/interrupt"), json!({})).await.expect(204);
    let result = world.soon("the turn is interrupted", async || world.ended().await).await;
    assert_eq!(result.outcome, TurnOutcome::Interrupted, "{result:?}");
    let closed = |event: &RunnerEvent| {
        matches!(event, RunnerEvent::PermissionClosed { outcome: PermissionOutcome::Cancelled, .. })
    };
    assert!(world.told().await.iter().any(closed));

    world.say("SCENARIO=hello").await;
    world.finished(once()).await;
    assert!(!world.in_workspace("cancelled.txt").exists());
    assert_eq!(world.processes().first(), processes.first(), "it was not ended for that: {:#?}", world.told().await);
}

/// `kill -9` of its process: told, and the next message works, in the conversation as it was.
async fn is_lost(world: &mut World) {
    while world.maker.records_by_minute && minute() == world.minute {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    world.say_something_long().await;
    signal(*world.processes().first().expect("it runs"), "KILL");
    let result = world.soon("the turn ends", async || world.ended().await).await;
    assert_eq!((result.outcome, result.code.as_deref()), (TurnOutcome::Error, Some("AgentLost")), "{result:?}");
    world.no_call_is_open().await;
    world.say("SCENARIO=hello").await;
    world.finished(once()).await;
    assert_eq!(world.conversation().await, Some(Conversation::Loaded), "{:#?}", world.told().await);
}

/// Stop with proof, in the middle of a model call; start, with the conversation as it was.
async fn stops_and_loads(world: &mut World) {
    world.say_something_long().await;
    world.stop().await;
    assert!(world.slow_calls(Ending::ClosedByClient) >= 3);
    let calls = world.model.seen().len();
    // The turn that was stopped has ended.
    world.start("SCENARIO=hello again").await;
    world.finished(once()).await;
    assert_eq!(world.conversation().await, Some(Conversation::Loaded), "{:#?}", world.told().await);
    let knows = |call: &Seen| {
        let body = call.body.to_string();
        body.contains("SCENARIO=hello again") && body.contains("SCENARIO=edit")
    };
    assert!(world.model.seen()[calls..].iter().any(knows), "the model is told what was said before");
    let kinds: Vec<ToolKind> = world.told().await.iter().filter_map(kind).collect();
    assert!(
        (kinds.contains(&ToolKind::Edit) || world.maker.patches) && kinds.contains(&ToolKind::Execute),
        "{kinds:?}"
    );
    world.the_key_is_nowhere().await;
    world.stop().await;
}

fn is_refusal(event: &RunnerEvent) -> bool {
    matches!(event, RunnerEvent::NetworkRefused { .. })
}

fn kind(event: &RunnerEvent) -> Option<ToolKind> {
    match event {
        RunnerEvent::ToolStarted { kind, .. } => Some(*kind),
        _ => None,
    }
}

#[tokio::test]
#[ignore = "takes an agent from npm, and a minute: make agents"]
async fn gemini() {
    everything(Maker { model: "gemini-2.5-flash", records_by_minute: true, ..Maker::of("gemini") }).await;
}

#[tokio::test]
#[ignore = "takes an agent from npm, and a minute: make agents"]
async fn opencode() {
    everything(Maker::of("opencode")).await;
}

#[tokio::test]
#[ignore = "takes an agent from npm, and a minute: make agents"]
async fn claude() {
    everything(Maker::of("claude")).await;
}

#[tokio::test]
#[ignore = "takes an agent from npm, and a minute: by hand"]
async fn codex() {
    everything(Maker { patches: true, ..Maker::of("codex") }).await;
}

#[tokio::test]
#[ignore = "takes an agent from npm, and a minute: by hand"]
async fn codex_2() {
    everything(Maker { patches: true, escalates: true, ..Maker::of("codex-2") }).await;
}

#[tokio::test]
#[ignore = "takes an agent from npm, and a minute: by hand"]
async fn qwen() {
    everything(Maker::of("qwen")).await;
}

#[tokio::test]
#[ignore = "takes an agent from npm, and a minute: by hand"]
async fn copilot() {
    everything(Maker::of("copilot")).await;
}

/// Without the server's model endpoint: with a key, an endpoint and a model of the session's own.
async fn with_a_key_of_its_own(maker: Maker, key: &str, url: &str, path: &str) {
    let (database, model) = (TestDatabase::new().await, ScriptedModel::start(Some(KEY)).await.unwrap());
    let server = bare_server(&database, maker.agent).await;
    let body = json!({ "project_id": "agents", "agent_type": maker.agent, "llm_model": maker.model, "prompt": "SCENARIO=hello",
        "environment_variables": { key: KEY, url: format!("{}{path}", model.url()) } });
    let id = server.session(body).await;
    let deadline = Instant::now() + PATIENCE;
    let result = loop {
        let events = server.events(&id).await;
        if let Some(result) = runner::ended(&events).first().cloned() {
            assert!(!holds_the_key(serde_json::to_string(&events).unwrap().as_bytes()));
            break result;
        }
        assert!(Instant::now() < deadline, "{}: {events:#?}", maker.agent);
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    assert_eq!(result.outcome, TurnOutcome::Finished, "{result:?} {:#?}", server.events(&id).await);
    assert!(model.seen().iter().any(|call| call.scenario == "hello" && call.ending == Ending::Done));
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
}

#[tokio::test]
#[ignore = "takes agents from npm, and a minute: make agents"]
async fn keys_of_sessions() {
    let gemini = Maker { model: "gemini-2.5-flash", ..Maker::of("gemini") };
    with_a_key_of_its_own(gemini, "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "").await;
    with_a_key_of_its_own(Maker::of("claude"), "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "").await;
    with_a_key_of_its_own(Maker::of("opencode"), "OPENAI_API_KEY", "OPENAI_BASE_URL", "/v1").await;
}

#[tokio::test]
#[ignore = "takes agents from npm, and a minute: by hand"]
async fn keys_of_other_sessions() {
    with_a_key_of_its_own(Maker::of("codex-2"), "OPENAI_API_KEY", "OPENAI_BASE_URL", "/v1").await;
    with_a_key_of_its_own(Maker::of("qwen"), "OPENAI_API_KEY", "OPENAI_BASE_URL", "/v1").await;
    with_a_key_of_its_own(Maker::of("copilot"), "COPILOT_PROVIDER_API_KEY", "COPILOT_PROVIDER_BASE_URL", "/v1").await;
}
