//! What sessions, agents and projects say about models: which may be asked, where and with whose key, and how much.
//!
//! Each owner narrows what those above it say, and none widens it: a session may ask what it, its agent, its project and the server all
//! allow, and of all limits for a session the smallest holds. Endpoints do not add up: for each provider the nearest owner that names one
//! is taken, its address together with its key, so that a key goes nowhere but where its owner says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::entity::{Refusal, RefusalCode};

/// Most models of a list.
pub const MAX_ALLOWED_MODELS: usize = 100;
/// Longest name of a model, bytes.
pub const MAX_MODEL_BYTES: usize = 256;
/// Largest limit, of tokens or of millionths of the currency.
pub const MAX_LIMIT: u64 = 1_000_000_000_000_000;
/// Longest base URL, bytes.
pub const MAX_BASE_URL: usize = 1000;

/// What one owner says: a session, an agent or a project.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRules {
    /// Models that may be asked; any that those above allow, if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// How much one session may use.
    #[serde(default, skip_serializing_if = "ModelLimits::is_empty")]
    pub limits: ModelLimits,
    /// Where they are asked.
    #[serde(default, skip_serializing_if = "ModelSources::is_empty")]
    pub endpoints: ModelSources,
}

/// How much may be used; absent = no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelLimits {
    /// Tokens, input and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Cost, millionths of the server's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
}

/// How much all sessions of a project may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelBudget {
    /// Tokens, input and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Cost, millionths of the server's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// In what time, UTC; ever, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<BudgetPeriod>,
}

/// A time after which a budget begins anew, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPeriod {
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
}

/// Whose dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelProvider {
    /// Chat completions and responses.
    Openai,
    /// Messages.
    Anthropic,
    /// Gemini.
    Gemini,
}

impl ModelProvider {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }
}

/// An endpoint for each provider that an owner has one for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSources {
    /// OpenAI's dialects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openai: Option<ModelSource>,
    /// Anthropic's dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anthropic: Option<ModelSource>,
    /// Gemini's dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gemini: Option<ModelSource>,
}

/// Where a provider's dialects are spoken, and with which key. At least one of them is said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSource {
    /// Base URL; the provider's own public one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Which of the same owner's environment variables is the key; no key is sent when absent. Such a variable is not in the environment
    /// of sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_variable: Option<String>,
}

impl ModelLimits {
    /// Whether there is no limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Both hold: of each kind the smaller one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let smaller = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Self { tokens: smaller(self.tokens, other.tokens), cost_micros: smaller(self.cost_micros, other.cost_micros) }
    }

    fn validate(&self, field: &str) -> Result<(), Refusal> {
        for (name, limit) in [("tokens", self.tokens), ("cost_micros", self.cost_micros)] {
            if limit.is_some_and(|limit| limit > MAX_LIMIT) {
                return Err(Refusal::invalid(format!("{field}.{name}"), format!("must be at most {MAX_LIMIT}")));
            }
        }
        Ok(())
    }
}

