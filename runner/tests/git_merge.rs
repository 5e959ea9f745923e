//! Commits from the origin into the workspace, and the way back to the commit that was cloned.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::path::PathBuf;

use harness::{Answer, git, scene::Scene};
use serde_json::{Value, json};

struct Two {
    scene: Scene,
    /// Someone else's clone.
    other: PathBuf,
}

impl Two {
    async fn new() -> Self {
        let scene = Scene::new().await;
        let other = scene.session.directory().join("up");
        Self { scene, other }
    }

    /// Someone else pushes a commit with this file.
    fn theirs(&self, file: &str, content: &str) {
        std::fs::write(self.other.join(file), content).unwrap();
        git(&self.other, &["add", "."]);
        git(&self.other, &["commit", "--quiet", "-m", &format!("their {file}")]);
        git(&self.other, &["push", "--quiet", &self.scene.url, "main"]);
    }

    /// The agent commits this file.
    fn ours(&self, file: &str, content: &str) {
        std::fs::write(self.scene.clone.join(file), content).unwrap();
        git(&self.scene.clone, &["add", file]);
        git(
            &self.scene.clone,
            &["commit", "--quiet", "--author", "Grace <grace@example.com>", "-m", &format!("our {file}\n\nwhy")],
        );
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.scene.clone.join(file)).unwrap()
    }

    /// Everything that must not change: commit, index, files.
    fn state(&self) -> [String; 4] {
        let git = |arguments: &[&str]| git(&self.scene.clone, arguments);
        [
            git(&["rev-parse", "HEAD"]),
            git(&["symbolic-ref", "HEAD"]),
            git(&["ls-files", "--stage"]),
            git(&["diff", "HEAD"]),
        ]
    }

    async fn post(&self, what: &str, more: Value) -> Answer {
        let mut body = json!({ "repo": "up" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.scene.runner.client.send("POST", &format!("/git/{what}"), body).await
    }

    async fn merge_status(&self) -> Value {
        self.scene.runner.client.get("/git/merge-status?repo=up").await.expect(200).json()
    }
}

#[tokio::test]
async fn a_pull_goes_forward_and_changed_files_stay_as_they_are() {
    let two = Two::new().await;
    assert_eq!(two.post("pull", json!({})).await.expect(200).json()["outcome"], "up_to_date");
    two.theirs("theirs", "1\n");
    std::fs::write(two.scene.clone.join("README.md"), "not committed\n").unwrap();
    let status = two.merge_status().await;
    assert_eq!((&status["ahead"], &status["behind"], &status["conflicts"]), (&json!(0), &json!(1), &json!([])));
    let pulled = two.post("pull", json!({ "branch": "main" })).await.expect(200).json();
    assert_eq!((&pulled["outcome"], &pulled["commits"]), (&json!("fast_forward"), &json!(1)));
    assert_eq!((two.read("theirs").as_str(), two.read("README.md").as_str()), ("1\n", "not committed\n"));
    let head = git(&two.scene.clone, &["rev-parse", "HEAD"]);
    assert_eq!(git(&two.scene.clone, &["rev-parse", "origin/main"]), head);
    assert_eq!(pulled["commit"], head.trim());

    // What has changed, and what is only in the folder, is not overwritten.
    for (file, content) in [("README.md", "theirs\n"), ("new", "theirs\n")] {
        std::fs::write(two.scene.clone.join(file), "ours\n").unwrap();
        two.theirs(file, content);
        let before = two.state();
        for strategy in ["fast_forward", "merge", "rebase"] {
            let refused = two.post("pull", json!({ "strategy": strategy })).await.expect(409).json();
            assert!(refused["reason"].as_str().unwrap().contains(file), "{refused}");
        }
        assert_eq!((two.state(), two.read(file).as_str()), (before, "ours\n"));
        std::fs::remove_file(two.scene.clone.join(file)).unwrap();
        git(&two.scene.clone, &["checkout", "--quiet", "--", "."]);
        two.post("pull", json!({})).await.expect(200);
    }
    two.post("pull", json!({ "branch": "nothing" })).await.expect(404);
    two.post("pull", json!({ "branch": "-x" })).await.expect_bad("branch");
    two.post("pull", json!({ "force": true })).await.expect_bad("force");
}

#[tokio::test]
async fn commits_on_both_sides_come_together_as_asked() {
    let two = Two::new().await;
    two.ours("ours", "1\n");
    two.theirs("theirs", "1\n");
    let ours = git(&two.scene.clone, &["rev-parse", "HEAD"]);
    let before = two.state();
    let refused = two.post("pull", json!({})).await.expect(409).json();
    assert!(refused["reason"].as_str().unwrap().contains("ask for a merge or a rebase"), "{refused}");
    assert_eq!(two.state(), before);

    let merged = two.post("pull", json!({ "strategy": "merge" })).await.expect(200).json();
    assert_eq!((&merged["outcome"], &merged["before"]), (&json!("merged"), &json!(ours.trim())));
    let parents = git(&two.scene.clone, &["log", "-1", "--format=%P"]);
    assert_eq!(parents.split_whitespace().next(), Some(ours.trim()));
    assert_eq!((two.read("ours").as_str(), two.read("theirs").as_str()), ("1\n", "1\n"));
    git(&two.scene.clone, &["fsck", "--strict", "--connectivity-only"]);
    assert_eq!(git(&two.scene.clone, &["status", "--porcelain"]), "");

    git(&two.scene.clone, &["reset", "--quiet", "--hard", ours.trim()]);
    // One of ours that the origin has already, by another commit.
    two.ours("same", "1\n");
    two.theirs("same", "1\n");
    two.ours("last", "1\n");
    let rebased = two.post("pull", json!({ "strategy": "rebase" })).await.expect(200).json();
    assert_eq!(rebased["outcome"], "rebased");
    let log = git(&two.scene.clone, &["log", "--format=%an %cn %s"]);
    let expected = ["Grace Ada our last", "Grace Ada our ours", "their same", "their theirs", "first"];
    let told: Vec<_> =
        log.lines()
            .map(|line| {
                if line.contains("their") || line.contains("first") {
                    line.splitn(3, ' ').last().unwrap()
                } else {
                    line
                }
            })
            .collect();
    assert_eq!(told.len(), expected.len(), "{log}");
    assert_eq!(told[..2], expected[..2], "{log}");
    assert!(git(&two.scene.clone, &["log", "-1", "--format=%B"]).contains("why"));
    assert_eq!(git(&two.scene.clone, &["status", "--porcelain"]), "");
    let pushed = two.post("push", json!({ "branch": "main" })).await.expect(200).json();
    assert_eq!(pushed["commits"], 2);
}

#[tokio::test]
async fn conflicts_are_foretold_and_leave_everything_as_it_was() {
    let two = Two::new().await;
    let trap = two.scene.session.paths.home().join("trap");
    two.ours("README.md", "ours\n");
    two.theirs("README.md", "theirs\n");
    two.theirs("fine", "1\n");
    let before = two.state();
    // What the repository is configured to run would hide the conflict, and leave a trace.
    std::fs::write(two.scene.clone.join(".gitattributes"), "* merge=evil filter=evil\n").unwrap();
    let evil = format!("touch {}", trap.display());
    for key in ["merge.evil.driver", "merge.default", "core.fsmonitor", "core.editor", "gpg.program"] {
        git(&two.scene.clone, &["config", key, &evil]);
    }
    for hook in ["post-merge", "post-checkout", "reference-transaction", "post-rewrite", "pre-rebase"] {
        let file = two.scene.clone.join(".git/hooks").join(hook);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, format!("#!/bin/sh\n{evil}\n")).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let status = two.merge_status().await;
    assert_eq!(
        (&status["ahead"], &status["behind"], &status["conflicts"]),
        (&json!(1), &json!(2), &json!(["README.md"]))
    );
    for strategy in ["merge", "rebase"] {
        let refused = two.post("pull", json!({ "strategy": strategy })).await.expect(409).json();
        let reason = refused["reason"].as_str().unwrap();
        assert!(reason.contains("conflicts") && reason.contains("README.md"), "{reason}");
    }
    two.post("synchronize", json!({ "branch": "main", "strategy": "merge" })).await.expect(409);
    assert!(!trap.exists());
    for key in ["merge.evil.driver", "merge.default", "core.fsmonitor", "core.editor", "gpg.program"] {
        git(&two.scene.clone, &["config", "--unset", key]);
    }
    assert_eq!(two.state(), before);
    assert!(!two.scene.clone.join(".git/MERGE_HEAD").exists());

    // Nothing is done while the agent is merging itself.
    std::fs::write(two.scene.clone.join(".git/MERGE_HEAD"), git(&two.scene.clone, &["rev-parse", "HEAD"])).unwrap();
    two.post("pull", json!({ "strategy": "merge" })).await.expect(409);
    two.post("abandon", json!({})).await.expect(409);
}

#[tokio::test]
async fn a_synchronisation_pulls_and_pushes() {
    let two = Two::new().await;
    two.ours("ours", "1\n");
    two.theirs("theirs", "1\n");
    let done = two.post("synchronize", json!({ "branch": "main", "strategy": "rebase" })).await.expect(200).json();
    assert_eq!((&done["pulled"]["outcome"], &done["pushed"]["commits"]), (&json!("rebased"), &json!(1)));
    git(&two.other, &["fetch", "--quiet", &two.scene.url, "main"]);
    assert_eq!(git(&two.other, &["rev-parse", "FETCH_HEAD"]).trim(), done["pushed"]["commit"]);
    let done = two.post("synchronize", json!({ "branch": "fresh" })).await.expect(200).json();
    assert_eq!((&done["pulled"], &done["pushed"]["created"]), (&Value::Null, &json!(true)));
    two.post("synchronize", json!({})).await.expect_bad("branch");
}

#[tokio::test]
async fn what_is_abandoned_is_kept_and_only_that_is_removed() {
    let two = Two::new().await;
    let base = git(&two.scene.clone, &["rev-parse", "HEAD"]);
    let nothing = two.post("abandon", json!({})).await.expect(200).json();
    assert_eq!((&nothing["kept"], &nothing["commits"]), (&Value::Null, &json!(0)));
    two.ours("ours", "1\n");
    std::fs::create_dir_all(two.scene.clone.join("d")).unwrap();
    for (file, content) in
        [("README.md", "changed\n"), ("d/new", "new\n"), (".gitignore", "ignored\n"), ("ignored", "stays\n")]
    {
        std::fs::write(two.scene.clone.join(file), content).unwrap();
    }
    git(&two.scene.clone, &["add", ".gitignore"]);
    let done = two.post("abandon", json!({})).await.expect(200).json();
    assert_eq!((&done["commit"], &done["branch"]), (&json!(base.trim()), &json!("main")));
    assert_eq!((&done["commits"], &done["files"]), (&json!(1), &json!(3)));
    assert_eq!(git(&two.scene.clone, &["rev-parse", "HEAD"]), base);
    assert_eq!(git(&two.scene.clone, &["status", "--porcelain"]), "?? ignored");
    assert_eq!((two.read("README.md").as_str(), two.read("ignored").as_str()), ("hello\n", "stays\n"));
    assert!(!two.scene.clone.join("d").exists());

    let back = json!({ "name": "back", "from": done["reference"], "switch": true });
    let back = two.post("create-branch", back).await.expect(200).json();
    assert_eq!(back["commit"], done["kept"]);
    assert_eq!(
        (two.read("README.md").as_str(), two.read("d/new").as_str(), two.read("ours").as_str()),
        ("changed\n", "new\n", "1\n")
    );
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_abandoned() {
    let two = Two::new().await;
    std::fs::write(two.scene.clone.join("README.md"), "changed\n").unwrap();
    std::fs::set_permissions(two.scene.clone.join("README.md"), std::os::unix::fs::PermissionsExt::from_mode(0o000))
        .unwrap();
    let before = git(&two.scene.clone, &["rev-parse", "HEAD"]);
    two.post("abandon", json!({})).await.expect(409);
    assert_eq!(git(&two.scene.clone, &["rev-parse", "HEAD"]), before);
    assert_eq!(two.scene.clone.join("README.md").metadata().unwrap().len(), 8);
}
