//! Commits, branches and partial diffs of a repository in the workspace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use harness::{git, scene::Scene};
use serde_json::{Value, json};

#[tokio::test]
async fn commits_are_told_page_by_page_even_while_more_are_made() {
    let scene = Scene::new().await;
    let client = &scene.runner.client;
    for i in 0..5 {
        std::fs::write(scene.clone.join(if i == 3 { "other" } else { "file" }), i.to_string()).unwrap();
        git(&scene.clone, &["add", "."]);
        git(&scene.clone, &["commit", "--quiet", "-m", &format!("commit {i}\n\nwhy")]);
    }
    let subjects = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|c| c["message"].as_str().unwrap().to_owned()).collect()
    };
    let page = client.get("/git/log?repo=up&size=2").await.expect(200).json();
    assert_eq!(subjects(&page), ["commit 4\n\nwhy", "commit 3\n\nwhy"]);
    git(&scene.clone, &["commit", "--quiet", "--allow-empty", "-m", "meanwhile"]);
    let next = page["next"].as_str().unwrap();
    let page = client.get(&format!("/git/log?repo=up&size=4&after={next}")).await.expect(200).json();
    assert_eq!(subjects(&page), ["commit 2\n\nwhy", "commit 1\n\nwhy", "commit 0\n\nwhy", "first"]);
    assert_eq!(page["next"], Value::Null);
    assert_eq!(page["items"][3]["parents"], json!([]));
    let of_path = client.get("/git/log?repo=up&path=other&ref=HEAD~1").await.expect(200).json();
    assert_eq!(subjects(&of_path), ["commit 3\n\nwhy"]);
    for (query, field) in [
        ("size=0", "size"),
        ("size=201", "size"),
        ("ref=-x", "ref"),
        ("ref=", "ref"),
        ("after=x", "after"),
        ("path=../x", "path"),
        ("path=%5Cx", "path"),
        ("color=red", "color"),
    ] {
        client.get(&format!("/git/log?repo=up&{query}")).await.expect_bad(field);
    }
    client.get("/git/log?repo=up&ref=nothing").await.expect(404);
    client.get("/git/log?repo=no").await.expect(404);
}

