//! Installing an agent: the package manager becomes a user of its own, if whoever installs is root, and may write one folder.

use std::{ffi::OsString, os::unix::process::CommandExt};

use ambient_runner_protocol::{InstallOrder, Limits};
use rustix::fs::{Gid, Uid};

use crate::{
    confine,
    rights::{Place, Rights},
};

/// Of the package manager's user: those that unpack run in threads.
const PROCESSES: u64 = 512;
const OPEN_FILES: u64 = 4096;
/// Largest file, bytes.
const FILE: u64 = 4 << 30;

/// Becomes the command; returns only on failure, with the reason. To be called with one thread.
pub(crate) fn become_installer(order: &str, command: &[OsString]) -> String {
    let InstallOrder { folder, readable, user, confinement } = match serde_json::from_str(order) {
        Ok(order) => order,
        Err(error) => return format!("cannot read the order: {error}"),
    };
    if let Some(user) = user
        && let Err(error) = become_user(user)
    {
        return format!("cannot become user {user}: {error}");
    }
    let limits = Limits { processes: PROCESSES, open_files: OPEN_FILES, file_size_bytes: FILE, ..Limits::default() };
    let rights = Rights {
        mode: confinement,
        write: vec![folder],
        read: readable,
        pinned: Vec::new(),
        limits,
        own_network: false,
        own_user: user.is_some(),
        user: None,
        hidden: Vec::new(),
        place: Place::Here,
        groups: Vec::new(),
    };
    match confine::give_up(&rights, command) {
        Ok(mut command) => {
            let error = command.exec();
            format!("cannot execute {}: {error}", command.get_program().display())
        }
        Err(reason) => reason,
    }
}

fn become_user(user: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}
