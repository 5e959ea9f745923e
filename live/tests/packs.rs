//! Packs of snapshots are stored before the events that name them, or the events say why not. A runner is not trusted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ambient_domain::session::Session;
use ambient_live::RunnerReaders;
use ambient_snapshots::{Key, Limits, Place, SnapshotStore};
use ambient_tests::TestDatabase;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{Server, World, eventually, stand_in::StandIn};
use tempfile::TempDir;

const LIMITS: Limits = Limits { pack: 1000, session: 1500 };

fn id(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pack(content: &[u8]) -> Value {
    json!({"id": id(content), "bytes": content.len()})
}

struct Scene {
    server: Server,
    session: Session,
    runner: StandIn,
    readers: RunnerReaders,
    store: SnapshotStore,
    snapshots: usize,
    _folder: TempDir,
    _database: TestDatabase,
}

impl Scene {
    async fn new() -> Self {
        let database = TestDatabase::new().await;
        let server = Server::on(&database).await;
        let (world, sink) = (World::new(), server.sink());
        let session = server.new_session(|_| {}).await;
        let runner = StandIn::of(&session);
        world.set(&session.id, Some(runner.socket()));
        server.running(&session).await;
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Folder(folder.path().join("packs"));
        let store = SnapshotStore::open(place, LIMITS, &folder.path().join("scratch")).unwrap();
        let readers = server.readers_with(&world, &sink, |options| options.snapshots = Some(store.clone()));
        Self { server, session, runner, readers, store, snapshots: 0, _folder: folder, _database: database }
    }

    /// The runner tells of a snapshot that these packs hold; the event as it is stored.
    async fn snapshot(&mut self, packs: Value) -> Value {
        self.runner.record(json!({
            "type": "repo.snapshot", "repo": "r", "commit": "c", "head": null, "ref": "x", "base": null, "patch": "", "patch_truncated": false,
            "patch_exact": true, "left_out": [], "running": 0, "tree": "t", "packs": packs
        }));
        self.snapshots += 1;
        eventually("the event", || async { self.stored().await.len() == self.snapshots }).await;
        self.stored().await.pop().unwrap()
    }

    async fn stored(&self) -> Vec<Value> {
        let events = self.server.db.read_events(&self.session.id, 0, 1_000).await.unwrap();
        events.into_iter().filter(|event| event.event_type == "repo.snapshot").map(|event| event.data).collect()
    }

    async fn has(&self, pack: &str) -> bool {
        let key = Key::Turn { project: &self.session.project_id, session: &self.session.id, pack };
        self.store.written(key).await.unwrap().is_some()
    }

    async fn is_told(&self, what: String) {
        eventually("the runner is told", || async { self.runner.told().contains(&what) }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_names_packs_implies_that_they_are_stored() {
    let mut scene = Scene::new().await;
    let (base, first, commit) = (b"the base", b"the first turn", "c".repeat(40));
    scene.runner.offer(&id(base), base);
    scene.runner.offer(&id(first), first);
    let of_base = json!({"id": id(base), "bytes": base.len(), "base": commit});
    let event = scene.snapshot(json!([of_base, pack(first)])).await;
    assert_eq!((event["packs"].as_array().unwrap().len(), event.get("not_stored")), (2, None));
    assert!(scene.has(&id(first)).await);
    let key = Key::Base { project: &scene.session.project_id, commit: &commit };
    assert!(scene.store.written(key).await.unwrap().is_some());
    scene.is_told(format!("stored {}", id(first))).await;
    assert!(!scene.runner.told().iter().any(|told| told.ends_with(&id(base))), "later turns need the base too");
    // The base is there, and is not asked for again.
    scene.runner.offer(&id(base), b"something else");
    let second = b"the second turn";
    scene.runner.offer(&id(second), second);
    let event = scene.snapshot(json!([of_base, pack(first), pack(second)])).await;
    assert_eq!(event.get("not_stored"), None);
    // What it builds on was removed meanwhile.
    scene.store.remove_session(&scene.session.project_id, &scene.session.id).await.unwrap();
    let third = b"the third turn";
    scene.runner.offer(&id(third), third);
    let event = scene.snapshot(json!([of_base, pack(first), pack(third)])).await;
    assert!(event["not_stored"].as_str().unwrap().contains("no longer in the store"), "{event}");
    assert_eq!(event["packs"], json!([]));
    scene.is_told(format!("anew {}", id(third))).await;
    scene.readers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_runner_makes_up_is_not_stored_and_its_log_goes_on() {
    let mut scene = Scene::new().await;
    let content = b"a pack";
    scene.runner.offer(&id(content), b"a lie!");
    let cases = [
        (json!([pack(content)]), "not what it was said to be"),
        (json!([{"id": id(b"gone"), "bytes": 4}]), "cannot be had from the runner"),
        (json!([{"id": "../../x", "bytes": 4}]), "odd name"),
        (json!([{"id": id(content), "bytes": 4, "base": "../x"}]), "odd name"),
        (json!(vec![pack(content); 18]), "more packs than a snapshot needs"),
        (
            json!(vec![json!({"id": id(content), "bytes": 6, "base": "c".repeat(40)}); 2]),
            "more packs than a snapshot needs",
        ),
        (json!([{"id": id(content), "bytes": 2000}]), "snapshot_pack_limit"),
        (json!([{"id": id(content), "bytes": 2}]), "more of its pack"),
    ];
    for (packs, reason) in cases {
        let event = scene.snapshot(packs).await;
        assert!(event["not_stored"].as_str().unwrap().contains(reason), "{event}");
        assert_eq!(event["packs"], json!([]));
    }
    scene.is_told(format!("not_stored {}", id(content))).await;
    assert!(!scene.runner.told().iter().any(|told| told.contains("..")), "an odd name is nobody's pack");
    // As much as a session may have.
    for (round, is_stored) in [(b'1', true), (b'2', false)] {
        let content = [round; 900];
        scene.runner.offer(&id(&content), &content);
        let event = scene.snapshot(json!([pack(&content)])).await;
        assert_eq!(event.get("not_stored").is_none(), is_stored, "{event}");
        assert_eq!(scene.has(&id(&content)).await, is_stored);
    }
    // What is no list of packs is nothing.
    let event = scene.snapshot(json!("odd")).await;
    assert_eq!(event["packs"], "odd");
    scene.readers.shutdown().await;
}
