//! The workspace as it can be changed from outside: with the agent's rights, in one step, and nowhere else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use harness::{Answer, Client, Session, eventually};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::UnixStream};

const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

async fn remove(client: &Client, path: &str) -> Answer {
    client.send("DELETE", &format!("/content/{path}"), json!({})).await
}

async fn relocate(client: &Client, body: Value) -> Answer {
    client.send("POST", "/content-move", body).await
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// What is in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| format!("{:?}", entry.unwrap().file_name())).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_is_written_whole_with_its_conditions_and_keeps_its_permissions() {
    let session = Session::new(true);
    let workspace = session.paths.workspace();
    let runner = session.start().await;
    let client = &runner.client;

    let written = client.write("d/a.txt", "", b"hello").await.expect(404).json();
    assert_eq!(written["code"], "not_found");
    let written = client.write("d/e/a.txt?parents=true", "", b"hello").await.expect(201).json();
    assert_eq!((&written["sha256"], &written["mode"], &written["size"]), (&json!(HELLO), &json!("0644"), &json!(5)));
    let file = workspace.join("d/e/a.txt");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello");

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    client.write("d/e/a.txt", "If-None-Match: *\r\n", b"x").await.expect(412);
    client.write("d/e/a.txt", "If-Match: \"00\"\r\n", b"x").await.expect(412);
    client.write("d/e/b.txt", "If-Match: *\r\n", b"x").await.expect(412);
    client.write("d/e/a.txt", "If-None-Match: \"x\"\r\n", b"x").await.expect_bad("If-None-Match");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello");
    client.write("d/e/a.txt", &format!("If-Match: \"{HELLO}\"\r\n"), b"2").await.expect(200);
    assert_eq!((std::fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("2", 0o640));
    client.write("d/e/a.txt?executable=true", "", b"3").await.expect(200);
    assert_eq!(mode(&file), 0o750);
    client.write("d/e/a.txt?executable=false", "", b"").await.expect(200);
    assert_eq!((mode(&file), file.metadata().unwrap().len()), (0o640, 0));
    client.write("d/e/b.txt", "If-None-Match: *\r\n", b"new").await.expect(201);
    assert_eq!(names(&workspace.join("d/e")), ["\"a.txt\"", "\"b.txt\""]);

    client.write("d", "", b"x").await.expect_bad("path");
    client.write("d/e/a.txt/x", "", b"x").await.expect(409);
    client.write("d/e/c?color=red", "", b"x").await.expect_bad("color");
    client.write("d/e/c?parents=yes", "", b"x").await.expect(400);

    let status = client.get("/content-status?path=d/e/b.txt&sha256=true").await.expect(200).json();
    let sum = "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437";
    assert_eq!((&status["kind"], &status["sha256"]), (&json!("file"), &json!(sum)));
    assert_eq!(client.get("/content-status?path=d").await.expect(200).json()["kind"], "directory");
    assert_eq!(client.get("/content-status").await.expect(200).json()["kind"], "directory");
    client.get("/content-status?path=nothing").await.expect(404);
}

#[tokio::test]
async fn of_two_writers_that_saw_the_same_content_one_is_refused() {
    let session = Session::new(true);
    std::fs::write(session.paths.workspace().join("f"), "hello").unwrap();
    let runner = session.start().await;
    let condition = format!("If-Match: \"{HELLO}\"\r\n");
    let write = |content: &'static [u8]| runner.client.write("f", &condition, content);
    let answers = tokio::join!(write(b"1"), write(b"2"), write(b"3"), write(b"4"));
    let mut statuses = [answers.0.status, answers.1.status, answers.2.status, answers.3.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412]);
}

