//! Playbooks: what an agent is told of one, commands, switching while it runs, hostile ones, and a server that is killed in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{fs, path::PathBuf};

use ambient_tests::TestDatabase;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Origin, Server, eventually, fake_agent, script};

/// A playbook in a folder of a branch of an origin.
struct Playbooks(Origin);

impl Playbooks {
    fn new() -> Self {
        Self(Origin::new())
    }

    fn work(&self) -> PathBuf {
        self.0.path().parent().unwrap().join("work")
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.work().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// Commits all of it to a branch, and gives it to the origin; the commit.
    fn publish(&self, branch: &str) -> String {
        let work = self.work();
        self.0.git(&work, &["checkout", "-q", "-B", branch]);
        self.0.git(&work, &["add", "-A"]);
        let commit = ["-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-q", "-m", branch];
        self.0.git(&work, &commit);
        self.0.git(&work, &["push", "-q", "-f", &self.0.path().display().to_string(), branch]);
        self.0.open_to_everyone();
        self.0.head(branch)
    }

    /// The usual one, in `triage`.
    fn triage(&self) -> String {
        self.write(
            "triage/.ambient/ambient.json",
            r#"{"name": "Triage", "systemPrompt": "Be brief.", "results": {"a": 1}}"#,
        );
        self.write("triage/.claude/commands/fix.md", "---\ndescription: mends\n---\nsay Fixing $ARGUMENTS.");
        self.write("triage/.claude/agents/rita.md", "---\nname: Rita\n---\nYou read.");
        self.write("triage/notes.txt", "of the playbook\n");
        self.publish("main")
    }

    /// A branch of a few small objects with 100,000,000 files.
    fn bomb(&self, branch: &str) {
        let origin = self.0.path();
        let file = self.work().join("file");
        fs::write(&file, "x").unwrap();
        let mut object = self.0.git(&origin, &["hash-object", "-w", file.to_str().unwrap()]);
        for level in 0..8 {
            let (mode, kind) = if level == 0 { ("100644", "blob") } else { ("040000", "tree") };
            let entries: String = (0..10).map(|n| format!("{mode} {kind} {}\tn{n}\n", object.trim())).collect();
            fs::write(&file, entries).unwrap();
            let make = format!("git mktree < {}", file.display());
            object = self.0.git(&origin, &["-c", &format!("alias.make=!{make}"), "make"]);
        }
        let made = ["-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit-tree", "-m", "x", object.trim()];
        let commit = self.0.git(&origin, &made);
        self.0.git(&origin, &["update-ref", &format!("refs/heads/{branch}"), commit.trim()]);
        self.0.open_to_everyone();
    }

    fn at(&self, branch: Option<&str>, path: &str) -> Value {
        json!({ "git_url": self.0.url(), "branch": branch, "path": path })
    }
}

async fn metadata(server: &Server, id: &str) -> Value {
    server.get(&format!("/sessions/{id}/workflow/metadata")).await.expect(200)
}

async fn session(server: &Server, id: &str) -> Value {
    server.get(&format!("/sessions/{id}")).await.expect(200)
}

fn condition(session: &Value) -> Option<&Value> {
    session["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "WorkflowReconciled")
}

/// Waits until a commit is in effect.
async fn reconciled(server: &Server, id: &str, commit: &str) {
    eventually("the playbook is in effect", async || {
        let now = session(server, id).await;
        let done = now["reconciled_workflow"]["commit"] == commit && condition(&now)?["status"] == "True";
        done.then_some(())
    })
    .await;
}

/// Waits until the wanted one cannot be had; why.
async fn refused(server: &Server, id: &str, told: &str) {
    eventually("the condition says why", async || {
        let now = session(server, id).await;
        let condition = condition(&now).filter(|c| c["reason"] == "WorkflowFailed")?;
        condition["message"].as_str()?.contains(told).then_some(())
    })
    .await;
}

/// What the agent has said since the message, at the end of its turn.
async fn said(server: &Server, id: &str, text: &str) -> String {
    let before = server.events(id).await.len();
    server.post(&format!("/sessions/{id}/messages"), json!({ "text": text })).await.expect(201);
    eventually("the turn ends", async || {
        let events = server.events(id).await.split_off(before);
        events.iter().any(|event| event["type"] == "turn.ended").then(|| words(&events))
    })
    .await
}

fn words(events: &[Value]) -> String {
    let texts = events.iter().filter(|event| event["type"] == "agent.text" || event["type"] == "agent.notice");
    texts.filter_map(|event| event["data"]["text"].as_str()).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn an_agent_goes_by_its_playbook_by_another_while_it_runs_and_by_none() {
    let database = TestDatabase::new().await;
    let server = fake_agent::server(&database).await;
    let playbooks = Playbooks::new();
    let first = playbooks.triage();
    playbooks.write("triage/.ambient/ambient.json", r#"{"name": "Other", "systemPrompt": "Be long."}"#);
    let second = playbooks.publish("other");

    let mut body = fake_agent::body("say begun");
    body["active_workflow"] = playbooks.at(None, "triage");
    let id = server.session(body).await;
    let path = format!("/sessions/{id}/workflow");
    reconciled(&server, &id, &first).await;
    eventually("the first turn", async || {
        let said = words(&server.events(&id).await);
        (said.contains("told: [Playbook of this session: Triage") && said.contains("Be brief.")).then_some(())
    })
    .await;
    let has = metadata(&server, &id).await;
    assert_eq!((&has["commit"], &has["config"]["name"]), (&json!(first), &json!("Triage")), "{has:#}");
    assert_eq!(has["commands"][0]["slash_command"], "/fix");
    assert_eq!((&has["commands"][0]["description"], &has["agents"][0]["name"]), (&json!("mends"), &json!("Rita")));

    // Told once; a command of it is sent as its text, unless the agent has one of that name.
    let fixed = said(&server, &id, "/fix the menu").await;
    assert!(fixed.contains("Fixing the menu.") && fixed.contains("/fix is a command of the playbook"), "{fixed}");
    assert!(!fixed.contains("told:"), "{fixed}");
    said(&server, &id, "commands fix").await;
    let own = said(&server, &id, "/fix it").await;
    assert!(!own.contains("Fixing"), "{own}");
    said(&server, &id, "commands none").await;

    // Its files can be read, and not written.
    let folder = words(&server.events(&id).await);
    let folder = folder.split("are in ").nth(1).unwrap().split(" (read only)").next().unwrap().to_owned();
    let read = said(&server, &id, &format!("term cat {folder}/notes.txt")).await;
    assert!(read.contains("of the playbook"), "{read}");
    said(&server, &id, &format!("term echo x > {folder}/notes.txt; rm -rf {folder}")).await;
    let read = said(&server, &id, &format!("term cat {folder}/notes.txt")).await;
    assert!(read.contains("of the playbook"), "{read}");

    let changed = server.post(&path, playbooks.at(Some("other"), "triage")).await.expect(202);
    assert_eq!(changed["active_workflow"]["branch"], "other");
    reconciled(&server, &id, &second).await;
    let told = said(&server, &id, "say next").await;
    assert!(told.contains("Be long.") && !told.contains("Be brief."), "{told}");
    assert!(!said(&server, &id, "say after").await.contains("told:"));

    // One that cannot be had changes nothing but the condition.
    server.post(&path, playbooks.at(Some("nowhere"), "triage")).await.expect(202);
    refused(&server, &id, "nowhere").await;
    let now = session(&server, &id).await;
    assert_eq!((&now["phase"], &now["reconciled_workflow"]["commit"]), (&json!("Running"), &json!(second)));
    assert!(said(&server, &id, "/fix this").await.contains("Fixing this."), "the earlier one is in effect");
    server.post(&path, playbooks.at(None, "triage")).await.expect(202);
    reconciled(&server, &id, &first).await;

    server.delete(&path).await.expect(202);
    eventually("none is in effect", async || {
        session(&server, &id).await["reconciled_workflow"].is_null().then_some(())
    })
    .await;
    assert!(condition(&session(&server, &id).await).is_none());
    let told = said(&server, &id, "say free").await;
    assert!(told.contains("not in effect any more"), "{told}");
    assert_eq!(metadata(&server, &id).await["commands"], json!([]));
    server.verified().await;
}

#[tokio::test]
async fn a_server_that_is_killed_while_it_switches_ends_with_the_wanted_one_and_no_run_is_needed_to_read_it() {
    let database = TestDatabase::new().await;
    let mut server = fake_agent::server(&database).await;
    let (old, new) = (Playbooks::new(), Playbooks::new());
    let (first, second) = (old.triage(), new.triage());
    let body =
        json!({ "project_id": "agents", "prompt": script("echo begun"), "active_workflow": old.at(None, "triage") });
    let id = server.session(body).await;
    server.printed(&id, "begun").await;
    reconciled(&server, &id, &first).await;

    new.0.hold();
    server.post(&format!("/sessions/{id}/workflow"), new.at(None, "triage")).await.expect(202);
    eventually("it is being cloned", async || {
        let now = session(&server, &id).await;
        (condition(&now)?["reason"] == "Cloning").then_some(())
    })
    .await;
    server.kill();
    new.0.let_go();
    server.restart().await;
    reconciled(&server, &id, &second).await;

    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    assert_eq!(metadata(&server, &id).await["commit"], json!(second));
    // It has what it needs: its origin may be gone.
    fs::remove_dir_all(new.0.path()).unwrap();
    server.post(&format!("/sessions/{id}/start"), json!({})).await.expect(202);
    server.phase(&id, "Running").await;
    reconciled(&server, &id, &second).await;
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    server.verified().await;
}

#[tokio::test]
async fn a_hostile_playbook_is_read_as_text_within_bounds_and_runs_nothing() {
    let database = TestDatabase::new().await;
    let server = fake_agent::server(&database).await;
    let playbooks = Playbooks::new();
    let good = playbooks.triage();
    let ran = playbooks.0.path().parent().unwrap().join("ran");
    playbooks.write(".gitattributes", "* filter=evil diff=evil\n");
    playbooks.write(".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = file:///\n");
    playbooks.write(".ambient/setup.sh", &format!("touch {}", ran.display()));
    std::os::unix::fs::symlink("/etc/passwd", playbooks.work().join("triage/.claude/commands/link.md")).unwrap();
    std::os::unix::fs::symlink("/etc", playbooks.work().join("out")).unwrap();
    fs::write(playbooks.work().join("triage/.claude/commands/raw.md"), b"\xff\xfe").unwrap();
    playbooks.write("triage/.claude/commands/long.md", &"x".repeat(70_000));
    let odd = playbooks.publish("main");
    playbooks.write("triage/.ambient/ambient.json", &format!("{{\"name\": \"{}\"}}", "x".repeat(5_000_000)));
    playbooks.publish("large");
    for n in 0..200 {
        playbooks.write(&format!("many/.claude/commands/c{n}.md"), "x");
    }
    playbooks.publish("many");

    playbooks.bomb("bomb");

    let body = json!({ "project_id": "agents", "prompt": script("echo begun"), "active_workflow": playbooks.at(None, "triage") });
    let id = server.session(body).await;
    reconciled(&server, &id, &odd).await;
    assert_ne!(good, odd);
    let has = metadata(&server, &id).await;
    let problems = has["problems"].to_string();
    for told in ["link.md: it is no file", "raw.md: it is no text", "long.md: it has more than"] {
        assert!(problems.contains(told), "{problems}");
    }
    assert_eq!(has["commands"].as_array().unwrap().len(), 1, "{has:#}");
    assert!(!has.to_string().contains("root:"));

    let path = format!("/sessions/{id}/workflow");
    for (branch, folder, told) in [
        ("large", "triage", ".ambient/ambient.json: it has more than"),
        ("many", "many", "more than 100 files"),
        ("bomb", "", "too many files"),
        ("main", "out", "no folder 'out'"),
        ("main", "triage/notes.txt", "no folder"),
        ("main", "gone", "no folder 'gone'"),
    ] {
        server.post(&path, playbooks.at(Some(branch), folder)).await.expect(202);
        refused(&server, &id, told).await;
    }
    assert!(!ran.exists());

    for (given, field) in [
        (json!({ "git_url": "ssh://host/x" }), "git_url"),
        (json!({ "git_url": "https://user:word@host/x" }), "git_url"),
        (json!({ "git_url": "https://host/x", "branch": "-x" }), "branch"),
        (json!({ "git_url": "https://host/x", "path": "../x" }), "path"),
        (json!({ "git_url": "https://host/x", "path": "/x" }), "path"),
        (json!({ "git_url": "https://host/x", "path": "a/.git/x" }), "path"),
        (json!({ "git_url": "https://host/x", "path": "a\nb" }), "path"),
        (json!({ "git_url": "https://host/x", "colour": "red" }), "colour"),
        (json!({ "branch": "main" }), "git_url"),
    ] {
        let answer = server.post(&path, given.clone()).await;
        assert_eq!(answer.status, 400, "{given}: {}", answer.json);
        assert!(answer.json.to_string().contains(field), "{given}: {}", answer.json);
        let patch =
            server.request(Method::PATCH, &format!("/sessions/{id}")).json(&json!({ "active_workflow": given }));
        let answer = server.send(patch).await;
        assert_eq!(answer.status, 400, "{}", answer.json);
        assert!(answer.json.to_string().contains(field), "{given}: {}", answer.json);
    }
    server.verified().await;
}
