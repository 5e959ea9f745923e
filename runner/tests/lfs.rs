//! Files that a repository keeps with Git LFS: fetched, put in place, uploaded; and what is reported where that is impossible.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::path::Path;

use harness::{
    Runner, Session, git,
    lfs::{HttpsOrigin, authority, commit_pointers, git_lfs, give, object, oid, pointer, put, with_git_lfs},
    run,
};
use serde_json::{Value, json};

const ONE: &[u8] = b"the first content\0\xff";
const TWO: &[u8] = b"the second content";

/// Makes the agent's next commit with git-lfs; the file's content is the text.
async fn commit(runner: &Runner, id: &str, file: &str, text: &str) -> String {
    let script =
        format!("printf '%s' '{text}' > {file}; git add {file}; git commit -q -m {id}; git cat-file -p HEAD:{file}");
    run(runner, id, &script).await
}

async fn push(runner: &Runner) -> harness::Answer {
    runner.client.send("POST", "/git/push", json!({ "repo": "up", "branch": "out" })).await
}

async fn files(runner: &Runner) -> Value {
    runner.client.get("/git/status?repo=up").await.expect(200).json()["files"].clone()
}

#[tokio::test]
async fn content_of_a_file_origin_is_in_place_and_what_a_commit_brings_is_uploaded_before_it() {
    let Some((session, url)) = with_git_lfs() else { return };
    let origin = session.directory().join("up.git");
    // What a repository says of where its content is has no weight.
    let config = "[lfs]\n\turl = https://127.0.0.1:1/evil\n[remote \"origin\"]\n\tlfsurl = https://127.0.0.1:1/evil\n";
    std::fs::write(session.directory().join("up/.lfsconfig"), config).unwrap();
    commit_pointers(&session, &[("one.bin", ONE), ("copy.bin", ONE)]);
    put(&origin, ONE);
    let runner = session.start().await;
    let repo = runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200).json();
    assert_eq!(repo.get("notices"), None, "{repo}");
    let clone = session.paths.workspace().join("up");
    assert_eq!(std::fs::read(clone.join("one.bin")).unwrap(), ONE);
    assert_eq!(std::fs::read(clone.join("copy.bin")).unwrap(), ONE);
    assert_eq!(files(&runner).await, json!([]));

    let text = String::from_utf8(TWO.to_vec()).unwrap();
    assert_eq!(commit(&runner, "two", "two.bin", &text).await, pointer(TWO));
    assert_eq!(files(&runner).await, json!([]));
    push(&runner).await.expect(200);
    assert_eq!(std::fs::read(object(&origin, TWO)).unwrap(), TWO);
    assert_eq!(git(&origin, &["cat-file", "-p", "out:two.bin"]), pointer(TWO).trim());
    // What the platform commits is kept as well, without git-lfs.
    let three = vec![b'3'; 5000];
    std::fs::write(clone.join("three.bin"), &three).unwrap();
    assert_eq!(files(&runner).await, json!([{ "path": "three.bin", "status": "??" }]));
    let diff = runner.client.get("/git/diff?repo=up").await.expect(200).text();
    assert!(diff.contains(&format!("+oid sha256:{}", oid(&three))), "{diff}");
    runner.client.send("POST", "/git/commit", json!({ "repo": "up", "message": "three" })).await.expect(200);
    assert_eq!(git(&clone, &["cat-file", "-p", "HEAD:three.bin"]), pointer(&three).trim());
    assert_eq!(files(&runner).await, json!([]));
    push(&runner).await.expect(200);
    assert_eq!(std::fs::read(object(&origin, &three)).unwrap(), three);
    // Another clone has it.
    runner.client.send("PUT", "/repos/again", json!({ "url": url, "branch": "out" })).await.expect(200);
    assert_eq!(std::fs::read(session.paths.workspace().join("again/two.bin")).unwrap(), TWO);
}

#[tokio::test]
async fn nothing_is_pushed_whose_content_is_missing_forged_or_behind_a_link() {
    let Some((session, url)) = with_git_lfs() else { return };
    let origin = session.directory().join("up.git");
    commit_pointers(&session, &[("one.bin", ONE)]);
    put(&origin, ONE);
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200);
    let three = b"the third content";
    commit(&runner, "three", "three.bin", std::str::from_utf8(three).unwrap()).await;
    let repository = session.paths.workspace().join("up/.git");
    let (there, aside) = (object(&repository, three), session.paths.workspace().join("aside"));
    let refused = async |what: &str| {
        let refused = push(&runner).await.expect(409).text();
        assert!(refused.contains("nothing is pushed"), "{what}: {refused}");
        assert_eq!(git(&origin, &["branch", "--list", "out"]), "", "{what}");
        assert!(!object(&origin, three).exists(), "{what}");
        refused
    };
    std::fs::rename(&there, &aside).unwrap();
    let why = refused("missing").await;
    assert!(why.contains("three.bin"), "{why}");
    std::fs::write(&there, b"the third c0ntent").unwrap();
    refused("forged").await;
    std::fs::write(&there, b"longer than the third content").unwrap();
    refused("of another size").await;
    std::fs::remove_file(&there).unwrap();
    std::os::unix::fs::symlink(&aside, &there).unwrap();
    refused("a link").await;
    std::fs::remove_file(&there).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &there, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    refused("a pipe").await;
    std::fs::remove_dir_all(repository.join("lfs/objects")).unwrap();
    put(&session.directory().join("else"), three);
    std::os::unix::fs::symlink(session.directory().join("else/lfs/objects"), repository.join("lfs/objects")).unwrap();
    refused("a link to all of it").await;
    std::fs::remove_file(repository.join("lfs/objects")).unwrap();
    put(&repository, three);
    push(&runner).await.expect(200);
    assert_eq!(std::fs::read(object(&origin, three)).unwrap(), three);
}

