//! One attempt, from locking the workspace to recording its end.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use ambient_runner_protocol::{
    Confinement, EXIT_DISK_FULL, EXIT_FENCED, EXIT_IO, EXIT_PREREQUISITE, ExitCause, Exited, LaunchSpec, SessionPaths,
};
use ambient_wire::runner_event::{ENDED_BY_REQUEST, RunnerEvent};
use chrono::Utc;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use crate::{
    agent,
    app::{AgentState, App, SharedApp},
    attempt::Attempt,
    auth::Auth,
    confine,
    ending::{CurrentTurn, End, Ending, Stop},
    file_change,
    git::{playbooks::Playbooks, repos::Repos},
    history::History,
    http,
    isolate::{self, Made, Namespaces},
    life, listener,
    log::EventLog,
    messages::{Inbox, Outbox},
    model::{ModelProxy, Spent},
    network::NetworkProxy,
    permissions::Permissions,
    process::{Mark, Processes},
    reader::Readers,
    rights::Rights,
    turn::INTERRUPT_PATIENCE,
    turns,
};

/// Timeout for the reader if the end was requested by a signal.
const SIGNAL_ACK_PATIENCE: Duration = Duration::from_secs(3);
/// Timeout for a stopped turn's end and snapshots.
const TURN_END_PATIENCE: Duration = Duration::from_secs(12);
/// Safety net for reaping orphans, besides SIGCHLD.
const REAP_INTERVAL: Duration = Duration::from_secs(5);
/// Longest reason, bytes: it has to fit into the record that was prepared.
const MAX_REASON: usize = 4096;

/// Why an attempt did not come up.
enum Refusal {
    /// Another runner, or the fence: nothing was recorded, nothing was done.
    Fenced(String),
    /// The session cannot run here.
    Prerequisite(String),
    /// The system failed; the attempt is lost.
    System(std::io::Error),
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::System(error)
    }
}

/// Runs the attempt; returns its exit code.
pub(crate) async fn serve(spec: LaunchSpec) -> i32 {
    let paths = SessionPaths { root: spec.session_dir.clone() };
    let (Ok(terminate), Ok(children)) = (signal(SignalKind::terminate()), signal(SignalKind::child())) else {
        return EXIT_IO;
    };
    let lock = match hold(&spec, &paths) {
        Ok(lock) => lock,
        Err(refusal) => return refuse(&spec, &paths, refusal),
    };
    let code = match start(spec.clone(), paths.clone()).await {
        Ok((app, outbox, history, listener)) => {
            let socket = app.attempt.spec.socket.clone();
            watch_signals(&app, terminate, children);
            let code = live(app, outbox, history, listener).await;
            let _ = std::fs::remove_file(socket);
            code
        }
        Err(refusal) => refuse(&spec, &paths, refusal),
    };
    drop(lock);
    code
}

/// Becomes the workspace's only runner. The fence is read under the lock: anyone who raises it afterwards finds us alive.
fn hold(spec: &LaunchSpec, paths: &SessionPaths) -> Result<std::fs::File, Refusal> {
    let lock = life::take_lock(&paths.life_lock())?;
    let lock = lock.ok_or_else(|| Refusal::Fenced("another runner holds the workspace".to_owned()))?;
    let stopped = life::stopped_run(paths)?;
    if stopped >= spec.run {
        return Err(Refusal::Fenced(format!("runs up to {stopped} were stopped")));
    }
    Ok(lock)
}

fn refuse(spec: &LaunchSpec, paths: &SessionPaths, refusal: Refusal) -> i32 {
    match refusal {
        Refusal::Fenced(reason) => {
            tracing::warn!(%reason, "not started");
            EXIT_FENCED
        }
        Refusal::Prerequisite(reason) => {
            tracing::error!(%reason, "a prerequisite failed");
            record_exit(spec, paths, EXIT_PREREQUISITE, reason);
            EXIT_PREREQUISITE
        }
        Refusal::System(error) => {
            tracing::error!(%error, "not started");
            life::note_want_of_space(&error);
            if !life::disk_was_full() {
                return EXIT_IO;
            }
            record_exit(spec, paths, EXIT_IO, format!("the runner cannot begin: {error}"));
            EXIT_DISK_FULL
        }
    }
}

type Begun = (SharedApp, Outbox, History, UnixListener);

