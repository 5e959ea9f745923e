//! The workspace, through the session's runner.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Answer, Server, runner};

#[tokio::test]
async fn a_session_that_does_not_run_says_how_to_start_it() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.session("demo").await;
    for path in [
        "workspace",
        "workspace/a.txt",
        "workspace_stat",
        "git/status?repo=x",
        "git/diff?repo=x",
        "git/log?repo=x",
        "git/list-branches?repo=x",
        "git/merge-status?repo=x",
    ] {
        let reason = server.get(&format!("/sessions/{id}/{path}")).await.error(409)["reason"].clone();
        assert!(reason.as_str().unwrap().contains(&format!("POST /api/ambient/v1/sessions/{id}/start")), "{reason}");
    }
    server.post(&format!("/sessions/{id}/start"), json!({})).await.expect(StatusCode::ACCEPTED);
    let starting = server.get(&format!("/sessions/{id}/workspace")).await;
    starting.error(409);
    assert_eq!(starting.header("retry-after"), "1");
}

#[tokio::test]
async fn files_come_as_a_stream_with_ranges_and_no_path_leads_out() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let directory = tempfile::tempdir().unwrap();
    let socket = runner::listen(directory.path(), server.tokens.server_to_runner(&id, 1));
    *server.compute.socket.lock().unwrap() = Some(socket);
    let at = |path: &str| format!("/sessions/{id}/workspace/{path}");

    let whole = server.get(&at("dir/a%20b.txt")).await;
    assert_eq!((whole.status, whole.text.as_str()), (StatusCode::OK, runner::FILE));
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    assert_eq!((whole.header("x-content-sha256"), whole.header("content-length")), ("abc", "10"));
    let ranged = |range: &'static str| server.request(Method::GET, &at("dir/a%20b.txt")).header("Range", range).send();
    let part = Answer::of(ranged("bytes=2-4").await.unwrap()).await;
    assert_eq!((part.status, part.text.as_str()), (StatusCode::PARTIAL_CONTENT, "234"));
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    Answer::of(ranged("bytes=20-").await.unwrap()).await.error(416);

    // Generated clients encode slashes, or name the file in the query.
    for path in [at("dir%2Fa%20b.txt"), format!("/sessions/{id}/workspace_file?path=dir/a%20b.txt")] {
        let request = server.request(Method::GET, &path).header("Range", "bytes=2-4");
        assert_eq!(Answer::of(request.send().await.unwrap()).await.text, "234", "{path}");
    }
    for path in ["", "?path=", "?path=../a", "?path=/etc/passwd", "?file=a"] {
        server.get(&format!("/sessions/{id}/workspace_file{path}")).await.error(400);
    }

    server.get(&at("nope")).await.error(404);
    for path in ["..%2f..%2fetc/passwd", "a/%2e%2e%2f%2e%2e/b", "%2fetc%2fpasswd", "link"] {
        assert_eq!(server.get(&at(path)).await.fault(400), "path", "{path}");
    }
    for path in ["..", "/etc"] {
        let answer = server.get(&format!("/sessions/{id}/workspace?path={path}")).await;
        assert_eq!(answer.fault(400), "path", "{path}");
    }
    let status = server.get(&format!("/sessions/{id}/git/status")).await.expect(StatusCode::OK);
    assert_eq!(status["repo"], "demo");
}

