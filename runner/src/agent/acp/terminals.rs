//! Terminals: commands that the agent runs through us, with its own rights.
//!
//! A terminal here is a command with its output; nothing is typed into it.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_client_protocol::v1::schema as acp;
use ambient_wire::runner_event::{OutputStream, RunnerEvent};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use super::{
    connection::{Services, refused},
    content,
    updates::Updates,
};
use crate::{
    attempt::Attempt,
    confine::ENV_PREFIX,
    environment,
    process::{Mark, confined},
    rights::Rights,
};
use ambient_runner_protocol::is_platform_variable;

type Answer<T> = agent_client_protocol::Result<T>;

/// Most terminals at once.
const MAX_TERMINALS: usize = 32;
/// Most output that is kept of one, bytes, whatever the agent asks for.
const MAX_OUTPUT: usize = 1024 * 1024;
/// Most output of one in the log, bytes.
const MAX_STREAMED: usize = 1024 * 1024;
/// Largest piece of output, bytes.
const PIECE: usize = 16 * 1024;
/// How long a killed one may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long output is read after the end: a background process keeps the pipes open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The terminals of an agent.
pub(super) struct Terminals {
    attempt: Arc<Attempt>,
    directory: PathBuf,
    prefix: String,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    made: u32,
    open: BTreeMap<String, Arc<Terminal>>,
}

struct Terminal {
    mark: String,
    most: usize,
    output: Mutex<Kept>,
    ended: watch::Sender<Option<acp::TerminalExitStatus>>,
}

#[derive(Default)]
struct Kept {
    bytes: VecDeque<u8>,
    is_cut: bool,
}

impl Terminals {
    pub(super) fn new(attempt: Arc<Attempt>, directory: PathBuf, prefix: String) -> Self {
        Self { attempt, directory, prefix, all: Mutex::default() }
    }

    /// Where the agent works.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) async fn create(
        &self,
        services: &Arc<Services>,
        request: acp::CreateTerminalRequest,
    ) -> Answer<acp::CreateTerminalResponse> {
        let most = request
            .output_byte_limit
            .map_or(MAX_OUTPUT, |most| usize::try_from(most).unwrap_or(MAX_OUTPUT).min(MAX_OUTPUT));
        let (terminal_id, terminal) = self.open(most)?;
        let started = self.start(services, &request, &terminal_id, &terminal).await;
        match self.all()?.open.entry(terminal_id.clone()) {
            Entry::Occupied(open) if started.is_err() => drop(open.remove()),
            Entry::Occupied(_) => return Ok(acp::CreateTerminalResponse::new(terminal_id)),
            Entry::Vacant(_) => {}
        }
        started?;
        // All were ended while it began.
        self.attempt.processes.end(Mark::Turn(terminal.mark.clone()), PATIENCE).await;
        Err(refused("the agent is being ended".to_owned()))
    }

    /// A new one, which counts before it has begun.
    fn open(&self, most: usize) -> Answer<(String, Arc<Terminal>)> {
        let mut all = self.all()?;
        if all.open.len() >= MAX_TERMINALS {
            return Err(refused(format!("{MAX_TERMINALS} terminals are open already")));
        }
        all.made += 1;
        let id = format!("{}/terminal-{}", self.prefix, all.made);
        let (output, ended) = (Mutex::default(), watch::Sender::new(None));
        let terminal = Arc::new(Terminal { mark: id.clone(), most, output, ended });
        all.open.insert(id.clone(), terminal.clone());
        Ok((id, terminal))
    }

    async fn start(
        &self,
        services: &Arc<Services>,
        request: &acp::CreateTerminalRequest,
        terminal_id: &str,
        terminal: &Arc<Terminal>,
    ) -> Answer<()> {
        let command = self.command(request, &terminal.mark).map_err(|e| refused(e.to_string()))?;
        let (started, is_started) = oneshot::channel();
        let run = run(
            self.attempt.clone(),
            command,
            terminal.clone(),
            services.updates.clone(),
            terminal_id.to_owned(),
            started,
        );
        tokio::spawn(run);
        let cannot = |reason: String| refused(format!("cannot start {}: {reason}", content::short(&request.command)));
        match is_started.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(cannot(error.to_string())),
            Err(_) => Err(cannot("it was given up".to_owned())),
        }
    }

    pub(super) fn output(&self, id: &acp::TerminalId) -> Answer<acp::TerminalOutputResponse> {
        let terminal = self.get(id)?;
        let kept = terminal.output.lock().map_err(|_| refused("poisoned".to_owned()))?;
        let bytes: Vec<u8> = kept.bytes.iter().copied().collect();
        let ended = terminal.ended.borrow().clone();
        Ok(acp::TerminalOutputResponse::new(String::from_utf8_lossy(&bytes).into_owned(), kept.is_cut)
            .exit_status(ended))
    }

    pub(super) async fn wait(&self, id: &acp::TerminalId) -> Answer<acp::WaitForTerminalExitResponse> {
        let mut ended = self.get(id)?.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await.map_err(|_| refused("its end was not seen".to_owned()))?;
        Ok(acp::WaitForTerminalExitResponse::new(ended.clone().unwrap_or_default()))
    }

    pub(super) async fn kill(&self, id: &acp::TerminalId) -> Answer<acp::KillTerminalResponse> {
        let terminal = self.get(id)?;
        self.attempt.processes.end(Mark::Turn(terminal.mark.clone()), PATIENCE).await;
        Ok(acp::KillTerminalResponse::new())
    }

    pub(super) async fn release(&self, id: &acp::TerminalId) -> Answer<acp::ReleaseTerminalResponse> {
        let terminal = self.get(id)?;
        self.attempt.processes.end(Mark::Turn(terminal.mark.clone()), PATIENCE).await;
        self.all()?.open.remove(id.0.as_ref());
        Ok(acp::ReleaseTerminalResponse::new())
    }

    /// Ends all of them.
    pub(super) async fn end(&self) {
        let open = self.all.lock().map(|mut all| std::mem::take(&mut all.open)).unwrap_or_default();
        for terminal in open.values() {
            self.attempt.processes.end(Mark::Turn(terminal.mark.clone()), PATIENCE).await;
        }
    }

    fn get(&self, id: &acp::TerminalId) -> Answer<Arc<Terminal>> {
        let unknown = || refused(format!("there is no terminal '{}'", content::short(&id.0)));
        self.all()?.open.get(id.0.as_ref()).cloned().ok_or_else(unknown)
    }

    fn all(&self) -> Answer<std::sync::MutexGuard<'_, All>> {
        self.all.lock().map_err(|_| refused("poisoned".to_owned()))
    }

    fn command(&self, request: &acp::CreateTerminalRequest, mark: &str) -> std::io::Result<Command> {
        let directory = request.cwd.as_ref().map_or_else(|| self.directory.clone(), |cwd| self.directory.join(cwd));
        // A command without arguments may be a whole line.
        let is_line = request.args.is_empty() && request.command.contains(char::is_whitespace);
        let program = if is_line { "sh" } else { request.command.as_str() };
        let mut command = confined(&Rights::of_agent(&self.attempt.spec), &directory, program.as_ref())?;
        if is_line {
            command.arg("-c").arg(&request.command);
        }
        command.args(&request.args).envs(environment::of_agent(&self.attempt, mark)).stdin(Stdio::null());
        for variable in request.env.iter().filter(|variable| !is_platform_variable(&variable.name)) {
            if !variable.name.is_empty() && !variable.name.contains(['=', '\0']) && !variable.value.contains('\0') {
                command.env(format!("{ENV_PREFIX}{}", variable.name), &variable.value);
            }
        }
        Ok(command)
    }
}

