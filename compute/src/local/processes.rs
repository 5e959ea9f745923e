//! What is running on this machine, and which of it belongs to a session.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{ErrorKind, Read},
    os::fd::OwnedFd,
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

use ambient_runner_protocol::{ProcessIdentity, Started};
use procfs::{ProcError, process::Process};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal},
};

use super::{cgroup::RunGroup, error::io_error};
use crate::ComputeError;

/// Size of a process's `status`, except with many groups, bytes.
const USUAL_STATUS: usize = 4 << 10;
/// The most, with as many groups as the system allows (65,536).
const MAX_STATUS: u64 = 1 << 20;
/// Pause between two scans.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What a runner's init takes as an order to kill everything in its namespace but itself.
const INIT_KILLS_ALL: Signal = Signal::USR1;

/// How to recognise a session's (or run's) processes.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    /// Values of `AMBIENT_NONCE`.
    pub(super) nonces: HashSet<String>,
    /// Runners of this boot; their pid is their session id.
    pub(super) leaders: Vec<Started>,
    /// First processes of the attempts' PID namespaces: everything inside descends from them.
    pub(super) inits: Vec<ProcessIdentity>,
    /// User ids that only the session has.
    pub(super) uids: Vec<u32>,
    /// Control groups of its runs.
    pub(super) groups: Vec<RunGroup>,
}

/// One scan of `/proc`.
pub(super) struct Table {
    entries: Vec<Entry>,
    /// Why there may be more processes than were seen.
    blind: Option<String>,
}

/// A process that is not dead.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) pid: i32,
    parent: i32,
    session: i32,
    start_time: u64,
    nonce: Option<String>,
    /// Real, effective, saved and file system's; none if it died meanwhile.
    uids: Vec<u32>,
    name: String,
}

impl Table {
    pub(super) fn look() -> Self {
        let (mut entries, mut blind) = (Vec::new(), None);
        match procfs::process::all_processes() {
            Ok(all) => {
                for process in all {
                    match process.and_then(|process| entry(&process)) {
                        Ok(entry) => entries.extend(entry),
                        // Another user's, where `/proc` hides those: not one of our sessions.
                        Err(ProcError::PermissionDenied(_)) => {}
                        Err(error) if has_gone(&error) => {}
                        Err(error) => blind = Some(error.to_string()),
                    }
                }
            }
            Err(error) => blind = Some(error.to_string()),
        }
        Self { entries, blind }
    }

    /// Why nothing can be concluded from what was not seen, in words (such as no descriptors left).
    pub(super) fn blind(&self) -> Option<String> {
        self.blind.as_ref().map(|reason| format!("processes that cannot be inspected: {reason}"))
    }

    /// The scan itself, if nothing was missed.
    ///
    /// # Errors
    /// When there may be more processes than were seen.
    pub(super) fn whole(self) -> Result<Self, ComputeError> {
        match self.blind() {
            Some(reason) => Err(io_error("looking through /proc", std::io::Error::other(reason))),
            None => Ok(self),
        }
    }

    /// Nonces of all processes.
    pub(super) fn nonces(&self) -> HashSet<&str> {
        self.entries.iter().filter_map(|entry| entry.nonce.as_deref()).collect()
    }

    /// Processes that were started with this nonce.
    pub(super) fn with_nonce(&self, nonce: &str) -> Vec<i32> {
        self.entries.iter().filter(|entry| entry.nonce.as_deref() == Some(nonce)).map(|entry| entry.pid).collect()
    }

    /// Processes with a mark, and all their descendants.
    pub(super) fn members(&self, marks: &Marks) -> Vec<Entry> {
        let started = self.entries.iter().map(|entry| (entry.pid, entry.start_time)).collect::<HashMap<_, _>>();
        let grouped = marks.groups.iter().flat_map(RunGroup::processes).collect::<HashSet<_>>();
        let fits = |entry: &&Entry| grouped.contains(&entry.pid) || marks.fit(entry, &started);
        let mut members = self.entries.iter().filter(fits).map(|e| e.pid).collect::<HashSet<_>>();
        loop {
            let children = self.entries.iter().filter(|entry| members.contains(&entry.parent));
            let more = children.map(|child| child.pid).filter(|pid| !members.contains(pid)).collect::<Vec<_>>();
            if more.is_empty() {
                break;
            }
            members.extend(more);
        }
        // Never ourselves, whatever a forged record says.
        members.remove(&std::process::id().cast_signed());
        members.remove(&1);
        self.entries.iter().filter(|entry| members.contains(&entry.pid)).cloned().collect()
    }
}

