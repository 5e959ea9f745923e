//! What is shown of a working tree: everything possible, byte for byte, and by name what is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::Engine;
use harness::{Session, git, scene::Scene};
use serde_json::{Value, json};

/// The snapshot after a turn in which nothing is done.
async fn next_snapshot(scene: &mut Scene) -> Value {
    let records = scene.turn("true").await;
    let failed = harness::of_type(&records, "repo.snapshot_failed");
    assert!(failed.is_empty(), "{failed:?}");
    harness::of_type(&records, "repo.snapshot")[0].clone()
}

/// A fresh checkout with a patch applied.
fn applied(scene: &Scene, patch: &[u8]) -> PathBuf {
    let target = tempfile::Builder::new().tempdir_in(scene.session.directory()).unwrap().keep();
    let origin = scene.session.directory().join("up.git");
    git(&target, &["clone", "--quiet", &origin.to_string_lossy(), "."]);
    let mut apply = Command::new("git");
    apply.args(["apply", "--whitespace=nowarn", "-"]).current_dir(&target).env("GIT_CONFIG_GLOBAL", "/dev/null");
    let mut child = apply.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(patch).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target
}

fn left_out(value: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    value.as_array().unwrap().iter().map(|item| (text(&item["path"]), text(&item["reason"]))).collect()
}

/// The header of a diff.
fn named_in(head: &str) -> Vec<(String, String)> {
    let line = head.lines().find_map(|line| line.strip_prefix("x-diff-left-out: ")).unwrap();
    let mut bytes = Vec::new();
    let mut rest = line.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    left_out(&serde_json::from_slice(&bytes).unwrap())
}

fn close(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
}

