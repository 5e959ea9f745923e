//! Where commits go at the end of a turn, and by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;

use ambient_runner_protocol::Record;
use harness::{Session, git, of_type};
use serde_json::{Value, json};

const COMMIT: &str = "git commit -q --allow-empty -m work";

/// A fork of `up`: an empty repository beside it, with its history.
fn fork(session: &Session) -> String {
    let directory = session.directory();
    git(directory, &["clone", "--quiet", "--bare", "up.git", "fork.git"]);
    format!("file://{}", directory.join("fork.git").display())
}

fn to_fork(url: &str, fork: &str, branch: &str) -> Value {
    let output = json!({ "push_to": "fork", "target_repo": fork, "target_branch": branch });
    json!({ "url": url, "output": output, "auto_push": true })
}

/// Subjects of a branch's commits, the newest first; nothing if it does not exist.
fn subjects(session: &Session, repo: &str, branch: &str) -> String {
    let repo = session.directory().join(repo);
    if git(&repo, &["branch", "--list", branch]).is_empty() {
        String::new()
    } else {
        git(&repo, &["log", "--format=%s", branch])
    }
}

fn result(records: &[Record]) -> &Value {
    of_type(records, "turn.result")[0]
}

#[tokio::test]
async fn a_fork_gets_the_commits_and_the_origin_none() {
    let session = Session::new(true);
    let url = session.origin("up");
    let fork_url = fork(&session);
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", to_fork(&url, &fork_url, "agent/x")).await.expect(200);
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("a", 1, &format!("```\n{COMMIT}\n```")).await.expect(200);
    let records = reader.until_turn_ended().await;
    let pushed = of_type(&records, "repo.pushed")[0];
    assert_eq!(
        (&pushed["url"], &pushed["branch"], &pushed["commits"]),
        (&json!(fork_url), &json!("agent/x"), &json!(1))
    );
    assert_eq!(subjects(&session, "fork.git", "agent/x"), "work\nfirst");
    assert_eq!(subjects(&session, "up.git", "agent/x"), "");

    // By hand it goes there too, and what others have put on the branch is not overwritten.
    let push = |branch: &str| runner.client.send("POST", "/git/push", json!({ "repo": "up", "branch": branch }));
    push("by-hand").await.expect(200);
    assert_eq!(subjects(&session, "fork.git", "by-hand"), "work\nfirst");
    let up = session.directory().join("up");
    git(&up, &["commit", "--quiet", "--allow-empty", "-m", "theirs"]);
    git(&up, &["push", "--quiet", "--force", "../fork.git", "HEAD:agent/x"]);
    push("agent/x").await.expect(409);
    assert_eq!(subjects(&session, "fork.git", "agent/x"), "theirs\nfirst");
}

#[tokio::test]
async fn what_is_not_to_be_pushed_is_not_by_hand_either() {
    let session = Session::new(true);
    let url = session.origin("up");
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", json!({ "url": url, "output": { "push_to": "none" } })).await.expect(200);
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("a", 1, &format!("```\n{COMMIT}\n```")).await.expect(200);
    let records = reader.until_turn_ended().await;
    assert_eq!(result(&records)["outcome"], "finished");
    assert!(of_type(&records, "repo.pushed").is_empty());
    let refused = runner.client.send("POST", "/git/push", json!({ "repo": "up", "branch": "b" })).await.expect(409);
    assert!(refused.text().contains("output.push_to"), "{}", refused.text());
    let sync = json!({ "repo": "up", "branch": "b" });
    runner.client.send("POST", "/git/synchronize", sync).await.expect(409);
    runner.client.send("POST", "/git/pull", json!({ "repo": "up" })).await.expect(200);
    let gone = runner.client.send("POST", "/git/pull", json!({ "repo": "up", "branch": "gone" })).await.expect(404);
    assert!(gone.text().contains("no branch 'gone'"), "{}", gone.text());
    assert_eq!(subjects(&session, "up.git", "b"), "");
}