/// Runs the command to its end.
async fn run(
    attempt: Arc<Attempt>,
    mut command: Command,
    terminal: Arc<Terminal>,
    updates: Arc<Updates>,
    id: String,
    started: oneshot::Sender<std::io::Result<()>>,
) {
    let (mut child, _awaited) = match attempt.processes.spawn(&mut command) {
        Ok(child) => child,
        Err(error) => return drop(started.send(Err(error))),
    };
    let _ = started.send(Ok(()));
    let (sender, mut received) = mpsc::channel::<Vec<u8>>(16);
    listen(child.stdout.take(), sender.clone());
    listen(child.stderr.take(), sender);
    let mut streamed = 0;
    let mut take = async |bytes: Vec<u8>| {
        terminal.keep(&bytes);
        if streamed < MAX_STREAMED {
            streamed += bytes.len();
            let text = content::text(String::from_utf8_lossy(&bytes).into_owned(), usize::MAX).0;
            let output = RunnerEvent::ToolOutput { tool_call_id: id.clone(), stream: OutputStream::Stdout, text };
            // The turn sees it if nothing can be recorded.
            let _ = updates.record(output).await;
        }
    };
    let status = loop {
        tokio::select! {
            biased;
            Some(bytes) = received.recv() => take(bytes).await,
            status = child.wait() => break status.ok(),
        }
    };
    let deadline = Instant::now() + LAST_WORDS;
    while let Ok(Some(bytes)) = timeout_at(deadline, received.recv()).await {
        take(bytes).await;
    }
    terminal.ended.send_replace(Some(exit_status(status)));
}

fn listen<R: AsyncRead + Unpin + Send + 'static>(pipe: Option<R>, chunks: mpsc::Sender<Vec<u8>>) {
    let Some(mut pipe) = pipe else { return };
    tokio::spawn(async move {
        let mut buffer = vec![0; PIECE];
        while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
            // Read on even if nobody listens: a background process must not die of a full pipe.
            let _ = chunks.send(buffer[..read].to_vec()).await;
        }
    });
}

impl Terminal {
    /// The end of the output counts.
    fn keep(&self, bytes: &[u8]) {
        let Ok(mut kept) = self.output.lock() else { return };
        kept.bytes.extend(bytes);
        let excess = kept.bytes.len().saturating_sub(self.most);
        if excess > 0 {
            kept.is_cut = true;
            kept.bytes.drain(..excess);
            // From the beginning of a character on.
            while kept.bytes.front().is_some_and(|byte| byte & 0xC0 == 0x80) {
                kept.bytes.pop_front();
            }
        }
    }
}

fn exit_status(status: Option<ExitStatus>) -> acp::TerminalExitStatus {
    let code = status.and_then(|status| status.code()).and_then(|code| u32::try_from(code).ok());
    let signal = status.and_then(|status| status.signal()).map(|signal| format!("signal {signal}"));
    acp::TerminalExitStatus::new().exit_code(code).signal(signal)
}
