//! A data directory's postmaster, if any: found by its pid file, believed only if the process is one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

/// A live postmaster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Postmaster {
    pid: Pid,
}

impl Postmaster {
    /// The live postmaster of `data`. A pid alone proves nothing: it may have been given to another process since.
    pub(super) fn of(data: &Path) -> Option<Self> {
        let pid = recorded_pid(data)?;
        is_server_of(pid, data).then_some(Self { pid })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Asks for a fast shutdown: open transactions are rolled back, everything committed is flushed.
    pub(super) fn stop_fast(self) -> io::Result<()> {
        Ok(kill_process(self.pid, Signal::INT)?)
    }
}

/// Whether backends of a killed server are still working in `data`. Idle ones notice within moments; one that
/// is computing does not, and until it has ended its memory keeps a new server from starting. Each call asks them to end:
/// what they do cannot be committed any more.
pub(super) fn end_orphans(data: &Path) -> bool {
    if Postmaster::of(data).is_some() {
        return false;
    }
    let orphans: Vec<Pid> = all_processes().filter(|pid| is_server_of(*pid, data)).collect();
    for pid in &orphans {
        // One that is already gone is what we want; any other failure shows in their number.
        let _ = kill_process(*pid, Signal::TERM);
    }
    !orphans.is_empty()
}

/// Removes files of a dead server that PostgreSQL would take for a live one's. It handles those whose process is gone by
/// itself; what misleads it is a pid that lives on as something else, or as a zombie nobody has reaped yet, and a file without any pid, as a
/// power cut leaves it. Only for a `data` without orphans: its pid file also names the shared memory they hold, and its server may be
/// about to write it. `run` serves no other cluster.
pub(super) fn clear_stale_files(data: &Path, run: &Path) -> io::Result<()> {
    let (pid_file, socket_lock) = (data.join("postmaster.pid"), run.join(".s.PGSQL.5432.lock"));
    let lives_on = recorded_pid(data).is_some_and(|pid| process_folder(pid).exists());
    if Postmaster::of(data).is_some() || !(lives_on || is_blank(&pid_file) || is_blank(&socket_lock)) {
        return Ok(());
    }
    tracing::warn!(pid_file = %pid_file.display(), "removing a pid file whose server is gone");
    for file in [socket_lock, run.join(".s.PGSQL.5432"), pid_file] {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn recorded_pid(data: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    Pid::from_raw(text.lines().next()?.trim().parse::<i32>().ok().filter(|pid| *pid > 0)?)
}

/// Whether a file is there and has no number in it: it is empty, or full of NULs.
fn is_blank(file: &Path) -> bool {
    fs::read(file).is_ok_and(|bytes| !bytes.iter().any(u8::is_ascii_digit))
}

fn process_folder(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string())
}

fn command_of(pid: Pid) -> Option<String> {
    fs::read_to_string(process_folder(pid).join("comm")).ok()
}

/// Every process of a PostgreSQL server has its data directory as its working directory; a zombie has none.
fn works_in(pid: Pid, data: &Path) -> bool {
    fs::read_link(process_folder(pid).join("cwd")).is_ok_and(|cwd| data.canonicalize().is_ok_and(|data| cwd == data))
}

/// Whether a process is a server of `data`: the postmaster or one that it started.
fn is_server_of(pid: Pid, data: &Path) -> bool {
    works_in(pid, data) && command_of(pid).is_some_and(|name| name.starts_with("postgres"))
}

fn all_processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}