/// A runner that pushes to `out` of the repository, and asks before it does.
async fn asking(session: &Session, url: &str) -> (harness::Runner, harness::Reader) {
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", harness::pushed(url, "out")).await.expect(200);
    let rules = json!({ "rules": [{ "effect": "ask", "tool": "push" }], "otherwise": "allow" });
    runner.client.send("PUT", "/policy", rules).await.expect(204);
    let reader = runner.client.events(1, "", 0).await;
    (runner, reader)
}

/// The request to push, and the call that shows what would be.
async fn request(reader: &mut harness::Reader) -> (Value, Value) {
    let asks = |record: &Record| harness::is_of_type(record, "permission.requested");
    let mut records = reader.until(|record| asks(record) || harness::is_of_type(record, "turn.ended")).await;
    let request = records.pop().unwrap();
    assert!(asks(&request), "the turn ended without a request: {records:#?}");
    let request = request.event;
    let id = &request["tool_call_id"];
    let shown = records.iter().find(|record| record.event["tool_call_id"] == *id).unwrap().event.clone();
    (request, shown)
}

#[tokio::test]
async fn people_who_are_asked_see_what_goes_to_the_origin_and_nothing_else_goes_there() {
    let session = Session::new(true);
    let url = session.origin("up");
    let (runner, mut reader) = asking(&session, &url).await;
    // The repository lies about what its files are, and somebody goes on when the turn is over.
    let lie = "mkdir .git/info; echo '*.txt -diff' > .git/info/attributes; git config diff.noprefix true";
    let later =
        "(until test -e ../go; do sleep 0.05; done; git commit -q --allow-empty -m evil; touch ../gone) >&- 2>&- &";
    let script = format!("```\n{lie}\necho secret > a.txt; git add a.txt; {COMMIT}\n{later}\n```");
    runner.client.deliver("a", 1, &script).await.expect(200);
    let (request, shown) = request(&mut reader).await;
    assert_eq!((&request["kind"], &request["command"]), (&json!("push"), &json!("git push up out")));
    assert_eq!(request["title"], json!(format!("Push 1 commit of up to branch out of {url}")));
    assert_eq!(request["answers"], json!(["once", "always", "reject"]));
    let texts = |n: usize| shown["content"][n]["text"].as_str().unwrap().to_owned();
    assert!(texts(0).ends_with(">\n    work\n\n"), "{shown}");
    assert_eq!(texts(1), "A\ta.txt\n");
    assert!(texts(2).contains("+secret\n"), "{shown}");
    assert_eq!(subjects(&session, "up.git", "out"), "");

    let workspace = session.paths.workspace();
    std::fs::write(workspace.join("go"), "").unwrap();
    harness::eventually("the agent's commit", || workspace.join("gone").exists()).await;
    let answer = |id: &Value| format!("/interrupts/{}", id.as_str().unwrap());
    let once = json!({ "answer": "once" });
    runner.client.send("POST", &answer(&request["interrupt_id"]), once).await.expect(200);
    let records = reader.until_turn_ended().await;
    assert_eq!(of_type(&records, "repo.pushed")[0]["commit"], shown["input"]["commit"]);
    assert_eq!(subjects(&session, "up.git", "out"), "work\nfirst");

    // Rejected: the turn could not hand in, and a deny also holds for pushes by hand.
    runner.client.deliver("b", 2, &format!("```\n{COMMIT}\n```")).await.expect(200);
    let (second, _) = self::request(&mut reader).await;
    assert_ne!(second["fingerprint"], request["fingerprint"]);
    runner.client.send("POST", &answer(&second["interrupt_id"]), json!({ "answer": "reject" })).await.expect(200);
    let records = reader.until_turn_ended().await;
    assert_eq!(of_type(&records, "repo.push_failed")[0]["reason"], "the push was rejected");
    assert_eq!(result(&records)["code"], "PushFailed");
    let push = |branch: &str| runner.client.send("POST", "/git/push", json!({ "repo": "up", "branch": branch }));
    push("by-hand").await.expect(200);
    let rules = json!({ "rules": [{ "effect": "deny", "command": "git push * out" }], "otherwise": "allow" });
    runner.client.send("PUT", "/policy", rules).await.expect(204);
    let denied = push("out").await.expect(409);
    assert!(denied.text().contains("git push * out"), "{}", denied.text());
    let sync = json!({ "repo": "up", "branch": "out" });
    runner.client.send("POST", "/git/synchronize", sync).await.expect(409);
    runner.client.deliver("c", 3, "```\ntrue\n```").await.expect(200);
    let records = reader.until_turn_ended().await;
    assert!(of_type(&records, "repo.push_failed")[0]["reason"].as_str().unwrap().contains("deny"));
    assert_eq!(subjects(&session, "up.git", "out"), "work\nfirst");
}

