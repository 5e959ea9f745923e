//! Where a session's files are.

use std::path::PathBuf;

/// Files in a session's directory. The agent may write only to `workspace`, `home` and `tmp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPaths {
    /// The session's directory.
    pub root: PathBuf,
}

impl SessionPaths {
    /// Repositories and files of the session; kept on stop.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }
    /// `HOME` of the agent.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }
    /// `TMPDIR` of the agent; emptied at launch.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
    /// JSON [`Fence`], changed under an exclusive flock of `fence.lock` and replaced atomically; a runner reads it without the lock.
    #[must_use]
    pub fn fence(&self) -> PathBuf {
        self.root.join("fence.json")
    }
    /// Lock file of the fence; a launch holds it from the check of the fence until the runner is spawned.
    #[must_use]
    pub fn fence_lock(&self) -> PathBuf {
        self.root.join("fence.lock")
    }
    /// Held exclusively (flock) by the one runner that may use the workspace: proves that it is alive.
    #[must_use]
    pub fn life_lock(&self) -> PathBuf {
        self.root.join("life.lock")
    }
    /// Records of the runs; closed to the agent.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }
    /// Directory of one run.
    #[must_use]
    pub fn run_dir(&self, run: i64) -> PathBuf {
        self.runs().join(run.to_string())
    }
    /// [`LaunchSpec`] of an attempt, written (fsynced) before anything is spawned: the intent.
    #[must_use]
    pub fn launch(&self, run: i64, attempt: i32) -> PathBuf {
        self.run_dir(run).join(format!("launch.{attempt}.json"))
    }
    /// [`Started`], written by the runner itself.
    #[must_use]
    pub fn started(&self, run: i64, attempt: i32) -> PathBuf {
        self.run_dir(run).join(format!("started.{attempt}.json"))
    }
    /// [`Exited`], fsynced by the runner before it exits.
    #[must_use]
    pub fn exited(&self, run: i64, attempt: i32) -> PathBuf {
        self.run_dir(run).join(format!("exited.{attempt}.json"))
    }
    /// The run's event log: one JSON [`Record`] per line.
    #[must_use]
    pub fn event_log(&self, run: i64) -> PathBuf {
        self.run_dir(run).join("events.ndjson")
    }
    /// The end of what was said in a run whose log and workspace were removed: some of the log's lines.
    #[must_use]
    pub fn said(&self, run: i64) -> PathBuf {
        self.run_dir(run).join("said.ndjson")
    }
    /// Texts of the messages the runner accepted, one JSON [`DeliverMessage`] per line; the event log says which count.
    #[must_use]
    pub fn messages(&self, run: i64) -> PathBuf {
        self.run_dir(run).join("messages.ndjson")
    }
    /// Written before compute ends a runner on purpose: a SIGTERM without it (and without the fence) is a loss, not an end.
    #[must_use]
    pub fn stop_request(&self, run: i64) -> PathBuf {
        self.run_dir(run).join("stop")
    }
    /// What is known about each cloned repository, out of the agent's reach: `repos/{name}.json`.
    #[must_use]
    pub fn repos(&self) -> PathBuf {
        self.root.join("repos")
    }
    /// The runner's own bare repositories, `mirrors/{name}.git`: fetched from an origin, and pushed from. The agent can read them,
    /// because its clones borrow their objects, and never writes.
    #[must_use]
    pub fn mirrors(&self) -> PathBuf {
        self.root.join("mirrors")
    }
    /// The runner's checked copies of snapshots, bare repositories `packs/{name}.git`; closed to the agent.
    #[must_use]
    pub fn packs(&self) -> PathBuf {
        self.root.join("packs")
    }
    /// Packs that wait for a server to store them.
    #[must_use]
    pub fn outgoing(&self) -> PathBuf {
        self.packs().join("out")
    }
    /// One of them, by its id.
    #[must_use]
    pub fn outgoing_pack(&self, id: &str) -> PathBuf {
        self.outgoing().join(format!("{id}.pack"))
    }
    /// Token with which a server talks to the runner (mode 0600).
    #[must_use]
    pub fn server_token(&self, run: i64) -> PathBuf {
        self.run_dir(run).join("secrets").join("server-to-runner")
    }
    /// Token with which the runner talks to a server (mode 0600).
    #[must_use]
    pub fn runner_token(&self, run: i64) -> PathBuf {
        self.run_dir(run).join("secrets").join("runner-to-server")
    }
    /// The session's own variables, a JSON object of strings (mode 0600); absent if it has none.
    #[must_use]
    pub fn environment(&self, run: i64) -> PathBuf {
        self.run_dir(run).join("secrets").join("environment.json")
    }
    /// Keys of the model endpoint, a JSON object with one per [`ModelDialect`](crate::ModelDialect) that wants one (mode 0600);
    /// absent if none does. The runner alone reads it.
    #[must_use]
    pub fn model_keys(&self, run: i64) -> PathBuf {
        self.run_dir(run).join("secrets").join("model-keys.json")
    }
    /// The agent's own id of its conversation, for later runs. The runner alone writes it.
    #[must_use]
    pub fn conversation(&self, run: i64) -> PathBuf {
        self.run_dir(run).join("conversation.json")
    }
    /// What the workspace was prepared with last, so that it is not done again. The runner alone writes it.
    #[must_use]
    pub fn setup(&self) -> PathBuf {
        self.repos().join(".setup")
    }
    /// Scripts that the runner has the agent's shell run, in a place the agent can read but not write; emptied at launch.
    #[must_use]
    pub fn blocks(&self) -> PathBuf {
        self.root.join("blocks")
    }
    /// Standard error of the runner, for people.
    #[must_use]
    pub fn runner_log(&self, run: i64) -> PathBuf {
        self.run_dir(run).join("runner.log")
    }
}
