//! For how long what finished sessions have left is kept on this server, and when it was last looked at.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use ambient_domain::retention::RetentionRules;
use tokio::{
    sync::{Mutex, MutexGuard, Notify},
    time::Instant,
};

/// Between two looks of a process at all projects.
const EVERY: Duration = Duration::from_secs(600);

/// The server's rules. Clones share the rest.
#[derive(Debug, Clone, Default)]
pub struct Retention {
    /// What projects go by.
    pub rules: RetentionRules,
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// One look of a process at a time.
    looking: Mutex<()>,
    looked: std::sync::Mutex<Option<Instant>>,
    asked: Notify,
}

impl Retention {
    /// With these rules.
    #[must_use]
    pub fn new(rules: RetentionRules) -> Self {
        Self { rules, inner: Arc::default() }
    }

    /// Has this process look at what was asked for, without waiting for its next sweep.
    pub fn ask(&self) {
        self.inner.asked.notify_one();
    }

    pub(crate) async fn asked(&self) {
        self.inner.asked.notified().await;
    }

    pub(crate) async fn look(&self) -> MutexGuard<'_, ()> {
        self.inner.looking.lock().await
    }

    /// Whether all projects are to be looked at again.
    pub(crate) fn is_due(&self) -> bool {
        self.looked().is_none_or(|at| at.elapsed() >= EVERY)
    }

    /// They were, to the end.
    pub(crate) fn done(&self) {
        *self.looked() = Some(Instant::now());
    }

    fn looked(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.inner.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
