//! What models cost.

use std::{collections::BTreeMap, fmt};

use ambient_runner_protocol::ModelPrice;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, value::MapAccessDeserializer},
};

use super::money::Money;

/// Prices by model: a table, or, as a variable, the same as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Prices(pub(crate) BTreeMap<String, Price>);

/// What a million tokens of a model cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Input.
    pub input: Money,
    /// Input from a cache; as other input if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<Money>,
    /// Input that is written to a cache; as other input if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<Money>,
    /// Output.
    pub output: Money,
}

impl Price {
    pub(super) fn in_micros(&self) -> ModelPrice {
        ModelPrice {
            input_micros: self.input.micros(),
            cached_input_micros: self.cached_input.map(Money::micros),
            cache_write_micros: self.cache_write.map(Money::micros),
            output_micros: self.output.micros(),
        }
    }
}

impl<'de> Deserialize<'de> for Prices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Table)
    }
}

struct Table;

impl<'de> de::Visitor<'de> for Table {
    type Value = Prices;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of prices by model")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, table: A) -> Result<Prices, A::Error> {
        BTreeMap::deserialize(MapAccessDeserializer::new(table)).map(Prices)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Prices, E> {
        serde_json::from_str(text).map(Prices).map_err(E::custom)
    }
}
