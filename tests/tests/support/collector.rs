//! A real OpenTelemetry Collector, and what it was told.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{eventually, free_port, short_dir};

/// A span as the collector wrote it down.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for the first of a trace.
    pub(crate) parent: String,
    pub(crate) name: String,
    /// 1 internal, 2 server, 3 client.
    pub(crate) kind: i64,
    pub(crate) nanos: (u64, u64),
    pub(crate) attributes: BTreeMap<String, Value>,
    pub(crate) is_error: bool,
}

impl Span {
    /// An attribute as text; empty if there is none.
    pub(crate) fn word(&self, key: &str) -> String {
        match self.attributes.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }
}

/// A collector that can be killed, and started again at the same address with what it wrote.
pub(crate) struct Collector {
    program: PathBuf,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
    /// How often it was started: each time it has a file of its own, since the last line of one that was killed may be half written.
    starts: usize,
}

impl Collector {
    /// One that has not been started. None where there is no collector.
    pub(crate) fn found() -> Option<Self> {
        let program = std::env::var_os("AMBIENT_TEST_COLLECTOR").filter(|program| !program.is_empty());
        if program.is_none() {
            assert!(std::env::var_os("AMBIENT_REQUIRE_COLLECTOR").is_none(), "no OpenTelemetry Collector");
            println!("skipped: no OpenTelemetry Collector");
        }
        Some(Self { program: program?.into(), dir: short_dir(), port: free_port(), child: None, starts: 0 })
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(crate) async fn start(&mut self) {
        self.starts += 1;
        let config = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: '{}'}}}}}}}}\n\
             exporters: {{file: {{path: '{}', flush_interval: 100ms}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}\n",
            self.address(),
            self.written(self.starts).display()
        );
        let path = self.dir.path().join("collector.yaml");
        fs::write(&path, config).unwrap();
        let log = fs::File::options().append(true).create(true).open(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&path).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        eventually("the collector listens", async || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "the collector has ended: {}", log());
            std::net::TcpStream::connect(self.address()).is_ok().then_some(())
        })
        .await;
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn written(&self, start: usize) -> PathBuf {
        self.dir.path().join(format!("spans-{start}.json"))
    }

    /// All that it wrote down, as text.
    pub(crate) fn text(&self) -> String {
        (1..=self.starts).map(|start| fs::read_to_string(self.written(start)).unwrap_or_default() + "\n").collect()
    }

    /// Every span, in the order in which they came, as often as they came.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let text = self.text();
        // The last line of a file may be half written.
        let whole: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let lists = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
        let resources = whole.iter().flat_map(|request| lists(request, "resourceSpans"));
        let scopes = resources.flat_map(|resource| lists(&resource, "scopeSpans"));
        scopes.flat_map(|scope| lists(&scope, "spans")).map(|span| read(&span)).collect()
    }

    /// The spans of a trace, once there are some that fit.
    pub(crate) async fn trace(&self, trace: &str, what: &str, fits: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let of_trace = || self.spans().into_iter().filter(|span| span.trace == trace).collect::<Vec<_>>();
        let deadline = std::time::Instant::now() + super::PATIENCE;
        loop {
            let spans = of_trace();
            if fits(&spans) {
                return spans;
            }
            let names = || spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>();
            assert!(std::time::Instant::now() < deadline, "not in time: {what}; there are {:#?}", names());
            tokio::time::sleep(super::LOOK_AGAIN).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

fn read(span: &Value) -> Span {
    let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
    let nanos = |key: &str| text(key).parse().unwrap_or(0);
    let attributes = span["attributes"].as_array().cloned().unwrap_or_default();
    let attribute = |pair: Value| {
        let value = pair["value"].as_object().unwrap().values().next().cloned().unwrap_or_default();
        (pair["key"].as_str().unwrap().to_owned(), value)
    };
    Span {
        trace: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        name: text("name"),
        kind: span["kind"].as_i64().unwrap_or(0),
        nanos: (nanos("startTimeUnixNano"), nanos("endTimeUnixNano")),
        attributes: attributes.into_iter().map(attribute).collect(),
        is_error: span["status"]["code"] == 2,
    }
}