#[tokio::test]
async fn everything_readable_is_shown_and_the_rest_is_named() {
    let mut scene = Scene::new().await;
    let clone = scene.clone.clone();
    std::fs::write(clone.join("fine"), "fine\n").unwrap();
    for file in ["locked", "README.md"] {
        std::fs::write(clone.join(file), "locked\n").unwrap();
        close(&clone.join(file));
    }
    std::fs::create_dir(clone.join("shut")).unwrap();
    std::fs::write(clone.join("shut/in"), "in").unwrap();
    close(&clone.join("shut"));
    rustix::fs::mknodat(rustix::fs::CWD, clone.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(clone.join("socket")).unwrap();
    for nested in ["nested", "hollow"] {
        std::fs::create_dir(clone.join(nested)).unwrap();
        git(&clone.join(nested), &["init", "--quiet"]);
        std::fs::write(clone.join(nested).join("x"), "x").unwrap();
    }
    git(&clone.join("nested"), &["commit", "--quiet", "--allow-empty", "-m", "x"]);
    std::fs::write(clone.join(".gitignore"), "ignored\n").unwrap();
    std::fs::write(clone.join("ignored"), "").unwrap();
    close(&clone.join("ignored"));
    let expected: Vec<_> = [
        ("README.md", "unreadable"),
        ("hollow", "repository"),
        ("locked", "unreadable"),
        ("nested", "repository"),
        ("pipe", "special"),
        ("shut", "unreadable"),
        ("socket", "special"),
    ]
    .map(|(path, reason)| (path.to_owned(), reason.to_owned()))
    .into();
    let snapshot = next_snapshot(&mut scene).await;
    assert_eq!(left_out(&snapshot["left_out"]), expected);
    let patch = snapshot["patch"].as_str().unwrap();
    assert!(patch.contains("+fine") && !patch.contains("+locked"), "{patch}");
    let diff = scene.diff().await.expect(200);
    // The client writes heads in small letters.
    let small: Vec<_> = expected.iter().map(|(path, reason)| (path.to_lowercase(), reason.clone())).collect();
    assert_eq!(named_in(&diff.head), small);
    assert!(diff.text().contains("+fine"), "{}", diff.text());
    let client = &scene.runner.client;
    assert_eq!(left_out(&client.get("/git/status?repo=up").await.expect(200).json()["left_out"]), expected);
    let commit = client.send("POST", "/git/commit", json!({ "repo": "up", "message": "m" })).await.expect(200).json();
    assert_eq!(left_out(&commit["left_out"]), expected);
    let told = git(&clone, &["show", "--name-only", "--format=", "HEAD"]);
    assert_eq!(told, ".gitignore\nfine\nnested");
    // Nothing to commit is no reason to keep still either. What is committed as a submodule is told as one, with what is in it.
    let is_nested = |(path, reason): (String, String)| {
        let reason = if path == "nested" { "submodule".to_owned() } else { reason };
        (path, reason)
    };
    let expected: Vec<_> = expected.into_iter().map(is_nested).collect();
    let commit = client.send("POST", "/git/commit", json!({ "repo": "up", "message": "m" })).await.expect(200).json();
    assert_eq!((&commit["commit"], left_out(&commit["left_out"])), (&Value::Null, expected));
    for closed in ["shut", "ignored", "locked"] {
        std::fs::set_permissions(clone.join(closed), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[tokio::test]
async fn patches_apply_byte_for_byte_whatever_the_repository_says_of_diffs() {
    let mut scene = Scene::new().await;
    let clone = scene.clone.clone();
    for (key, value) in [
        ("diff.noprefix", "true"),
        ("diff.mnemonicPrefix", "true"),
        ("diff.external", "/bin/false"),
        ("diff.context", "0"),
        ("color.ui", "always"),
        ("diff.x.textconv", "/bin/false"),
        ("diff.suppressBlankEmpty", "true"),
    ] {
        git(&clone, &["config", key, value]);
    }
    let files: [(&str, &[u8]); 6] = [
        ("binary", b"\0\x01\x02\xff\xfe"),
        ("latin", b"caf\xe9\n\n\r\nno end"),
        ("text.nul", b"a\0b\n"),
        ("README.md", b"hello\r\nthere\n\n"),
        (".gitattributes", b"*.nul diff=x\n"),
        ("ein ä", b"\xe2\x82\xac\n"),
    ];
    for (name, bytes) in files {
        std::fs::write(clone.join(name), bytes).unwrap();
    }
    let diff = scene.diff().await.expect(200);
    let snapshot = next_snapshot(&mut scene).await;
    assert_eq!(snapshot["patch_exact"], false);
    let exact = base64::engine::general_purpose::STANDARD.decode(snapshot["patch_base64"].as_str().unwrap()).unwrap();
    for patch in [diff.body, exact] {
        let applied = applied(&scene, &patch);
        for (name, bytes) in files {
            assert_eq!(std::fs::read(applied.join(name)).unwrap(), bytes, "{name}");
        }
    }
    std::fs::remove_file(clone.join("latin")).unwrap();
    std::fs::remove_file(clone.join("text.nul")).unwrap();
    let snapshot = next_snapshot(&mut scene).await;
    assert_eq!((&snapshot["patch_exact"], snapshot.get("patch_base64")), (&true.into(), None));
    applied(&scene, snapshot["patch"].as_str().unwrap().as_bytes());
}

#[tokio::test]
async fn a_diff_over_the_limit_is_cut_and_says_so() {
    let mut scene = Scene::new().await;
    for name in ["a", "b"] {
        let line = format!("{}\n", "0123456789abcdef".repeat(8));
        std::fs::write(scene.clone.join(name), line.repeat(120_000)).unwrap();
    }
    let snapshot = next_snapshot(&mut scene).await;
    assert_eq!(snapshot["patch_truncated"], true);
    assert!(snapshot["patch"].as_str().unwrap().len() > 100_000);
    let diff = scene.diff().await.expect(200);
    assert!(diff.head.contains("x-diff-truncated: true"), "{}", diff.head);
    assert!(diff.body.len() > 20_000_000 && diff.body.ends_with(b"\n"));
    std::fs::remove_file(scene.clone.join("a")).unwrap();
    assert!(scene.diff().await.expect(200).head.contains("x-diff-truncated: false"));
}

fn size_of(directory: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let about = entry.metadata().unwrap();
        sum += if about.is_dir() { size_of(&entry.path()) } else { about.len() };
    }
    sum
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise).unwrap();
    noise
}

#[tokio::test]
async fn large_files_are_in_snapshots_once_and_the_largest_are_named_instead() {
    let mut scene = Scene::new().await;
    let objects = scene.clone.join(".git/objects");
    std::fs::write(scene.clone.join("huge"), vec![7; 33 << 20]).unwrap();
    std::fs::write(scene.clone.join("large"), noise(4 << 20)).unwrap();
    let snapshot = next_snapshot(&mut scene).await;
    assert_eq!(left_out(&snapshot["left_out"]), [("huge".to_owned(), "too_large".to_owned())]);
    let commit = snapshot["commit"].as_str().unwrap().to_owned();
    assert_eq!(git(&scene.clone, &["ls-tree", "--name-only", &commit]), "README.md\nlarge");
    let before = size_of(&objects);
    for _ in 0..3 {
        next_snapshot(&mut scene).await;
        scene.diff().await.expect(200);
    }
    assert!(size_of(&objects) - before < 20_000, "unchanged files are not added again, and a look adds nothing");
    std::fs::write(scene.clone.join("large"), noise(4 << 20)).unwrap();
    let before = size_of(&objects);
    scene.diff().await.expect(200);
    assert_eq!(size_of(&objects), before);
    // The session's room for large files is used up: told in the record, as a long session would have it.
    let record = scene.session.paths.repos().join("up.json");
    let known: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    assert_eq!(known["snapshot_bytes"], 4 << 20);
}

#[tokio::test]
async fn when_the_room_for_large_files_is_used_up_they_are_named() {
    let mut session = Session::new(true);
    let url = session.origin("up");
    let clone = session.paths.workspace().join("up");
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200);
    drop(runner);
    let record = session.paths.repos().join("up.json");
    let mut known: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    known["snapshot_bytes"] = ((512 << 20) - (3 << 20)).into();
    std::fs::write(&record, known.to_string()).unwrap();
    std::fs::write(clone.join("first"), noise(2 << 20)).unwrap();
    std::fs::write(clone.join("second"), noise((2 << 20) + 1)).unwrap();
    session.next_attempt();
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "", 0).await;
    for turn in 1..=2 {
        runner.client.deliver(&turn.to_string(), turn, "```\ntrue\n```").await.expect(200);
        let records = reader.until_turn_ended().await;
        let snapshot = harness::of_type(&records, "repo.snapshot")[0];
        assert_eq!(left_out(&snapshot["left_out"]), [("second".to_owned(), "no_room".to_owned())]);
    }
}

