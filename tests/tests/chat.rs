//! `ambient chat` on a whole server: at a terminal, as a person uses it, and with lines that are piped in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::process::Stdio;

use ambient_tests::TestDatabase;
use support::{
    PATIENCE, Server, binary, clean_command, eventually,
    fake_agent::{body, server},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

fn with_server(mut command: std::process::Command, server: &Server) -> Command {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("AMBIENT_URL", format!("http://{}", server.address())).env("AMBIENT_TOKEN", server.token());
    command.env("AMBIENT_PROJECT", "agents").env("AMBIENT_CONFIG", "/dev/null");
    command.env("XDG_STATE_HOME", server.dir.path()).env("TERM", "xterm");
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command
}

/// A person at a terminal.
struct Person {
    process: Child,
    keyboard: ChildStdin,
    screen: ChildStdout,
    seen: String,
    /// All that was seen, for whoever wants to know what went wrong.
    all: String,
}

impl Person {
    /// `script` gives the command a terminal.
    fn sits_down(server: &Server, arguments: &str) -> Self {
        let mut command = clean_command("script");
        command.args([
            "-qfec",
            &format!("stty cols 100 rows 40; exec {} chat {arguments}", binary("ambient").display()),
            "/dev/null",
        ]);
        let mut process = with_server(command, server).spawn().expect("script, of util-linux");
        let (keyboard, screen) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, keyboard, screen, seen: String::new(), all: String::new() }
    }

    async fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).await.unwrap();
    }

    /// Waits until this is seen, and looks away from what was before it.
    async fn sees(&mut self, text: &str) {
        let mut piece = [0; 4096];
        while !self.seen.contains(text) {
            let read = timeout(PATIENCE, self.screen.read(&mut piece)).await;
            let length = read.unwrap_or_else(|_| panic!("no {text:?} in {:?}:\n{}", self.seen, self.all)).unwrap();
            if length == 0 {
                let ended = timeout(PATIENCE, self.process.wait()).await;
                panic!("it ended ({ended:?}) without {text:?}:\n{}", self.all);
            }
            let piece = String::from_utf8_lossy(&piece[..length]);
            self.seen.push_str(&piece);
            self.all.push_str(&piece);
        }
        let at = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..at);
    }

    async fn leaves(&mut self) {
        self.sees("come back with: ambient chat --session").await;
        timeout(PATIENCE, self.process.wait()).await.expect("it does not end").unwrap();
    }
}

#[tokio::test]
async fn a_person_talks_with_an_agent_answers_it_stops_it_and_comes_back() {
    let database = TestDatabase::new().await;
    let mut server = server(&database).await;
    let agent = format!("--agent-command '{} for-tests'", binary("ambient-fake-agent").display());
    let mut person = Person::sits_down(&server, &agent);
    person.sees("› ").await;
    person.types("say some **bold** words\r").await;
    person.sees("some \u{1b}[1mbold\u{1b}[0m words").await;
    person.sees("› ").await;

    // One key answers; a letter begins the reason.
    person.types("ask c1 ls\r").await;
    person.sees("$ ls").await;
    person.sees("m reject with a message").await;
    person.types("a").await;
    person.sees("answer c1: selected opt-allow_once").await;
    person.sees("› ").await;
    person.types("ask c2 rm\r").await;
    person.sees("m reject with a message").await;
    person.types("m").await;
    person.sees("instead › ").await;
    person.types("chunks 6\r").await;
    person.sees("answer c2: selected opt-reject_once").await;
    person.sees("0 1 2 3 4 5").await;
    person.sees("› ").await;

    // The server dies while the agent works; what is typed meanwhile waits its turn.
    person.types("chunks 3\\\rsleep 3000\\\rchunks 4\r").await;
    person.sees("0 1 2").await;
    server.kill();
    person.sees("connection lost").await;
    server.restart().await;
    person.sees("connection is back").await;
    person.types("chunks 5\r").await;
    person.sees("0 1 2 3").await;
    person.sees("0 1 2 3 4").await;
    person.sees("› ").await;

    // Ctrl-C ends the turn, Ctrl-D leaves; the session stays, and is there to come back to.
    person.types("hang\r").await;
    person.sees("working").await;
    person.types("\u{3}").await;
    person.sees("turn stopped").await;
    person.sees("› ").await;
    person.types("\u{4}").await;
    person.leaves().await;
    let sessions = server.get("/sessions?project_id=agents").await.expect(200);
    assert_eq!(sessions["items"][0]["phase"], "Running");
    let id = sessions["items"][0]["id"].as_str().unwrap();
    let mut again = Person::sits_down(&server, &format!("--session {id}"));
    again.sees("› ").await;
    again.types("/session\r").await;
    again.sees(id).await;
    again.types("/quit\r").await;
    again.leaves().await;
    server.verified().await;
}

#[tokio::test]
async fn lines_that_are_piped_in_are_messages_one_after_the_other_and_answers() {
    let database = TestDatabase::new().await;
    let server = server(&database).await;
    let id = server.session(body("say \u{1b}]0;title\u{7}prompted")).await;
    eventually("the prompt is worked on", async || {
        let events = server.events(&id).await;
        events.iter().any(|event| event["type"] == "turn.ended").then_some(())
    })
    .await;
    let mut command = clean_command(binary("ambient"));
    command.args(["chat", "--session", &id]);
    let mut process = with_server(command, &server).spawn().unwrap();
    let mut input = process.stdin.take().unwrap();
    input.write_all(b"say **one**\nask c1 ls\na\n/nothing\nsay two\n").await.unwrap();
    drop(input);
    let output = timeout(PATIENCE, process.wait_with_output()).await.expect("it does not end").unwrap();
    assert!(output.status.success());
    let (out, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(out, "prompted\n**one**\n▸ $ ls …\nanswer c1: selected opt-allow_once\ntwo\n", "{told}");
    for words in ["answered: once", "no command /nothing", &format!("come back with: ambient chat --session {id}")] {
        assert!(told.contains(words), "{words}: {told}");
    }
    server.verified().await;
}
