//! The stage that brings a command into namespaces and waits for it outside.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal},
    thread::ThreadNameSpaceType,
};

use super::{Order, open, order};
use crate::{
    confine::{self, EXIT_CANNOT_EXECUTE},
    group,
    rights::Place,
};

/// Joins the agent's namespaces and runs the command there; returns its exit code.
pub(crate) fn enter(command: &[OsString]) -> i32 {
    let ended = order().and_then(|order| {
        // Before the private root hides them.
        group::enter(&order.rights.groups)?;
        join(&order)?;
        run(&order, command)
    });
    code(ended)
}

fn join(order: &Order) -> Result<(), String> {
    let Place::Agents(init) = &order.rights.place else { return Err("no namespaces to enter".to_owned()) };
    let init = open(init).ok_or("the agent's namespaces have ended")?;
    let mut all = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::PROCESS_ID;
    if order.rights.own_network {
        all |= ThreadNameSpaceType::NETWORK;
    }
    use std::os::fd::AsFd;
    rustix::thread::move_into_thread_name_spaces(init.as_fd(), all)
        .map_err(|e| format!("cannot enter the agent's namespaces: {e}"))
}

/// Gives up everything but the rights, runs the command, and waits for it: inside its namespaces it sees nothing of us.
pub(super) fn run(order: &Order, command: &[OsString]) -> Result<ExitStatus, String> {
    let runner = watch_runner(order.runner)?;
    std::env::set_current_dir(&order.directory).map_err(|e| format!("{}: {e}", order.directory.display()))?;
    let mut command = confine::give_up(&order.rights, command)?;
    if let Some(done) = confine::own_program(&command) {
        return done.map(|()| ExitStatus::default());
    }
    let program = command.get_program().to_owned();
    let child = command.spawn().map_err(|e| format!("cannot execute {}: {e}", program.display()))?;
    // Only the command gets standard input.
    let _ = std::fs::File::open("/dev/null").map(|null| rustix::stdio::dup2_stdin(&null));
    wait(child, &runner)
}

/// A handle of the runner, which started us.
fn watch_runner(runner: i32) -> Result<std::os::fd::OwnedFd, String> {
    let handle = Pid::from_raw(runner).map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
    let is_parent = rustix::process::getppid().map(Pid::as_raw_nonzero).is_some_and(|pid| pid.get() == runner);
    match handle {
        Some(Ok(handle)) if is_parent => Ok(handle),
        _ => Err("the runner has ended".to_owned()),
    }
}

/// Waits for the command, or for the end of the runner, which also ends the command.
fn wait(mut child: Child, runner: &std::os::fd::OwnedFd) -> Result<ExitStatus, String> {
    let handle = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let handle = handle.map_err(|e| format!("cannot watch the command: {e}"))?;
    loop {
        let mut ready = [PollFd::new(&handle, PollFlags::IN), PollFd::new(runner, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(format!("cannot wait for the command: {error}")),
        }
        if !ready[1].revents().is_empty() {
            let _ = child.kill();
        }
        if !ready[0].revents().is_empty() || !ready[1].revents().is_empty() {
            return child.wait().map_err(|e| format!("cannot wait for the command: {e}"));
        }
    }
}

/// Our exit status: the command's own code, or its signal.
pub(super) fn code(ended: Result<ExitStatus, String>) -> i32 {
    match ended {
        Ok(status) => status.code().unwrap_or_else(|| die_of(status.signal())),
        Err(reason) => {
            eprintln!("ambient-runner: {reason}");
            EXIT_CANNOT_EXECUTE
        }
    }
}

/// Ends us with the signal that ended the command. Returns if that does not work.
fn die_of(number: Option<i32>) -> i32 {
    let number = number.unwrap_or_default();
    if let Some(signal) = Signal::from_named_raw(number) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
    128 + number
}
