//! JSON-RPC with an agent.
//!
//! Updates are recorded while the line is read: an agent that tells faster than the log takes it waits. So does one that asks for more at once
//! than we answer.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_client_protocol::{
    Agent, Client, ConnectTo, Lines, UntypedMessage, on_receive_request,
    v1::{ConnectionTo, schema as acp},
};
use ambient_wire::runner_event::RunnerEvent;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::Value;
use tokio::{
    io::{AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout},
    sync::{Semaphore, oneshot, watch},
    time::timeout,
};

use super::{
    content, files,
    lines::{self, Line},
    permission,
    process::Pipes,
    terminals::Terminals,
    updates::Updates,
};
use crate::{app::SharedApp, ending::Stop};

/// Most requests of the agent that are answered at once; while there are as many, nothing more is read. One about a file counts as many, for
/// the size that its question or its answer may have, until the answer is written.
const MAX_REQUESTS: usize = 128;
const OF_A_FILE: u32 = 16;
/// Most remarks on what an agent writes that is not of the protocol.
const MAX_REMARKS: u32 = 5;

/// What the agent's requests are answered with.
pub(super) struct Services {
    pub(super) app: SharedApp,
    pub(super) updates: Arc<Updates>,
    pub(super) terminals: Terminals,
    /// The turn in progress: its name, and its stop.
    pub(super) turn: watch::Sender<Option<(String, watch::Receiver<Option<Stop>>)>>,
}

/// A connection.
pub(super) struct Connection {
    agent: ConnectionTo<Agent>,
    /// Closes it when dropped.
    _end: oneshot::Sender<()>,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) code: i32,
    /// In words.
    pub(super) reason: String,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.reason, self.code)
    }
}

impl Connection {
    /// Speaks with an agent over its pipes.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn open(pipes: Pipes, services: Arc<Services>) -> Result<Self, String> {
        let requests = Arc::new(Requests { free: Semaphore::new(MAX_REQUESTS), of_files: Mutex::default() });
        let transport =
            Lines::new(outgoing(pipes.stdin, requests.clone()), incoming(pipes.stdout, services.clone(), requests));
        let (opened, connected) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let foreground = async move |agent: ConnectionTo<Agent>| {
            let _ = opened.send(agent);
            let _ = ended.await;
            Ok(())
        };
        tokio::spawn(async move {
            if let Err(error) = converse(services, transport, foreground).await {
                tracing::debug!(%error, "the connection to the agent has ended");
            }
        });
        let agent = connected.await.map_err(|_| "the agent cannot be spoken to".to_owned())?;
        Ok(Self { agent, _end: end })
    }

    /// Calls a method, and waits as long as `patience`.
    ///
    /// # Errors
    /// The agent's; or that it did not answer.
    pub(super) async fn call(
        &self,
        method: &str,
        params: &(impl Serialize + Sync),
        patience: Duration,
    ) -> Result<Value, Failed> {
        let late =
            || Failed { code: 0, reason: format!("the agent did not answer {method} within {} s", patience.as_secs()) };
        timeout(patience, self.ask(method, params)).await.map_err(|_| late())?
    }

    /// Calls a method that takes as long as it takes.
    ///
    /// # Errors
    /// The agent's.
    pub(super) async fn ask(&self, method: &str, params: &(impl Serialize + Sync)) -> Result<Value, Failed> {
        let message = UntypedMessage::new(method, params).map_err(|error| failed(&error))?;
        self.agent.send_request(message).block_task().await.map_err(|error| failed(&error))
    }

    /// Nothing more comes from the agent.
    pub(super) fn is_closed(&self) -> bool {
        self.agent.is_incoming_closed()
    }

    /// Tells the agent something.
    pub(super) fn tell(&self, method: &str, params: &impl Serialize) {
        let sent = UntypedMessage::new(method, params).and_then(|message| self.agent.send_notification(message));
        if let Err(error) = sent {
            tracing::debug!(%error, method, "the agent cannot be told");
        }
    }
}

fn failed(error: &agent_client_protocol::Error) -> Failed {
    let mut reason = content::short(&error.message);
    match &error.data {
        Some(Value::String(data)) => reason += &format!(": {}", content::short(data)),
        Some(data) if !data.is_null() => reason += &format!(": {}", content::short(&data.to_string())),
        _ => {}
    }
    Failed { code: error.code.into(), reason }
}

