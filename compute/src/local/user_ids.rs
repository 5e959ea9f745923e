//! User ids for sessions, if the server is root: one for the agent, another for its runner.
//!
//! Whether the kernel lets a runner have two is determined once, when the server starts; if not, the runner has its agent's.

use std::{
    io::{ErrorKind, Read},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How many user ids sessions may have. Agents have the lower half, runners the upper one.
pub const SESSION_UIDS: u32 = 25_000;
pub(super) const AGENTS: u32 = SESSION_UIDS / 2;
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
    pub(super) base: u32,
    /// Whether a runner may have a different id from its agent's.
    pub(super) pairs: bool,
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

    pub(super) fn is_agents(self, uid: u32) -> bool {
        (self.base..self.base.saturating_add(EARLIER_UIDS)).contains(&uid) && !NOBODY.contains(&uid)
    }

    pub(super) fn is_runners(self, uid: u32) -> bool {
        (self.base + AGENTS..self.base + SESSION_UIDS).contains(&uid)
    }

    /// The other id of a pair; agents of earlier releases may have one without a partner.
    pub(super) fn runner_of(self, agent: u32) -> Option<u32> {
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
