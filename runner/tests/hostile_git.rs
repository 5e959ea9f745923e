//! What a hostile agent, or a hostile origin, can do through git: nothing more than without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use harness::{Runner, Session, git};
use serde_json::{Value, json};

/// A session with a clone of an origin, seen by an agent that is about to do harm.
struct Scene {
    session: Session,
    runner: Runner,
    url: String,
    origin: PathBuf,
    clone: PathBuf,
    /// Outside of all that the agent may write. A script that gets there has escaped.
    proof: PathBuf,
}

impl Scene {
    async fn new() -> Self {
        let session = Session::new(true);
        let url = session.origin("up");
        let (origin, proof) = (session.directory().join("up.git"), session.directory().join("proof"));
        let clone = session.paths.workspace().join("up");
        let runner = session.start().await;
        runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200);
        Self { session, runner, url, origin, clone, proof }
    }

    /// A script that tries to escape: it leaves a proof, or takes the origin over.
    fn trap(&self, path: &Path) -> String {
        let (proof, origin) = (self.proof.display(), self.origin.display());
        let token = self.session.paths.server_token(1);
        let text = format!(
            "#!/bin/sh\ncat {} > {proof}\necho x > {proof}\necho '#!/bin/sh' > {origin}/hooks/update\n\
             git -C {origin} update-ref -d refs/heads/main\necho ran >> {}/ran\nexit 1\n",
            token.display(),
            self.session.paths.workspace().display(),
        );
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_string_lossy().into_owned()
    }

    fn commit(&self, message: &str) -> String {
        git(&self.clone, &["commit", "--quiet", "--allow-empty", "-m", message]);
        git(&self.clone, &["rev-parse", "HEAD"])
    }

    async fn push(&self, branch: &str) -> harness::Answer {
        self.runner.client.send("POST", "/git/push", json!({ "repo": "up", "branch": branch })).await
    }

    async fn everything(&self) {
        let client = &self.runner.client;
        client.get("/git/status?repo=up").await;
        client.get("/git/diff?repo=up").await;
        client.send("POST", "/git/commit", json!({ "repo": "up", "message": "m" })).await;
        self.push("b").await;
        client.send("PUT", "/repos/up", json!({ "url": self.url })).await;
        client.get("/repos").await;
    }

    fn nobody_escaped(&self) {
        assert!(!self.proof.exists(), "{}", std::fs::read_to_string(&self.proof).unwrap_or_default());
        assert!(!self.origin.join("hooks/update").exists());
        assert_eq!(git(&self.origin, &["log", "-1", "--format=%s", "main"]), "first");
    }
}

#[tokio::test]
async fn an_object_that_is_missing_fetches_nothing_with_rights_the_agent_has_not() {
    let scene = Scene::new().await;
    let trap = scene.trap(&scene.clone.join(".git/trap"));
    std::fs::write(scene.clone.join("new"), "a blob that will be missing").unwrap();
    git(&scene.clone, &["add", "new"]);
    scene.commit("with a hole");
    let blob = git(&scene.clone, &["rev-parse", "HEAD:new"]);
    std::fs::remove_file(scene.clone.join(format!(".git/objects/{}/{}", &blob[..2], &blob[2..]))).unwrap();
    for (key, value) in [
        ("core.repositoryformatversion", "1"),
        ("extensions.partialClone", "evil"),
        ("remote.evil.promisor", "true"),
        ("remote.evil.url", scene.url.as_str()),
        ("remote.evil.uploadpack", &trap),
    ] {
        git(&scene.clone, &["config", key, value]);
    }
    scene.push("b").await.expect(409);
    assert_eq!(git(&scene.origin, &["branch", "--list", "b"]), "");
    scene.everything().await;
    scene.nobody_escaped();
    assert!(!scene.session.paths.workspace().join("ran").exists(), "nothing is fetched at all");
}

