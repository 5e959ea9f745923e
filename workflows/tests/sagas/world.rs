//! A server without an edge, on a database and a data directory of its own.

use std::{
    future::Future,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command as Process,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use ambient_actors::{ActorOptions, Actors, CallError, Caller, Clock, Reply, Request};
use ambient_compute::{
    Compute, SessionRef,
    local::{LocalCompute, LocalOptions},
};
use ambient_domain::{
    project::{self, Project},
    session::{Command, ConditionStatus, ConditionType, Phase, Repo, RepoOutput, Session, Spec, Submodules},
};
use ambient_engine::HistoryReader;
use ambient_live::{ReaderOptions, RunnerReaders, Tokens};
use ambient_persistence::{Database, DatabaseOptions, Hints, StoredEntity, Vault, VerifyScope, new_id};
use ambient_runner_protocol::{SessionPaths, Started};
use ambient_tests::TestDatabase;
use ambient_wire::execution::{HistoryEvent, WorkflowExecution};
use ambient_workflows::{
    EngineClient, ExecutionFilter, Executions, Models, Retention, RunnerEnds, Services, TASK_QUEUE, TemporalExecutions,
    WorkerHealth, WorkerHost, WorkerSettings,
    replay::{ClientHistories, EngineHistories},
};
use chrono::TimeDelta;
use tempfile::TempDir;
use temporalio_client::Client;
use tokio::sync::watch;

use crate::{engine::TestEngine, faults::Faults, recording};

/// Longest wait for anything: far longer than it takes, for a busy machine.
/// A real Temporal server is slower.
fn patience() -> Duration {
    Duration::from_secs(if crate::engine::is_temporal() { 240 } else { 90 })
}

/// Polls until there is an answer.
pub(crate) async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {:?}: {what}", patience());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

pub(crate) struct World {
    pub(crate) db: Database,
    pub(crate) actors: Actors,
    pub(crate) compute: Arc<dyn Compute>,
    pub(crate) executions: Executions,
    pub(crate) client: Client,
    pub(crate) faults: Faults,
    engine: TestEngine,
    readers: RunnerReaders,
    hints: Hints,
    worker: WorkerHost,
    pub(crate) health: WorkerHealth,
    /// While true, the engine refuses polls in a way that ends a worker.
    pub(crate) polls_fail: watch::Sender<bool>,
    /// Seconds that the clock of actors and activities is ahead.
    ahead: Arc<AtomicI64>,
    origin: String,
    directory: Directory,
    _database: TestDatabase,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::start(false).await
    }

    /// One in which long timers pass soon on a real Temporal server, whose clock cannot be moved.
    pub(crate) async fn with_short_timers() -> Self {
        Self::start(true).await
    }

    async fn start(short_timers: bool) -> Self {
        let database = TestDatabase::new().await;
        let directory = Directory(tempfile::Builder::new().prefix("sg").tempdir_in("/tmp").unwrap());
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let origin = make_origin(directory.path());
        let db = Database::connect(&database.url(), DatabaseOptions::default()).await.unwrap();
        db.migrate().await.unwrap();
        let hints = Hints::start(&db);
        let ahead = Arc::new(AtomicI64::new(0));
        let now = {
            let ahead = ahead.clone();
            move || chrono::Utc::now() + TimeDelta::seconds(ahead.load(Ordering::SeqCst))
        };
        let options = ActorOptions { clock: Clock::new(now.clone()), ..ActorOptions::default() };
        let actors = Actors::start(db.clone(), hints.clone(), options);
        let local = LocalOptions::new(directory.path().join("data"), runner_binary(), "here".to_owned());
        let compute: Arc<dyn Compute> = Arc::new(LocalCompute::new(local).unwrap());
        let tokens = Tokens::new(b"the token key of the saga tests");
        let ends = Arc::new(RunnerEnds::new(compute.clone(), actors.clone(), db.clone()));
        let options = ReaderOptions::default();
        let readers = RunnerReaders::start(db.clone(), hints.clone(), tokens.clone(), ends.clone(), ends, options);
        let polls_fail = watch::Sender::new(false);
        let (engine, client) = TestEngine::start(&db, polls_fail.subscribe(), short_timers).await;
        let to_engine = EngineClient::ready(client.clone());
        let executions: Executions =
            Arc::new(TemporalExecutions::new(to_engine.clone(), engine.namespace(), db.clone(), Box::new(|| Ok(()))));
        let faults = Faults::default();
        let services = Services {
            db: db.clone(),
            actors: actors.clone(),
            compute: compute.clone(),
            readers: readers.clone(),
            tokens,
            vault: Vault::open(&db, &[7; 32]).await.unwrap(),
            models: Models::default(),
            snapshots: None,
            retention: Retention::default(),
            executions: executions.clone(),
            clock: Clock::new(now),
            hook: Arc::new(faults.clone()),
        };
        let health = WorkerHealth::default();
        let settings = WorkerSettings::default();
        let worker = WorkerHost::start(to_engine, services, hints.clone(), health.clone(), settings).await.unwrap();
        Self {
            db,
            actors,
            compute,
            executions,
            client,
            faults,
            engine,
            readers,
            hints,
            worker,
            health,
            polls_fail,
            ahead,
            origin,
            directory,
            _database: database,
        }
    }

    /// Verifies what is stored, and ends.
    pub(crate) async fn end(self) {
        let report = self.db.verify(&VerifyScope::default()).await.unwrap();
        assert!(report.is_clean(), "{:?}", report.divergences);
        match &self.engine {
            TestEngine::Embedded(_) => {
                let histories = HistoryReader::new(self.db.pool().clone());
                recording::record(&mut EngineHistories::new(histories, TASK_QUEUE, u32::MAX)).await;
            }
            TestEngine::Temporal { .. } => {
                recording::record(&mut ClientHistories::new(self.client.clone(), TASK_QUEUE, u32::MAX)).await;
            }
        }
        self.worker.shutdown(Duration::from_secs(10)).await;
        self.readers.shutdown().await;
        self.actors.shutdown(Duration::from_secs(10)).await;
        self.engine.shutdown().await;
        self.hints.stop();
        self.db.close().await;
    }

    /// Moves all clocks.
    pub(crate) async fn advance(&self, by: Duration) {
        self.ahead.fetch_add(by.as_secs().cast_signed(), Ordering::SeqCst);
        self.engine.advance(by, &self.executions).await;
    }

    pub(crate) async fn ask<E: StoredEntity>(&self, id: &str, command: E::Command) -> Result<Reply<E>, CallError> {
        let caller = Caller { principal: "ada".to_owned(), ..Caller::default() };
        self.actors.call::<E>(id, Request::new(command, caller)).await
    }

    /// A new project; its space may not exist yet.
    pub(crate) async fn new_project(&self, id: &str, name: &str) {
        let (project_id, name) = (id.to_owned(), name.to_owned());
        let command = project::Command::Create { project_id, name, spec: Box::default(), owner: "ada".to_owned() };
        self.ask::<Project>(id, command).await.unwrap();
    }

    pub(crate) async fn project(&self) -> String {
        let id = new_id();
        self.new_project(&id, "sagas").await;
        id
    }

    pub(crate) async fn new_session(&self, id: &str, project_id: &str, spec: Spec, start: bool) {
        let command = Command::Create {
            session_id: id.to_owned(),
            project_id: project_id.to_owned(),
            spec: Box::new(spec),
            start,
        };
        self.ask::<Session>(id, command).await.unwrap();
    }

    /// A session for people with a repository, whose prompt leaves one line a turn in `marks`.
    pub(crate) fn interactive(&self) -> Spec {
        Spec {
            display_name: "saga".to_owned(),
            prompt: Some("```sh\necho turn >> \"$HOME/marks\"\n```".to_owned()),
            main_repo_index: None,
            active_workflow: None,
            repos: vec![self.repo("first")],
            agent_id: None,
            agent_command: None,
            agent_mode: None,
            agent_options: std::collections::BTreeMap::new(),
            mcp_servers: Vec::new(),
            agent_type: "script".to_owned(),
            interactive: true,
            stop_on_run_finished: false,
            timeout: None,
            inactivity_timeout: 0,
            llm_model: None,
            llm_temperature: 0.7,
            llm_max_tokens: 4000,
            resource_overrides: ambient_domain::session::ResourceOverrides::default(),
            network: None,
            setup_script: None,
            environment_variables: Default::default(),
            models: Default::default(),
            permissions: ambient_domain::permission::Permissions::default(),
            parent_session_id: None,
            labels: Default::default(),
            annotations: Default::default(),
        }
    }

    pub(crate) fn repo(&self, name: &str) -> Repo {
        let (name, url) = (name.to_owned(), self.origin.clone());
        Repo { name, url, branch: None, output: RepoOutput::default(), auto_push: false, submodules: Submodules::None }
    }

    pub(crate) fn paths(&self, session: &Session) -> SessionPaths {
        let projects = self.directory.path().join("data/projects");
        SessionPaths { root: projects.join(&session.project_id).join("sessions").join(&session.id) }
    }

    /// Turns that the agent has made, by the lines it left.
    pub(crate) fn marks(&self, session: &Session) -> usize {
        std::fs::read_to_string(self.paths(session).home().join("marks")).unwrap_or_default().lines().count()
    }

    pub(crate) fn runner_of(&self, session: &Session, run: i64, attempt: i32) -> Option<Started> {
        serde_json::from_slice(&std::fs::read(self.paths(session).started(run, attempt)).ok()?).ok()
    }

    pub(crate) async fn session(&self, id: &str) -> Session {
        self.db.load::<Session>(id).await.unwrap().unwrap()
    }

    pub(crate) async fn session_where(&self, id: &str, what: &str, fits: impl Fn(&Session) -> bool) -> Session {
        let deadline = Instant::now() + patience();
        loop {
            let session = self.session(id).await;
            if fits(&session) {
                return session;
            }
            assert!(Instant::now() < deadline, "not within {:?}: {what}: {session:#?}", patience());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    pub(crate) async fn in_phase(&self, id: &str, phase: Phase) -> Session {
        self.session_where(id, &format!("{phase}"), |s| s.phase() == Some(phase)).await
    }

    /// Running, and the prompt's turn is over.
    pub(crate) async fn idle(&self, id: &str) -> Session {
        let idle = |s: &Session| {
            let ready = s.condition(ConditionType::Ready).map_or("", |c| c.reason.as_str());
            s.phase() == Some(Phase::Running) && ready == "Idle"
        };
        self.session_where(id, "Running and idle", idle).await
    }

    async fn listed(&self, entity: &str) -> Vec<WorkflowExecution> {
        let filter =
            ExecutionFilter { entity_id: Some(entity.to_owned()), page: 1, size: 100, ..ExecutionFilter::default() };
        wait_for("the list of executions", || async { Some(self.executions.list(&filter).await.ok()?.0) }).await
    }

    /// The entity's executions, (workflow, status) in order of name, when all are closed and no effect is left: each closed
    /// exactly once.
    pub(crate) async fn closed(&self, entity: &str) -> Vec<(String, String)> {
        let deadline = Instant::now() + patience();
        let all = loop {
            let all = self.listed(entity).await;
            let open = all.iter().filter(|e| e.status == "Running").collect::<Vec<_>>();
            if open.is_empty() {
                break all;
            }
            assert!(
                Instant::now() < deadline,
                "not within {:?}: all executions of {entity} closed: {open:#?}",
                patience()
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        };
        let mut ids = all.iter().map(|e| e.id.clone()).collect::<Vec<_>>();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all.len(), "an execution ran twice: {ids:?}");
        for id in ids {
            let history = self.executions.history(&id, 0, 10_000).await.unwrap();
            let ends = history.iter().filter(|e| is_end(&e.event_type)).count();
            assert_eq!(ends, 1, "{id} closed {ends} times");
            assert!(history.last().is_some_and(|e| is_end(&e.event_type)), "{id} went on after its end");
        }
        let mut all = all.into_iter().map(|e| (e.workflow, e.status)).collect::<Vec<_>>();
        all.sort();
        all
    }

    /// Waits until one execution is closed, and returns its status.
    pub(crate) async fn end_of(&self, workflow_id: &str) -> String {
        wait_for(&format!("{workflow_id} closed"), || async {
            let found = self.executions.get(workflow_id).await.ok()?;
            (!matches!(found.status.as_str(), "Running" | "PendingDispatch")).then_some(found.status)
        })
        .await
    }

    /// Id of the entity's open execution of a workflow.
    pub(crate) async fn open_execution(&self, entity: &str, workflow: &str) -> String {
        wait_for(&format!("{workflow} of {entity}"), || async {
            let all = self.listed(entity).await;
            all.into_iter().find(|e| e.workflow == workflow && e.status == "Running").map(|e| e.id)
        })
        .await
    }

    /// Names of the activities that an execution asked for, in order.
    pub(crate) async fn activities_of(&self, workflow_id: &str) -> Vec<String> {
        let history = self.executions.history(workflow_id, 0, 10_000).await.unwrap();
        history.iter().filter(|e| e.event_type == "ActivityTaskScheduled").map(activity_name).collect()
    }

    /// Nothing of the session lives: no process has a nonce of its, and the fence keeps it so.
    pub(crate) async fn nothing_left(&self, session: &Session) {
        let place = SessionRef { project_id: session.project_id.clone(), session_id: session.id.clone() };
        let run = session.run_number();
        self.compute.raise_fence(&place, run).await.unwrap();
        self.compute.prove_absent(&place, run).await.unwrap();
        let live = self.compute.inventory().await.unwrap().into_iter().find(|found| found.session == place);
        assert_eq!(live.map_or(0, |found| found.live_runs.len()), 0);
    }

    /// A terminal phase that is proven.
    pub(crate) async fn torn_down(&self, session: &Session) {
        let proof = session.condition(ConditionType::TornDown).expect("condition TornDown");
        assert_eq!((proof.status, proof.reason.as_str()), (ConditionStatus::True, "Proven"));
        assert!(self.db.revoked_run(&session.id).await.unwrap() >= session.run_number(), "tokens are not revoked");
        self.nothing_left(session).await;
    }
}

struct Directory(TempDir);

impl Directory {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        end_processes_of(self.path());
        ambient_compute::local::remove_control_groups(&self.path().join("data"));
    }
}

/// A runner outlives its server, and its agents outlive it: after a failed test both are ended here.
fn end_processes_of(directory: &Path) {
    let ours = directory.to_string_lossy().into_owned();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let text = [read("cmdline"), read("environ")].concat();
        let named = String::from_utf8_lossy(&text).contains(&ours);
        let other = u32::try_from(pid).is_ok_and(|pid| pid != std::process::id());
        if let (true, true, Some(pid)) = (named, other, rustix::process::Pid::from_raw(pid)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn is_end(event_type: &str) -> bool {
    let end = event_type.strip_prefix("WorkflowExecution").unwrap_or_default();
    matches!(end, "Completed" | "Failed" | "TimedOut" | "Canceled" | "Terminated" | "ContinuedAsNew")
}

fn activity_name(event: &HistoryEvent) -> String {
    event.attributes["activity_type"]["name"].as_str().unwrap_or_else(|| panic!("{}", event.attributes)).to_owned()
}

/// The runner that was built beside this test: `target/debug/deps/sagas-…` -> `target/debug/ambient-runner`.
fn runner_binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let binary = test.parent().and_then(Path::parent).unwrap().join("ambient-runner");
    assert!(binary.is_file(), "{} is missing: run `cargo build --workspace --bins` first", binary.display());
    binary
}

/// A bare repository with one commit, readable for sessions' users.
fn make_origin(directory: &Path) -> String {
    let origin = directory.join("origin");
    let git = |arguments: &[&str]| {
        let done = Process::new("git")
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-C"])
            .arg(&origin)
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    std::fs::create_dir(&origin).unwrap();
    git(&["init", "--quiet", "-b", "main"]);
    std::fs::write(origin.join("README"), "of the saga tests\n").unwrap();
    git(&["add", "-A"]);
    git(&["commit", "--quiet", "-m", "first"]);
    format!("file://{}", origin.display())
}
