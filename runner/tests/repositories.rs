//! Repositories: clone, commit, push, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{Session, git, output};
use serde_json::json;

#[tokio::test]
async fn clone_commit_and_push_reach_the_origin_and_can_be_repeated() {
    let session = Session::new(true);
    let url = session.origin("up");
    let origin = session.directory().join("up.git");
    let runner = session.start().await;
    let client = &runner.client;
    let cloned = client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200).json();
    assert_eq!((&cloned["branch"], &cloned["url"]), (&"main".into(), &url.clone().into()));
    assert_eq!(cloned["head"], cloned["base"]);
    assert_eq!(client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200).json(), cloned);
    assert_eq!(client.get("/repos").await.expect(200).json(), json!([cloned]));
    let other = session.origin("other");
    client.send("PUT", "/repos/up", json!({ "url": other })).await.expect(409);
    std::fs::create_dir(session.paths.workspace().join("taken")).unwrap();
    client.send("PUT", "/repos/taken", json!({ "url": url })).await.expect(409);

    assert_eq!(
        client.send("POST", "/git/commit", json!({ "repo": "up", "message": "m" })).await.expect(200).json(),
        json!({ "commit": null, "left_out": [] })
    );
    std::fs::write(session.paths.workspace().join("up/ä b.txt"), "x").unwrap();
    let files = client.get("/git/status?repo=up").await.expect(200).json();
    assert_eq!(files["files"], json!([{ "path": "ä b.txt", "status": "??" }]));
    let commit = client
        .send("POST", "/git/commit", json!({ "repo": "up", "message": "second\n\nbody" }))
        .await
        .expect(200)
        .json();
    let status = client.get("/git/status?repo=up").await.expect(200).json();
    assert_eq!((&status["ahead"], &status["head"], &status["files"]), (&1.into(), &commit["commit"], &json!([])));
    let pushed =
        client.send("POST", "/git/push", json!({ "repo": "up", "branch": "ambient/result" })).await.expect(200).json();
    assert_eq!(pushed["commit"], commit["commit"]);
    assert_eq!(git(&origin, &["rev-parse", "refs/heads/ambient/result"]), commit["commit"].as_str().unwrap());
    client.send("POST", "/git/push", json!({ "repo": "up", "branch": "ambient/result" })).await.expect(200);

    // Someone else was faster: never forced.
    git(&session.directory().join("up"), &["commit", "--quiet", "--allow-empty", "-m", "theirs"]);
    git(&session.directory().join("up"), &["push", "--quiet", &origin.to_string_lossy(), "HEAD:main"]);
    client.send("POST", "/git/push", json!({ "repo": "up", "branch": "main" })).await.expect(409);

    client.send("DELETE", "/repos/up", json!({})).await.expect(204);
    client.send("DELETE", "/repos/up", json!({})).await.expect(204);
    client.get("/git/status?repo=up").await.expect(404);
    assert!(!session.paths.workspace().join("up").exists());
    client.send("PUT", "/repos/up", json!({ "url": other, "branch": "main" })).await.expect(200);
}

#[tokio::test]
async fn bad_urls_names_and_branches_are_refused_with_the_field() {
    let session = Session::new(true);
    let url = session.origin("up");
    let runner = session.start().await;
    let client = &runner.client;
    for bad in [
        "--upload-pack=touch /tmp/pwned",
        "ext::sh -c id",
        "ssh://h/x",
        "git@h:x",
        "https://u:p@h/x",
        "https://token@h/x",
        "https://h/x?ext::sh",
        "/etc",
        "../x",
        "file://host/x",
        "file:///nonexistent/x",
        "file:///etc/hostname",
        "http://h/x",
        "",
    ] {
        client.send("PUT", "/repos/a", json!({ "url": bad })).await.expect_bad("url");
    }
    let inside = format!("file://{}", session.paths.run_dir(1).display());
    client.send("PUT", "/repos/a", json!({ "url": inside })).await.expect_bad("url");
    for bad in ["..", ".git", "-x", "a%2Fb", "a%00", "%2e%2e%2fx"] {
        client.send("PUT", &format!("/repos/{bad}"), json!({ "url": url })).await.expect_bad("name");
    }
    for bad in ["-x", "a..b", "--orphan", "a b", "", "+main"] {
        client.send("PUT", "/repos/a", json!({ "url": url, "branch": bad })).await.expect_bad("branch");
    }
    client.send("PUT", "/repos/a", json!({ "url": url, "branch": "missing" })).await.expect_bad("branch");
    client.send("PUT", "/repos/a", json!({ "url": url, "depth": 1 })).await.expect_bad("depth");
    client.send("PUT", "/repos/a", json!({ "url": url })).await.expect(200);
    for bad in ["+main", "-f", "a:b", "refs/../x"] {
        client.send("POST", "/git/push", json!({ "repo": "a", "branch": bad })).await.expect_bad("branch");
    }
    client.send("POST", "/git/push", json!({ "repo": "a", "branch": "x", "force": true })).await.expect_bad("force");
    client.send("POST", "/git/commit", json!({ "repo": "a", "message": " \n" })).await.expect_bad("message");
    client.get("/git/diff?repo=a&base=--output%3D/tmp/x").await.expect_bad("base");
    for bad in [
        "nothing",
        "HEAD%5E%7Btree%7D",
        "@%7B99%7D",
        "%5EHEAD",
        "HEAD..HEAD",
        "1234567890123456789012345678901234567890",
    ] {
        client.get(&format!("/git/diff?repo=a&base={bad}")).await.expect(404);
    }
    client.get("/git/status?repo=..").await.expect_bad("repo");
    assert_eq!(std::fs::read_dir(session.paths.workspace()).unwrap().count(), 1, "failures leave nothing behind");
}

