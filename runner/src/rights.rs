//! What a process of the session may do, as told to its re-execution.

use std::path::{Path, PathBuf};

use ambient_runner_protocol::{Confinement, LaunchSpec, Limits, ProcessIdentity, SessionPaths};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// Largest address space for git that reads what an agent has made, bytes.
const TOOL_ADDRESS_SPACE: u64 = 4 << 30;

/// What a confined process may still do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rights {
    pub(crate) mode: Confinement,
    pub(crate) write: Vec<PathBuf>,
    pub(crate) read: Vec<PathBuf>,
    /// Directories that were checked beforehand. Nothing in them can be executed.
    #[serde(default)]
    pub(crate) pinned: Vec<Pinned>,
    pub(crate) limits: Limits,
    /// A network of its own, in which there is nothing but a loopback interface, in place of the machine's.
    #[serde(default)]
    pub(crate) own_network: bool,
    pub(crate) own_user: bool,
    /// User to become, if the runner's differs from its agent's.
    #[serde(default)]
    pub(crate) user: Option<u32>,
    /// What must not be visible even inside something readable.
    pub(crate) hidden: Vec<PathBuf>,
    /// Namespaces to run in; [`crate::process::confined`] chooses them.
    pub(crate) place: Place,
    /// Cgroups to enter.
    #[serde(default)]
    pub(crate) groups: Vec<PathBuf>,
}

/// A directory that was opened and checked. It is reopened by name, and must then still be the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pinned {
    pub(crate) path: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) write: bool,
}

impl Rights {
    /// The rights of a session's agent.
    pub(crate) fn of_agent(spec: &LaunchSpec) -> Self {
        let paths = SessionPaths { root: spec.session_dir.clone() };
        Self {
            hidden: vec![data_directory(&paths.root)],
            place: Place::Here,
            mode: spec.confinement,
            write: vec![paths.workspace(), paths.home(), paths.tmp()],
            // Its clones borrow objects from mirrors; its shell reads its scripts.
            read: spec.readable_paths.iter().cloned().chain([paths.mirrors(), paths.blocks()]).collect(),
            pinned: Vec::new(),
            limits: spec.limits.clone(),
            own_network: spec.network.is_restricted(),
            own_user: spec.own_user,
            user: spec.agent_user,
            groups: spec.agent_groups.clone(),
        }
    }

    /// The rights of one of the runner's own tools (git on a mirror and its origin): the pinned directories and the system's
    /// programs. Neither the workspace nor anything else of the session.
    pub(crate) fn of_tool(spec: &LaunchSpec, pinned: Vec<Pinned>) -> Self {
        Self {
            hidden: vec![data_directory(&spec.session_dir)],
            place: Place::Here,
            mode: spec.confinement,
            write: Vec::new(),
            read: spec.readable_paths.clone(),
            pinned,
            limits: spec.limits.clone(),
            // It fetches and pushes, where people said.
            own_network: false,
            own_user: spec.own_user,
            user: None,
            groups: spec.agent_groups.clone(),
        }
    }

    /// For a tool whose input an agent has made: limits its memory and the size of what it writes.
    pub(crate) fn bounded(mut self, file_size_bytes: u64) -> Self {
        let smaller = |limit: u64, most: u64| if limit == 0 { most } else { limit.min(most) };
        self.limits.address_space_bytes = smaller(self.limits.address_space_bytes, TOOL_ADDRESS_SPACE);
        self.limits.file_size_bytes = smaller(self.limits.file_size_bytes, file_size_bytes);
        self
    }

    /// The command belongs to another user from its exec on, which leaves it no capabilities.
    pub(crate) fn apply_user(&self, command: &mut Command) {
        if let Some(user) = self.user {
            command.gid(user).uid(user);
        }
    }
}

/// The server's directory, if compute has laid the session out in one; otherwise the session's own.
fn data_directory(session: &Path) -> PathBuf {
    let above: Vec<_> = session.ancestors().skip(1).take(4).collect();
    match above.as_slice() {
        [sessions, _, projects, data] if sessions.ends_with("sessions") && projects.ends_with("projects") => {
            (*data).to_owned()
        }
        _ => session.to_owned(),
    }
}

/// How a command comes to its namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// There are none: the kernel allows us none, or they are turned off.
    Here,
    /// Those of the agent.
    Agents(ProcessIdentity),
    /// Some for this command only.
    Own,
}
