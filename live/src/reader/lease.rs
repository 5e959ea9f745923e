//! Leases of this process, renewed together.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ambient_persistence::{Database, RunnerLease, StoreError};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Timeout for releasing a lease; it expires by itself.
const RELEASE: Duration = Duration::from_secs(1);

/// Leases held by this process. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Leases {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    db: Database,
    holder: String,
    ttl: Duration,
    held: Mutex<HashMap<(String, i64), Held>>,
}

#[derive(Debug)]
struct Held {
    lease: RunnerLease,
    /// When the request that the database last confirmed was sent.
    confirmed: Instant,
    lost: CancellationToken,
}

/// The right to read a run's log. If dropped without being released, it expires.
#[derive(Debug)]
pub(crate) struct HeldLease {
    shared: Arc<Shared>,
    lease: RunnerLease,
    lost: CancellationToken,
}

impl Leases {
    pub(crate) fn new(db: Database, holder: String, ttl: Duration) -> Self {
        Self { shared: Arc::new(Shared { db, holder, ttl, held: Mutex::default() }) }
    }

    /// Takes the lease; none while another process holds it.
    pub(crate) async fn acquire(&self, session_id: &str, run: i64) -> Result<Option<HeldLease>, StoreError> {
        let shared = &self.shared;
        let sent = Instant::now();
        let lease = shared.db.acquire_runner_lease(session_id, run, &shared.holder, shared.ttl).await?;
        Ok(lease.map(|lease| {
            let lost = CancellationToken::new();
            let held = Held { lease: lease.clone(), confirmed: sent, lost: lost.clone() };
            shared.lock().insert((lease.session_id.clone(), lease.run), held);
            HeldLease { shared: shared.clone(), lease, lost }
        }))
    }

    /// Renews all leases, forever.
    pub(crate) async fn keep(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.renew().await;
        }
    }

    async fn renew(&self) {
        let shared = &self.shared;
        let leases: Vec<RunnerLease> = shared.lock().values().map(|held| held.lease.clone()).collect();
        metrics::gauge!("ambient_runner_leases").set(u32::try_from(leases.len()).unwrap_or(u32::MAX));
        if leases.is_empty() {
            return;
        }
        let sent = Instant::now();
        let renewed = match timeout(shared.ttl, shared.db.renew_runner_leases(&leases, shared.ttl)).await {
            Ok(Ok(renewed)) => renewed,
            failed => {
                tracing::warn!(?failed, "leases cannot be renewed; trying again");
                return shared.give_up_unconfirmed();
            }
        };
        let mut held = shared.lock();
        for lease in leases {
            let key = (lease.session_id, lease.run);
            let Some(entry) = held.get_mut(&key).filter(|entry| entry.lease.epoch == lease.epoch) else { continue };
            if renewed.contains(&key) {
                entry.confirmed = sent;
            } else {
                entry.lost.cancel();
                held.remove(&key);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, i64), Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that could not be renewed for its whole lifetime may belong to someone else by now.
    fn give_up_unconfirmed(&self) {
        self.lock().retain(|_, held| {
            let ours = held.confirmed.elapsed() < self.ttl;
            if !ours {
                held.lost.cancel();
            }
            ours
        });
    }
}

impl HeldLease {
    pub(crate) fn epoch(&self) -> i64 {
        self.lease.epoch
    }

    /// Waits until someone else has the lease.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Releases it, so that nobody need wait for it to expire.
    pub(crate) async fn release(self) {
        self.forget();
        if !self.lost.is_cancelled() {
            let release = self.shared.db.release_runner_lease(&self.lease);
            if !matches!(timeout(RELEASE, release).await, Ok(Ok(()))) {
                tracing::debug!("a lease could not be released; it expires by itself");
            }
        }
    }

    fn forget(&self) {
        let key = (self.lease.session_id.clone(), self.lease.run);
        let mut held = self.shared.lock();
        if held.get(&key).is_some_and(|held| held.lease.epoch == self.lease.epoch) {
            held.remove(&key);
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.forget();
    }
}
