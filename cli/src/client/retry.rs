//! When to retry: bounded in time, backing off.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(200);
const SLOWEST: Duration = Duration::from_secs(5);

/// Attempts since the last success.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    patience: Duration,
    next: Duration,
    since: Option<Instant>,
}

impl Backoff {
    /// Gives up once `patience` has passed since the first failure.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, next: FIRST, since: None }
    }

    /// Records a failure: how long to wait, or `None` when patience has run out. A delay the server asks for is respected, as far as
    /// patience allows.
    pub(crate) fn failed(&mut self, wish: Option<Duration>) -> Option<Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let left = self.patience.checked_sub(since.elapsed()).filter(|left| !left.is_zero())?;
        let delay = wish.unwrap_or(self.next);
        self.next = (self.next * 2).min(SLOWEST);
        match wish {
            Some(wish) if wish > left => None,
            // The last attempt comes at the end of the patience, not before it.
            _ => Some(delay.min(left)),
        }
    }

    /// Whether this is the first failure in a row.
    pub(crate) fn is_first(&self) -> bool {
        self.since.is_none()
    }

    /// It worked.
    pub(crate) fn succeeded(&mut self) {
        self.next = FIRST;
        self.since = None;
    }

    /// How long to keep trying.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_get_slower_and_end() {
        let mut backoff = Backoff::new(Duration::from_secs(60));
        assert!(backoff.is_first());
        let delays: Vec<_> = (0..7).map(|_| backoff.failed(None).unwrap().as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(backoff.failed(Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(backoff.failed(Some(Duration::from_secs(61))), None, "longer than we would wait");
        backoff.succeeded();
        assert_eq!(backoff.failed(None), Some(FIRST));
        assert_eq!(Backoff::new(Duration::ZERO).failed(None), None);
    }
}
