//! What a running `up` or `server` leaves in the data directory for `down`, `status` and a second `up`.
//!
//! `up.lock` is locked as long as an `up` is alive: the kernel releases it however the process ends, so two can never
//! run on one data directory. `instances/<pid>.json` says where the process can be reached. A file is believed only
//! while a process with its pid *and* its start time exists: what a `kill -9` leaves behind is ignored and removed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, Utc};
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::data_dir;

/// Which command an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceKind {
    /// `ambient up`: one per data directory.
    Up,
    /// `ambient server`: any number.
    Server,
}

/// A running server process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Which command it is.
    pub kind: InstanceKind,
    /// Its process.
    pub pid: u32,
    /// When the process started, in clock ticks since boot: distinguishes it from a later process with its pid.
    pub start_ticks: u64,
    /// When it became ready.
    pub started_at: DateTime<Utc>,
    /// Where its API is.
    pub url: String,
}

/// Holds the data directory for this `up` until it is dropped or the process ends.
#[derive(Debug)]
pub struct UpLock(#[expect(dead_code, reason = "the open file is the lock")] File);

/// Takes the data directory for an `up`; `None` if another one has it. Creates the directory.
///
/// # Errors
/// When the directory cannot be created or written.
pub fn lock_for_up(data_dir: &Path) -> io::Result<Option<UpLock>> {
    data_dir::prepare(data_dir)?;
    let path = data_dir.join("up.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(UpLock(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// This process's entry; removed when dropped.
#[derive(Debug)]
pub struct Published(PathBuf);

impl Drop for Published {
    fn drop(&mut self) {
        // A leftover is recognised by its dead pid.
        let _ = fs::remove_file(&self.0);
    }
}

/// Tells other commands that this process serves `url`; call it once the API responds.
///
/// # Errors
/// When the entry cannot be written.
pub fn publish(data_dir: &Path, kind: InstanceKind, url: &str) -> io::Result<Published> {
    let pid = std::process::id();
    let start_ticks = start_ticks(pid).ok_or_else(|| io::Error::other("/proc is not mounted"))?;
    let instance = Instance { kind, pid, start_ticks, started_at: Utc::now(), url: url.to_owned() };
    data_dir::prepare(data_dir)?;
    let dir = data_dir.join("instances");
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{pid}.json"));
    let next = dir.join(format!("{pid}.json.next"));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
    file.write_all(&serde_json::to_vec(&instance)?)?;
    fs::rename(next, &path)?;
    Ok(Published(path))
}

/// The live instances, oldest first; entries of dead ones are removed.
///
/// # Errors
/// When the directory exists but cannot be read.
pub fn running(data_dir: &Path) -> io::Result<Vec<Instance>> {
    let entries = match fs::read_dir(data_dir.join("instances")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut live = Vec::new();
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let instance = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Instance>(&bytes).ok());
        match instance {
            Some(instance) if instance.is_alive() => live.push(instance),
            Some(_) => fs::remove_file(&path).unwrap_or_default(),
            None => {}
        }
    }
    live.sort_by_key(|instance| instance.start_ticks);
    Ok(live)
}

impl Instance {
    /// Whether the process still exists.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Asks the process to end (SIGTERM) and waits until it has; `false` if it has not within `patience`.
    ///
    /// # Errors
    /// When the process belongs to someone else.
    pub async fn terminate(&self, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.is_alive()) {
            kill_process(pid, Signal::TERM)?;
        }
        while self.is_alive() {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(true)
    }
}

/// Start time of a process in clock ticks since boot; `None` if there is no such process, or only its zombie.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name is in parentheses and may itself contain spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_up_has_a_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock_for_up(dir.path()).unwrap();
        assert!(first.is_some());
        assert!(lock_for_up(dir.path()).unwrap().is_none());
        drop(first);
        assert!(lock_for_up(dir.path()).unwrap().is_some());
    }

    #[test]
    fn an_entry_is_believed_only_while_its_own_process_lives() {
        let dir = tempfile::tempdir().unwrap();
        let published = publish(dir.path(), InstanceKind::Up, "http://127.0.0.1:1").unwrap();
        let live = running(dir.path()).unwrap();
        assert_eq!(live.len(), 1);
        assert_eq!(live[0].pid, std::process::id());

        // The same pid with another start time is another process: after a reboot, say.
        let stale = Instance { start_ticks: live[0].start_ticks + 1, ..live[0].clone() };
        let path = dir.path().join("instances/0.json");
        fs::write(&path, serde_json::to_vec(&stale).unwrap()).unwrap();
        assert_eq!(running(dir.path()).unwrap(), live);
        assert!(!path.exists());

        drop(published);
        assert!(running(dir.path()).unwrap().is_empty());
    }
}
