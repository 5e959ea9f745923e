use serde_json::json;

use super::*;
use crate::{
    exit::Exit,
    output::capture::{self, Captured},
    stub::{Reply, Stub, ok, refused},
};

fn client(url: &str, patience: Duration) -> (Client, Captured) {
    let (console, _, err) = capture::console(false, false);
    let url = Url::parse(&format!("{url}/")).unwrap();
    let target = Target { url, token: Some("secret".to_owned()), project: None };
    let client = Client::new(&target, console).unwrap();
    (Client { patience, ..client }, err)
}

#[tokio::test]
async fn a_post_is_repeated_with_the_same_key_until_it_is_answered() {
    let stub = Stub::start(|request| match request.before {
        0 => Reply::Cut,
        _ => ok(&json!({})),
    })
    .await;
    let (client, err) = client(&stub.url, Duration::from_secs(20));
    // The second response breaks off: fewer bytes arrive than were promised.
    client.post(&Route::new(["projects"]), &json!({"name": "demo"})).await.unwrap();
    let requests = stub.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|r| r.body == "{\"name\":\"demo\"}" && r.headers["authorization"] == "Bearer secret"));
    assert_eq!(requests[0].headers["idempotency-key"], requests[1].headers["idempotency-key"]);
    assert!(err.text().starts_with("POST /projects: ") && err.text().contains("trying again for up to 20.0 s …"));

    client.post(&Route::new(["projects"]), &json!({"name": "demo"})).await.unwrap();
    assert_ne!(stub.requests()[2].headers["idempotency-key"], requests[0].headers["idempotency-key"]);
}

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_wishes() {
    let stub = Stub::start(|request| match request.before {
        0 => Reply::Http(503, "Retry-After: 0\r\n", json!({"reason": "x"}).to_string()),
        1 => Reply::Http(429, "Retry-After: 0\r\n", String::new()),
        _ => ok(&json!({"done": true})),
    })
    .await;
    let (client, err) = client(&stub.url, Duration::ZERO);
    assert_eq!(client.get(&Route::new(["version"])).await.unwrap().text(), "{\"done\":true}");
    assert_eq!(err.text().matches("server is busy").count(), 2);

    let stub = Stub::start(|_| Reply::Http(503, "Retry-After: 3600\r\n", String::new())).await;
    let (client, _) = super::tests::client(&stub.url, Duration::ZERO);
    let error = client.get(&Route::new(["version"])).await.unwrap_err();
    assert_eq!((error.exit(), stub.requests().len()), (Exit::Unavailable, 1));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_with_what_to_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (client, _) = client(&url, Duration::ZERO);
    let error = client.post(&Route::new(["projects"]), &json!({})).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Unavailable);
    let report = error.report().replace(&url, "URL");
    assert_eq!(
        report,
        "error: cannot reach the server at URL (Connection refused (os error 111)); is it running? start it with 'ambient up'\n"
    );
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_told_so() {
    let stub = Stub::start(|_| Reply::Cut).await;
    let (client, _) = client(&stub.url, Duration::ZERO);
    let error = client.post(&Route::new(["projects"]), &json!({})).await.unwrap_err();
    assert!(error.report().ends_with("\nthe request may have been carried out\n"), "{}", error.report());
    let error = client.get(&Route::new(["projects"])).await.unwrap_err();
    assert!(!error.report().contains("carried out"));
}

#[tokio::test]
async fn a_deletion_whose_answer_got_lost_is_done() {
    let stub =
        Stub::start(|request| if request.before == 0 { Reply::Cut } else { refused(404, "no such session") }).await;
    let (client, _) = client(&stub.url, Duration::from_secs(20));
    client.delete(&Route::new(["sessions", "x"])).await.unwrap();
    // Without an earlier attempt it is an error.
    assert_eq!(client.delete(&Route::new(["sessions", "x"])).await.unwrap_err().exit(), Exit::NotFound);
}

