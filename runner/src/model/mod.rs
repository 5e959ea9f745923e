//! The model proxy: the only way from an agent to its models that has the endpoint's keys.
//!
//! It listens on the machine's loopback interface, which the agent's namespaces share, or on that of the agent's own network, and lets
//! requests through that carry the token of this attempt. Invariants: a key goes to its dialect's base URL and nowhere else; of a request nothing that could be a credential, and of
//! its address nothing but the dialect's own paths, is passed on; every call that has reached the endpoint is counted once, also one
//! that was broken off, by an estimate; no call outlives the turn that was stopped.

mod budget;
mod calls;
mod count;
mod headers;
mod meter;
mod passing;
mod placeholders;
mod pool;
mod refusal;
mod request;
mod route;
mod server;
#[cfg(test)]
mod tests;
mod tls;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use ambient_runner_protocol::{ModelBudget, ModelDialect, ModelEndpoint};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{life, log::EventLog};
pub(crate) use budget::Spent;
pub(crate) use placeholders::Access;
use {calls::Calls, pool::Pool, server::Proxy};

/// Largest key, bytes.
const MAX_KEY: usize = 16 * 1024;

/// A running proxy; it ends with this.
pub(crate) struct ModelProxy {
    access: Access,
    calls: Arc<Calls>,
    proxy: Arc<Proxy>,
    server: JoinHandle<()>,
}

impl ModelProxy {
    /// Starts it on `listener`, which has a port of a loopback interface. `spent` is what earlier attempts of this run have used.
    ///
    /// # Errors
    /// In words without secrets: the endpoint or a key is not usable, or the listener has no port.
    pub(crate) async fn start(
        endpoint: &ModelEndpoint,
        keys: &Path,
        spent: Spent,
        log: EventLog,
        listener: TcpListener,
    ) -> Result<Self, String> {
        let keys = read_keys(keys)?;
        let pools = endpoint.base_urls.iter().map(|(dialect, url)| {
            let private = endpoint.public_only.contains(dialect).then_some(endpoint.private_hosts.as_slice());
            let pool =
                Pool::new(url, private).map_err(|e| format!("the model endpoint's base URL for {dialect:?}: {e}"))?;
            Ok::<_, String>((*dialect, Arc::new(pool)))
        });
        let pools = pools.collect::<Result<_, _>>()?;
        let system = |error: std::io::Error| format!("the model proxy cannot be started: {error}");
        let token = life::random_id().map_err(system)?;
        let port = listener.local_addr().map_err(system)?.port();
        let calls = Arc::new(Calls::new(endpoint, spent, log));
        let access = Access::new(port, token, endpoint.model.clone());
        let proxy = Arc::new(Proxy::new(endpoint, pools, &keys, &access, calls.clone()));
        let server = tokio::spawn(server::serve(listener, proxy.clone()));
        Ok(Self { access, calls, proxy, server })
    }

    /// How an agent reaches it.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Calls from now on belong to this turn.
    pub(crate) fn begin_turn(&self, turn_id: &str) {
        self.calls.begin_turn(turn_id);
    }

    /// How much may be used from now on, in place of what was said before.
    pub(crate) fn set_budget(&self, budget: ModelBudget) {
        self.calls.set_budget(budget);
    }

    /// Waits until a call of this turn is refused because the budget is used up.
    pub(crate) async fn exceeded(&self) {
        self.calls.exceeded().await;
    }

    /// Why a call of this turn was refused, if one was because the budget is used up.
    pub(crate) fn why_exceeded(&self) -> Option<String> {
        self.calls.why_exceeded()
    }

    /// Closes every connection to the endpoint, refuses calls until the next turn begins, and waits until what was used is in the log.
    pub(crate) async fn close_calls(&self) {
        self.calls.close().await;
        self.proxy.close_idle();
    }
}

impl Drop for ModelProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// None, if there is no file: then the endpoint wants no key.
fn read_keys(file: &Path) -> Result<BTreeMap<ModelDialect, String>, String> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(format!("the model endpoint's keys cannot be read: {error}")),
    };
    // The parser's error could show one.
    let keys: BTreeMap<ModelDialect, String> =
        serde_json::from_slice(&bytes).map_err(|_| "the model endpoint's keys cannot be read".to_owned())?;
    let is_usable =
        |key: &str| !key.is_empty() && key.len() <= MAX_KEY && key.bytes().all(|byte| byte.is_ascii_graphic());
    match keys.iter().find(|(_, key)| !is_usable(key)) {
        Some((dialect, _)) => Err(format!("the model endpoint's key for {dialect:?} is not usable")),
        None => Ok(keys),
    }
}

/// The dialect's name for people.
fn name(dialect: ModelDialect) -> &'static str {
    match dialect {
        ModelDialect::OpenaiChat => "OpenAI chat completions",
        ModelDialect::OpenaiResponses => "OpenAI responses",
        ModelDialect::Anthropic => "Anthropic messages",
        ModelDialect::Gemini => "Gemini",
    }
}
