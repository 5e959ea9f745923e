//! Where sessions' models are asked: what the server, a project, an agent and a session say about it, taken together.

use std::collections::{BTreeMap, BTreeSet};

use ambient_compute::Secret;
use ambient_domain::model_rules::{ModelLimits, ModelProvider, ModelRules};
use ambient_runner_protocol::{ModelBudget, ModelDialect, ModelEndpoint, ModelPrice};
use ambient_wire::model::{self as wire, ModelOwner};

/// The server's models, and their keys.
#[derive(Debug, Clone, Default)]
pub struct Models {
    /// What everyone may know.
    pub server: ServerModels,
    /// The server's keys, for the providers that want one.
    pub keys: BTreeMap<ModelProvider, Secret>,
}

/// What the server's settings say about models. Contains no secrets.
#[derive(Debug, Clone, Default)]
pub struct ServerModels {
    /// Base URLs, by provider; none = sessions have no way to models but their own.
    pub base_urls: BTreeMap<ModelProvider, String>,
    /// Providers for which there is a key.
    pub keyed: BTreeSet<ModelProvider>,
    /// Models that may be asked; any if it is empty.
    pub allowed: Vec<String>,
    /// What models cost.
    pub prices: BTreeMap<String, ModelPrice>,
    /// Currency of prices and limits, ISO 4217.
    pub currency: String,
    /// How much a session may use.
    pub limits: ModelLimits,
    /// Hosts that base URLs may name although their addresses are not public, as entries of a network's allow-list.
    pub private_hosts: Vec<String>,
}

/// What one owner below the server says.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// Who.
    pub owner: ModelOwner,
    /// What.
    pub rules: &'a ModelRules,
    /// Its environment variables: name to the id of the sealed value.
    pub variables: &'a BTreeMap<String, String>,
}

/// All of it together, for one session, or for a project.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelAccess {
    /// Models that may be asked, each with who named it first; any if absent.
    pub allowed: Option<Vec<(String, ModelOwner)>>,
    /// Where they are asked, one for each provider.
    pub endpoints: Vec<Endpoint>,
    /// How much a session may use.
    pub limits: ModelLimits,
}

/// Where a provider's dialects are spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whose.
    pub provider: ModelProvider,
    /// Base URL.
    pub base_url: String,
    /// Who named it.
    pub owner: ModelOwner,
    /// With which key.
    pub key: Key,
}

/// A key, by what stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// None is sent.
    None,
    /// The server's for this provider.
    Server,
    /// The owner's value that is sealed under this id.
    Sealed(String),
}

/// A provider's dialects.
fn dialects(provider: ModelProvider) -> &'static [ModelDialect] {
    match provider {
        ModelProvider::Openai => &[ModelDialect::OpenaiChat, ModelDialect::OpenaiResponses],
        ModelProvider::Anthropic => &[ModelDialect::Anthropic],
        ModelProvider::Gemini => &[ModelDialect::Gemini],
    }
}

/// A provider's own public base URL.
#[must_use]
pub fn usual_base_url(provider: ModelProvider) -> &'static str {
    match provider {
        ModelProvider::Openai => "https://api.openai.com/v1",
        ModelProvider::Anthropic => "https://api.anthropic.com",
        ModelProvider::Gemini => "https://generativelanguage.googleapis.com",
    }
}

