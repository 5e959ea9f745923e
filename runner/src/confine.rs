//! Giving up rights: no-new-privileges, resource limits, capabilities and Landlock, then `exec`.
//!
//! The environment of the person's choice comes as `AMBIENT_ENV_*`, so that it takes effect for the confined command only
//! and not (think of `LD_PRELOAD`) for the re-execution that is still free.

use std::{
    ffi::{OsStr, OsString},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use ambient_wire::runner::{Confinement, LaunchSpec, Limits, SessionPaths};
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use rustix::{
    io::Errno,
    process::{Resource, Rlimit},
    thread::{CapabilitySet, CapabilitySets},
};
use serde::{Deserialize, Serialize};

use crate::group;

/// As shells use it: found but not executable.
pub(crate) const EXIT_CANNOT_EXECUTE: i32 = 126;
/// Prefix of environment meant for the confined command.
pub(crate) const ENV_PREFIX: &str = "AMBIENT_ENV_";

/// Newest access rights we ask for; what an older kernel lacks is reported.
const FILES: ABI = ABI::V5;
/// Oldest that counts as confinement: before it, files outside could be truncated.
const FILES_REQUIRED: ABI = ABI::V3;
const SYSTEM: [&str; 11] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/etc", "/proc", "/sys"];
const DEVICES: [&str; 8] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts"];

/// What a confined process may still do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rights {
    pub(crate) mode: Confinement,
    pub(crate) write: Vec<PathBuf>,
    pub(crate) read: Vec<PathBuf>,
    pub(crate) limits: Limits,
    pub(crate) own_user: bool,
    /// Control groups to enter.
    #[serde(default)]
    pub(crate) groups: Vec<PathBuf>,
}

impl Rights {
    /// The rights of a session's agent.
    pub(crate) fn of_agent(spec: &LaunchSpec) -> Self {
        let paths = SessionPaths { root: spec.session_dir.clone() };
        Self {
            mode: spec.confinement,
            write: vec![paths.workspace(), paths.home(), paths.tmp()],
            read: spec.readable_paths.clone(),
            limits: spec.limits.clone(),
            own_user: spec.own_user,
            groups: spec.agent_groups.clone(),
        }
    }
}

/// Gives up rights and becomes `command`; returns only on failure, with the reason.
pub(crate) fn become_command(rights: &str, command: &[OsString]) -> String {
    let rights: Rights = match serde_json::from_str(rights) {
        Ok(rights) => rights,
        Err(error) => return format!("cannot read the rights: {error}"),
    };
    let Some((program, arguments)) = command.split_first() else { return "no command".to_owned() };
    // First: what follows is done, and what is started lives, within the limits.
    if let Err(reason) = group::enter(&rights.groups) {
        return reason;
    }
    if let Err(reason) = limit(&rights) {
        return format!("cannot set the resource limits: {reason}");
    }
    if let Err(reason) = restrict(&rights) {
        return reason;
    }
    if let Err(error) = drop_capabilities() {
        return format!("cannot drop capabilities: {error}");
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, value) in std::env::vars_os() {
        if let Some(own) = name.as_bytes().strip_prefix(ENV_PREFIX.as_bytes()) {
            command.env_remove(&name).env(OsStr::from_bytes(own), value);
        }
    }
    format!("cannot execute {}: {}", program.display(), command.exec())
}

/// What of the confinement this kernel lacks, found by confining a thread of our own.
///
/// # Errors
/// When the confinement is required and not to be had.
pub(crate) fn probe(rights: &Rights) -> Result<Vec<String>, String> {
    let probed = rights.clone();
    let mut missing = std::thread::spawn(move || restrict(&probed))
        .join()
        .map_err(|_| "the confinement cannot be probed".to_owned())??;
    if !rights.own_user {
        missing
            .push("own user id: the session shares the server's, so the limit on processes is not applied".to_owned());
    }
    Ok(missing)
}

/// Restricts the calling thread, and with it what it executes.
fn restrict(rights: &Rights) -> Result<Vec<String>, String> {
    rustix::thread::set_no_new_privs(true).map_err(|e| format!("cannot set no-new-privileges: {e}"))?;
    if rights.mode == Confinement::Off {
        return Ok(vec!["file system confinement: it is switched off".to_owned()]);
    }
    let mut ruleset = ruleset(rights).map_err(cannot_confine)?;
    for path in &rights.write {
        let handle = PathFd::new(path).map_err(cannot_confine)?;
        ruleset = ruleset.add_rule(PathBeneath::new(handle, AccessFs::from_all(FILES))).map_err(cannot_confine)?;
    }
    Ok(lacking(ruleset.restrict_self().map_err(cannot_confine)?.landlock))
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
fn resolver() -> Option<PathBuf> {
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

/// A session without a user id of its own under a root server is root, but only by name.
fn drop_capabilities() -> std::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Not known to this kernel; or nothing is left to drop.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let none = CapabilitySet::empty();
    Ok(rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

fn limit(rights: &Rights) -> std::io::Result<()> {
    lower(Resource::Core, 0)?;
    lower(Resource::Nofile, rights.limits.open_files)?;
    if rights.own_user {
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
