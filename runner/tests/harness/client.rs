//! A small client of a runner: HTTP/1.1 and WebSocket over its Unix socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ambient_runner_protocol::{ReaderAck, ReaderHello, Record, RunnerFrame};
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

/// Longer than anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Client {
    pub socket: PathBuf,
    pub token: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
    /// Asserts a 400 that names the field.
    pub fn expect_bad(self, field: &str) {
        assert_eq!(self.status, 400, "{}", self.text());
        assert_eq!(self.json()["field"], field, "{}", self.text());
    }
}

impl Client {
    pub fn new(socket: &Path, token: &str) -> Self {
        Self { socket: socket.to_owned(), token: token.to_owned() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "", &[]).await
    }
    pub async fn get_range(&self, path: &str, range: &str) -> Answer {
        self.request("GET", path, &format!("Range: {range}\r\n"), &[]).await
    }
    pub async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        self.request(method, path, "Content-Type: application/json\r\n", &serde_json::to_vec(&body).unwrap()).await
    }
    pub async fn deliver(&self, id: &str, seq: i64, text: &str) -> Answer {
        self.send("POST", "/messages", serde_json::json!({ "id": id, "seq": seq, "text": text })).await
    }

    /// Writes a file; `headers` are whole lines.
    pub async fn write(&self, path: &str, headers: &str, content: &[u8]) -> Answer {
        self.request("PUT", &format!("/content/{path}"), headers, content).await
    }

    async fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let exchange = async {
            let mut stream = UnixStream::connect(&self.socket).await.unwrap();
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: runner\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
                 Content-Length: {}\r\n{headers}\r\n",
                self.token,
                body.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            // The server may answer, and close, before it has read a body that it refuses.
            let _ = stream.write_all(body).await;
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            parse(&bytes)
        };
        timeout(PATIENCE, exchange).await.expect("the runner answers in time")
    }

    pub async fn events(&self, epoch: i64, log_id: &str, after: i64) -> Reader {
        let mut request = "ws://runner/events".into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (socket, _) = client_async(request, stream).await.unwrap();
        let mut reader = Reader { socket, log_id: String::new(), last: 0 };
        reader.write(&ReaderHello { epoch, log_id: log_id.to_owned(), after }).await;
        reader
    }
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an HTTP response");
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let mut body = bytes[end + 4..].to_vec();
    if head.contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Answer { status, head, body }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(String::from_utf8_lossy(&bytes[..end]).trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
    body
}

pub struct Reader {
    socket: WebSocketStream<UnixStream>,
    pub log_id: String,
    pub last: i64,
}

impl Reader {
    async fn write<T: serde::Serialize>(&mut self, value: &T) {
        self.socket.send(Message::text(serde_json::to_string(value).unwrap())).await.unwrap();
    }

    pub async fn ack(&mut self, n: i64) {
        self.write(&ReaderAck { n }).await;
    }

    /// The next frame; none when the connection has ended.
    pub async fn next(&mut self) -> Option<RunnerFrame> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => {
                    let frame = serde_json::from_str(text.as_str()).unwrap();
                    if let RunnerFrame::Welcome { log_id, .. } = &frame {
                        self.log_id.clone_from(log_id);
                    }
                    return Some(frame);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Records up to and including the first that fits; checks that there are no gaps.
    pub async fn until(&mut self, mut fits: impl FnMut(&Record) -> bool) -> Vec<Record> {
        let mut seen = Vec::new();
        loop {
            match self.next().await {
                Some(RunnerFrame::Records { records }) => {
                    let mut found = false;
                    for record in records {
                        assert!(self.last == 0 || record.n == self.last + 1, "a gap after {}", self.last);
                        self.last = record.n;
                        found = found || fits(&record);
                        seen.push(record);
                    }
                    // Nothing is lost: a later call goes on after the last record it was shown.
                    if found {
                        return seen;
                    }
                }
                Some(RunnerFrame::Welcome { .. }) => {}
                other => panic!("{other:?} after {seen:#?}"),
            }
        }
    }

    /// Records up to the `count`th end of a turn.
    pub async fn until_turn_ended(&mut self) -> Vec<Record> {
        self.until(|record| is_of_type(record, "turn.ended")).await
    }
}

pub fn is_of_type(record: &Record, name: &str) -> bool {
    record.event["type"] == name
}

/// Whether a turn has ended, with this outcome.
pub fn has_ended(record: &Record, outcome: &str) -> bool {
    is_of_type(record, "turn.ended") && record.event["outcome"] == outcome
}

pub fn kind(record: &Record) -> String {
    record.event["type"].as_str().unwrap().to_owned()
}

pub fn kinds(records: &[Record]) -> Vec<String> {
    records.iter().map(kind).collect()
}

pub fn of_type<'a>(records: &'a [Record], name: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| is_of_type(record, name)).map(|record| &record.event).collect()
}

/// All output of tools, in order.
pub fn output(records: &[Record]) -> String {
    of_type(records, "tool.output").iter().map(|value| value["text"].as_str().unwrap()).collect()
}

/// Kills every process, our own excepted, whose command line or environment names the directory.
pub fn end_all(directory: &str) {
    let names = |pid: i32, file: &str| {
        let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(directory)
    };
    for _ in 0..100 {
        let all =
            std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let me = std::process::id().cast_signed();
        let left: Vec<i32> =
            all.filter(|pid| *pid != me && (names(*pid, "cmdline") || names(*pid, "environ"))).collect();
        if left.is_empty() {
            return;
        }
        for pid in left.into_iter().filter_map(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
