//! Where sessions' models are asked, what they cost, and how much a session may use.

use std::collections::BTreeMap;

use ambient_domain::model_rules::{ModelLimits, ModelProvider};
use ambient_wire::network::{Entry, MOST_ALLOWED};
use ambient_workflows::{Models, ServerModels, usual_base_url};
use clap::Args;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{ConfigError, layers::Layers, money::Money, prices::Prices, secret::Secret};

/// Keys of these settings, in the order of [`ModelConfig`].
pub(super) const KEYS: &[&str] = &[
    "openai_url",
    "openai_key",
    "anthropic_url",
    "anthropic_key",
    "gemini_url",
    "gemini_key",
    "allowed_models",
    "model_prices",
    "model_currency",
    "session_token_limit",
    "session_cost_limit",
    "private_model_hosts",
];
/// Those that are secrets.
pub(super) const SECRETS: [&str; 3] = ["openai_key", "anthropic_key", "gemini_key"];

/// The endpoint for models. A provider is asked if its URL or its key is set.
#[derive(Debug, Clone, Serialize)]
pub struct ModelConfig {
    /// Base URL of OpenAI's dialects (chat completions and responses), with the version.
    pub openai_url: Option<Url>,
    /// Its key. Sessions never see it.
    pub openai_key: Option<Secret>,
    /// Base URL of Anthropic's dialect, without the version.
    pub anthropic_url: Option<Url>,
    /// Its key.
    pub anthropic_key: Option<Secret>,
    /// Base URL of Gemini's dialect, without the version.
    pub gemini_url: Option<Url>,
    /// Its key.
    pub gemini_key: Option<Secret>,
    /// Models that sessions may ask; any if it is empty.
    pub allowed_models: Vec<String>,
    /// What models cost.
    pub model_prices: Prices,
    /// Currency of prices and limits, ISO 4217.
    pub model_currency: String,
    /// Tokens that a session may use, input and output together, over all its runs.
    pub session_token_limit: Option<u64>,
    /// What a session's models may cost, over all its runs. Models without a price cannot be asked then.
    pub session_cost_limit: Option<Money>,
    /// Hosts whose addresses are not public and that base URLs of projects, agents and sessions may name all the same.
    pub private_model_hosts: PrivateHosts,
}

/// Entries of an allow-list, separated by commas; none if it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrivateHosts(pub Vec<String>);

impl TryFrom<String> for PrivateHosts {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let hosts = text.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned);
        let hosts: Vec<String> = hosts.collect();
        if hosts.len() > MOST_ALLOWED {
            return Err(format!("has more than {MOST_ALLOWED} entries"));
        }
        // Not repeated: whoever takes it for a list of URLs may have written a password.
        match hosts.iter().enumerate().find_map(|(i, host)| Some((i + 1, host.parse::<Entry>().err()?))) {
            Some((i, problem)) => Err(format!("entry {i} {}", problem.0)),
            None => Ok(Self(hosts)),
        }
    }
}

impl From<PrivateHosts> for String {
    fn from(hosts: PrivateHosts) -> Self {
        hosts.0.join(",")
    }
}