#[tokio::test]
async fn an_incomplete_or_harmful_commit_is_not_pushed() {
    let scene = Scene::new().await;
    let first = git(&scene.clone, &["rev-parse", "HEAD"]);
    let blob = git(&scene.clone, &["rev-parse", "HEAD:README.md"]);
    let commit = |tree: &str| {
        let commit = git(&scene.clone, &["commit-tree", tree, "-p", &first, "-m", "evil"]);
        git(&scene.clone, &["update-ref", "HEAD", &commit]);
    };
    let raw = scene.session.directory().join("tree");
    let id: Vec<u8> = (0..20).map(|i| u8::from_str_radix(&blob[2 * i..2 * i + 2], 16).unwrap()).collect();
    for name in [&b".git"[..], b"..", b"a/b"] {
        std::fs::write(&raw, [b"100644 ", name, b"\0", &id].concat()).unwrap();
        let tree = git(&scene.clone, &["hash-object", "-t", "tree", "-w", "--literally", &raw.to_string_lossy()]);
        commit(&tree);
        let refused = scene.push("b").await.expect(409).text();
        assert!(refused.contains("cannot be taken from the workspace"), "{refused}");
    }
    std::fs::write(&raw, [&b"100644 x\0"[..], &[7; 20]].concat()).unwrap();
    let tree = git(&scene.clone, &["hash-object", "-t", "tree", "-w", "--literally", &raw.to_string_lossy()]);
    commit(&tree);
    scene.push("b").await.expect(409);
    assert_eq!(git(&scene.origin, &["branch", "--list", "b"]), "");
    let left = std::fs::read_dir(scene.session.paths.mirrors().join("up.git")).unwrap();
    assert!(!left.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("incoming")));
}

#[tokio::test]
async fn histories_with_the_faults_of_old_programs_can_be_cloned_and_pushed() {
    let session = Session::new(true);
    let url = session.origin("up");
    let (origin, raw) = (session.directory().join("up.git"), session.directory().join("raw"));
    let object = |kind: &str, bytes: &[u8]| {
        std::fs::write(&raw, bytes).unwrap();
        git(&origin, &["hash-object", "-t", kind, "-w", "--literally", &raw.to_string_lossy()])
    };
    let blob = git(&origin, &["rev-parse", "main:README.md"]);
    let id: Vec<u8> = (0..20).map(|i| u8::from_str_radix(&blob[2 * i..2 * i + 2], 16).unwrap()).collect();
    let tree = object("tree", &[b"0100644 README.md\0".as_slice(), &id].concat());
    let old = format!("tree {tree}\nauthor A <a@x>1 +0000\ncommitter A <a@x> 1 +0000\n\nold\n");
    let old = object("commit", old.as_bytes());
    git(&origin, &["update-ref", "refs/heads/main", &old]);
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200);
    let clone = session.paths.workspace().join("up");
    git(&clone, &["commit", "--quiet", "--allow-empty", "-m", "new"]);
    runner.client.send("POST", "/git/push", json!({ "repo": "up", "branch": "new" })).await.expect(200);
    // The same faults in objects that the origin lacks: a history that the agent has joined.
    let joined = format!("tree {tree}\nparent {old}\nauthor A <a@x>2 +0000\ncommitter A <a@x> 2 +0000\n\njoined\n");
    std::fs::write(&raw, joined).unwrap();
    let joined = git(&clone, &["hash-object", "-t", "commit", "-w", "--literally", &raw.to_string_lossy()]);
    git(&clone, &["update-ref", "HEAD", &joined]);
    let push = json!({ "repo": "up", "branch": "joined" });
    runner.client.send("POST", "/git/push", push).await.expect(200);
    assert_eq!(git(&origin, &["rev-parse", "joined"]), joined);
}

#[tokio::test]
async fn what_is_said_to_be_pushed_is_at_the_origin_whatever_the_clone_calls_its_origin() {
    let scene = Scene::new().await;
    let fake = scene.session.origin("fake");
    for (key, value) in [
        (format!("url.{fake}.insteadOf"), scene.url.clone()),
        (format!("url.{fake}.pushInsteadOf"), scene.url.clone()),
        ("remote.origin.url".to_owned(), fake.clone()),
        ("remote.origin.pushurl".to_owned(), fake.clone()),
        ("remote.origin.mirror".to_owned(), "true".to_owned()),
        ("branch.main.pushRemote".to_owned(), fake.clone()),
    ] {
        git(&scene.clone, &["config", &key, &value]);
    }
    let commit = scene.commit("work");
    // Other objects under the commit's name are not what is pushed.
    let other = git(&scene.clone, &["commit-tree", "HEAD^{tree}", "-m", "another one"]);
    git(&scene.clone, &["replace", &commit, &other]);
    let pushed = scene.push("b").await.expect(200).json();
    let expected = json!({
        "url": scene.url, "branch": "b", "commit": commit, "commits": 1, "created": true, "uncommitted": 0
    });
    assert_eq!(pushed, expected);
    assert_eq!(git(&scene.origin, &["log", "-1", "--format=%H %s", "b"]), format!("{commit} work"));
    assert_eq!(git(&scene.session.directory().join("fake.git"), &["branch", "--list", "b"]), "");
    scene.nobody_escaped();
}