#[tokio::test]
async fn files_are_written_removed_and_moved_and_every_fault_is_named() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let directory = tempfile::tempdir().unwrap();
    let socket = runner::listen(directory.path(), server.tokens.server_to_runner(&id, 1));
    *server.compute.socket.lock().unwrap() = Some(socket);
    let at = |path: &str| format!("/sessions/{id}/{path}");
    let put = async |path: &str, header: Option<(&'static str, &str)>| {
        let request = server.request(Method::PUT, &at(path)).body("0123456789");
        let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        Answer::of(request.send().await.unwrap()).await
    };

    let replaced = put("workspace/a%20b.txt?executable=true", None).await;
    assert_eq!((replaced.status, replaced.header("etag")), (StatusCode::OK, "\"parents=false&executable=true 10\""));
    for path in ["workspace/new/a%20b.txt?parents=true", "workspace_file?path=new/a%20b.txt&parents=true"] {
        let created = put(path, None).await;
        assert_eq!(created.header("location"), format!("/api/ambient/v1/sessions/{id}/workspace/new/a%20b.txt"));
        assert_eq!(created.expect(StatusCode::CREATED)["sha256"], "parents=true 10", "{path}");
    }
    let sum = format!("\"{}\"", "0".repeat(64));
    put("workspace/a", Some(("If-Match", &sum))).await.error(412);
    put("workspace/a", Some(("If-None-Match", "*"))).await.expect(StatusCode::OK);
    put("workspace/a", Some(("If-None-Match", &sum))).await.error(412);
    for value in ["\"1\"", "1", ""] {
        put("workspace/a", Some(("If-Match", value))).await.error(412);
    }
    for (path, field) in [
        ("workspace/a?parent=true", "parent"),
        ("workspace/a?parents=1", "parents"),
        ("workspace/%2fa", "path"),
        ("workspace_file?path=../a", "path"),
        ("workspace_file", "path"),
        ("workspace_file?path=a&executable=", "executable"),
    ] {
        assert_eq!(put(path, None).await.fault(400), field, "{path}");
    }
    let large = server.request(Method::PUT, &at("workspace/a")).body(vec![b'x'; 100 * 1024 * 1024 + 1]);
    assert_eq!(Answer::of(large.send().await.unwrap()).await.fault(413), "body");

    for path in ["workspace/a.txt", "workspace_file?path=a.txt", "workspace/dir?recursive=true"] {
        assert_eq!(server.delete(&at(path)).await.status, StatusCode::NO_CONTENT, "{path}");
    }
    assert_eq!(server.delete(&at("workspace/dir")).await.fault(400), "recursive");
    assert_eq!(server.delete(&at("workspace/dir?force=true")).await.fault(400), "force");
    server.delete(&at("workspace/nothing")).await.error(404);

    let stat = server.get(&at("workspace_stat?path=a&sha256=true")).await.expect(StatusCode::OK);
    assert_eq!((&stat["path"], &stat["sha256"]), (&json!("a"), &json!("abc")));
    assert_eq!(server.get(&at("workspace_stat?sha=true")).await.fault(400), "sha");
    let moved = json!({"from": "a", "to": "b"});
    assert_eq!(server.post(&at("workspace_move"), moved).await.expect(StatusCode::OK)["path"], "b");
    server.post(&at("workspace_move"), json!({"from": "a", "to": "taken"})).await.error(409);
    assert_eq!(server.post(&at("workspace_move"), json!({"from": "a", "into": "b"})).await.fault(400), "into");
}

#[tokio::test]
async fn what_is_asked_of_git_is_checked_and_passed_on() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let directory = tempfile::tempdir().unwrap();
    let socket = runner::listen(directory.path(), server.tokens.server_to_runner(&id, 1));
    *server.compute.socket.lock().unwrap() = Some(socket);
    let at = |path: &str| format!("/sessions/{id}/git/{path}");

    let log = server.get(&at("log?ref=main&path=a%20b&size=2")).await.expect(StatusCode::OK);
    assert_eq!(log["next"], r#"{"repo":"demo","ref":"main","path":"a b","size":2}"#);
    for (path, field) in [
        ("log?size=x", "size"),
        ("log?color=red", "color"),
        ("diff?changes=some", "changes"),
        ("diff?staged=true", "staged"),
        ("list-branches?all=true", "all"),
        ("merge-status?branch=refs/heads/x", "branch"),
        ("merge-status?strategy=merge", "strategy"),
    ] {
        assert_eq!(server.get(&at(path)).await.fault(400), field, "{path}");
    }
    for (path, body, field) in [
        ("create-branch", json!({"repo": "demo", "name": "-x"}), "name"),
        ("create-branch", json!({"repo": "demo"}), "name"),
        ("create-branch", json!({"repo": "demo", "name": "x", "force": true}), "force"),
        ("pull", json!({"repo": "demo", "strategy": "octopus"}), "strategy"),
        ("pull", json!({"repo": "demo", "branch": "a..b"}), "branch"),
        ("synchronize", json!({"repo": "demo"}), "branch"),
        ("abandon", json!({"repo": "demo", "hard": true}), "hard"),
    ] {
        assert_eq!(server.post(&at(path), body).await.fault(400), field, "{path}");
    }
    server.post(&at("pull"), json!({"repo": "demo", "strategy": "rebase"})).await.error(409);
}

