//! Processes of the session: starting them confined, reaping orphans, and ending all of them.
//!
//! A process belongs to the session if it carries the launch's nonce in its environment, descends from the runner, or has
//! one of the session's own user ids. Its process group proves nothing: agents make their own. A zombie counts as gone.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ambient_runner_protocol::LaunchSpec;
use procfs::process::Process;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use tokio::process::{Child, Command};

use crate::{
    confine::ORDER,
    isolate::{self, Namespaces, Order},
    rights::{Place, Rights},
};

/// Pause between two scans of `/proc`.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long SIGKILL is repeated before giving up (uninterruptible sleep).
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Which processes are meant.
#[derive(Debug, Clone)]
pub(crate) enum Mark {
    /// Everything of the session except the runner itself.
    Session,
    /// What was started in one of the agent's turns (`AMBIENT_TURN`).
    Turn(String),
    /// What was started in a turn at this time or later, in the kernel's ticks.
    Since { of: String, ticks: u64 },
    /// What is left when a turn is over: what it started, and whatever has lost its parent in the agent's namespaces.
    Left(String),
}

/// Processes of the session.
pub(crate) struct Processes {
    nonce: String,
    /// User ids that only the session has.
    own_uids: Vec<u32>,
    namespaces: Option<Namespaces>,
    /// Children that someone waits for; the others are orphans to be reaped.
    awaited: Mutex<HashSet<u32>>,
}

impl Processes {
    pub(crate) fn new(spec: &LaunchSpec, namespaces: Option<Namespaces>) -> Arc<Self> {
        let runners = spec.own_user.then(|| rustix::process::getuid().as_raw());
        let own_uids = runners.into_iter().chain(spec.agent_user).collect();
        Arc::new(Self { nonce: spec.nonce.clone(), own_uids, namespaces, awaited: Mutex::default() })
    }

    /// The agent's namespaces, if the kernel allows us some.
    pub(crate) fn namespaces(&self) -> Option<&Namespaces> {
        self.namespaces.as_ref()
    }

    /// Starts a child, which we must wait for as long as the guard lives.
    ///
    /// # Errors
    /// A system error.
    pub(crate) fn spawn(&self, command: &mut Command) -> std::io::Result<(Child, Awaited<'_>)> {
        // Held over the fork, so that the reaper never takes a child's status before its number is recorded.
        let mut awaited = self.awaited.lock().map_err(|_| std::io::Error::other("poisoned"))?;
        let child = command.spawn()?;
        let pid = child.id();
        awaited.extend(pid);
        Ok((child, Awaited { processes: self, pid }))
    }

    /// Waits for every dead child that nobody else waits for.
    pub(crate) fn reap_orphans(&self) {
        let Ok(awaited) = self.awaited.lock() else { return };
        let me = std::process::id().cast_signed();
        for process in all() {
            if process.parent == me && process.dead && !awaited.contains(&process.pid.cast_unsigned()) {
                let _ = rustix::process::waitpid(Pid::from_raw(process.pid), WaitOptions::NOHANG);
            }
        }
    }

    /// Asks the marked processes to end, and kills those that are left after `patience`.
    pub(crate) async fn end(self: &Arc<Self>, mark: Mark, patience: Duration) {
        let this = self.clone();
        let ended = tokio::task::spawn_blocking(move || this.end_blocking(&mark, patience)).await;
        if !matches!(ended, Ok(true)) {
            tracing::warn!("processes of the agent are left");
        }
    }