impl Marks {
    fn fit(&self, entry: &Entry, started: &HashMap<i32, u64>) -> bool {
        entry.nonce.as_ref().is_some_and(|nonce| self.nonces.contains(nonce))
            || self.leaders.iter().any(|leader| leads(leader, entry, started))
            || self.uids.iter().any(|uid| entry.uids.contains(uid))
    }

    /// What exists with these marks, in words.
    pub(super) fn remains(&self) -> Vec<String> {
        let table = Table::look();
        self.describe(&table.members(self), &HashSet::new()).into_iter().chain(table.blind()).collect()
    }

    /// An init that is ending may have lost its nonce: it lives until the kernel has ended everything in its namespace.
    fn describe(&self, members: &[Entry], spared: &HashSet<i32>) -> Vec<String> {
        let known = |init: &&ProcessIdentity| {
            !spared.contains(&init.pid) && !members.iter().any(|entry| entry.pid == init.pid) && lives(init)
        };
        let ending = self.inits.iter().filter(known);
        let ending = ending.map(|init| format!("pid {}, the first of a PID namespace that has not ended", init.pid));
        members.iter().map(Entry::describe).chain(ending).collect()
    }

    /// Kills every process with these marks, except for `spared`; returns what is left after `patience`, in words.
    pub(super) fn kill(&self, spared: &HashSet<i32>, patience: Duration) -> Vec<String> {
        let deadline = Instant::now() + patience;
        let mut empty_looks = 0;
        loop {
            let table = Table::look();
            let mut left = table.members(self);
            left.retain(|entry| !spared.contains(&entry.pid));
            let remains: Vec<_> = self.describe(&left, spared).into_iter().chain(table.blind()).collect();
            // Twice, because a process that forks during a scan may be missed once.
            empty_looks = if remains.is_empty() { empty_looks + 1 } else { 0 };
            if empty_looks == 2 || Instant::now() > deadline {
                return remains;
            }
            for init in self.inits.iter().filter(|init| spared.contains(&init.pid)) {
                self.have_all_killed(init);
            }
            for group in &self.groups {
                // At once, ahead of anything that forks faster than we look.
                if spared.is_empty() {
                    group.kill()
                } else {
                    group.kill_agent()
                };
            }
            for entry in &left {
                entry.signal(Signal::KILL);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Marks {
    /// What stays when an agent is killed without its runner: live runners, and the namespaces they keep using.
    pub(super) fn runners(&self) -> Result<HashSet<i32>, ComputeError> {
        let mut runners = HashSet::new();
        for leader in &self.leaders {
            if open_runner(leader)?.is_some() {
                runners.extend([Some(leader.pid), leader.init.as_ref().map(|init| init.pid)].into_iter().flatten());
            }
        }
        Ok(runners)
    }

    /// Has an init that stays kill everything else in its namespace, in one call that nobody can fork past. It must carry
    /// one of our nonces: a record could name any process.
    fn have_all_killed(&self, init: &ProcessIdentity) {
        let Some(handle) = open(init.pid, init.start_time) else { return };
        // If that cannot be determined it is not ours; the killer looks again.
        let ours = Process::new(init.pid).and_then(|process| nonce(&process)).ok().flatten();
        if ours.is_some_and(|nonce| self.nonces.contains(&nonce)) {
            let _ = rustix::process::pidfd_send_signal(&handle, INIT_KILLS_ALL);
        }
    }
}

/// True unless this process has certainly ended: an error is no proof of that. One that is ending lives until the kernel has ended
/// everything in its namespace; it may have lost its environment by then, so its nonce is not checked.
pub(super) fn lives(init: &ProcessIdentity) -> bool {
    !matches!(look_for(init.pid, init.start_time), Ok(None))
}

/// True if the process is in the session (`setsid`) that the runner started, even after the runner's death. A number that
/// has been given to another leader since does not count.
fn leads(leader: &Started, entry: &Entry, started: &HashMap<i32, u64>) -> bool {
    let reused = started.get(&leader.pid).is_some_and(|start_time| *start_time != leader.start_time);
    entry.session == leader.pid && !reused && leader.pid > 1 && entry.start_time >= leader.start_time
}

impl Entry {
    pub(super) fn describe(&self) -> String {
        format!("pid {} ({})", self.pid, self.name)
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(handle) = open(self.pid, self.start_time) {
            let _ = rustix::process::pidfd_send_signal(&handle, signal);
        }
    }
}

/// A handle of the runner that wrote this record, if it is alive. Its nonce must be in its environment: a record could name any
/// process.
///
/// # Errors
/// When it cannot be determined.
pub(super) fn open_runner(started: &Started) -> Result<Option<OwnedFd>, ComputeError> {
    if started.boot_id != boot_id()? || started.pid <= 1 {
        return Ok(None);
    }
    let look = || {
        let Some(handle) = look_for(started.pid, started.start_time)? else { return Ok(None) };
        let ours = nonce(&Process::new(started.pid)?)?.as_ref() == Some(&started.nonce);
        Ok(ours.then_some(handle))
    };
    match look() {
        Ok(found) => Ok(found),
        Err(error) if has_gone(&error) => Ok(None),
        Err(error) => Err(not_told(format!("looking for the runner with pid {}", started.pid), &error)),
    }
}

fn not_told(what: String, error: &ProcError) -> ComputeError {
    io_error(what, std::io::Error::other(error.to_string()))
}

/// A handle of a child of ours that has not been waited for: its number cannot have been reused.
pub(super) fn open_child(pid: i32) -> Option<OwnedFd> {
    rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()
}

/// A handle of exactly this process; none if it is dead, its number was reused, or that cannot be determined.
fn open(pid: i32, start_time: u64) -> Option<OwnedFd> {
    look_for(pid, start_time).ok().flatten()
}

/// A handle of exactly this process; none if it is dead or its number was reused.
fn look_for(pid: i32, start_time: u64) -> Result<Option<OwnedFd>, ProcError> {
    let Some(number) = Pid::from_raw(pid) else { return Ok(None) };
    let handle = match rustix::process::pidfd_open(number, PidfdFlags::NONBLOCK) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(ProcError::Io(error.into(), None)),
    };
    match Process::new(pid).and_then(|process| process.stat()) {
        Ok(stat) => Ok((stat.starttime == start_time && !matches!(stat.state, 'Z' | 'X')).then_some(handle)),
        Err(error) if has_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What `/proc` returns for a process that has ended meanwhile.
fn has_gone(error: &ProcError) -> bool {
    match error {
        ProcError::NotFound(_) => true,
        ProcError::Io(error, _) => error.raw_os_error() == Some(Errno::SRCH.raw_os_error()),
        _ => false,
    }
}

fn entry(process: &Process) -> Result<Option<Entry>, ProcError> {
    let stat = process.stat()?;
    if matches!(stat.state, 'Z' | 'X') {
        return Ok(None);
    }
    let (pid, parent, session, start_time) = (stat.pid, stat.ppid, stat.session, stat.starttime);
    // From `status`: the owner of `/proc/<pid>` is root for processes that made themselves undumpable.
    let uids = status(&Path::new("/proc").join(pid.to_string())).and_then(|status| uids_in(&status));
    let uids = match uids {
        Ok(uids) => uids,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(ProcError::PermissionDenied(None)),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(ProcError::NotFound(None)),
        Err(error) => return Err(ProcError::Io(error, None)),
    };
    Ok(Some(Entry { pid, parent, session, start_time, nonce: nonce(process)?, uids, name: stat.comm }))
}

/// None if it has none, or belongs to another user and may not be inspected.
fn nonce(process: &Process) -> Result<Option<String>, ProcError> {
    let environment = match std::fs::read(format!("/proc/{}/environ", process.pid)) {
        Ok(environment) => environment,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(ProcError::NotFound(None)),
        Err(error) => return Err(ProcError::Io(error, None)),
    };
    let value = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"AMBIENT_NONCE="));
    Ok(value.map(|value| String::from_utf8_lossy(value).into_owned()))
}

/// User ids of all processes. Needed at every launch, so nothing else is read.
///
/// # Errors
/// When there may be more processes than were seen.
pub(super) fn live_uids() -> Result<HashSet<u32>, ComputeError> {
    let failed = |error| io_error("looking through /proc", error);
    let mut live = HashSet::new();
    for process in std::fs::read_dir("/proc").map_err(failed)? {
        let name = process.map_err(failed)?.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        match status(&Path::new("/proc").join(name)) {
            Ok(status) => live.extend(uids_in(&status).map_err(failed)?),
            Err(error) if has_ended(&error) || error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(live)
}

/// What the system says about a process. The name in it is any bytes that its program, or it itself, has chosen.
fn status(process: &Path) -> std::io::Result<String> {
    // In one call: files of `/proc` have no size, so a buffer would grow from a few bytes, with a call each time.
    let mut status = Vec::with_capacity(USUAL_STATUS);
    File::open(process.join("status"))?.take(MAX_STATUS).read_to_end(&mut status)?;
    Ok(String::from_utf8_lossy(&status).into_owned())
}

/// Private memory of a process, bytes: file-backed pages are shared.
pub(super) fn own_memory(pid: i32) -> std::io::Result<u64> {
    Ok(own_memory_in(&status(&Path::new("/proc").join(pid.to_string()))?))
}

fn own_memory_in(status: &str) -> u64 {
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0)
    };
    (kib("RssAnon:") + kib("RssShmem:")) * 1024
}

/// Real, effective, saved and file system's user id of a process that is not dead, from its `status`.
fn uids_in(status: &str) -> std::io::Result<Vec<u32>> {
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    if line("State:").is_some_and(|state| state.trim_start().starts_with(['Z', 'X'])) {
        return Ok(Vec::new());
    }
    let uids: Option<Vec<u32>> =
        line("Uid:").and_then(|uids| uids.split_whitespace().map(|uid| uid.parse().ok()).collect());
    uids.filter(|uids| uids.len() == 4).ok_or_else(|| std::io::Error::other("a status without user ids"))
}

fn has_ended(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// Identity of this boot.
///
/// # Errors
/// When it cannot be read: then nothing is known about any recorded process.
pub(super) fn boot_id() -> Result<&'static str, ComputeError> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(known) = BOOT_ID.get() {
        return Ok(known);
    }
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let read = read.map_err(|e| io_error("reading the identity of this boot", e))?;
    Ok(BOOT_ID.get_or_init(|| read.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, process::Command};

    use rustix::process::{Resource, Rlimit};

    use super::*;

    fn identity(pid: u32) -> ProcessIdentity {
        let pid = pid.cast_signed();
        ProcessIdentity { pid, start_time: Process::new(pid).unwrap().stat().unwrap().starttime }
    }

    #[test]
    fn user_ids_of_processes_are_read_of_those_that_are_not_dead() {
        let status = |state: &str, uids: &str| format!("Name:\tx\nState:\t{state}\nUid:\t{uids}\nGid:\t9\t9\t9\t9\n");
        assert_eq!(uids_in(&status("S (sleeping)", "1\t2\t3\t4")).unwrap(), [1, 2, 3, 4]);
        assert_eq!(uids_in(&status("Z (zombie)", "1\t2\t3\t4")).unwrap(), [0; 0]);
        // A name cannot pass for the line: the kernel escapes its line breaks.
        for broken in ["", "1\t2", "1\t2\t3\tx"] {
            assert!(uids_in(&status("R (running)", broken)).is_err(), "{broken}");
        }
        assert!(live_uids().unwrap().contains(&rustix::process::getuid().as_raw()));
    }

    /// Any program may have any name, and give itself one: an agent's, too.
    #[test]
    fn a_process_whose_name_is_no_text_blinds_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(OsStr::from_bytes(b"\xff\xfe) Z 1\n"));
        std::fs::copy("/bin/sleep", &program).unwrap();
        // Busy for as long as a process that another test has forked meanwhile has the copy open.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut child = loop {
            match Command::new(&program).arg("60").spawn() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                spawned => break spawned.unwrap(),
            }
        };
        let (table, uids, memory) = (Table::look(), live_uids(), own_memory(child.id().cast_signed()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(table.blind(), None);
        assert!(table.entries.iter().any(|entry| entry.pid == child.id().cast_signed()));
        uids.unwrap();
        assert!(memory > 0);
        assert_eq!(own_memory_in("VmRSS:\t9 kB\nRssAnon:\t     264 kB\nRssFile:\t7 kB\nRssShmem:\t1 kB\n"), 265 * 1024);
    }

    #[test]
    fn a_look_without_descriptors_concludes_nothing() {
        const ALONE: &str = "AMBIENT_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            // In a process of its own: other tests need descriptors.
            let name = "local::processes::tests::a_look_without_descriptors_concludes_nothing";
            let alone = Command::new(std::env::current_exe().unwrap()).args(["--exact", name]).env(ALONE, "1").output();
            let alone = alone.unwrap();
            assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
            return;
        }
        let (start_time, boot_id) = (identity(std::process::id()).start_time, boot_id().unwrap().to_owned());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let ended = identity(child.id());
        assert!(lives(&ended));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!lives(&ended) && Table::look().blind().is_none());
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
        let all: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        let (blind, told_of_ended) = (Table::look().blind(), lives(&identity_without_look(std::process::id())));
        let (pid, boot_id) = (std::process::id().cast_signed(), boot_id);
        let record =
            Started { pid, start_time, boot_id, nonce: "n".to_owned(), init: None, missing_confinement: Vec::new() };
        let (runner, uids) = (open_runner(&record), live_uids());
        drop(all);
        assert!(blind.is_some() && told_of_ended && runner.is_err() && uids.is_err());
        assert!(open_runner(&record).unwrap().is_none(), "it has another nonce");
        assert!(!lives(&ended));
    }

    /// Of a process that cannot be looked at.
    fn identity_without_look(pid: u32) -> ProcessIdentity {
        ProcessIdentity { pid: pid.cast_signed(), start_time: 1 }
    }
}