impl ServerModels {
    /// What holds, if these owners say so: the project, its agent, its session, in this order, as far as they are concerned.
    #[must_use]
    pub fn access(&self, owners: &[Said<'_>]) -> ModelAccess {
        let named = |models: &[String], by| models.iter().map(|model| (model.clone(), by)).collect::<Vec<_>>();
        let mut allowed = (!self.allowed.is_empty()).then(|| named(&self.allowed, ModelOwner::Server));
        let mut endpoints: BTreeMap<ModelProvider, Endpoint> = BTreeMap::new();
        for (provider, base_url) in &self.base_urls {
            let key = if self.keyed.contains(provider) { Key::Server } else { Key::None };
            let (provider, base_url, owner) = (*provider, base_url.clone(), ModelOwner::Server);
            endpoints.insert(provider, Endpoint { provider, base_url, owner, key });
        }
        let mut limits = self.limits;
        for Said { owner, rules, variables } in owners {
            limits = limits.and(rules.limits);
            if !rules.allowed.is_empty() {
                match &mut allowed {
                    Some(allowed) => allowed.retain(|(model, _)| rules.allowed.contains(model)),
                    None => allowed = Some(named(&rules.allowed, *owner)),
                }
            }
            for (provider, source) in rules.endpoints.iter() {
                let base_url = source.base_url.clone().unwrap_or_else(|| usual_base_url(provider).to_owned());
                // The owner's own key or none: another's must not go to an address that this one has named.
                let sealed = source.key_variable.as_ref().and_then(|name| variables.get(name)).cloned();
                let key = sealed.map_or(Key::None, Key::Sealed);
                endpoints.insert(provider, Endpoint { provider, base_url, owner: *owner, key });
            }
        }
        ModelAccess { allowed, endpoints: endpoints.into_values().collect(), limits }
    }

    /// Models that may be asked, as far as they are known: those that are allowed, or, if any is, those that have a price or are the default.
    #[must_use]
    pub fn known(&self, access: &ModelAccess, default: Option<&str>) -> Vec<wire::Model> {
        let price = |id: &str| self.prices.get(id).map(|price| shown(price, &self.currency));
        let model = |id: &str, named_by| wire::Model {
            id: id.to_owned(),
            is_default: default == Some(id),
            price: price(id),
            named_by,
        };
        let ids: BTreeMap<&str, ModelOwner> = match &access.allowed {
            Some(allowed) => allowed.iter().map(|(id, by)| (id.as_str(), *by)).collect(),
            None => {
                let named = self.prices.keys().map(String::as_str).chain(default);
                named.map(|id| (id, ModelOwner::Server)).collect()
            }
        };
        ids.into_iter().map(|(id, by)| model(id, by)).collect()
    }

    /// In the runner's form; none if there is no endpoint.
    #[must_use]
    pub fn endpoint(&self, access: ModelAccess, model: Option<String>, budget: ModelBudget) -> Option<ModelEndpoint> {
        if access.endpoints.is_empty() {
            return None;
        }
        let by_dialect = |endpoint: &Endpoint| {
            let url = endpoint.base_url.clone();
            dialects(endpoint.provider).iter().map(move |dialect| (*dialect, url.clone())).collect::<Vec<_>>()
        };
        let not_ours = access.endpoints.iter().filter(|endpoint| endpoint.owner != ModelOwner::Server);
        Some(ModelEndpoint {
            base_urls: access.endpoints.iter().flat_map(by_dialect).collect(),
            public_only: not_ours.flat_map(|endpoint| dialects(endpoint.provider)).copied().collect(),
            private_hosts: self.private_hosts.clone(),
            allowed_models: access.allowed.map(|allowed| allowed.into_iter().map(|(model, _)| model).collect()),
            model,
            prices: self.prices.clone(),
            currency: self.currency.clone(),
            budget,
        })
    }
}

impl ModelAccess {
    /// Ids under which keys are sealed.
    pub(crate) fn sealed_keys(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().filter_map(|endpoint| match &endpoint.key {
            Key::Sealed(id) => Some(id.as_str()),
            Key::None | Key::Server => None,
        })
    }

