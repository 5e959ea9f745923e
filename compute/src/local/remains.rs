//! What is left of the workspace of a session that has not been used for long: its records, and the end of what was said.
//!
//! Everything that goes is first moved aside under the fence's lock, so that a run that begins meanwhile finds all of it or nothing. The
//! caller has decided it for good before: what dies here is repeated, by whoever comes next.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{BufRead, BufReader, ErrorKind, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use ambient_runner_protocol::SessionPaths;
use rustix::fs::OFlags;
use serde_json::Value;

use super::{
    absence::look_at_lock,
    disk,
    error::io_error,
    host::Local,
    layout::{check_session, is_there, random_id, remove_file, remove_tree, write_file},
    state::{all_attempts, runs_of},
};
use crate::{ComputeError, SessionRef};

/// What is kept of what was said in a run, bytes, and the longest line of it.
const MOST_SAID: usize = 256 * 1024;
const LONGEST_LINE: usize = 16 * 1024;
/// Records that say what was said: the runner retells these.
const SAID: [&str; 3] = ["turn.started", "agent.text", "tool.started"];

impl Local {
    /// See [`crate::Compute::remove_workspace`].
    pub(super) fn remove_workspace(&self, session: &SessionRef, run: i64) -> Result<Option<u64>, ComputeError> {
        check_session(session)?;
        let paths = self.paths(session);
        if !is_there(&paths.root)? {
            return Ok(Some(0));
        }
        let folders = [
            paths.workspace(),
            paths.home(),
            paths.tmp(),
            paths.repos(),
            paths.mirrors(),
            paths.packs(),
            paths.blocks(),
        ];
        let aside = paths.root.join("removed");
        let all: Vec<&Path> = folders.iter().chain([&aside]).map(AsRef::as_ref).collect();
        let bytes = disk::measure(&all, &[]).bytes;
        {
            let fence = self.lock_fence(session)?;
            if self.has_later_run(&paths, run)? {
                return Ok(None);
            }
            if fence.stopped_run < run {
                return Err(ComputeError::Invalid(format!(
                    "the workspace of run {run} cannot be removed: its fence is not raised (it stands at {})",
                    fence.stopped_run
                )));
            }
            let mut remains = self.marks(&paths, &all_attempts(&paths)?)?.remains();
            look_at_lock(&paths, &mut Vec::new(), &mut remains)?;
            if !remains.is_empty() {
                return Err(ComputeError::Remains { run, remains });
            }
            let to = aside.join(random_id().map_err(|e| io_error("naming a folder", e))?);
            std::fs::create_dir_all(&to).map_err(|e| io_error(format!("making {}", to.display()), e))?;
            for folder in &folders {
                move_aside(folder, &to)?;
            }
            for run in runs_of(&paths)? {
                keep_what_was_said(&paths, run)?;
            }
        }
        remove_tree(&aside)?;
        Ok(Some(bytes))
    }
}

fn move_aside(folder: &Path, to: &Path) -> Result<(), ComputeError> {
    let to = to.join(folder.file_name().unwrap_or_default());
    let moved = match std::fs::rename(folder, &to) {
        // Its own entry of its parent changes, which its owner may have forbidden. The name is not the agent's to change: it is no link.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            std::fs::set_permissions(folder, Permissions::from_mode(0o700)).and_then(|()| std::fs::rename(folder, &to))
        }
        moved => moved,
    };
    match moved {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(io_error(format!("moving {}", folder.display()), error))
        }
        _ => Ok(()),
    }
}

/// In place of a run's log, all of which is stored.
fn keep_what_was_said(paths: &SessionPaths, run: i64) -> Result<(), ComputeError> {
    let path = paths.event_log(run);
    let what = || format!("reading {}", path.display());
    let mut options = OpenOptions::new();
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let log = match options.read(true).custom_flags(flags).open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(what(), error)),
    };
    let about = log.metadata().map_err(|e| io_error(what(), e))?;
    if about.is_file() {
        let said = said(log).map_err(|e| io_error(what(), e))?;
        // The next runner reads it.
        let is_root = rustix::process::geteuid().is_root();
        write_file(&paths.said(run), &said, is_root.then(|| about.uid()))?;
    }
    remove_file(&path)
}

/// The last lines of a log that say what was said.
fn said(log: File) -> std::io::Result<Vec<u8>> {
    let mut kept: Vec<u8> = Vec::new();
    let mut log = BufReader::new(log);
    loop {
        let mut line = Vec::new();
        if log.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            // Longer than what is kept, or torn: the rest of it goes.
            log.skip_until(b'\n')?;
            continue;
        }
        if says_something(&line) {
            kept.extend_from_slice(&line);
        }
        if kept.len() > 2 * MOST_SAID {
            shorten(&mut kept);
        }
    }
    shorten(&mut kept);
    Ok(kept)
}

fn says_something(line: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(line) else { return false };
    // Most lines are something else, and need not be parsed.
    SAID.iter().any(|kind| text.contains(kind))
        && serde_json::from_str::<Value>(text)
            .is_ok_and(|record| SAID.iter().any(|kind| record["event"]["type"] == *kind))
}

fn shorten(kept: &mut Vec<u8>) {
    let beyond = kept.len().saturating_sub(MOST_SAID);
    if beyond > 0 {
        let whole = kept[beyond..].iter().position(|byte| *byte == b'\n').map_or(kept.len(), |end| beyond + end + 1);
        kept.drain(..whole);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    #[test]
    fn the_end_of_what_was_said_is_kept_in_whole_lines() {
        let mut log = tempfile::tempfile().unwrap();
        let line = |n: usize, kind: &str, text: &str| {
            format!(
                "{{\"n\":{n},\"at\":\"2026-01-01T00:00:00Z\",\"event\":{{\"type\":\"{kind}\",\"text\":\"{text}\"}}}}\n"
            )
        };
        for n in 0..20_000 {
            log.write_all(line(n, "agent.text", "some words of the agent").as_bytes()).unwrap();
            log.write_all(line(n, "tool.output", "says \\\"agent.text\\\"").as_bytes()).unwrap();
        }
        log.write_all(line(20_000, "agent.text", &"long".repeat(10_000)).as_bytes()).unwrap();
        log.write_all(line(20_001, "turn.started", "last").as_bytes()).unwrap();
        log.write_all(b"{\"n\":20002,\"event\":{\"type\":\"agent.text\"").unwrap();
        log.rewind().unwrap();
        let kept = String::from_utf8(said(log).unwrap()).unwrap();
        assert!(kept.len() <= MOST_SAID && kept.len() > MOST_SAID / 2, "{}", kept.len());
        let records: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(records.iter().all(|record| record["event"]["type"] != "tool.output"));
        assert_eq!(records.last().unwrap()["n"], 20_001);
        assert_eq!(records[records.len() - 2]["n"], 19_999);
    }
}
