//! Starting an agent, up to where it can be sent a message.

use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use agent_client_protocol::{schema::ProtocolVersion, v1::schema as acp};
use ambient_runner_protocol::{AgentCommand, AgentSettings};
use ambient_wire::runner_event::{Conversation, PermissionOutcome, RunnerEvent};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout},
};

use super::{
    connection::{Connection, Failed, Services},
    content::{self, MAX_TEXT},
    files, mcp,
    placeholders::{self, Values},
    process::{Process, mark},
    retold, settings,
    terminals::Terminals,
    updates::Updates,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{app::SharedApp, log::LogError, turn::INTERRUPT_PATIENCE};

/// Timeout for an agent to say what it can do: some take half a minute on a busy machine.
const INITIALIZE: Duration = Duration::from_secs(120);
/// Timeout for beginning or loading a conversation.
const CONVERSE: Duration = Duration::from_secs(180);
/// When it did not begin: how long its end is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Error code: the agent wants to be authenticated.
const AUTHENTICATION: i32 = -32000;

/// An agent that can be sent messages.
pub(super) struct Agent {
    pub(super) app: SharedApp,
    pub(super) process: Process,
    pub(super) connection: Connection,
    pub(super) services: Arc<Services>,
    pub(super) session_id: String,
    pub(super) incarnation: u32,
    /// What its messages may contain besides text and links, as it says.
    pub(super) takes: Value,
    /// Since when it has waited for a message.
    pub(super) idle_since: Mutex<Instant>,
    /// Folder of the playbook that it goes by.
    pub(super) playbook: Mutex<Option<String>>,
    /// What it has to be told of the conversation with its first message.
    pub(super) retold: Mutex<Option<String>>,
    /// They end with it.
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

/// Why there is none.
pub(super) enum NotStarted {
    /// In words.
    Agent(String),
    Log(LogError),
}

impl From<LogError> for NotStarted {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// Starts the agent's process, and begins the conversation or takes it up again.
///
/// # Errors
/// In words; when the log fails.
pub(super) async fn start(app: &SharedApp, incarnation: u32) -> Result<Arc<Agent>, NotStarted> {
    let attempt = &app.attempt;
    let command =
        attempt.spec.agent_command.as_ref().ok_or_else(|| NotStarted::Agent("the agent has no command".to_owned()))?;
    let directory = directory(app, command).map_err(NotStarted::Agent)?;
    lay_down(app, command).await.map_err(NotStarted::Agent)?;
    let (process, pipes) = Process::start(attempt, incarnation, &directory).await.map_err(NotStarted::Agent)?;
    let prefix = mark(attempt, incarnation);
    let updates = Updates::new(app.log.clone(), &prefix);
    let services = Arc::new(Services {
        app: app.clone(),
        updates: updates.clone(),
        terminals: Terminals::new(attempt.clone(), directory.clone(), prefix),
        turn: watch::Sender::new(None),
    });
    let flush = AbortOnDropHandle::new(tokio::spawn({
        let updates = updates.clone();
        async move {
            let error = updates.flush_whenever_due().await;
            tracing::warn!(%error, "what the agent says cannot be recorded");
        }
    }));
    let begun = async {
        let connection = Connection::open(pipes, services.clone()).await?;
        let offers = initialize(&connection).await?;
        let begun = converse(app, &connection, &updates, &offers, &directory, command).await?;
        Ok::<_, String>((connection, offers, begun))
    };
    let begun = tokio::select! {
        begun = begun => begun,
        ended = process.ended() => Err(ended.in_full()),
    };
    let (connection, mut offers, begun) = match begun {
        Ok(begun) => begun,
        Err(reason) => {
            // That the process has ended says more than that the connection has.
            let ended = timeout(LAST_WORDS, process.ended()).await;
            let reason = match ended {
                Ok(ended) if ended.exit_code != Some(0) => ended.in_full(),
                _ => reason,
            };
            services.terminals.end().await;
            process.end(INTERRUPT_PATIENCE).await;
            return Err(NotStarted::Agent(reason));
        }
    };
    if let Some(notice) = begun.notice {
        updates.record(RunnerEvent::AgentNotice { text: notice }).await?;
    }
    for name in ["modes", "models"] {
        offers[name] = begun.response[name].clone();
    }
    offers["config_options"] = begun.response["configOptions"].clone();
    app.set_conversation(&begun.session_id);
    let info = |field: &str| content::short(offers["agent_info"][field].as_str().unwrap_or_default());
    let started = RunnerEvent::AgentStarted {
        incarnation,
        name: info("name"),
        version: info("version"),
        agent_session_id: begun.session_id.clone(),
        conversation: begun.conversation,
        offers: content::value(offers.clone(), MAX_TEXT),
    };
    app.log.append(vec![started]).await?;
    let agent = Arc::new(Agent {
        app: app.clone(),
        process,
        connection,
        services,
        session_id: begun.session_id,
        incarnation,
        takes: offers["capabilities"]["promptCapabilities"].clone(),
        idle_since: Mutex::new(Instant::now()),
        playbook: Mutex::new(None),
        retold: Mutex::new(begun.retold),
        tasks: Mutex::new(vec![flush]),
    });
    let wanted = app.settings();
    let now = wanted.borrow().clone();
    let told = placeholders::tell_the_model(command);
    let first = AgentSettings { model: now.model.clone().filter(|_| !told), ..now.clone() };
    settings::apply(&agent, &offers, &first).await?;
    let follow = settings::follow(Arc::downgrade(&agent), offers, wanted, now);
    let follow = AbortOnDropHandle::new(tokio::spawn(follow));
    agent.tasks.lock().await.push(follow);
    Ok(agent)
}

impl Agent {
    /// Ends its process, and whatever it has started.
    pub(super) async fn end(&self) {
        let closed = self.app.permissions.close_all(PermissionOutcome::Lost).await;
        self.services.terminals.end().await;
        let had_ended = self.process.has_ended();
        self.process.end(INTERRUPT_PATIENCE).await;
        let ended = self.process.ended().await;
        self.tasks.lock().await.clear();
        let exit_code = ended.exit_code;
        let reason = if had_ended { ended.in_full() } else { "it was ended".to_owned() };
        let ended = RunnerEvent::AgentEnded { incarnation: self.incarnation, exit_code, reason };
        // A log that fails ends the runner anyway.
        if closed.and(self.services.updates.record(ended).await).is_err() {
            tracing::warn!("the end of the agent cannot be recorded");
        }
    }
}

/// Where it works.
fn directory(app: &SharedApp, command: &AgentCommand) -> Result<PathBuf, String> {
    match &command.directory {
        None => Ok(app.repos.working_directory()),
        Some(given) if is_inside(Path::new(given)) => Ok(app.attempt.paths.workspace().join(given)),
        Some(given) => Err(format!("directory: '{given}' is not a folder in the workspace")),
    }
}

fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Its settings, in files in its home. With its own rights: it may have put a link in the way.
async fn lay_down(app: &SharedApp, command: &AgentCommand) -> Result<(), String> {
    let values = Values::of(&app.attempt, command);
    for (name, text) in &command.home_files {
        if !is_inside(Path::new(name)) {
            return Err(format!("home_files: '{name}' is not a file in the agent's home"));
        }
        let text = values.put_in_file(text);
        files::write(&app.attempt, &app.attempt.paths.home().join(name), &text).await?;
    }
    Ok(())
}

/// What it can do.
async fn initialize(connection: &Connection) -> Result<Value, String> {
    let files = acp::FileSystemCapabilities::new().read_text_file(true).write_text_file(true);
    let request = acp::InitializeRequest::new(ProtocolVersion::V1)
        .client_capabilities(acp::ClientCapabilities::new().fs(files).terminal(true))
        .client_info(acp::Implementation::new("ambient", env!("CARGO_PKG_VERSION")));
    let answer = connection
        .call("initialize", &request, INITIALIZE)
        .await
        .map_err(|e| format!("the agent cannot be initialized: {e}"))?;
    match answer["protocolVersion"].as_u64() {
        Some(1) => Ok(json!({
            "capabilities": answer["agentCapabilities"], "auth_methods": answer["authMethods"], "agent_info": answer["agentInfo"],
        })),
        Some(other) => {
            Err(format!("the agent speaks version {other} of the Agent Client Protocol; this runner speaks 1"))
        }
        None => Err("the agent does not say which version of the Agent Client Protocol it speaks".to_owned()),
    }
}

/// A conversation that has begun.
struct Begun {
    session_id: String,
    response: Value,
    conversation: Conversation,
    retold: Option<String>,
    notice: Option<String>,
}

/// Takes the conversation up where it was, as far as the agent can.
async fn converse(
    app: &SharedApp,
    connection: &Connection,
    updates: &Updates,
    offers: &Value,
    directory: &Path,
    command: &AgentCommand,
) -> Result<Begun, String> {
    let variable = |name: &str| app.attempt.environment.get(name).map(String::as_str);
    let (servers, left_out) = mcp::servers(&command.mcp_servers, &offers["capabilities"], variable);
    for text in left_out {
        let recorded = updates.record(RunnerEvent::AgentNotice { text }).await;
        recorded.map_err(|error| error.to_string())?;
    }
    let earlier = app.conversation();
    let mut why = "the agent cannot load conversations".to_owned();
    if let Some(id) = earlier.as_ref().filter(|_| offers["capabilities"]["loadSession"] == true) {
        let load = json!({ "sessionId": id, "cwd": directory, "mcpServers": servers });
        updates.set_replaying(true).await;
        match connection.call("session/load", &load, CONVERSE).await {
            Ok(response) => {
                return Ok(Begun {
                    session_id: id.clone(),
                    response,
                    conversation: Conversation::Loaded,
                    retold: None,
                    notice: None,
                });
            }
            Err(error) => why = format!("the agent cannot load it: {error}"),
        }
        updates.set_replaying(false).await;
    }
    let new = json!({ "cwd": directory, "mcpServers": servers });
    let response = connection.call("session/new", &new, CONVERSE).await.map_err(|e| unwilling(&e, offers))?;
    let session_id = response["sessionId"].as_str().ok_or("the agent began a conversation without an id")?.to_owned();
    let retold = if earlier.is_some() { retold::tell(app).await } else { None };
    let conversation = if retold.is_some() { Conversation::Retold } else { Conversation::New };
    let notice = retold.as_ref().map(|_| {
        format!("the conversation goes on with a new one of the agent, which is told what was said, shortened: {why}")
    });
    Ok(Begun { session_id, response, conversation, retold, notice })
}

/// Why no conversation begins; one that wants to be authenticated says how.
fn unwilling(error: &Failed, offers: &Value) -> String {
    let methods = offers["auth_methods"].as_array().into_iter().flatten();
    let methods: Vec<String> = methods
        .filter_map(|method| Some(format!("{} ({})", method["name"].as_str()?, method["id"].as_str()?)))
        .map(|method| content::short(&method))
        .collect();
    let reason = format!("the agent does not begin a conversation: {error}");
    if error.code == AUTHENTICATION && !methods.is_empty() {
        return format!(
            "{reason}; it wants to be authenticated by one of: {}. Set the variables that it needs in the session",
            methods.join(", ")
        );
    }
    reason
}
