//! JSON-RPC with the editor: its requests, and the sessions that are open in it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agent_client_protocol::{
    Agent, Client as EditorRole, Lines, on_receive_notification, on_receive_request,
    schema::ProtocolVersion,
    v1::{ConnectionTo, Responder, schema as acp},
};
use ambient_wire::session::Session;
use serde::{Deserialize, de::IgnoredAny};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    conversation::{Conversation, Wish},
    editor::{Editor, FAILED, MAX_UPDATES, WRONG, told},
    lines::{self, Line, Written},
    list, prompt,
};
use crate::{
    commands::{
        Connection,
        session::wanted::{self, Wanted},
    },
    error::CliError,
    output::{Console, escape},
};

/// Most sessions that are open in an editor at once.
const MAX_SESSIONS: usize = 64;
/// Most requests of the editor that are being answered at once; while there are as many, nothing more is read.
const MAX_REQUESTS: usize = 256;
/// Most prompts and cancellations of a session that are on their way to it.
const MAX_WISHES: usize = 16;

/// What stands between the editor and the server.
pub(super) struct Bridge {
    wanted: Wanted,
    connection: Result<Connection, CliError>,
    patience: Duration,
    console: Arc<Console>,
    /// What is open in the editor.
    open: Mutex<BTreeMap<String, Open>>,
}

struct Open {
    name: String,
    wishes: mpsc::Sender<Wish>,
}

impl Bridge {
    pub(super) fn new(
        wanted: Wanted,
        connection: Result<Connection, CliError>,
        patience: Duration,
        console: Arc<Console>,
    ) -> Self {
        Self { wanted, connection, patience, console, open: Mutex::default() }
    }

    /// The server; a way to it that there is not is told each time that it is needed.
    fn server(&self) -> Result<&Connection, CliError> {
        self.connection.as_ref().map_err(|error| {
            let report = error.report();
            CliError::refused(error.exit(), report.strip_prefix("error: ").unwrap_or(&report).trim_end())
        })
    }

    /// Takes a session in; what is wished of it waits in the channel until someone listens.
    fn register(&self, session: &Session) -> Result<mpsc::Receiver<Wish>, CliError> {
        let (wishes, receiver) = mpsc::channel(MAX_WISHES);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_SESSIONS && !open.contains_key(&session.id) {
            let reason = format!("{MAX_SESSIONS} sessions are open in this editor; restart its agent for more");
            return Err(CliError::refused(crate::Exit::Conflict, reason));
        }
        open.insert(session.id.clone(), Open { name: session.name.clone(), wishes });
        Ok(receiver)
    }

