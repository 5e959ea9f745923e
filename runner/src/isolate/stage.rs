//! The single-threaded stage that creates namespaces.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
};

use nix::sched::CloneFlags;
use rustix::thread::CapabilitySet;

use super::{MAX_REPORT, ORDER, Order, Report, enter, handover, loopback, order};
use crate::{capabilities, confine::EXIT_CANNOT_EXECUTE, group};

/// Creates namespaces. With a command they are for it alone, and we exit with its exit code; without one they live as long as the
/// pipe on standard input, and the outcome is reported on standard output.
pub(crate) fn isolate(command: &[OsString]) -> i32 {
    if command.is_empty() {
        let made = order().and_then(|order| make(&order, Stdio::inherit()));
        let (report, ports) = match made {
            Ok(Made { init, missing, ports }) => (Report::Made { pid: init.id().cast_signed(), missing }, ports),
            Err(reason) => (Report::Failed(reason), Vec::new()),
        };
        let told = serde_json::to_vec(&report).is_ok_and(|report| handover::send(&report, &ports).is_ok());
        return if told { 0 } else { EXIT_CANNOT_EXECUTE };
    }
    // Init's pipe is held until the command has ended.
    let made = order().and_then(|order| {
        // Before the private root hides them. The agent's own init stays out: it must outlive whatever is killed for lack of memory.
        group::enter(&order.rights.groups)?;
        make(&order, Stdio::piped()).map(|made| (order, made.init))
    });
    let ended = made.and_then(|(order, _init)| enter::run(&order, command));
    enter::code(ended)
}

/// What was made.
struct Made {
    init: Child,
    missing: Vec<String>,
    ports: Vec<TcpListener>,
}

/// Leaves every namespace, the network's only if it is to be left, and starts init.
fn make(order: &Order, life: Stdio) -> Result<Made, String> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER, "a user namespace")?;
    write("setgroups", "deny")?;
    write("uid_map", &format!("{uid} {uid} 1"))?;
    write("gid_map", &format!("{gid} {gid} 1"))?;
    unshare(CloneFlags::CLONE_NEWNS, "a mount namespace")?;
    unshare(CloneFlags::CLONE_NEWIPC, "an IPC namespace")?;
    unshare(CloneFlags::CLONE_NEWPID, "a PID namespace")?;
    let ports = if order.rights.own_network { network(order.ports)? } else { Vec::new() };
    // Init is executed.
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETPCAP;
    capabilities::hand_on(needed).map_err(|e| format!("capabilities in the user namespace: {e}"))?;
    let mut init = start_init(order, life)?;
    let report = init.stdout.take().map(first_line).unwrap_or_default();
    match serde_json::from_str(&report) {
        Ok(Report::Made { missing, .. }) => Ok(Made { init, missing, ports }),
        Ok(Report::Failed(reason)) => Err(reason),
        Err(_) => Err("the first process of the namespaces ended without a word".to_owned()),
    }
}

/// A network with nothing but a loopback interface, and sockets that listen on it. They stay the network's wherever they are passed to.
fn network(ports: usize) -> Result<Vec<TcpListener>, String> {
    unshare(CloneFlags::CLONE_NEWNET, "a network namespace")?;
    loopback::up().map_err(|e| format!("the loopback interface: {}", std::io::Error::from(e)))?;
    let listen = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listening: Result<_, _> = (0..ports).map(listen).collect();
    listening.map_err(|e| format!("the loopback interface: {e}"))
}

fn unshare(flags: CloneFlags, what: &str) -> Result<(), String> {
    nix::sched::unshare(flags).map_err(|e| format!("{what}: {}", std::io::Error::from(e)))
}

fn write(file: &str, text: &str) -> Result<(), String> {
    std::fs::write(format!("/proc/self/{file}"), text).map_err(|e| format!("{file} of the user namespace: {e}"))
}

fn start_init(order: &Order, life: Stdio) -> Result<Child, String> {
    let text = serde_json::to_string(order).map_err(|e| e.to_string())?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("init").env_clear().env(ORDER, text).current_dir("/");
    if let Some(nonce) = std::env::var_os("AMBIENT_NONCE") {
        command.env("AMBIENT_NONCE", nonce);
    }
    command.stdin(life).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn().map_err(|e| format!("the first process of the namespaces: {e}"))
}

fn first_line(pipe: impl Read) -> String {
    let mut line = String::new();
    // What cannot be parsed is not a report.
    let _ = BufReader::new(pipe.take(MAX_REPORT)).read_line(&mut line);
    line
}
