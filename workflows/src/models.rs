//! Where sessions' models are asked.

use ambient_compute::Secret;
use ambient_domain::session::Session;
use ambient_runner_protocol::{ModelBudget, ModelEndpoint};

/// The server's endpoint for models, and its keys.
#[derive(Debug, Clone, Default)]
pub struct Models {
    /// None = sessions have no way to models but their own.
    pub endpoint: Option<ModelEndpoint>,
    /// A JSON object with a key for each dialect that wants one.
    pub keys: Option<Secret>,
}

impl Models {
    /// The endpoint for one session, which has used so many tokens, and so many millionths of the currency, before.
    pub(crate) fn endpoint_of(&self, session: &Session, (tokens, cost_micros): (u64, u64)) -> Option<ModelEndpoint> {
        let endpoint = self.endpoint.clone()?;
        let budget = ModelBudget { spent_tokens: tokens, spent_cost_micros: cost_micros, ..endpoint.budget };
        Some(ModelEndpoint { model: session.spec.llm_model.clone(), budget, ..endpoint })
    }

    /// Whether it matters what a session has used before.
    pub(crate) fn has_budget(&self) -> bool {
        let budget = self.endpoint.as_ref().map(|endpoint| endpoint.budget);
        budget.is_some_and(|budget| budget.tokens.is_some() || budget.cost_micros.is_some())
    }
}
