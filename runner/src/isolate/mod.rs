//! The agent's own namespaces: user, PID, mount and IPC, with a root that contains what it may see and nothing else; and, if its network
//! is restricted, one with nothing but a loopback interface, on which only the runner listens.
//!
//! `isolate` (a re-execution with one thread, which a user namespace requires) creates the namespaces and starts `init`, the first
//! process of the PID namespace. Init builds the root, gives up every right and waits: it ends when its pipe does, and the
//! kernel then ends everything in the namespace. **Its end is the proof that nothing of the agent is alive.** Commands come in
//! through `enter` (also a re-execution), which joins, gives up its rights, and waits outside where the agent cannot see it.
//! A command with rights other than the agent's (git that reads an origin) gets its own namespaces while it runs.

mod enter;
mod handover;
pub(crate) mod init;
mod loopback;
mod root;
mod stage;

use std::{
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use ambient_runner_protocol::{Confinement, ProcessIdentity};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::{
    io::unix::AsyncFd,
    process::{ChildStdin, Command},
    time::timeout,
};

use crate::{
    confine::ORDER,
    rights::{Place, Rights},
};
pub(crate) use enter::enter;
pub(crate) use stage::isolate;

/// Timeout for creating them.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest report of a stage.
const MAX_REPORT: u64 = 64 * 1024;
/// What a stage is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) rights: Rights,
    /// Where the command starts.
    pub(crate) directory: PathBuf,
    /// Our runner: a stage ends when it does.
    pub(crate) runner: i32,
    /// How many ports of a network of its own are handed to the runner.
    #[serde(default)]
    pub(crate) ports: usize,
}

/// What a stage (and init) report about the namespaces.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    Made { pid: i32, missing: Vec<String> },
    Failed(String),
}

/// Where the agent's processes live; one for the whole program, because it serves one attempt.
static AGENTS: OnceLock<Shared> = OnceLock::new();

#[derive(Debug)]
struct Shared {
    init: ProcessIdentity,
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    own_network: bool,
}

/// The namespaces of this attempt's agent. They end with this.
pub(crate) struct Namespaces {
    pub(crate) init: ProcessIdentity,
    handle: OwnedFd,
    /// Init ends when this pipe closes.
    life: Mutex<Option<ChildStdin>>,
}

/// Namespaces that were created.
pub(crate) struct Made {
    pub(crate) namespaces: Namespaces,
    /// What they lack, in words.
    pub(crate) missing: Vec<String>,
    /// Sockets that listen on their loopback interface.
    pub(crate) ports: Vec<TcpListener>,
}

/// Where a command with these rights belongs: what the agent may not have is out of the agent's sight.
pub(crate) fn place(rights: &Rights) -> Place {
    let Some(agents) = AGENTS.get() else { return Place::Here };
    let fits = rights.pinned.is_empty()
        && rights.own_network == agents.own_network
        && rights.read.iter().all(|path| agents.read.contains(path))
        && rights.write.iter().all(|path| agents.write.contains(path));
    if fits { Place::Agents(agents.init.clone()) } else { Place::Own }
}

impl Namespaces {
    /// Creates the agent's namespaces, with so many ports that listen in a network of its own. To be called once.
    ///
    /// # Errors
    /// In words, if the kernel refuses.
    pub(crate) async fn make(rights: &Rights, nonce: &str, ports: usize) -> Result<Made, String> {
        if rights.mode == Confinement::Off {
            return Err("confinement is switched off".to_owned());
        }
        let order = Order { rights: rights.clone(), directory: PathBuf::from("/"), runner: own_pid(), ports };
        let order = serde_json::to_string(&order).map_err(|e| e.to_string())?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("isolate").env_clear().env("AMBIENT_NONCE", nonce).env(ORDER, order);
        let (output, stages) = UnixStream::pair().map_err(|e| e.to_string())?;
        command.stdin(Stdio::piped()).stdout(OwnedFd::from(stages)).kill_on_drop(true);
        rights.apply_user(&mut command);
        let mut stage = command.spawn().map_err(|e| e.to_string())?;
        // It has the stage's end of the socket.
        drop(command);
        let life = stage.stdin.take();
        let report = async {
            let told = handover::receive(output, ports).await?;
            stage.wait().await.map(|_| told)
        };
        let report = timeout(PATIENCE, report).await.map_err(|_| "it took too long".to_owned())?;
        let (text, handed) = report.map_err(|e| e.to_string())?;
        let (pid, missing) = match serde_json::from_slice(&text) {
            Ok(Report::Made { pid, missing }) => (pid, missing),
            Ok(Report::Failed(reason)) => return Err(reason),
            Err(_) => return Err("the stage that makes them ended without a word".to_owned()),
        };
        if handed.len() != ports {
            return Err("the ports of their network were not handed over".to_owned());
        }
        // Its parent has ended, so it is our child, and its number is not reused until we wait for it.
        let init = identity(pid)?;
        let handle = open(&init).ok_or("their first process has ended")?;
        let (read, write) = (rights.read.clone(), rights.write.clone());
        let _ = AGENTS.set(Shared { init: init.clone(), read, write, own_network: rights.own_network });
        let namespaces = Self { init, handle, life: Mutex::new(life) };
        Ok(Made { namespaces, missing, ports: handed })
    }

    /// Asks every process of the namespace to end.
    pub(crate) fn terminate(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::TERM);
    }

    /// Ends init, and with it everything in the namespace. Irrevocable.
    pub(crate) fn close(&self) {
        if let Ok(mut life) = self.life.lock() {
            *life = None;
        }
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// True once init, and so everything in the namespace, has ended.
    pub(crate) fn has_ended(&self) -> bool {
        open(&self.init).is_none()
    }

    /// Waits for the end of init.
    #[allow(deprecated, reason = "deprecated for descriptors that could be closed under it; this one is its own")]
    pub(crate) async fn ended(&self) {
        let watch = self.handle.try_clone().and_then(AsyncFd::new);
        match watch {
            Ok(watch) => drop(watch.readable().await),
            Err(error) => {
                tracing::error!(%error, "the agent's namespaces cannot be watched");
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A handle of exactly this process, if it is alive.
fn open(process: &ProcessIdentity) -> Option<OwnedFd> {
    let handle = rustix::process::pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::NONBLOCK).ok()?;
    let stat = procfs::process::Process::new(process.pid).and_then(|process| process.stat()).ok()?;
    (stat.starttime == process.start_time && !matches!(stat.state, 'Z' | 'X')).then_some(handle)
}

fn identity(pid: i32) -> Result<ProcessIdentity, String> {
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat()).map_err(|e| e.to_string())?;
    Ok(ProcessIdentity { pid, start_time: stat.starttime })
}

/// Our own process id.
pub(crate) fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// Reads what this stage is told.
///
/// # Errors
/// In words.
fn order() -> Result<Order, String> {
    let text = std::env::var(ORDER).map_err(|_| format!("{ORDER} is not set"))?;
    serde_json::from_str(&text).map_err(|e| format!("cannot read {ORDER}: {e}"))
}
