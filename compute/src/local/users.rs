//! Which session has which user ids.
//!
//! Both are recorded as groups of folders that belong to root, where nobody else can change them: the agent's on the session's
//! folder, the runner's on `runs`. Sessions of earlier releases have one for both until their next launch.

use std::{collections::HashSet, io::ErrorKind, os::unix::fs::MetadataExt, path::Path};

use ambient_runner_protocol::SessionPaths;

use super::{
    error::io_error,
    fence,
    host::Local,
    layout::{give, hand_to_group, stable_hash},
    owners::{hand_over, hand_over_content, make_roots},
    processes::live_uids,
    user_ids::{AGENTS, SESSION_UIDS, Users},
};
use crate::{ComputeError, SessionRef};

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
        for folder in
            [paths.mirrors(), paths.repos(), paths.packs(), paths.blocks(), self.socket_dir(&session.session_id)]
        {
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