/// Answers everything that an agent may ask of us; what it asks otherwise is answered with "no such method".
async fn converse(
    services: Arc<Services>,
    transport: impl ConnectTo<Client> + 'static,
    foreground: impl AsyncFnOnce(ConnectionTo<Agent>) -> agent_client_protocol::Result<()>,
) -> agent_client_protocol::Result<()> {
    let (ask, read, write) = (services.clone(), services.clone(), services.clone());
    let (create, output, wait, kill, release) =
        (services.clone(), services.clone(), services.clone(), services.clone(), services);
    Client
        .v1()
        .on_receive_request(
            async move |request: acp::RequestPermissionRequest, responder, _| {
                let services = ask.clone();
                tokio::spawn(async move { responder.respond(permission::request(&services, request).await) });
                Ok(())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: acp::ReadTextFileRequest, responder, _| {
                let services = read.clone();
                tokio::spawn(async move { responder.respond_with_result(services.read(&request).await) });
                Ok(())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: acp::WriteTextFileRequest, responder, _| {
                let services = write.clone();
                tokio::spawn(async move { responder.respond_with_result(services.write(&request).await) });
                Ok(())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: acp::CreateTerminalRequest, responder, _| {
                let services = create.clone();
                tokio::spawn(async move {
                    responder.respond_with_result(services.terminals.create(&services, request).await)
                });
                Ok(())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: acp::TerminalOutputRequest, responder, _| {
                responder.respond_with_result(output.terminals.output(&request.terminal_id))
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: acp::WaitForTerminalExitRequest, responder, _| {
                let services = wait.clone();
                tokio::spawn(async move {
                    responder.respond_with_result(services.terminals.wait(&request.terminal_id).await)
                });
                Ok(())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: acp::KillTerminalRequest, responder, _| {
                let services = kill.clone();
                tokio::spawn(async move {
                    responder.respond_with_result(services.terminals.kill(&request.terminal_id).await)
                });
                Ok(())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: acp::ReleaseTerminalRequest, responder, _| {
                let services = release.clone();
                tokio::spawn(async move {
                    responder.respond_with_result(services.terminals.release(&request.terminal_id).await)
                });
                Ok(())
            },
            on_receive_request!(),
        )
        .connect_with(transport, foreground)
        .await
}

type Answer<T> = agent_client_protocol::Result<T>;

impl Services {
    async fn read(&self, request: &acp::ReadTextFileRequest) -> Answer<acp::ReadTextFileResponse> {
        let path = self.terminals.directory().join(&request.path);
        // One that is not there is empty: some agents look before they write, and take an error for a no.
        let text = files::read(&self.app.attempt, &path).await.map_err(refused)?.unwrap_or_default();
        let (from, most) =
            (request.line.unwrap_or(1).max(1) as usize - 1, request.limit.map_or(usize::MAX, |n| n as usize));
        let text = if from == 0 && most == usize::MAX {
            text
        } else {
            text.split_inclusive('\n').skip(from).take(most).collect()
        };
        Ok(acp::ReadTextFileResponse::new(text))
    }

    async fn write(&self, request: &acp::WriteTextFileRequest) -> Answer<acp::WriteTextFileResponse> {
        let path = self.terminals.directory().join(&request.path);
        files::write(&self.app.attempt, &path, &request.content).await.map_err(refused)?;
        Ok(acp::WriteTextFileResponse::new())
    }
}

/// An error for the agent, in words.
pub(super) fn refused(reason: String) -> agent_client_protocol::Error {
    agent_client_protocol::Error::internal_error().data(Value::String(reason))
}

/// How much of what may be asked at once is being asked.
struct Requests {
    free: Semaphore,
    /// Ids of requests about files.
    of_files: Mutex<HashSet<String>>,
}

/// What tells a request from others.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    id: Value,
}

impl Requests {
    /// Waits until there is room for a request.
    async fn begin(&self, line: &str) {
        let Ok(asked) = serde_json::from_str::<Asked>(line) else { return };
        let is_of_a_file = asked.method.is_some_and(|method| method.starts_with("fs/"));
        // An id that is in use is the agent's mistake; it counts once.
        let is_new = !is_of_a_file || self.of_files.lock().is_ok_and(|mut ids| ids.insert(asked.id.to_string()));
        let weight = if is_of_a_file && is_new { OF_A_FILE } else { 1 };
        // Never closed. Given back with the answer.
        if let Ok(permits) = self.free.acquire_many(weight).await {
            permits.forget();
        }
    }

    fn end(&self, id: &Value) {
        let is_of_a_file = self.of_files.lock().is_ok_and(|mut ids| ids.remove(&id.to_string()));
        self.free.add_permits(if is_of_a_file { OF_A_FILE as usize } else { 1 });
    }
}

/// What of a message tells what it is.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    id: Option<IgnoredAny>,
}

/// The parameters of an update.
#[derive(Deserialize)]
struct Update {
    params: Value,
}

fn incoming(
    stdout: ChildStdout,
    services: Arc<Services>,
    requests: Arc<Requests>,
) -> impl futures::Stream<Item = std::io::Result<String>> + Send + 'static {
    let reader = BufReader::with_capacity(64 * 1024, stdout);
    futures::stream::unfold(
        (reader, services, requests, 0),
        |(mut reader, services, requests, mut remarks)| async move {
            loop {
                let line = match lines::next(&mut reader).await {
                    Ok(Some(line)) => line,
                    Ok(None) => return None,
                    Err(error) => return Some((Err(error), (reader, services, requests, remarks))),
                };
                match sort(line) {
                    Sorted::Message(line) => return Some((Ok(line), (reader, services, requests, remarks))),
                    Sorted::Request(line) => {
                        requests.begin(&line).await;
                        return Some((Ok(line), (reader, services, requests, remarks)));
                    }
                    Sorted::Update(params) => {
                        if services.updates.see(params).await.is_err() {
                            // The turn sees it too: what cannot be recorded is not read.
                            return None;
                        }
                    }
                    Sorted::Nothing => {}
                    Sorted::Noise(text) => {
                        remarks += 1;
                        if remarks <= MAX_REMARKS {
                            let text =
                                format!("the agent wrote something to its output that is not of the protocol: {text}");
                            let _ = services.updates.record(RunnerEvent::AgentNotice { text }).await;
                        }
                    }
                }
            }
        },
    )
}

/// A line, by what is to be done with it.
#[derive(Debug, PartialEq)]
enum Sorted {
    Update(Value),
    Request(String),
    /// A response, or another notification.
    Message(String),
    Noise(String),
    Nothing,
}

fn sort(line: Line) -> Sorted {
    let bytes = match line {
        Line::Whole(bytes) => bytes,
        Line::TooLong(bytes) => return Sorted::Noise(format!("a line of {bytes} bytes")),
    };
    let noise = |bytes: &[u8]| {
        let start = &bytes[..bytes.len().min(2000)];
        Sorted::Noise(content::short(String::from_utf8_lossy(start).trim()))
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Sorted::Nothing;
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope>(&bytes) else { return noise(&bytes) };
    match (envelope.method.as_deref(), envelope.id) {
        (Some("session/update"), None) => serde_json::from_slice::<Update>(&bytes)
            .map_or_else(|_| noise(&bytes), |update| Sorted::Update(update.params)),
        (None, None) => noise(&bytes),
        (method, id) => match String::from_utf8(bytes) {
            Ok(line) if method.is_some() && id.is_some() => Sorted::Request(line),
            Ok(line) => Sorted::Message(line),
            Err(error) => noise(error.as_bytes()),
        },
    }
}

fn outgoing(
    stdin: ChildStdin,
    requests: Arc<Requests>,
) -> impl futures::Sink<String, Error = std::io::Error> + Send + 'static {
    futures::sink::unfold((stdin, requests), |(mut stdin, requests), mut line: String| async move {
        let answered = serde_json::from_str::<Asked>(&line).ok().filter(|message| message.method.is_none());
        line.push('\n');
        stdin.write_all(line.as_bytes()).await?;
        stdin.flush().await?;
        if let Some(answered) = answered {
            requests.end(&answered.id);
        }
        Ok::<_, std::io::Error>((stdin, requests))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_sorted_and_what_is_not_of_the_protocol_is_noise() {
        let sorted = |text: &str| sort(Line::Whole(text.as_bytes().to_vec()));
        let update = r#"{"jsonrpc":"2.0","method":"session/update","params":{"a":1}}"#;
        assert_eq!(sorted(update), Sorted::Update(serde_json::json!({ "a": 1 })));
        let request = r#"{"jsonrpc":"2.0","id":"x","method":"fs/read_text_file","params":{}}"#;
        assert_eq!(sorted(request), Sorted::Request(request.to_owned()));
        let response = r#"{"jsonrpc":"2.0","id":1,"result":null}"#;
        assert_eq!(sorted(response), Sorted::Message(response.to_owned()));
        assert_eq!(sorted("  \r"), Sorted::Nothing);
        for noise in ["Loading…", "{", "[1]", "{}", "null", r#"{"method":"session/update"}"#] {
            assert!(matches!(sorted(noise), Sorted::Noise(_)), "{noise}");
        }
        assert_eq!(sort(Line::TooLong(7)), Sorted::Noise("a line of 7 bytes".to_owned()));
    }
}
