//! Which runs this process has a task for.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use ambient_persistence::retry::jittered;
use ambient_persistence::{Database, Hint, HintReceiver, Hints, RulerVersions, StoreError};
use tokio::{
    sync::{Notify, broadcast, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, DrainError, FactSink, ReaderOptions, RunRef, RunnerEndpoints, drain,
    lease::Leases,
    task::{self, Orders},
};
use crate::{budget::Budgets, token::Tokens};

/// Projects that a reader may lag behind, before it looks without knowing which.
const MOST_SPENDING: usize = 64;
/// Time to look after something that rules sessions has changed: others may be about to.
const RULERS_PAUSE: Duration = Duration::from_millis(250);
/// Timeout for a task to release its lease.
const STOP: Duration = Duration::from_secs(2);

/// The readers of a process. Clones share them; they end at once with the last clone, and their leases expire a little later.
#[derive(Clone)]
pub struct RunnerReaders {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for RunnerReaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunnerReaders").field("readers", &self.inner.lock().entries.len()).finish()
    }
}

struct Inner {
    context: Arc<Context>,
    registry: Mutex<Registry>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Registry {
    closed: bool,
    /// By (session, run).
    entries: BTreeMap<(String, i64), Entry>,
}

enum Entry {
    Reading(Reader),
    /// Its log is being stored from the file: no task may be started.
    Draining,
}

struct Reader {
    since: Instant,
    orders: Arc<Orders>,
    task: JoinHandle<()>,
}

impl RunnerReaders {
    /// Starts. Must be called in a tokio runtime.
    #[must_use]
    pub fn start(
        db: Database,
        hints: Hints,
        tokens: Tokens,
        endpoints: Arc<dyn RunnerEndpoints>,
        facts: Arc<dyn FactSink>,
        options: ReaderOptions,
    ) -> Self {
        let leases = Leases::new(db.clone(), options.holder.clone(), options.lease_ttl);
        let receiver = hints.subscribe();
        let renewal = options.lease_renewal;
        let budgets = Budgets::new(db.clone(), options.model_limits);
        let (leases_kept, spending) = (leases.clone(), broadcast::channel(MOST_SPENDING).0);
        let context = Context { db, hints, tokens, endpoints, facts, leases, budgets, spending, options };
        let context = Arc::new(context);
        let inner = Arc::new(Inner { context, registry: Mutex::default(), tasks: Mutex::default() });
        let watch = tokio::spawn(watch(Arc::downgrade(&inner), receiver));
        let keep = tokio::spawn(leases_kept.keep(renewal));
        inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend([watch, keep]);
        Self { inner }
    }

    /// Makes sure that the run has a reader, and that it looks for its runner and for messages now.
    pub fn ensure(&self, project_id: &str, session_id: &str, run: i64) {
        let run = RunRef { project_id: project_id.to_owned(), session_id: session_id.to_owned(), run };
        self.inner.ensure(run);
    }

    /// Waits, for [`ReaderOptions::drain_patience`] at most, until everything that the live runner has recorded by now is
    /// stored. False if it is not, or the runner cannot be asked.
    pub async fn drained(&self, project_id: &str, session_id: &str, run: i64) -> bool {
        self.ensure(project_id, session_id, run);
        let run = RunRef { project_id: project_id.to_owned(), session_id: session_id.to_owned(), run };
        Box::pin(drain::drained(&self.inner.context, &run)).await
    }

    /// Stores what is missing of a run's log from its file; returns how many records. For a runner that is gone: its reader is
    /// ended. A missing file counts as an empty log. May be repeated.
    ///
    /// # Errors
    /// See [`DrainError`].
    pub async fn drain_from_file(
        &self,
        project_id: &str,
        session_id: &str,
        run: i64,
        path: &Path,
    ) -> Result<u64, DrainError> {
        let run = RunRef { project_id: project_id.to_owned(), session_id: session_id.to_owned(), run };
        let _draining = self.inner.set_aside(&run).await.ok_or(DrainError::Busy)?;
        Box::pin(drain::drain_file(&self.inner.context, &run, path)).await
    }

    /// Ends the run's reader: nothing of the run is left to read.
    pub async fn forget(&self, session_id: &str, run: i64) {
        let key = (session_id.to_owned(), run);
        let entry = {
            let mut registry = self.inner.lock();
            if matches!(registry.entries.get(&key), Some(Entry::Reading(_))) {
                registry.entries.remove(&key)
            } else {
                None
            }
        };
        if let Some(Entry::Reading(reader)) = entry {
            reader.stop().await;
        }
    }

    /// Ends all readers and releases their leases, within 2 s. Nothing is started any more.
    pub async fn shutdown(&self) {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|task| task.abort());
        let entries = {
            let mut registry = self.inner.lock();
            registry.closed = true;
            std::mem::take(&mut registry.entries)
        };
        let readers = entries.into_values().filter_map(|entry| match entry {
            Entry::Reading(reader) => Some(reader.stop()),
            Entry::Draining => None,
        });
        futures::future::join_all(readers).await;
    }
}

impl Reader {
    fn start(context: Arc<Context>, run: RunRef) -> Self {
        let orders = Orders { wake: Notify::new(), rulers: watch::Sender::new(None), cancel: CancellationToken::new() };
        let orders = Arc::new(orders);
        let task = tokio::spawn(task::run(context, run, orders.clone()));
        Self { since: Instant::now(), orders, task }
    }