#[tokio::test]
async fn hooks_links_and_alternates_of_a_clone_have_the_agents_rights_only() {
    let scene = Scene::new().await;
    scene.commit("work");
    std::fs::create_dir_all(scene.clone.join(".git/hooks")).unwrap();
    for hook in ["pre-push", "pre-commit", "commit-msg", "post-commit", "reference-transaction", "post-index-change"] {
        scene.trap(&scene.clone.join(".git/hooks").join(hook));
    }
    let secret = scene.session.origin("secret");
    let objects = scene.session.directory().join("secret.git/objects");
    let alternates = scene.clone.join(".git/objects/info/alternates");
    let own = std::fs::read_to_string(&alternates).unwrap();
    std::fs::write(&alternates, format!("{own}/\n{}\n", objects.display())).unwrap();
    scene.everything().await;
    scene.nobody_escaped();
    // A link to the repository of somebody else: nothing of it is told.
    std::fs::rename(scene.clone.join(".git"), scene.clone.join("aside")).unwrap();
    for place in [scene.origin.as_path(), Path::new(secret.strip_prefix("file://").unwrap())] {
        std::fs::write(scene.clone.join(".git"), format!("gitdir: {}\n", place.display())).unwrap();
        let client = &scene.runner.client;
        assert_ne!(client.get("/git/status?repo=up").await.status, 200);
        assert_ne!(client.get("/git/diff?repo=up").await.status, 200);
        assert_ne!(scene.push("main").await.status, 200);
    }
    scene.nobody_escaped();
}

#[tokio::test]
async fn a_hostile_origin_runs_nothing() {
    let scene = Scene::new().await;
    let trap = scene.trap(&scene.origin.join("trap"));
    std::fs::create_dir_all(scene.origin.join("hooks")).unwrap();
    std::fs::create_dir_all(scene.origin.join("evil")).unwrap();
    let hooks = ["pre-receive", "post-receive", "post-update", "reference-transaction", "proc-receive", "pre-auto-gc"];
    for hook in hooks {
        scene.trap(&scene.origin.join("hooks").join(hook));
        scene.trap(&scene.origin.join("evil").join(hook));
    }
    let elsewhere = scene.session.directory().join("elsewhere.git");
    git(&scene.origin, &["clone", "--quiet", "--bare", ".", &elsewhere.to_string_lossy()]);
    std::fs::write(
        scene.origin.join("objects/info/alternates"),
        elsewhere.join("objects").to_string_lossy().as_bytes(),
    )
    .unwrap();
    for (key, value) in [
        ("core.hooksPath", scene.origin.join("evil").to_string_lossy().as_ref()),
        ("core.fsmonitor", &trap),
        ("core.alternateRefsCommand", &format!("/bin/sh {trap}")),
        ("uploadpack.packObjectsHook", &trap),
        ("gpg.program", &trap),
        ("receive.certNonceSeed", "x"),
        ("receive.autogc", "true"),
        ("gc.auto", "1"),
        ("core.repositoryformatversion", "1"),
        ("extensions.partialClone", "evil"),
        ("remote.evil.promisor", "true"),
        ("remote.evil.url", &scene.url),
        ("remote.evil.uploadpack", &trap),
    ] {
        git(&scene.origin, &["config", key, value]);
    }
    scene.commit("work");
    let before = git(&elsewhere, &["rev-parse", "main"]);
    scene.push("b").await.expect(200);
    scene.runner.client.send("PUT", "/repos/again", json!({ "url": scene.url })).await.expect(200);
    assert!(!scene.proof.exists());
    assert!(!scene.session.paths.workspace().join("ran").exists());
    assert!(!scene.origin.join("hooks/update").exists());
    assert_eq!(git(&elsewhere, &["rev-parse", "main"]), before);
}

