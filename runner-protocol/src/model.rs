//! The endpoint whose models an agent may ask, through its runner.
//!
//! The runner's proxy listens on the loopback interface. It lets an agent's requests through that carry a token of its own making, puts
//! the endpoint's key in the token's place, and counts what the answers say they have used. The keys are in a file of their own
//! ([`SessionPaths::model_keys`](crate::SessionPaths::model_keys)), which the agent cannot read.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// In the strings of an [`AgentCommand`](crate::AgentCommand): where the proxy listens, `http://127.0.0.1:PORT`, without a path. Agents
/// of OpenAI's dialects usually want `{model_url}/v1`.
pub const MODEL_URL: &str = "{model_url}";
/// The token that takes the place of a key.
pub const MODEL_TOKEN: &str = "{model_token}";
/// [`ModelEndpoint::model`], or nothing.
pub const MODEL: &str = "{model}";

/// Where models are asked. Contains no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEndpoint {
    /// Base URL for each dialect that the endpoint speaks, as the dialect's own clients take it: with the version for OpenAI's
    /// (`https://api.openai.com/v1`), without it for the others (`https://api.anthropic.com`).
    pub base_urls: BTreeMap<ModelDialect, String>,
    /// Dialects whose base URL is not the server's own: it may lead to public addresses, and to [`ModelEndpoint::private_hosts`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub public_only: BTreeSet<ModelDialect>,
    /// Hosts that may be asked although their addresses are not public, as entries of a network's allow-list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private_hosts: Vec<String>,
    /// Models that may be asked; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_models: Option<Vec<String>>,
    /// Model that the agent is told to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What models cost, by model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prices: BTreeMap<String, ModelPrice>,
    /// Currency of prices and budget, ISO 4217.
    #[serde(default = "dollars")]
    pub currency: String,
    /// How much may be used.
    #[serde(default)]
    pub budget: ModelBudget,
}

fn dollars() -> String {
    "USD".to_owned()
}

/// How a model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelDialect {
    /// OpenAI's chat completions: `POST /v1/chat/completions`.
    OpenaiChat,
    /// OpenAI's responses: `POST /v1/responses`.
    OpenaiResponses,
    /// Anthropic's messages: `POST /v1/messages`.
    Anthropic,
    /// Gemini: `POST /v1beta/models/{model}:generateContent` and `:streamGenerateContent`.
    Gemini,
}

/// What a model costs: millionths of the currency for a million tokens, which is the same as millionths of a millionth for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    /// Input.
    pub input_micros: u64,
    /// Input from a cache; as other input, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_micros: Option<u64>,
    /// Input that is written to a cache; as other input, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_micros: Option<u64>,
    /// Output, reasoning included.
    pub output_micros: u64,
}

/// How much a session, and its project, may use; absent = no limit. The call that goes beyond a limit is completed, the next is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelBudget {
    /// Tokens, input and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Cost, millionths of the currency. Models without a price are then refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// Tokens used in earlier runs.
    #[serde(default)]
    pub spent_tokens: u64,
    /// Cost of earlier runs.
    #[serde(default)]
    pub spent_cost_micros: u64,
    /// What all sessions of the project may use together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectBudget>,
}

/// A project's budget. A runner knows what its own run has used; what others use it is told, a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectBudget {
    /// Tokens, input and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Cost, millionths of the currency. Models without a price are then refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// The beginning of a day (UTC), from which on what is used counts; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Tokens used since then by all runs of the project but this one.
    #[serde(default)]
    pub elsewhere_tokens: u64,
    /// Their cost.
    #[serde(default)]
    pub elsewhere_cost_micros: u64,
}

impl ModelBudget {
    /// Whether money is limited, so that models without a price cannot be asked.
    #[must_use]
    pub fn limits_cost(&self) -> bool {
        self.cost_micros.is_some() || self.project.is_some_and(|project| project.cost_micros.is_some())
    }
}
