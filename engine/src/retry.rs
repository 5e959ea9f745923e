//! Retry policies: defaults, limits and the decision after a failed attempt.

use chrono::{DateTime, Utc};
use prost_types::Duration;
use temporalio_common::protos::temporal::api::{
    common::v1::RetryPolicy,
    enums::v1::{RetryState, TimeoutType},
    failure::v1::{Failure, failure::FailureInfo},
};
use tonic::Status;

use crate::{model::Activity, proto};

const DEFAULT_INITIAL_MS: i64 = 1000;
const DEFAULT_COEFFICIENT: f64 = 2.0;
/// Longest interval as a multiple of the first, if the policy sets none.
const DEFAULT_MAXIMUM_FACTOR: i64 = 100;

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Another attempt after this many milliseconds.
    After(i64),
    /// None, and why.
    No(RetryState),
}

/// The policy with every default filled in.
pub(crate) fn normalized(policy: Option<&RetryPolicy>) -> Result<RetryPolicy, Status> {
    let mut policy = policy.cloned().unwrap_or_default();
    let mut initial = proto::millis(policy.initial_interval.as_ref(), "retry_policy.initial_interval")?;
    let mut maximum = proto::millis(policy.maximum_interval.as_ref(), "retry_policy.maximum_interval")?;
    if policy.maximum_attempts < 0 {
        return Err(Status::invalid_argument("retry_policy.maximum_attempts must not be negative"));
    }
    if policy.backoff_coefficient == 0.0 {
        policy.backoff_coefficient = DEFAULT_COEFFICIENT;
    }
    if !policy.backoff_coefficient.is_finite() || policy.backoff_coefficient < 1.0 {
        return Err(Status::invalid_argument("retry_policy.backoff_coefficient must be at least 1"));
    }
    if initial == 0 {
        initial = DEFAULT_INITIAL_MS;
    }
    if maximum == 0 {
        maximum = initial.saturating_mul(DEFAULT_MAXIMUM_FACTOR);
    }
    if maximum < initial {
        return Err(Status::invalid_argument("retry_policy.maximum_interval is less than initial_interval"));
    }
    policy.initial_interval = Some(proto::duration(initial));
    policy.maximum_interval = Some(proto::duration(maximum));
    Ok(policy)
}

/// Whether and when an activity gets another attempt.
pub(crate) fn after_failure(
    activity: &Activity,
    failure: Option<&Failure>,
    now: DateTime<Utc>,
) -> Result<Retry, Status> {
    let policy = activity.scheduled()?.retry_policy.unwrap_or_default();
    if activity.cancel_requested_id != 0 {
        return Ok(Retry::No(RetryState::CancelRequested));
    }
    match kind(&policy, failure) {
        Kind::Final(state) => return Ok(Retry::No(state)),
        Kind::Retryable => {}
    }
    if policy.maximum_attempts > 0 && activity.attempt >= policy.maximum_attempts {
        return Ok(Retry::No(RetryState::MaximumAttemptsReached));
    }
    let wait = requested_delay(failure).map_or_else(|| interval_ms(&policy, activity.attempt), proto_millis);
    if activity.expires_at.is_some_and(|at| proto::after(now, wait) >= at) {
        return Ok(Retry::No(RetryState::Timeout));
    }
    Ok(Retry::After(wait))
}

enum Kind {
    Retryable,
    Final(RetryState),
}

fn kind(policy: &RetryPolicy, failure: Option<&Failure>) -> Kind {
    let listed = |name: &str| policy.non_retryable_error_types.iter().any(|t| t == name);
    let last = |is_last: bool| if is_last { Kind::Final(RetryState::NonRetryableFailure) } else { Kind::Retryable };
    match failure.and_then(|f| f.failure_info.as_ref()) {
        Some(FailureInfo::ApplicationFailureInfo(a)) => last(a.non_retryable || listed(&a.r#type)),
        Some(FailureInfo::ServerFailureInfo(s)) => last(s.non_retryable),
        Some(FailureInfo::TerminatedFailureInfo(_) | FailureInfo::CanceledFailureInfo(_)) => last(true),
        Some(FailureInfo::TimeoutFailureInfo(t)) => match t.timeout_type() {
            TimeoutType::StartToClose | TimeoutType::Heartbeat => last(false),
            // Worded as on Temporal's servers, even if the whole time is up.
            _ => Kind::Final(RetryState::NonRetryableFailure),
        },
        _ => Kind::Retryable,
    }
}

fn requested_delay(failure: Option<&Failure>) -> Option<&Duration> {
    match failure.and_then(|f| f.failure_info.as_ref()) {
        Some(FailureInfo::ApplicationFailureInfo(a)) => a.next_retry_delay.as_ref(),
        _ => None,
    }
}

fn proto_millis(duration: &Duration) -> i64 {
    proto::millis_or_zero(Some(duration))
}

/// initial * coefficient ^ (attempt - 1), at most the maximum.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "bounded by the maximum interval")]
fn interval_ms(policy: &RetryPolicy, attempt: i32) -> i64 {
    let initial = proto::millis_or_zero(policy.initial_interval.as_ref()).max(1);
    let maximum = match proto::millis_or_zero(policy.maximum_interval.as_ref()) {
        0 => initial.saturating_mul(DEFAULT_MAXIMUM_FACTOR),
        ms => ms,
    };
    let grown = initial as f64 * policy.backoff_coefficient.max(1.0).powi(attempt.saturating_sub(1));
    if grown.is_finite() && grown < maximum as f64 { grown as i64 } else { maximum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_grows_to_the_maximum_and_never_overflows() {
        let policy = normalized(None).unwrap();
        let waits: Vec<i64> = [1, 2, 3, 7, 8, i32::MAX].map(|a| interval_ms(&policy, a)).to_vec();
        assert_eq!(waits, [1000, 2000, 4000, 64_000, 100_000, 100_000]);
    }

    #[test]
    fn bad_policies_name_the_field() {
        let bad = RetryPolicy { backoff_coefficient: 0.5, ..Default::default() };
        assert!(normalized(Some(&bad)).unwrap_err().message().contains("backoff_coefficient"));
        let bad = RetryPolicy { maximum_interval: Some(proto::duration(10)), ..Default::default() };
        assert!(normalized(Some(&bad)).unwrap_err().message().contains("maximum_interval"));
    }
}
