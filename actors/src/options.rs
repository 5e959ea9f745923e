//! Limits of the actors.

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

/// Where decisions get their time; tests move it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// A custom clock.
    pub fn new(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }
    /// The system clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Utc::now)
    }
    /// Now.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// Limits of the actors.
#[derive(Debug, Clone)]
pub struct ActorOptions {
    /// Calls in progress or waiting, over all actors.
    pub permits: u32,
    /// Calls in progress or waiting at one actor.
    pub per_actor_queue: usize,
    /// An actor that was not called for this long is evicted.
    pub idle_after: Duration,
    /// Actors in memory; beyond that the longest idle ones are evicted.
    pub max_resident: usize,
    /// How long a caller waits for a reply.
    pub call_timeout: Duration,
    /// Time for decisions.
    pub clock: Clock,
}

impl Default for ActorOptions {
    fn default() -> Self {
        Self {
            permits: 1_024,
            per_actor_queue: 64,
            idle_after: Duration::from_secs(60),
            max_resident: 50_000,
            call_timeout: Duration::from_secs(30),
            clock: Clock::system(),
        }
    }
}
