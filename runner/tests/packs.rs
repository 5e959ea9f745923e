//! Packs of snapshots: whole, checked, small, and what they hold is read where no session is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{path::Path, process::Command};

use ambient_runner_protocol::{Confinement, Record, StoredAnswer, StoredLook, StoredOrder};
use harness::{git, of_type, scene::Scene};
use serde_json::{Value, json};
use tempfile::TempDir;

fn snapshot(records: &[Record]) -> Value {
    (*of_type(records, "repo.snapshot").first().expect("a snapshot")).clone()
}

fn ids(snapshot: &Value) -> Vec<String> {
    assert_eq!(snapshot["not_stored"], Value::Null);
    snapshot["packs"].as_array().unwrap().iter().map(|pack| pack["id"].as_str().unwrap().to_owned()).collect()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap()
}

/// A server's copy of packs.
struct Store {
    scene: Scene,
    folder: TempDir,
}

impl Store {
    async fn new() -> Self {
        Self { scene: Scene::new().await, folder: tempfile::tempdir().unwrap() }
    }

    /// Fetches what is missing, and says that it is stored.
    async fn keep(&self, snapshot: &Value) {
        let client = &self.scene.runner.client;
        for pack in snapshot["packs"].as_array().unwrap() {
            let id = text(pack, "id");
            let path = self.folder.path().join(format!("{id}.pack"));
            if path.exists() {
                continue;
            }
            let content = client.get(&format!("/packs/{id}")).await.expect(200).body;
            assert_eq!(json!(content.len()), pack["bytes"]);
            std::fs::write(path, content).unwrap();
            if pack["base"].is_null() {
                client.send("DELETE", &format!("/packs/{id}?end=stored"), json!({})).await.expect(204);
            }
        }
    }

    /// Reads as a server does.
    fn look(&self, packs: &[String], look: StoredLook, most: u64) -> (StoredAnswer, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("objects/pack");
        std::fs::create_dir_all(&there).unwrap();
        for id in packs {
            let name = format!("{id}.pack");
            std::fs::copy(self.folder.path().join(&name), there.join(format!("pack-{name}"))).unwrap();
        }
        let (hidden, confinement) = (self.scene.session.directory().to_owned(), Confinement::Require);
        let order = StoredOrder { folder: folder.path().to_owned(), hidden, confinement, look, most };
        let order = serde_json::to_string(&order).unwrap();
        let program = env!("CARGO_BIN_EXE_ambient-runner");
        let read = Command::new(program).args(["read-stored", "--order", &order]).env_clear().output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let end = read.stdout.iter().position(|byte| *byte == b'\n').unwrap();
        (serde_json::from_slice(&read.stdout[..end]).unwrap(), read.stdout[end + 1..].to_vec())
    }

