//! Giving up rights: no-new-privileges, resource limits, capabilities, Landlock and seccomp, then `exec`.
//!
//! The user's environment is passed as `AMBIENT_ENV_*`, so that it takes effect only for the confined command and
//! not (think of `LD_PRELOAD`) for the re-execution that is still unconfined.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use ambient_runner_protocol::Confinement;
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    process::{Resource, Rlimit},
    thread::{CapabilitySet, CapabilitySets},
};

use crate::{
    capabilities, file_access, file_change, group,
    lfs::program,
    rights::{Pinned, Place, Rights},
    seccomp, survey,
};

/// As shells use it: found but not executable.
pub(crate) const EXIT_CANNOT_EXECUTE: i32 = 126;
/// Prefix of environment variables meant for the confined command.
pub(crate) const ENV_PREFIX: &str = "AMBIENT_ENV_";
/// Where a stage on the way to a command finds its orders; nothing of the command's.
pub(crate) const ORDER: &str = "AMBIENT_ORDER";

/// Newest access rights we request; what an older kernel lacks is reported.
const FILES: ABI = ABI::V5;
/// Oldest that counts as confinement: with older ones, files outside could be truncated.
const FILES_REQUIRED: ABI = ABI::V3;
pub(crate) const SYSTEM: [&str; 11] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/etc", "/proc", "/sys"];
/// Private to the agent, so writable, once it has a mount namespace.
const MEMORY: [&str; 2] = ["/tmp", "/dev/shm"];
pub(crate) const DEVICES: [&str; 8] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts"];

/// Gives up rights and becomes `command`; returns only on failure, with the reason.
pub(crate) fn become_command(rights: &str, command: &[OsString]) -> String {
    let rights: Rights = match serde_json::from_str(rights) {
        Ok(rights) => rights,
        Err(error) => return format!("cannot read the rights: {error}"),
    };
    // First: what follows runs, and what is started lives, within the limits.
    if let Err(reason) = group::enter(&rights.groups) {
        return reason;
    }
    match give_up(&rights, command) {
        Ok(mut command) => {
            match own_program(&command) {
                Some(Ok(())) => std::process::exit(0),
                Some(Err(reason)) => return reason,
                None => {}
            }
            let error = command.exec();
            format!("cannot execute {}: {error}", command.get_program().display())
        }
        Err(reason) => reason,
    }
}

/// What this program does itself in place of a command; nothing if it is a command.
pub(crate) fn own_program(command: &Command) -> Option<Result<(), String>> {
    let program = command.get_program();
    if program == survey::PROGRAM {
        return Some(survey::print().map_err(|e| format!("cannot tell what there is: {e}")));
    }
    let arguments = || command.get_args().map(OsStr::to_owned).collect::<Vec<_>>();
    if program == file_access::PROGRAM {
        return Some(file_access::run(&arguments()));
    }
    if program == file_change::PROGRAM {
        return Some(file_change::run());
    }
    (program == program::PROGRAM).then(|| program::run(&arguments()))
}

/// Gives up everything but the rights; returns the command, with the environment meant for it.
///
/// # Errors
/// In words; too much may then have been given up, and nothing must be run.
pub(crate) fn give_up(rights: &Rights, command: &[OsString]) -> Result<Command, String> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    limit(rights).map_err(|e| format!("cannot set the resource limits: {e}"))?;
    drop_capabilities().map_err(|e| format!("cannot drop capabilities: {e}"))?;
    restrict(rights)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut command = Command::new(program);
    command.args(arguments).env_remove(ORDER);
    for (name, value) in std::env::vars_os() {
        if let Some(own) = name.as_bytes().strip_prefix(ENV_PREFIX.as_bytes()) {
            command.env_remove(&name).env(OsStr::from_bytes(own), value);
        }
    }
    Ok(command)
}

/// Parts of the confinement that this kernel lacks, found by confining one of our own threads.
///
/// # Errors
/// When the confinement is required but not available.
pub(crate) fn probe(rights: &Rights) -> Result<Vec<String>, String> {
    let probed = rights.clone();
    let mut missing = std::thread::spawn(move || restrict(&probed))
        .join()
        .map_err(|_| "the confinement cannot be probed".to_owned())??;
    if !rights.own_user {
        let limit = if rights.place == Place::Here { ", so the limit on processes is not applied" } else { "" };
        missing.push(format!("own user id: the session shares the server's{limit}"));
    } else if rights.user.is_none() {
        missing.push("own user id: the agent shares its runner's".to_owned());
    }
    Ok(missing)
}

