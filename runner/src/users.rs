//! Separate user ids for the runner and its agent, if the server is root.
//!
//! `become` is started as root. It creates a user namespace in which two ids exist, has a child of its own, which stays outside,
//! write their map, becomes the first one, and executes this program again. It keeps capabilities over what
//! these two ids own, and over nothing else; the processes it starts have none of them. So the user id alone gives the agent no power
//! over its runner and the runner's files, whatever namespaces the kernel allows the agent.

use std::{
    ffi::OsString,
    io::{BufRead, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use nix::sched::CloneFlags;
use rustix::{
    fs::{Gid, Uid},
    process::Pid,
    thread::{CapabilitySet, CapabilitySets},
};

use crate::capabilities;

/// What a runner needs for its agent's files and processes: all of it counts only in the namespace of the two ids.
const KEPT: [CapabilitySet; 7] = [
    // Reads, changes and removes what the agent has closed.
    CapabilitySet::DAC_OVERRIDE,
    CapabilitySet::FOWNER,
    // Creates files for the agent.
    CapabilitySet::CHOWN,
    CapabilitySet::KILL,
    // Starts the agent.
    CapabilitySet::SETUID,
    CapabilitySet::SETGID,
    // Recognises the agent's processes by their environment.
    CapabilitySet::SYS_PTRACE,
];

/// Becomes `runner` in a namespace that also has `agent`, and executes this program with `arguments`; returns only on failure,
/// with the reason. To be called as root, with one thread.
pub(crate) fn become_runner(runner: u32, agent: u32, arguments: &[OsString]) -> String {
    let prepared = prepare(runner, agent);
    match prepared {
        Ok(()) => format!("cannot execute the runner: {}", Command::new("/proc/self/exe").args(arguments).exec()),
        Err(reason) => format!("cannot become user {runner}, apart from user {agent}: {reason}"),
    }
}

fn prepare(runner: u32, agent: u32) -> Result<(), String> {
    let mapper = start_mapper(runner, agent)?;
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|error| format!("a user namespace: {}", std::io::Error::from(error)))?;
    finish(mapper)?;
    let (uid, gid) = (Uid::from_raw(runner), Gid::from_raw(runner));
    // The agent's group may enter the session's folder.
    rustix::thread::set_thread_groups(&[Gid::from_raw(agent)])
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .map_err(|error| format!("user id: {error}"))?;
    keep().map_err(|error| format!("capabilities: {error}"))
}

/// A child that stays in the namespace we are in, the only one that may map its ids.
fn start_mapper(runner: u32, agent: u32) -> Result<Child, String> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["map-users", "--process"]).arg(std::process::id().to_string());
    command.arg("--runner-user").arg(runner.to_string()).arg("--agent-user").arg(agent.to_string());
    // Otherwise it would not count as the session's while it is alive.
    command.env_clear().envs(std::env::var_os("AMBIENT_NONCE").map(|nonce| ("AMBIENT_NONCE", nonce)));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command.spawn().map_err(|error| format!("the process that maps the ids: {error}"))
}

/// Tells the mapper that the namespace exists, and waits for it.
fn finish(mut mapper: Child) -> Result<(), String> {
    let go = mapper.stdin.take().ok_or("the process that maps the ids cannot be notified")?;
    let _ = (&go).write_all(b"go\n");
    drop(go);
    match mapper.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("the ids cannot be mapped".to_owned()),
        Err(error) => Err(format!("the process that maps the ids: {error}")),
    }
}

/// Maps the two ids into the namespace that the process, our parent, has created by now.
///
/// # Errors
/// In words.
pub(crate) fn map(process: i32, runner: u32, agent: u32) -> Result<(), String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| error.to_string())?;
    // If the pipe ends without a word the parent has died, and someone else may have its number.
    if line != "go\n" || rustix::process::getppid() != Pid::from_raw(process) {
        return Err("the runner has ended".to_owned());
    }
    let map = format!("{runner} {runner} 1\n{agent} {agent} 1\n");
    for file in ["uid_map", "gid_map"] {
        let file = format!("/proc/{process}/{file}");
        std::fs::write(&file, &map).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}

/// Gives up all capabilities but [`KEPT`], and keeps those across the next exec.
fn keep() -> rustix::io::Result<()> {
    let kept = KEPT.into_iter().fold(CapabilitySet::empty(), |all, one| all | one);
    capabilities::bound(kept)?;
    let inheritable = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?;
    capabilities::hand_on(kept)
}
