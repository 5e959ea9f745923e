//! What git is told through its environment: the strongest configuration there is, overriding any repository's.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{
    attempt::Attempt,
    environment::{self, DEFAULT_PATH},
    life,
};

/// Nothing runs by itself, whatever a repository says.
const QUIET: [(&str, &str); 5] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("submodule.recurse", "false"),
];
/// For git in the workspace.
const AGENTS: [(&str, &str); 18] = [
    // What a repository could set to make things look unchanged: links, modes, line ends, whatever a stat shows or hides.
    ("core.bare", "false"),
    ("core.fileMode", "true"),
    ("core.symlinks", "true"),
    ("core.ignoreCase", "false"),
    ("core.autocrlf", "false"),
    ("core.checkStat", "default"),
    ("core.trustCtime", "true"),
    ("core.untrackedCache", "false"),
    // Otherwise files in the agent's home.
    ("core.excludesFile", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    ("core.pager", "cat"),
    ("core.quotePath", "false"),
    ("commit.gpgSign", "false"),
    ("tag.gpgSign", "false"),
    ("push.gpgSign", "false"),
    ("push.recurseSubmodules", "no"),
    ("diff.suppressBlankEmpty", "false"),
    ("credential.helper", ""),
];
/// For the runner's own git. Pack windows are small, so that a memory limit does not stop large repositories.
const TOOL: [(&str, &str); 9] = [
    ("core.packedGitWindowSize", "32m"),
    ("core.packedGitLimit", "512m"),
    ("core.bigFileThreshold", "64m"),
    ("pack.threads", "2"),
    ("pack.windowMemory", "256m"),
    ("http.followRedirects", "initial"),
    ("http.lowSpeedLimit", "100"),
    ("http.lowSpeedTime", "60"),
    ("credential.helper", ""),
];
/// For the other side of a `file://` origin, which reads the origin's configuration: anything there that could run a program is
/// overridden. (Landlock does not let it execute anything of the origin's either.)
const ORIGIN: [(&str, &str); 7] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.alternateRefsCommand", "true"),
    ("receive.autoGc", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("receive.denyCurrentBranch", "refuse"),
];
/// The part of the session's environment that `https://` needs to get out.
const NETWORK: [&str; 9] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
];
/// No prompts, no fetching behind our back, and objects are what their names say.
const ALWAYS: [(&str, &str); 10] = [
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "/bin/false"),
    ("SSH_ASKPASS", "/bin/false"),
    ("GIT_SSH_COMMAND", "/bin/false"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_EDITOR", ":"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_GRAFT_FILE", "/nonexistent"),
    ("LC_ALL", "C.UTF-8"),
];

/// Name of [`configuration`].
pub(super) const CONFIGURATION: &str = "gitconfig";

type Environment = Vec<(OsString, OsString)>;

/// For git in the workspace: no protocol at all, so that nothing is fetched along the way.
pub(super) fn of_agents(attempt: &Attempt) -> Environment {
    let mut environment = environment::of_platform(attempt);
    put(&mut environment, &ALWAYS);
    environment.push(("GIT_ALLOW_PROTOCOL".into(), "none".into()));
    environment.push(("GIT_CONFIG_GLOBAL".into(), configuration(attempt).into()));
    environment.push(("GIT_CEILING_DIRECTORIES".into(), attempt.paths.workspace().into()));
    configure(&mut environment, &AGENTS);
    environment
}

/// For git on a mirror: nothing from the agent's homes and folders, and of the session's variables only those for the way out.
pub(super) fn of_tool(attempt: &Attempt, repository: &Path) -> Environment {
    let mut environment = of_stored(repository);
    environment.push(("AMBIENT_NONCE".into(), attempt.spec.nonce.clone().into()));
    environment.push(("GIT_CONFIG_GLOBAL".into(), configuration(attempt).into()));
    let network = attempt.environment.iter().filter(|(name, _)| NETWORK.contains(&name.as_str()));
    environment.extend(network.map(|(name, value)| (name.into(), value.into())));
    environment
}

/// For git on stored packs: nothing from outside the repository.
pub(super) fn of_stored(repository: &Path) -> Environment {
    let mut environment: Environment = Vec::new();
    put(&mut environment, &ALWAYS);
    put(&mut environment, &[("PATH", DEFAULT_PATH), ("LANG", "C.UTF-8"), ("GIT_CONFIG_NOSYSTEM", "1")]);
    put(&mut environment, &[("HOME", "/nonexistent"), ("XDG_CONFIG_HOME", "/nonexistent")]);
    put(&mut environment, &[("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_ALLOW_PROTOCOL", "none")]);
    environment.push(("GIT_DIR".into(), repository.into()));
    environment.push(("TMPDIR".into(), repository.into()));
    configure(&mut environment, &TOOL);
    environment
}

/// The other side of a `file://` origin, as `--upload-pack` and `--receive-pack` take it: git clears most of its environment for
/// that process.
pub(super) fn other_side(program: &str) -> String {
    let settings: String = ORIGIN.iter().map(|(key, value)| format!(" -c {key}='{value}'")).collect();
    format!(
        "GIT_NO_LAZY_FETCH=1 GIT_ALLOW_PROTOCOL=none GIT_GRAFT_FILE=/nonexistent git --no-replace-objects{settings} {program}"
    )
}

/// Our own configuration file, for what some versions of git take from nowhere else: other users' repositories are trusted,
/// because every git here may touch only what it was given.
pub(super) fn configuration(attempt: &Attempt) -> PathBuf {
    attempt.paths.mirrors().join(CONFIGURATION)
}

/// Writes [`configuration`].
///
/// # Errors
/// A system error.
pub(super) fn write_configuration(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let temporary = file.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = life::create_new(&temporary)?;
    std::io::Write::write_all(&mut new, b"[safe]\n\tdirectory = *\n")?;
    new.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    std::fs::rename(&temporary, file)
}

fn put(environment: &mut Environment, pairs: &[(&str, &str)]) {
    environment.extend(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())));
}

/// Adds a setting to the existing ones.
pub(super) fn set(environment: &mut Environment, key: &str, value: &str) {
    let is_count = |(name, _): &&mut (OsString, OsString)| name == "GIT_CONFIG_COUNT";
    let Some((_, count)) = environment.iter_mut().find(is_count) else { return };
    let i: usize = count.to_str().and_then(|count| count.parse().ok()).unwrap_or_default();
    *count = (i + 1).to_string().into();
    environment.push((format!("GIT_CONFIG_KEY_{i}").into(), key.into()));
    environment.push((format!("GIT_CONFIG_VALUE_{i}").into(), value.into()));
}

fn configure(environment: &mut Environment, own: &[(&str, &str)]) {
    let settings = QUIET.iter().chain(own);
    environment.push(("GIT_CONFIG_COUNT".into(), settings.clone().count().to_string().into()));
    for (i, (key, value)) in settings.enumerate() {
        environment.push((format!("GIT_CONFIG_KEY_{i}").into(), (*key).into()));
        environment.push((format!("GIT_CONFIG_VALUE_{i}").into(), (*value).into()));
    }
}
