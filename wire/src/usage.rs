//! What model calls have used.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{model::BudgetPeriod, runner_event::UsageSource};

/// Tokens and money.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct TokenUsage {
    /// How many calls.
    pub calls: i64,
    /// Tokens of input, those from a cache included.
    pub input_tokens: i64,
    /// Of these, from a cache.
    pub cached_input_tokens: i64,
    /// Tokens of output, those of reasoning included.
    pub output_tokens: i64,
    /// Of these, for reasoning.
    pub reasoning_tokens: i64,
    /// Cost, millionths of `currency`; null if it is not known, or in several currencies.
    pub cost_micros: Option<i64>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// Who counted; null if nobody did, or both for different turns.
    pub counted_by: Option<UsageSource>,
}

/// What the model calls of a session have used. Where the model proxy has counted in a turn, the agent's own reports do not count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionUsage {
    /// `SessionUsage`.
    pub kind: String,
    /// Of all runs.
    pub total: TokenUsage,
    /// By run, in order.
    pub runs: Vec<RunUsage>,
    /// By model, in the order of their names.
    pub models: Vec<ModelUsage>,
}

/// What the model calls of a project's sessions have used, deleted ones included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProjectUsage {
    /// `ProjectUsage`.
    pub kind: String,
    /// All of it.
    pub total: TokenUsage,
    /// By day (UTC), in order.
    pub days: Vec<DayUsage>,
    /// By model, in the order of their names.
    pub models: Vec<ModelUsage>,
    /// How much may be used, and what is left; null if there is no budget.
    #[serde(default)]
    pub budget: Option<BudgetUsage>,
}

/// A project's budget, and what its sessions have used of it, as far as the model proxies have counted. A turn counts when its last call
/// was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BudgetUsage {
    /// In what time; null: ever.
    pub period: Option<BudgetPeriod>,
    /// When this time began; null: with the project.
    pub since: Option<DateTime<Utc>>,
    /// Currency, ISO 4217.
    pub currency: String,
    /// Tokens that may be used; null: no limit.
    pub tokens: Option<u64>,
    /// Tokens that were used, input and output together.
    pub used_tokens: u64,
    /// Tokens that are left; null: no limit.
    pub left_tokens: Option<u64>,
    /// Cost that there may be, millionths of the currency; null: no limit.
    pub cost_micros: Option<u64>,
    /// Cost so far.
    pub used_cost_micros: u64,
    /// Cost that is left; null: no limit.
    pub left_cost_micros: Option<u64>,
}

/// What a run has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunUsage {
    /// The run.
    pub run: i64,
    /// How much.
    pub usage: TokenUsage,
}

/// What calls of a model have used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelUsage {
    /// Its name, as calls have it; empty if they do not say.
    pub model: String,
    /// How much.
    pub usage: TokenUsage,
}

/// What was used on a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayUsage {
    /// The day, UTC.
    pub day: NaiveDate,
    /// How much.
    pub usage: TokenUsage,
}