    fn diff(&self, packs: &[String], from: Option<&str>, to: &str) -> String {
        let look = StoredLook::Diff { from: from.map(str::to_owned), to: to.to_owned(), path: String::new() };
        match self.look(packs, look, 1 << 20) {
            (StoredAnswer::Found { truncated: false, .. }, diff) => String::from_utf8_lossy(&diff).into_owned(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn each_turn_adds_what_is_new_and_all_of_it_is_read_without_the_workspace() {
    let mut store = Store::new().await;
    let first =
        snapshot(&store.scene.turn("echo one > a.txt; git add a.txt; git commit -qm one; echo two > b.txt").await);
    store.keep(&first).await;
    let again = snapshot(&store.scene.turn("echo three >> a.txt; head -c 300000 /dev/urandom > big").await);
    store.keep(&again).await;
    let third = snapshot(&store.scene.turn("rm b.txt").await);
    store.keep(&third).await;
    let (packs, base) = (ids(&third), text(&first, "base"));
    assert_eq!((ids(&first).len(), ids(&again).len(), packs.len()), (2, 3, 4));
    assert_eq!((&packs[..3], first["packs"][0]["base"].as_str()), (&ids(&again)[..], Some(base)));
    assert!(
        third["packs"][3]["bytes"].as_u64().unwrap() < 2_000,
        "the big file is in the pack before: {}",
        third["packs"]
    );
    std::fs::remove_dir_all(&store.scene.clone).unwrap();

    let alone = store.diff(&packs, Some(text(&again, "tree")), text(&third, "tree"));
    assert!(alone.contains("deleted file") && alone.contains("-two") && !alone.contains("a.txt"), "{alone}");
    let all = store.diff(&ids(&first), Some(base), text(&first, "tree"));
    assert!(all.contains("+one") && all.contains("+two") && !all.contains("README"), "{all}");
    let file = StoredLook::File { tree: text(&again, "tree").to_owned(), path: "a.txt".to_owned() };
    let (found, content) = store.look(&ids(&again), file, 1 << 20);
    assert_eq!(
        (found, &*content),
        (StoredAnswer::Found { truncated: false, mode: Some("100644".to_owned()) }, &b"one\nthree\n"[..])
    );
    // The commits came along: the history since the clone is there too.
    let bare = tempfile::tempdir().unwrap();
    git(bare.path(), &["init", "-q", "--bare", "."]);
    std::fs::write(bare.path().join("shallow"), format!("{base}\n")).unwrap();
    for id in ids(&first) {
        let pack = bare.path().join(format!("objects/pack/pack-{id}.pack"));
        std::fs::copy(store.folder.path().join(format!("{id}.pack")), &pack).unwrap();
        git(bare.path(), &["index-pack", &pack.to_string_lossy()]);
    }
    git(bare.path(), &["fsck", "--strict", "--no-dangling"]);
    assert_eq!(git(bare.path(), &["log", "--format=%s", text(&first, "head")]), "one\nfirst");
}

#[tokio::test]
async fn what_is_not_stored_is_not_built_upon_and_a_settled_pack_is_gone() {
    let mut store = Store::new().await;
    let first = snapshot(&store.scene.turn("echo one > a.txt").await);
    let id = ids(&first).pop().unwrap();
    let client = store.scene.runner.client.clone();
    client.send("DELETE", &format!("/packs/{id}?end=not_stored"), json!({})).await.expect(204);
    client.get(&format!("/packs/{id}")).await.expect(404);
    client.send("DELETE", &format!("/packs/{id}?end=not_stored"), json!({})).await.expect(204);
    for odd in ["..%2f..%2fruns", "ABC", &"g".repeat(64)] {
        client.get(&format!("/packs/{odd}")).await.expect_bad("id");
    }
    let second = snapshot(&store.scene.turn("echo two > b.txt").await);
    assert_eq!(ids(&second).len(), 2, "the base and one that has all since");
    store.keep(&second).await;
    let all = store.diff(&ids(&second), second["base"].as_str(), text(&second, "tree"));
    assert!(all.contains("+one") && all.contains("+two"), "{all}");
    // What it builds on was removed since: the next one builds on the base alone.
    let third = ids(&snapshot(&store.scene.turn("echo three > c.txt").await));
    assert_eq!(third.len(), 3);
    client.send("DELETE", &format!("/packs/{}?end=anew", third[2]), json!({})).await.expect(204);
    let fourth = snapshot(&store.scene.turn("echo four > d.txt").await);
    assert_eq!(ids(&fourth).len(), 2);
    store.keep(&fourth).await;
    assert!(store.diff(&ids(&fourth), fourth["base"].as_str(), text(&fourth, "tree")).contains("+two"));
}

#[tokio::test]
async fn names_and_contents_need_not_be_text_and_links_lead_nowhere() {
    let mut store = Store::new().await;
    let script = "printf 'x\\000\\377' > \"$(printf 'n\\377me')\"; ln -s /etc/passwd link; mkdir d; echo in > d/f";
    let turn = snapshot(&store.scene.turn(script).await);
    store.keep(&turn).await;
    let tree = text(&turn, "tree").to_owned();
    let file = |path: &str| StoredLook::File { tree: tree.clone(), path: path.to_owned() };
    let (found, content) = store.look(&ids(&turn), file("n\\xffme"), 100);
    assert!(matches!(found, StoredAnswer::Found { truncated: false, .. }) && content == b"x\0\xff", "{found:?}");
    let (found, content) = store.look(&ids(&turn), file("link"), 100);
    assert!(matches!(&found, StoredAnswer::Found { mode: Some(mode), .. } if mode == "120000"), "{found:?}");
    assert_eq!(content, b"/etc/passwd");
    for (path, code) in [
        ("absent", "not_found"),
        ("d", "bad_input"),
        ("../x", "bad_input"),
        ("/etc/passwd", "bad_input"),
        ("", "bad_input"),
    ] {
        match store.look(&ids(&turn), file(path), 100).0 {
            StoredAnswer::Refused(refusal) => assert_eq!(refusal.code, code, "{path}"),
            found @ StoredAnswer::Found { .. } => panic!("{path}: {found:?}"),
        }
    }
    let (found, _) = store.look(&ids(&turn), file("link"), 3);
    assert!(matches!(&found, StoredAnswer::Refused(refusal) if refusal.code == "too_large"), "{found:?}");
    let all = StoredLook::Diff { from: None, to: tree.clone(), path: String::new() };
    let (found, diff) = store.look(&ids(&turn), all, 60);
    assert!(matches!(found, StoredAnswer::Found { truncated: true, .. }) && diff.len() <= 60 && diff.ends_with(b"\n"));
    let part = StoredLook::Diff { from: None, to: tree, path: "d".to_owned() };
    let (_, diff) = store.look(&ids(&turn), part, 1 << 20);
    assert!(String::from_utf8_lossy(&diff).contains("d/f") && !String::from_utf8_lossy(&diff).contains("link"));
}

#[tokio::test]
async fn what_the_agent_does_to_its_repository_changes_nothing_in_what_is_stored() {
    let mut store = Store::new().await;
    let outside = store.scene.session.directory().join("outside");
    git(store.scene.session.directory(), &["init", "-q", "outside"]);
    std::fs::write(outside.join("secret"), "a secret of someone else's\n").unwrap();
    git(&outside, &["add", "."]);
    git(&outside, &["commit", "-qm", "secret"]);
    let blob = git(&outside, &["rev-parse", "HEAD:secret"]);
    let script = format!(
        "echo true > a.txt; git add a.txt; git commit -qm true\n\
         echo false > b.txt; git add b.txt; F=$(git commit-tree -m false \"$(git write-tree)\"); git rm -q --cached b.txt; rm b.txt\n\
         git replace HEAD \"$F\"; git replace \"$(git rev-parse HEAD:a.txt)\" \"$(echo false | git hash-object -w --stdin)\" || true\n\
         mkdir -p .git/info; git rev-parse HEAD > .git/info/grafts; git rev-parse HEAD > .git/shallow\n\
         printf '%s\\n' '{outside}/.git/objects' >> .git/objects/info/alternates\n\
         git config core.bare true; git config uploadpack.packObjectsHook '{outside}/hook'; git config pack.packSizeLimit 1\n\
         git update-ref refs/ambient/snapshots/9-9 HEAD; ln -s {outside}/.git .git/linked",
        outside = outside.display(),
    );
    let turn = snapshot(&store.scene.turn(&script).await);
    store.keep(&turn).await;
    let all = store.diff(&ids(&turn), turn["base"].as_str(), text(&turn, "tree"));
    assert!(all.contains("+true") && !all.contains("false"), "{all}");
    // Another's object that the agent names by its id does not come along: what cannot be read is no part of a snapshot.
    let steal = format!(
        "git config core.bare false; T=$(printf '100644 blob {blob}\\tstolen\\n' | git mktree --missing)\n\
         C=$(git commit-tree -p HEAD -m steal \"$T\"); git update-ref refs/heads/main \"$C\" || git update-ref HEAD \"$C\"; true"
    );
    let records = store.scene.turn(&steal).await;
    for turn in of_type(&records, "repo.snapshot") {
        for pack in turn["packs"].as_array().unwrap() {
            let path = store.scene.session.paths.outgoing_pack(text(pack, "id"));
            let content = std::fs::read(path).unwrap_or_default();
            assert!(!content.windows(8).any(|part| part == b"a secret"), "{turn}");
        }
    }
    assert_eq!(of_type(&records, "turn.ended")[0]["outcome"], "finished");
}

#[tokio::test]
async fn a_history_that_does_not_build_on_the_clone_is_stored_as_files() {
    let mut store = Store::new().await;
    // An orphan, whose parent is nowhere near what was cloned.
    let script = "git checkout -q --orphan other; git rm -rfq .; echo new > only.txt; git add .; git commit -qm other";
    let turn = snapshot(&store.scene.turn(script).await);
    store.keep(&turn).await;
    let all = store.diff(&ids(&turn), turn["base"].as_str(), text(&turn, "tree"));
    assert!(all.contains("+new") && all.contains("-hello"), "{all}");
    // A parent that is missing: the history is not whole, the files are.
    let script = "echo more > more.txt; git add .; T=$(git write-tree)\n\
                  printf 'tree %s\\nparent 1234567890123456789012345678901234567890\\nauthor A <a@b> 1 +0000\\ncommitter A <a@b> 1 +0000\\n\\nx\\n' \"$T\" \
                  | git hash-object -t commit -w --stdin --literally > .git/odd; cp .git/odd .git/refs/heads/other";
    let turn = snapshot(&store.scene.turn(script).await);
    store.keep(&turn).await;
    let file = StoredLook::File { tree: text(&turn, "tree").to_owned(), path: "more.txt".to_owned() };
    assert_eq!(store.look(&ids(&turn), file, 100).1, b"more\n");
}

#[tokio::test]
async fn the_agent_reaches_no_pack_and_a_repository_that_cannot_be_packed_ends_its_turn_all_the_same() {
    let mut store = Store::new().await;
    let packs = store.scene.session.paths.packs();
    let script = format!(
        "cat {0}/out/* > stolen 2>/dev/null; ls {0} > listed 2>/dev/null; echo x > {0}/out/x; true",
        packs.display()
    );
    let first = snapshot(&store.scene.turn(&script).await);
    let there = |name: &str| std::fs::read(store.scene.clone.join(name)).unwrap_or_default();
    assert!(there("stolen").is_empty() && there("listed").is_empty() && !Path::new(&packs).join("out/x").exists());
    assert_eq!(ids(&first).len(), 2);
    // Trees with names that harm whoever checks them out are refused.
    let blob = git(&store.scene.clone, &["rev-parse", "HEAD:README.md"]);
    let id: Vec<u8> = (0..20).map(|i| u8::from_str_radix(&blob[2 * i..2 * i + 2], 16).unwrap()).collect();
    let raw = store.scene.session.directory().join("tree");
    std::fs::write(&raw, [b"100644 ", &b".git"[..], b"\0", &id].concat()).unwrap();
    let tree = git(&store.scene.clone, &["hash-object", "-t", "tree", "-w", "--literally", &raw.to_string_lossy()]);
    let records = store.scene.turn(&format!("git update-ref HEAD $(git commit-tree -p HEAD -m evil {tree})")).await;
    assert_eq!(of_type(&records, "turn.ended")[0]["outcome"], "finished");
    // The checked-out commit cannot even be read as files.
    let failed = of_type(&records, "repo.snapshot_failed");
    let snapshots = of_type(&records, "repo.snapshot");
    let told = failed.first().map(|failed| &failed["reason"]);
    let told = told.or(snapshots.first().map(|snapshot| &snapshot["not_stored"]));
    assert!(told.is_some_and(Value::is_string), "{failed:?} {}", snapshots.len());
}