fn expected_new(path: &str) -> Value {
    json!({ "path": path, "status": "??" })
}

#[tokio::test]
async fn a_renamed_file_with_a_short_name_hides_no_other_and_what_is_staged_makes_no_difference() {
    let scene = Scene::new().await;
    std::fs::write(scene.clone.join("a"), "some lines\nof text\n").unwrap();
    git(&scene.clone, &["add", "a"]);
    git(&scene.clone, &["commit", "--quiet", "-m", "a"]);
    git(&scene.clone, &["mv", "a", "renamed"]);
    for name in ["z", "zz", "zzz"] {
        std::fs::write(scene.clone.join(name), "").unwrap();
    }
    let status = scene.status().await.expect(200).json();
    let expected = json!([
        { "path": "renamed", "status": " R", "original_path": "a" },
        { "path": "z", "status": "??" },
        { "path": "zz", "status": "??" },
        { "path": "zzz", "status": "??" },
    ]);
    assert_eq!((&status["files"], &status["truncated"]), (&expected, &false.into()));
    // Too many to compare, or nothing to compare with.
    for n in 0..400 {
        std::fs::write(scene.clone.join(format!("more{n}")), "").unwrap();
    }
    let status = scene.status().await.expect(200).json();
    assert_eq!(
        (&status["files"][0], &status["files"][401]),
        (&json!({ "path": "a", "status": " D" }), &expected_new("renamed"))
    );
    git(&scene.clone, &["reset", "--quiet", "--hard"]);
    let status = scene.status().await.expect(200).json();
    assert_eq!(status["files"].as_array().unwrap().len(), 403);
}
