//! Models that sessions may ask, and what sessions, agents and projects say about them.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::{object, one_object};

/// Most models of a list.
pub const MAX_ALLOWED: usize = 100;
/// Longest name of a model, bytes.
pub const MAX_MODEL: usize = 256;
/// Largest limit, of tokens or of millionths of the currency.
pub const MAX_LIMIT: u64 = 1_000_000_000_000_000;
/// Longest base URL, bytes.
pub const MAX_BASE_URL: usize = 1000;
/// A base URL as an ECMA 262 regular expression, for documents. It is slightly stricter than the rule: whatever it matches is accepted.
pub const BASE_URL_PATTERN: &str = concat!(
    r"^https?://([a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,20}[a-z0-9])?){0,8}|\[::1\])",
    r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}))?(/[A-Za-z0-9_-]+){0,10}$",
);

/// A model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Model {
    /// Its name, as in `llm_model`.
    pub id: String,
    /// Sessions that name none ask it.
    pub is_default: bool,
    /// What it costs; null if it was not said.
    pub price: Option<ModelPrice>,
    /// Who named it: the first of server, project, agent and session that says which may be asked; the server, if none does.
    #[serde(default = "server")]
    pub named_by: ModelOwner,
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

/// Models that a project's or a session's agents may ask, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelList {
    /// `ModelList`.
    pub kind: String,
    /// Page, from 1: all are on the first.
    pub page: i64,
    /// Number of items on this page.
    pub size: i64,
    /// Number of items on all pages.
    pub total: i64,
    /// The items.
    pub items: Vec<Model>,
    /// Whether only these may be asked. Otherwise any may, and these are those that the server knows.
    pub is_restricted: bool,
    /// Where they are asked, by provider. Without any, agents have no way to models but their own.
    pub endpoints: Vec<ModelEndpoint>,
    /// How much one session may use: the smallest of the server's limits and those of the owners.
    pub session_limits: ModelLimits,
}

/// Where a provider's dialects are spoken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelEndpoint {
    /// Whose dialects.
    pub provider: ModelProvider,
    /// Host that is asked, with the port unless it is the usual one.
    pub host: String,
    /// Who named it.
    pub named_by: ModelOwner,
    /// Whether a key is sent.
    pub has_key: bool,
}

/// Who says something about models, from the widest to the narrowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelOwner {
    /// The server's settings.
    Server,
    /// The project.
    Project,
    /// The session's agent.
    Agent,
    /// The session.
    Session,
}

fn server() -> ModelOwner {
    ModelOwner::Server
}

/// Whose dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelProvider {
    /// OpenAI's: chat completions and responses.
    Openai,
    /// Anthropic's: messages.
    Anthropic,
    /// Gemini's.
    Gemini,
}

/// What a session, an agent or a project says about models: which may be asked, how much, where and with whose key. Nobody widens what
/// those above have said: a session's agent may ask what its session, its agent, its project and the server all allow, and the smallest of
/// their limits holds. Of the endpoints, the session's go before its agent's, those before its project's, and those before the server's;
/// each is taken whole, so that no key is sent to an address that another owner has named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "allowed": ["claude-sonnet-4-5"],
    "limits": { "tokens": 5_000_000, "cost_micros": 20_000_000 },
    "endpoints": { "anthropic": { "key_variable": "ANTHROPIC_KEY" } },
}))]
pub struct ModelRules {
    /// Models that may be asked, by their names in calls; those that the others allow, if it is empty. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// How much one session may use, over all its runs. Changes apply to running sessions within seconds.
    #[serde(default, deserialize_with = "one_object", skip_serializing_if = "ModelLimits::is_empty")]
    pub limits: ModelLimits,
    /// Where models are asked, by provider.
    #[serde(default, deserialize_with = "one_object", skip_serializing_if = "ModelSources::is_empty")]
    pub endpoints: ModelSources,
}

/// How much may be used; absent = no limit. The call that goes beyond a limit is completed, the next one is refused and ends the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelLimits {
    /// Tokens, input and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Cost, millionths of the server's currency. Models without a price cannot be asked then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
}

/// How much all sessions of a project may use together, deleted ones included; at least one of the limits is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "cost_micros": 100_000_000, "period": "month" }))]
pub struct ModelBudget {
    /// Tokens, input and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Cost, millionths of the server's currency. Models without a price cannot be asked then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// In what time; ever, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<BudgetPeriod>,
}

