//! Time. There is one clock, the database's; this process only measures how long ago it read it.
//!
//! Engine time is the database's wall clock plus a shift that tests move forward (`engine.now()`). Timers, activity and
//! run timeouts, retries and event times follow engine time. Leases, workflow-task timeouts and sticky timeouts detect
//! dead processes and follow the wall clock.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Longest time a database response is assumed to have been on its way.
const SLOW: TimeDelta = TimeDelta::seconds(1);

/// The database's clock, cached. Never ahead of the original: readings count from the moment the response arrived.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<Reading>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    now: DateTime<Utc>,
    wall: DateTime<Utc>,
}

impl Clock {
    /// `now` is engine time, `wall` the wall clock, both as just returned by the database.
    pub(crate) fn new(now: DateTime<Utc>, wall: DateTime<Utc>) -> Self {
        Self(Mutex::new(Reading { at: Instant::now(), now, wall }))
    }

    /// A response that took long is behind what is already known: time does not go back for that. It does if the
    /// database's clock was set back.
    pub(crate) fn set(&self, now: DateTime<Utc>, wall: DateTime<Utc>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = TimeDelta::from_std(known.at.elapsed()).unwrap_or_default();
        let later = |new: DateTime<Utc>, old: DateTime<Utc>| {
            let old = old + since;
            if old > new && old - new < SLOW { old } else { new }
        };
        *known = Reading { at: Instant::now(), now: later(now, known.now), wall: later(wall, known.wall) };
    }

    /// Engine time and wall clock, in whole microseconds: that is the database's precision, and a time that went through it must not be
    /// older than one that did not.
    pub(crate) fn both(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        let Reading { at, now, wall } = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = TimeDelta::from_std(at.elapsed()).unwrap_or_default();
        ((now + since).trunc_subsecs(6), (wall + since).trunc_subsecs(6))
    }
}

/// `base` shortened by up to a quarter, so that processes do not act in lockstep.
pub(crate) fn jittered(base: Duration) -> Duration {
    base.mul_f64(1.0 - 0.25 * rand::random::<f64>())
}

/// The wait after this many failures; it differs slightly between processes.
pub(crate) fn backoff(attempt: u32) -> Duration {
    jittered(Duration::from_millis(50).saturating_mul(1 << attempt.min(7)))
}