#[tokio::test]
async fn a_turn_that_is_stopped_while_it_asks_pushes_nothing() {
    let session = Session::new(true);
    let url = session.origin("up");
    let (runner, mut reader) = asking(&session, &url).await;
    runner.client.deliver("a", 1, &format!("```\n{COMMIT}\n```")).await.expect(200);
    let (request, _) = request(&mut reader).await;
    runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    let records = reader.until_turn_ended().await;
    assert_eq!(of_type(&records, "permission.closed")[0]["outcome"], "cancelled");
    assert_eq!(result(&records)["outcome"], "interrupted");
    let late = format!("/interrupts/{}", request["interrupt_id"].as_str().unwrap());
    let taken = runner.client.send("POST", &late, json!({ "answer": "once" })).await.expect(200);
    assert_eq!(taken.json()["taken"], false);
    assert_eq!(subjects(&session, "up.git", "out"), "");
}

#[tokio::test]
async fn a_push_that_the_remote_refuses_is_told_and_keeps_no_other_back() {
    let session = Session::new(true);
    let (url, other) = (session.origin("up"), session.origin("other"));
    // A branch `out` excludes the branch `out/x`, and the repository says so.
    git(&session.directory().join("other.git"), &["branch", "out"]);
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/other", harness::pushed(&other, "out/x")).await.expect(200);
    runner.client.send("PUT", "/repos/up", harness::pushed(&url, "out")).await.expect(200);
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("a", 1, &format!("```\ncd other\n{COMMIT}\ncd ../up\n{COMMIT}\n```")).await.expect(200);
    let records = reader.until_turn_ended().await;
    let failed = of_type(&records, "repo.push_failed")[0];
    assert_eq!((&failed["repo"], &failed["url"], &failed["branch"]), (&json!("other"), &json!(other), &json!("out/x")));
    assert!(failed["reason"].as_str().unwrap().contains("refused"), "{failed}");
    assert_eq!(of_type(&records, "repo.pushed")[0]["repo"], "up");
    assert_eq!(subjects(&session, "up.git", "out"), "work\nfirst");
    assert_eq!((&result(&records)["outcome"], &result(&records)["code"]), (&json!("error"), &json!("PushFailed")));
    assert!(result(&records)["message"].as_str().unwrap().contains("'other'"), "{:?}", result(&records));
}

