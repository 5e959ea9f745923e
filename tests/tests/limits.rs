//! Sessions that use too much, and a full disk: it is reported, nothing acknowledged is lost, and everything recovers by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ambient_tests::TestDatabase;
use serde_json::{Value, json};
use support::{Server, binary, eventually, script};

const MIB: u64 = 1 << 20;

/// A small file system; only root can make one.
struct Small(PathBuf);

impl Small {
    fn mount(on: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(on).unwrap();
        let size = format!("size={bytes},mode=711");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(on).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(on.to_owned()))
    }

    /// Takes all that is left, as another program on the machine would.
    fn fill(&self) -> PathBuf {
        let file = self.0.join("of-another-program");
        let copied =
            Command::new("sh").arg("-c").arg(format!("cat /dev/zero > {} 2>/dev/null", file.display())).status();
        assert!(!copied.unwrap().success());
        file
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn runner_bytes() -> u64 {
    binary("ambient-runner").metadata().unwrap().len()
}

#[tokio::test]
async fn a_session_that_reaches_its_memory_limit_fails_with_out_of_memory_and_the_server_lives() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    server.project("limits").await;
    let eaters =
        "for i in 1 2 3 4 5 6; do sh -c 'x=$(head -c 30000000 /dev/zero | tr \"\\\\0\" a); sleep 30' & done; wait";
    let mut has_group = true;
    for interactive in [false, true] {
        let body = json!({
            "project_id": "limits", "prompt": script(eaters), "interactive": interactive,
            "resource_overrides": {"memory": "96Mi", "processes": 200},
        });
        let id = server.session(body).await;
        let session = server.phase(&id, "Failed").await;
        assert_eq!(session["outcome"]["reason"], "OutOfMemory", "{session:#}");
        assert!(session["outcome"]["message"].as_str().unwrap().contains("96 MiB"), "{session:#}");
        has_group &= !session["conditions"].to_string().contains("limit on memory: no control group");
    }
    // The turn is over at once and has succeeded, as far as its shell knows. Without a control group nothing is killed: the process is
    // refused the memory.
    if has_group {
        let hidden = script("head -c 300000000 /dev/zero | tail | wc -c");
        let body = json!({
            "project_id": "limits", "prompt": hidden, "interactive": false, "resource_overrides": {"memory": "96Mi"},
        });
        let id = server.session(body).await;
        let session = server.phase(&id, "Failed").await;
        assert_eq!(session["outcome"]["reason"], "OutOfMemory", "{session:#}");
    }
    let modest = server.session(json!({"project_id": "limits", "prompt": script("true"), "interactive": false})).await;
    server.phase(&modest, "Completed").await;
}

#[tokio::test]
async fn a_full_disk_is_the_reason_new_work_waits_and_all_goes_on_when_there_is_space() {
    let database = TestDatabase::new().await;
    let mut server = Server::new(&database, "one");
    let Some(_small) = Small::mount(&server.data_dir(), runner_bytes() + 120 * MIB) else { return };
    server.restart().await;
    server.project("limits").await;
    let batch = |shell: &str| json!({"project_id": "limits", "prompt": script(shell), "interactive": false});
    let quiet = server.session(json!({"project_id": "limits", "prompt": script("echo quiet")})).await;
    server.printed(&quiet, "quiet").await;
    let greedy = server.session(batch("sleep 1.5; cat /dev/zero > big || true; sleep 50")).await;
    let failed = server.phase(&greedy, "Failed").await;
    assert_eq!(failed["outcome"]["reason"], "DiskFull", "{failed:#}");
    let told =
        eventually("readiness tells", async || server.readiness().await.filter(|answer| answer.status == 503)).await;
    let reason = told.json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "compute").unwrap();
    assert!(reason["reason"].as_str().unwrap().contains(&*server.data_dir().to_string_lossy()), "{reason}");

    let late = server.session(batch("true")).await;
    eventually("the new session says what it waits for", async || {
        let session = server.get(&format!("/sessions/{late}")).await.expect(200);
        (session["status_detail"]["reason"] == "DiskFull").then_some(())
    })
    .await;
    assert_eq!(server.get(&format!("/sessions/{quiet}")).await.expect(200)["phase"], "Running");
    server.delete(&format!("/sessions/{greedy}")).await;
    server.phase(&late, "Completed").await;
    server.ready().await;
    server.post(&format!("/sessions/{quiet}/messages"), json!({"text": script("echo still")})).await.expect(201);
    server.printed(&quiet, "still").await;
    server.verified().await;
}

