//! Models that sessions may ask.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Model {
    /// Its name, as in `llm_model`.
    pub id: String,
    /// Sessions that name none ask it.
    pub is_default: bool,
    /// What it costs; null if it was not said.
    pub price: Option<ModelPrice>,
}

/// What a million tokens cost, in millionths of the currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelPrice {
    /// ISO 4217.
    pub currency: String,
    /// Input.
    pub input_micros: u64,
    /// Input from a cache.
    pub cached_input_micros: u64,
    /// Input that is written to a cache.
    pub cache_write_micros: u64,
    /// Output.
    pub output_micros: u64,
}