async fn start(spec: LaunchSpec, paths: SessionPaths) -> Result<Begun, Refusal> {
    agent::check(&spec).map_err(Refusal::Prerequisite)?;
    for directory in [paths.workspace(), paths.home(), paths.tmp(), paths.blocks(), paths.mirrors(), paths.outgoing()] {
        std::fs::create_dir_all(directory)?;
    }
    // Nothing of an earlier attempt is left in them, whatever it did to keep it.
    ambient_removal::empty_tree(&paths.tmp())?;
    file_change::sweep(&paths.workspace());
    ambient_removal::empty_tree(&paths.blocks())?;
    life::prepare_record(&paths.exited(spec.run, spec.attempt))?;
    let Isolation { namespaces, mut missing, ports } = isolate(&spec).await.map_err(Refusal::Prerequisite)?;
    missing.extend(spec.unenforced.iter().cloned());
    let mut history = History::default();
    let mut spent = Spent::default();
    let log = EventLog::open(&paths.event_log(spec.run), |record| {
        history.see(record);
        spent.see(record);
    })?;
    let ending = Ending::new();
    let messages = paths.messages(spec.run);
    let current = Arc::new(CurrentTurn::default());
    let (inbox, outbox) =
        Inbox::open(&messages, &history, spec.interactive, log.clone(), ending.clone(), current.clone())?;
    let log_id = history.log_id.clone().map_or_else(life::random_id, Ok)?;
    let environment = own_environment(&paths.environment(spec.run))?;
    let processes = Processes::new(&spec, namespaces);
    let (model, network) = ways_out(&spec, &paths, spent, &log, ports).await.map_err(Refusal::Prerequisite)?;
    let attempt = Arc::new(Attempt { spec, paths, environment, processes, model, network });
    let app = Arc::new(App {
        log_id,
        inbox: Arc::new(inbox),
        readers: Readers::new(),
        repos: Repos::open(attempt.clone(), log.clone())?,
        playbooks: Playbooks::open(attempt.clone())?,
        auth: Auth::new(attempt.paths.server_token(attempt.spec.run)),
        current,
        permissions: Permissions::new(&attempt.spec, &history, log.clone()),
        agent: AgentState::new(&attempt.spec, &history),
        ending,
        log,
        attempt,
    });
    let began = RunnerEvent::AttemptStarted {
        log_id: app.log_id.clone(),
        attempt: app.attempt.spec.attempt,
        resumed: history.log_id.is_some(),
    };
    app.log.append(vec![began]).await.map_err(std::io::Error::other)?;
    let listener = listen(&app.attempt.spec.socket)?;
    // Last, so that whoever sees it can connect.
    let init = app.attempt.processes.namespaces().map(|namespaces| namespaces.init.clone());
    let started = life::identity(&app.attempt.spec.nonce, init, missing)?;
    life::write_record(&app.attempt.paths.started(app.attempt.spec.run, app.attempt.spec.attempt), &started)?;
    Ok((app, outbox, history, listener))
}

/// How an agent is kept apart.
struct Isolation {
    namespaces: Option<Namespaces>,
    /// Parts of its confinement that this kernel lacks, in words.
    missing: Vec<String>,
    /// Ports of its own network, if it has one: for the network proxy and the model proxy.
    ports: Vec<std::net::TcpListener>,
}

/// # Errors
/// When the confinement is required, or the network is restricted, and that is not available.
async fn isolate(spec: &LaunchSpec) -> Result<Isolation, String> {
    let rights = Rights::of_agent(spec);
    let ports = if rights.own_network { 1 + usize::from(spec.model.is_some()) } else { 0 };
    let mut isolation = match Namespaces::make(&rights, &spec.nonce, ports).await {
        Ok(Made { namespaces, missing, ports }) => Isolation { namespaces: Some(namespaces), missing, ports },
        Err(reason) if rights.own_network => {
            return Err(format!(
                "the session's network is restricted, which is not possible here: it needs namespaces ({reason})"
            ));
        }
        Err(reason) => {
            let what = format!(
                "namespaces of its own ({reason}): the agent sees the machine's processes and sockets, and a process that drops \
                 its environment and its parents may outlive the session unseen"
            );
            Isolation { namespaces: None, missing: vec![what], ports: Vec::new() }
        }
    };
    if spec.confinement == Confinement::Require && !isolation.missing.is_empty() {
        return Err(format!("the agent cannot be confined: it lacks {}", isolation.missing.join("; ")));
    }
    let rights = Rights { place: isolate::place(&rights), ..rights };
    isolation.missing.extend(confine::probe(&rights)?);
    Ok(isolation)
}

/// The agent's ways to its models and to the network, as far as it has them.
async fn ways_out(
    spec: &LaunchSpec,
    paths: &SessionPaths,
    spent: Spent,
    log: &EventLog,
    ports: Vec<std::net::TcpListener>,
) -> Result<(Option<ModelProxy>, Option<NetworkProxy>), String> {
    let system = |error: std::io::Error| format!("the agent's proxies cannot be started: {error}");
    let listener = |port: std::net::TcpListener| {
        port.set_nonblocking(true)?;
        TcpListener::from_std(port)
    };
    let mut listeners = ports.into_iter().map(listener).collect::<Result<Vec<_>, _>>().map_err(system)?.into_iter();
    let network = match listeners.next() {
        Some(listener) => Some(NetworkProxy::start(&spec.network, listener, log.clone())?),
        None => None,
    };
    let model = match &spec.model {
        Some(endpoint) => {
            let listener = match listeners.next() {
                Some(listener) => listener,
                None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(system)?,
            };
            Some(ModelProxy::start(endpoint, &paths.model_keys(spec.run), spent, log.clone(), listener).await?)
        }
        None => None,
    };
    Ok((model, network))
}

fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// Serves until the end, then carries the end out.
async fn live(app: SharedApp, outbox: Outbox, mut history: History, listener: UnixListener) -> i32 {
    tracing::info!(run = app.attempt.spec.run, attempt = app.attempt.spec.attempt, "serving");
    watch_log(&app);
    watch_namespaces(&app);
    let router = http::router(app.clone());
    let server = tokio::spawn(listener::serve(listener, router));
    let work = tokio::spawn({
        let app = app.clone();
        async move {
            if turns::close_open_turn(&app, &mut history).await.is_err() {
                return;
            }
            match turns::unfinished_end(&app, &history) {
                Some(end) => app.ending.begin(end),
                None => turns::run(app, outbox, history.turns).await,
            }
        }
    });
    let end = app.ending.begun().await;
    let code = finish(&app, end, work).await;
    server.abort();
    code
}

async fn finish(app: &SharedApp, end: End, work: tokio::task::JoinHandle<()>) -> i32 {
    tracing::info!(code = end.code, reason = %end.reason, "ending");
    app.current.stop(end.stop);
    if timeout(TURN_END_PATIENCE, work).await.is_err() {
        tracing::warn!("the turn did not end in time");
    }
    app.attempt.close_ways().await;
    app.attempt.processes.end(Mark::Session, INTERRUPT_PATIENCE).await;
    if end.recorded {
        let exited = RunnerEvent::RunnerExited { code: end.code, reason: end.reason.clone() };
        if let Ok(last) = app.log.append(vec![exited]).await
            && !app.readers.acknowledged(last, end.ack).await
        {
            tracing::warn!(last, "the reader did not acknowledge the last record in time");
        }
        record_exit(&app.attempt.spec, &app.attempt.paths, end.code, end.reason);
    }
    // Seen even if not even the record could be written.
    if end.code != 0 && life::disk_was_full() { EXIT_DISK_FULL } else { end.code }
}

fn record_exit(spec: &LaunchSpec, paths: &SessionPaths, code: i32, mut reason: String) {
    reason.truncate(reason.floor_char_boundary(MAX_REASON));
    let cause = (code != 0 && life::disk_was_full()).then_some(ExitCause::DiskFull);
    let exited = Exited { nonce: spec.nonce.clone(), code, reason, at: Utc::now(), cause };
    if let Err(error) = life::write_prepared_record(&paths.exited(spec.run, spec.attempt), &exited) {
        tracing::error!(%error, "the end cannot be recorded");
    }
}

/// The session's own variables, as passed to compute.
fn own_environment(file: &Path) -> Result<BTreeMap<String, String>, Refusal> {
    match std::fs::read(file) {
        // The parser's error could show a value.
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|_| Refusal::Prerequisite("the session's environment cannot be read".to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}

fn watch_signals(app: &SharedApp, mut terminate: Signal, mut children: Signal) {
    let ending = app.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        ending.ending.begin(end_by_signal(&ending));
    });
    let app = app.clone();
    tokio::spawn(async move {
        loop {
            let _ = timeout(REAP_INTERVAL, children.recv()).await;
            let processes = app.attempt.processes.clone();
            let _ = tokio::task::spawn_blocking(move || processes.reap_orphans()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// A signal that none of us has sent (a shutdown of the machine) is a loss: the next attempt continues.
fn end_by_signal(app: &App) -> End {
    let ack = SIGNAL_ACK_PATIENCE;
    if life::end_was_asked_for(&app.attempt.paths, app.attempt.spec.run) {
        return End { code: 0, reason: ENDED_BY_REQUEST.to_owned(), stop: Stop::Terminated, ack, recorded: true };
    }
    let reason = "terminated by a signal from outside".to_owned();
    End { code: 128 + 15, reason, stop: Stop::RunnerLost, ack, recorded: false }
}

/// Without its namespaces the agent is gone, and no command can be run: the attempt is lost.
fn watch_namespaces(app: &SharedApp) {
    let app = app.clone();
    tokio::spawn(async move {
        let Some(namespaces) = app.attempt.processes.namespaces() else { return };
        namespaces.ended().await;
        let reason = "the agent's namespaces were ended from outside".to_owned();
        app.ending.begin(End { code: EXIT_IO, reason, stop: Stop::RunnerLost, ack: Duration::ZERO, recorded: false });
    });
}

/// A log that cannot be written ends the runner: nothing may happen unrecorded.
fn watch_log(app: &SharedApp) {
    let app = app.clone();
    tokio::spawn(async move {
        let mut last = app.log.last();
        while last.changed().await.is_ok() {}
        let full = if life::disk_was_full() { ": the disk is full" } else { "" };
        let reason = format!("the event log cannot be written{full}");
        app.ending.begin(End { code: EXIT_IO, reason, stop: Stop::RunnerLost, ack: Duration::ZERO, recorded: true });
    });
}