    /// The file with a key for each dialect that has one: a JSON object; none if nobody has.
    ///
    /// # Errors
    /// The endpoint whose sealed key is gone.
    pub(crate) fn keys_file(
        &self,
        server: &BTreeMap<ModelProvider, Secret>,
        sealed: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Secret>, &Endpoint> {
        let mut keys: BTreeMap<ModelDialect, String> = BTreeMap::new();
        for endpoint in &self.endpoints {
            let key = match &endpoint.key {
                Key::None => None,
                Key::Server => server.get(&endpoint.provider).map(|key| key.reveal().to_owned()),
                Key::Sealed(id) => Some(sealed(id).ok_or(endpoint)?),
            };
            keys.extend(key.iter().flat_map(|key| dialects(endpoint.provider).iter().map(|one| (*one, key.clone()))));
        }
        // A map of texts can always be written.
        Ok((!keys.is_empty()).then(|| Secret::new(serde_json::to_string(&keys).unwrap_or_default())))
    }
}

fn shown(price: &ModelPrice, currency: &str) -> wire::ModelPrice {
    wire::ModelPrice {
        currency: currency.to_owned(),
        input_micros: price.input_micros,
        cached_input_micros: price.cached_input_micros.unwrap_or(price.input_micros),
        cache_write_micros: price.cache_write_micros.unwrap_or(price.input_micros),
        output_micros: price.output_micros,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(json: serde_json::Value) -> ModelRules {
        serde_json::from_value(json).unwrap()
    }

    fn server() -> ServerModels {
        ServerModels {
            base_urls: BTreeMap::from([(ModelProvider::Openai, "http://own:1/v1".to_owned())]),
            keyed: BTreeSet::from([ModelProvider::Openai]),
            allowed: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
            limits: ModelLimits { tokens: Some(10), cost_micros: None },
            ..ServerModels::default()
        }
    }

    #[test]
    fn nobody_widens_what_those_above_say() {
        let none = BTreeMap::new();
        let project = rules(json!({ "allowed": ["b", "c", "d"], "limits": { "tokens": 20, "cost_micros": 5 } }));
        let session = rules(json!({ "allowed": ["c", "d", "a"], "limits": { "tokens": 3 } }));
        let said = |owner, rules| Said { owner, rules, variables: &none };
        let owners = [said(ModelOwner::Project, &project), said(ModelOwner::Session, &session)];
        let access = server().access(&owners);
        assert_eq!(access.allowed, Some(vec![("c".to_owned(), ModelOwner::Server)]));
        assert_eq!(access.limits, ModelLimits { tokens: Some(3), cost_micros: Some(5) });
        let open = ServerModels { allowed: Vec::new(), ..server() };
        let names: Vec<_> =
            open.known(&open.access(&owners), Some("c")).into_iter().map(|m| (m.id, m.named_by)).collect();
        assert_eq!(names, ["c", "d"].map(|id| (id.to_owned(), ModelOwner::Project)));
        // Nothing in common is nothing, not everything.
        let other = rules(json!({ "allowed": ["x"] }));
        let access = server().access(&[said(ModelOwner::Agent, &other)]);
        let endpoint = server().endpoint(access, None, ModelBudget::default()).unwrap();
        assert_eq!(endpoint.allowed_models, Some(Vec::new()));
    }

    #[test]
    fn a_key_goes_only_where_its_owner_says() {
        let (none, own) = (BTreeMap::new(), BTreeMap::from([("KEY".to_owned(), "project/p/1".to_owned())]));
        let server_keys = BTreeMap::from([(ModelProvider::Openai, Secret::new("canary-server".to_owned()))]);
        let project = rules(json!({ "endpoints": { "anthropic": { "key_variable": "KEY" } } }));
        let session = rules(
            json!({ "endpoints": { "openai": { "base_url": "https://elsewhere" }, "anthropic": { "base_url": "https://a" } } }),
        );
        let of_project = Said { owner: ModelOwner::Project, rules: &project, variables: &own };
        let of_session = Said { owner: ModelOwner::Session, rules: &session, variables: &none };
        let file = |access: &ModelAccess| {
            let keys = access.keys_file(&server_keys, |id| (id == "project/p/1").then(|| "canary-project".to_owned()));
            keys.unwrap().map(|keys| serde_json::from_str::<serde_json::Value>(keys.reveal()).unwrap())
        };
        let access = server().access(&[of_project]);
        let expected = json!({ "openai_chat": "canary-server", "openai_responses": "canary-server", "anthropic": "canary-project" });
        assert_eq!(file(&access), Some(expected));
        let endpoint = server().endpoint(access.clone(), None, ModelBudget::default()).unwrap();
        assert_eq!(endpoint.base_urls[&ModelDialect::Anthropic], "https://api.anthropic.com");
        assert_eq!(endpoint.public_only, BTreeSet::from([ModelDialect::Anthropic]));
        assert_eq!(access.sealed_keys().collect::<Vec<_>>(), ["project/p/1"]);
        // Neither the server's nor the project's goes to the session's addresses.
        assert_eq!(file(&server().access(&[of_project, of_session])), None);
        assert!(access.keys_file(&server_keys, |_| None).is_err());
    }
}
