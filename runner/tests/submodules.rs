//! Submodules: fetched as a session asks, and what is reported about missing ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::path::PathBuf;

use harness::{Runner, Session, git, run};
use serde_json::{Value, json};

/// A repository with a commit for every line of a history, beside the origins; its URL.
fn origin(session: &Session, name: &str, commits: usize) -> String {
    let url = session.origin(name);
    let work = session.directory().join(name);
    for n in 1..commits {
        std::fs::write(work.join("README.md"), format!("{name} {n}\n")).unwrap();
        git(&work, &["commit", "--quiet", "-a", "-m", &n.to_string()]);
    }
    publish(session, name);
    url
}

fn publish(session: &Session, name: &str) {
    let bare = session.directory().join(format!("{name}.git"));
    git(&session.directory().join(name), &["push", "--quiet", &bare.to_string_lossy(), "main"]);
}

/// Adds a submodule at its origin's newest commit, as `git submodule add` does, whatever its address.
fn add(session: &Session, to: &str, name: &str, path: &str, url: &str, from: &str) {
    let work = session.directory().join(to);
    let commit = git(&session.directory().join(from), &["rev-parse", "HEAD"]);
    for (key, value) in [("path", path), ("url", url)] {
        git(&work, &["config", "--file", ".gitmodules", &format!("submodule.{name}.{key}"), value]);
    }
    git(&work, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
    git(&work, &["add", ".gitmodules"]);
    git(&work, &["commit", "--quiet", "-m", &format!("adds {path}")]);
    publish(session, to);
}

/// An outer repository with an inner one, which has one in turn.
fn nested(session: &Session) -> String {
    let url = origin(session, "up", 1);
    for name in ["part", "deep"] {
        origin(session, name, 3);
    }
    add(session, "part", "deep", "lib/deep", "../deep.git", "deep");
    add(session, "up", "the part", "parts/part", "../part.git", "part");
    url
}

async fn clone(runner: &Runner, url: &str, how: &str) -> Value {
    runner.client.send("PUT", "/repos/up", json!({ "url": url, "submodules": how })).await.expect(200).json()
}

async fn files(runner: &Runner) -> Value {
    runner.client.get("/git/status?repo=up").await.expect(200).json()["files"].clone()
}

fn place(session: &Session, path: &str) -> PathBuf {
    session.paths.workspace().join("up").join(path)
}

#[tokio::test]
async fn recursive_fetches_all_with_history_as_git_lays_it_out() {
    let session = Session::new(true);
    let url = nested(&session);
    let runner = session.start().await;
    let repo = clone(&runner, &url, "recursive").await;
    assert_eq!(repo.get("notices"), None, "{repo}");
    assert_eq!(std::fs::read_to_string(place(&session, "parts/part/README.md")).unwrap(), "part 2\n");
    assert_eq!(std::fs::read_to_string(place(&session, "parts/part/lib/deep/README.md")).unwrap(), "deep 2\n");
    assert!(place(&session, ".git/modules/the part/modules/deep/HEAD").is_file());
    assert_eq!(files(&runner).await, json!([]));
    let said = run(
        &runner,
        "look",
        "git status --porcelain; git submodule status --recursive; git -C parts/part log --oneline | wc -l\n\
         cd parts/part/lib/deep; git log --oneline | wc -l; git remote get-url origin; git fsck && echo whole",
    )
    .await;
    let lines: Vec<_> = said.lines().filter(|line| !line.starts_with("Checking")).collect();
    assert!(lines[0].starts_with(' ') && lines[0].contains("parts/part"), "{said}");
    assert!(lines[1].starts_with(' ') && lines[1].contains("lib/deep"), "{said}");
    let deep = format!("file://{}/deep.git", session.directory().display());
    assert_eq!(lines[2..], ["4", "3", &deep, "whole"], "{said}");

    // A pointer to a commit that nobody has is pushed, but not in silence.
    run(&runner, "work", "cd parts/part; git commit -q --allow-empty -m mine; cd ../..; git commit -qam moved").await;
    let push = json!({ "repo": "up", "branch": "out" });
    let pushed = runner.client.send("POST", "/git/push", push.clone()).await.expect(200).json();
    let notice = pushed["notices"][0].as_str().unwrap();
    assert!(notice.contains("parts/part") && notice.contains("does not have"), "{pushed}");
    // One that its origin has got since is no matter.
    let part = session.directory().join("part");
    git(&part, &["commit", "--quiet", "--allow-empty", "-m", "theirs"]);
    publish(&session, "part");
    let theirs = git(&part, &["rev-parse", "HEAD"]);
    run(&runner, "theirs", &format!("git update-index --cacheinfo 160000,{theirs},parts/part; git commit -qm theirs"))
        .await;
    let pushed = runner.client.send("POST", "/git/push", push).await.expect(200).json();
    let checked_out = "submodule parts/part has 1 commit that its origin does not have";
    assert_eq!(pushed["notices"], json!([checked_out]), "{pushed}");

    runner.client.send("DELETE", "/repos/up", json!({})).await.expect(204);
    assert!(!session.paths.mirrors().join("up.modules").exists());
}

#[tokio::test]
async fn shallow_fetches_the_recorded_commits_alone_and_none_fetches_nothing() {
    let session = Session::new(true);
    let url = nested(&session);
    // The recorded one is no branch's newest by now.
    let part = session.directory().join("part");
    git(&part, &["commit", "--quiet", "--allow-empty", "-m", "later"]);
    publish(&session, "part");
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", json!({ "url": url, "submodules": "some" })).await.expect(400);
    let repo = clone(&runner, &url, "none").await;
    assert!(repo["notices"][0].as_str().unwrap().contains("submodules"), "{repo}");
    assert_eq!(std::fs::read_dir(place(&session, "parts/part")).unwrap().count(), 0);
    let told = clone(&runner, &url, "shallow").await;
    assert!(told["notices"][1].as_str().unwrap().contains("when it was cloned"), "{told}");
    // One that was fetched by others is no less a submodule.
    git(&place(&session, ""), &["-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init"]);
    let status = runner.client.get("/git/status?repo=up").await.expect(200).json();
    assert_eq!((&status["files"], &status["left_out"]), (&json!([]), &json!([])));
    runner.client.send("DELETE", "/repos/up", json!({})).await.expect(204);

    let repo = clone(&runner, &url, "shallow").await;
    let notice = repo["notices"][0].as_str().unwrap();
    assert!(notice.contains("parts/part: submodules of submodules"), "{repo}");
    assert_eq!(std::fs::read_to_string(place(&session, "parts/part/README.md")).unwrap(), "part 2\n");
    assert_eq!(std::fs::read_dir(place(&session, "parts/part/lib/deep")).unwrap().count(), 0);
    let said = run(
        &runner,
        "look",
        "git status --porcelain; cd parts/part; git log --oneline | wc -l; git status --porcelain",
    )
    .await;
    assert_eq!(said, "1\n");
    // It can be worked in.
    let said =
        run(&runner, "work", "cd parts/part; git commit -q --allow-empty -m more && git log --oneline | wc -l").await;
    assert_eq!(said, "1\n2\n");
}

#[tokio::test]
async fn what_a_repository_says_of_its_submodules_leads_nowhere_a_session_may_not_go() {
    let session = Session::new(true);
    let url = origin(&session, "up", 1);
    let good = origin(&session, "part", 1);
    let proof = session.directory().join("proof");
    let touch = format!("touch {}", proof.display());
    let inside = format!("file://{}", session.paths.root.display());
    let mirror = format!("file://{}/up.git", session.paths.mirrors().display());
    let linked = session.directory().join("linked.git");
    std::os::unix::fs::symlink(session.paths.mirrors().join("up.git"), &linked).unwrap();
    let linked = format!("file://{}", linked.display());
    let (upload, ext) = (format!("--upload-pack={touch}"), format!("ext::sh -c '{touch}'"));
    let bad = [
        ("inside", inside.as_str()),
        ("mirror", &mirror),
        ("linked", &linked),
        ("upload", &upload),
        ("ext", &ext),
        ("ssh", "ssh://-oProxyCommand=x/y"),
        ("up", "../../../../../../../../../../etc"),
        ("secret", "https://me:s3cret@127.0.0.1/x"),
        ("plain", "http://127.0.0.1/x"),
        ("nowhere", "../nowhere.git"),
    ];
    for (name, url) in bad {
        add(&session, "up", name, &format!("bad/{name}"), url, "part");
    }
    // Names that would lead elsewhere below `.git/modules`.
    for (n, name) in ["../../hooks", "in/objects", "a/../../b", ".git", "-x"].into_iter().enumerate() {
        add(&session, "up", name, &format!("named/{n}"), &good, "part");
    }
    add(&session, "up", "in", "good/in", &good, "part");
    add(&session, "up", "lost", "bad/lost", &good, "up");
    let work = session.directory().join("up");
    git(&work, &["config", "--file", ".gitmodules", "include.path", "/etc/passwd"]);
    git(&work, &["add", ".gitmodules"]);
    git(&work, &["commit", "--quiet", "-m", "includes"]);
    publish(&session, "up");
    let runner = session.start().await;
    let repo = clone(&runner, &url, "recursive").await;
    let notice = repo["notices"].to_string();
    assert!(
        notice.contains("submodules are not all here") && notice.contains("12 more") && !notice.contains("s3cret"),
        "{repo}"
    );
    assert!(!proof.exists());
    assert_eq!(std::fs::read_to_string(place(&session, "good/in/README.md")).unwrap(), "hello\n");
    for (name, _) in bad {
        let there = std::fs::read_dir(place(&session, &format!("bad/{name}")));
        assert!(there.is_ok_and(|mut there| there.next().is_none()), "{name}: {repo}");
    }
    for n in 0..5 {
        assert_eq!(std::fs::read_dir(place(&session, &format!("named/{n}"))).unwrap().count(), 0, "{n}");
    }
    let modules = place(&session, ".git/modules");
    let there: Vec<_> = std::fs::read_dir(&modules).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(there, ["in"]);
    assert!(!place(&session, ".git/hooks").exists());
}

#[tokio::test]
async fn a_repository_that_is_its_own_submodule_and_one_with_hundreds_come_to_an_end() {
    let session = Session::new(true);
    let url = origin(&session, "up", 1);
    // Every level points to the one before, in the same origin.
    for _ in 0..12 {
        add(&session, "up", "again", "again", "./", "up");
    }
    let runner = session.start().await;
    let repo = clone(&runner, &url, "recursive").await;
    assert!(repo["notices"][0].as_str().unwrap().contains("more than 8 levels"), "{repo}");
    runner.client.send("DELETE", "/repos/up", json!({})).await.expect(204);

    let work = session.directory().join("up");
    let commit = git(&work, &["rev-parse", "HEAD"]);
    let mut modules = String::new();
    for n in 0..130 {
        git(&work, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},many/{n:03}")]);
        modules += &format!("[submodule \"{n}\"]\n\tpath = many/{n:03}\n\turl = ../missing.git\n");
    }
    std::fs::write(work.join(".gitmodules"), modules).unwrap();
    git(&work, &["add", ".gitmodules"]);
    git(&work, &["commit", "--quiet", "-m", "many"]);
    publish(&session, "up");
    let repo = clone(&runner, &url, "shallow").await;
    assert!(repo["notices"][0].as_str().unwrap().contains("127 more"), "{repo}");
    std::fs::write(work.join(".gitmodules"), "#".repeat(300 * 1024)).unwrap();
    git(&work, &["add", ".gitmodules"]);
    git(&work, &["commit", "--quiet", "-m", "large"]);
    publish(&session, "up");
    runner.client.send("DELETE", "/repos/up", json!({})).await.expect(204);
    let repo = clone(&runner, &url, "shallow").await;
    assert!(repo["notices"][0].as_str().unwrap().contains(".gitmodules is not a file"), "{repo}");
}

/// What is told of submodules: by a status, as the head of a diff, and at a push.
async fn told(runner: &Runner) -> [Value; 2] {
    let status = runner.client.get("/git/status?repo=up").await.expect(200).json()["left_out"].clone();
    let body = json!({ "repo": "up", "branch": "told" });
    let pushed = runner.client.send("POST", "/git/push", body).await.expect(200).json();
    runner.client.get("/git/diff?repo=up").await.expect(200);
    [status, pushed.get("notices").cloned().unwrap_or_default()]
}

#[tokio::test]
async fn work_in_a_submodule_is_named_at_any_depth_and_clean_ones_are_not() {
    let session = Session::new(true);
    let url = nested(&session);
    origin(&session, "other", 1);
    add(&session, "up", "other", "other", "../other.git", "other");
    let runner = session.start().await;
    clone(&runner, &url, "recursive").await;
    assert_eq!(told(&runner).await, [json!([]), Value::Null]);
    // Nothing of what a submodule says of itself runs or hides anything.
    let proof = session.directory().join("proof");
    let trap = format!("touch {}; cat", proof.display());
    let deep = place(&session, "parts/part/lib/deep");
    std::fs::write(deep.join("README.md"), "changed\n").unwrap();
    for (key, value) in [
        ("core.fsmonitor", trap.as_str()),
        ("filter.x.clean", &trap),
        ("status.showUntrackedFiles", "no"),
        ("core.worktree", "/usr/share"),
    ] {
        git(
            &deep,
            &[
                "config",
                "--file",
                &place(&session, ".git/modules/the part/modules/deep/config").to_string_lossy(),
                key,
                value,
            ],
        );
    }
    let info = place(&session, ".git/modules/the part/modules/deep/info");
    std::fs::create_dir_all(&info).unwrap();
    std::fs::write(info.join("exclude"), "*\n").unwrap();
    std::fs::write(info.join("attributes"), "* filter=x\n").unwrap();
    std::fs::write(deep.join("new"), "new\n").unwrap();
    let said =
        run(&runner, "work", "cd parts/part; git commit -q --allow-empty -m mine; git commit -q --allow-empty -m more")
            .await;
    assert_eq!(said, "");
    let [status, notices] = told(&runner).await;
    let expected = json!([
        { "path": "parts/part", "reason": "submodule", "submodule": { "uncommitted": 0, "unpublished": 2 } },
        { "path": "parts/part/lib/deep", "reason": "submodule", "submodule": { "uncommitted": 2, "unpublished": 0 } },
    ]);
    assert_eq!(status, expected);
    let expected = json!([
        "submodule parts/part has 2 commits that its origin does not have",
        "submodule parts/part/lib/deep has 2 changed files that are not committed in it",
    ]);
    assert_eq!(notices, expected);
    assert!(!proof.exists());
    // Said once, where the push points to them.
    run(&runner, "point", "git commit -qam moved").await;
    let [_, notices] = told(&runner).await;
    assert_eq!(notices.as_array().unwrap().len(), 2, "{notices}");
    assert!(notices[0].as_str().unwrap().starts_with("submodule parts/part is at commit"), "{notices}");
}

#[tokio::test]
async fn damaged_submodules_are_named_and_hide_nothing_of_the_rest() {
    let session = Session::new(true);
    let url = nested(&session);
    let runner = session.start().await;
    let states: [(&str, &str); 5] = [
        ("no repository", "rm -r '.git/modules/the part'"),
        ("no HEAD", "echo none > '.git/modules/the part/HEAD'"),
        ("a pipe", "rm '.git/modules/the part/HEAD'; mkfifo '.git/modules/the part/HEAD'"),
        ("no commit", "git -C parts/part checkout -q --orphan none"),
        ("no .git", "rm parts/part/.git"),
    ];
    for (name, damage) in states {
        clone(&runner, &url, "shallow").await;
        run(&runner, name, &format!("{damage}\necho fine > fine")).await;
        let [status, notices] = told(&runner).await;
        let unknown = json!({ "uncommitted": null, "unpublished": null });
        assert_eq!(status, json!([{ "path": "parts/part", "reason": "submodule", "submodule": unknown }]), "{name}");
        assert!(notices[0].as_str().unwrap().contains("parts/part cannot be inspected"), "{name}: {notices}");
        let diff = runner.client.get("/git/diff?repo=up").await.expect(200).text();
        assert!(diff.contains("+fine") && !diff.contains("parts"), "{name}: {diff}");
        runner.client.send("DELETE", "/repos/up", json!({})).await.expect(204);
    }
}