#[tokio::test]
async fn no_configuration_of_the_workspace_leads_a_push_elsewhere() {
    let session = Session::new(true);
    let url = session.origin("up");
    let fork_url = fork(&session);
    session.origin("evil");
    let evil = format!("file://{}", session.directory().join("evil.git").display());
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", to_fork(&url, &fork_url, "out")).await.expect(200);
    let mut reader = runner.client.events(1, "", 0).await;
    let redirected = [
        format!("git config 'url.{evil}.insteadOf' '{fork_url}'"),
        format!("git config 'url.{evil}.pushInsteadOf' '{fork_url}'"),
        format!("git config remote.origin.pushurl '{evil}'"),
        format!("git config remote.origin.url '{evil}'"),
        format!("git config 'remote.{fork_url}.pushurl' '{evil}'"),
        format!("git config --global 'url.{evil}.insteadOf' '{fork_url}'"),
        "git config push.default nothing".to_owned(),
        "git config remote.pushDefault evil".to_owned(),
        "mkdir -p .git/hooks; printf '#!/bin/sh\\ngit update-ref refs/heads/main HEAD~1\\n' > .git/hooks/pre-push"
            .to_owned(),
        "chmod +x .git/hooks/pre-push".to_owned(),
    ];
    let script = format!("```\n{COMMIT}\n{}\n```", redirected.join("\n"));
    runner.client.deliver("a", 1, &script).await.expect(200);
    let records = reader.until_turn_ended().await;
    assert_eq!(result(&records)["outcome"], "finished", "{:?}", result(&records));
    assert_eq!(of_type(&records, "repo.pushed")[0]["url"], json!(fork_url));
    assert_eq!(subjects(&session, "fork.git", "out"), "work\nfirst");
    assert_eq!(
        (subjects(&session, "evil.git", "out"), subjects(&session, "up.git", "out")),
        (String::new(), String::new())
    );
}

#[tokio::test]
async fn an_output_that_cannot_be_is_refused_before_anything_is_cloned() {
    let session = Session::new(true);
    let url = session.origin("up");
    let runner = session.start().await;
    let put = |output: Value, auto_push: bool| {
        runner.client.send("PUT", "/repos/up", json!({ "url": url, "output": output, "auto_push": auto_push }))
    };
    let fork = |to: &str| json!({ "push_to": "fork", "target_repo": to, "target_branch": "b" });
    put(json!({ "push_to": "fork" }), false).await.expect_bad("output.target_repo");
    put(fork("https://bot:s3cret@host.invalid/r"), true).await.expect_bad("output.target_repo");
    put(fork("file:///not/there.git"), true).await.expect_bad("output.target_repo");
    put(json!({ "push_to": "same", "target_branch": "-f" }), true).await.expect_bad("output.target_branch");
    put(json!({ "push_to": "same" }), true).await.expect_bad("output.target_branch");
    put(json!({ "push_to": "none" }), true).await.expect_bad("auto_push");
    assert!(!session.paths.workspace().join("up").exists());
}

#[tokio::test]
async fn what_is_abandoned_or_pushed_by_hand_is_in_the_log() {
    let session = Session::new(true);
    let url = session.origin("up");
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200);
    git(&session.paths.workspace().join("up"), &["commit", "--quiet", "--allow-empty", "-m", "x"]);
    let mut reader = runner.client.events(1, "", 0).await;
    let pushed =
        runner.client.send("POST", "/git/push", json!({ "repo": "up", "branch": "b" })).await.expect(200).json();
    let abandoned = runner.client.send("POST", "/git/abandon", json!({ "repo": "up" })).await.expect(200).json();
    let records = reader.until(|record| harness::is_of_type(record, "repo.abandoned")).await;
    assert_eq!(of_type(&records, "repo.pushed")[0]["commit"], pushed["commit"]);
    assert_eq!(of_type(&records, "repo.abandoned")[0]["kept"], abandoned["kept"]);
    assert!(abandoned["kept"].is_string());
}

#[tokio::test]
async fn the_agent_works_in_the_main_repository_of_several() {
    let mut session = Session::new(true);
    let (one, two) = (session.origin("one"), session.origin("two"));
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/one", json!({ "url": one })).await.expect(200);
    runner.client.send("PUT", "/repos/two", json!({ "url": two, "main": true })).await.expect(200);
    assert!(harness::run(&runner, "a", "pwd").await.contains("/workspace/two\n"));
    // It still is when the runner has come back, until another is told to be.
    drop(runner);
    harness::end_all(&session.directory().to_string_lossy());
    session.next_attempt();
    let runner = session.start().await;
    assert!(harness::run(&runner, "b", "pwd; echo again").await.contains("/workspace/two\nagain"));
    runner.client.send("PUT", "/repos/two", json!({ "url": two })).await.expect(200);
    assert!(harness::run(&runner, "c", "pwd; echo above").await.contains("/workspace\nabove"));
}
