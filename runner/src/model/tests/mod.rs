//! The proxy between a client and the scripted endpoint.

mod broken;
mod budgets;
mod passing;
mod refusals;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use ambient_runner_protocol::{
    ModelBudget,
    ModelDialect::{self, Anthropic, Gemini, OpenaiChat, OpenaiResponses},
    ModelEndpoint, ModelPrice,
};
use ambient_scripted_model::{Ending, ScriptedModel, Seen};
use ambient_wire::runner_event::{RunnerEvent, Usage};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{ModelProxy, Spent};
use crate::log::EventLog;

const ALL: [ModelDialect; 4] = [OpenaiChat, OpenaiResponses, Anthropic, Gemini];
const KEY: &str = "sk-of-the-endpoint";

/// A proxy with its log, and the client's side of it.
struct Scene {
    directory: TempDir,
    log: EventLog,
    proxy: ModelProxy,
    client: Client,
}

async fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// All dialects at one address, in the form of each dialect's clients.
fn endpoint(url: &str) -> ModelEndpoint {
    let base = |dialect| match dialect {
        OpenaiChat | OpenaiResponses => format!("{url}/v1"),
        Anthropic | Gemini => url.to_owned(),
    };
    let base_urls: BTreeMap<_, _> = ALL.into_iter().map(|dialect| (dialect, base(dialect))).collect();
    ModelEndpoint { base_urls, currency: "USD".to_owned(), ..ModelEndpoint::default() }
}

impl Scene {
    async fn new(endpoint: &ModelEndpoint) -> Self {
        Self::continued(tempfile::tempdir().unwrap(), endpoint).await
    }

    /// As an attempt finds what an earlier one has left.
    async fn continued(directory: TempDir, endpoint: &ModelEndpoint) -> Self {
        let mut spent = Spent::default();
        let log = EventLog::open(&directory.path().join("events.ndjson"), |record| spent.see(record)).unwrap();
        let keys = directory.path().join("keys");
        let all: BTreeMap<_, _> = ALL.into_iter().map(|dialect| (dialect, KEY)).collect();
        std::fs::write(&keys, serde_json::to_vec(&all).unwrap()).unwrap();
        let proxy = ModelProxy::start(endpoint, &keys, spent, log.clone(), listener().await).await.unwrap();
        proxy.begin_turn("s/1/1");
        Self { directory, log, proxy, client: Client::new() }
    }

    fn post(&self, path: &str) -> RequestBuilder {
        let access = self.proxy.access();
        self.client.post(format!("{}{path}", access.url)).bearer_auth(&access.token)
    }

    /// Asks in a dialect.
    async fn ask(&self, dialect: ModelDialect, stream: bool, text: &str) -> Response {
        let (path, body) = question(dialect, stream, text);
        self.post(path).json(&body).send().await.unwrap()
    }

    /// Everything that was recorded, once there are so many.
    async fn usage(&self, count: usize) -> Vec<(String, Usage, Value)> {
        let mut last = self.log.last();
        let least = i64::try_from(count).unwrap();
        let wait = tokio::time::timeout(Duration::from_secs(10), last.wait_for(|last| *last >= least));
        wait.await.expect("usage is recorded in time").unwrap();
        let records = self.log.read(0, 1000).unwrap();
        let all: Vec<_> = records
            .into_iter()
            .map(|record| match RunnerEvent::read(&record.event) {
                Some(RunnerEvent::Usage { turn_id, usage, raw, .. }) => (turn_id, usage, raw),
                other => panic!("not usage: {other:?}"),
            })
            .collect();
        assert_eq!(all.len(), count);
        all
    }
}

/// Path and body of a question.
fn question(dialect: ModelDialect, stream: bool, text: &str) -> (&'static str, Value) {
    let messages = json!([{ "role": "user", "content": text }]);
    match dialect {
        OpenaiChat => ("/v1/chat/completions", json!({ "model": "scripted", "stream": stream, "messages": messages })),
        OpenaiResponses => ("/v1/responses", json!({ "model": "scripted", "stream": stream, "input": text })),
        Anthropic => {
            ("/v1/messages", json!({ "model": "scripted", "stream": stream, "max_tokens": 9, "messages": messages }))
        }
        Gemini => {
            let path = if stream {
                "/v1beta/models/scripted:streamGenerateContent?alt=sse"
            } else {
                "/v1beta/models/scripted:generateContent"
            };
            (path, json!({ "contents": [{ "role": "user", "parts": [{ "text": text }] }] }))
        }
    }
}

/// The error's text, wherever the dialect has it.
fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap_or_else(|| panic!("no message: {body}"))
}

fn closed(seen: &[Seen]) -> bool {
    !seen.is_empty() && seen.iter().all(|call| call.ending == Ending::ClosedByClient)
}

fn price(input_micros: u64, output_micros: u64) -> ModelPrice {
    ModelPrice { input_micros, cached_input_micros: None, cache_write_micros: None, output_micros }
}

fn budget(tokens: Option<u64>, cost_micros: Option<u64>) -> ModelBudget {
    ModelBudget { tokens, cost_micros, ..ModelBudget::default() }
}