#[tokio::test]
async fn a_runner_whose_log_meets_a_full_disk_ends_its_session_with_disk_full_at_once() {
    let database = TestDatabase::new().await;
    let mut server = Server::new(&database, "one");
    let Some(small) = Small::mount(&server.data_dir(), runner_bytes() + 120 * MIB) else { return };
    // No reserve, no watching that comes before: the runner meets the full disk by itself.
    server.settings = vec![("AMBIENT_DISK_RESERVE", "1".to_owned()), ("AMBIENT_DISK_LOW_WATER", "1".to_owned())];
    server.restart().await;
    server.project("limits").await;
    let talker = "echo begun; while :; do head -c 20000 /dev/zero | tr '\\0' a; echo; sleep 0.05; done";
    let id = server.session(json!({"project_id": "limits", "prompt": script(talker), "timeout": 600})).await;
    server.printed(&id, "begun").await;
    let full = small.fill();
    let stopping = eventually("the outcome is told", async || {
        let session = server.get(&format!("/sessions/{id}")).await.expect(200);
        (!session["outcome"].is_null()).then_some(session)
    })
    .await;
    assert_eq!(stopping["outcome"]["reason"], "DiskFull", "{stopping:#}");
    fs::remove_file(full).unwrap();
    let failed = server.phase(&id, "Failed").await;
    assert_eq!(failed["outcome"]["reason"], "DiskFull", "{failed:#}");
    let again = json!({"prompt": script("echo again")});
    server.post(&format!("/sessions/{id}/start"), again).await.expect(202);
    server.printed(&id, "again").await;
}

/// `ambient up` with its own PostgreSQL; ended with the test.
struct Up {
    child: std::process::Child,
    data: PathBuf,
    address: String,
}

impl Up {
    fn start(data: &Path) -> Self {
        let address = format!("127.0.0.1:{}", support::free_port());
        let log = fs::File::create(data.join("up-of-the-test.log")).unwrap();
        let mut command = support::clean_command(binary("ambient"));
        command.arg("up").env("AMBIENT_DATA_DIR", data).env("AMBIENT_LISTEN", &address).env("HOME", data);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { child, data: data.to_owned(), address }
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let http = reqwest::Client::builder().no_proxy().timeout(std::time::Duration::from_secs(20)).build().unwrap();
        let token = fs::read_to_string(self.data.join("admin-token")).ok()?;
        let mut request = http.request(method, format!("http://{}{path}", self.address)).bearer_auth(token.trim());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.unwrap_or_default()))
    }

    async fn readiness(&self, wanted: u16) {
        eventually(&format!("/readyz answers {wanted}"), async || {
            let (status, _) = self.ask(reqwest::Method::GET, "/readyz", None).await?;
            (status == wanted).then_some(())
        })
        .await;
    }

    async fn create(&self, name: &str) -> Option<u16> {
        // What cannot be compressed takes space in the database.
        let text: String = (0..6_000).map(|_| uuid::Uuid::new_v4().to_string()).collect();
        let body = json!({"project_id": "local", "name": name, "prompt": text});
        Some(self.ask(reqwest::Method::POST, "/api/ambient/v1/sessions", Some(body)).await?.0)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut down = support::clean_command(binary("ambient"));
        let _ = down.arg("down").env("AMBIENT_DATA_DIR", &self.data).env("HOME", &self.data).status();
    }
}

#[tokio::test]
async fn the_embedded_postgres_survives_a_full_disk_and_nothing_acknowledged_is_lost() {
    let dir = support::short_dir();
    let data = dir.path().join("d");
    let Some(small) = Small::mount(&data, runner_bytes() + 300 * MIB) else { return };
    let mut up = Up::start(&data);
    up.readiness(200).await;
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    let full = small.fill();
    for n in 0..400 {
        let name = format!("s{n}");
        match up.create(&name).await {
            Some(201) => acknowledged.push(name),
            _ => refused += 1,
        }
        if refused > 3 {
            break;
        }
    }
    assert!(refused > 3, "the database was never short of space ({} were taken)", acknowledged.len());
    up.readiness(503).await;
    assert!(up.child.try_wait().unwrap().is_none(), "the server lives");
    fs::remove_file(full).unwrap();
    up.readiness(200).await;
    eventually("commands go through again", async || (up.create("after").await == Some(201)).then_some(())).await;
    let (_, list) = up.ask(reqwest::Method::GET, "/api/ambient/v1/sessions?size=1000", None).await.unwrap();
    let there: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|name| !there.contains(&name.as_str())).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