#[tokio::test]
async fn a_refusal_tells_its_reason_and_fields_once_and_moves_no_cursor() {
    let envelope = json!({
        "kind": "Error", "id": "8", "href": "", "code": "ambient-8", "reason": "the request is not valid\u{1b}[2J",
        "operation_id": "2Pz", "details": [{"field": "repos[0].url", "problem": "must be https or file"}],
    });
    let stub = Stub::start(move |request| match request.line.as_str() {
        "GET /version" => Reply::Http(302, "location: /elsewhere\r\n", String::new()),
        "GET /agent" => {
            let details = json!([{"field": "agent", "problem": "'x' is not in this build"}]);
            let mut envelope = envelope.clone();
            (envelope["reason"], envelope["details"]) = (json!("agent: 'x' is not in this build"), details);
            Reply::Http(400, "", envelope.to_string())
        }
        "GET /stopped" => refused(409, "it is Stopped; start it with POST /api/ambient/v1/sessions/2Pz/start"),
        "GET /nobody" => refused(404, "Project with id='x' not found"),
        "GET /proxy" => Reply::Http(502, "X-Operation-ID: op7\r\n", "<html>bad gateway".to_owned()),
        _ => Reply::Http(400, "", envelope.to_string()),
    })
    .await;
    let (client, _) = client(&stub.url, Duration::ZERO);
    let report = async |step: &str| client.get(&Route::new([step])).await.unwrap_err().report();
    insta::assert_snapshot!(report("sessions").await, @r"
    error: the request is not valid\u{1b}[2J
      repos[0].url: must be https or file
    ");
    insta::assert_snapshot!(report("proxy").await, @"
    error: HTTP status 502: <html>bad gateway
      request op7 in the server's log
    ");
    insta::assert_snapshot!(report("agent").await, @"error: agent: 'x' is not in this build");
    insta::assert_snapshot!(report("stopped").await, @"error: it is Stopped; start it with 'ambient session start 2Pz'");
    insta::assert_snapshot!(report("nobody").await, @"
    error: Project with id='x' not found
      see 'ambient project list'
    ");
    insta::assert_snapshot!(report("version").await, @"error: cannot understand the server's response: HTTP status 302; is the URL Ambient's?");
    assert_eq!(stub.lines().len(), 6, "a redirect is not followed");
}

#[tokio::test]
async fn what_another_server_says_is_no_answer() {
    const PAGE: &str = "<!doctype html><title>Hello</title>";
    let stub = Stub::start(|request| {
        let status = request.line.rsplit('/').next().and_then(|status| status.parse().ok()).unwrap();
        Reply::Http(status, "content-type: text/html\r\n", PAGE.to_owned())
    })
    .await;
    let (client, _) = client(&stub.url, Duration::ZERO);
    for (status, exit) in [
        (200, Exit::Protocol),
        (302, Exit::Protocol),
        (401, Exit::Protocol),
        (404, Exit::Protocol),
        (500, Exit::Protocol),
        (502, Exit::Unavailable),
    ] {
        let route = Route::new([&status.to_string()]);
        assert_eq!(client.get(&route).await.unwrap_err().exit(), exit, "{status}");
        assert_eq!(client.delete(&route).await.unwrap_err().exit(), exit, "{status}");
        assert_eq!(client.post(&route, &json!({})).await.unwrap_err().exit(), exit, "{status}");
        assert_eq!(client.get_bytes(&route).await.unwrap_err().exit(), exit, "{status}");
        assert_eq!(client.stream(&route).await.unwrap_err().exit(), exit, "{status}");
    }

    // Nor is a success without JSON, whatever it calls itself.
    for body in ["", PAGE] {
        let stub = Stub::start(|_| Reply::Http(200, "", body.to_owned())).await;
        let (client, _) = super::tests::client(&stub.url, Duration::ZERO);
        assert_eq!(client.get(&Route::new(["sessions"])).await.unwrap_err().exit(), Exit::Protocol, "{body}");
    }
}

#[test]
fn every_status_has_its_exit_code() {
    let codes =
        [400, 401, 403, 404, 409, 412, 413, 422, 429, 500, 502, 503].map(|status| Exit::of_status(status).code());
    assert_eq!(codes, [65, 77, 77, 4, 5, 5, 65, 65, 69, 1, 69, 69]);
}

#[test]
fn a_token_that_cannot_be_sent_is_an_error_of_the_configuration() {
    let error = bearer("two\nlines").unwrap_err();
    assert_eq!(error.exit(), Exit::Config);
    assert!(!error.to_string().contains("two"));
}