    /// How many marked processes there are.
    pub(crate) async fn count(self: &Arc<Self>, mark: Mark) -> usize {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.marked(&mark).len()).await.unwrap_or_default()
    }

    fn end_blocking(&self, mark: &Mark, patience: Duration) -> bool {
        let whole = matches!(mark, Mark::Session).then_some(self.namespaces.as_ref()).flatten();
        whole.inspect(|namespaces| namespaces.terminate());
        let begin = Instant::now();
        // What is started from here on is the work of a SIGTERM handler, which has its time.
        let (ticks, mut is_first_look) = (ticks_since_boot(), true);
        let mut asked = HashSet::new();
        let mut empty_looks = 0;
        loop {
            let left = self.marked(mark);
            let late = begin.elapsed() >= patience;
            // Twice, because a process that forks during a scan may be missed once.
            empty_looks = if left.is_empty() { empty_looks + 1 } else { 0 };
            if empty_looks == 2 || begin.elapsed() > patience + KILL_PATIENCE {
                whole.inspect(|namespaces| namespaces.close());
                return left.is_empty() && whole.is_none_or(ends);
            }
            for process in left {
                if late {
                    process.signal(Signal::KILL);
                } else if (is_first_look || process.start_time < ticks)
                    && !self.waits_outside(&process)
                    && asked.insert(process.pid)
                {
                    process.signal(Signal::TERM);
                }
            }
            is_first_look = false;
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// True for our own stage that waits outside for a command: it ends with the command, whose end it reports.
    fn waits_outside(&self, process: &Seen) -> bool {
        self.namespaces.is_some() && process.parent == isolate::own_pid()
    }

    fn marked(&self, mark: &Mark) -> Vec<Seen> {
        let me = std::process::id().cast_signed();
        let seen = all();
        let parents: HashMap<i32, i32> = seen.iter().map(|p| (p.pid, p.parent)).collect();
        let descends_from = |ancestors: &HashSet<i32>, mut pid: i32| {
            for _ in 0..parents.len() {
                match parents.get(&pid) {
                    Some(parent) if ancestors.contains(parent) => return true,
                    Some(parent) => pid = *parent,
                    None => return false,
                }
            }
            false
        };
        let is_ours = |process: &Seen| process.has_variable("AMBIENT_NONCE", &self.nonce);
        let init = self.namespaces.as_ref().map(|namespaces| namespaces.init.pid);
        // A block may drop its environment, but not the stage that waits for it.
        let of_turn = |turn: &str| -> HashSet<i32> {
            let of_turn = |p: &&Seen| is_ours(p) && p.has_variable("AMBIENT_TURN", turn);
            seen.iter().filter(of_turn).map(|process| process.pid).collect()
        };
        let ancestors: HashSet<i32> = match mark {
            Mark::Session => HashSet::from([me]),
            Mark::Turn(turn) | Mark::Since { of: turn, .. } => of_turn(turn),
            Mark::Left(turn) => of_turn(turn).into_iter().chain(init).collect(),
        };
        let marked = |process: &Seen| {
            ancestors.contains(&process.pid)
                || descends_from(&ancestors, process.pid)
                || matches!(mark, Mark::Session)
                    && (process.uid().is_some_and(|uid| self.own_uids.contains(&uid)) || is_ours(process))
        };
        let is_new = |process: &Seen| match mark {
            Mark::Since { ticks, .. } => process.start_time >= *ticks,
            _ => true,
        };
        // Init is the last to go.
        let spared = |process: &Seen| process.pid == me || Some(process.pid) == init || process.dead;
        seen.into_iter().filter(|process| !spared(process) && is_new(process) && marked(process)).collect()
    }
}

/// Waits until the namespaces have ended: the kernel kills everything left in them.
fn ends(namespaces: &Namespaces) -> bool {
    let begin = Instant::now();
    while !namespaces.has_ended() {
        if begin.elapsed() > KILL_PATIENCE {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    true
}

/// A child that someone waits for.
pub(crate) struct Awaited<'a> {
    processes: &'a Processes,
    pub(crate) pid: Option<u32>,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if let (Some(pid), Ok(mut awaited)) = (self.pid, self.processes.awaited.lock()) {
            awaited.remove(&pid);
        }
    }
}

/// A command that gives up everything but `rights` before it becomes `program`. Its environment is empty.
///
/// # Errors
/// When the rights cannot be serialised.
pub(crate) fn confined(rights: &Rights, directory: &Path, program: &OsStr) -> std::io::Result<Command> {
    confined_in(isolate::place(rights), rights, directory, program)
}

/// The same in a given place.
///
/// # Errors
/// When the rights cannot be written down.
pub(crate) fn confined_in(
    place: Place,
    rights: &Rights,
    directory: &Path,
    program: &OsStr,
) -> std::io::Result<Command> {
    let mut command = Command::new("/proc/self/exe");
    command.current_dir(directory).env_clear();
    rights.apply_user(&mut command);
    let stage = match place {
        Place::Here => "confine",
        Place::Agents(_) => "enter",
        Place::Own => "isolate",
    };
    let rights = Rights { place, ..rights.clone() };
    if rights.place == Place::Here {
        command.args([stage, "--rights", &serde_json::to_string(&rights)?]);
    } else {
        let order = Order { rights, directory: directory.to_owned(), runner: isolate::own_pid(), ports: 0 };
        command.arg(stage).env(ORDER, serde_json::to_string(&order)?);
    }
    command.arg("--").arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// A process as seen in `/proc`.
struct Seen {
    pid: i32,
    parent: i32,
    start_time: u64,
    dead: bool,
}

impl Seen {
    fn uid(&self) -> Option<u32> {
        // From `status`: the owner of `/proc/<pid>` is root for processes that made themselves undumpable.
        Process::new(self.pid).and_then(|p| p.status()).map(|status| status.euid).ok()
    }

    fn has_variable(&self, name: &str, value: &str) -> bool {
        let Ok(environment) = std::fs::read(format!("/proc/{}/environ", self.pid)) else { return false };
        let wanted = format!("{name}={value}");
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    }

    /// Signals exactly this process: its number may have been reused since.
    fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
        if look(self.pid).is_some_and(|now| now.start_time == self.start_time) {
            let _ = rustix::process::pidfd_send_signal(&handle, signal);
        }
    }
}

/// The current time, as `/proc` writes start times; 0 if it cannot be read.
pub(crate) fn ticks_since_boot() -> u64 {
    let hundredths = |text: String| text.split_whitespace().next()?.replace('.', "").parse::<u64>().ok();
    let uptime = std::fs::read_to_string("/proc/uptime").ok().and_then(hundredths).unwrap_or_default();
    uptime * procfs::ticks_per_second() / 100
}

fn look(pid: i32) -> Option<Seen> {
    let stat = Process::new(pid).and_then(|p| p.stat()).ok()?;
    let dead = matches!(stat.state, 'Z' | 'X');
    Some(Seen { pid, parent: stat.ppid, start_time: stat.starttime, dead })
}

fn all() -> Vec<Seen> {
    let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
    processes.filter_map(|process| look(process.ok()?.pid)).collect()
}