#[tokio::test]
async fn a_runner_that_is_away_is_503() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    *server.compute.socket.lock().unwrap() = Some("/nonexistent/runner.sock".into());
    let answer = server.get(&format!("/sessions/{id}/workspace")).await;
    answer.error(503);
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn files_are_handed_in_while_no_run_is_underway_and_taken_back() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.session("demo").await;
    let put = async |query: &str, content: Vec<u8>| {
        let request = server.request(Method::PUT, &format!("/sessions/{id}/upload_file?{query}")).body(content);
        Answer::of(request.send().await.unwrap()).await
    };
    let created = put("path=./docs//a%20b.txt&executable=true", b"one".to_vec()).await;
    assert_eq!(created.header("location"), format!("/api/ambient/v1/sessions/{id}/uploads"));
    let created = created.expect(StatusCode::CREATED);
    assert_eq!((&created["path"], &created["size"]), (&json!("docs/a b.txt"), &json!(3)));
    let replaced = put("path=docs/a%20b.txt", b"other".to_vec()).await.expect(StatusCode::OK);
    assert_eq!((&replaced["size"], &replaced["executable"]), (&json!(5), &json!(false)));
    put("path=%5Cxff", Vec::new()).await.expect(StatusCode::CREATED);
    let listed = server.get(&format!("/sessions/{id}/uploads")).await.expect(StatusCode::OK);
    let paths: Vec<_> = listed["items"].as_array().unwrap().iter().map(|file| file["path"].clone()).collect();
    assert_eq!((&listed["total"], paths), (&json!(2), vec![json!("\\xff"), json!("docs/a b.txt")]));

    for query in ["path=/etc/x", "path=a/../../b", "path=", "path=.", "path=%00", "", "path=%5Cxzz"] {
        assert_eq!(put(query, Vec::new()).await.fault(400), "path", "{query}");
    }
    for path in ["n".repeat(256), "a/.git/config".to_owned(), ".GIT".to_owned()] {
        assert_eq!(put(&format!("path={path}"), Vec::new()).await.fault(400), "path", "{path}");
    }
    for path in ["docs", "docs/a%20b.txt/c"] {
        let reason = put(&format!("path={path}"), Vec::new()).await.error(409)["reason"].clone();
        assert!(reason.as_str().unwrap().contains("would be a folder"), "{reason}");
    }
    assert_eq!(put("path=a&parents=true", Vec::new()).await.fault(400), "parents");
    assert_eq!(put("path=large", vec![b'x'; 10 * 1024 * 1024 + 1]).await.fault(413), "body");
    for n in 0..6 {
        put(&format!("path=large/{n}"), vec![b'x'; 10 * 1024 * 1024]).await.expect(StatusCode::CREATED);
    }
    let reason = put("path=large/6", vec![b'x'; 10 * 1024 * 1024]).await.error(409)["reason"].clone();
    assert!(reason.as_str().unwrap().contains("67108864 bytes together"), "{reason}");

    let at = |path: &str| format!("/sessions/{id}/upload_file?path={path}");
    assert_eq!(server.delete(&at("large/0")).await.status, StatusCode::NO_CONTENT);
    server.delete(&at("large/0")).await.error(404);
    server.post(&format!("/sessions/{id}/start"), json!({})).await.expect(StatusCode::ACCEPTED);
    let reason = put("path=late", Vec::new()).await.error(409)["reason"].clone();
    assert!(reason.as_str().unwrap().contains("workspace_file"), "{reason}");
}
