//! The workspace, through the session's runner.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Answer, Server, runner};

#[tokio::test]
async fn a_session_that_does_not_run_says_how_to_start_it() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.session("demo").await;
    for path in ["workspace", "workspace/a.txt", "git/status?repo=x", "git/diff?repo=x"] {
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
async fn a_runner_that_is_away_is_503() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    *server.compute.socket.lock().unwrap() = Some("/nonexistent/runner.sock".into());
    let answer = server.get(&format!("/sessions/{id}/workspace")).await;
    answer.error(503);
    assert_eq!(answer.header("retry-after"), "1");
}
