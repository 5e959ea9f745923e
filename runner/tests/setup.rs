//! Setup scripts: when they run and when not, what a failing one means, and what a hostile one comes to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{os::unix::fs::symlink, path::PathBuf};

use ambient_runner_protocol::Record;
use harness::{Reader, Runner, Session, answers, eventually, git, is_of_type, of_type, output};
use serde_json::json;

const AGENT: &str = "```\necho agent >> ../done\n```";

/// A session whose repository has a setup script that says so in `done`.
struct Prepared {
    session: Session,
    url: String,
}

impl Prepared {
    fn with(script: &str) -> Self {
        let session = Session::new(true);
        let url = session.origin("up");
        let this = Self { session, url };
        this.commit(".ambient/setup.sh", script);
        this
    }

    fn commit(&self, path: &str, content: &str) {
        let source = self.session.directory().join("up");
        let file = source.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
        git(&source, &["add", "--all"]);
        git(&source, &["commit", "--quiet", "-m", "setup"]);
        git(&source, &["push", "--quiet", "../up.git", "HEAD:main"]);
    }

    async fn start(&self) -> (Runner, Reader) {
        let runner = self.session.start().await;
        runner.client.send("PUT", "/repos/up", json!({ "url": self.url })).await.expect(200);
        let reader = runner.client.events(1, "", 0).await;
        (runner, reader)
    }

    /// The same again, after a `kill -9`.
    async fn restart(&mut self, mut runner: Runner) -> (Runner, Reader) {
        runner.child.kill().unwrap();
        runner.child.wait().unwrap();
        drop(runner);
        self.session.next_attempt();
        let runner = self.session.start().await;
        let mut reader = runner.client.events(1, "", 0).await;
        let attempt = self.session.spec.attempt;
        reader.until(|record| record.event["type"] == "attempt.started" && record.event["attempt"] == attempt).await;
        (runner, reader)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.session.paths.workspace().join(name)
    }

    fn done(&self) -> String {
        std::fs::read_to_string(self.file("done")).unwrap_or_default()
    }
}

async fn turn(runner: &Runner, reader: &mut Reader, id: &str) -> Vec<Record> {
    runner.client.deliver(id, 1, AGENT).await.expect(200);
    reader.until(|record| is_of_type(record, "turn.ended") && record.event["message_id"] == id).await
}