/// Flags of these settings. Keys and prices have none.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct ModelFlags {
    /// Base URL for models in OpenAI's dialects [default with a key: https://api.openai.com/v1]
    #[arg(long, value_name = "URL", hide_short_help = true)]
    pub(crate) openai_url: Option<String>,
    /// Base URL for models in Anthropic's dialect [default with a key: https://api.anthropic.com]
    #[arg(long, value_name = "URL", hide_short_help = true)]
    pub(crate) anthropic_url: Option<String>,
    /// Base URL for models in Gemini's dialect [default with a key: https://generativelanguage.googleapis.com]
    #[arg(long, value_name = "URL", hide_short_help = true)]
    pub(crate) gemini_url: Option<String>,
    /// Models that sessions may ask, separated by ':' [default: any]
    #[arg(long, value_name = "MODELS", hide_short_help = true)]
    pub(crate) allowed_models: Option<String>,
    /// Currency of prices and of the cost limit [default: USD]
    #[arg(long, value_name = "CODE", hide_short_help = true)]
    pub(crate) model_currency: Option<String>,
    /// Tokens that a session may use [default: no limit]
    #[arg(long, value_name = "NUMBER", hide_short_help = true)]
    pub(crate) session_token_limit: Option<String>,
    /// What a session's models may cost [default: no limit]
    #[arg(long, value_name = "AMOUNT", hide_short_help = true)]
    pub(crate) session_cost_limit: Option<String>,
    /// Hosts that are not public and that projects may name as model endpoints, such as 10.0.0.5:8000, separated by commas
    #[arg(long, value_name = "HOST:PORT,…", hide_short_help = true)]
    pub(crate) private_model_hosts: Option<String>,
}

impl ModelConfig {
    pub(super) fn take(layers: &mut Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            openai_url: layers.take("openai_url")?,
            openai_key: layers.take("openai_key")?,
            anthropic_url: layers.take("anthropic_url")?,
            anthropic_key: layers.take("anthropic_key")?,
            gemini_url: layers.take("gemini_url")?,
            gemini_key: layers.take("gemini_key")?,
            allowed_models: layers.take("allowed_models")?.unwrap_or_default(),
            model_prices: layers.take("model_prices")?.unwrap_or_default(),
            model_currency: layers.take("model_currency")?.unwrap_or_else(|| "USD".to_owned()),
            session_token_limit: layers.take("session_token_limit")?,
            session_cost_limit: layers.take("session_cost_limit")?,
            private_model_hosts: layers.take("private_model_hosts")?.unwrap_or_default(),
        })
    }

    /// The same, as it is used.
    #[must_use]
    pub fn models(&self) -> Models {
        let providers = || {
            let all = [
                (ModelProvider::Openai, &self.openai_url, &self.openai_key),
                (ModelProvider::Anthropic, &self.anthropic_url, &self.anthropic_key),
                (ModelProvider::Gemini, &self.gemini_url, &self.gemini_key),
            ];
            all.into_iter().filter(|(_, url, key)| url.is_some() || key.is_some())
        };
        let base_url = |provider, url: &Option<Url>| {
            url.as_ref().map_or_else(|| usual_base_url(provider).to_owned(), ToString::to_string)
        };
        let keys = providers().filter_map(|(provider, _, key)| {
            Some((provider, ambient_compute::Secret::new(key.as_ref()?.expose().to_owned())))
        });
        let keys: BTreeMap<_, _> = keys.collect();
        let prices = self.model_prices.0.iter().map(|(model, price)| (model.clone(), price.in_micros()));
        let server = ServerModels {
            base_urls: providers().map(|(provider, url, _)| (provider, base_url(provider, url))).collect(),
            keyed: keys.keys().copied().collect(),
            allowed: self.allowed_models.clone(),
            prices: prices.collect(),
            currency: self.model_currency.clone(),
            limits: ModelLimits {
                tokens: self.session_token_limit,
                cost_micros: self.session_cost_limit.map(Money::micros),
            },
            private_hosts: self.private_model_hosts.0.clone(),
        };
        Models { server, keys }
    }

    /// The first invalid setting, and why.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let urls = [
            ("openai_url", &self.openai_url),
            ("anthropic_url", &self.anthropic_url),
            ("gemini_url", &self.gemini_url),
        ];
        for (key, url) in urls {
            if let Some(problem) = url.as_ref().and_then(url_problem) {
                return Some((key, problem.to_owned()));
            }
        }
        let is_name = |model: &String| (1..=256).contains(&model.len()) && !model.contains(char::is_control);
        if !self.allowed_models.iter().all(is_name) {
            return Some(("allowed_models", "names of models have 1 to 256 bytes".to_owned()));
        }
        if !self.model_prices.0.keys().all(is_name) {
            return Some(("model_prices", "names of models have 1 to 256 bytes".to_owned()));
        }
        if self.model_currency.len() != 3 || !self.model_currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Some(("model_currency", "must be three capital letters, as in ISO 4217".to_owned()));
        }
        None
    }
}