    fn wishes(&self, session: &acp::SessionId) -> Option<mpsc::Sender<Wish>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&*session.0).map(|open| open.wishes.clone())
    }

    fn converse(
        &self,
        editor: &Editor,
        session: &Session,
        wishes: mpsc::Receiver<Wish>,
        loaded: Option<Responder<acp::LoadSessionResponse>>,
    ) {
        let Ok(server) = &self.connection else { return };
        let client = server.client.with_patience(self.patience);
        tokio::spawn(Conversation::new(editor.clone(), client, session, self.patience, loaded).run(wishes));
    }

    async fn begin(
        &self,
        editor: Editor,
        request: acp::NewSessionRequest,
        responder: Responder<acp::NewSessionResponse>,
    ) {
        say_what_is_not_used(&editor, &request.mcp_servers);
        let begun = match self.server() {
            Ok(server) => self.wanted.open(server, &request.cwd).await,
            Err(error) => Err(error),
        };
        let begun = begun.and_then(|(session, is_new)| Ok((self.register(&session)?, session, is_new)));
        // An editor that is gone ends the command.
        let _ = match begun {
            Ok((wishes, session, is_new)) => {
                let (id, name) = (escape::line(&session.id), escape::line(&session.name));
                let what = if is_new { "is new" } else { "goes on" };
                self.console.note(&format!("session {id} ({name}) {what}"));
                let answered = responder.respond(acp::NewSessionResponse::new(session.id.clone()));
                // Only now does the editor know the session that this tells of.
                self.converse(&editor, &session, wishes, None);
                answered
            }
            Err(error) => responder.respond_with_error(editor.failed(&error)),
        };
    }

    async fn load(
        &self,
        editor: Editor,
        request: acp::LoadSessionRequest,
        responder: Responder<acp::LoadSessionResponse>,
    ) {
        say_what_is_not_used(&editor, &request.mcp_servers);
        let loaded = match self.server() {
            Ok(server) => wanted::resume(server, &request.session_id.0).await,
            Err(error) => Err(error),
        };
        match loaded.and_then(|session| Ok((self.register(&session)?, session))) {
            Ok((wishes, session)) => self.converse(&editor, &session, wishes, Some(responder)),
            Err(error) => {
                let _ = responder.respond_with_error(editor.failed(&error));
            }
        }
    }

    async fn list(
        &self,
        editor: Editor,
        request: acp::ListSessionsRequest,
        responder: Responder<acp::ListSessionsResponse>,
    ) {
        let listed = match self.server() {
            Ok(server) => list::page(server, request).await,
            Err(error) => Err(error),
        };
        let _ = responder.respond_with_result(listed.map_err(|error| editor.failed(&error)));
    }

    /// Hands a prompt over, in the order in which prompts and cancellations come.
    fn prompt(&self, request: &acp::PromptRequest, responder: Responder<acp::PromptResponse>) {
        let refused = |responder: Responder<acp::PromptResponse>, code, words: String| {
            let _ = responder.respond_with_error(told(code, words));
        };
        let text = match prompt::text(&request.prompt) {
            Ok(text) => text,
            Err(problem) => return refused(responder, WRONG, problem),
        };
        let Some(wishes) = self.wishes(&request.session_id) else {
            return refused(
                responder,
                WRONG,
                format!("session {} is not open here; load it first", request.session_id.0),
            );
        };
        let (wish, words) = match wishes.try_send(Wish::Prompt { text, responder: Box::new(responder) }) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(wish)) => (wish, "too many prompts are waiting to be sent"),
            Err(mpsc::error::TrySendError::Closed(wish)) => (wish, "the session is deleted"),
        };
        if let Wish::Prompt { responder, .. } = wish {
            refused(*responder, FAILED, words.to_owned());
        }
    }

    fn cancel(&self, session: &acp::SessionId) {
        let sent = self.wishes(session).is_some_and(|wishes| wishes.try_send(Wish::Cancel).is_ok());
        if !sent {
            self.console.note("there was nothing to cancel");
        }
    }

    /// What stays when the editor has gone.
    fn say_what_stays(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, Open { name, .. }) in open.iter() {
            let (id, name) = (escape::line(id), escape::line(name));
            self.console.note(&format!("session {id} ({name}) stays; go on with 'ambient chat --session {id}'"));
        }
    }
}

fn say_what_is_not_used(editor: &Editor, servers: &[acp::McpServer]) {
    if !servers.is_empty() {
        editor.note(&format!("the editor's MCP servers ({}) are not used: sessions have none yet", servers.len()));
    }
}

