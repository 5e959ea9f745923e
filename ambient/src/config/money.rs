//! An amount of money.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Not negative, at most a billion, exact to the millionth. Written as a number, or as text (which is how flags and variables come).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(u64);

const MILLION: f64 = 1_000_000.0;
const MOST: f64 = 1_000_000_000.0;

impl Money {
    /// Millionths.
    #[must_use]
    pub fn micros(self) -> u64 {
        self.0
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be from 0 to 10^15")]
    fn of(amount: f64) -> Option<Self> {
        (0.0..=MOST).contains(&amount).then(|| Self((amount * MILLION).round() as u64))
    }
}

impl Serialize for Money {
    #[allow(clippy::cast_precision_loss, reason = "at most 10^15, which a double has exactly")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / MILLION)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Amount)
    }
}

struct Amount;

impl de::Visitor<'_> for Amount {
    type Value = Money;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount")
    }

    fn visit_f64<E: de::Error>(self, amount: f64) -> Result<Money, E> {
        Money::of(amount).ok_or_else(|| E::custom("must be an amount from 0 to 1000000000"))
    }

    #[allow(clippy::cast_precision_loss, reason = "what a double does not have exactly is too much anyway")]
    fn visit_i64<E: de::Error>(self, amount: i64) -> Result<Money, E> {
        self.visit_f64(amount as f64)
    }

    #[allow(clippy::cast_precision_loss, reason = "as above")]
    fn visit_u64<E: de::Error>(self, amount: u64) -> Result<Money, E> {
        self.visit_f64(amount as f64)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
        self.visit_f64(text.trim().parse().unwrap_or(f64::NAN))
    }
}
