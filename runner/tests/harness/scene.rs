//! A running session with one repository, `up`.

use std::path::PathBuf;

use ambient_runner_protocol::Record;
use serde_json::json;

use super::{Answer, Reader, Runner, Session};

pub struct Scene {
    pub session: Session,
    pub runner: Runner,
    pub reader: Reader,
    pub clone: PathBuf,
    pub url: String,
    turns: i64,
}

impl Scene {
    pub async fn new() -> Self {
        let session = Session::new(true);
        let url = session.origin("up");
        let clone = session.paths.workspace().join("up");
        let runner = session.start().await;
        runner.client.send("PUT", "/repos/up", json!({ "url": url })).await.expect(200);
        let reader = runner.client.events(1, "", 0).await;
        Self { session, runner, reader, clone, url, turns: 0 }
    }

    /// Takes the clone anew.
    pub async fn again(&self) {
        self.runner.client.send("DELETE", "/repos/up", json!({})).await.expect(204);
        self.runner.client.send("PUT", "/repos/up", json!({ "url": self.url })).await.expect(200);
    }

    pub async fn turn(&mut self, script: &str) -> Vec<Record> {
        self.turns += 1;
        let text = format!("```\n{script}\n```");
        self.runner.client.deliver(&self.turns.to_string(), self.turns, &text).await.expect(200);
        self.reader.until_turn_ended().await
    }

    pub async fn push(&self, branch: &str) -> Answer {
        self.runner.client.send("POST", "/git/push", json!({ "repo": "up", "branch": branch })).await
    }

    pub async fn status(&self) -> Answer {
        self.runner.client.get("/git/status?repo=up").await
    }

    pub async fn diff(&self) -> Answer {
        self.runner.client.get("/git/diff?repo=up").await
    }
}
