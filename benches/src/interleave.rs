//! Alternates ours and theirs, and evaluates the measurements.

use std::time::Duration;

use crate::{Failure, table::Pair};

/// Measures both `rounds` times, in turns, and takes medians. Who begins changes with every round.
pub(crate) async fn interleave(
    rounds: usize,
    mut ours: impl AsyncFnMut() -> Result<f64, Failure>,
    mut theirs: impl AsyncFnMut() -> Result<f64, Failure>,
) -> Result<Pair, Failure> {
    let (mut all_ours, mut all_theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            all_ours.push(ours().await?);
            all_theirs.push(theirs().await?);
        } else {
            all_theirs.push(theirs().await?);
            all_ours.push(ours().await?);
        }
    }
    Ok(pair(&all_ours, &all_theirs))
}

/// Medians of measurements that belong together by their places.
pub(crate) fn pair(ours: &[f64], theirs: &[f64]) -> Pair {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    Pair { ours: percentile(ours, 50), theirs: percentile(theirs, 50), ratio: percentile(&ratios, 50) }
}

/// The value that `percent` of the others do not exceed; 0 when there is none.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(place).copied().unwrap_or(0.0)
}

/// Milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// How many a second.
#[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
pub(crate) fn per_second(count: u64, duration: Duration) -> f64 {
    count as f64 / duration.as_secs_f64()
}