impl ModelBudget {
    /// Its limits, without the time.
    #[must_use]
    pub fn limits(&self) -> ModelLimits {
        ModelLimits { tokens: self.tokens, cost_micros: self.cost_micros }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// A refusal that names the field.
    pub fn validate(&self, field: &str) -> Result<(), Refusal> {
        if self.limits().is_empty() {
            return Err(Refusal::invalid(field, "names neither tokens nor cost_micros"));
        }
        self.limits().validate(field)
    }
}

impl ModelSources {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Those there are.
    pub fn iter(&self) -> impl Iterator<Item = (ModelProvider, &ModelSource)> {
        let all = [
            (ModelProvider::Openai, &self.openai),
            (ModelProvider::Anthropic, &self.anthropic),
            (ModelProvider::Gemini, &self.gemini),
        ];
        all.into_iter().filter_map(|(provider, source)| Some((provider, source.as_ref()?)))
    }
}

impl ModelRules {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every field. `variables` are the owner's own.
    ///
    /// # Errors
    /// A refusal that names the field, which begins with `field`.
    pub fn validate(&self, field: &str, variables: &BTreeMap<String, String>) -> Result<(), Refusal> {
        if self.allowed.len() > MAX_ALLOWED_MODELS {
            let reason = format!("must have at most {MAX_ALLOWED_MODELS} entries");
            return Err(Refusal::invalid(format!("{field}.allowed"), reason));
        }
        let is_name =
            |model: &String| (1..=MAX_MODEL_BYTES).contains(&model.len()) && !model.contains(char::is_control);
        if let Some(i) = self.allowed.iter().position(|model| !is_name(model)) {
            let reason = format!("must have 1 to {MAX_MODEL_BYTES} bytes and no control characters");
            return Err(Refusal::invalid(format!("{field}.allowed[{i}]"), reason));
        }
        self.limits.validate(&format!("{field}.limits"))?;
        for (provider, source) in self.endpoints.iter() {
            source.validate(&format!("{field}.endpoints.{}", provider.as_str()), variables)?;
        }
        Ok(())
    }
}

impl ModelSource {
    fn validate(&self, field: &str, variables: &BTreeMap<String, String>) -> Result<(), Refusal> {
        if *self == Self::default() {
            return Err(Refusal::invalid(field, "names neither base_url nor key_variable"));
        }
        let is_url =
            |url: &String| (1..=MAX_BASE_URL).contains(&url.len()) && url.bytes().all(|b| b.is_ascii_graphic());
        if self.base_url.as_ref().is_some_and(|url| !is_url(url)) {
            let reason = format!("must have 1 to {MAX_BASE_URL} visible ASCII characters");
            return Err(Refusal::invalid(format!("{field}.base_url"), reason));
        }
        let Some(variable) = &self.key_variable else { return Ok(()) };
        if variables.contains_key(variable) {
            return Ok(());
        }
        // Well-formed: what is missing is the variable.
        let field = format!("{field}.key_variable");
        let reason = format!("{field}: there is no environment variable {variable}");
        Err(Refusal { code: RefusalCode::Conflict, field: Some(field), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: serde_json::Value) -> ModelRules {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn of_two_limits_the_smaller_one_holds() {
        let limits = |tokens, cost_micros| ModelLimits { tokens, cost_micros };
        assert_eq!(limits(Some(5), None).and(limits(Some(3), Some(2))), limits(Some(3), Some(2)));
        assert_eq!(limits(None, Some(0)).and(limits(None, Some(9))), limits(None, Some(0)));
        assert!(limits(None, None).and(ModelLimits::default()).is_empty());
    }

    #[test]
    fn a_fault_is_told_with_its_field() {
        let variables = BTreeMap::from([("KEY".to_owned(), "id".to_owned())]);
        let fault = |json| rules(json).validate("models", &variables).unwrap_err().field.unwrap();
        use serde_json::json;
        for (said, field) in [
            (json!({ "allowed": ["a", ""] }), "models.allowed[1]"),
            (json!({ "allowed": ["a\n"] }), "models.allowed[0]"),
            (json!({ "allowed": vec!["a"; 101] }), "models.allowed"),
            (json!({ "limits": { "tokens": MAX_LIMIT + 1 } }), "models.limits.tokens"),
            (json!({ "limits": { "cost_micros": u64::MAX } }), "models.limits.cost_micros"),
            (json!({ "endpoints": { "openai": {} } }), "models.endpoints.openai"),
            (json!({ "endpoints": { "gemini": { "base_url": "https://a b" } } }), "models.endpoints.gemini.base_url"),
            (
                json!({ "endpoints": { "anthropic": { "key_variable": "NONE" } } }),
                "models.endpoints.anthropic.key_variable",
            ),
        ] {
            assert_eq!(fault(said.clone()), field, "{said}");
        }
        let good = json!({ "allowed": ["m:1"], "limits": { "tokens": 0 }, "endpoints": { "openai": { "key_variable": "KEY" } } });
        assert_eq!(rules(good).validate("models", &variables), Ok(()));
        let none = ModelBudget { period: Some(BudgetPeriod::Day), ..ModelBudget::default() };
        assert_eq!(none.validate("model_budget").unwrap_err().field.as_deref(), Some("model_budget"));
    }
}
