//! What turns have changed stays readable: without the workspace, after a crash, until it is deleted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use ambient_tests::TestDatabase;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Origin, Server, eventually, script};

async fn started(server: &Server, origin: &Origin, project: &str, prompt: &str) -> String {
    let repo = json!({"name": "hello", "url": origin.url()});
    server.session(json!({"project_id": project, "prompt": script(prompt), "repos": [repo], "interactive": true})).await
}

/// The turn, once it is over.
async fn turn(server: &Server, id: &str, turn: &str) -> Value {
    eventually("the turn's end", async || {
        let answer = server.get(&format!("/sessions/{id}/turns/{turn}")).await;
        (answer.status == 200 && !answer.json["ended_at"].is_null()).then_some(answer.json)
    })
    .await
}

async fn text(server: &Server, path: &str) -> (u16, String) {
    let answer = server.request(Method::GET, path).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn diff(server: &Server, id: &str, turn: &str, query: &str) -> String {
    let (status, diff) = text(server, &format!("/sessions/{id}/turns/{turn}/diff{query}")).await;
    assert_eq!(status, 200, "{diff}");
    diff
}

/// Files that are whole, below a folder.
fn packs(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let all = paths.flat_map(|path| if path.is_dir() { packs(&path) } else { vec![path] });
    all.filter(|path| path.extension().is_some_and(|extension| extension == "pack")).collect()
}

async fn stopped(server: &Server, id: &str) {
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(id, "Stopped").await;
}

#[tokio::test]
async fn a_turn_is_looked_at_when_its_workspace_is_gone_and_its_packs_go_with_the_session() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    let origin = Origin::new();
    server.project("kept").await;
    let id = started(&server, &origin, "kept", "echo one > a.txt; git add a.txt; git commit -qm one").await;
    let first = turn(&server, &id, "1-1").await;
    assert_eq!(
        (&first["repos"][0]["stored"], &first["repos"][0]["not_stored"]),
        (&json!(true), &Value::Null),
        "{first}"
    );
    server.post(&format!("/sessions/{id}/messages"), json!({"text": script("echo two > b.txt")})).await.expect(201);
    turn(&server, &id, "1-2").await;
    let other = started(&server, &origin, "kept", "echo other > a.txt").await;
    turn(&server, &other, "1-1").await;
    stopped(&server, &id).await;
    fs::remove_dir_all(server.session_dir(&id)).unwrap();

    let alone = diff(&server, &id, "1-2", "").await;
    assert!(alone.contains("+two") && !alone.contains("a.txt"), "{alone}");
    let whole = diff(&server, &id, "1-2", "?from=base&repo=hello").await;
    assert!(whole.contains("+one") && whole.contains("+two"), "{whole}");
    let part = diff(&server, &id, "1-2", "?from=base&path=a.txt").await;
    assert!(part.contains("+one") && !part.contains("+two"), "{part}");
    let file = |path: &str| format!("/sessions/{id}/turns/1-1/file?path={path}");
    assert_eq!(text(&server, &file("a.txt")).await, (200, "one\n".to_owned()));
    assert_eq!(text(&server, &file("b.txt")).await.0, 404);
    assert_eq!(text(&server, &format!("/sessions/{id}/turns/1-3/diff")).await.0, 404);
    assert_eq!(text(&server, &format!("/sessions/{id}/turns/1-1/diff?repo=none")).await.0, 404);

    let store = server.data_dir().join("snapshots");
    let of = |id: &str| packs(&store).iter().filter(|path| path.to_string_lossy().contains(id)).count();
    let bases = || packs(&store).iter().filter(|path| path.to_string_lossy().contains("/bases/")).count();
    assert_eq!((of(&id), of(&other), bases()), (2, 1, 1), "{:?}", packs(&store));
    server.delete(&format!("/sessions/{id}")).await;
    eventually("its packs are gone", async || (of(&id) == 0).then_some(())).await;
    assert!(diff(&server, &other, "1-1", "").await.contains("+other"));
    server.delete("/projects/kept").await;
    eventually("all packs are gone", async || packs(&store).is_empty().then_some(())).await;
    let scratch = fs::read_dir(server.data_dir().join("snapshot-scratch")).unwrap().next().unwrap().unwrap().path();
    let left: Vec<_> = fs::read_dir(scratch).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[tokio::test]
async fn a_server_killed_while_snapshots_are_stored_loses_none_and_stores_none_twice() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "one").await;
    let origin = Origin::new();
    server.project("killed").await;
    let id = started(&server, &origin, "killed", "echo 0 > f.txt").await;
    turn(&server, &id, "1-1").await;
    // A pack that is written, and whose event is not: the server is killed when the pack appears.
    let store = server.data_dir().join("snapshots");
    for round in 2..6 {
        let before = packs(&store).len();
        let shell = format!("sleep 0.5; echo {round} > f.txt; head -c 100000 /dev/urandom > r.bin");
        server.post(&format!("/sessions/{id}/messages"), json!({"text": script(&shell)})).await.expect(201);
        let begun = std::time::Instant::now();
        while packs(&store).len() == before {
            assert!(begun.elapsed() < support::PATIENCE, "no pack appears");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        server.kill();
        server.restart().await;
        let told = turn(&server, &id, &format!("1-{round}")).await;
        assert_eq!(told["repos"][0]["stored"], true, "{told}");
        let shown = diff(&server, &id, &format!("1-{round}"), "?path=f.txt").await;
        assert!(shown.contains(&format!("+{round}")), "{shown}");
        assert_eq!(packs(&store).len(), before + 1, "{:?}", packs(&store));
    }
    // Killed while the agent works, and stopped right after: what the runner has left on the disk is stored from there.
    let text = script("sleep 1; echo last > last.txt");
    server.post(&format!("/sessions/{id}/messages"), json!({"text": text})).await.expect(201);
    turn_began(&server, &id, "1-6").await;
    server.kill();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    server.restart().await;
    stopped(&server, &id).await;
    let told = turn(&server, &id, "1-6").await;
    assert_eq!(told["repos"][0]["stored"], true, "{told}");
    server.verified().await;
}

