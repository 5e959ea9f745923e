//! When the `timers` loop looks next.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// When the loop intends to look next.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) planned: Mutex<Instant>,
    pub(crate) changed: Notify,
}

impl Due {
    pub(crate) fn new() -> Self {
        Self { planned: Mutex::new(Instant::now()), changed: Notify::new() }
    }

    /// Something is due in `wait`.
    pub(crate) fn within(&self, wait: Duration) {
        let Some(at) = Instant::now().checked_add(wait) else { return };
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        if at < *planned {
            *planned = at;
            self.changed.notify_one();
        }
    }

    /// Something may be due now.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    pub(crate) fn plan(&self, wait: Duration) -> Instant {
        let at = Instant::now() + wait;
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = at;
        at
    }
}
