//! Whatever a repository in the workspace says about itself, and whatever state it is in: changes are reported, and what cannot be
//! determined is reported as such, with the reason, in time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::{Duration, Instant},
};

use harness::{Session, git, scene::Scene};
use rustix::fs::{CWD, FileType, mknodat};
use serde_json::{Value, json};

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, 0o666.into(), 0).unwrap();
}

fn paths(status: &Value) -> Vec<String> {
    status["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn nothing_that_a_repository_says_hides_a_change() {
    let mut scene = Scene::new().await;
    let clone = scene.clone.clone();
    let home = scene.session.paths.home();
    let config = |pairs: &[(&str, &str)]| {
        for (key, value) in pairs {
            git(&clone, &["config", key, value]);
        }
    };
    let write = |name: &str, text: &str| {
        let path = clone.join(".git").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let hello = clone.join("clean.sh");
    let tricks: [(&str, &dyn Fn()); 14] = [
        ("worktree", &|| config(&[("core.worktree", "/usr/share")])),
        ("bare", &|| config(&[("core.bare", "true")])),
        ("skip-worktree", &|| drop(git(&clone, &["update-index", "--skip-worktree", "README.md"]))),
        ("assume-unchanged", &|| drop(git(&clone, &["update-index", "--assume-unchanged", "README.md"]))),
        ("split index", &|| drop(git(&clone, &["update-index", "--split-index", "--skip-worktree", "README.md"]))),
        ("sparse checkout", &|| {
            config(&[("core.sparseCheckout", "true"), ("core.sparseCheckoutCone", "false")]);
            write("info/sparse-checkout", "/nothing\n");
            git(&clone, &["update-index", "--skip-worktree", "README.md"]);
        }),
        ("excludes", &|| {
            write("info/exclude", "*\n");
            config(&[("core.excludesFile", &clone.join(".git/info/exclude").to_string_lossy())]);
        }),
        ("home", &|| {
            std::fs::create_dir_all(home.join(".config/git")).unwrap();
            std::fs::write(home.join(".config/git/ignore"), "*\n").unwrap();
            std::fs::write(home.join(".config/git/attributes"), "* -diff\n").unwrap();
        }),
        ("filter", &|| {
            std::fs::write(&hello, "#!/bin/sh\ncat >/dev/null; echo hello\n").unwrap();
            std::fs::set_permissions(&hello, std::fs::Permissions::from_mode(0o755)).unwrap();
            config(&[("filter.x.clean", &hello.to_string_lossy()), ("filter.x.required", "true")]);
            write("info/attributes", "README.md filter=x -diff\nnew filter=x -diff\n");
        }),
        ("hanging filter", &|| {
            config(&[("filter.x.clean", "sleep 1000"), ("filter.x.process", "sleep 1000")]);
            write("info/attributes", "* filter=x\n");
        }),
        ("status", &|| {
            config(&[
                ("status.showUntrackedFiles", "no"),
                ("core.checkStat", "minimal"),
                ("core.trustctime", "false"),
                ("core.fileMode", "false"),
                ("core.symlinks", "false"),
                ("core.ignoreCase", "true"),
                ("core.autocrlf", "input"),
                ("core.fsmonitor", "/bin/true"),
                ("core.untrackedCache", "true"),
                ("diff.ignoreSubmodules", "all"),
                ("diff.orderFile", "/dev/zero"),
            ]);
        }),
        ("damaged index", &|| write("index", "this is no index")),
        ("locked index", &|| write("index.lock", "")),
        ("worktree configuration", &|| {
            config(&[("core.repositoryFormatVersion", "1"), ("extensions.worktreeConfig", "true")]);
            write("config.worktree", "[core]\n\tworktree = /usr/share\n\tbare = true\n");
        }),
    ];
    for (name, trick) in tricks {
        scene.again().await;
        let _ = std::fs::remove_dir_all(home.join(".config"));
        trick();
        // Of the same length and time: what a stat tells has not changed either.
        let about = std::fs::metadata(clone.join("README.md")).unwrap().modified().unwrap();
        std::fs::write(clone.join("README.md"), "HELLO\n").unwrap();
        std::fs::File::options().write(true).open(clone.join("README.md")).unwrap().set_modified(about).unwrap();
        std::fs::write(clone.join("new"), "new\n").unwrap();
        let status = scene.status().await.expect(200).json();
        for path in ["README.md", "new"] {
            assert!(paths(&status).contains(&path.to_owned()), "{name}: {status}");
        }
        let diff = scene.diff().await.expect(200).text();
        assert!(diff.contains("+HELLO") && diff.contains("+new"), "{name}: {diff}");
        let snapshots = scene.turn("true").await;
        let failed = harness::of_type(&snapshots, "repo.snapshot_failed");
        assert!(failed.is_empty(), "{name}: {failed:?}");
        let patch = harness::of_type(&snapshots, "repo.snapshot")[0]["patch"].as_str().unwrap();
        assert!(patch.contains("+HELLO") && patch.contains("+new"), "{name}: {patch}");
    }
}

#[tokio::test]
async fn a_commit_holds_what_was_shown_whatever_the_index_says() {
    let scene = Scene::new().await;
    git(&scene.clone, &["update-index", "--skip-worktree", "README.md"]);
    std::fs::write(scene.clone.join("README.md"), "HELLO\n").unwrap();
    let body = json!({ "repo": "up", "message": "all" });
    let commit = scene.runner.client.send("POST", "/git/commit", body.clone()).await.expect(200).json();
    assert_eq!(git(&scene.clone, &["show", "HEAD:README.md"]), "HELLO");
    assert_eq!(commit["commit"], git(&scene.clone, &["rev-parse", "HEAD"]));
    assert_eq!(git(&scene.clone, &["status", "--porcelain"]), "");
    // A lock that was left: nothing is done, and it is named.
    std::fs::write(scene.clone.join(".git/index.lock"), "").unwrap();
    std::fs::write(scene.clone.join("more"), "more\n").unwrap();
    let refused = scene.runner.client.send("POST", "/git/commit", body).await.expect(409).text();
    assert!(refused.contains("index.lock"), "{refused}");
}

#[tokio::test]
async fn a_sparse_checkout_deletes_nothing_and_hides_no_file_that_is_there() {
    let mut scene = Scene::new().await;
    let clone = scene.clone.clone();
    let read = |path: &str| git(&clone, &["show", &format!("HEAD:{path}")]);
    for path in ["in/one", "out/deep/two", "out/three", "gone/four"] {
        std::fs::create_dir_all(clone.join(path).parent().unwrap()).unwrap();
        std::fs::write(clone.join(path), format!("{path}\n")).unwrap();
    }
    git(&clone, &["add", "."]);
    git(&clone, &["commit", "--quiet", "-m", "files"]);
    git(&clone, &["sparse-checkout", "set", "in", "gone"]);
    assert!(!clone.join("out").exists());
    std::fs::write(clone.join("in/one"), "changed\n").unwrap();
    std::fs::remove_dir_all(clone.join("gone")).unwrap();
    let status = scene.status().await.expect(200).json();
    assert_eq!(paths(&status), ["gone/four", "in/one"]);
    assert_eq!(status["left_out"], json!([{ "path": "out", "reason": "not_checked_out" }]));
    let records = scene.turn("true").await;
    let patch = harness::of_type(&records, "repo.snapshot")[0]["patch"].as_str().unwrap();
    assert!(patch.contains("+changed") && patch.contains("+out/three"), "{patch}");
    // A file that is there is looked at, whatever the marks say.
    std::fs::create_dir(clone.join("out")).unwrap();
    std::fs::write(clone.join("out/three"), "put there\n").unwrap();
    let status = scene.status().await.expect(200).json();
    assert_eq!(paths(&status), ["gone/four", "in/one", "out/three"]);
    assert_eq!(status["left_out"], json!([{ "path": "out/deep", "reason": "not_checked_out" }]));
    assert_eq!(scene.push("out").await.expect(200).json()["uncommitted"], 3);
    let body = json!({ "repo": "up", "message": "all" });
    scene.runner.client.send("POST", "/git/commit", body).await.expect(200);
    assert_eq!(
        (read("in/one"), read("out/deep/two"), read("out/three")),
        ("changed".into(), "out/deep/two".into(), "put there".into())
    );
    assert_eq!(git(&clone, &["status", "--porcelain"]), "");
}

#[tokio::test]
async fn files_with_a_filter_are_shown_as_they_are_and_named() {
    let scene = Scene::new().await;
    std::fs::write(scene.clone.join(".gitattributes"), "*.x filter=x\n").unwrap();
    git(&scene.clone, &["config", "filter.x.clean", "echo nothing"]);
    std::fs::write(scene.clone.join("a.x"), "content\n").unwrap();
    let diff = scene.diff().await.expect(200);
    assert!(diff.text().contains("+content") && diff.head.contains("filter"), "{}", diff.head);
    let left_out = &scene.status().await.expect(200).json()["left_out"];
    assert_eq!(left_out, &json!([{ "path": "a.x", "reason": "filter" }]));
}

#[tokio::test]
async fn a_repository_that_cannot_be_used_is_a_conflict_with_the_reason() {
    let scene = Scene::new().await;
    let clone = scene.clone.clone();
    let dot_git = clone.join(".git");
    let in_tree = || {
        let blob = git(&clone, &["rev-parse", "HEAD:README.md"]);
        let raw = scene.session.directory().join("tree");
        let id: Vec<u8> = (0..20).map(|i| u8::from_str_radix(&blob[2 * i..2 * i + 2], 16).unwrap()).collect();
        std::fs::write(&raw, [b"100644 .GIT\0".as_slice(), &id].concat()).unwrap();
        let tree = git(&clone, &["hash-object", "-t", "tree", "-w", "--literally", &raw.to_string_lossy()]);
        let commit = git(&clone, &["commit-tree", &tree, "-m", "evil"]);
        git(&clone, &["update-ref", "HEAD", &commit]);
    };
    let states: [(&str, &dyn Fn()); 6] = [
        ("HEAD", &|| std::fs::remove_file(dot_git.join("HEAD")).unwrap()),
        ("config", &|| std::fs::write(dot_git.join("config"), "[core\n").unwrap()),
        ("objects", &|| std::fs::remove_file(dot_git.join("objects/info/alternates")).unwrap()),
        ("nothing", &|| std::fs::remove_dir_all(&dot_git).unwrap()),
        ("a link", &|| {
            std::fs::rename(&dot_git, clone.join("aside")).unwrap();
            symlink("/nowhere", &dot_git).unwrap();
        }),
        (".GIT", &in_tree),
    ];
    for (name, state) in states {
        scene.again().await;
        state();
        for answer in [scene.status().await, scene.diff().await] {
            let (status, text) = (answer.status, answer.text());
            assert_eq!(status, 409, "{name}: {text}");
            assert!(text.contains("git ") && text.contains("failed: "), "{name}: {text}");
        }
        // What the origin has anyway needs nothing of the workspace.
        let pushed = if name == "objects" { 200 } else { 409 };
        assert_eq!(scene.push("b").await.status, pushed, "{name}");
    }
    // In the working tree it is left out, and named.
    scene.again().await;
    std::fs::create_dir(clone.join(".GIT")).unwrap();
    std::fs::write(clone.join(".GIT/config"), "x").unwrap();
    std::fs::write(clone.join("fine"), "fine\n").unwrap();
    let diff = scene.diff().await.expect(200).text();
    assert!(diff.contains("+fine") && !diff.contains(".GIT"), "{diff}");
    let left_out = &scene.status().await.expect(200).json()["left_out"];
    assert_eq!(left_out, &json!([{ "path": ".GIT", "reason": "name" }]));
}

#[tokio::test]
async fn what_hangs_is_named_before_the_server_gives_up() {
    let scene = Scene::new().await;
    let begin = Instant::now();
    pipe(&scene.clone.join(".gitignore"));
    for answer in [scene.status().await, scene.diff().await] {
        assert!(answer.expect(409).text().contains("'.gitignore' is not a file, and git could wait"));
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    std::fs::remove_file(scene.clone.join(".gitignore")).unwrap();
    std::fs::remove_file(scene.clone.join(".git/HEAD")).unwrap();
    pipe(&scene.clone.join(".git/HEAD"));
    let begin = Instant::now();
    let (status, diff, list) = tokio::join!(scene.status(), scene.diff(), scene.runner.client.get("/repos"));
    for answer in [status, diff] {
        let text = answer.expect(409).text();
        assert!(text.contains("git ") && text.contains("did not end within 15 s"), "{text}");
    }
    let list = list.expect(200).json();
    assert!(list[0]["notices"][0].as_str().unwrap().contains("no answer within"), "{list}");
    assert!(begin.elapsed() < Duration::from_secs(28), "less than whoever asks waits");
}

#[tokio::test]
async fn a_pipe_where_git_reads_attributes_is_named_at_once_and_the_next_push_goes_on() {
    let scene = Scene::new().await;
    git(&scene.clone, &["commit", "-q", "--allow-empty", "-m", "one"]);
    for place in [".gitattributes", ".git/info/attributes"] {
        let path = scene.clone.join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&path);
        pipe(&path);
        let began = Instant::now();
        let refused = scene.push("out").await.expect(409).json();
        assert!(
            refused["reason"].as_str().unwrap().contains(place) && began.elapsed() < Duration::from_secs(20),
            "{refused}"
        );
        std::fs::remove_file(&path).unwrap();
    }
    let pushed = scene.push("out").await.expect(200).json();
    assert_eq!(pushed["commits"], 1, "{pushed}");
}

#[tokio::test]
async fn a_repository_whose_folder_is_gone_is_said_to_be_so() {
    let mut scene = Scene::new().await;
    let clone = scene.clone.clone();
    let ways: [(&str, &str); 3] = [
        ("rm -rf \"$PWD\"", "removed or renamed"),
        ("d=$PWD; cd ..; mv \"$d\" aside; echo x > \"$d\"", "something else has its name"),
        ("d=$PWD; cd ..; rm -rf aside; mv \"$d\" aside; ln -s aside \"$d\"", "something else has its name"),
    ];
    for (script, how) in ways {
        let records = scene.turn(script).await;
        let failed = harness::of_type(&records, "repo.snapshot_failed")[0];
        let reason = failed["reason"].as_str().unwrap();
        assert!(failed["repo"] == "up" && reason.contains(how), "{failed}");
        let ended = harness::of_type(&records, "turn.ended")[0];
        assert_eq!(ended["problems"], json!([{ "repo": "up", "missing": true, "reason": reason }]));
        for answer in [scene.push("b").await, scene.status().await, scene.diff().await] {
            let text = answer.expect(409).text();
            assert!(text.contains(how), "{text}");
        }
        let list = scene.runner.client.get("/repos").await.expect(200).json();
        assert!(list[0]["missing"] == true && list[0]["notices"][0].as_str().unwrap().contains(how), "{list}");
        if clone.symlink_metadata().is_ok() {
            let put = scene.runner.client.send("PUT", "/repos/up", json!({ "url": scene.url })).await.expect(409);
            assert!(put.text().contains(how), "{}", put.text());
            std::fs::remove_file(&clone).unwrap();
        }
        // It is wanted, so it is cloned again.
        scene.runner.client.send("PUT", "/repos/up", json!({ "url": scene.url })).await.expect(200);
        let records = scene.turn("true").await;
        assert_eq!(harness::of_type(&records, "turn.ended")[0]["problems"], json!([]));
    }
}

#[tokio::test]
async fn a_push_tells_how_many_commits_it_took_and_what_is_not_in_it() {
    let scene = Scene::new().await;
    let commit = || {
        git(&scene.clone, &["commit", "--quiet", "--allow-empty", "-m", "work"]);
        git(&scene.clone, &["rev-parse", "HEAD"])
    };
    let told = |pushed: Value| [pushed["commits"].clone(), pushed["created"].clone(), pushed["uncommitted"].clone()];
    // Nothing was committed.
    std::fs::write(scene.clone.join("forgotten"), "x\n").unwrap();
    assert_eq!(told(scene.push("main").await.expect(200).json()), [json!(0), json!(false), json!(1)]);
    assert_eq!(told(scene.push("other").await.expect(200).json()), [json!(0), json!(true), json!(1)]);
    std::fs::remove_file(scene.clone.join("forgotten")).unwrap();
    commit();
    let head = commit();
    let pushed = scene.push("new").await.expect(200).json();
    assert_eq!(pushed["commit"], head);
    assert_eq!(told(pushed), [json!(2), json!(true), json!(0)]);
    commit();
    assert_eq!(told(scene.push("new").await.expect(200).json()), [json!(1), json!(false), json!(0)]);
    assert_eq!(told(scene.push("main").await.expect(200).json()), [json!(3), json!(false), json!(0)]);
    assert_eq!(told(scene.push("main").await.expect(200).json()), [json!(0), json!(false), json!(0)]);
}

#[tokio::test]
async fn a_push_tells_what_stays_behind_on_other_branches_in_stashes_and_in_progress() {
    let scene = Scene::new().await;
    let run = |arguments: &[&str]| git(&scene.clone, arguments);
    let write = |text: &str| std::fs::write(scene.clone.join("README.md"), text).unwrap();
    let commit = |message: &str| run(&["commit", "--quiet", "--allow-empty", "-am", message]);
    run(&["branch", "same"]);
    run(&["checkout", "--quiet", "-b", "side"]);
    write("side\n");
    commit("one");
    commit("two");
    run(&["checkout", "--quiet", "main"]);
    for text in ["a\n", "b\n"] {
        write(text);
        run(&["stash", "--quiet"]);
    }
    let notices = |pushed: harness::Answer| pushed.expect(200).json().get("notices").cloned().unwrap_or_default();
    let stash = "a stash with 2 entries is not in the push";
    assert_eq!(notices(scene.push("out").await), json!([stash, "2 commits on branch side are not pushed"]));
    // What went to a branch of its own is pushed.
    run(&["checkout", "--quiet", "side"]);
    assert_eq!(notices(scene.push("other").await), json!([stash]));
    run(&["checkout", "--quiet", "main"]);
    run(&["stash", "drop", "--quiet"]);
    write("main\n");
    commit("mine");
    run(&["branch", "third", "side"]);
    let merge = ["-C", &scene.clone.to_string_lossy(), "merge", "--quiet", "side"].map(str::to_owned);
    assert!(!std::process::Command::new("git").args(merge).output().unwrap().status.success());
    let expected = json!([
        "a merge is in progress: what it has yet to do is not in the push",
        "a stash with 1 entry is not in the push",
    ]);
    assert_eq!(notices(scene.push("out").await), expected);
    // Whatever is wrong there is no reason against the push.
    run(&["merge", "--abort"]);
    std::fs::write(scene.clone.join(".git/refs/stash"), "none\n").unwrap();
    commit("more");
    let pushed = scene.push("out").await.expect(200).json();
    assert!(
        pushed["commits"] == 1 && pushed["notices"][0].as_str().unwrap().contains("could not determine"),
        "{pushed}"
    );
}

#[tokio::test]
async fn a_history_that_is_not_the_origins_is_pushed_with_a_remark() {
    let scene = Scene::new().await;
    git(&scene.clone, &["checkout", "--quiet", "--orphan", "other"]);
    git(&scene.clone, &["commit", "--quiet", "-m", "begins anew"]);
    let pushed = scene.push("other").await.expect(200).json();
    let remark = "branch other has no commit in common with what the origin had when it was cloned";
    assert_eq!((&pushed["commits"], &pushed["notices"]), (&json!(1), &json!([remark])));
    // One that has taken the other in is none.
    git(&scene.clone, &["checkout", "--quiet", "main"]);
    git(&scene.clone, &["merge", "--quiet", "--allow-unrelated-histories", "-m", "both", "other"]);
    assert_eq!(scene.push("both").await.expect(200).json().get("notices"), None);
}

#[tokio::test]
async fn what_a_batch_turn_leaves_running_changes_nothing_that_is_handed_in() {
    let session = Session::new(false);
    let url = session.origin("up");
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", harness::pushed(&url, "out")).await.expect(200);
    let mut reader = runner.client.events(1, "", 0).await;
    let busy = "while :; do git commit -q --allow-empty -m more; date +%N > ticks; done >/dev/null 2>&1";
    let script = format!("```\n({busy}) &\n(env -i PATH=\"$PATH\" setsid sh -c '({busy}) &')\nsleep 0.3\n```");
    runner.client.deliver("a", 1, &script).await.expect(200);
    let records = reader.until_turn_ended().await;
    let (pushed, snapshot) = (harness::of_type(&records, "repo.pushed"), harness::of_type(&records, "repo.snapshot"));
    let what: Vec<_> = records.iter().map(|record| record.event.to_string()).collect();
    assert_eq!(pushed[0]["commit"], snapshot[0]["head"], "{what:?}");
    assert_eq!(snapshot[0]["running"], 0);
}

#[tokio::test]
async fn a_snapshot_of_a_moving_tree_says_so() {
    let mut scene = Scene::new().await;
    let records = scene.turn("sleep 30 >/dev/null 2>&1 &").await;
    assert_eq!(harness::of_type(&records, "repo.snapshot")[0]["running"], 1);
}

#[tokio::test]
async fn an_origin_with_pipes_or_devices_for_files_is_refused_at_once() {
    let session = Session::new(true);
    let url = session.origin("up");
    let origin = session.directory().join("up.git");
    let runner = session.start().await;
    let begin = Instant::now();
    let places = ["packed-refs", "refs/heads/pipe", "objects/pack/x.idx", "objects/aa", "HEAD", "config", "shallow"];
    for place in places {
        let (path, aside) = (origin.join(place), session.directory().join("aside"));
        let kept = std::fs::rename(&path, &aside).is_ok();
        pipe(&path);
        let refused = runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(400);
        assert!(refused.text().contains(place), "{}", refused.text());
        std::fs::remove_file(&path).unwrap();
        if kept {
            std::fs::rename(&aside, &path).unwrap();
        }
    }
    let target = session.directory().join("pipe");
    pipe(&target);
    symlink(&target, origin.join("refs/heads/link")).unwrap();
    runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect_bad("url");
    std::fs::remove_file(origin.join("refs/heads/link")).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(15));
    runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200);
    pipe(&origin.join("refs/heads/pipe"));
    let refused = runner.client.send("POST", "/git/push", json!({ "repo": "up", "branch": "b" })).await.expect(400);
    assert!(refused.text().contains("refs/heads/pipe"), "{}", refused.text());
}