#[tokio::test]
async fn an_empty_and_a_shallow_origin_and_a_linked_worktree_can_be_cloned() {
    let session = Session::new(true);
    let url = session.origin("up");
    let directory = session.directory();
    git(directory, &["init", "--quiet", "--bare", "--initial-branch=main", "empty.git"]);
    git(directory, &["clone", "--quiet", "--depth=1", &url, "shallow"]);
    git(&directory.join("up"), &["worktree", "add", "--quiet", "-b", "side", "../side"]);
    let runner = session.start().await;
    for name in ["empty.git", "shallow", "side"] {
        let url = format!("file://{}", directory.join(name).display());
        let repo = runner.client.send("PUT", &format!("/repos/{name}"), json!({ "url": url })).await.expect(200).json();
        assert_eq!(repo["head"].is_null(), name == "empty.git", "{repo}");
        assert_eq!(repo["base"], repo["head"]);
    }
    std::fs::write(session.paths.workspace().join("empty.git/new"), "x\n").unwrap();
    let diff = runner.client.get("/git/diff?repo=empty.git").await.expect(200).text();
    assert!(diff.contains("+x"), "{diff}");
}

#[tokio::test]
async fn an_origin_whose_head_names_a_missing_branch_is_refused_with_the_branches_it_has() {
    let session = Session::new(true);
    let url = session.origin("up");
    let origin = session.directory().join("up.git");
    git(&origin, &["branch", "side", "main"]);
    git(&origin, &["symbolic-ref", "HEAD", "refs/heads/gone"]);
    let empty = session.directory().join("empty.git");
    git(session.directory(), &["init", "--quiet", "--bare", "--initial-branch=trunk", "empty.git"]);
    let runner = session.start().await;
    let client = &runner.client;
    let refused = client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(400);
    let (field, reason) = (refused.json()["field"].clone(), refused.text());
    assert!(field == "branch" && reason.contains("'gone'") && reason.contains("main, side"), "{reason}");
    assert!(!session.paths.workspace().join("up").exists() && !session.paths.mirrors().join("up.git").exists());
    client.send("PUT", "/repos/up", json!({ "url": url, "branch": "side" })).await.expect(200);
    let url = format!("file://{}", empty.display());
    let repo = client.send("PUT", "/repos/empty", json!({ "url": url })).await.expect(200).json();
    assert_eq!((&repo["branch"], &repo["base"]), (&"trunk".into(), &serde_json::Value::Null));
    assert!(repo["notices"][0].as_str().unwrap().contains("is empty"), "{repo}");
    // Its first commit is no stranger there.
    let clone = session.paths.workspace().join("empty");
    git(&clone, &["commit", "--quiet", "--allow-empty", "-m", "root"]);
    client.send("POST", "/git/push", json!({ "repo": "empty", "branch": "trunk" })).await.expect(200);
}

#[tokio::test]
async fn what_is_not_fetched_of_a_repository_is_told() {
    let session = Session::new(true);
    let (url, part) = (session.origin("up"), session.origin("part"));
    let up = session.directory().join("up");
    git(&up, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &part, "part"]);
    std::fs::create_dir(up.join("art")).unwrap();
    std::fs::write(up.join("art/.gitattributes"), "*.png filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    std::fs::write(up.join("art/one.png"), harness::lfs::pointer(b"x")).unwrap();
    git(&up, &["add", "."]);
    git(&up, &["commit", "--quiet", "-m", "parts"]);
    git(&up, &["push", "--quiet", &session.directory().join("up.git").to_string_lossy(), "main"]);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    let repo = runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200).json();
    let notices = repo["notices"].as_array().unwrap();
    assert_eq!(notices.len(), 2, "{repo}");
    assert!(notices[0].as_str().unwrap().contains("submodules") && notices[1].as_str().unwrap().contains("LFS"));
    let records = reader.until(|record| harness::is_of_type(record, "repo.notices")).await;
    assert_eq!(
        harness::of_type(&records, "repo.notices")[0],
        &json!({ "type": "repo.notices", "repo": "up", "notices": notices })
    );
    let plain = runner.client.send("PUT", "/repos/part", json!({ "url": part })).await.expect(200).json();
    assert_eq!(plain.get("notices"), None);
    // One that the agent has broken is told as such, and hides no other.
    std::fs::remove_dir_all(session.paths.workspace().join("up/.git")).unwrap();
    let all = runner.client.get("/repos").await.expect(200).json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert!(all[1]["notices"][2].as_str().unwrap().contains("cannot be read"), "{all}");
}

