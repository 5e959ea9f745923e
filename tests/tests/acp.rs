//! `ambient acp` on a whole server, with an editor that is a few lines of JSON-RPC, and with the protocol's own client: whatever ends meanwhile,
//! everything is told once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{collections::VecDeque, process::Stdio, time::Duration};

use agent_client_protocol::{
    Agent, Client, Lines, on_receive_notification,
    schema::ProtocolVersion,
    v1::{ConnectionTo, schema as acp},
};
use ambient_tests::TestDatabase;
use futures::StreamExt;
use serde_json::{Value, json};
use support::{
    PATIENCE, Server, binary, clean_command, eventually,
    fake_agent::{asked, server},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines as InputLines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

fn command(url: &str, token: &str, arguments: &[&str]) -> Command {
    let mut command = clean_command(binary("ambient"));
    command.arg("acp").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("AMBIENT_URL", url).env("AMBIENT_TOKEN", token).env("AMBIENT_PROJECT", "agents");
    command.env("AMBIENT_CONFIG", "/dev/null");
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command
}

fn on(server: &Server, arguments: &[&str]) -> Command {
    command(&format!("http://{}", server.address()), &server.token(), arguments)
}

fn fake_agent() -> [String; 2] {
    ["--agent-command".to_owned(), format!("{} for-tests", binary("ambient-fake-agent").display())]
}

/// An editor: knows nothing of the protocol but its lines.
struct Editor {
    process: Child,
    input: ChildStdin,
    output: InputLines<BufReader<ChildStdout>>,
    next: u64,
    /// Arrived while something else was waited for.
    kept: VecDeque<Value>,
    /// Updates so far.
    updates: Vec<Value>,
}

impl Editor {
    async fn start(mut command: Command) -> Self {
        let mut process = command.spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let output = BufReader::new(output).lines();
        let mut editor = Self { process, input, output, next: 0, kept: VecDeque::new(), updates: Vec::new() };
        let client = json!({ "protocolVersion": 1, "clientCapabilities": {} });
        let initialized = editor.call("initialize", client).await;
        assert_eq!(initialized["result"]["protocolVersion"], 1);
        assert_eq!(initialized["result"]["agentCapabilities"]["loadSession"], true);
        assert_eq!(initialized["result"]["authMethods"], json!([]));
        editor
    }

    async fn write(&mut self, message: Value) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn send(&mut self, method: &str, params: Value) -> u64 {
        self.next += 1;
        let id = self.next;
        self.write(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        id
    }

    /// The next message that fits; updates and what does not fit are kept.
    async fn message(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.kept.iter().position(&fits) {
            return self.kept.remove(place).unwrap();
        }
        loop {
            let line = timeout(PATIENCE, self.output.next_line()).await.expect("nothing in time").unwrap();
            let message: Value = serde_json::from_str(&line.expect("it ended")).expect("only the protocol");
            if message["method"] == "session/update" {
                self.updates.push(message["params"]["update"].clone());
            }
            if fits(&message) {
                return message;
            }
            if message["method"] != "session/update" {
                self.kept.push_back(message);
            }
        }
    }

    async fn answer(&mut self, id: u64) -> Value {
        self.message(|message| message["id"] == id && message["method"].is_null()).await
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params).await;
        self.answer(id).await
    }

    async fn new_session(&mut self) -> String {
        let made = self.call("session/new", json!({ "cwd": "/", "mcpServers": [] })).await;
        made["result"]["sessionId"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    async fn prompt(&mut self, session: &str, text: &str) -> u64 {
        let prompt = json!([{ "type": "text", "text": text }]);
        self.send("session/prompt", json!({ "sessionId": session, "prompt": prompt })).await
    }

    async fn cancel(&mut self, session: &str) {
        self.write(json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": session } })).await;
    }

    async fn question(&mut self) -> Value {
        self.message(|message| message["method"] == "session/request_permission").await
    }

    async fn choose(&mut self, question: &Value, option: &str) {
        let outcome = json!({ "outcome": { "outcome": "selected", "optionId": option } });
        self.write(json!({ "jsonrpc": "2.0", "id": question["id"], "result": outcome })).await;
    }

    /// Waits until the agent has said this.
    async fn hears(&mut self, text: &str) {
        while !said(&self.updates).contains(text) {
            self.message(|message| message["method"] == "session/update").await;
        }
    }

    /// Closes its end; what the command says at its end.
    async fn end(self) -> String {
        drop(self.input);
        let output = timeout(PATIENCE, self.process.wait_with_output()).await.expect("it does not end").unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }
}

/// All that the agent has said.
fn said(updates: &[Value]) -> String {
    texts(updates, "agent_message_chunk")
}

fn texts(updates: &[Value], kind: &str) -> String {
    updates
        .iter()
        .filter(|one| one["sessionUpdate"] == kind)
        .filter_map(|one| one["content"]["text"].as_str())
        .collect()
}

fn arguments(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn an_editor_works_in_a_session_which_stays_when_the_editor_ends() {
    let database = TestDatabase::new().await;
    let server = server(&database).await;
    let mut editor = Editor::start(on(&server, &arguments(&fake_agent()))).await;
    let id = editor.new_session().await;
    let prompt = editor.prompt(&id, "think so\nsay hello\ntool c1 make\ndone c1 fine\ndiff c2 a.txt\nplan count").await;
    assert_eq!(editor.answer(prompt).await["result"]["stopReason"], "end_turn");
    let kinds: Vec<&str> = editor.updates.iter().map(|one| one["sessionUpdate"].as_str().unwrap()).collect();
    let expected = ["agent_thought_chunk", "agent_message_chunk", "tool_call", "tool_call_update", "tool_call", "plan"];
    assert_eq!(kinds, expected);
    assert_eq!(editor.updates[3]["status"], "completed");
    assert_eq!(editor.updates[4]["content"][0], json!({ "type": "diff", "path": "a.txt", "newText": "new\n" }));

    // It asks, and is answered in the editor.
    let prompt = editor.prompt(&id, "ask c3 rm -r build").await;
    let question = editor.question().await;
    assert_eq!(question["params"]["toolCall"]["rawInput"]["command"], "rm -r build");
    let kinds: Vec<&str> =
        question["params"]["options"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["allow_once", "allow_always", "reject_once"]);
    editor.choose(&question, "reject").await;
    assert_eq!(editor.answer(prompt).await["result"]["stopReason"], "end_turn");
    assert!(said(&editor.updates).ends_with("answer c3: selected opt-reject_once"), "{}", said(&editor.updates));

    // It asks, and is answered elsewhere: the request is withdrawn, and the editor's late answer is no error.
    let prompt = editor.prompt(&id, "ask c4 ls").await;
    let question = editor.question().await;
    let path = format!("/sessions/{id}/interrupts/{}", asked(&server, &id).await);
    server.post(&path, json!({ "answer": "once" })).await.expect(200);
    let withdrawn = editor.message(|message| message["method"] == "$/cancel_request").await;
    assert_eq!(withdrawn["params"]["requestId"], question["id"]);
    editor.choose(&question, "reject").await;
    assert_eq!(editor.answer(prompt).await["result"]["stopReason"], "end_turn");
    assert!(said(&editor.updates).ends_with("answer c4: selected opt-allow_once"));

    // What the editor cancels ends, while it works and while it asks; so does what only waits for its turn.
    for work in ["say now\nhang", "say then\nask c5 ls"] {
        let first = editor.prompt(&id, work).await;
        let second = editor.prompt(&id, "hang").await;
        editor.hears(&work[4..work.find('\n').unwrap()]).await;
        editor.cancel(&id).await;
        for prompt in [first, second] {
            assert_eq!(editor.answer(prompt).await["result"]["stopReason"], "cancelled");
        }
    }
    let failed = editor.prompt(&id, "fail no model").await;
    let failed = editor.answer(failed).await;
    assert!(failed["error"]["message"].as_str().unwrap().contains("no model"), "{failed}");
    let image = json!([{ "type": "image", "mimeType": "image/png", "data": "" }]);
    let refused = editor.call("session/prompt", json!({ "sessionId": id, "prompt": image })).await;
    assert_eq!(refused["error"], json!({ "code": -32602, "message": "images cannot be sent yet" }));

    let told = editor.end().await;
    assert!(told.contains(&format!("stays; go on with 'ambient chat --session {id}'")), "{told}");
    assert_eq!(server.get(&format!("/sessions/{id}")).await.expect(200)["phase"], "Running");
    server.verified().await;
}

#[tokio::test]
async fn a_session_is_loaded_after_the_command_was_killed_and_after_it_was_stopped() {
    let database = TestDatabase::new().await;
    let server = server(&database).await;
    let mut first = Editor::start(on(&server, &arguments(&fake_agent()))).await;
    let id = first.new_session().await;
    let prompt = first.prompt(&id, "say one\ntool c1 make\ndone c1 fine").await;
    first.answer(prompt).await;
    first.prompt(&id, "ask c2 ls").await;
    let question = first.question().await;
    first.process.start_kill().unwrap();

    // Another one finds it. All of it is told again before the answer, and what still waits is asked again.
    let mut second = Editor::start(on(&server, &[])).await;
    let listed = second.call("session/list", json!({ "cwd": "/work" })).await;
    let listed = &listed["result"]["sessions"];
    assert_eq!((&listed[0]["sessionId"], &listed[0]["cwd"]), (&json!(id), &json!("/work")), "{listed}");
    let load = json!({ "sessionId": id, "cwd": "/", "mcpServers": [] });
    assert!(second.call("session/load", load.clone()).await["result"].is_object());
    assert_eq!(texts(&second.updates, "user_message_chunk"), "say one\ntool c1 make\ndone c1 fineask c2 ls");
    assert_eq!(said(&second.updates), "one");
    assert!(second.updates.iter().any(|one| one["toolCallId"] == "c1" && one["status"] == "completed"));
    let again = second.question().await;
    assert_eq!(again["params"], question["params"]);
    second.choose(&again, "once").await;
    second.hears("answer c2: selected opt-allow_once").await;

    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    assert!(second.call("session/load", load).await["result"].is_object());
    let prompt = second.prompt(&id, "say two").await;
    assert_eq!(second.answer(prompt).await["result"]["stopReason"], "end_turn");
    assert!(said(&second.updates).ends_with("two"));

    // Another command attaches to it, by its name.
    let mut third = Editor::start(on(&server, &["--session", &id])).await;
    assert_eq!(third.new_session().await, id);
    third.hears("two").await;
    let absent = json!({ "sessionId": "none", "cwd": "/", "mcpServers": [] });
    let absent = third.call("session/load", absent).await;
    assert!(absent["error"]["message"].as_str().unwrap().contains("no session 'none'"), "{absent}");
    server.verified().await;
}

#[tokio::test]
async fn a_server_that_is_killed_in_a_turn_costs_nothing_and_nothing_is_told_twice() {
    let database = TestDatabase::new().await;
    let mut server = server(&database).await;
    let mut editor = Editor::start(on(&server, &arguments(&fake_agent()))).await;
    let id = editor.new_session().await;
    let prompt = editor.prompt(&id, "say a\nsleep 1500\nsay b\nask c1 ls\nsay c\nchunks 200").await;
    editor.hears("a").await;
    server.kill();
    server.restart().await;
    let question = editor.question().await;
    // Its answer is given while there is no server, and reaches the next one.
    server.kill();
    editor.choose(&question, "once").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.restart().await;
    editor.hears("opt-allow_oncec").await;
    server.kill();
    server.restart().await;
    assert_eq!(editor.answer(prompt).await["result"]["stopReason"], "end_turn");
    let chunks: String = (0..200).map(|n| format!("{n} ")).collect();
    assert_eq!(said(&editor.updates), format!("abanswer c1: selected opt-allow_oncec{chunks}"));
    let told = editor.end().await;
    assert!(told.contains("connection lost") && told.contains("connection is back"), "{told}");
    server.verified().await;
}

#[tokio::test]
async fn what_is_wrong_is_told_in_words() {
    let unreachable = || command("http://127.0.0.1:1", "token", &[]);
    let mut editor = Editor::start(unreachable()).await;
    let new = json!({ "cwd": "/", "mcpServers": [] });
    let refused = editor.call("session/new", new.clone()).await;
    assert!(refused["error"]["message"].as_str().unwrap().starts_with("cannot reach the server"), "{refused}");
    let told = editor.end().await;
    assert!(told.contains("error: cannot reach the server"), "{told}");

    for (variable, value, words) in [("AMBIENT_PROJECT", "", "no project"), ("AMBIENT_URL", "ftp://x", "AMBIENT_URL")] {
        let mut command = unreachable();
        if value.is_empty() {
            command.env_remove(variable)
        } else {
            command.env(variable, value)
        };
        let mut editor = Editor::start(command).await;
        let refused = editor.call("session/new", new.clone()).await;
        assert!(refused["error"]["message"].as_str().unwrap().contains(words), "{refused}");
        editor.write(json!("noise")).await;
        let unknown = editor.call("session/none", json!({})).await;
        assert_eq!(unknown["error"]["code"], -32601, "{unknown}");
    }
}

#[tokio::test]
async fn the_protocols_own_client_understands_it() {
    let database = TestDatabase::new().await;
    let server = server(&database).await;
    let mut process = on(&server, &arguments(&fake_agent())).spawn().unwrap();
    let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
    let outgoing = futures::sink::unfold(input, async |mut input: ChildStdin, line: String| {
        input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok::<_, std::io::Error>(input)
    });
    let incoming = futures::stream::unfold(BufReader::new(output).lines(), async |mut lines| {
        let line = lines.next_line().await.transpose()?;
        Some((line, lines))
    });
    let (updates, mut told) = tokio::sync::mpsc::channel(100);
    let spoken = Client
        .v1()
        .on_receive_notification(
            async move |update: acp::SessionNotification, _| {
                updates.send(update.update).await.unwrap();
                Ok(())
            },
            on_receive_notification!(),
        )
        .connect_with(Lines::new(Box::pin(outgoing), incoming.boxed()), async |agent: ConnectionTo<Agent>| {
            agent.send_request(acp::InitializeRequest::new(ProtocolVersion::V1)).block_task().await?;
            let new = agent.send_request(acp::NewSessionRequest::new("/")).block_task().await?;
            let prompt = acp::PromptRequest::new(new.session_id, vec!["say hello\nstop max_tokens".into()]);
            agent.send_request(prompt).block_task().await
        });
    let ended = timeout(PATIENCE, spoken).await.unwrap().unwrap();
    assert_eq!(ended.stop_reason, acp::StopReason::MaxTokens);
    let Some(acp::SessionUpdate::AgentMessageChunk(chunk)) = told.recv().await else { panic!("no text") };
    assert_eq!(chunk.content, acp::ContentBlock::from("hello"));
    let ended = eventually("the command ends", async || process.try_wait().unwrap()).await;
    assert!(ended.success());
}
