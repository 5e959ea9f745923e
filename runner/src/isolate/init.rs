//! The first process of the agent's PID namespace: builds the root, then reaps, passes SIGTERM on, and ends when its pipe does.
//!
//! It has no descriptors except its pipe and the one for signals, no rights, and no memory that the agent may inspect. What the
//! agent can send it (SIGTERM, SIGUSR1) affects only the agent's own processes; the kernel keeps SIGKILL from it.

use std::{io::Write, os::fd::AsFd};

use nix::sys::{
    signal::{SigSet, Signal as NixSignal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{DumpableBehavior, Signal, WaitOptions},
};

use super::{Report, order, root};
use crate::confine;

/// Runs until the pipe on standard input closes; returns the exit code.
pub(crate) fn run() -> i32 {
    let prepared = prepare();
    let (signals, report) = match prepared {
        Ok((signals, missing)) => {
            // -1: the stage reports the one that is valid outside.
            (Some(signals), Report::Made { pid: super::own_pid(), missing })
        }
        Err(reason) => (None, Report::Failed(reason)),
    };
    let mut text = serde_json::to_string(&report).unwrap_or_default();
    text.push('\n');
    let told = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
    match signals {
        Some(signals) if told.is_ok() && close_output().is_ok() => serve(&signals),
        _ => 1,
    }
}

fn prepare() -> Result<(SignalFd, Vec<String>), String> {
    let words = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut mask = SigSet::empty();
    for signal in [NixSignal::SIGTERM, NixSignal::SIGUSR1, NixSignal::SIGCHLD] {
        mask.add(signal);
    }
    mask.thread_block().map_err(|e| words("signals of init")(e.into()))?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&mask, flags).map_err(|e| words("signals of init")(e.into()))?;
    let missing = root::build(&order()?.rights)?;
    confine::drop_capabilities().map_err(words("capabilities of init"))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| words("rights of init")(e.into()))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| words("memory of init")(e.into()))?;
    Ok((signals, missing))
}

/// Whoever reads our output has what it needs.
fn close_output() -> std::io::Result<()> {
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

fn serve(signals: &SignalFd) -> i32 {
    let stdin = std::io::stdin();
    loop {
        let mut ready = [PollFd::new(signals, PollFlags::IN), PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return 1,
        }
        if !ready[1].revents().is_empty() {
            // Nobody writes to it: the runner has ended, and so do we.
            return 0;
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            match i32::try_from(signal.ssi_signo) {
                Ok(number) if number == NixSignal::SIGTERM as i32 => everyone(Signal::TERM),
                Ok(number) if number == NixSignal::SIGUSR1 as i32 => everyone(Signal::KILL),
                _ => {}
            }
        }
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
}

/// Everything in the namespace but ourselves, in one call: nobody can fork past it.
fn everyone(signal: Signal) {
    let number = match signal {
        Signal::TERM => NixSignal::SIGTERM,
        _ => NixSignal::SIGKILL,
    };
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), number);
}
