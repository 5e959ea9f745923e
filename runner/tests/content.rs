//! The workspace as it can be read from outside, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::Session;
use serde_json::json;

#[tokio::test]
async fn files_and_directories_are_read_with_ranges_and_hashes() {
    let session = Session::new(true);
    let workspace = session.paths.workspace();
    std::fs::create_dir_all(workspace.join("d/ü")).unwrap();
    std::fs::write(workspace.join("d/ü/f.txt"), "0123456789").unwrap();
    std::fs::write(workspace.join("empty"), "").unwrap();
    std::os::unix::fs::symlink("d", workspace.join("link")).unwrap();
    let runner = session.start().await;
    let client = &runner.client;
    let listing = client.get("/content").await.expect(200).json();
    let entries: Vec<_> = listing["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["name"].as_str().unwrap(), e["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(entries, [("d", "directory"), ("empty", "file"), ("link", "symlink")]);
    assert_eq!(client.get("/content?path=d/%C3%BC").await.expect(200).json()["entries"][0]["size"], 10);
    let whole = client.get("/content/d/%C3%BC/f.txt").await.expect(200);
    assert_eq!(whole.text(), "0123456789");
    assert!(whole.head.contains("x-content-sha256: 84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"));
    for (range, status, text) in [
        ("bytes=2-4", 206, "234"),
        ("bytes=7-", 206, "789"),
        ("bytes=-3", 206, "789"),
        ("bytes=0-99", 206, "0123456789"),
        ("lines=1", 200, "0123456789"),
    ] {
        let part = client.get_range("/content/d/%C3%BC/f.txt", range).await.expect(status);
        assert_eq!(part.text(), text, "{range}");
    }
    assert!(
        client.get_range("/content/d/%C3%BC/f.txt", "bytes=2-4").await.head.contains("content-range: bytes 2-4/10")
    );
    client.get_range("/content/d/%C3%BC/f.txt", "bytes=10-").await.expect(416);
    client.get_range("/content/empty", "bytes=0-").await.expect(416);
    client.get_range("/content/empty", "bytes=x-").await.expect_bad("range");
    assert_eq!(client.get("/content/empty").await.expect(200).text(), "");
}

#[tokio::test]
async fn nothing_outside_the_workspace_can_be_reached() {
    let session = Session::new(true);
    let workspace = session.paths.workspace();
    std::fs::create_dir(workspace.join("d")).unwrap();
    std::os::unix::fs::symlink(session.paths.server_token(1), workspace.join("token")).unwrap();
    std::os::unix::fs::symlink(&session.paths.root, workspace.join("root")).unwrap();
    std::os::unix::fs::symlink("d", workspace.join("inside")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, workspace.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let runner = session.start().await;
    let client = &runner.client;
    for path in [
        "token",
        "root/home",
        "root/runs/1/secrets/server-to-runner",
        "inside/x",
        "%2e%2e/home",
        "../home",
        "d/../../home",
        "d/..",
        "%2Fetc/passwd",
        "/etc/passwd",
        "a%00b",
        "%ff",
        "pipe",
        "d",
        "root",
    ] {
        client.get(&format!("/content/{path}")).await.expect_bad("path");
    }
    for path in ["..", "../..", "/etc", "root", "inside", "d%00", "token"] {
        client.get(&format!("/content?path={path}")).await.expect_bad("path");
    }
    // What is there is no directory: that may change.
    client.get("/content?path=pipe").await.expect(409);
    client.get("/content/nothing").await.expect(404);
    client.get("/content?path=nothing").await.expect(404);
    client.get(&format!("/content/{}", "x".repeat(300))).await.expect(404);
    client.send("POST", "/content/x", json!({})).await.expect(404);
}

#[tokio::test]
async fn a_listing_is_cut_at_its_limit_and_says_so() {
    let session = Session::new(true);
    for i in 0..10_050 {
        std::fs::write(session.paths.workspace().join(format!("f{i}")), "").unwrap();
    }
    let runner = session.start().await;
    let listing = runner.client.get("/content?path=").await.expect(200).json();
    assert_eq!((listing["entries"].as_array().unwrap().len(), &listing["truncated"]), (10_000, &true.into()));
}