#[tokio::test]
async fn an_origin_of_another_user_can_be_cloned() {
    let session = Session::new(true);
    let url = session.origin("up");
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: every origin here is ours; only the way through the configuration file is tried");
    } else {
        let stranger = ["-R", "12345:12345", &session.directory().join("up.git").to_string_lossy()].map(str::to_owned);
        assert!(std::process::Command::new("chown").args(stranger).status().unwrap().success());
    }
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200);
}

#[tokio::test]
async fn what_an_agent_writes_into_git_configuration_gets_no_more_rights_than_the_agent() {
    let session = Session::new(true);
    let url = session.origin("up");
    let proof = session.directory().join("proof");
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200);
    let trap = session.paths.workspace().join("up/trap.sh");
    std::fs::write(
        &trap,
        format!("#!/bin/sh\ncat {} > {}\ncat\n", session.paths.server_token(1).display(), proof.display()),
    )
    .unwrap();
    assert!(std::process::Command::new("chmod").arg("+x").arg(&trap).status().unwrap().success());
    let trap = trap.to_string_lossy().into_owned();
    let repo = session.paths.workspace().join("up");
    for (key, value) in [
        ("core.fsmonitor", trap.as_str()),
        ("filter.x.clean", &trap),
        ("diff.external", &trap),
        ("gpg.program", &trap),
        ("commit.gpgSign", "true"),
        ("push.gpgSign", "true"),
        ("core.sshCommand", &trap),
        ("core.hooksPath", "."),
        ("credential.helper", &trap),
        (&format!("remote.{url}.receivepack"), &trap),
        ("protocol.ext.allow", "always"),
    ] {
        git(&repo, &["config", key, value]);
    }
    std::fs::write(repo.join(".gitattributes"), "* filter=x\n").unwrap();
    std::fs::copy(&trap, repo.join("pre-commit")).unwrap();
    runner.client.get("/git/status?repo=up").await.expect(200);
    runner.client.get("/git/diff?repo=up").await.expect(200);
    runner.client.send("POST", "/git/commit", json!({ "repo": "up", "message": "m" })).await.expect(200);
    runner.client.send("POST", "/git/push", json!({ "repo": "up", "branch": "b" })).await.expect(200);
    assert!(!proof.exists(), "{}", std::fs::read_to_string(&proof).unwrap());
}

#[tokio::test]
async fn an_agent_alone_works_in_its_only_repository_and_cannot_write_to_the_origin() {
    let session = Session::new(true);
    let url = session.origin("up");
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200);
    let mut reader = runner.client.events(1, "", 0).await;
    runner
        .client
        .deliver(
            "a",
            1,
            "```\npwd\ngit commit -q --allow-empty -m x\ngit push -q origin HEAD:stolen || echo refused\n```",
        )
        .await
        .expect(200);
    let output = output(&reader.until_turn_ended().await);
    assert!(output.contains("/workspace/up\n") && output.contains("refused"), "{output}");
    assert_eq!(git(&session.directory().join("up.git"), &["branch", "--list", "stolen"]), "");
}

#[tokio::test]
async fn a_turn_that_went_well_pushes_and_one_that_cannot_has_failed() {
    let session = Session::new(false);
    let url = session.origin("up");
    let origin = session.directory().join("up.git");
    let mut runner = session.start().await;
    let put = |branch: &str| runner.client.send("PUT", "/repos/up", harness::pushed(&url, branch));
    put("bad..name").await.expect_bad("output.target_branch");
    put("first").await.expect(200);
    put("result").await.expect(200);
    let mut reader = runner.client.events(1, "", 0).await;
    runner.client.deliver("a", 1, "```\ngit commit -q --allow-empty -m work\n```").await.expect(200);
    let records = reader.until_turn_ended().await;
    let kinds = harness::kinds(&records);
    let place = |kind: &str| kinds.iter().position(|k| k == kind).unwrap();
    assert!(place("repo.pushed") < place("turn.result"));
    assert_eq!(git(&origin, &["log", "-1", "--format=%s", "result"]), "work");
    assert_eq!(git(&origin, &["branch", "--list", "first"]), "");
    git(&session.directory().join("up"), &["push", "--quiet", &origin.to_string_lossy(), "+HEAD:result"]);
    git(&session.directory().join("up"), &["commit", "--quiet", "--allow-empty", "-m", "theirs"]);
    git(&session.directory().join("up"), &["push", "--quiet", &origin.to_string_lossy(), "HEAD:result"]);
    runner.client.deliver("b", 2, "```\ntrue\n```").await.expect(200);
    let records = reader.until(|record| harness::is_of_type(record, "runner.exited")).await;
    let error = records.iter().find(|record| record.event["type"] == "turn.result").unwrap();
    assert_eq!(error.event["code"], "PushFailed");
    assert!(error.event["message"].as_str().unwrap().contains("result"));
    reader.ack(reader.last).await;
    assert_eq!(runner.exit_code().await, Some(1));
}