#[tokio::test]
async fn nothing_outside_the_workspace_can_be_changed() {
    let session = Session::new(true);
    let (workspace, home) = (session.paths.workspace(), session.paths.home());
    std::fs::write(home.join("kept"), "kept").unwrap();
    std::fs::create_dir(home.join("folder")).unwrap();
    std::os::unix::fs::symlink(&home, workspace.join("out")).unwrap();
    std::os::unix::fs::symlink(home.join("kept"), workspace.join("link")).unwrap();
    std::fs::create_dir(workspace.join("d")).unwrap();
    std::os::unix::fs::symlink(home.join("folder"), workspace.join("d/folder")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, workspace.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let runner = session.start().await;
    let client = &runner.client;

    for path in ["out/kept", "out/new", "link", "pipe", "../home/kept", "%2e%2e/home/kept", "%2Fetc/x", "a%00b", "d/.."]
    {
        client.write(path, "", b"x").await.expect_bad("path");
        client.write(&format!("{path}?parents=true"), "", b"x").await.expect_bad("path");
    }
    for path in ["out/kept", "../home/kept", "%2e%2e/home", "."] {
        assert_eq!(remove(client, path).await.status, 400, "{path}");
        let to = json!({ "from": path.replace("%2e", "."), "to": "x" });
        relocate(client, to).await.expect_bad("from");
        relocate(client, json!({ "from": "d", "to": path.replace("%2e", ".") })).await.expect_bad("to");
    }
    relocate(client, json!({ "from": "d", "to": "d/x" })).await.expect_bad("to");
    relocate(client, json!({ "from": "d", "to": "x", "by": "y" })).await.expect_bad("by");

    // A link is removed and moved itself; what it leads to stays.
    remove(client, "d").await.expect_bad("recursive");
    remove(client, "d?recursive=true").await.expect(204);
    remove(client, "link").await.expect(204);
    remove(client, "link").await.expect(404);
    remove(client, "pipe").await.expect(204);
    std::fs::create_dir_all(workspace.join("locked/in/deep")).unwrap();
    for folder in ["locked/in/deep", "locked/in", "locked"] {
        std::fs::set_permissions(workspace.join(folder), std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    remove(client, "locked?recursive=true").await.expect(204);
    assert!(workspace.join("locked").symlink_metadata().is_err());
    relocate(client, json!({ "from": "out", "to": "a/b/out", "parents": true })).await.expect(200);
    assert_eq!(names(&home), ["\"folder\"", "\"kept\""]);
    assert_eq!(std::fs::read_to_string(home.join("kept")).unwrap(), "kept");
    assert!(workspace.join("a/b/out").symlink_metadata().unwrap().is_symlink());
    let status = client.get("/content-status?path=a/b/out").await.expect(200).json();
    assert_eq!(status["kind"], "symlink");
}

#[tokio::test]
async fn folders_that_become_links_meanwhile_lead_nowhere() {
    let session = Session::new(true);
    let (workspace, home) = (session.paths.workspace(), session.paths.home());
    std::fs::create_dir(home.join("victim")).unwrap();
    std::fs::write(home.join("victim/kept"), "kept").unwrap();
    std::fs::create_dir_all(workspace.join("real")).unwrap();
    std::os::unix::fs::symlink(home.join("victim"), workspace.join("evil")).unwrap();
    let runner = session.start().await;
    let (ended, ends) = std::sync::mpsc::channel::<()>();
    let swapping = std::thread::spawn({
        let workspace = workspace.clone();
        move || {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while ends.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let (one, other) = (workspace.join("real"), workspace.join("evil"));
                rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, exchange).unwrap();
            }
        }
    });
    for i in 0..30 {
        let client = &runner.client;
        for answer in [
            client.write(&format!("real/{i}"), "", b"x").await,
            remove(client, "real/kept").await,
            relocate(client, json!({ "from": "real/kept", "to": format!("taken-{i}") })).await,
        ] {
            assert!(matches!(answer.status, 201 | 400 | 404 | 409), "{}: {}", answer.status, answer.text());
        }
    }
    drop(ended);
    swapping.join().unwrap();
    assert_eq!(names(&home.join("victim")), ["\"kept\""]);
}

#[tokio::test]
async fn any_name_can_be_sent_back_as_it_was_told() {
    let session = Session::new(true);
    let workspace = session.paths.workspace();
    std::fs::create_dir(workspace.join(OsStr::from_bytes(b"d\xff"))).unwrap();
    let runner = session.start().await;
    let client = &runner.client;
    for (name, told) in [(&b"\xfe\n%41"[..], "\\xfe\n%41"), (br"a\b", r"a\\b"), ("ü\x1b".as_bytes(), "ü\x1b")] {
        let path = format!("d\\xff/{told}");
        let encoded: String =
            path.bytes().map(|byte| if byte == b'/' { "/".to_owned() } else { format!("%{byte:02X}") }).collect();
        let written = client.write(&encoded, "", b"hello").await.expect(201).json();
        assert_eq!(written["path"], path);
        assert!(workspace.join(OsStr::from_bytes(b"d\xff")).join(OsStr::from_bytes(name)).is_file());
        let listing = client.get("/content?path=d%5Cxff").await.expect(200).json();
        assert_eq!(listing["entries"][0]["name"], told);
        assert_eq!(client.get(&format!("/content/{encoded}")).await.expect(200).text(), "hello");
        let status = client.get(&format!("/content-status?path={}&sha256=true", encoded.replace('/', "%2F"))).await;
        assert_eq!(status.expect(200).json()["sha256"], HELLO);
        relocate(client, json!({ "from": path, "to": "plain" })).await.expect(200);
        relocate(client, json!({ "from": "plain", "to": path })).await.expect(200);
        relocate(client, json!({ "from": path, "to": "d\\xff/\\x80" })).await.expect(200);
        remove(client, "d%5Cxff/%5Cx80").await.expect(204);
    }
    for bad in ["a%5Cb", "%5Cx41", "%5Cx2f", "%5Cx"] {
        client.get(&format!("/content/{bad}")).await.expect_bad("path");
        client.write(bad, "", b"x").await.expect_bad("path");
    }
}

#[tokio::test]
async fn large_files_have_a_limit_and_what_breaks_off_leaves_nothing() {
    let mut session = Session::new(true);
    session.spec.limits.file_size_bytes = 8 << 20;
    let workspace = session.paths.workspace();
    let runner = session.start().await;
    let client = &runner.client;
    let large = vec![b'x'; 8 << 20];
    client.write("large", "", &large).await.expect(201);
    client.write("larger", "", &[&large[..], b"x"].concat()).await.expect(413);
    let mut stream = UnixStream::connect(&client.socket).await.unwrap();
    let head = format!(
        "PUT /content/broken HTTP/1.1\r\nHost: runner\r\nAuthorization: Bearer {}\r\nContent-Length: 1000000\r\n\r\n",
        client.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&large[..100_000]).await.unwrap();
    eventually("it is on its way", || names(&workspace).len() == 2).await;
    drop(stream);
    eventually("nothing of it is left", || names(&workspace) == ["\"large\""]).await;
}

#[tokio::test]
async fn files_are_moved_over_others_only_when_asked() {
    let session = Session::new(true);
    let workspace = session.paths.workspace();
    std::fs::create_dir_all(workspace.join("full/x")).unwrap();
    std::fs::create_dir(workspace.join("empty")).unwrap();
    std::fs::write(workspace.join("a"), "a").unwrap();
    std::fs::write(workspace.join("b"), "b").unwrap();
    let runner = session.start().await;
    let client = &runner.client;
    relocate(client, json!({ "from": "a", "to": "b" })).await.expect(409);
    relocate(client, json!({ "from": "a", "to": "full", "overwrite": true })).await.expect(409);
    relocate(client, json!({ "from": "empty", "to": "full", "overwrite": true })).await.expect(409);
    relocate(client, json!({ "from": "a", "to": "no/b" })).await.expect(404);
    relocate(client, json!({ "from": "no", "to": "c" })).await.expect(404);
    relocate(client, json!({ "from": "a", "to": "b", "overwrite": true })).await.expect(200);
    relocate(client, json!({ "from": "full", "to": "empty", "overwrite": true })).await.expect(200);
    assert_eq!(std::fs::read_to_string(workspace.join("b")).unwrap(), "a");
    assert_eq!(names(&workspace), ["\"b\"", "\"empty\""]);
}

/// A file system of its own. Gone when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// None without the right to mount.
    fn new(place: &Path) -> Option<Self> {
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(place).status();
        mount.is_ok_and(|status| status.success()).then(|| Self(place.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_as_such() {
    let session = Session::new(true);
    let workspace = session.paths.workspace();
    let Some(_mounted) = Mounted::new(&workspace) else { return };
    let runner = session.start().await;
    let refused = runner.client.write("large", "", &vec![b'x'; 2 << 20]).await.expect(409).json();
    assert!(refused["reason"].as_str().unwrap().contains("no space left"), "{refused}");
    runner.client.write("small", "", b"x").await.expect(201);
    assert_eq!(names(&workspace), ["\"small\""]);
}