    async fn stop(mut self) {
        self.orders.cancel.cancel();
        if timeout(STOP, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ensure(&self, run: RunRef) {
        let mut registry = self.lock();
        if registry.closed {
            return;
        }
        let key = (run.session_id.clone(), run.run);
        let entry =
            registry.entries.entry(key).or_insert_with(|| Entry::Reading(Reader::start(self.context.clone(), run)));
        if let Entry::Reading(reader) = entry {
            reader.since = Instant::now();
            reader.orders.wake.notify_one();
        }
    }

    fn wake(&self, session_id: &str) {
        let registry = self.lock();
        let of_session = (session_id.to_owned(), i64::MIN)..=(session_id.to_owned(), i64::MAX);
        for (_, entry) in registry.entries.range(of_session) {
            if let Entry::Reading(reader) = entry {
                reader.orders.wake.notify_one();
            }
        }
    }

    fn tell_rulers(&self, key: &(String, i64), versions: RulerVersions) {
        if let Some(Entry::Reading(reader)) = self.lock().entries.get(key) {
            reader.orders.rulers.send_if_modified(|known| known.replace(versions) != Some(versions));
        }
    }

    /// Ends the run's reader and keeps others from being started; none if someone is doing so already.
    async fn set_aside(self: &Arc<Self>, run: &RunRef) -> Option<Draining> {
        let key = (run.session_id.clone(), run.run);
        let before = {
            let mut registry = self.lock();
            if matches!(registry.entries.get(&key), Some(Entry::Draining)) {
                return None;
            }
            registry.entries.insert(key.clone(), Entry::Draining)
        };
        let draining = Draining { inner: self.clone(), key };
        if let Some(Entry::Reading(reader)) = before {
            reader.stop().await;
        }
        Some(draining)
    }

    /// Starts what is missing, ends what is over, wakes those with messages, tells those whose rules may have changed.
    async fn scan(&self) -> Result<(), StoreError> {
        let began = Instant::now();
        let sessions = self.context.db.sessions_with_runners().await?;
        let wanted: HashSet<(String, i64)> = sessions.iter().map(|s| (s.session_id.clone(), s.run)).collect();
        for session in sessions {
            let key = (session.session_id.clone(), session.run);
            let (known, rulers) = (self.lock().entries.contains_key(&key), session.rulers);
            if !known || session.has_undelivered {
                let (project_id, session_id) = (session.project_id, session.session_id);
                self.ensure(RunRef { project_id, session_id, run: session.run });
            }
            self.tell_rulers(&key, rulers);
        }
        let over: Vec<Reader> = {
            let mut registry = self.lock();
            let is_over = |key: &(String, i64), entry: &mut Entry| match entry {
                // One that was requested meanwhile is not in the result.
                Entry::Reading(reader) => !wanted.contains(key) && reader.since < began,
                Entry::Draining => false,
            };
            let over = registry.entries.extract_if(.., |key, entry| is_over(key, entry));
            over.filter_map(|(_, entry)| if let Entry::Reading(reader) = entry { Some(reader) } else { None }).collect()
        };
        futures::future::join_all(over.into_iter().map(Reader::stop)).await;
        metrics::gauge!("ambient_runner_readers").set(u32::try_from(self.lock().entries.len()).unwrap_or(u32::MAX));
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).iter().for_each(JoinHandle::abort);
        for entry in self.registry.get_mut().unwrap_or_else(PoisonError::into_inner).entries.values() {
            if let Entry::Reading(reader) = entry {
                reader.task.abort();
            }
        }
    }
}

/// While it exists, the run's log is stored from its file.
struct Draining {
    inner: Arc<Inner>,
    key: (String, i64),
}

impl Drop for Draining {
    fn drop(&mut self) {
        let mut registry = self.inner.lock();
        if matches!(registry.entries.get(&self.key), Some(Entry::Draining)) {
            registry.entries.remove(&self.key);
        }
    }
}

/// Follows hints and scans, as long as the readers exist.
async fn watch(inner: Weak<Inner>, mut hints: HintReceiver) {
    let mut next_scan = Instant::now();
    let mut hints_end = false;
    loop {
        let hint = tokio::select! {
            hint = hints.recv(), if !hints_end => hint,
            () = tokio::time::sleep_until(next_scan) => Some(Hint::Resync),
        };
        let Some(inner) = inner.upgrade() else { return };
        match hint {
            Some(Hint::Live(session_id)) => inner.wake(&session_id),
            Some(Hint::Resync) => {
                if let Err(error) = inner.scan().await {
                    tracing::warn!(%error, "cannot look up sessions that need a reader; trying again");
                    sleep(Duration::from_millis(200)).await;
                }
                next_scan = Instant::now() + jittered(inner.context.options.scan_interval);
            }
            // Without a reader nobody listens.
            Some(Hint::Usage(project_id)) => drop(inner.context.spending.send(project_id)),
            Some(Hint::Owners) => next_scan = next_scan.min(Instant::now() + RULERS_PAUSE),
            Some(_) => {}
            None => hints_end = true,
        }
    }
}