#[tokio::test]
async fn without_content_or_git_lfs_pointers_stay_and_it_is_said_why() {
    let Some((session, url)) = with_git_lfs() else { return };
    commit_pointers(&session, &[("one.bin", ONE), ("two.bin", TWO)]);
    put(&session.directory().join("up.git"), ONE);
    // Of the right size, with another content.
    let forged = object(&session.directory().join("up.git"), TWO);
    std::fs::create_dir_all(forged.parent().unwrap()).unwrap();
    std::fs::write(&forged, b"the sec0nd content").unwrap();
    let runner = session.start().await;
    let repo = runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200).json();
    let notice = repo["notices"][0].as_str().unwrap();
    assert!(notice.contains("of 2 files") && notice.contains("two.bin: its content is not what"), "{repo}");
    let clone = session.paths.workspace().join("up");
    assert_eq!(std::fs::read(clone.join("one.bin")).unwrap(), ONE);
    assert_eq!(std::fs::read_to_string(clone.join("two.bin")).unwrap(), pointer(TWO));
    assert_eq!(files(&runner).await, json!([]));

    if Path::new("/usr/bin/git-lfs").exists() || Path::new("/usr/local/bin/git-lfs").exists() {
        eprintln!("git-lfs is installed here: what is said without it is not tried");
        return;
    }
    let bare = Session::new(true);
    let runner = bare.start().await;
    let repo = runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200).json();
    assert!(repo["notices"][0].as_str().unwrap().contains("git-lfs is not installed"), "{repo}");
    let clone = bare.paths.workspace().join("up");
    assert_eq!(std::fs::read_to_string(clone.join("one.bin")).unwrap(), pointer(ONE));
}

#[tokio::test]
async fn over_https_content_goes_by_the_batch_api_and_secrets_to_nobody_they_were_not_meant_for() {
    let Some(program) = git_lfs() else { return };
    let mut session = Session::new(true);
    let Some(ca) = authority(&mut session) else { return };
    give(&mut session, &program, &[("GIT_SSL_CAINFO", ca.to_str().unwrap())]);
    session.origin("up");
    commit_pointers(&session, &[("one.bin", ONE)]);
    let bare = session.directory().join("up.git");
    git(&bare, &["config", "http.receivepack", "true"]);
    let (server, other) = (HttpsOrigin::start(&session).await, HttpsOrigin::start(&session).await);
    for server in [&server, &other] {
        server.state.lock().unwrap().objects.insert(oid(ONE), ONE.to_vec());
    }
    let url = server.url("up.git");
    let runner = session.start().await;
    let clone = session.paths.workspace().join("up");
    let again = async || {
        runner.client.send("DELETE", "/repos/up", json!({})).await.expect(204);
        runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200).json()
    };

    let repo = again().await;
    assert_eq!(repo.get("notices"), None, "{repo}");
    assert_eq!(std::fs::read(clone.join("one.bin")).unwrap(), ONE);

    // Where the origin sends us its headers go along; where that sends us on to, they do not.
    server.state.lock().unwrap().sent_on = other.url("content/");
    let repo = again().await;
    assert_eq!(repo.get("notices"), None, "{repo}");
    {
        let (first, second) = (server.state.lock().unwrap(), other.state.lock().unwrap());
        let path = format!("/content/{}", oid(ONE));
        let asked = |state: &harness::lfs::State| state.asked.iter().rfind(|(_, p, _)| *p == path).unwrap().2.clone();
        assert_eq!(asked(&first), ["authorization", "x-secret"]);
        assert_eq!(asked(&second), [""; 0]);
        assert_eq!(second.asked.len(), 1, "{:?}", second.asked);
    }

    // To nowhere without TLS, and to nothing but https.
    for bad in ["http://127.0.0.1:9/", "file:///etc/", "https://u:p@127.0.0.1:9/", "ftp://h/"] {
        {
            let mut state = server.state.lock().unwrap();
            state.sent_on.clear();
            bad.clone_into(&mut state.elsewhere);
        }
        let repo = again().await;
        assert!(repo["notices"][0].as_str().unwrap().contains("one.bin: a URL"), "{bad}: {repo}");
        assert_eq!(std::fs::read_to_string(clone.join("one.bin")).unwrap(), pointer(ONE));
    }
    // Longer, shorter, other.
    for bad in [&b"x"[..], b"the first content\0\xfe", &[0; 100]] {
        {
            let mut state = server.state.lock().unwrap();
            state.elsewhere.clear();
            state.objects.insert(oid(ONE), bad.to_vec());
        }
        let repo = again().await;
        assert!(repo["notices"][0].as_str().unwrap().contains("one.bin: it"), "{repo}");
        assert_eq!(std::fs::read_to_string(clone.join("one.bin")).unwrap(), pointer(ONE));
    }

    commit(&runner, "two", "two.bin", std::str::from_utf8(TWO).unwrap()).await;
    push(&runner).await.expect(200);
    let state = server.state.lock().unwrap();
    assert_eq!((state.objects.get(&oid(TWO)).map(Vec::as_slice), &state.verified), (Some(TWO), &vec![oid(TWO)]));
    let place = |what: &str| state.asked.iter().rposition(|(_, path, _)| path.contains(what)).unwrap();
    assert!(place("/verify") < place("git-receive-pack"), "content goes first");
    assert_eq!(git(&bare, &["cat-file", "-p", "out:two.bin"]), pointer(TWO).trim());
}
