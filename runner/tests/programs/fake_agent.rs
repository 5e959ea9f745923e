//! An agent for tests: it speaks the Agent Client Protocol, and does what the lines of a message tell it to, good or bad.
//!
//! `FAKE_AGENT` is a list of words: `no-load`, `load-fails`, `no-init`, `wrong-version`, `auth`, `dies-at-new`, `noise`, `stays` (does not end when its input does).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test program")]

use std::{
    collections::HashMap,
    io::{BufRead, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
        mpsc,
    },
    time::Duration,
};

use serde_json::{Value, json};

#[derive(Clone)]
struct Agent {
    next: Arc<AtomicI64>,
    waiting: Arc<Mutex<HashMap<i64, mpsc::Sender<Value>>>>,
    cancelled: Arc<AtomicBool>,
    session: Arc<Mutex<String>>,
}

fn main() {
    let agent =
        Agent { next: Arc::default(), waiting: Arc::default(), cancelled: Arc::default(), session: Arc::default() };
    if is("noise") {
        write("Loading model… done");
        write("{\"progress\":");
    }
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        agent.take(&message);
    }
    while is("stays") {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn is(word: &str) -> bool {
    std::env::var("FAKE_AGENT").unwrap_or_default().split(',').any(|one| one == word)
}

fn write(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

fn memory(session: &str) -> PathBuf {
    PathBuf::from(std::env::var("HOME").unwrap()).join(format!(".fake-{session}"))
}

impl Agent {
    fn take(&self, message: &Value) {
        let id = message["id"].clone();
        match message["method"].as_str() {
            None => {
                let sender = id.as_i64().and_then(|id| self.waiting.lock().unwrap().remove(&id));
                if let Some(sender) = sender {
                    let _ = sender.send(message.clone());
                }
            }
            Some("initialize") if is("no-init") => {}
            Some("initialize") => self.answer(
                &id,
                &json!({
                    "protocolVersion": if is("wrong-version") { 2 } else { 1 },
                    "agentCapabilities": { "loadSession": !is("no-load"), "mcpCapabilities": { "http": true },
                        "promptCapabilities": { "image": true, "embeddedContext": true } },
                    "agentInfo": { "name": "fake", "version": "1.0" },
                    "authMethods": [{ "id": "key", "name": "An API key" }],
                }),
            ),
            Some("session/new") if is("auth") => self.fail(&id, -32000, "Authentication required"),
            Some("session/new") if is("dies-at-new") => {
                eprintln!("no model is configured");
                std::process::exit(9);
            }
            Some("session/new") => {
                let session = format!("conversation-{}", std::process::id());
                std::fs::write(memory(&session), "").unwrap();
                std::fs::write(memory("mcp"), message["params"]["mcpServers"].to_string()).unwrap();
                session.clone_into(&mut self.session.lock().unwrap());
                self.answer(
                    &id,
                    &json!({ "sessionId": session, "modes": { "currentModeId": "ask", "availableModes": [
                    { "id": "ask", "name": "Ask" }, { "id": "code", "name": "Code" }] } }),
                );
            }
            Some("session/load") => self.load(&id, message["params"]["sessionId"].as_str().unwrap()),
            Some("session/set_mode") => match message["params"]["modeId"].as_str().unwrap() {
                "ask" | "code" => self.answer(&id, &json!({})),
                other => self.fail(&id, -32602, &format!("no mode {other}")),
            },
            Some("session/cancel") => self.cancelled.store(true, Ordering::SeqCst),
            Some("session/prompt") => {
                let blocks = message["params"]["prompt"].as_array().unwrap();
                let texts: Vec<String> =
                    blocks.iter().filter_map(|block| block["text"].as_str().map(str::to_owned)).collect();
                let others: Vec<&Value> = blocks.iter().filter(|block| block["type"] != "text").collect();
                std::fs::write(memory("others"), json!(others).to_string()).unwrap();
                let session = self.session.lock().unwrap().clone();
                let mut kept = std::fs::OpenOptions::new().append(true).create(true).open(memory(&session)).unwrap();
                writeln!(kept, "{}", texts.last().unwrap().replace('\n', " / ")).unwrap();
                self.cancelled.store(false, Ordering::SeqCst);
                let agent = self.clone();
                std::thread::spawn(move || agent.work(&id, &texts));
            }
            Some(other) => self.fail(&id, -32601, &format!("no method {other}")),
        }
    }

    fn load(&self, id: &Value, session: &str) {
        let Ok(kept) = std::fs::read_to_string(memory(session)) else {
            return self.fail(id, -32002, "no such session");
        };
        if is("load-fails") {
            return self.fail(id, -32603, "cannot load");
        }
        session.clone_into(&mut self.session.lock().unwrap());
        for line in kept.lines() {
            self.update(&json!({ "sessionUpdate": "user_message_chunk", "content": { "type": "text", "text": line } }));
            self.say("replayed");
            self.update(&json!({ "sessionUpdate": "tool_call", "toolCallId": "old", "title": "old", "kind": "read" }));
        }
        self.answer(id, &json!({}));
        self.say("replayed late");
    }

    fn work(&self, id: &Value, texts: &[String]) {
        let (mut reason, mut late) = ("end_turn".to_owned(), Vec::new());
        for context in &texts[..texts.len() - 1] {
            self.say(&format!("told: {context}"));
        }
        for line in texts.last().unwrap().lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "stop" => rest.clone_into(&mut reason),
                "late" => late.push(rest.to_owned()),
                "fail" => return self.fail(id, -32603, rest),
                "hang" | "stubborn" => {
                    while word == "stubborn" || !self.cancelled.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    return self.answer(id, &json!({ "stopReason": "cancelled" }));
                }
                "usage" => {
                    return self.answer(
                        id,
                        &json!({ "stopReason": "end_turn",
                    "usage": { "totalTokens": 12, "inputTokens": 10, "outputTokens": 2, "cachedReadTokens": 4 } }),
                    );
                }
                _ => self.step(word, rest),
            }
        }
        self.answer(id, &json!({ "stopReason": reason }));
        late.iter().for_each(|text| self.say(text));
    }

    fn step(&self, word: &str, rest: &str) {
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "say" => self.say(rest),
            "attached" => self.say(&std::fs::read_to_string(memory("others")).unwrap()),
            "mcp" => self.say(&std::fs::read_to_string(memory("mcp")).unwrap()),
            "think" => self.update(&json!({ "sessionUpdate": "agent_thought_chunk", "content": { "type": "text", "text": rest } })),
            "chunks" => (0..rest.parse::<u32>().unwrap()).for_each(|n| self.say(&format!("{n} "))),
            "tool" => self.update(&json!({ "sessionUpdate": "tool_call", "toolCallId": first, "title": second, "kind": "execute",
                "status": "in_progress", "rawInput": { "command": ["bash", "-lc", second] } })),
            "done" => self.update(&json!({ "sessionUpdate": "tool_call_update", "toolCallId": first, "status": "completed",
                "content": [{ "type": "content", "content": { "type": "text", "text": second } }] })),
            "diff" => self.update(&json!({ "sessionUpdate": "tool_call_update", "toolCallId": first, "kind": "edit", "title": "edit",
                "content": [{ "type": "diff", "path": second, "oldText": null, "newText": "new\n" }] })),
            "plan" => self.update(&json!({ "sessionUpdate": "plan", "entries": [{ "content": rest, "priority": "high", "status": "pending" }] })),
            "commands" => {
                let commands: Vec<Value> =
                    rest.split(' ').map(|name| json!({ "name": name, "description": "its own" })).collect();
                self.update(&json!({ "sessionUpdate": "available_commands_update", "availableCommands": commands }));
            }
            "unknown" => self.update(&json!({ "sessionUpdate": "of_tomorrow", "x": 1 })),
            "ask" => self.ask(first, second, &["allow_always", "allow_once", "reject_once"]),
            "ask-few" => self.ask(first, second, &["allow_once"]),
            "asks" => {
                let all: Vec<_> = (0..rest.parse::<u32>().unwrap())
                    .map(|n| {
                        let agent = self.clone();
                        std::thread::spawn(move || agent.ask(&format!("many-{n}"), "ls", &["allow_once", "reject_once"]))
                    })
                    .collect();
                all.into_iter().for_each(|one| one.join().unwrap());
            }
            "reads" => {
                let read = |_| {
                    let (agent, path) = (self.clone(), second.to_owned());
                    std::thread::spawn(move || agent.request("fs/read_text_file", &json!({ "path": path })))
                };
                let all: Vec<_> = (0..first.parse::<u32>().unwrap()).map(read).collect();
                let lengths: Vec<_> =
                    all.into_iter().map(|one| one.join().unwrap()["result"]["content"].as_str().unwrap().len()).collect();
                assert!(lengths.iter().all(|length| *length == lengths[0]));
                self.say(&format!("read {} of {}", lengths.len(), lengths[0]));
            }
            "read" => {
                let answer = self.request("fs/read_text_file", &json!({ "path": first }));
                self.say(&format!("read: {}{}", answer["result"]["content"], answer["error"]["data"].as_str().unwrap_or_default()));
            }
            "write" => {
                let answer = self.request("fs/write_text_file", &json!({ "path": first, "content": second }));
                self.say(&format!("wrote: {}", answer["error"]["data"].as_str().unwrap_or("ok")));
            }
            "term" => self.terminal(rest, false),
            "term-kill" => self.terminal(rest, true),
            "ext" => self.say(&format!("ext: {}", self.request("craft/thing", &json!({}))["error"]["code"])),
            "noise" => write(rest),
            "huge" => write(&"x".repeat(rest.parse().unwrap())),
            "long" => self.say(&"long ".repeat(rest.parse().unwrap())),
            "sleep" => std::thread::sleep(Duration::from_millis(rest.parse().unwrap())),
            "child" => {
                let mut command = Command::new("sleep");
                command.arg(first).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
                let mut child = command.spawn().unwrap();
                std::thread::spawn(move || child.wait());
            }
            "die" => {
                eprintln!("panicked: {second}");
                std::process::exit(first.parse().unwrap());
            }
            "env" => self.say(&format!("env: {}", std::env::var(first).unwrap_or_default())),
            "cwd" => self.say(&format!("cwd: {}", std::env::current_dir().unwrap().display())),
            other => self.say(&format!("what is {other}?")),
        }
    }

    fn say(&self, text: &str) {
        self.update(&json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": text } }));
    }

    fn ask(&self, id: &str, command: &str, kinds: &[&str]) {
        let options: Vec<_> =
            kinds.iter().map(|kind| json!({ "optionId": format!("opt-{kind}"), "name": kind, "kind": kind })).collect();
        let call = json!({ "toolCallId": id, "title": command, "kind": "execute", "rawInput": { "command": command } });
        let answer = self.request("session/request_permission", &json!({ "toolCall": call, "options": options }));
        let outcome = &answer["result"]["outcome"];
        self.say(&format!(
            "answer {id}: {} {}",
            outcome["outcome"].as_str().unwrap_or("none"),
            outcome["optionId"].as_str().unwrap_or("")
        ));
    }

    fn terminal(&self, command: &str, kill: bool) {
        let made = self.request("terminal/create", &json!({ "command": command, "args": [], "outputByteLimit": 100 }));
        let Some(id) = made["result"]["terminalId"].as_str() else {
            return self.say(&format!("terminal: {}", made["error"]["data"]));
        };
        let terminal = json!({ "terminalId": id });
        self.update(&json!({ "sessionUpdate": "tool_call", "toolCallId": "t", "title": command, "kind": "execute",
            "content": [{ "type": "terminal", "terminalId": id }] }));
        if kill {
            std::thread::sleep(Duration::from_millis(200));
            self.request("terminal/kill", &terminal);
        }
        let ended = self.request("terminal/wait_for_exit", &terminal);
        let output = self.request("terminal/output", &terminal);
        self.request("terminal/release", &terminal);
        self.say(&format!(
            "terminal: {} {} {}",
            ended["result"]["exitCode"], ended["result"]["signal"], output["result"]
        ));
    }

    fn update(&self, update: &Value) {
        let session = self.session.lock().unwrap().clone();
        write(&json!({ "jsonrpc": "2.0", "method": "session/update", "params": { "sessionId": session, "update": update } }).to_string());
    }

    fn request(&self, method: &str, params: &Value) -> Value {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let (sender, answer) = mpsc::channel();
        self.waiting.lock().unwrap().insert(id, sender);
        let mut params = params.clone();
        params["sessionId"] = self.session.lock().unwrap().clone().into();
        write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string());
        answer.recv().unwrap()
    }

    fn answer(&self, id: &Value, result: &Value) {
        write(&json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string());
    }

    fn fail(&self, id: &Value, code: i32, message: &str) {
        write(&json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string());
    }
}