#[tokio::test]
async fn what_a_repository_is_configured_to_run_has_no_say_in_its_history() {
    let scene = Scene::new().await;
    let client = &scene.runner.client;
    let trap = scene.session.directory().join("trap");
    std::fs::write(scene.clone.join(".git/hooks-evil"), "").unwrap();
    for (key, value) in [
        ("log.showSignature", "true"),
        ("gpg.program", "/bin/false"),
        ("log.mailmap", "true"),
        ("mailmap.file", "/dev/zero"),
        ("format.pretty", "oneline"),
        ("core.pager", "touch trap"),
        ("core.hooksPath", ".git"),
        ("branch.autoSetupMerge", "always"),
        ("log.diffMerges", "on"),
        ("color.ui", "always"),
        ("log.decorate", "full"),
    ] {
        git(&scene.clone, &["config", key, value]);
    }
    let log = client.get("/git/log?repo=up").await.expect(200).json();
    assert_eq!(log["items"][0]["message"], "first");
    client.get("/git/list-branches?repo=up").await.expect(200);
    assert!(!trap.exists());
    // A pipe where git reads.
    std::fs::remove_file(scene.clone.join(".git/HEAD")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, scene.clone.join(".git/HEAD"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let (log, branches) = tokio::join!(client.get("/git/log?repo=up"), client.get("/git/list-branches?repo=up"));
    log.expect(409);
    branches.expect(409);
}

#[tokio::test]
async fn branches_are_listed_and_made_and_changes_stay_when_they_are_switched_to() {
    let scene = Scene::new().await;
    let client = &scene.runner.client;
    let head = git(&scene.clone, &["rev-parse", "HEAD"]).trim().to_owned();
    let create = async |body: Value| {
        let mut all = json!({ "repo": "up" });
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        client.send("POST", "/git/create-branch", all).await
    };
    // What is refused leaves no branch behind.
    std::fs::write(scene.clone.join(".git/HEAD.lock"), "").unwrap();
    create(json!({ "name": "topic/one", "switch": true })).await.expect(409);
    std::fs::remove_file(scene.clone.join(".git/HEAD.lock")).unwrap();
    let made = create(json!({ "name": "topic/one" })).await.expect(200).json();
    assert_eq!(made, json!({ "branch": "topic/one", "commit": head, "created": true, "switched": false }));
    std::fs::write(scene.clone.join("README.md"), "changed\n").unwrap();
    let made = create(json!({ "name": "two", "switch": true })).await.expect(200).json();
    assert_eq!((&made["created"], &made["switched"]), (&json!(true), &json!(true)));
    assert_eq!(std::fs::read_to_string(scene.clone.join("README.md")).unwrap(), "changed\n");
    let again = create(json!({ "name": "two", "switch": true })).await.expect(200).json();
    assert_eq!(again["created"], false);
    git(&scene.clone, &["commit", "--quiet", "-am", "second"]);
    create(json!({ "name": "topic/one" })).await.expect(409);
    create(json!({ "name": "three", "from": "origin/main" })).await.expect(200);
    std::fs::write(scene.clone.join("README.md"), "changed again\n").unwrap();
    let refused = create(json!({ "name": "four", "from": "main", "switch": true })).await.expect(409).json();
    assert!(refused["reason"].as_str().unwrap().contains("README.md"), "{refused}");
    assert_eq!(std::fs::read_to_string(scene.clone.join("README.md")).unwrap(), "changed again\n");
    for (body, field) in [
        (json!({ "name": "-x" }), "name"),
        (json!({ "name": "a..b" }), "name"),
        (json!({ "name": "x", "from": "--all" }), "from"),
        (json!({ "name": "x", "force": true }), "force"),
    ] {
        create(body).await.expect_bad(field);
    }
    create(json!({ "name": "x", "from": "nothing" })).await.expect(404);
    let list = client.get("/git/list-branches?repo=up").await.expect(200).json();
    let names = |branches: &Value| -> Vec<String> {
        let mut names: Vec<_> =
            branches.as_array().unwrap().iter().map(|branch| branch["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&list["local"]), ["main", "three", "topic/one", "two"]);
    assert_eq!((names(&list["origin"]), &list["branch"]), (vec!["main".to_owned()], &json!("two")));
    let two = list["local"].as_array().unwrap().iter().find(|branch| branch["name"] == "two").unwrap();
    assert_eq!(two["subject"], "second");
}

#[tokio::test]
async fn a_diff_can_be_of_one_file_and_of_what_is_staged_or_not() {
    let scene = Scene::new().await;
    let client = &scene.runner.client;
    let odd = OsStr::from_bytes(b"odd\xff*");
    std::fs::write(scene.clone.join("README.md"), "staged\n").unwrap();
    std::fs::write(scene.clone.join(odd), "odd\n").unwrap();
    git(&scene.clone, &["add", "README.md"]);
    std::fs::write(scene.clone.join("README.md"), "staged\nand not\n").unwrap();
    let index = std::fs::read(scene.clone.join(".git/index")).unwrap();
    let diff = async |query: &str| client.get(&format!("/git/diff?repo=up&{query}")).await.expect(200).text();
    let staged = diff("changes=staged").await;
    assert!(staged.contains("-hello\n+staged\n") && !staged.contains("and not") && !staged.contains("odd"), "{staged}");
    let unstaged = diff("changes=unstaged").await;
    assert!(unstaged.contains(" staged\n+and not\n") && unstaged.contains("+odd\n"), "{unstaged}");
    let all = diff("").await;
    assert!(all.contains("-hello\n+staged\n+and not\n") && all.contains("+odd\n"), "{all}");
    let one = diff("path=odd%5Cxff%2A").await;
    assert!(one.contains("+odd\n") && !one.contains("README"), "{one}");
    assert_eq!(diff("path=odd%2A").await, "", "no patterns");
    let one = diff("path=README.md&changes=unstaged&").await;
    assert!(one.contains("+and not\n") && !one.contains("+odd\n"), "{one}");
    // Nothing the agent's index hides is hidden.
    git(&scene.clone, &["update-index", "--assume-unchanged", "README.md"]);
    assert!(diff("changes=unstaged").await.contains("+and not\n"));
    git(&scene.clone, &["update-index", "--no-assume-unchanged", "README.md"]);
    client.get("/git/diff?repo=up&changes=some").await.expect(400);
    client.get("/git/diff?repo=up&changes=staged&base=HEAD").await.expect(409);
    client.get("/git/diff?repo=up&path=../x").await.expect_bad("path");
    let status = scene.status().await.expect(200).json();
    assert_eq!(status["files"][1]["path"], r"odd\xff*");
    assert_eq!(index.len(), std::fs::read(scene.clone.join(".git/index")).unwrap().len());
}
