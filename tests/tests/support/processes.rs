//! Processes of sessions, known by the nonces of their launches.

use std::{collections::HashSet, fs, path::Path, process::Command};

use serde_json::Value;

fn entries(directory: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

fn record(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_default()).unwrap_or_default()
}

/// Nonces of all launches of a data directory.
pub(crate) fn nonces(data_dir: &Path) -> HashSet<String> {
    let sessions =
        entries(&data_dir.join("projects")).into_iter().flat_map(|project| entries(&project.join("sessions")));
    sessions.flat_map(|session| nonces_of(&session)).collect()
}

/// Nonces of all launches of a session.
pub(crate) fn nonces_of(session_dir: &Path) -> HashSet<String> {
    let files = entries(&session_dir.join("runs")).into_iter().flat_map(|run| entries(&run));
    let launches =
        files.filter(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("launch.")));
    launches.filter_map(|file| record(&file)["nonce"].as_str().map(str::to_owned)).collect()
}

/// Pids with one of the nonces in their environment; a zombie has none.
pub(crate) fn marked(nonces: &HashSet<String>) -> Vec<u32> {
    let pids = entries_of_proc().into_iter();
    let has = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| {
            let value = variable.strip_prefix(b"AMBIENT_NONCE=");
            value.is_some_and(|value| nonces.contains(&*String::from_utf8_lossy(value)))
        })
    };
    pids.filter(has).collect()
}

/// Pids with the session's id in their arguments or environment, whatever became of its directory.
pub(crate) fn mentioning(session_id: &str) -> Vec<u32> {
    let mentions = |pid: &u32, file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.windows(session_id.len()).any(|window| window == session_id.as_bytes())
    };
    entries_of_proc().into_iter().filter(|pid| mentions(pid, "cmdline") || mentions(pid, "environ")).collect()
}

fn entries_of_proc() -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Pid of the runner of a launch.
pub(crate) fn runner_pid(session_dir: &Path, run: i64, attempt: i32) -> u32 {
    let started = record(&session_dir.join(format!("runs/{run}/started.{attempt}.json")));
    started["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap()
}

/// Sends a signal.
pub(crate) fn signal(pid: u32, signal: &str) {
    let _ = Command::new("sh").args(["-c", &format!("kill -{signal} {pid} 2>/dev/null")]).status();
}

/// Ends every process with one of the nonces.
pub(crate) fn end_all(nonces: &HashSet<String>) {
    for _ in 0..50 {
        let left = marked(nonces);
        if left.is_empty() {
            return;
        }
        left.into_iter().for_each(|pid| signal(pid, "KILL"));
    }
}

/// Arguments of every process there is.
pub(crate) fn command_lines() -> Vec<String> {
    let read = |pid| fs::read(format!("/proc/{pid}/cmdline")).ok();
    entries_of_proc().into_iter().filter_map(read).map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
}