async fn turn_began(server: &Server, id: &str, turn: &str) {
    eventually("the turn's beginning", async || {
        (server.get(&format!("/sessions/{id}/turns/{turn}")).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_store_that_cannot_be_used_or_a_limit_stops_no_turn_and_is_told() {
    let database = TestDatabase::new().await;
    let mut server = Server::new(&database, "one");
    let refused = support::free_port();
    server.settings = [
        ("AMBIENT_SNAPSHOT_STORE", "s3://packs".to_owned()),
        ("AMBIENT_SNAPSHOT_S3_ENDPOINT", format!("http://127.0.0.1:{refused}")),
        ("AMBIENT_SNAPSHOT_S3_ACCESS_KEY", "id".to_owned()),
        ("AMBIENT_SNAPSHOT_S3_SECRET_KEY", "secret".to_owned()),
    ]
    .into();
    server.restart().await;
    let origin = Origin::new();
    server.project("away").await;
    let id = started(&server, &origin, "away", "echo one > a.txt").await;
    let told = turn(&server, &id, "1-1").await;
    assert_eq!((&told["status"], &told["repos"][0]["stored"]), (&json!("finished"), &json!(false)), "{told}");
    assert!(told["repos"][0]["not_stored"].as_str().unwrap().contains("store cannot be used"), "{told}");
    let path = format!("/sessions/{id}/turns/1-1/diff");
    let (status, reason) = text(&server, &path).await;
    assert!(status == 409 && reason.contains("is not stored"), "{reason}");

    // The store is back, another one even: the next turn is stored, with all that was not.
    server.stop().await;
    server.settings = vec![("AMBIENT_SNAPSHOT_SESSION_LIMIT", "200Ki".to_owned())];
    server.restart().await;
    let say = async |shell: &str| {
        server.post(&format!("/sessions/{id}/messages"), json!({"text": script(shell)})).await.expect(201);
    };
    say("echo two > b.txt").await;
    assert_eq!(turn(&server, &id, "1-2").await["repos"][0]["stored"], true);
    let whole = diff(&server, &id, "1-2", "?from=base").await;
    assert!(whole.contains("+one") && whole.contains("+two"), "{whole}");
    let (status, reason) = text(&server, &format!("/sessions/{id}/turns/1-2/diff")).await;
    assert!(status == 409 && reason.contains("from=base"), "{reason}");
    say("head -c 300000 /dev/urandom > big").await;
    let told = turn(&server, &id, "1-3").await;
    assert!(told["repos"][0]["not_stored"].as_str().unwrap().contains("snapshot_session_limit"), "{told}");
    say("rm big; echo three > c.txt").await;
    assert_eq!(turn(&server, &id, "1-4").await["repos"][0]["stored"], true);
}

#[tokio::test]
async fn a_sweep_removes_what_is_provably_over_and_nothing_else() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "one").await;
    let origin = Origin::new();
    server.project("swept").await;
    let mut ids = Vec::new();
    for name in ["deleted", "kept", "old"] {
        let id = started(&server, &origin, "swept", &format!("echo {name} > a.txt")).await;
        turn(&server, &id, "1-1").await;
        stopped(&server, &id).await;
        ids.push(id);
    }
    let [deleted, kept, old] = &ids[..] else { panic!() };
    let store = server.data_dir().join("snapshots");
    let of =
        |id: &str| packs(&store).into_iter().filter(|path| path.to_string_lossy().contains(id)).collect::<Vec<_>>();
    let base = of("/bases/").pop().unwrap();
    // As a crash leaves them: the session is deleted, its pack is there.
    let pack = of(deleted).pop().unwrap();
    let content = fs::read(&pack).unwrap();
    server.delete(&format!("/sessions/{deleted}")).await;
    eventually("its packs are gone", async || of(deleted).is_empty().then_some(())).await;
    server.stop().await;
    fs::create_dir_all(pack.parent().unwrap()).unwrap();
    fs::write(&pack, content).unwrap();
    // Another database's, in the same store.
    let others = store.join("3MPRBY3LpC4o66HBKBbrVbd0zsU");
    let strange = [others.join("sessions/s/x.pack"), others.join("bases").join(base.file_name().unwrap())];
    for path in &strange {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "another database's").unwrap();
    }
    let unused = base.with_file_name(format!("{}.pack", "a".repeat(40)));
    fs::write(&unused, "nothing builds on it").unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(100 * 24 * 3600);
    for path in strange.iter().chain([&of(old)[0], &base, &unused]) {
        fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    server.restart().await;
    // A sweep a minute; the first one of a process looks at the store.
    let deadline = std::time::Instant::now() + 2 * support::PATIENCE;
    while !(of(deleted).is_empty() && of(old).is_empty() && !unused.exists()) {
        assert!(std::time::Instant::now() < deadline, "{:?}", packs(&store));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(strange.iter().all(|path| path.exists()) && base.exists() && of(kept).len() == 1, "{:?}", packs(&store));
    assert!(diff(&server, kept, "1-1", "").await.contains("+kept"));
    let (status, reason) = text(&server, &format!("/sessions/{old}/turns/1-1/diff")).await;
    assert!(status == 409 && reason.contains("removed by retention on"), "{reason}");
}
