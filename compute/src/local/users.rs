//! User ids of sessions, if the server is root: one for the agent, another for its runner.
//!
//! Both are recorded as groups of folders that belong to root, where nobody else can change them: the agent's on the session's
//! folder, the runner's on `runs`. Whether the kernel lets a runner have two is determined once, when the server starts; if not,
//! and in sessions of earlier releases until their next launch, the runner has its agent's.

use std::{
    collections::HashSet,
    io::{ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use ambient_wire::runner::SessionPaths;

use super::{
    Local, fence, io_error,
    layout::{give, hand_to_group, stable_hash},
    owners::{hand_over, hand_over_content, make_roots},
    processes::live_uids,
};
use crate::{ComputeError, SessionRef};

/// How many user ids sessions may have. Agents have the lower half, runners the upper one.
pub const SESSION_UIDS: u32 = 25_000;
const AGENTS: u32 = SESSION_UIDS / 2;
/// How many agents had in earlier releases: such sessions keep theirs.
const EARLIER_UIDS: u32 = 50_000;
/// Not for sessions: the kernel shows one for what a user namespace does not map, and takes the other to mean "no change" in
/// 16 bits.
const NOBODY: [u32; 2] = [65_534, 65_535];
/// Timeout for a runner to say whether it can have two ids.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
const MAX_REASON: u64 = 4096;

/// Whether sessions may have the [`SESSION_UIDS`] user ids from `base` up.
///
/// # Errors
/// In words.
pub fn check_uid_base(base: u32) -> Result<(), String> {
    let range = base..=base.saturating_add(SESSION_UIDS - 1);
    let taken = NOBODY.iter().chain(&[0, u32::MAX]).find(|uid| range.contains(uid));
    taken.map_or(Ok(()), |uid| Err(format!("the {SESSION_UIDS} ids from {base} up must not contain {uid}")))
}

/// User ids of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Users {
    pub(super) agent: u32,
    /// Both the same if there is only one.
    pub(super) runner: u32,
}

impl Users {
    /// The agent's, if it is not the runner's.
    pub(super) fn agent_apart(&self) -> Option<u32> {
        (self.agent != self.runner).then_some(self.agent)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = u32> {
        [self.agent].into_iter().chain((self.agent != self.runner).then_some(self.runner))
    }
}

/// Where a server takes the ids from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    base: u32,
    /// Whether a runner may have a different id from its agent's.
    pairs: bool,
}

impl Ids {
    /// # Errors
    /// In words: ids that belong to someone else by definition.
    pub(super) fn new(base: u32) -> Result<Self, String> {
        check_uid_base(base).map(|()| Self { base, pairs: false })
    }

    /// Determines whether runners can have two.
    pub(super) fn probe(self, runner: &Path) -> Self {
        let pairs = probe_user_ids(runner, self.base);
        if let Err(reason) = &pairs {
            tracing::warn!(%reason, "runners share their agents' user ids");
        }
        Self { pairs: pairs.is_ok(), ..self }
    }

    fn is_agents(self, uid: u32) -> bool {
        (self.base..self.base.saturating_add(EARLIER_UIDS)).contains(&uid) && !NOBODY.contains(&uid)
    }

    fn is_runners(self, uid: u32) -> bool {
        (self.base + AGENTS..self.base + SESSION_UIDS).contains(&uid)
    }

    /// The other id of a pair; agents of earlier releases may have one without a partner.
    fn runner_of(self, agent: u32) -> Option<u32> {
        (self.base..self.base + AGENTS).contains(&agent).then_some(agent + AGENTS)
    }
}

/// Whether a runner can have two ids: it becomes one of them and prints its version.
///
/// # Errors
/// In words.
pub fn probe_user_ids(runner: &Path, base: u32) -> Result<(), String> {
    probe(runner, base + AGENTS, base)
}

fn probe(program: &Path, runner: u32, agent: u32) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(["become", "--runner-user"]).arg(runner.to_string()).arg("--agent-user").arg(agent.to_string());
    command.args(["--", "--version"]).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let told = |error: std::io::Error| format!("{}: {error}", program.display());
    let deadline = Instant::now() + PROBE_PATIENCE;
    let mut child = loop {
        match command.spawn() {
            // Just copied: a process forked meanwhile has it open for writing until it executes its own program.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            spawned => break spawned.map_err(told)?,
        }
    };
    let status = loop {
        match child.try_wait().map_err(told)? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{} did not tell within {} s", program.display(), PROBE_PATIENCE.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut reason = Vec::new();
    // It has ended, and says nothing more.
    let _ = child.stderr.take().map(|said| said.take(MAX_REASON).read_to_end(&mut reason));
    let reason = String::from_utf8_lossy(&reason);
    let reason = reason.lines().map(|line| line.trim().trim_start_matches("ambient-runner: "));
    let reason = reason.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    Err(if reason.is_empty() { format!("{}: {status}", program.display()) } else { reason })
}

impl Local {
    /// The session's user ids, if it has its own.
    pub(super) fn users(&self, paths: &SessionPaths) -> Result<Option<Users>, ComputeError> {
        let Some(ids) = self.ids else { return Ok(None) };
        let agent = group_of(&paths.root)?.filter(|gid| ids.is_agents(*gid));
        let runner = group_of(&paths.runs())?.filter(|gid| ids.is_runners(*gid));
        Ok(agent.map(|agent| Users { agent, runner: runner.unwrap_or(agent) }))
    }

    /// User ids that no other session of this data directory has, and no current process. If it already has some, it keeps them.
    pub(super) fn ensure_users(&self, paths: &SessionPaths) -> Result<Option<Users>, ComputeError> {
        let Some(ids) = self.ids else { return Ok(None) };
        let _one = self.lock_ids()?;
        if let Some(users) = self.users(paths)? {
            return Ok(Some(users));
        }
        let taken = self.taken(paths)?;
        // The path goes into the hash, because another installation on this machine may have the same base.
        let first = stable_hash(&paths.root.to_string_lossy()) % AGENTS;
        let mut all = (0..AGENTS).map(|i| ids.base + (first + i) % AGENTS);
        let agent = all.find(|agent| !taken.contains(agent) && !taken.contains(&(agent + AGENTS)));
        let agent = agent
            .ok_or_else(|| ComputeError::Invalid(format!("all {SESSION_UIDS} user ids for sessions are taken")))?;
        hand_to_group(&paths.root, Some(agent))?;
        Ok(Some(Users { agent, runner: agent }))
    }

    /// Before a runner is started, while nothing of the session is alive: the session gets a separate id for it if runners can have one and
    /// it has none yet, or returns it if they cannot; everything that is the runner's goes to its id.
    pub(super) fn settle_users(&self, session: &SessionRef, run: i64) -> Result<Option<Users>, ComputeError> {
        let paths = &self.paths(session);
        let (Some(ids), Some(known)) = (self.ids, self.users(paths)?) else { return Ok(None) };
        let runner = match ids.runner_of(known.agent).filter(|_| ids.pairs) {
            // Nobody takes it later: whoever is given an agent's id checks that its runner's is free.
            Some(other) if known.runner == other || !self.taken(paths)?.contains(&other) => other,
            _ => known.agent,
        };
        let io = |error| io_error(format!("owner of the runner's files in {}", paths.root.display()), error);
        for folder in [paths.mirrors(), paths.repos(), paths.blocks(), self.socket_dir(&session.session_id)] {
            hand_over(&folder, runner).map_err(io)?;
        }
        hand_over_content(&paths.run_dir(run), runner).map_err(io)?;
        for (path, mode) in [
            (paths.root.clone(), 0o750),
            (paths.fence(), 0o644),
            (paths.fence_lock(), 0o600),
            (paths.runs(), 0o750),
            (paths.run_dir(run), 0o1770),
        ] {
            make_roots(&path, mode).map_err(io)?;
        }
        give(&paths.life_lock(), Some(runner))?;
        // Last: from here on it is the runner's.
        hand_to_group(&paths.runs(), Some(runner))?;
        Ok(Some(Users { runner, ..known }))
    }

    fn lock_ids(&self) -> Result<std::fs::File, ComputeError> {
        fence::lock_file(&self.options.data_dir.join("uid.lock"))
    }

    /// Ids of the other sessions, and of processes.
    fn taken(&self, paths: &SessionPaths) -> Result<HashSet<u32>, ComputeError> {
        let mut taken = live_uids()?;
        for other in self.all_sessions()? {
            let other = self.paths(&other);
            if other != *paths {
                taken.extend(self.users(&other)?.iter().flat_map(Users::all));
            }
        }
        Ok(taken)
    }
}

fn group_of(path: &Path) -> Result<Option<u32>, ComputeError> {
    match path.symlink_metadata() {
        Ok(about) => Ok(Some(about.gid())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(format!("group of {}", path.display()), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::{AGENTS, Ids, SESSION_UIDS, check_uid_base};

    #[test]
    fn the_ids_of_sessions_are_nobody_elses_by_definition() {
        for base in [1_000, 40_000, 65_534 - SESSION_UIDS, 65_536, 1_900_000_000] {
            assert_eq!(check_uid_base(base), Ok(()), "{base}");
        }
        for (base, uid) in [(0, 0), (65_534 - SESSION_UIDS + 1, 65_534), (65_535, 65_535), (u32::MAX - 1, u32::MAX)] {
            assert!(check_uid_base(base).unwrap_err().ends_with(&format!(" {uid}")), "{base}");
        }
    }

    #[test]
    fn a_runners_id_is_never_an_agents() {
        let ids = Ids::new(40_000).unwrap();
        for agent in [40_000, 40_000 + AGENTS - 1] {
            let runner = ids.runner_of(agent).unwrap();
            assert!(ids.is_runners(runner) && !ids.is_runners(agent) && ids.runner_of(runner).is_none());
        }
        // An agent of an earlier release has an id of the upper half, or beyond.
        for agent in [40_000 + AGENTS, 40_000 + SESSION_UIDS, 89_999] {
            assert!(ids.is_agents(agent) && ids.runner_of(agent).is_none());
        }
        assert!(!ids.is_agents(65_534) && !ids.is_agents(90_000));
    }
}
