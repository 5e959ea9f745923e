//! Pauses between attempts: backing off, and not in lockstep with others that wait for the same thing.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Pauses that double from a first to a longest one, without end. Each is randomly longer, up to twice as long.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// Starts with the first pause.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        let builder =
            ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).with_jitter().without_max_times();
        Self { builder, pauses: builder.build(), longest }
    }

    /// The pause after one more failure.
    pub fn pause(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.longest)
    }

    /// The pause after this many failures, for attempts that are counted elsewhere.
    #[must_use]
    pub fn pause_after(self, failures: u32) -> Duration {
        // By then the longest is reached, whatever the first.
        let failures = failures.min(64) as usize;
        self.builder.build().nth(failures).unwrap_or(self.longest)
    }

    /// After a success: starts over with the first.
    pub fn reset(&mut self) {
        self.pauses = self.builder.build();
    }
}

/// Between 75 % and 125 % of an interval, so that servers do not ask in lockstep.
#[must_use]
pub fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.75..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_double_to_the_longest_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for _ in 0..2 {
            for failures in 0..100 {
                let least = (FIRST * 2_u32.pow(failures.min(10))).min(LONGEST);
                for pause in [backoff.pause(), Backoff::new(FIRST, LONGEST).pause_after(failures)] {
                    assert!((least..=least * 2).contains(&pause), "{pause:?} after {failures}");
                }
            }
            backoff.reset();
        }
    }

    #[test]
    fn those_that_fail_together_do_not_try_again_together() {
        let pauses = || {
            let mut backoff = Backoff::new(FIRST, LONGEST);
            (0..20).map(|_| backoff.pause()).collect::<Vec<_>>()
        };
        assert_ne!(pauses(), pauses());
    }
}
