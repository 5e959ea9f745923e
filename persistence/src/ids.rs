//! Ids and times as stored.

use std::str::FromStr;

use chrono::{DateTime, Timelike, Utc};
use svix_ksuid::{Ksuid, KsuidLike};

/// A new id: 27 characters, sorting by the second of creation.
#[must_use]
pub fn new_id() -> String {
    Ksuid::now(None).to_string()
}

/// Whether a text is a KSUID.
#[must_use]
pub fn is_ksuid(text: &str) -> bool {
    text.len() == 27 && Ksuid::from_str(text).is_ok()
}

/// Truncated to microseconds, which is what Postgres keeps: storing a state must not change it.
#[must_use]
pub fn to_micros(at: DateTime<Utc>) -> DateTime<Utc> {
    at.with_nanosecond(at.nanosecond() / 1_000 * 1_000).unwrap_or(at)
}
