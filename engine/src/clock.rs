//! Time. There is one clock, the database's; this process only measures how long ago it was read.
//!
//! Engine time is the database's wall clock plus a shift that tests move forward (`engine.now()`). Timers, activity and
//! run timeouts, retries and event times follow engine time. Leases, workflow-task timeouts and sticky timeouts detect
//! dead processes and follow the wall clock.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};

/// The database's clock, remembered. Never ahead of the original: readings count from the moment their answer came.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<Reading>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    now: DateTime<Utc>,
    wall: DateTime<Utc>,
}

impl Clock {
    /// `now` is engine time, `wall` the wall clock, both as the database has just answered.
    pub(crate) fn new(now: DateTime<Utc>, wall: DateTime<Utc>) -> Self {
        Self(Mutex::new(Reading { at: Instant::now(), now, wall }))
    }

    pub(crate) fn set(&self, now: DateTime<Utc>, wall: DateTime<Utc>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Reading { at: Instant::now(), now, wall };
    }

    /// Engine time and wall clock.
    pub(crate) fn both(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        let Reading { at, now, wall } = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = TimeDelta::from_std(at.elapsed()).unwrap_or_default();
        (now + since, wall + since)
    }
}

/// `base` shortened by up to a quarter, so that processes do not act in step.
pub(crate) fn jittered(base: Duration) -> Duration {
    base.mul_f64(1.0 - 0.25 * rand::random::<f64>())
}