/// What is wrong with a base URL; does not repeat it, because it may contain a password.
pub(super) fn url_problem(url: &Url) -> Option<&'static str> {
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        return Some("must be https:// or http://");
    }
    let more =
        !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some();
    more.then_some("must have no user, password, query or fragment")
}

#[cfg(test)]
mod tests {
    use ambient_domain::model_rules::ModelProvider;
    use ambient_workflows::Models;

    use super::super::{ConfigFlags, ServerConfig};

    fn config(file: &str) -> Result<ServerConfig, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.toml");
        std::fs::write(&path, format!("data_dir = \"/d\"\n{file}")).unwrap();
        let flags = ConfigFlags { config: Some(path), ..ConfigFlags::default() };
        ServerConfig::resolve(&flags, []).map_err(|error| error.to_string())
    }

    #[test]
    fn a_provider_is_asked_if_it_has_a_url_or_a_key_and_prices_are_amounts() {
        let file = "openai_key = \"sk-canary\"\nanthropic_url = \"http://127.0.0.1:1/a\"\nallowed_models = [\"m:1\"]\n\
                    session_cost_limit = 2.5\nprivate_model_hosts = \"10.0.0.5:8000, [::1]:1\"\n\
                    [model_prices.\"m:1\"]\ninput = 1.25\ncached_input = \"0.125\"\noutput = 10\n";
        let config = config(file).unwrap();
        let Models { server, keys } = config.models.models();
        let urls: Vec<_> = server.base_urls.iter().map(|(provider, url)| (*provider, url.as_str())).collect();
        let expected =
            [(ModelProvider::Openai, "https://api.openai.com/v1"), (ModelProvider::Anthropic, "http://127.0.0.1:1/a")];
        assert_eq!(urls, expected);
        assert_eq!(keys.into_keys().collect::<Vec<_>>(), [ModelProvider::Openai]);
        let price = server.prices["m:1"];
        let amounts = (price.input_micros, price.cached_input_micros, price.output_micros);
        assert_eq!(amounts, (1_250_000, Some(125_000), 10_000_000));
        assert_eq!(server.limits.cost_micros, Some(2_500_000));
        assert_eq!(server.private_hosts, ["10.0.0.5:8000", "[::1]:1"]);
        let known = server.known(&server.access(&[]), Some("m:1"));
        assert_eq!((known.len(), known[0].is_default), (1, true));
        assert_eq!(known[0].price.as_ref().map(|price| price.cache_write_micros), Some(1_250_000));
        let shown = format!("{}{}{config:?}", config.to_redacted_toml(), config.to_redacted_json());
        assert!(!shown.contains("canary") && shown.contains("m:1"), "{shown}");
    }

    #[test]
    fn without_a_provider_there_is_no_endpoint_and_faults_are_named() {
        assert!(config("").unwrap().models.models().server.base_urls.is_empty());
        let faults = [
            ("openai_url = \"ftp://x\"", "openai_url: must be https"),
            ("gemini_url = \"https://u:canary@x\"", "gemini_url: must have no user"),
            ("anthropic_key = \"two canary\"", "anthropic_key: must be printable"),
            ("session_cost_limit = -1", "session_cost_limit: must be an amount"),
            ("session_token_limit = -1", "session_token_limit: "),
            ("model_currency = \"usd\"", "model_currency: must be three"),
            ("private_model_hosts = \"http://canary.example\"", "private_model_hosts: "),
            ("[model_prices.m]\ninput = 1", "model_prices: missing field `output`"),
        ];
        for (file, fault) in faults {
            let error = config(file).unwrap_err();
            assert!(error.starts_with(fault) && !error.contains("canary"), "{error}");
        }
    }
}