/// Restricts the calling thread, and with it what it executes.
fn restrict(rights: &Rights) -> Result<Vec<String>, String> {
    rustix::thread::set_no_new_privs(true).map_err(|e| format!("cannot set no-new-privileges: {e}"))?;
    let pinned = rights.pinned.iter().map(open_pinned).collect::<Result<Vec<_>, _>>()?;
    if rights.mode == Confinement::Off {
        return Ok(vec!["file system confinement: it is switched off".to_owned()]);
    }
    let mut ruleset = ruleset(rights).map_err(cannot_confine)?;
    let memory = MEMORY.map(PathBuf::from);
    let memory = if rights.place == Place::Here { &[][..] } else { &memory };
    for path in rights.write.iter().chain(memory) {
        let handle = PathFd::new(path).map_err(cannot_confine)?;
        ruleset = ruleset.add_rule(PathBeneath::new(handle, AccessFs::from_all(FILES))).map_err(cannot_confine)?;
    }
    for (pin, handle) in rights.pinned.iter().zip(pinned) {
        let access = if pin.write { AccessFs::from_all(FILES) } else { AccessFs::from_read(FILES) };
        ruleset = ruleset.add_rule(PathBeneath::new(handle, access & !AccessFs::Execute)).map_err(cannot_confine)?;
    }
    if rights.place != Place::Here {
        // Names in the private root are no secret.
        ruleset = ruleset.add_rules(path_beneath_rules(["/"], AccessFs::ReadDir)).map_err(cannot_confine)?;
    }
    let mut missing = lacking(ruleset.restrict_self().map_err(cannot_confine)?.landlock);
    // Last: it refuses some of what the others need.
    match seccomp::refuse() {
        Err(reason) if rights.mode == Confinement::Require => return Err(reason),
        // Sockets to a virtual machine's host belong to no network namespace.
        Err(reason) if rights.own_network => return Err(format!("the network cannot be restricted: {reason}")),
        Err(reason) => missing.push(format!("a filter of system calls (seccomp): {reason}")),
        Ok(()) => {}
    }
    Ok(missing)
}

fn open_pinned(pin: &Pinned) -> Result<OwnedFd, String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = pin.path.display();
    let open = || {
        let handle = rustix::fs::open(&pin.path, flags, Mode::empty())?;
        let about = rustix::fs::fstat(&handle)?;
        Ok::<_, Errno>((handle, about.st_dev == pin.device && about.st_ino == pin.inode))
    };
    match open() {
        Ok((handle, true)) => Ok(handle),
        Ok((_, false)) => Err(format!("{path} is another directory than the one that was checked")),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

fn cannot_confine(error: impl std::fmt::Display) -> String {
    format!("the agent cannot be confined with Landlock: {error}")
}

fn ruleset(rights: &Rights) -> Result<RulesetCreated, RulesetError> {
    let level =
        if rights.mode == Confinement::Require { CompatLevel::HardRequirement } else { CompatLevel::BestEffort };
    Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_all(FILES_REQUIRED))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(FILES))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, AccessFs::from_read(FILES)))?
        .add_rules(path_beneath_rules(resolver(), AccessFs::from_read(FILES)))?
        .add_rules(path_beneath_rules(&rights.read, AccessFs::from_read(FILES)))?
        .add_rules(path_beneath_rules(DEVICES, AccessFs::from_file(FILES) | AccessFs::ReadDir))
}

/// `/etc/resolv.conf` is often a link into `/run`.
pub(crate) fn resolver() -> Option<PathBuf> {
    std::fs::canonicalize(Path::new("/etc/resolv.conf")).ok()
}

fn lacking(status: LandlockStatus) -> Vec<String> {
    let abi: ABI = status.into();
    [
        (ABI::V1, "file system confinement (Landlock)"),
        (ABI::V3, "confinement of truncation (Landlock 3)"),
        (ABI::V5, "confinement of device control (Landlock 5)"),
        (ABI::V6, "confinement of signals and abstract sockets (Landlock 6)"),
    ]
    .into_iter()
    .filter(|(needed, _)| abi < *needed)
    .map(|(_, what)| what.to_owned())
    .collect()
}

/// A process that is root, or has entered a user namespace, is so in name only from here on.
pub(crate) fn drop_capabilities() -> std::io::Result<()> {
    match capabilities::bound(CapabilitySet::empty()) {
        // There is nothing left to drop.
        Ok(()) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    capabilities::keep_to_ourselves()?;
    let none = CapabilitySet::empty();
    Ok(rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

fn limit(rights: &Rights) -> std::io::Result<()> {
    lower(Resource::Core, 0)?;
    lower(Resource::Nofile, rights.limits.open_files)?;
    // In a user namespace the kernel counts only that namespace's processes.
    if rights.own_user || rights.place != Place::Here {
        lower(Resource::Nproc, rights.limits.processes)?;
    }
    if rights.limits.address_space_bytes > 0 {
        lower(Resource::As, rights.limits.address_space_bytes)?;
    }
    if rights.limits.data_bytes > 0 {
        lower(Resource::Data, rights.limits.data_bytes)?;
    }
    if rights.limits.file_size_bytes > 0 {
        lower(Resource::Fsize, rights.limits.file_size_bytes)?;
    }
    Ok(())
}

fn lower(resource: Resource, wanted: u64) -> std::io::Result<()> {
    let most = rustix::process::getrlimit(resource).maximum.map_or(wanted, |most| most.min(wanted));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::{Pinned, open_pinned};

    #[test]
    fn a_directory_that_was_exchanged_after_its_check_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("origin");
        std::fs::create_dir(&path).unwrap();
        let about = path.metadata().unwrap();
        let pin = Pinned { path: path.clone(), device: about.dev(), inode: about.ino(), write: true };
        assert!(open_pinned(&pin).is_ok());
        std::fs::rename(&path, directory.path().join("aside")).unwrap();
        assert!(open_pinned(&pin).is_err());
        std::fs::create_dir(&path).unwrap();
        assert!(open_pinned(&pin).unwrap_err().contains("another directory"));
        std::fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/", &path).unwrap();
        assert!(open_pinned(&pin).is_err());
    }
}