fn end(records: &[Record]) -> (String, String) {
    let result = of_type(records, "turn.result").pop().unwrap();
    (result["code"].as_str().unwrap_or_default().to_owned(), result["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_repositorys_script_runs_before_the_first_turn_and_again_when_it_or_a_lock_file_is_another() {
    let mut prepared = Prepared::with("echo prepared in $(basename $PWD); echo setup >> ../done\n");
    let (runner, mut reader) = prepared.start().await;
    let records = turn(&runner, &mut reader, "a").await;
    let tools = of_type(&records, "tool.started");
    assert_eq!(tools[0]["title"], "setup script up/.ambient/setup.sh");
    assert_eq!(tools[1]["title"], "shell");
    assert!(output(&records).contains("prepared in up\n"), "{}", output(&records));
    turn(&runner, &mut reader, "b").await;
    assert_eq!(prepared.done(), "setup\nagent\nagent\n");

    let (runner, mut reader) = prepared.restart(runner).await;
    turn(&runner, &mut reader, "c").await;
    assert_eq!(prepared.done(), "setup\nagent\nagent\nagent\n", "the workspace is as it was set up");

    std::fs::write(prepared.file("up/package-lock.json"), "{}").unwrap();
    let (runner, mut reader) = prepared.restart(runner).await;
    turn(&runner, &mut reader, "d").await;
    assert_eq!(prepared.done().lines().filter(|line| *line == "setup").count(), 2);

    std::fs::write(prepared.file("up/.ambient/setup.sh"), "echo other >> ../done").unwrap();
    let (runner, mut reader) = prepared.restart(runner).await;
    turn(&runner, &mut reader, "e").await;
    assert!(prepared.done().ends_with("other\nagent\n"), "{}", prepared.done());
}

#[tokio::test]
async fn a_session_may_have_its_own_script_or_none() {
    for (script, expected) in [("pwd > ../done", "/up\nagent\n"), ("", "agent\n"), (" \n", "agent\n")] {
        let mut prepared = Prepared::with("echo setup >> ../done");
        prepared.session.spec.setup_script = Some(script.to_owned());
        let (runner, mut reader) = prepared.start().await;
        turn(&runner, &mut reader, "a").await;
        assert!(prepared.done().ends_with(expected), "{script:?}: {}", prepared.done());
        assert!(!prepared.done().contains("setup"), "{script:?}");
    }
}

#[tokio::test]
async fn a_failing_script_ends_the_turn_before_the_agent_is_asked_and_is_tried_again() {
    let prepared = Prepared::with("echo trying >> ../done; [ -e ../ready ]");
    let (runner, mut reader) = prepared.start().await;
    let (code, message) = end(&turn(&runner, &mut reader, "a").await);
    assert_eq!(code, "SetupFailed");
    assert!(message.starts_with("setup script up/.ambient/setup.sh failed: exit code 1;"), "{message}");
    std::fs::write(prepared.file("ready"), "").unwrap();
    assert_eq!(end(&turn(&runner, &mut reader, "b").await).0, "");
    assert_eq!(prepared.done(), "trying\ntrying\nagent\n");
}

#[tokio::test]
async fn a_batch_sessions_runner_exits_as_with_any_prerequisite_that_fails() {
    let mut prepared = Prepared::with("exit 9");
    prepared.session.spec.interactive = false;
    let (mut runner, mut reader) = prepared.start().await;
    let records = turn(&runner, &mut reader, "a").await;
    assert_eq!(end(&records).0, "SetupFailed");
    let n = records.last().unwrap().n;
    reader.until(|record| is_of_type(record, "runner.exited")).await;
    reader.ack(n + 1).await;
    assert_eq!(runner.exit_code().await, Some(ambient_runner_protocol::EXIT_PREREQUISITE));
    assert_eq!(prepared.done(), "");
}

#[tokio::test]
async fn a_stop_ends_a_script_with_all_its_processes_and_one_that_was_cut_off_runs_again() {
    let mut prepared =
        Prepared::with("echo begun >> ../done; if [ ! -e ../ready ]; then setsid sleep 97.2468 & sleep 97.2468; fi");
    let (runner, mut reader) = prepared.start().await;
    runner.client.deliver("a", 1, AGENT).await.expect(200);
    eventually("the script is up", || prepared.done() == "begun\n").await;
    runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    assert_eq!(end(&reader.until_turn_ended().await).0, "Interrupted");
    assert!(harness::running("97.2468").is_empty());

    runner.client.deliver("b", 2, AGENT).await.expect(200);
    eventually("the script is up again", || prepared.done() == "begun\nbegun\n").await;
    std::fs::write(prepared.file("ready"), "").unwrap();
    let (runner, mut reader) = prepared.restart(runner).await;
    turn(&runner, &mut reader, "c").await;
    assert_eq!(prepared.done(), "begun\nbegun\nbegun\nagent\n");
}

#[tokio::test]
async fn a_script_has_the_agents_rights_and_whatever_is_in_its_place_holds_nothing_up() {
    let prepared = Prepared::with(
        "try() { if \"$@\" > /dev/null 2>&1; then echo \"yes $*\"; else echo \"no $*\"; fi; }
        try cat ../../runs/1/secrets/server-to-runner
        try touch ../../setup.json
        try touch ../../blocks/x",
    );
    let (runner, mut reader) = prepared.start().await;
    let said = output(&turn(&runner, &mut reader, "a").await);
    assert_eq!((answers(&said, "yes").len(), answers(&said, "no").len()), (0, 3), "{said}");
    drop(runner);

    let secret = prepared.session.directory().join("secret");
    std::fs::write(&secret, "echo stolen").unwrap();
    type InItsPlace<'a> = (&'a str, Box<dyn Fn(&PathBuf)>);
    let places: [InItsPlace<'_>; 5] = [
        ("a link", Box::new(move |path| symlink(&secret, path).unwrap())),
        (
            "a pipe",
            Box::new(|path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success())),
        ),
        ("not text", Box::new(|path| std::fs::write(path, b"echo \xff").unwrap())),
        ("NUL", Box::new(|path| std::fs::write(path, b"echo \0").unwrap())),
        ("long", Box::new(|path| std::fs::write(path, "#".repeat(70_000)).unwrap())),
    ];
    for (what, place) in places {
        let prepared = Prepared::with("true");
        let (runner, mut reader) = prepared.start().await;
        let path = prepared.file("up/.ambient/setup.sh");
        std::fs::remove_file(&path).unwrap();
        place(&path);
        let (code, message) = end(&turn(&runner, &mut reader, "a").await);
        assert_eq!(code, "SetupFailed", "{what}: {message}");
        assert!(message.starts_with("setup script up/.ambient/setup.sh: "), "{what}: {message}");
        assert_eq!(prepared.done(), "", "{what}");
    }
}