#[tokio::test]
async fn an_origin_that_leads_to_the_platforms_own_directories_is_refused() {
    let mut session = Session::new(true);
    let url = session.origin("up");
    let directory = session.directory().to_owned();
    // The server's folder with another session's repository, and the file with its token.
    let data = directory.join("data");
    let other = data.join("deep/other");
    std::fs::create_dir_all(&other).unwrap();
    let clone = |to: &Path| git(&directory.join("up"), &["clone", "--quiet", "--bare", ".", &to.to_string_lossy()]);
    clone(&other.join("up.git"));
    std::fs::create_dir_all(directory.join("etc/token")).unwrap();
    clone(&directory.join("etc/up.git"));
    session.spec.platform_paths = vec![data.clone(), directory.join("etc/up.git/token")];
    std::fs::write(directory.join("etc/up.git/token"), "secret").unwrap();
    let good = directory.join("good.git");
    clone(&good);
    symlink(other.join("up.git"), directory.join("link.git")).unwrap();
    symlink(&good, directory.join("good-link.git")).unwrap();
    std::fs::create_dir(directory.join("gitlink")).unwrap();
    std::fs::write(directory.join("gitlink/.git"), format!("gitdir: {}\n", other.join("up.git").display())).unwrap();
    let linked = |name: &str, part: &str| {
        clone(&directory.join(name));
        std::fs::remove_dir_all(directory.join(name).join(part)).unwrap();
        symlink(other.join("up.git").join(part), directory.join(name).join(part)).unwrap();
    };
    linked("linked-objects.git", "objects");
    linked("linked-refs.git", "refs");
    let common = directory.join("common.git");
    clone(&common);
    std::fs::write(common.join("commondir"), "../data/deep/other/up.git\n").unwrap();
    let borrowing = |name: &str, from: &str| {
        clone(&directory.join(name));
        std::fs::write(directory.join(name).join("objects/info/alternates"), from).unwrap();
    };
    borrowing("borrowing.git", &other.join("up.git/objects").to_string_lossy());
    borrowing("borrowing-root.git", "/");
    borrowing("borrowing-far.git", &directory.join("borrowing.git/objects").to_string_lossy());
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/own", json!({ "url": url })).await.expect(200);
    let refused = [
        other.join("up.git"),
        directory.join("link.git"),
        directory.join("gitlink"),
        directory.join("linked-objects.git"),
        directory.join("linked-refs.git"),
        common,
        directory.join("borrowing.git"),
        directory.join("borrowing-root.git"),
        directory.join("borrowing-far.git"),
        directory.join("etc/up.git"),
        data,
        directory.clone(),
        PathBuf::from("/"),
        session.paths.workspace().join("own"),
        session.paths.mirrors().join("own.git"),
        session.paths.root.clone(),
    ];
    for path in refused {
        let url = format!("file://{}", path.display());
        runner.client.send("PUT", "/repos/a", json!({ "url": url })).await.expect_bad("url");
    }
    let url = format!("file://{}/good-link.git", directory.display());
    runner.client.send("PUT", "/repos/good", json!({ "url": url })).await.expect(200);
    // What it was when it was cloned does not count.
    let link = directory.join("good-link.git");
    std::fs::remove_file(&link).unwrap();
    symlink(other.join("up.git"), &link).unwrap();
    git(&session.paths.workspace().join("good"), &["commit", "--quiet", "--allow-empty", "-m", "x"]);
    runner.client.send("POST", "/git/push", json!({ "repo": "good", "branch": "b" })).await.expect_bad("url");
    assert_eq!(git(&other.join("up.git"), &["branch", "--list", "b"]), "");
}

#[tokio::test]
async fn a_push_to_a_shallow_origin_and_a_push_after_others_have_pushed_arrive() {
    let session = Session::new(true);
    session.origin("up");
    let (directory, up) = (session.directory(), session.directory().join("up"));
    git(&up, &["commit", "--quiet", "--allow-empty", "-m", "second"]);
    git(directory, &["clone", "--quiet", "--bare", "--depth=1", &format!("file://{}", up.display()), "shallow.git"]);
    let runner = session.start().await;
    let url = format!("file://{}", directory.join("shallow.git").display());
    runner.client.send("PUT", "/repos/s", json!({ "url": url })).await.expect(200);
    let clone = session.paths.workspace().join("s");
    assert_eq!(git(&clone, &["rev-list", "--count", "HEAD"]), "1");
    git(&clone, &["commit", "--quiet", "--allow-empty", "-m", "third"]);
    let push = || runner.client.send("POST", "/git/push", json!({ "repo": "s", "branch": "b" }));
    push().await.expect(200);
    // Somebody goes on there; the agent learns of it by other ways, and goes on from it.
    let theirs = directory.join("theirs");
    git(directory, &["clone", "--quiet", "--branch=b", &url, "theirs"]);
    git(&theirs, &["commit", "--quiet", "--allow-empty", "-m", "theirs"]);
    git(&theirs, &["push", "--quiet", "origin", "HEAD:b"]);
    git(&clone, &["commit", "--quiet", "--allow-empty", "-m", "ours"]);
    let refused = push().await.expect(409).text();
    assert!(refused.contains("never forced"), "{refused}");
    git(&clone, &["pull", "--quiet", "--no-rebase", &theirs.to_string_lossy(), "b"]);
    let pushed: Value = push().await.expect(200).json();
    assert_eq!(git(&directory.join("shallow.git"), &["rev-parse", "b"]), pushed["commit"].as_str().unwrap());
}