/// Serves until the editor closes its end.
pub(super) async fn serve(bridge: Arc<Bridge>) -> Result<(), CliError> {
    let (room, requests) = (Arc::new(Semaphore::new(MAX_UPDATES)), Arc::new(Semaphore::new(MAX_REQUESTS)));
    let incoming = incoming(lines::read(), requests.clone(), bridge.console.clone());
    let transport = Lines::new(outgoing(lines::write(), room.clone(), requests), incoming);
    let console = bridge.console.clone();
    let editor =
        move |connection: ConnectionTo<EditorRole>| Editor { connection, room: room.clone(), console: console.clone() };
    let (begin, load, editor_of_load) = (bridge.clone(), bridge.clone(), editor.clone());
    let (list, editor_of_list) = (bridge.clone(), editor.clone());
    let (prompt, cancel) = (bridge.clone(), bridge.clone());
    let served = Agent
        .v1()
        .name("ambient")
        .on_receive_request(
            async move |_: acp::InitializeRequest, responder, _| responder.respond(initialized()),
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: acp::NewSessionRequest, responder, connection| {
                let (bridge, editor) = (begin.clone(), editor(connection));
                tokio::spawn(async move { bridge.begin(editor, request, responder).await });
                Ok(())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: acp::LoadSessionRequest, responder, connection| {
                let (bridge, editor) = (load.clone(), editor_of_load(connection));
                tokio::spawn(async move { bridge.load(editor, request, responder).await });
                Ok(())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: acp::ListSessionsRequest, responder, connection| {
                let (bridge, editor) = (list.clone(), editor_of_list(connection));
                tokio::spawn(async move { bridge.list(editor, request, responder).await });
                Ok(())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: acp::PromptRequest, responder, _| {
                prompt.prompt(&request, responder);
                Ok(())
            },
            on_receive_request!(),
        )
        .on_receive_notification(
            async move |cancelled: acp::CancelNotification, _| {
                cancel.cancel(&cancelled.session_id);
                Ok(())
            },
            on_receive_notification!(),
        )
        .connect_with(transport, async |connection: ConnectionTo<EditorRole>| {
            connection.incoming_closed().await;
            Ok(())
        })
        .await;
    bridge.say_what_stays();
    served.map_err(|error| CliError::Protocol(format!("the editor: {}", error.message)))
}

/// What we are and can do. The version is ours: an editor that wants another one ends the connection.
fn initialized() -> acp::InitializeResponse {
    let prompts = acp::PromptCapabilities::new().embedded_context(true);
    let sessions = acp::SessionCapabilities::new().list(acp::SessionListCapabilities::new());
    let capabilities = acp::AgentCapabilities::new().load_session(true).prompt_capabilities(prompts);
    acp::InitializeResponse::new(ProtocolVersion::V1)
        .agent_capabilities(capabilities.session_capabilities(sessions))
        .agent_info(acp::Implementation::new("ambient", env!("CARGO_PKG_VERSION")).title("Ambient".to_owned()))
}

/// What of a message tells what it is.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    id: Option<IgnoredAny>,
}

fn incoming(
    lines: mpsc::Receiver<Line>,
    requests: Arc<Semaphore>,
    console: Arc<Console>,
) -> impl futures::Stream<Item = std::io::Result<String>> + Send + 'static {
    futures::stream::unfold((lines, requests, console), |(mut lines, requests, console)| async move {
        loop {
            let text = match lines.recv().await? {
                Line::TooLong(bytes) => {
                    console.warn(&format!("a line of {bytes} bytes from the editor was passed over: it is too long"));
                    continue;
                }
                Line::Whole(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => continue,
                Line::Whole(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            };
            let envelope = serde_json::from_str::<Envelope>(&text);
            if envelope.is_ok_and(|envelope| envelope.method.is_some() && envelope.id.is_some()) {
                // Never closed. Given back with the answer.
                if let Ok(permit) = requests.acquire().await {
                    permit.forget();
                }
            }
            return Some((Ok(text), (lines, requests, console)));
        }
    })
}

fn outgoing(
    lines: mpsc::Sender<Written>,
    room: Arc<Semaphore>,
    requests: Arc<Semaphore>,
) -> impl futures::Sink<String, Error = std::io::Error> + Send + 'static {
    futures::sink::unfold((lines, room, requests), |(lines, room, requests), line: String| async move {
        let closed = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let envelope = serde_json::from_str::<Envelope>(&line).ok();
        let (done, written) = oneshot::channel();
        lines.send((line, done)).await.map_err(|_| closed())?;
        written.await.map_err(|_| closed())??;
        match envelope.map(|envelope| envelope.method) {
            Some(None) => requests.add_permits(1),
            Some(Some(method)) if method == "session/update" => room.add_permits(1),
            _ => {}
        }
        Ok::<_, std::io::Error>((lines, room, requests))
    })
}
