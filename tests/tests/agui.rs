//! AG-UI on a real server that is killed: a reader gets every event of every run once, in order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use ambient_tests::TestDatabase;
use reqwest::Method;
use serde_json::{Value, json};
use support::{PATIENCE, Server, script};
use tokio::time::timeout;

/// A stream of Server-Sent Events.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(server: &Server, id: &str, after: &str) -> Self {
        let request =
            server.request(Method::GET, &format!("/sessions/{id}/agui/events")).header("last-event-id", after);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "after {after}");
        Self { response, text: String::new() }
    }

    /// The next event with its id; none when the connection is lost.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let event = field("data: ").map(|data| (field("id: ").unwrap(), serde_json::from_str(&data).unwrap()));
                self.text = rest.to_owned();
                match event {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("in time").ok()??;
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// Events up to and including one that fits.
    async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<(String, Value)> {
        let mut seen = Vec::new();
        loop {
            seen.push(self.next().await.expect("the connection stays"));
            if seen.last().is_some_and(|(_, event)| fits(event)) {
                return seen;
            }
        }
    }
}

fn ends(event: &Value) -> bool {
    event["type"] == "RUN_FINISHED" || event["type"] == "RUN_ERROR"
}

#[tokio::test]
async fn a_run_goes_on_where_it_was_for_a_reader_whose_server_was_killed_in_the_middle() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "one").await;
    server.project("agui").await;
    let counts = script("for n in $(seq 50); do echo \"line $n\"; sleep 0.1; done");
    let id = server.session(json!({"project_id": "agui", "prompt": counts})).await;
    let mut stream = Stream::open(&server, &id, "0").await;
    let third_line = |event: &Value| event["value"]["text"].as_str().is_some_and(|text| text.contains("line 3\n"));
    let mut seen = stream.until(third_line).await;
    server.kill();
    while let Some(event) = stream.next().await {
        seen.push(event);
    }
    assert!(!seen.iter().any(|(_, event)| ends(event)), "it is in the middle");

    server.restart().await;
    let last = seen.last().unwrap().0.clone();
    seen.extend(Stream::open(&server, &id, &last).await.until(ends).await);
    assert_eq!(Stream::open(&server, &id, "0").await.until(ends).await, seen);
    let (first, last) = (&seen[0].1, &seen.last().unwrap().1);
    assert_eq!((&first["type"], &last["outcome"]["type"]), (&json!("RUN_STARTED"), &json!("success")));
    let printed: String = seen.iter().filter_map(|(_, event)| event["value"]["text"].as_str()).collect();
    assert_eq!(printed, (1..=50).map(|n| format!("line {n}\n")).collect::<String>());
    let runs = server.get(&format!("/sessions/{id}/agui/runs")).await.expect(200);
    assert_eq!((runs["items"].as_array().unwrap().len(), &runs["items"][0]["status"]), (1, &json!("success")));
}