/// A calendar day or month in UTC, after which a budget begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPeriod {
    /// A day.
    Day,
    /// A month.
    Month,
}

/// An endpoint for each provider that has one of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSources {
    /// OpenAI's dialects; the base URL has the version, as in `https://api.openai.com/v1`.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub openai: Option<ModelSource>,
    /// Anthropic's dialect; the base URL has no version.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub anthropic: Option<ModelSource>,
    /// Gemini's dialect; the base URL has no version.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub gemini: Option<ModelSource>,
}

/// An address and a key; at least one of them is named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSource {
    /// Base URL, `https://` or `http://`, without user, query and fragment; the provider's own public address when absent. It may lead to
    /// public addresses, and to others only if the server's setting `private_model_hosts` names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Name of the environment variable of the same session, agent or project whose value is the key; no key is sent when absent. The
    /// variable is then not in the environment of sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_variable: Option<String>,
}

impl ModelRules {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ModelLimits {
    /// Whether there is no limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ModelSources {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Those there are, by the names of their fields.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &ModelSource)> {
        let all = [("openai", &self.openai), ("anthropic", &self.anthropic), ("gemini", &self.gemini)];
        all.into_iter().filter_map(|(name, source)| Some((name, source.as_ref()?)))
    }
}

/// Checks a base URL. It is kept forever, so nothing that could be a credential gets in, and it is read in one way only.
///
/// # Errors
/// What is wrong with it; for people, to follow the field's name. Contains no part of it.
pub fn check_base_url(url: &str) -> Result<(), &'static str> {
    if url.is_empty() || url.len() > MAX_BASE_URL {
        return Err("must have 1 to 1000 bytes");
    }
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or("must begin with https:// or http://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') || path.contains('@') || path.contains("%40") {
        return Err("must not contain credentials, nor anything that could be taken for them ('@')");
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if !path.bytes().all(is_plain) || path.split('/').any(|part| matches!(part, "." | "..")) {
        return Err("may have only letters, digits and '-._~' in its path: no query, no fragment");
    }
    // The colons of an address are within its brackets.
    let end = authority.rfind(']').map_or(0, |end| end + 1);
    let port = authority.get(end..).and_then(|rest| rest.rsplit_once(':')).map(|(_, port)| port);
    let host = match port {
        Some(port) => {
            if port.starts_with('0') || port.parse::<u16>().is_err() || !port.bytes().all(|b| b.is_ascii_digit()) {
                return Err("must have a port from 1 to 65535 after the colon (IPv6 addresses in brackets)");
            }
            authority.get(..authority.len() - port.len() - 1).unwrap_or_default()
        }
        None => authority,
    };
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').and_then(|address| address.parse::<Ipv6Addr>().ok());
        return address.map(drop).ok_or("must have an IPv6 address in its brackets");
    }
    let is_one_spelling = !host.ends_with('.') && !host.bytes().any(|byte| byte.is_ascii_uppercase());
    match host.parse::<crate::network::Host>() {
        Ok(_) if is_one_spelling => Ok(()),
        _ => Err("must have a host: a name in lower case (other scripts as xn--…), or an address"),
    }
}

#[cfg(test)]
mod tests {
    use super::check_base_url;

    #[test]
    fn a_base_url_is_an_address_and_nothing_else() {
        for url in [
            "https://api.openai.com/v1",
            "http://127.0.0.1:8080",
            "https://[fd00::1]:1/a/b/",
            "https://xn--e1afmkfd.example",
            "http://a_b.local/x~y-z",
        ] {
            assert_eq!(check_base_url(url), Ok(()), "{url}");
        }
        for url in [
            "",
            "https://",
            "ftp://host",
            "host",
            "https://user:pw@host",
            "https://host/v1?key=x",
            "https://host/v1#x",
            "https://host/%40",
            "https://host/a/../b",
            "https://host:0",
            "https://host:65536",
            "https://host:+1",
            "https://host:",
            "https://[::1",
            "https://[x]",
            "https://::1",
            "https://2130706433",
            "https://0x7f.1",
            "https://127.1",
            "https://HOST",
            "https://host.",
            "https://ho st",
            "https://host\\@evil",
            "https://höst",
            "https://host/\t",
        ] {
            assert!(check_base_url(url).is_err(), "{url}");
        }
        assert!(check_base_url(&format!("https://h/{}", "a".repeat(1000))).is_err());
    }
}
